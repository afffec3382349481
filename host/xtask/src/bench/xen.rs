//! `cargo xtask bench xen`: everything that needs a real Xen, in one run.

use super::profile;
use crate::{FirewallArg, ModeArg, image};
use clap::Args;
use rig::plan::{SERVER, WORK};
use rig::{Firewall, Layout, Mode, Options, Result, Way, World};
use std::path::PathBuf;

/// Memory that is promised to be enough, in MiB.
const LEAST_MEMORY: u32 = 16;

/// How to measure.
#[derive(Args)]
pub(crate) struct Xen {
    /// How the firewall is virtualised (clients are PV)
    #[arg(long, value_enum, default_value_t = ModeArg::Pv)]
    mode: ModeArg,
    /// Measure only this firewall; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<FirewallArg>,
    /// How long each load lasts
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Put this kernel, an ELF for Xen, in Tidegate's place
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Tell where the firewall's time goes, by function, instead of measuring
    #[arg(long)]
    profile: bool,
    /// Emulated processors
    #[arg(long, default_value_t = 2)]
    cpus: u8,
}

impl Xen {
    pub(crate) fn run(&self, layout: &Layout) -> Result<()> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => image::for_rig(layout)?,
        };
        // With its symbols it is larger than what is shipped, and the same in all else.
        let elf =
            if self.image.is_some() { image.clone() } else { image.with_file_name("tidegate.elf") };
        let tidegate = Firewall::tidegate(image, LEAST_MEMORY);
        let mode: Mode = self.mode.into();
        let options = Options { keep: false, cpus: self.cpus };
        let mut world = World::boot(layout, tidegate.clone(), mode, &[], options)?;
        for kind in if self.only.is_empty() { &[FirewallArg::Tidegate][..] } else { &self.only } {
            let firewall = match kind {
                FirewallArg::Tidegate => tidegate.clone(),
                FirewallArg::Linux => Firewall::Linux,
                FirewallArg::None => Firewall::None,
            };
            let name = firewall.name();
            world.replace_firewall(firewall, &[WORK])?;
            for (what, way) in [("up", Way::Up), ("down", Way::Down)] {
                let (bits, profile) = profile::during(&world, &elf, || {
                    world.client(WORK)?.iperf(SERVER, way, self.seconds)
                })?;
                println!("\n{name}, TCP {what}: {:.0} Mbit/s\n{profile}", bits / 1e6);
            }
        }
        Ok(())
    }
}
