//! `cargo xtask bench xen`: everything that needs a real Xen, in one run of it for each mode.
//!
//! In: which firewalls, how often. Out: the same figures for each, from a fresh boot each time, in
//! rounds that take turns: what disturbs the host for a while disturbs all of them.

use super::figures::{self, Figure, Figures, Job};
use super::results::{Results, Shown};
use super::{plot, profile, table};
use crate::image;
use clap::{Args, ValueEnum};
use rig::plan::WORK;
use rig::{Clock, Firewall, Layout, Mode, Options, Result, World, run, step};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Memory that is promised to be enough, in MiB.
const LEAST_MEMORY: u32 = 16;

/// How to measure.
#[derive(Args)]
pub(crate) struct Xen {
    /// How the firewall is virtualised (clients are PV)
    #[arg(long, value_enum, default_value_t = Modes::Pv)]
    mode: Modes,
    /// Measure only this firewall; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// How long each load lasts
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Put this kernel, an ELF for Xen, in Tidegate's place
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The command line of that kernel, if it is not Tidegate's
    #[arg(long, value_name = "WORDS", requires = "image")]
    extra: Option<String>,
    /// Memory of Tidegate, or of what is in its place, in MiB
    #[arg(long, default_value_t = LEAST_MEMORY)]
    memory: u32,
    /// Measure only how long it takes to the first forwarded ping: from `xl unpause`, and from `xl
    /// network-attach` of an uplink that was away
    #[arg(long, conflicts_with_all = ["profile", "write"])]
    start: bool,
    /// Tell where the firewall's time goes, by function, instead of measuring
    #[arg(long)]
    profile: bool,
    /// The load that is profiled; may be given more than once
    #[arg(long, value_enum, requires = "profile")]
    load: Vec<Job>,
    /// Streams of a TCP load that is profiled
    #[arg(long, requires = "profile", default_value_t = 1)]
    streams: u32,
    /// Time goes by the host's clock, and there are two processors: rates are nearer to those of a
    /// real machine, but a busy host spoils them. Otherwise time goes by instructions executed
    #[arg(long)]
    host_clock: bool,
    /// Print the results as JSON (progress goes to standard error)
    #[arg(long)]
    json: bool,
    /// Replace the tables in docs/SPECIFICATION.md
    #[arg(long)]
    write: bool,
}

/// Boots a host with this firewall and one client.
type Boot<'a> = dyn Fn(&Firewall) -> Result<World> + 'a;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Modes {
    Pv,
    Pvh,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tidegate,
    Linux,
    None,
}

impl Xen {
    pub(crate) fn run(&self, layout: &Layout) -> Result<()> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => image::for_rig(layout)?,
        };
        image::guest(layout, rig::plan::LOAD.name)?;
        let modes: &[Mode] = match self.mode {
            Modes::Pv => &[Mode::Pv],
            Modes::Pvh => &[Mode::Pvh],
            Modes::Both => &[Mode::Pv, Mode::Pvh],
        };
        modes.iter().try_for_each(|mode| self.run_mode(layout, &image, *mode))
    }

    fn run_mode(&self, layout: &Layout, image: &Path, mode: Mode) -> Result<()> {
        let tidegate = self.tidegate(image);
        let options = if self.host_clock {
            Options::default()
        } else {
            Options { cpus: 1, clock: Clock::Instructions, ..Options::default() }
        };
        let boot = |firewall: &Firewall| -> Result<World> {
            let world = World::boot(layout, firewall.clone(), mode, &[WORK], options)?;
            figures::prepare(&world)?;
            Ok(world)
        };
        let all = [Kind::Tidegate, Kind::Linux, Kind::None];
        let kinds = if self.only.is_empty() { &all[..] } else { &self.only };
        let firewalls: Vec<Firewall> = kinds
            .iter()
            .map(|kind| match kind {
                Kind::Tidegate => tidegate.clone(),
                Kind::Linux => Firewall::Linux,
                Kind::None => Firewall::None,
            })
            .collect();
        if self.profile {
            // With its symbols it is larger than what is shipped, and the same in all else.
            let elf = self.image.clone().unwrap_or_else(|| image.with_file_name("tidegate.elf"));
            return firewalls.iter().try_for_each(|f| self.profile(&boot(f)?, &elf));
        }
        let results = self.measure(&firewalls, &boot)?;
        self.tell(layout, mode, &results)
    }

    fn tidegate(&self, image: &Path) -> Firewall {
        let tidegate = Firewall::tidegate(image.to_owned(), self.memory);
        match (&self.extra, tidegate) {
            (Some(extra), Firewall::Tidegate { image, memory, .. }) => {
                Firewall::Tidegate { image, extra: extra.clone(), memory }
            }
            (_, tidegate) => tidegate,
        }
    }

    fn measure(&self, firewalls: &[Firewall], boot: &Boot<'_>) -> Result<Results> {
        let named = |f: &Firewall| match (&self.image, f) {
            (Some(image), Firewall::Tidegate { .. }) => image.display().to_string(),
            _ => f.name().to_owned(),
        };
        let shown = |f: &Firewall| Shown { name: named(f), rounds: Vec::new() };
        let mut results = Results { firewalls: firewalls.iter().map(shown).collect() };
        for round in 1..=self.rounds {
            for (firewall, shown) in firewalls.iter().zip(&mut results.firewalls) {
                let what = format!("round {round} of {}: {}", self.rounds, shown.name);
                let once = || step(&what, || self.round(boot(firewall)?));
                // On a busy host a domain may starve; what was measured before is not lost for it.
                let figures = once().or_else(|error| {
                    eprintln!("  {error}\n  once more, from a fresh boot");
                    once()
                })?;
                eprintln!("  {}", figures::line(&figures));
                shown.rounds.push(figures);
            }
        }
        Ok(results)
    }

    fn round(&self, mut world: World) -> Result<Figures> {
        let mut figures =
            if self.start { Figures::new() } else { figures::all(&world, self.seconds)? };
        let firewall = world.firewall.clone();
        if !matches!(firewall, Firewall::None) {
            let mut insert = |figure: Figure, took: Result<Duration>| match took {
                Ok(took) => drop(figures.insert(figure, took.as_secs_f64())),
                Err(error) => eprintln!("  left out: {}: {error}", figure.title()),
            };
            if matches!(firewall, Firewall::Tidegate { .. }) {
                insert(Figure::UplinkBack, world.uplink_back());
            }
            insert(Figure::FirstPing, world.first_ping(firewall));
        }
        Ok(figures)
    }

    fn profile(&self, world: &World, elf: &Path) -> Result<()> {
        let loads = if self.load.is_empty() { &[Job::Up, Job::Down][..] } else { &self.load };
        for load in loads {
            let job = || figures::job(world, *load, self.streams, self.seconds);
            let (figures, profile) = profile::during(world, elf, job)?;
            println!("\n{}, {}: {}", world.firewall.name(), world.mode, figures::line(&figures));
            println!("{profile}");
            let spent = figures.iter().find(|(figure, _)| figure.is_cost_of_firewall());
            if let Some((figure, value)) = spent {
                println!("{}: {value:.2}; {}", figure.title(), profile.parts(*value));
            }
        }
        Ok(())
    }

    /// The command that measures the same again.
    fn shown_by(&self, mode: Mode) -> String {
        let Self { rounds, seconds, memory, .. } = self;
        let mut command = format!(
            "cargo xtask bench xen --mode {mode} --rounds {rounds} --seconds {seconds} \
             --memory {memory}"
        );
        let mut add = |words: &str| command = format!("{command} {words}");
        self.only.iter().for_each(|kind| add(&format!("--only {}", kind.name())));
        if let Some(image) = &self.image {
            add(&format!("--image {}", image.display()));
        }
        if let Some(extra) = &self.extra {
            add(&format!("--extra '{extra}'"));
        }
        for (given, word) in [(self.start, "--start"), (self.host_clock, "--host-clock")] {
            if given {
                add(word);
            }
        }
        command
    }

    fn tell(&self, layout: &Layout, mode: Mode, results: &Results) -> Result<()> {
        let name = format!("xen-{mode}");
        let clock = if self.host_clock {
            "the host's clock, two emulated processors"
        } else {
            "a clock of instructions executed, one emulated processor"
        };
        let rounds = if self.rounds == 1 { "round" } else { "rounds" };
        let (machine, seconds) = (machine()?, self.seconds);
        let on = format!("{machine}; {} {rounds} of {seconds} s; {clock}", self.rounds);
        let value = json!({ "mode": mode.to_string(), "on": on, "firewalls": results.json() });
        table::save_json(layout, &name, &value)?;
        plot::save(layout, &name, &format!("Tidegate, {mode}: {on}"), results)?;
        let shown_by = self.shown_by(mode);
        let text = format!(
            "{}\n{}\nMedian (least–most). {on}. Shown by `{shown_by}`.\n",
            results.table().markdown(),
            results.aims().markdown()
        );
        if self.json {
            println!("{value:#}");
        } else {
            println!("{text}");
        }
        if self.write { table::specify(layout, &name, &text) } else { Ok(()) }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Linux => "linux",
            Self::None => "none",
        }
    }
}

/// The host's processor, and today.
fn machine() -> Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let date = run(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    Ok(format!("QEMU TCG on {model}, {}", date.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        xen: Xen,
    }

    #[test]
    fn what_is_shown_is_shown_again_by_the_same_options() {
        let line = |words: &str| Line::parse_from(words.split(' ')).xen;
        let plain = line("xen").shown_by(Mode::Pv);
        assert_eq!(plain, "cargo xtask bench xen --mode pv --rounds 3 --seconds 5 --memory 16");
        let said = "xen --mode pvh --rounds 1 --seconds 2 --memory 32 --only tidegate --only none \
                    --image /k.elf --extra ip=10.0.0.1 --start --host-clock";
        let shown = line(said).shown_by(Mode::Pvh);
        assert_eq!(shown.replace('\'', ""), format!("cargo xtask bench {said}"));
    }
}
