//! A client that attacks: our own boot code as a frontend (`src/hostile`), which knows every way to
//! break the netif protocol, while two honest clients go on with their transfers.
//!
//! The attacker looks from its side: each attack ends with its vif closed, or with all its slots
//! answered and the vif working. Here the other sides are looked at: the firewall's console says
//! why, and nobody else has noticed.

use super::Where::Tidegate;
use super::devices::move_to;
use super::traffic::fetch;
use super::{Scenario, same, scenario};
use crate::config::{Config, Mode, Vif};
use crate::domain::{DEADLINE, Domain};
use crate::error::{Context as _, Error, Result, ensure};
use crate::plan::{self, HOSTILE, PERSONAL, SERVER, WORK};
use crate::world::{self, World};
use agent::Condition;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "hostile",
        "a client breaks the protocol in 55 ways and loses no more than its vif",
        Tidegate,
        attacks,
    ),
    scenario("hostile-deaths", "a client dies at every step of connecting", Tidegate, deaths),
];

/// What the attacker says first and last.
const FIRST: &str = "Tidegate hostile client";
const LAST: &str = "hostile: all done";

/// Deaths, as the attacker calls them.
const DEATHS: [&str; 5] = [
    "die-before-rings",
    "die-initialised",
    "die-connecting",
    "die-with-requests-queued",
    "die-as-frames-arrive",
];

fn attacks(world: &mut World) -> Result<()> {
    let fw = world.fw()?;
    let hostile = while_clients_work(world, || {
        let mark = world.xen.console_mark(HOSTILE.name);
        let hostile = start(world, "")?;
        world.xen.wait_console(HOSTILE.name, mark, LAST, 3 * DEADLINE)?;
        Ok(hostile)
    })?;
    let all = world.xen.console(HOSTILE.name);
    let said = all.rfind(FIRST).and_then(|at| all.get(at..)).unwrap_or_default();
    ensure(said.contains(" cases, 0 failed"), || format!("the attacker says\n{said}"))?;
    explained(world, &hostile, said)?;
    gone(world, &fw, &hostile)?;
    same("the firewall's number", &world.fw()?.id, &fw.id)?;
    for client in [WORK, PERSONAL] {
        same("replies to a ping", &world.client(client)?.ping(SERVER, 3)?.received, &3)?;
    }
    move_to(world, PERSONAL, &world.client_vif(PERSONAL))?;
    fetch(&world.client(PERSONAL)?, 200_000).context("a client that comes afterwards")
}

fn deaths(world: &mut World) -> Result<()> {
    let fw = world.fw()?;
    while_clients_work(world, || {
        for death in DEATHS {
            let mark = world.xen.console_mark(HOSTILE.name);
            let hostile = start(world, death)?;
            let dies = format!("hostile: {death} dies");
            world.xen.wait_console(HOSTILE.name, mark, &dies, DEADLINE)?;
            gone(world, &fw, &hostile).context(death)?;
        }
        Ok(())
    })?;
    same("the firewall's number", &world.fw()?.id, &fw.id)
}

/// Creates the attacker; paused first, as it may be gone before it is looked for.
fn start(world: &World, case: &str) -> Result<Domain> {
    let case = if case.is_empty() { String::new() } else { format!(" case={case}") };
    let vif = Vif {
        backend: Some(world::FIREWALL.to_owned()),
        mac: HOSTILE.mac.into(),
        ip: HOSTILE.ip,
        untrusted: false,
    };
    let domain = world.xen.create_paused(&Config {
        name: HOSTILE.name.into(),
        mode: Mode::Pv,
        kernel: "/guest/hostile".into(),
        ramdisk: None,
        extra: format!("ip={} gw={} to={SERVER}{case}", HOSTILE.ip, plan::FIREWALL),
        memory: 32,
        vifs: vec![vif],
        driver_domain: false,
    })?;
    world.xen.unpause(HOSTILE.name)?;
    Ok(domain)
}

/// Waits until the attacker is no more and the firewall has let go of its vif.
fn gone(world: &World, fw: &Domain, hostile: &Domain) -> Result<()> {
    world.xen.wait_gone(hostile, DEADLINE)?;
    let path = format!("/local/domain/{}/backend/vif/{}/0/state", fw.id, hostile.id);
    world.xen.dom0.wait(Condition::XsGone { path }, DEADLINE).context("the attacker's vif")
}

/// For each attack that closed the vif, the firewall has said why, in the same order.
fn explained(world: &World, hostile: &Domain, said: &str) -> Result<()> {
    let closed = said.lines().filter_map(|line| line.split_once(" done: closed, "));
    let console = world.xen.console(world::FIREWALL);
    let about = format!("/{}/", hostile.id);
    let mut told = console.lines().filter(|line| line.contains(&about));
    let mut count = 0;
    for (case, why) in closed {
        count += 1;
        ensure(told.any(|line| line.contains(why.trim())), || {
            format!("{case}: the firewall does not say {why:?}; it says\n{console}")
        })?;
    }
    ensure(count >= 30, || format!("only {count} attacks closed the vif:\n{said}"))
}

/// Does `work` while two clients fetch one document after the other, each of which must arrive whole.
fn while_clients_work<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let clients = [world.client(WORK)?, world.client(PERSONAL)?];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let fetching = clients.each_ref().map(|client| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fetch(client, 300_000).context(&client.name)?;
                }
                Ok(())
            })
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        fetching.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::new("a probe's thread broke")))
        })?;
        worked
    })
}
