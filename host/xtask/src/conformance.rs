//! The conformance kernel on the real hypervisor: Xen in QEMU with our kernel as its dom0.
//!
//! In: the tree. Out: each row's result, as the kernel prints it. The emulator ends by itself; one
//! that does not is ended after a while and counts as a failure.

use crate::crashes;
use rig::{Context as _, Error, Layout, Mode, PROCESSOR, Result, XEN_WORDS, run, step};
use std::path::Path;
use std::process::Command;

/// A boot takes about a second; a busy host may need many times that.
const LIMIT: &str = "180";

/// One row of the table.
pub(crate) struct Row {
    /// Its name and the mode it ran in.
    pub(crate) name: String,
    /// What the kernel said, unless that was "ok".
    pub(crate) failure: Option<String>,
}

/// Builds the kernel and boots it in both modes.
pub(crate) fn rows(layout: &Layout) -> Result<Vec<Row>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["build", "--quiet", "--package", "tidegate"]);
    cargo.args(["--bin", "conformance", "--features", "kernel", "--profile", "kernel"]);
    step("build the conformance kernel", || run(&mut cargo))?;
    let xen = rig::hypervisor(layout)?;
    let mut rows = boot(layout, &xen, Mode::Pv)?;
    rows.extend(boot(layout, &xen, Mode::Pvh)?);
    rows.extend(crashes::rows(layout, &xen)?);
    Ok(rows)
}

/// The emulator with Xen, and the conformance kernel with `args` as its dom0. It ends itself after
/// [`LIMIT`] seconds.
pub(crate) fn qemu(layout: &Layout, xen: &Path, mode: Mode, args: &str) -> Command {
    let kernel = layout.target.join("kernel/conformance");
    let mut qemu = Command::new("timeout");
    qemu.args(["--kill-after=5", LIMIT, "qemu-system-x86_64"]);
    qemu.args(["-accel", "tcg", "-m", "512", "-net", "none", "-no-reboot", "-display", "none"]);
    qemu.args(["-serial", "stdio", "-monitor", "none"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    qemu.arg("-kernel").arg(xen).arg("-initrd").arg(format!("{} {args}", kernel.display()));
    match mode {
        // QEMU's plain processor: the one without RDRAND.
        Mode::Pv => qemu.args(["-append", XEN_WORDS]),
        // Xen wants an IOMMU for a PVH dom0.
        Mode::Pvh => qemu
            .args(["-M", "q35", "-cpu", PROCESSOR, "-device", "amd-iommu", "-append"])
            .arg(format!("{XEN_WORDS} dom0=pvh dom0_mem=128M")),
    };
    qemu
}

fn boot(layout: &Layout, xen: &Path, mode: Mode) -> Result<Vec<Row>> {
    let mut qemu = qemu(layout, xen, mode, "");
    let output = qemu.output().context("QEMU")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rows = parse(&said, mode).map(|mut rows| {
        rows.push(entropy(&said, mode));
        rows
    });
    rows.ok_or_else(|| {
        let all: Vec<_> = said.lines().collect();
        let tail: Vec<_> = all.iter().skip(all.len().saturating_sub(15)).copied().collect();
        Error::new(format!("the conformance kernel ({mode}) did not end:\n{}", tail.join("\n")))
    })
}

/// QEMU's plain processor, which the PV boot has, knows no RDRAND: that must be said aloud. The other
/// one has it, and then nothing is to be said.
fn entropy(said: &str, mode: Mode) -> Row {
    let warned = said.lines().any(|line| line.contains("WARNING: this processor has neither"));
    let failure = match (mode, warned) {
        (Mode::Pv, true) | (Mode::Pvh, false) => None,
        (Mode::Pv, false) => Some("no warning, though there is neither RDSEED nor RDRAND".into()),
        (Mode::Pvh, true) => Some("a warning, though there is RDRAND".into()),
    };
    Row { name: format!("weak-entropy-is-told ({mode})"), failure }
}

/// Reads `conformance NAME: ok` or `conformance NAME: FAILED why`; None unless the sums at the end
/// agree with the lines.
fn parse(said: &str, mode: Mode) -> Option<Vec<Row>> {
    let rows: Vec<Row> = said.lines().filter_map(|line| row(line, mode)).collect();
    let failed = rows.iter().filter(|row| row.failure.is_some()).count();
    let sums = format!("{} passed, {failed} failed", rows.len() - failed);
    (!rows.is_empty() && said.lines().any(|line| line.trim().ends_with(&sums))).then_some(rows)
}

fn row(line: &str, mode: Mode) -> Option<Row> {
    let (_, rest) = line.split_once("conformance ")?;
    let (name, result) = rest.trim().split_once(": ")?;
    let failure = match result.strip_prefix("FAILED") {
        Some(why) => Some(why.trim().to_owned()),
        None if result == "ok" => None,
        None => return None,
    };
    Some(Row { name: format!("{name} ({mode})"), failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xen_never_idles_by_an_mwait_that_the_emulator_does_not_know() {
        let layout = Layout { root: "/tree".into(), target: "/tree/target".into() };
        for mode in [Mode::Pv, Mode::Pvh] {
            let qemu = qemu(&layout, Path::new("/xen"), mode, "");
            let args: Vec<_> = qemu.get_args().map(|arg| arg.to_string_lossy()).collect();
            assert!(args.last().unwrap().contains("cpuidle=0"), "{mode}: {args:?}");
            // Whoever names no processor gets QEMU's plain one, which has no MWAIT.
            let named = args.iter().position(|arg| arg == "-cpu").map(|at| &args[at + 1]);
            assert!(named.is_none_or(|cpu| cpu.contains("-monitor")), "{mode}: {args:?}");
        }
    }

    #[test]
    fn rows_count_only_when_the_sums_agree() {
        let said = "conformance: PV, 64 MiB\nconformance a: ok\r\nconformance b: FAILED 1 is 2\n";
        assert!(parse(said, Mode::Pv).is_none(), "it did not end");
        assert!(parse(&format!("{said}3 passed, 1 failed"), Mode::Pv).is_none());
        let rows = parse(&format!("{said}1 passed, 1 failed\r\n"), Mode::Pv).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].failure.as_deref(), Some("1 is 2"));
    }
}
