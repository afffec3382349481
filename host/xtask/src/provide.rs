//! Programs of others that a command needs.
//!
//! In: names of programs, and of the Debian packages that bring them. Out: those that were missing,
//! installed. Never: touches what is there already.

use rig::{Result, run, step};
use std::collections::BTreeSet;
use std::process::Command;

/// Installs the packages of the programs that are missing.
pub(crate) fn provide(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !on_path(program));
    let missing: BTreeSet<&str> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.into_iter().collect();
    step(&format!("install {}", packages.join(", ")), || {
        let apt_get = || {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        };
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&packages))
            .map(drop)
    })
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}
