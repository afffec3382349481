//! Where the processors' time goes while something runs: whose it is, and for the firewall whether in
//! its own code or in the hypervisor, by function and by hypercall.
//!
//! In: a world under load. Out: shares of all looks at its processors. One look in a few milliseconds,
//! with the machine standing still: it is the emulator's time that is told, as all of the rig's.

use super::symbols::Symbols;
use rig::{Context as _, Error, FIREWALL, Firewall, Result, Sample, Sampler, World};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks. A prime number of microseconds: nothing in the guests has this period.
const BETWEEN: Duration = Duration::from_micros(3001);
/// Lines of each list.
const LINES: usize = 25;
/// Linux' own code (`__START_KERNEL_map`); modules lie above the kernel.
const LINUX: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_a000_0000;
/// Xen's (XEN_VIRT_START).
const XEN: std::ops::Range<u64> = 0xffff_82d0_4000_0000..0xffff_82d0_8000_0000;

/// The names of all that can run.
struct Names {
    /// Xen and Linux.
    kernels: Symbols,
    /// Tidegate.
    own: Symbols,
    linux: bool,
}

impl Names {
    fn function(&self, rip: u64) -> String {
        let name = match rip {
            _ if XEN.contains(&rip) || (self.linux && LINUX.contains(&rip)) => {
                self.kernels.name(rip)
            }
            _ if self.linux => Some(if rip >> 63 == 1 { "[module]" } else { "[program]" }),
            _ => self.own.name(rip),
        };
        name.map_or_else(|| format!("{rip:#x}"), str::to_owned)
    }

    fn hypercall(&self, from: u64) -> String {
        if self.linux { self.kernels.hypercall(from) } else { self.own.hypercall(from) }
    }
}

/// What was seen, as numbers of looks.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    looks: u64,
    domains: BTreeMap<String, u64>,
    own: BTreeMap<String, u64>,
    hypervisor: BTreeMap<String, u64>,
    hypercalls: BTreeMap<String, u64>,
}

/// Does `work` and looks meanwhile. `elf` is Tidegate with its symbols.
pub(crate) fn during<T>(
    world: &World,
    elf: &Path,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Profile)> {
    let mut sampler = Sampler::new(world.xen.dom0.machine().monitor()?);
    let ended = AtomicBool::new(false);
    let (worked, samples) = thread::scope(|scope| {
        let looking = scope.spawn(|| -> Result<Vec<Sample>> {
            let mut samples = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                samples.extend(sampler.look()?);
                thread::sleep(BETWEEN);
            }
            Ok(samples)
        });
        let worked = work();
        ended.store(true, Ordering::Relaxed);
        let samples = looking.join().unwrap_or_else(|_| Err(Error::new("the sampler broke")));
        (worked, samples)
    });
    let (worked, samples) = (worked?, samples.context("profile")?);
    Ok((worked, Profile::of(world, elf, &samples)?))
}

impl Profile {
    fn of(world: &World, elf: &Path, samples: &[Sample]) -> Result<Self> {
        let usage = world.xen.usage()?;
        let named = |id: u16| usage.iter().find(|u| u.id == id).map_or("?", |u| u.name.as_str());
        let firewalls = samples.iter().filter(|s| s.domain.map(named) == Some(FIREWALL));
        let mut addresses: Vec<u64> =
            firewalls.flat_map(|s| [Some(s.rip), s.from]).flatten().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let names = Names {
            kernels: Symbols::of_kernels(&world.xen.dom0, &addresses)?,
            own: Symbols::of_elf(elf)?,
            linux: !matches!(world.firewall, Firewall::Tidegate { .. }),
        };
        let mut profile = Self::default();
        for sample in samples {
            profile.add(*sample, &names, sample.domain.map_or("idle", named));
        }
        Ok(profile)
    }

    fn add(&mut self, sample: Sample, names: &Names, whose: &str) {
        let count =
            |map: &mut BTreeMap<String, u64>, key: String| *map.entry(key).or_default() += 1;
        self.looks += 1;
        count(&mut self.domains, whose.to_owned());
        if whose != FIREWALL {
            return;
        }
        let function = names.function(sample.rip);
        match sample.from {
            None => count(&mut self.own, function),
            Some(from) => {
                count(&mut self.hypervisor, function);
                count(&mut self.hypercalls, names.hypercall(from));
            }
        }
    }

    /// Splits what a thing cost the firewall by where its looks were.
    pub(crate) fn parts(&self, cost: f64) -> String {
        let of = |name: &str| self.hypercalls.get(name).copied().unwrap_or(0);
        let own: u64 = self.own.values().sum();
        let inside: u64 = self.hypercalls.values().sum();
        let (copies, sleep) = (of("grant_table_op"), of("sched_op"));
        let part = |looks: u64| cost * looks as f64 / (own + inside).max(1) as f64;
        format!(
            "its own code {:.2}, grant copies in Xen {:.2}, sleeping and waking in Xen {:.2}, other in \
             Xen {:.2}, all in Xen {:.2}; by {} looks",
            part(own),
            part(copies),
            part(sleep),
            part(inside - copies - sleep),
            part(inside),
            own + inside
        )
    }

    fn list(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        of: &BTreeMap<String, u64>,
    ) -> fmt::Result {
        let share = |n: u64| 100.0 * n as f64 / self.looks.max(1) as f64;
        writeln!(f, "{title}: {:.1} %", share(of.values().sum()))?;
        let mut lines: Vec<_> = of.iter().collect();
        lines.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        for (name, n) in lines.into_iter().take(LINES) {
            writeln!(f, "  {:5.1} %  {name}", share(*n))?;
        }
        Ok(())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} looks; shares are of all processors' time", self.looks)?;
        self.list(f, "whose time", &self.domains)?;
        self.list(f, "the firewall's own code", &self.own)?;
        self.list(
            f,
            "the hypervisor for the firewall, by what it was entered for",
            &self.hypercalls,
        )?;
        self.list(f, "the hypervisor for the firewall, by function", &self.hypervisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_split_by_looks_and_nothing_is_lost() {
        let map = |of: &[(&str, u64)]| of.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
        let profile = Profile {
            looks: 100,
            own: map(&[("a", 2), ("b", 1)]),
            hypercalls: map(&[("grant_table_op", 4), ("sched_op", 2), ("event_channel_op", 1)]),
            ..Profile::default()
        };
        assert_eq!(
            profile.parts(10.0),
            "its own code 3.00, grant copies in Xen 4.00, sleeping and waking in Xen 2.00, other in \
             Xen 1.00, all in Xen 7.00; by 10 looks"
        );
        assert!(Profile::default().parts(10.0).contains("own code 0.00"), "never seen");
    }
}
