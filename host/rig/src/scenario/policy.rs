//! Traffic that must not pass, and how its sender learns of it.

use super::Where::{Everywhere, Full, Tidegate};
use super::{Scenario, same, scenario};
use crate::domain::Domain;
use crate::error::{Result, ensure};
use crate::plan::{DROPPED, FIREWALL, PERSONAL, REJECTED, WORK};
use crate::probe::Connect;
use crate::world::{self, World};
use std::net::Ipv4Addr;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("reject", "policy's reject is told to the client", Everywhere, reject),
    scenario("drop", "policy's drop is silent", Everywhere, drop_silently),
    scenario("log", "the console names the rule that refused", Tidegate, log),
    scenario("inbound", "nobody outside opens anything inside", Everywhere, inbound),
    scenario("client-to-client", "clients do not reach each other", Everywhere, neighbours),
    scenario("spoofed", "a client cannot send from another's address", Full, spoofed),
];

fn reject(world: &mut World) -> Result<()> {
    let before = served(world, REJECTED)?;
    let seen = world.client(WORK)?.connect(REJECTED, 80)?;
    ensure(matches!(seen, Connect::Unreachable(_)), || format!("the client saw {seen:?}"))?;
    same("connections the server saw", &served(world, REJECTED)?, &before)
}

fn drop_silently(world: &mut World) -> Result<()> {
    let before = served(world, DROPPED)?;
    let seen = world.client(WORK)?.connect_unanswered(DROPPED, 80)?;
    same("what the client saw", &seen, &Connect::Silent)?;
    same("connections the server saw", &served(world, DROPPED)?, &before)
}

/// Connections a web server of the internet has seen.
fn served(world: &World, address: Ipv4Addr) -> Result<usize> {
    Ok(world.xen.dom0.printed(&format!("http-{address}-80"))?.lines().count())
}

fn log(world: &mut World) -> Result<()> {
    for refused in [REJECTED, DROPPED] {
        let mark = world.xen.console_mark(world::FIREWALL);
        world.client(WORK)?.connect_unanswered(refused, 80)?;
        let deadline = crate::DEADLINE;
        world.xen.wait_console(world::FIREWALL, mark, &refused.to_string(), deadline)?;
    }
    Ok(())
}

fn inbound(world: &mut World) -> Result<()> {
    let work = world.client(WORK)?;
    let server = work.serve("tcp-echo", WORK.ip, 7777)?;
    let dom0 = &world.xen.dom0;
    dom0.sh(&format!(
        "/bin/ip route replace {}/32 via {FIREWALL} onlink dev {}",
        WORK.ip,
        vif(world)?
    ))?;
    let tried = [WORK.ip, FIREWALL].map(|to| dom0.connect_unanswered(to, 7777));
    dom0.sh(&format!("/bin/ip route del {}/32", WORK.ip))?;
    let printed = work.stop(&server)?.stdout;
    for seen in tried {
        same("what the outside saw", &seen?, &Connect::Silent)?;
    }
    same("what the client's server saw", &printed.as_str(), &"")
}

/// dom0's end of the firewall's uplink.
fn vif(world: &World) -> Result<String> {
    Ok(format!("vif{}.0", world.fw()?.id))
}

fn neighbours(world: &mut World) -> Result<()> {
    let (work, personal) = (world.client(WORK)?, world.client(PERSONAL)?);
    let server = personal.serve("tcp-echo", PERSONAL.ip, 7777)?;
    let seen = work.connect_unanswered(PERSONAL.ip, 7777);
    let ping = work.ping(PERSONAL.ip, 2);
    let printed = personal.stop(&server)?.stdout;
    ensure(!matches!(seen?, Connect::Open), || "the connection opened".into())?;
    same("replies to ping", &ping?.received, &0)?;
    same("what the neighbour's server saw", &printed.as_str(), &"")
}

fn spoofed(world: &mut World) -> Result<()> {
    let work = world.client(WORK)?;
    let before = echoed(&world.xen.dom0)?;
    work.sh(&format!("/bin/ip addr add {}/32 dev eth0", PERSONAL.ip))?;
    let to = crate::plan::SERVER;
    let sent = work.udp_from(PERSONAL.ip, to, 7);
    work.sh(&format!("/bin/ip addr del {}/32 dev eth0", PERSONAL.ip))?;
    let sent = sent?;
    same("spoofed datagrams sent, answered", &(sent.sent, sent.right), &(1, 0))?;
    // What follows on the same way has arrived, so what was before it has had its chance.
    let honest = work.udp(to, 7, 1, 100)?;
    same("the honest datagram", &honest.right, &1)?;
    same("datagrams the server saw", &(echoed(&world.xen.dom0)? - before), &1)
}

/// Datagrams the echo server of the internet has seen.
fn echoed(dom0: &Domain) -> Result<usize> {
    Ok(dom0.printed(&format!("udp-echo-{}-7", crate::plan::SERVER))?.lines().count())
}
