//! `cargo xtask test`: every check there is, cheapest first, counted.
//!
//! A stage that cannot run counts as one failure; nothing is left out without a word. The last line
//! is always `N passed, N failed`.

mod hosted;
mod packages;

use crate::{conformance, image, suite};
use clap::ValueEnum;
use rig::scenario::{self, Extent, Outcome};
use rig::{Context as _, Error, Firewall, Layout, Mode, Options, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Parts of the test command, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// rustfmt
    Fmt,
    /// clippy, on the workspace and on the kernel, and rustdoc
    Clippy,
    /// unit, property, model and simulation tests
    Unit,
    /// one client of sixty-four floods with 100,000 packets a second for ten simulated minutes
    Flood,
    /// the firewall on Linux, against programs of others in network namespaces
    Hosted,
    /// what is brought to dom0 of Qubes OS, and whether a kernel built elsewhere is the same
    Packages,
    /// the conformance table on the real hypervisor
    Conformance,
    /// all scenarios with a PV firewall
    RigPv,
    /// a part of them with a PVH firewall
    RigPvh,
}

/// What a stage came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: Vec<String>,
}

/// Runs the stages: true if nothing failed.
pub(crate) fn command(layout: &Layout, only: &[Stage]) -> Result<bool> {
    let started = Instant::now();
    let (mut passed, mut failed, mut times) = (0, Vec::new(), Vec::new());
    for stage in Stage::value_variants() {
        if !(only.is_empty() || only.contains(stage)) {
            continue;
        }
        println!("== {stage:?}");
        let began = Instant::now();
        let count = stage.run(layout).unwrap_or_else(|e| {
            println!("{e}");
            Count { passed: 0, failed: vec![format!("{stage:?} could not run to its end")] }
        });
        times.push((stage, began.elapsed(), count.passed, count.failed.len()));
        passed += count.passed;
        failed.extend(count.failed);
    }
    println!("== Times");
    for (stage, took, passed, failed) in times {
        let stage = format!("{stage:?}");
        println!("{stage:<12} {:>7.1} s  {passed} passed, {failed} failed", took.as_secs_f64());
    }
    println!("{:<12} {:>7.1} s", "all", started.elapsed().as_secs_f64());
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(failed.is_empty())
}

impl Stage {
    fn run(self, layout: &Layout) -> Result<Count> {
        match self {
            Self::Fmt => check(layout, &["fmt --all --check"]),
            Self::Clippy => check(
                layout,
                &[
                    "clippy --quiet --workspace --all-targets -- -D warnings",
                    "doc --quiet --workspace --no-deps",
                    "clippy --quiet --package tidegate --bin kernel --bin conformance \
                     --bin hostile --bin load --features kernel --profile kernel -- -D warnings",
                ],
            ),
            Self::Unit => harness(cargo(layout), &["--workspace"]),
            Self::Flood => {
                let mut full = cargo(layout);
                full.env("TIDEGATE_FLOOD", "full");
                let flood = ["--profile", "kernel", "--package", "tidegate-nat", "--test", "flood"];
                harness(full, &flood)
            }
            Self::Hosted => hosted::world(layout),
            Self::Packages => packages::all(layout),
            Self::Conformance => {
                let rows = conformance::rows(layout)?;
                Ok(count(rows.into_iter().map(|row| (row.name, row.failure))))
            }
            Self::RigPv => rig(layout, Mode::Pv, Extent::Full),
            Self::RigPvh => rig(layout, Mode::Pvh, Extent::Subset),
        }
    }
}

/// Runs cargo commands that only pass or fail.
fn check(layout: &Layout, commands: &[&str]) -> Result<Count> {
    let mut all = Count::default();
    for words in commands {
        let mut cargo = cargo(layout);
        // rustdoc has no option for it behind `--`.
        cargo.args(words.split_whitespace()).env("RUSTDOCFLAGS", "-D warnings");
        let status = cargo.status().context("cargo")?;
        if status.success() {
            println!("  ok     cargo {words}");
            all.passed += 1;
        } else {
            all.failed.push(format!("cargo {words}"));
        }
    }
    Ok(all)
}

/// Runs `cargo test` on `what` and counts what its harnesses report.
fn harness(mut cargo: Command, what: &[&str]) -> Result<Count> {
    let mut child = cargo
        .arg("test")
        .args(what)
        .args(["--no-fail-fast", "--quiet", "--", "--format", "pretty"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test")?;
    let pipe = child.stdout.take().ok_or_else(|| Error::new("cargo test has no output"))?;
    let mut all = Count::default();
    for line in BufReader::new(pipe).lines() {
        let line = line?;
        if line.starts_with("test ") && line.ends_with(" ... ok") {
            all.passed += 1;
        } else if line.starts_with("test ") && line.ends_with(" ... FAILED") {
            let name = line.trim_start_matches("test ").trim_end_matches(" ... FAILED");
            all.failed.push(name.to_owned());
            println!("{line}");
        } else if line.ends_with("... ignored") || !is_noise(&line) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    ensure(status.success() || !all.failed.is_empty(), || format!("cargo test: {status}"))?;
    println!("  {} tests passed", all.passed);
    Ok(all)
}

fn is_noise(line: &str) -> bool {
    line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok")
}

fn rig(layout: &Layout, mode: Mode, extent: Extent) -> Result<Count> {
    let firewall = Firewall::tidegate(image::for_rig(layout)?, 32);
    let scenarios = scenario::fitting(extent, &firewall);
    let outcomes = suite::on(layout, firewall, mode, Options::default(), &scenarios)?;
    Ok(count(
        outcomes
            .into_iter()
            .map(|Outcome { name, failure, .. }| (format!("{name} ({mode})"), failure)),
    ))
}

/// Counts named results, printing what failed.
fn count(results: impl Iterator<Item = (String, Option<String>)>) -> Count {
    let mut all = Count::default();
    for (name, failure) in results {
        match failure {
            None => all.passed += 1,
            Some(why) => {
                println!("  FAILED {name}: {why}");
                all.failed.push(name);
            }
        }
    }
    all
}

fn cargo(layout: &Layout) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root);
    cargo
}
