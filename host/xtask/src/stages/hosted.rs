//! The firewall on Linux against programs that others wrote, in network namespaces.
//!
//! In: the machine, which gets the programs if it has them not. Out: what the tests in
//! host/cli/tests/world came to. Never: runs without root, of which it then says so.

use super::{Count, harness};
use rig::{Layout, Result, run, step};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// A program looked for, and the package that brings it.
const PROGRAMS: [(&str, &str); 10] = [
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nmap", "nmap"),
    ("ping", "iputils-ping"),
    ("stun", "stun-client"),
    ("sysctl", "procps"),
    ("traceroute", "traceroute"),
    ("turnutils_natdiscovery", "coturn"),
];

pub(super) fn world(layout: &Layout) -> Result<Count> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        println!("  SKIPPED: only root can make network namespaces");
        return Ok(Count::default());
    }
    provide()?;
    harness(layout, &["--package", "tidegate-cli", "--test", "world"])
}

fn provide() -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("install {}", missing.join(", ")), || {
        let apt_get = || {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        };
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
            .map(drop)
    })
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}
