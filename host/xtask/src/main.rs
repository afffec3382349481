//! The project's own commands: `cargo xtask image | demo | attach | rig | test | bench | dist`.
//!
//! In: the command line. Out: files under target/, and a report on the terminal. Every step is
//! named when it begins and timed when it ends.

#![forbid(unsafe_code)]

mod attach;
mod bench;
mod conformance;
mod crashes;
mod demo;
mod dist;
mod image;
mod provide;
mod stages;
mod suite;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rig::{Firewall, Layout, Mode, Options, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds, shows, tests and measures Tidegate.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel: target/tidegate.elf, and target/vmlinuz without symbols
    #[command(after_help = "Examples:\n  cargo xtask image\n  \
        cargo xtask image --policy examples/open.tide")]
    Image {
        /// Compile this policy into the image; without it everything is dropped
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Boot a real Xen with two clients and show what the firewall does
    #[command(
        after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --mode pvh --keep\n  \
        cargo xtask demo --json"
    )]
    Demo {
        #[command(flatten)]
        world: WorldArgs,
        /// Leave the machine running, and say how to attach to its consoles
        #[arg(long)]
        keep: bool,
        /// Print the results as JSON (progress goes to standard error)
        #[arg(long)]
        json: bool,
    },
    /// Open a shell in the dom0 of a machine that `demo --keep` left running
    #[command(after_help = "Example:\n  cargo xtask attach")]
    Attach,
    /// Run the scenarios on a real Xen, all or some of them
    #[command(after_help = "Examples:\n  cargo xtask rig\n  cargo xtask rig --mode pvh\n  \
        cargo xtask rig --only dns-udp --only reject\n  cargo xtask rig --firewall linux")]
    Rig {
        #[command(flatten)]
        world: WorldArgs,
        /// Run only this scenario; may be given more than once
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// List the scenarios and end
        #[arg(long)]
        list: bool,
    },
    /// Check formatting and lints, run all tests, the last of them on a real Xen
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only clippy\n  \
        cargo xtask test --only rig-pv")]
    Test {
        /// Run only this stage; may be given more than once
        #[arg(long, value_name = "STAGE")]
        only: Vec<stages::Stage>,
    },
    /// Pack what dom0 of Qubes OS needs: target/dist/*.rpm
    #[command(
        after_help = "Examples:\n  cargo xtask dist\n  cargo xtask dist --sign you@example.org"
    )]
    Dist {
        /// Sign with this key of gpg's
        #[arg(long, value_name = "KEY")]
        sign: Option<String>,
    },
    /// Measure, and print what stands in docs/SPECIFICATION.md
    #[command(after_help = "Examples:\n  cargo xtask bench size\n  cargo xtask bench xen\n  \
        cargo xtask bench xen --mode pvh --only tidegate --only linux\n  \
        cargo xtask bench xen --profile")]
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
}

#[derive(Args)]
struct WorldArgs {
    /// How the firewall is virtualised (clients are PV)
    #[arg(long, value_enum, default_value_t = ModeArg::Pv)]
    mode: ModeArg,
    /// What stands between the clients and the internet
    #[arg(long, value_enum, default_value_t = FirewallArg::Tidegate)]
    firewall: FirewallArg,
    /// Boot this kernel as Tidegate instead of building one with the rig's policy
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Memory of Tidegate in MiB
    #[arg(long, default_value_t = 32)]
    memory: u32,
    /// Emulated processors: 1 suits a host that is busy with other things
    #[arg(long, default_value_t = 2)]
    cpus: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Pv,
    Pvh,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FirewallArg {
    Tidegate,
    Linux,
    None,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Pv => Self::Pv,
            ModeArg::Pvh => Self::Pvh,
        }
    }
}

impl WorldArgs {
    /// The firewall asked for; Tidegate is built with the rig's policy.
    fn firewall(&self, layout: &Layout) -> Result<Firewall> {
        Ok(match self.firewall {
            FirewallArg::Tidegate => {
                let image = match &self.image {
                    Some(image) => image.clone(),
                    None => image::for_rig(layout)?,
                };
                Firewall::tidegate(image, self.memory)
            }
            FirewallArg::Linux => Firewall::Linux,
            FirewallArg::None => Firewall::None,
        })
    }
}

fn main() -> ExitCode {
    let done = Layout::find().and_then(|layout| match Cli::parse().command {
        Command::Image { policy } => image::command(&layout, policy.as_deref()).map(|()| true),
        Command::Demo { world, keep, json } => {
            let firewall = world.firewall(&layout)?;
            let options = Options { keep, cpus: world.cpus, ..Options::default() };
            demo::command(&layout, firewall, world.mode.into(), options, json)
        }
        Command::Attach => attach::command(&layout).map(|()| true),
        Command::Rig { list: true, .. } => {
            suite::list();
            Ok(true)
        }
        Command::Rig { world, only, .. } => {
            let firewall = world.firewall(&layout)?;
            let options = Options { keep: false, cpus: world.cpus, ..Options::default() };
            suite::command(&layout, firewall, world.mode.into(), options, &only)
        }
        Command::Test { only } => stages::command(&layout, &only),
        Command::Dist { sign } => dist::command(&layout, sign.as_deref()).map(|()| true),
        Command::Bench { what } => bench::command(&layout, what).map(|()| true),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
