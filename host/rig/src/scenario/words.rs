//! Words of the policy language, as clients and the uplink's domain feel them. The rules are those of
//! rig.tide.

use super::Where::{Full, Kernel, Tidegate};
use super::{Scenario, same, scenario};
use crate::domain::{DEADLINE, Domain};
use crate::error::{Result, ensure};
use crate::plan::{DROPPED, FIREWALL, RESOLVER, SERVER, SYS_NET, WORK};
use crate::probe::Connect;
use crate::world::{self, World};
use agent::Condition;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("reject-kinds", "each kind of reject is told in its own way", Full, rejects),
    scenario("limit", "so many flows begin as a limit allows, and no more", Full, limit),
    scenario("policy-names", "a name leads to where the resolver says", Kernel, names),
    scenario("forward", "the uplink reaches the VM a port leads to, if it may", Full, forward),
    scenario("syslog", "the receiver gets what the console says", Tidegate, syslog),
];

/// A client's connections to ports that are each refused otherwise; the server sees none of them.
fn rejects(world: &mut World) -> Result<()> {
    let unreachable = |text: &str| Connect::Unreachable(text.to_owned());
    let (dom0, work) = (world.xen.dom0.clone(), world.client(WORK)?);
    for (port, expected) in [
        (2001, Connect::Refused),
        (2002, Connect::Refused),
        (2003, unreachable("No route to host (os error 113)")),
        (2004, unreachable("Network is unreachable (os error 101)")),
        (2005, unreachable("No route to host (os error 113)")),
    ] {
        let server = dom0.serve("tcp-echo", SERVER, port)?;
        let seen = work.connect(SERVER, port);
        let printed = dom0.stop(&server)?.stdout;
        same(&format!("what the client saw of port {port}"), &seen?, &expected)?;
        same("what the server saw", &printed.as_str(), &"")?;
    }
    Ok(())
}

/// Five flows where three may begin.
fn limit(world: &mut World) -> Result<()> {
    let (dom0, work) = (world.xen.dom0.clone(), world.client(WORK)?);
    let server = dom0.serve("udp-echo", SERVER, 2010)?;
    let sent = (0..5).map(|_| work.udp_from(WORK.ip, SERVER, 2010));
    let right: Result<u32> = sent.map(|echo| echo.map(|echo| echo.right)).sum();
    dom0.stop(&server)?;
    same("flows that began", &right?, &3)
}

/// A name in the policy is asked for before anybody goes there. It is where one of two servers is, and
/// the same port of the other stays closed.
fn names(world: &mut World) -> Result<()> {
    let (dom0, work) = (world.xen.dom0.clone(), world.client(WORK)?);
    let path = format!("/run/dns-{RESOLVER}-53.log");
    let text = format!("dns udp ahead.example.test type 1 from {FIREWALL}:");
    dom0.wait(Condition::FileHas { path, offset: 0, text }, DEADLINE)?;
    let named = dom0.serve("tcp-echo", SERVER, 2020)?;
    let other = dom0.serve("tcp-echo", DROPPED, 2020)?;
    let seen = [SERVER, DROPPED].map(|server| work.connect(server, 2020));
    let printed = dom0.stop(&named)?.stdout;
    let silent = dom0.stop(&other)?.stdout;
    let [to_named, to_other] = seen;
    same("where the name is", &to_named?, &Connect::Open)?;
    same("another server", &to_other?, &Connect::Refused)?;
    same("what the other server saw", &silent.as_str(), &"")?;
    ensure(printed.contains(&FIREWALL.to_string()), || format!("the server saw {printed}"))
}

/// A port that leads to a client for the uplink's domain, and one that does for others only.
fn forward(world: &mut World) -> Result<()> {
    let (dom0, work) = (world.xen.dom0.clone(), world.client(WORK)?);
    let server = work.serve("tcp-echo", WORK.ip, 7022)?;
    let open = dom0.connect(FIREWALL, 8022);
    let closed = dom0.connect_unanswered(FIREWALL, 8023);
    let printed = work.stop(&server)?.stdout;
    same("the port that is open to it", &open?, &Connect::Open)?;
    same("the port that is open to others", &closed?, &Connect::Silent)?;
    let from_outside = format!("tcp from {SYS_NET}:");
    ensure(printed.lines().count() == 1 && printed.starts_with(&from_outside), || {
        format!("the client's server saw {printed}")
    })
}

fn syslog(world: &mut World) -> Result<()> {
    let dom0 = world.xen.dom0.clone();
    let server = dom0.serve("udp-echo", SYS_NET, 5514)?;
    let told = told(world, &dom0, &server);
    dom0.stop(&server)?;
    told
}

/// What is refused to a client stands on the console and in what the receiver got.
fn told(world: &World, dom0: &Domain, server: &str) -> Result<()> {
    let mark = world.xen.console_mark(world::FIREWALL);
    world.client(WORK)?.connect_unanswered(DROPPED, 80)?;
    let line = format!("warning: drop clients -> uplink: tcp {}:", WORK.ip);
    world.xen.wait_console(world::FIREWALL, mark, &line, DEADLINE)?;
    let text = format!("<132>1 - {FIREWALL} tidegate - - - {line}");
    dom0.wait(Condition::FileHas { path: format!("/run/{server}.log"), offset: 0, text }, DEADLINE)
}
