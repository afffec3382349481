//! Named tests over one running [`World`], one after the other on the same guests.
//!
//! In: a world with two clients. Out: a line for each scenario, and for a failure the ends of all
//! consoles. A failed scenario may leave anything behind, so the guests are made anew after it.

mod crowd;
mod devices;
mod hostile;
mod lifecycle;
mod load;
mod policy;
mod qubes;
mod traffic;
mod uplinks;
mod words;

use crate::error::{Error, Result};
use crate::plan::{PERSONAL, WORK};
use crate::world::{Firewall, World};
use std::time::{Duration, Instant};

/// Where a scenario makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// With every firewall, PV and PVH.
    Everywhere,
    /// With every firewall, in the full run only.
    Full,
    /// About Tidegate alone, in the full run only.
    Tidegate,
    /// About Tidegate alone, PV and PVH.
    Kernel,
}

/// A named test.
pub struct Scenario {
    /// Short, as typed after `--only`.
    pub name: &'static str,
    /// What must be so, as a sentence.
    pub claim: &'static str,
    place: Where,
    run: fn(&mut World) -> Result<()>,
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All scenarios.
    Full,
    /// Those that could differ between PV and PVH.
    Subset,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// Which one.
    pub name: &'static str,
    /// What went wrong, if anything.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

const fn scenario(
    name: &'static str,
    claim: &'static str,
    place: Where,
    run: fn(&mut World) -> Result<()>,
) -> Scenario {
    Scenario { name, claim, place, run }
}

/// All scenarios in the order they run.
pub fn all() -> Vec<Scenario> {
    let lists = [
        traffic::SCENARIOS,
        policy::SCENARIOS,
        words::SCENARIOS,
        load::SCENARIOS,
        devices::SCENARIOS,
        hostile::SCENARIOS,
        uplinks::SCENARIOS,
        crowd::SCENARIOS,
        lifecycle::SCENARIOS,
        qubes::SCENARIOS,
    ];
    lists.into_iter().flatten().map(|s| scenario(s.name, s.claim, s.place, s.run)).collect()
}

/// Those of an extent that fit a firewall.
pub fn fitting(extent: Extent, firewall: &Firewall) -> Vec<Scenario> {
    let tidegate = matches!(firewall, Firewall::Tidegate { .. });
    let none = matches!(firewall, Firewall::None);
    let fits = |s: &Scenario| match s.place {
        _ if none => false,
        Where::Everywhere => true,
        Where::Full => extent == Extent::Full,
        Where::Tidegate => extent == Extent::Full && tidegate,
        Where::Kernel => tidegate,
    };
    all().into_iter().filter(fits).collect()
}

/// Runs scenarios and prints each one's result as it comes.
pub fn run(world: &mut World, scenarios: &[Scenario]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let started = Instant::now();
        let result = (scenario.run)(world);
        let took = started.elapsed();
        let mark = if result.is_ok() { "ok    " } else { "FAILED" };
        println!(
            "  {mark} {:<28} {:>6.1} s  {}",
            scenario.name,
            took.as_secs_f64(),
            scenario.claim
        );
        let failure = result.err().map(|e| e.to_string());
        if let Some(why) = &failure {
            println!("{why}\n{}", world.last_words());
            if let Err(e) = world.replace_firewall(world.firewall.clone(), &[WORK, PERSONAL]) {
                println!("  the guests could not be made anew: {e}");
            }
        }
        outcomes.push(Outcome { name: scenario.name, failure, took });
    }
    outcomes
}

/// Fails unless two things are the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> Result<()> {
    if seen == expected {
        return Ok(());
    }
    Err(Error::new(format!("{what}: expected {expected:?}, saw {seen:?}")))
}
