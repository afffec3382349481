//! Traffic that must pass, unharmed.

use super::Where::{Everywhere, Full};
use super::{Scenario, same, scenario};
use crate::domain::{Domain, Way};
use crate::error::{Result, ensure};
use crate::plan::{FIREWALL, PERSONAL, RESOLVER, SERVER, UNTRUSTED, VIRTUAL_DNS, WORK};
use crate::probe::{Connect, DnsAnswer, Echoes};
use crate::world::World;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("ping-gateway", "the firewall answers its client's ping", Everywhere, ping_gateway),
    scenario("ping-internet", "echo requests and replies are translated", Everywhere, ping),
    scenario("udp", "datagrams of many sizes come back as they were", Everywhere, udp),
    scenario("http", "a document arrives byte by byte", Everywhere, http),
    scenario("tcp-up", "a client sends in bulk", Everywhere, tcp_up),
    scenario("tcp-down", "a client receives in bulk", Everywhere, tcp_down),
    scenario("tcp-refused", "a RST of the server reaches the client", Everywhere, refused),
    scenario("traceroute", "the firewall is a hop, and errors come back", Everywhere, traceroute),
    scenario("dns-udp", "A and AAAA on one socket, through the redirect", Everywhere, dns_udp),
    scenario("dns-tcp", "the redirect works for TCP too", Everywhere, dns_tcp),
    scenario("two-clients", "two clients at once do not harm each other", Full, two_clients),
    scenario("untrusted", "a client with bounce buffers works as well", Everywhere, untrusted),
];

fn ping_gateway(world: &mut World) -> Result<()> {
    answered(&world.client(WORK)?, world.gateway())
}

fn ping(world: &mut World) -> Result<()> {
    answered(&world.client(WORK)?, SERVER)?;
    answered(&world.client(PERSONAL)?, SERVER)
}

fn answered(client: &Domain, by: Ipv4Addr) -> Result<()> {
    let ping = client.ping(by, 5)?;
    same(&format!("replies to {}'s ping to {by}", client.name), &ping.received, &5)
}

fn udp(world: &mut World) -> Result<()> {
    let work = world.client(WORK)?;
    for (count, size) in [(20, 1), (20, 64), (10, 1000), (10, 1472)] {
        let seen = work.udp(SERVER, 7, count, size)?;
        let all = Echoes { sent: count, right: count, wrong: 0, errors: 0 };
        same(&format!("echoes of {size} bytes"), &seen, &all)?;
    }
    Ok(())
}

fn http(world: &mut World) -> Result<()> {
    fetch(&world.client(WORK)?, 3_000_000)
}

/// Fetches a document and looks at every byte of it.
pub(super) fn fetch(client: &Domain, size: u64) -> Result<()> {
    let got = client.fetch(SERVER, 80, size)?;
    same("status, size, intact", &(got.status, got.bytes, got.intact), &(200, size, true))
}

fn tcp_up(world: &mut World) -> Result<()> {
    world.client(WORK)?.iperf(SERVER, Way::Up, 3).map(drop)
}

fn tcp_down(world: &mut World) -> Result<()> {
    world.client(WORK)?.iperf(SERVER, Way::Down, 3).map(drop)
}

fn refused(world: &mut World) -> Result<()> {
    same("port 81", &world.client(WORK)?.connect(SERVER, 81)?, &Connect::Refused)
}

/// The first hop is told by the firewall itself, the second by a port unreachable that quotes a
/// translated datagram.
fn traceroute(world: &mut World) -> Result<()> {
    let printed = world.client(WORK)?.sh(&format!("traceroute -n -m 3 -q 1 -w 10 {SERVER}"))?;
    let hops: Vec<&str> = printed.lines().filter_map(hop).collect();
    let expected = [world.gateway().to_string(), SERVER.to_string()];
    same("hops", &hops, &expected.iter().map(String::as_str).collect())
}

/// The address in a line such as ` 1  10.137.255.2  1.234 ms`.
fn hop(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.next()?.parse::<u8>().ok()?;
    words.next()
}

fn dns_udp(world: &mut World) -> Result<()> {
    VIRTUAL_DNS.into_iter().try_for_each(|resolver| resolves(world, resolver, false))
}

fn dns_tcp(world: &mut World) -> Result<()> {
    resolves(world, VIRTUAL_DNS[0], true)
}

/// Both answers come, from the address that was asked, and the resolver saw the firewall's address.
fn resolves(world: &World, resolver: Ipv4Addr, tcp: bool) -> Result<()> {
    let way = if tcp { "tcp" } else { "udp" };
    let name = format!("{way}-{}.example.test", resolver.octets()[3]);
    let mut answers = world.client(WORK)?.resolve(resolver, &name, tcp)?;
    answers.sort_by_key(|answer| answer.addresses.clone());
    let from = SocketAddr::from((resolver, 53));
    let expected = ["93.184.216.34", "2001:db8::34"]
        .map(|address| DnsAnswer { from, addresses: address.parse().into_iter().collect() });
    same("answers", &answers, &expected.to_vec())?;
    let asked = world.xen.dom0.printed(&format!("dns-{RESOLVER}-53"))?;
    let seen: Vec<_> = asked.lines().filter(|line| line.contains(&name)).collect();
    let translated = seen.iter().all(|line| line.contains(&format!("from {FIREWALL}:")));
    ensure(seen.len() == 2 && translated, || format!("the resolver saw {seen:?}"))
}

fn two_clients(world: &mut World) -> Result<()> {
    let (work, personal) = (world.client(WORK)?, world.client(PERSONAL)?);
    thread::scope(|scope| {
        let both = [&work, &personal].map(|client| scope.spawn(|| fetch(client, 2_000_000)));
        both.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(crate::Error::new("a probe's thread broke")))
        })
    })
}

fn untrusted(world: &mut World) -> Result<()> {
    world.start_client(UNTRUSTED)?;
    let client = world.client(UNTRUSTED)?;
    let trusted = format!("/local/domain/{}/device/vif/0/trusted", client.id);
    same("its interface's trust", &world.xen.read(&trusted)?.as_str(), &"0")?;
    answered(&client, SERVER)?;
    fetch(&client, 2_000_000)?;
    client.iperf(SERVER, Way::Up, 2)?;
    client.iperf(SERVER, Way::Down, 2)?;
    world.destroy_client(UNTRUSTED)
}
