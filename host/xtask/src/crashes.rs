//! What a kernel says when it dies, and of how its secrets are drawn: the conformance kernel, told to
//! do something forbidden, on the real hypervisor.
//!
//! In: the kernel. Out: whether each line came. Each emulator is ended by its own id as soon as it has
//! said what was awaited, or after a while.

use crate::conformance::{self, Row};
use rig::{Context as _, Error, Layout, Mode, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What is asked of the kernel, and what its last words must contain in either mode.
const CASES: [Case; 7] = [
    Case { name: "panic-names-its-place", args: "crash=panic", says: ["src/conformance.rs:"; 2] },
    Case { name: "null-is-not-mapped", args: "crash=null", says: ["a null pointer"; 2] },
    Case { name: "text-is-not-writable", args: "crash=text", says: ["page fault"; 2] },
    Case { name: "stack-is-not-executable", args: "crash=run", says: ["page fault"; 2] },
    Case { name: "invalid-opcode-is-told", args: "crash=invalid", says: ["invalid opcode"; 2] },
    Case { name: "memory-runs-out-readably", args: "crash=memory", says: ["src/"; 2] },
    // Xen cannot push a frame on the guard page of a PV guest, and ends it with a word of its own.
    Case {
        name: "stack-has-a-guard",
        args: "crash=stack",
        says: ["Fault while accessing guest memory", "the stack is full"],
    },
];

struct Case {
    name: &'static str,
    args: &'static str,
    /// PV, PVH.
    says: [&'static str; 2],
}

/// All cases in both modes.
pub(crate) fn rows(layout: &Layout, xen: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (mode, which) in [(Mode::Pv, 0), (Mode::Pvh, 1)] {
        for case in &CASES {
            let awaited = case.says.get(which).copied().unwrap_or_default();
            let failure = died(layout, xen, mode, case.args, awaited)?;
            rows.push(Row { name: format!("{} ({mode})", case.name), failure });
        }
    }
    Ok(rows)
}

/// Boots, and returns what was said instead of a line with `awaited`.
fn died(
    layout: &Layout,
    xen: &Path,
    mode: Mode,
    args: &str,
    awaited: &str,
) -> Result<Option<String>> {
    let mut qemu = conformance::qemu(layout, xen, mode, args);
    // On its other channel the emulator tells what its processor lacks, each time.
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = qemu.spawn().context("QEMU")?;
    let mut child = Ended(child);
    let pipe = child.0.stdout.take().ok_or_else(|| Error::new("QEMU has no output"))?;
    let mut said = Vec::new();
    for line in BufReader::new(pipe).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim().to_owned();
        if line.contains(awaited) {
            return Ok(None);
        }
        said.push(line);
    }
    let tail = said.iter().skip(said.len().saturating_sub(8)).cloned().collect::<Vec<_>>();
    Ok(Some(format!("nobody said {awaited:?}, but:\n{}", tail.join("\n"))))
}

/// A `timeout` that does not outlive its use. Asked to end, it ends its own child first, which it
/// could not if it were killed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _asked = Command::new("kill").arg(self.0.id().to_string()).output();
        let _reaped = self.0.wait();
    }
}
