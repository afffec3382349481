//! What stands in the two directories of a device, read and checked.
//!
//! In: values as XenStore gave them. Out: values of the right form, and the first thing that is wrong,
//! by path and value. Never: trusts a length or prints a byte as it came.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use wire::{Mac, Takes};
use xen::hypervisor::DomId;
use xen::store::Found;
use xen::xenbus::XenbusState;

/// Nodes of our own directory. `state` is read last: if it is there, so was the directory all along,
/// and what is missing was never written.
pub(crate) const FRONT: [&str; 5] = ["backend", "backend-id", "mac", "mtu", "state"];

/// Nodes of the backend's directory, in an order with the same property.
pub(crate) const BACK: [&str; 8] = [
    "online",
    "feature-rx-copy",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "state",
];

/// Longest path of a backend we follow, in bytes; real ones have about forty.
const PATH_MAX: usize = 256;
/// Bytes of a bad value that are shown.
const SHOWN_MAX: usize = 32;
/// What Ethernet carries unless somebody says otherwise, in bytes.
const MTU: u16 = 1500;
/// Least and most a link may carry: RFC 791 section 3.2, and 65535 less the Ethernet header.
const MTU_RANGE: core::ops::RangeInclusive<u16> = 68..=65521;

/// Where the backend of a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Its directory.
    pub(crate) path: String,
    /// Its domain.
    pub(crate) dom: DomId,
}

/// Our own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Our state, if it is one.
    pub(crate) state: Option<XenbusState>,
    /// All else, or what is wrong; `None` if the directory is being made or removed.
    pub(crate) device: Option<Result<Device, Problem>>,
}

/// What the toolstack says of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) backend: Backend,
    pub(crate) mac: Mac,
    /// Bytes of a packet without its Ethernet header.
    pub(crate) mtu: u16,
}

/// The backend's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    /// Its state, if it is one.
    pub(crate) state: Option<XenbusState>,
    /// The toolstack wants it to stay.
    pub(crate) online: bool,
    /// What it can take.
    pub(crate) takes: Takes,
    /// What keeps us from using it.
    pub(crate) unfit: Option<Problem>,
    /// What is wrong without keeping us from it.
    pub(crate) odd: Option<Problem>,
}

/// What is wrong, for a human: the path, what stands there, what should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A directory that was read.
#[derive(Clone, Copy)]
struct Dir<'a> {
    path: &'a str,
    names: &'static [&'static str],
    found: &'a [Found],
}

impl Dir<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let at = self.names.iter().position(|n| *n == name)?;
        self.found.get(at)?.value()
    }

    /// The value as `parse` reads it.
    fn parsed<T>(
        &self,
        name: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        let value = self.value(name);
        value
            .and_then(|value| parse(core::str::from_utf8(value).ok()?))
            .ok_or_else(|| self.problem(name, value, wanted))
    }

    fn state(&self) -> Result<Option<XenbusState>, Problem> {
        let Some(value) = self.value("state") else { return Ok(None) };
        let state = XenbusState::parse(value);
        state.map(Some).ok_or_else(|| self.problem("state", Some(value), "a state from 1 to 8"))
    }

    fn flag(&self, name: &str, odd: &mut Option<Problem>) -> bool {
        match self.value(name) {
            None | Some(b"0") => false,
            Some(b"1") => true,
            value => {
                odd.get_or_insert_with(|| self.problem(name, value, "0 or 1"));
                false
            }
        }
    }

    fn problem(&self, name: &str, value: Option<&[u8]>, wanted: &str) -> Problem {
        let path = self.path;
        let Some(value) = value else {
            return Problem(format!("{path}/{name} is missing, should be {wanted}"));
        };
        let cut = if value.len() > SHOWN_MAX { "..." } else { "" };
        let shown = value.get(..SHOWN_MAX).unwrap_or(value).escape_ascii();
        Problem(format!("{path}/{name} is \"{shown}\"{cut}, should be {wanted}"))
    }
}

/// Reads our own directory from the values of [`FRONT`].
pub(crate) fn front(path: &str, found: &[Found]) -> Front {
    let dir = Dir { path, names: &FRONT, found };
    match dir.state() {
        Ok(None) => Front { state: None, device: None },
        Ok(state) => Front { state, device: Some(device(&dir)) },
        Err(problem) => Front { state: None, device: Some(Err(problem)) },
    }
}

fn device(dir: &Dir<'_>) -> Result<Device, Problem> {
    let path = dir.parsed("backend", "the path of a backend", |text| {
        is_path(text).then(|| text.to_string())
    })?;
    let dom = dir.parsed("backend-id", "the number of a domain", |text| {
        decimal(text).filter(|dom| *dom < DomId::FIRST_RESERVED).map(DomId)
    })?;
    let mac = dir.parsed("mac", "the MAC address of one interface", |text| {
        Mac::parse(text).filter(|mac| !mac.is_group())
    })?;
    let mtu = match dir.value("mtu") {
        None => MTU,
        Some(_) => dir.parsed("mtu", "from 68 to 65521 bytes", |text| {
            decimal(text).filter(|mtu| MTU_RANGE.contains(mtu))
        })?,
    };
    Ok(Device { backend: Backend { path, dom }, mac, mtu })
}

/// Reads the backend's directory from the values of [`BACK`].
pub(crate) fn back(path: &str, found: &[Found]) -> Back {
    let dir = Dir { path, names: &BACK, found };
    let mut odd = None;
    let takes = Takes {
        sg: dir.flag("feature-sg", &mut odd),
        gso_v4: dir.flag("feature-gso-tcpv4", &mut odd),
        gso_v6: dir.flag("feature-gso-tcpv6", &mut odd),
        blank_v4: !dir.flag("feature-no-csum-offload", &mut odd),
        blank_v6: dir.flag("feature-ipv6-csum-offload", &mut odd),
    };
    let online = dir.value("online").is_none_or(|value| value != b"0");
    let (state, mut unfit) = match dir.state() {
        Ok(state) => (state, None),
        Err(problem) => (None, Some(problem)),
    };
    // What it can do is complete when it says that it waits for us.
    if state == Some(XenbusState::InitWait) && dir.value("feature-rx-copy") != Some(b"1") {
        let value = dir.value("feature-rx-copy");
        unfit = Some(dir.problem("feature-rx-copy", value, "1: the backend cannot copy"));
    }
    Back { state, online, takes, unfit, odd }
}

/// A number as XenStore has them: decimal digits and nothing else.
pub(crate) fn decimal<T: core::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An absolute path with no more than names of the form XenStore allows.
fn is_path(text: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_@".contains(&b))
    };
    text.len() <= PATH_MAX && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(name))
}
