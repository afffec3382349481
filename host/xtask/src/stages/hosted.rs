//! The firewall on Linux against programs that others wrote, in network namespaces.
//!
//! In: the machine, which gets the programs if it has them not. Out: what the tests in
//! host/cli/tests/world came to. Never: runs without root, of which it then says so.

use super::{Count, cargo, harness};
use crate::provide::provide;
use rig::{Layout, Result};
use std::os::unix::fs::MetadataExt;

/// A program looked for, and the package that brings it.
const PROGRAMS: [(&str, &str); 11] = [
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nmap", "nmap"),
    ("ping", "iputils-ping"),
    ("rsyslogd", "rsyslog"),
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
    provide(&PROGRAMS)?;
    harness(cargo(layout), &["--package", "tidegate-cli", "--test", "world"])
}
