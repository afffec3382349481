//! The scenarios on a real Xen.

use crate::image;
use rig::plan::{HOSTILE, PERSONAL, WORK};
use rig::scenario::{self, Extent, Outcome, Scenario};
use rig::{Error, Firewall, Layout, Mode, Options, Result, World};

/// `cargo xtask rig --list`.
pub(crate) fn list() {
    for scenario in scenario::all() {
        println!("{:<20} {}", scenario.name, scenario.claim);
    }
}

/// `cargo xtask rig`: true if all passed.
pub(crate) fn command(
    layout: &Layout,
    firewall: Firewall,
    mode: Mode,
    options: Options,
    only: &[String],
) -> Result<bool> {
    let known = scenario::all();
    if let Some(unknown) = only.iter().find(|name| !known.iter().any(|s| s.name == **name)) {
        return Err(Error::new(format!(
            "no scenario {unknown}; `cargo xtask rig --list` names all"
        )));
    }
    let mut scenarios = scenario::fitting(Extent::Full, &firewall);
    if let Some(unfit) = only.iter().find(|name| !scenarios.iter().any(|s| s.name == **name)) {
        return Err(Error::new(format!("{unfit} says nothing about {}", firewall.name())));
    }
    scenarios.retain(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name));
    let outcomes = on(layout, firewall, mode, options, &scenarios)?;
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

/// Boots a world, runs scenarios in it, and keeps its logs.
pub(crate) fn on(
    layout: &Layout,
    firewall: Firewall,
    mode: Mode,
    options: Options,
    scenarios: &[Scenario],
) -> Result<Vec<Outcome>> {
    image::guest(layout, HOSTILE.name)?;
    image::tool(layout)?;
    image::guest(layout, "kernel")?;
    let mut world = World::boot(layout, firewall, mode, &[WORK, PERSONAL], options)?;
    let outcomes = scenario::run(&mut world, scenarios);
    world.xen.save_logs()?;
    println!("  logs: {}", world.xen.dom0.machine().directory().display());
    Ok(outcomes)
}
