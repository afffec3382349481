//! Many interfaces at a time, and one that comes and goes many times, with what Xen itself counts.

use super::Where::Tidegate;
use super::devices::move_to;
use super::lifecycle::{SPARE, SPARE_IP, create_spare};
use super::traffic::fetch;
use super::{Scenario, same, scenario};
use crate::config::{Config, Vif};
use crate::domain::{DEADLINE, Domain};
use crate::error::{Context as _, Error, Result, ensure};
use crate::plan::{Client, WORK};
use crate::world::World;
use std::net::Ipv4Addr;
use std::ops::Range;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("crowd", "16 MiB serve 32 vifs; one beyond the quota is named", Tidegate, crowd),
    scenario(
        "throng",
        "32 MiB serve 200 vifs where xenstored's quotas are raised",
        Tidegate,
        throng,
    ),
    scenario("in-and-out", "after 5 detaches no event channel is left over", Tidegate, in_and_out),
];

/// Interfaces that xenstored's own quotas leave room for, and those that raised ones do: with more event
/// channels than the 128 that SCHEDOP_poll takes.
const VIFS: u8 = 32;
const MANY: u8 = 200;

/// Interfaces of one Linux client: it takes 512 grants for each, of the 32,768 that Xen gives it.
const EACH: u8 = 50;

/// What C xenstored allows a domain, and what it takes for [`MANY`].
const QUOTAS: [(&str, u32, u32); 2] = [("nodes", 1000, 10_000), ("watches", 128, 1000)];

/// Whose they are. Their own interfaces are not these.
const CROWD: [Client; 4] =
    [member("crowd"), member("crowd-2"), member("crowd-3"), member("crowd-4")];

const fn member(name: &'static str) -> Client {
    Client { name, ip: Ipv4Addr::new(10, 137, 1, 0), mac: "00:16:3e:5e:6c:20" }
}

fn interface(n: u8) -> Vif {
    Vif {
        backend: Some(SPARE.into()),
        mac: format!("00:16:3e:5e:6d:{n:02x}"),
        ip: Ipv4Addr::new(10, 137, 1, n),
        untrusted: false,
    }
}

fn crowd(world: &mut World) -> Result<()> {
    with_spare(world, 16, |spare| {
        let client = gather(world, spare, CROWD[0], 0..VIFS)?;
        beyond_quota(world, spare, &client)
    })
}

fn throng(world: &mut World) -> Result<()> {
    for (what, _, raised) in QUOTAS {
        set_quota(world, what, raised)?;
    }
    let served = with_spare(world, 32, |spare| {
        for (client, first) in CROWD.into_iter().zip((0..MANY).step_by(EACH.into())) {
            gather(world, spare, client, first..first + EACH)?;
        }
        let channels = event_channels(world, spare)?;
        ensure(channels > MANY.into(), || format!("{channels} event channels for {MANY} vifs"))
    });
    for (what, usual, _) in QUOTAS {
        set_quota(world, what, usual)?;
    }
    served
}

fn set_quota(world: &World, what: &str, value: u32) -> Result<()> {
    world.xen.dom0.sh(&format!("xenstore-control quota set {what} {value}"))?;
    Ok(())
}

/// Runs with a second firewall, which is destroyed in the end, and so is the crowd.
fn with_spare(world: &World, memory: u32, run: impl FnOnce(&Domain) -> Result<()>) -> Result<()> {
    let spare = create_spare(world, memory)?;
    let served = run(&spare);
    let words = world.xen.console_tail(SPARE, 20);
    for name in CROWD.map(|client| client.name).into_iter().chain([SPARE]) {
        if let Ok(domain) = world.xen.find(name) {
            world.xen.destroy(name)?;
            world.xen.wait_gone(&domain, DEADLINE)?;
        }
    }
    served.map_err(|e| Error::new(format!("{e}\n{words}")))
}

/// A client with these interfaces, which all work.
fn gather(world: &World, spare: &Domain, client: Client, interfaces: Range<u8>) -> Result<Domain> {
    let mark = world.xen.console_mark(client.name);
    let vifs = interfaces.clone().map(interface).collect();
    let config = Config { vifs, ..world.client_config(client) };
    let client = world.xen.create(&config)?;
    world.wait_linux(&client, mark)?;
    for n in 0..u8::try_from(interfaces.len()).unwrap_or(u8::MAX) {
        connected(world, spare, &client, n)?;
    }
    speak(&client, interfaces)?;
    Ok(client)
}

/// One interface more than there is room for in XenStore; then there is.
fn beyond_quota(world: &World, spare: &Domain, client: &Domain) -> Result<()> {
    let path = format!("/local/domain/{}/data/filler", spare.id);
    fill_quota(world, &path)?;
    let mark = world.xen.console_mark(SPARE);
    let refused = world.xen.network_attach(CROWD[0].name, &interface(VIFS));
    ensure(refused.is_err(), || "there was room beyond the quota".into())?;
    let told = format!("backend/vif/{}/{VIFS}: cannot be offered, a quota", client.id);
    world.xen.wait_console(SPARE, mark, &told, DEADLINE)?;
    speak(client, VIFS - 1..VIFS).context("with the quota used up")?;
    world.xen.dom0.sh(&format!("xenstore-rm {path}"))?;
    connected(world, spare, client, VIFS).context("with room in the quota again")?;
    speak(client, VIFS..VIFS + 1)
}

/// Makes so many nodes that belong to the spare that C xenstored gives it no more. dom0 may.
fn fill_quota(world: &World, path: &str) -> Result<()> {
    for n in 0..5 {
        let nodes: String = (0..200).map(|m| format!(" {path}/{n}/{m} ''")).collect();
        world.xen.dom0.sh(&format!("xenstore-write{nodes}"))?;
    }
    Ok(())
}

fn connected(world: &World, spare: &Domain, client: &Domain, n: u8) -> Result<()> {
    let path = format!("/local/domain/{}/backend/vif/{}/{n}/state", spare.id, client.id);
    world.xen.wait_for(&path, "4", DEADLINE)
}

/// Pings the gateway through each of these interfaces of a client, one after the other. One order for
/// all of them: an order's way through the consoles costs more than what it does.
fn speak(client: &Domain, interfaces: Range<u8>) -> Result<()> {
    let pairs: Vec<_> =
        interfaces.clone().map(|n| format!("{},{}", n % EACH, interface(n).ip)).collect();
    let script = format!(
        "for pair in {}; do
            eth=eth${{pair%,*}} ip=${{pair#*,}}
            until [ -e /sys/class/net/$eth ]; do usleep 10000; done
            /bin/ip -batch - <<end
link set $eth up
addr replace $ip/32 dev $eth
neigh replace {SPARE_IP} lladdr fe:ff:ff:ff:ff:ff dev $eth nud permanent
route replace {SPARE_IP} dev $eth src $ip
end
            ping -c 1 -W 5 {SPARE_IP} | sed -n \"s/.*, \\([0-9]*\\) packets received.*/$eth \\1/p\"
        done",
        pairs.join(" ")
    );
    let count = u32::try_from(interfaces.len()).unwrap_or(u32::MAX);
    let exit = client.exec_within(&["sh", "-c", &script], DEADLINE.saturating_mul(count))?;
    let all: String = interfaces.map(|n| format!("eth{} 1\n", n % EACH)).collect();
    same("replies by interface", &exit.stdout, &all).context(exit.stderr)
}

fn in_and_out(world: &mut World) -> Result<()> {
    let vif = world.client_vif(WORK);
    move_to(world, WORK, &vif)?;
    let fw = world.fw()?;
    let before = event_channels(world, &fw)?;
    for _ in 0..5 {
        move_to(world, WORK, &vif)?;
    }
    fetch(&world.client(WORK)?, 200_000)?;
    same("event channels of the firewall", &event_channels(world, &fw)?, &before)
}

/// How many event channels Xen knows of a firewall: what its debug key `e` says.
fn event_channels(world: &World, fw: &Domain) -> Result<usize> {
    world.xen.xl(&["dmesg", "-c"])?;
    world.xen.xl(&["debug-keys", "e"])?;
    let said = world.xen.xl(&["dmesg"])?;
    let head = format!("Event channel information for domain {}:", fw.id);
    let mut lines = said.lines().skip_while(|line| !line.contains(&head)).skip(1);
    let of_fw = lines.by_ref().take_while(|line| !line.contains("information for domain"));
    let ports = of_fw.filter(|line| line.contains("s=")).count();
    ensure(ports > 2, || format!("{} has {ports} event channels:\n{said}", fw.name))?;
    Ok(ports)
}
