//! How a policy gets into a firewall: in its image, beside it, and while it runs.
//!
//! The tool runs in dom0, as its owner would run it.

use super::Where::Kernel;
use super::devices::move_to;
use super::lifecycle::{SPARE, spare_config};
use super::{Scenario, same, scenario};
use crate::config::{Config, Vif};
use crate::domain::{DEADLINE, Domain, Way};
use crate::error::{Error, Result, ensure};
use crate::plan::{REJECTED, SERVER, WORK};
use crate::probe::Connect;
use crate::world::{self, World};
use std::thread;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("live-load", "a policy changes under traffic, a broken one does not", Kernel, live),
    scenario(
        "boot-module",
        "the boot module's policy counts; a broken one opens nothing",
        Kernel,
        module,
    ),
    scenario(
        "built-image",
        "an image of `tidegate build` boots and tells its digests",
        Kernel,
        built,
    ),
];

/// The policy the rig's firewall boots with.
const RIG: &str = include_str!("../../rig.tide");

/// Lets everything out, to [`REJECTED`] too.
const OPEN: &str = "zone uplink = netfront 0\nzone clients = netback\n\
    policy clients -> uplink { accept }\nnat clients -> uplink masquerade\n";

/// Runs the tool in dom0; what it printed.
pub(super) fn tool(dom0: &Domain, words: &str) -> Result<String> {
    dom0.sh(&format!("/lib64/ld-linux-x86-64.so.2 /guest/tidegate-tool {words}"))
}

/// Loads a policy into the running firewall, by the tool.
fn load(world: &World, name: &str, text: &str) -> Result<()> {
    let dom0 = &world.xen.dom0;
    dom0.write_file(&format!("/run/{name}"), text)?;
    let mark = world.xen.console_mark(world::FIREWALL);
    let said = tool(dom0, &format!("load /run/{name} --domain {}", world::FIREWALL))?;
    ensure(said.contains(": loaded: "), || format!("the tool said {said}"))?;
    world.xen.wait_console(world::FIREWALL, mark, "(loaded)", DEADLINE)
}

fn live(world: &mut World) -> Result<()> {
    let work = world.client(WORK)?;
    let refuses = format!("    reject tcp-reset tcp 7 to {SERVER}\n    accept\n");
    let stricter = RIG.replace("    accept\n", &refuses);
    same("before", &work.connect(SERVER, 7)?, &Connect::Open)?;
    thread::scope(|scope| {
        let transfer = scope.spawn(|| work.iperf(SERVER, Way::Up, 10));
        load(world, "stricter.tide", &stricter)?;
        same("after", &work.connect(SERVER, 7)?, &Connect::Refused)?;
        let broke = |_| Err(Error::new("the transfer's thread broke"));
        transfer.join().unwrap_or_else(broke).map(drop)
    })?;
    broken(world)?;
    same("still", &work.connect(SERVER, 7)?, &Connect::Refused)?;
    load(world, "rig.tide", RIG)?;
    same("at last", &work.connect(SERVER, 7)?, &Connect::Open)
}

/// An offer of what is no policy is refused by the firewall itself.
fn broken(world: &World) -> Result<()> {
    let home = format!("/local/domain/{}", world.fw()?.id);
    world.xen.write(&format!("{home}/control/policy/bad/0"), "00")?;
    let marker = format!("bad 1 {}", "0".repeat(64));
    world.xen.write(&format!("{home}/control/policy/commit"), &marker)?;
    let answer = format!("{home}/data/policy/answer");
    world.xen.wait_for(&answer, "bad refused: not a policy blob", DEADLINE)
}

fn module(world: &mut World) -> Result<()> {
    let dom0 = world.xen.dom0.clone();
    dom0.write_file("/run/module.tide", OPEN)?;
    tool(&dom0, "compile /run/module.tide -o /run/module.blob")?;
    let with = |ramdisk: &str| Config { ramdisk: Some(ramdisk.into()), ..spare_config(world, 32) };
    let good = with("/run/module.blob");
    let broken = with("/run/module.tide");
    boots(world, good, "policy module.tide: 2 rules, ", Connect::Open)?;
    boots(
        world,
        broken,
        "policy (boot module): not a policy blob: everything is dropped",
        Connect::Silent,
    )
}

fn built(world: &mut World) -> Result<()> {
    let dom0 = world.xen.dom0.clone();
    dom0.write_file("/run/built.tide", OPEN)?;
    tool(&dom0, "build /run/built.tide --kernel /guest/tidegate -o /run/built")?;
    let verified = tool(&dom0, "verify /run/built")?;
    ensure(verified.contains("this text makes that policy"), || format!("it said {verified}"))?;
    let digest = verified.lines().find_map(|line| line.strip_prefix("policy ")?.split(' ').next());
    let digest = digest.ok_or_else(|| Error::new("no digest of the policy"))?;
    let config = Config { kernel: "/run/built".into(), ..spare_config(world, 16) };
    boots(world, config, &format!("policy built.tide: 2 rules, {digest} (built in)"), Connect::Open)
}

/// Boots a spare firewall, which says this, and lets a client see this of a server that the rig's own
/// policy rejects.
fn boots(world: &World, config: Config, says: &str, sees: Connect) -> Result<()> {
    let mark = world.xen.console_mark(SPARE);
    let spare = world.xen.create(&config)?;
    world.xen.wait_console(SPARE, mark, says, DEADLINE)?;
    world.wait_uplink(&spare)?;
    move_to(world, WORK, &Vif { backend: Some(SPARE.into()), ..world.client_vif(WORK) })?;
    let work = world.client(WORK)?;
    let silent = sees == Connect::Silent;
    let seen =
        if silent { work.connect_unanswered(REJECTED, 80) } else { work.connect(REJECTED, 80) };
    move_to(world, WORK, &world.client_vif(WORK))?;
    world.xen.destroy(SPARE)?;
    world.xen.wait_gone(&spare, DEADLINE)?;
    same("what the client saw", &seen?, &sees)
}
