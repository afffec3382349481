//! What befalls an uplink on a real machine: another index, another backend domain, which is paused and
//! dies; and a second uplink beside it. The clients' interfaces are not touched by any of it.

use super::Where::{Kernel, Tidegate};
use super::devices::move_to;
use super::lifecycle::{SPARE, SPARE_IP, spare_config};
use super::load::tool;
use super::traffic::fetch;
use super::{Scenario, same, scenario};
use crate::config::{Config, Vif};
use crate::domain::{DEADLINE, Domain, Way};
use crate::error::{Context as _, Error, Result, ensure};
use crate::plan::{PERSONAL, SERVER, WORK};
use crate::probe::Connect;
use crate::world::{FIREWALL, World};
use agent::Condition;
use std::net::Ipv4Addr;
use std::thread;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("uplink-index", "an uplink under another index takes over", Tidegate, other_index),
    scenario(
        "uplink-domain",
        "another domain becomes the uplink, is paused and dies",
        Tidegate,
        other_domain,
    ),
    scenario(
        "two-uplinks",
        "each server is reached by its own uplink, and one goes and comes beside the other",
        Kernel,
        two_uplinks,
    ),
];

/// A driver domain that stands in for sys-net.
const NET: &str = "net";
const NET_IP: Ipv4Addr = Ipv4Addr::new(10, 137, 255, 4);
const NET_MAC: &str = "00:16:3e:5e:6c:04";

/// Our address on the second uplink, and the server behind it.
const LAB_IP: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 3);
const LAB_MAC: &str = "00:16:3e:5e:6c:05";
const LAB_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 7);

/// The policy of a firewall with both.
const TWO: &str = "zone uplink = netfront 0\nzone lab = netfront 1\nzone clients = netback\n\
    route 198.18.0.0/15 on lab\n\
    policy clients -> uplink { accept }\npolicy clients -> lab { accept }\n\
    nat clients -> uplink masquerade\nnat clients -> lab masquerade\n";

/// What the console of the firewall says from now on.
struct Console {
    mark: u64,
    clients: usize,
}

impl Console {
    fn from_now(world: &World) -> Self {
        Self { mark: world.xen.console_mark(FIREWALL), clients: clients_told(world) }
    }

    fn wait(&self, world: &World, text: &str) -> Result<()> {
        world.xen.wait_console(FIREWALL, self.mark, text, DEADLINE)
    }

    /// Fails if a client's interface went down or came up since.
    fn quiet_about_clients(&self, world: &World) -> Result<()> {
        same("lines about clients", &clients_told(world), &self.clients)
    }
}

fn clients_told(world: &World) -> usize {
    world.xen.console(FIREWALL).lines().filter(|line| line.starts_with("client ")).count()
}

fn uplink_vif(world: &World) -> Result<Vif> {
    let vif = world.firewall_config().vifs.into_iter().next();
    vif.ok_or_else(|| crate::error::Error::new("the firewall has no uplink"))
}

fn other_index(world: &mut World) -> Result<()> {
    let vif = uplink_vif(world)?;
    let console = Console::from_now(world);
    world.xen.network_attach(FIREWALL, &vif)?;
    console.wait(world, "device/vif/1 is not used: the uplink is device/vif/0")?;
    world.xen.network_detach(FIREWALL, 0)?;
    console.wait(world, "uplink up: domain 0")?;
    // The script of the one that went has run last: the route is the other's again.
    world.xen.dom0.sh(&format!("/bin/ip route replace {}/32 dev {}", vif.ip, dom0_end(world)?))?;
    fetch(&world.client(WORK)?, 200_000)?;
    let console_again = Console::from_now(world);
    world.xen.network_detach(FIREWALL, 1)?;
    world.xen.network_attach(FIREWALL, &vif)?;
    console_again.wait(world, "uplink up: domain 0")?;
    world.wait_uplink(&world.fw()?)?;
    fetch(&world.client(WORK)?, 200_000)?;
    console.quiet_about_clients(world)
}

/// dom0's end of the uplink that is left.
fn dom0_end(world: &World) -> Result<String> {
    let fw = world.fw()?;
    let handles = world.xen.list(&format!("/local/domain/0/backend/vif/{}", fw.id))?;
    let handle = handles.last().cloned().unwrap_or_default();
    Ok(format!("vif{}.{handle}", fw.id))
}

fn other_domain(world: &mut World) -> Result<()> {
    let console = Console::from_now(world);
    let net = start_net(world)?;
    let through_net = Vif { backend: Some(NET.into()), ..uplink_vif(world)? };
    world.xen.network_detach(FIREWALL, 0)?;
    world.xen.network_attach(FIREWALL, &through_net)?;
    console.wait(world, &format!("uplink up: domain {}", net.id))?;
    let work = world.client(WORK)?;
    fetch(&work, 200_000).context("through another domain")?;

    world.xen.pause(NET)?;
    let waited = work.ping(world.gateway(), 3);
    let lost = work.connect_unanswered(SERVER, 80);
    world.xen.unpause(NET)?;
    same("replies of the gateway meanwhile", &waited?.received, &3)?;
    same("what the client saw meanwhile", &lost?, &Connect::Silent)?;
    fetch(&work, 200_000).context("after the pause")?;

    let died = Console::from_now(world);
    world.xen.destroy(NET)?;
    died.wait(world, "uplink down")?;
    let seen = work.connect(SERVER, 80)?;
    ensure(matches!(seen, Connect::Unreachable(_)), || format!("the client saw {seen:?}"))?;
    same("replies of the gateway", &work.ping(world.gateway(), 3)?.received, &3)?;

    // What its end of the device has left is cleaned up as Qubes does it, by detaching.
    let detached = world.xen.network_detach(FIREWALL, 0);
    world.xen.network_attach(FIREWALL, &uplink_vif(world)?)?;
    died.wait(world, "uplink up: domain 0")?;
    detached.context("detaching from a domain that is gone")?;
    fetch(&work, 200_000).context("through dom0 again")?;
    fetch(&world.client(PERSONAL)?, 200_000).context("the other client")?;
    console.quiet_about_clients(world)
}

/// A Linux driver domain with an uplink of its own.
fn start_net(world: &World) -> Result<Domain> {
    let vif = Vif { backend: None, mac: NET_MAC.into(), ip: NET_IP, untrusted: false };
    let config = world.driver_domain(NET, NET_IP, vif);
    let mark = world.xen.console_mark(NET);
    let net = world.xen.create(&config)?;
    world.wait_uplink(&net)?;
    world.wait_linux(&net, mark)?;
    net.wait(Condition::Exists { path: "/run/network-up".into() }, DEADLINE)?;
    Ok(net)
}

/// A second firewall beside the first, with two uplinks. All of them end in dom0, but each server sees
/// from which address of ours a client came.
fn two_uplinks(world: &mut World) -> Result<()> {
    let dom0 = world.xen.dom0.clone();
    dom0.write_file("/run/two.tide", TWO)?;
    tool(&dom0, "compile /run/two.tide -o /run/two.blob")?;
    dom0.sh(&format!("/bin/ip addr add {LAB_SERVER}/32 dev internet"))?;
    let server = dom0.serve("http", LAB_SERVER, 80)?;
    let lab = Vif { backend: None, mac: LAB_MAC.into(), ip: LAB_IP, untrusted: false };
    let base = spare_config(world, 32);
    let config = Config {
        ramdisk: Some("/run/two.blob".into()),
        extra: format!("{} ip.1={LAB_IP}/24", base.extra),
        vifs: [base.vifs.clone(), vec![lab.clone()]].concat(),
        ..base
    };
    let mark = world.xen.console_mark(SPARE);
    let spare = world.xen.create(&config)?;
    world.wait_uplink(&spare)?;
    world.xen.wait_console(SPARE, mark, "uplink 1 up: domain 0", DEADLINE)?;
    move_to(world, WORK, &Vif { backend: Some(SPARE.into()), ..world.client_vif(WORK) })?;
    let work = world.client(WORK)?;
    let served = by_both(world, &work, &server).and_then(|()| lab_again(world, &work, &lab));
    move_to(world, WORK, &world.client_vif(WORK))?;
    world.xen.destroy(SPARE)?;
    world.xen.wait_gone(&spare, DEADLINE)?;
    dom0.stop(&server)?;
    dom0.sh(&format!("/bin/ip addr del {LAB_SERVER}/32 dev internet"))?;
    served
}

/// Each server sees the address that we have on the uplink it is behind.
fn by_both(world: &World, work: &Domain, lab_server: &str) -> Result<()> {
    for (server, log, address) in
        [(SERVER, format!("http-{SERVER}-80"), SPARE_IP), (LAB_SERVER, lab_server.into(), LAB_IP)]
    {
        let got = work.fetch(server, 80, 500_000)?;
        same("status, size, intact", &(got.status, got.bytes, got.intact), &(200, 500_000, true))?;
        let printed = world.xen.dom0.printed(&log)?;
        let last = printed.lines().last().unwrap_or_default();
        ensure(last.starts_with(&format!("http from {address}:")), || {
            format!("the server {server} saw {last:?}, not {address}")
        })?;
    }
    Ok(())
}

/// The second uplink goes and comes while a transfer goes on by the first.
fn lab_again(world: &World, work: &Domain, lab: &Vif) -> Result<()> {
    thread::scope(|scope| {
        let transfer = scope.spawn(|| work.iperf(SERVER, Way::Up, 20));
        let mark = world.xen.console_mark(SPARE);
        world.xen.network_detach(SPARE, 1)?;
        world.xen.wait_console(SPARE, mark, "uplink 1 down", DEADLINE)?;
        let seen = work.connect(LAB_SERVER, 80)?;
        ensure(matches!(seen, Connect::Unreachable(_)), || format!("the client saw {seen:?}"))?;
        same("a connection by the first", &work.connect(SERVER, 80)?, &Connect::Open)?;
        let mark = world.xen.console_mark(SPARE);
        world.xen.network_attach(SPARE, lab)?;
        world.xen.wait_console(SPARE, mark, "uplink 1 up: domain 0", DEADLINE)?;
        let got = work.fetch(LAB_SERVER, 80, 200_000)?;
        same("status, size, intact", &(got.status, got.bytes, got.intact), &(200, 200_000, true))?;
        let broke = |_| Err(Error::new("the transfer's thread broke"));
        transfer.join().unwrap_or_else(broke).map(drop)
    })
}
