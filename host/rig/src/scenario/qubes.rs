//! Qubes: daemons in dom0 speak with the firewall over real channels, by libxenvchan.

use super::Where::Everywhere;
use super::devices::move_to;
use super::lifecycle::{SPARE, SPARE_IP, spare_config};
use super::{Scenario, same, scenario, traffic};
use crate::config::{Config, Vif};
use crate::domain::{Domain, Way};
use crate::error::{Result, ensure};
use crate::peers::Peers;
use crate::plan::{PERSONAL, REJECTED, RESOLVER, SERVER, SYS_NET, VIRTUAL_DNS, WORK};
use crate::probe::Connect;
use crate::world::{Firewall, World};
use agent::dom0::Order;
use std::net::Ipv4Addr;

pub(super) const SCENARIOS: &[Scenario] = &[scenario(
    "qubes",
    "over real vchan: rules on their commit, calls both ways, daemons that restart",
    Everywhere,
    qubes,
)];

const ANY: &str = "action=accept";

fn qubes(world: &mut World) -> Result<()> {
    if !matches!(world.firewall, Firewall::Tidegate { .. }) {
        return Ok(());
    }
    let outcome = in_qubes(world);
    outcome.map_err(|e| crate::Error::new(format!("{e}\n{}", world.xen.console_tail(SPARE, 30))))
}

/// A firewall without a policy and without a word on its command line, as in a fresh Qubes, beside the
/// usual one.
fn in_qubes(world: &World) -> Result<()> {
    let bare = Config {
        kernel: "/guest/kernel".into(),
        extra: String::new(),
        ..spare_config(world, world.firewall.memory())
    };
    let spare = world.xen.create_paused(&bare)?;
    let [own, gateway, real] = [SPARE_IP, SYS_NET, RESOLVER].map(|addr| addr.to_string());
    let [first, second] = VIRTUAL_DNS.map(|addr| addr.to_string());
    let clients = format!("{} {}", WORK.ip, PERSONAL.ip);
    let entries = [
        ("/name", "sys-tidegate"),
        ("/qubes-random-seed", "4v3uLQXYV3Wt9Hk2KQ9UeZJ2d2kBkQWlBJ1yY1b7xQk8l0tYwq7JmHn2cA=="),
        ("/qubes-ip", &*own),
        ("/qubes-gateway", &*gateway),
        ("/qubes-netmask", "255.255.255.255"),
        ("/qubes-primary-dns", &*real),
        ("/qubes-secondary-dns", &*real),
        ("/qubes-netvm-primary-dns", &*first),
        ("/qubes-netvm-secondary-dns", &*second),
        ("/connected-ips", &*clients),
    ];
    let peers = Peers::start(&world.xen.dom0, spare.id, &entries)?;
    let outcome = speak(world, &peers, &spare);
    let printed = peers.printed();
    peers.stop()?;
    outcome.map_err(|e| crate::Error::new(format!("{e}\nthe daemons saw:\n{printed}")))?;
    for client in [WORK, PERSONAL] {
        move_to(world, client, &world.client_vif(client))?;
    }
    world.xen.destroy(SPARE)?;
    world.xen.wait_gone(&spare, crate::DEADLINE)
}

fn speak(world: &World, peers: &Peers, spare: &Domain) -> Result<()> {
    peers.rules(&PERSONAL.ip.to_string(), &[ANY], false)?;
    peers.write(&format!("/qubes-firewall/{}", PERSONAL.ip), "")?;
    world.xen.unpause(SPARE)?;
    peers.wait_printed(0, "\"live\":true")?;
    peers.wait_printed(0, "\"greeted\":true")?;
    world.wait_uplink(spare)?;
    for client in [WORK, PERSONAL] {
        let there = Vif { backend: Some(SPARE.into()), ..world.client_vif(client) };
        move_to(world, client, &there)?;
    }
    rules(world, peers)?;
    fake(world, peers)?;
    restarts(world, peers)?;
    calls(peers)?;
    same("daemons that died", &peers.state()?.deaths, &Vec::<String>::new())
}

fn sees(world: &World, client: crate::plan::Client, to: Ipv4Addr, open: bool) -> Result<()> {
    let seen = world.client(client)?.connect(to, 80)?;
    let right = match open {
        true => matches!(seen, Connect::Open),
        false => matches!(seen, Connect::Unreachable(_)),
    };
    ensure(right, || format!("{} to {to}: {seen:?}, expected open: {open}", client.name))
}

fn rules(world: &World, peers: &Peers) -> Result<()> {
    let work = WORK.ip.to_string();
    sees(world, PERSONAL, SERVER, true)?;
    sees(world, WORK, SERVER, false)?;
    let narrow = format!("action=accept dst4={SERVER}/32 proto=tcp");
    peers.rules(&work, &[&narrow, "action=accept specialtarget=dns"], true)?;
    sees(world, WORK, SERVER, true)?;
    sees(world, WORK, REJECTED, false)?;
    let answers = world.client(WORK)?.resolve(VIRTUAL_DNS[0], "www.example.org", false)?;
    ensure(!answers.is_empty(), || "the resolvers do not answer".into())?;
    // Without the commit nothing has changed.
    peers.rules(&work, &["action=drop"], false)?;
    sees(world, WORK, SERVER, true)?;
    peers.commit(&work)?;
    sees(world, WORK, SERVER, false)?;
    // Not understood: blocked and said; the other goes on.
    let mark = world.xen.console_mark(SPARE);
    peers.rules(&work, &[ANY, "action=accept dpi=NO"], true)?;
    world.xen.wait_console(SPARE, mark, "it is blocked", crate::DEADLINE)?;
    sees(world, WORK, SERVER, false)?;
    sees(world, PERSONAL, SERVER, true)?;
    under_load(world, peers, &work)
}

/// Another client's datagrams while rules change: each is answered.
fn under_load(world: &World, peers: &Peers, work: &str) -> Result<()> {
    let personal = world.client(PERSONAL)?;
    let echoes = std::thread::scope(|scope| {
        let load = scope.spawn(|| personal.udp(SERVER, 7, 300, 200));
        for round in 0..6 {
            let rule = if round % 2 == 0 { ANY } else { "action=drop" };
            let many = vec![rule; 200];
            peers.rules(work, &many, true)?;
        }
        load.join().map_err(|_| crate::Error::new("the load broke"))?
    })?;
    same("datagrams answered under load", &echoes.right, &300)?;
    peers.rules(work, &[ANY], true)?;
    sees(world, WORK, SERVER, true)
}

/// A Linux client with a fake address: it finds its fake gateway by ARP, and believes every sum it gets,
/// those of large frames that nobody has made yet among them.
fn fake(world: &World, peers: &Peers) -> Result<()> {
    let (address, gateway) = (Ipv4Addr::new(192, 168, 77, 20), Ipv4Addr::new(192, 168, 77, 1));
    let (work, client) = (WORK.ip.to_string(), world.client(WORK)?);
    let key = |name: &str| format!("/mapped-ip/{work}/{name}");
    peers.write(&key("visible-ip"), &address.to_string())?;
    peers.write(&key("visible-gateway"), &gateway.to_string())?;
    peers.rules(&work, &[ANY], true)?;
    readdress(&client, address, gateway)?;
    same("replies of the fake gateway", &client.ping(gateway, 2)?.received, &2)?;
    traffic::fetch(&client, 2_000_000)?;
    client.iperf(SERVER, Way::Up, 2)?;
    same("datagrams", &client.udp(SERVER, 7, 20, 1400)?.right, &20)?;
    let answers = client.resolve(VIRTUAL_DNS[0], "www.example.org", false)?;
    ensure(!answers.is_empty(), || "the resolvers do not answer".into())?;
    peers.rules(&work, &["action=drop"], true)?;
    sees(world, WORK, SERVER, false)?;
    sees(world, PERSONAL, SERVER, true)?;
    // As dom0 writes it for a client without one.
    peers.write(&key("visible-ip"), &work)?;
    peers.rules(&work, &[ANY], true)?;
    readdress(&client, WORK.ip, SPARE_IP)?;
    sees(world, WORK, SERVER, true)
}

/// Gives a client another address and gateway, of which it knows no MAC.
fn readdress(client: &Domain, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    let script = format!(
        "/bin/ip addr flush dev eth0; /bin/ip addr add {address}/32 dev eth0; \
         /bin/ip route replace {gateway} dev eth0 src {address}; \
         /bin/ip route replace default via {gateway} dev eth0 onlink src {address}"
    );
    client.sh(&script).map(drop)
}

fn restarts(world: &World, peers: &Peers) -> Result<()> {
    let work = WORK.ip.to_string();
    let mark = world.xen.console_mark(SPARE);
    peers.done(&Order::StopDatabase)?;
    world.xen.wait_console(SPARE, mark, "QubesDB is gone", crate::DEADLINE)?;
    sees(world, WORK, SERVER, true)?;
    peers.rules(&work, &["action=drop"], false)?;
    peers.write(&format!("/qubes-firewall/{work}"), "")?;
    let mark = peers.printed().len() as u64;
    peers.done(&Order::StartDatabase)?;
    peers.wait_printed(mark, &format!("wrote /qubes-firewall-handled/{work}="))?;
    sees(world, WORK, SERVER, false)?;
    // Nonsense costs a connection, which is made anew.
    let mark = peers.printed().len() as u64;
    peers.done(&Order::Corrupt { bytes: vec![0xff; 72] })?;
    peers.wait_printed(mark, "\"live\":false")?;
    peers.wait_printed(mark, "\"live\":true")?;
    peers.rules(&work, &[ANY], true)?;
    sees(world, WORK, SERVER, true)?;
    let mark = peers.printed().len() as u64;
    peers.done(&Order::RestartQrexec)?;
    peers.wait_printed(mark, "\"greeted\":true")
}

fn calls(peers: &Peers) -> Result<()> {
    for (service, code) in [
        ("qubes.WaitForSession", 0),
        ("qubes.SetDateTime", 0),
        ("qubes.SuspendPreAll", 0),
        ("qubes.VMShell", 127),
    ] {
        same(service, &peers.call(service, "2026-11-22T19:20:00+00:00\n")?.1, &Some(code))?;
    }
    let (status, code) = peers.call("tidegate.Status", "")?;
    let line = format!("client {} rules 1\n", WORK.ip);
    ensure(code == Some(0) && status.contains(&line), || format!("Status: {code:?}\n{status}"))?;
    let asked = format!("{} {SERVER} tcp 80\n", WORK.ip);
    let (explained, _) = peers.call("tidegate.Explain", &asked)?;
    ensure(explained.starts_with("accept"), || format!("Explain: {explained}"))?;
    let (log, _) = peers.call("tidegate.Log", "")?;
    ensure(log.contains("it is blocked"), || format!("Log: {log}"))?;
    let (stats, _) = peers.call("tidegate.Stats", "")?;
    ensure(stats.contains("drop-rule-reject"), || format!("Stats: {stats}"))?;
    let state = peers.state()?;
    same("calls with a port", &state.open_calls, &0)
}
