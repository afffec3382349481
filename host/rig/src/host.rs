//! The machine the rig runs on: where things are kept, and running programs there.

use crate::error::{Context as _, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The workspace and its target directory.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Root of the source tree.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

impl Layout {
    /// Finds the tree this program was built from.
    ///
    /// # Errors
    /// When the tree is not there any more.
    pub fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = here.canonicalize().map_err(Error::file(&here))?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = if target.is_absolute() { target } else { root.join(target) };
        Ok(Self { root, target })
    }

    /// Where the rig keeps what it downloads and builds.
    pub fn cache(&self) -> PathBuf {
        self.target.join("rig")
    }

    /// Where kernels of ours stand that are guests beside the firewall: dom0 finds each under its
    /// name in `/guest`.
    pub fn guests(&self) -> PathBuf {
        self.cache().join("guests")
    }
}

/// Runs a program quietly and returns what it printed; its errors are shown only when it fails.
///
/// # Errors
/// When it cannot be started or ends with a failure; carries what it printed last.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(&name)?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim_end();
        return Err(Error::new(format!("{name} {}: {}\n{said}", words.join(" "), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// SHA-256 of these files' contents and of `extra`, as hexadecimal text.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn digest(files: &[PathBuf], extra: &str) -> Result<String> {
    let sums = match files {
        [] => String::new(),
        files => run(Command::new("sha256sum").arg("--").args(files))?,
    };
    let scratch = std::env::temp_dir().join(format!("tidegate-digest-{}", std::process::id()));
    fs::write(&scratch, format!("{sums}{extra}")).map_err(Error::file(&scratch))?;
    let sum = run(Command::new("sha256sum").arg(&scratch));
    fs::remove_file(&scratch).map_err(Error::file(&scratch))?;
    Ok(sum?.chars().take(16).collect())
}

/// Prints what is being done, then how long it took.
///
/// # Errors
/// Whatever `work` fails with.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    eprintln!("  {what} …");
    let done = work();
    let mark = if done.is_ok() { "done" } else { "FAILED" };
    eprintln!("  {what}: {mark} ({:.1} s)", started.elapsed().as_secs_f64());
    done
}
