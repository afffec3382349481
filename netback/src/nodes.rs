//! The XenStore nodes of a vif, read and checked.
//!
//! In: values the toolstack or a client wrote. Out: who the client is and what its rings are, or which
//! node holds what nonsense. Never: guesses. Only `feature-*` flags follow Linux in taking nonsense
//! for 0, as drivers in the field rely on it.
#![deny(clippy::arithmetic_side_effects)]

use crate::link::{Channels, Terms};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use wire::{Mac, Takes};
use xen::hypervisor::DomId;
use xen::store::Found;

/// The directory all vifs of ours are below, relative to our own.
pub(crate) const ROOT: &str = "backend/vif";

/// MTU of a vif for which the toolstack set none.
const MTU_DEFAULT: u16 = 1500;
/// What IPv4 needs at least (RFC 791), and what an IP packet can have at most.
const MTU_RANGE: core::ops::RangeInclusive<u16> = 68..=65521;
/// Most bytes of a frontend's path; XenStore's limit leaves room for the longest name we add.
const FRONTEND_MAX: usize = 2048;
/// Most bytes of a value shown in a message.
const SHOWN_MAX: usize = 64;

/// Which vif: the client's number and the client's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VifId {
    /// The client.
    pub dom: DomId,
    /// Its handle, mostly 0.
    pub handle: u32,
}

impl VifId {
    /// From the two directory names below [`ROOT`].
    pub(crate) fn parse(dom: &str, handle: &str) -> Option<Self> {
        Some(Self { dom: parse_dom(dom)?, handle: decimal(handle)? })
    }

    /// Its directory, relative to our own.
    pub(crate) fn dir(self) -> String {
        format!("{ROOT}/{}/{}", self.dom.0, self.handle)
    }
}

/// A domain number as directory name; those from 0x7ff0 on are no domains.
pub(crate) fn parse_dom(text: &str) -> Option<DomId> {
    let number = u16::try_from(decimal(text)?).ok()?;
    (number < DomId::FIRST_RESERVED).then_some(DomId(number))
}

/// Who stands behind a vif, from our own directory, which only the toolstack writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The frontend's directory.
    pub(crate) frontend: String,
    pub(crate) mac: Mac,
    pub(crate) addrs: Vec<IpAddr>,
}

/// A node with a value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) path: String,
    /// What it holds, as text; `None` if it is missing.
    pub(crate) value: Option<String>,
    pub(crate) wanted: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is \"{value}\", not {}", self.path, self.wanted),
            None => write!(f, "{} is missing, it should be {}", self.path, self.wanted),
        }
    }
}

/// The nodes [`identity`] reads, in its order.
pub(crate) const IDENTITY: [&str; 4] = ["frontend", "frontend-id", "mac", "ip"];

/// The client behind `id`, from the nodes [`IDENTITY`] of its directory.
pub(crate) fn identity(id: VifId, found: &[Found]) -> Result<Identity, Malformed> {
    let dir = id.dir();
    let node = Nodes { dir: &dir, names: &IDENTITY, found };
    let frontend =
        node.text("frontend", "a path", |text| is_path(text).then(|| text.to_string()))?;
    node.text("frontend-id", "the number of the directory's domain", |text| {
        (parse_dom(text) == Some(id.dom)).then_some(())
    })?;
    let mac = node.text("mac", "a unicast MAC address", |text| {
        Mac::parse(text).filter(|mac| !mac.is_group())
    })?;
    let addrs = match node.value("ip") {
        None => Vec::new(),
        Some(_) => node.text("ip", "a list of IP addresses", |text| {
            text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
        })?,
    };
    Ok(Identity { frontend, mac, addrs })
}

/// Whether XenStore takes it for an absolute path with room for a name behind it.
fn is_path(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
    text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains("//")
        && text.bytes().all(valid)
        && text.len() <= FRONTEND_MAX
}

/// The nodes [`terms`] reads, in its order.
pub(crate) const TERMS: [&str; 12] = [
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
    "request-rx-copy",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "mtu",
];

/// The frontend's terms and the MTU, from the nodes [`TERMS`] of its directory `frontend`.
pub(crate) fn terms(frontend: &str, found: &[Found]) -> Result<(Terms, u16), Malformed> {
    let node = Nodes { dir: frontend, names: &TERMS, found };
    let tx_ring = node.text("tx-ring-ref", "a grant reference", decimal)?;
    let rx_ring = node.text("rx-ring-ref", "a grant reference other than tx-ring-ref", |text| {
        decimal(text).filter(|gref| *gref != tx_ring)
    })?;
    let channel = |name| node.text(name, "an event channel", decimal);
    let split =
        node.value("event-channel-tx").is_some() || node.value("event-channel-rx").is_some();
    let channels = if split && node.value("event-channel").is_none() {
        Channels::Split { tx: channel("event-channel-tx")?, rx: channel("event-channel-rx")? }
    } else {
        Channels::One(channel("event-channel")?)
    };
    node.text("request-rx-copy", "1", |text| (text == "1").then_some(()))?;
    let mtu = match node.value("mtu") {
        None => MTU_DEFAULT,
        Some(_) => node.text("mtu", "an MTU from 68 to 65521", |text| {
            let mtu = u16::try_from(decimal(text)?).ok()?;
            MTU_RANGE.contains(&mtu).then_some(mtu)
        })?,
    };
    let takes = Takes {
        sg: node.flag("feature-sg"),
        gso_v4: node.flag("feature-gso-tcpv4"),
        gso_v6: node.flag("feature-gso-tcpv6"),
        blank_v4: !node.flag("feature-no-csum-offload"),
        blank_v6: node.flag("feature-ipv6-csum-offload"),
    };
    // What is longer would need a second slot (xenvif_change_mtu of Linux holds it to the same).
    let mtu = if takes.sg { mtu } else { mtu.min(MTU_DEFAULT) };
    Ok((Terms { tx_ring, rx_ring, channels, takes }, mtu))
}

/// What was found in a directory, by name.
struct Nodes<'a> {
    dir: &'a str,
    names: &'a [&'static str],
    found: &'a [Found],
}

impl Nodes<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let at = self.names.iter().position(|n| *n == name)?;
        self.found.get(at)?.value()
    }

    fn text<T>(
        &self,
        name: &str,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Malformed> {
        let value = self.value(name);
        value.and_then(|v| core::str::from_utf8(v).ok()).and_then(parse).ok_or_else(|| Malformed {
            path: format!("{}/{name}", self.dir),
            value: value.map(shown),
            wanted,
        })
    }

    fn flag(&self, name: &str) -> bool {
        let text = self.value(name).and_then(|v| core::str::from_utf8(v).ok());
        text.and_then(decimal).is_some_and(|n| n != 0)
    }
}

/// A value as a message may show it: on one line, printable, not too long.
fn shown(value: &[u8]) -> String {
    let cut = value.get(..SHOWN_MAX);
    let mut text = cut.unwrap_or(value).escape_ascii().to_string();
    if cut.is_some() && value.len() > SHOWN_MAX {
        text.push_str("...");
    }
    text
}

/// A decimal number, digits only.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: VifId = VifId { dom: DomId(5), handle: 0 };

    fn found(values: &[Option<&str>]) -> Vec<Found> {
        let one = |v: &Option<&str>| v.map_or(Found::Gone, |v| Found::Value(v.into()));
        values.iter().map(one).collect()
    }

    fn good_identity() -> [Option<&'static str>; 4] {
        [
            Some("/local/domain/5/device/vif/0"),
            Some("5"),
            Some("00:16:3e:5e:6c:00"),
            Some("10.137.0.10 fd09::a"),
        ]
    }

    fn good_terms() -> [Option<&'static str>; 12] {
        let mut nodes = [None; 12];
        nodes[0] = Some("8");
        nodes[1] = Some("9");
        nodes[2] = Some("11");
        nodes[5] = Some("1");
        nodes
    }

    #[test]
    fn an_identity_has_frontend_mac_and_addresses_of_both_families() {
        let identity = identity(ID, &found(&good_identity())).unwrap();
        assert_eq!(identity.frontend, "/local/domain/5/device/vif/0");
        assert_eq!(identity.mac.to_string(), "00:16:3e:5e:6c:00");
        let texts: Vec<_> = identity.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.137.0.10", "fd09::a"]);
    }

    #[test]
    fn a_vif_without_ip_list_has_no_addresses() {
        let mut nodes = good_identity();
        nodes[3] = None;
        assert!(identity(ID, &found(&nodes)).unwrap().addrs.is_empty());
    }

    #[test]
    fn each_bad_node_of_our_directory_is_named_with_its_value() {
        let bad = [
            (0, Some(""), "backend/vif/5/0/frontend is \"\", not a path"),
            (0, None, "backend/vif/5/0/frontend is missing, it should be a path"),
            (1, Some("6"), "backend/vif/5/0/frontend-id is \"6\", not the number of the"),
            (1, Some("70000"), "backend/vif/5/0/frontend-id is \"70000\""),
            (2, Some("ff:ff:ff:ff:ff:ff"), "backend/vif/5/0/mac is \"ff:ff:ff:ff:ff:ff\", not a"),
            (2, None, "backend/vif/5/0/mac is missing"),
            (
                3,
                Some("10.0.0.1 \n10.0.0"),
                "backend/vif/5/0/ip is \"10.0.0.1 \\n10.0.0\", not a list",
            ),
            (3, Some("10.0.0.1/24"), "backend/vif/5/0/ip is \"10.0.0.1/24\""),
        ];
        for (at, value, message) in bad {
            let mut nodes = good_identity();
            nodes[at] = value;
            let text = identity(ID, &found(&nodes)).unwrap_err().to_string();
            assert!(text.starts_with(message), "{text}");
        }
    }

    #[test]
    fn both_forms_of_event_channels_are_taken() {
        let (one, mtu) = terms("/f", &found(&good_terms())).unwrap();
        assert_eq!((one.channels, mtu), (Channels::One(11), 1500));
        let mut nodes = good_terms();
        (nodes[2], nodes[3], nodes[4]) = (None, Some("12"), Some("13"));
        let (split, _) = terms("/f", &found(&nodes)).unwrap();
        assert_eq!(split.channels, Channels::Split { tx: 12, rx: 13 });
    }

    #[test]
    fn features_not_written_are_those_every_frontend_has() {
        let (plain, _) = terms("/f", &found(&good_terms())).unwrap();
        assert_eq!(plain.takes, Takes { blank_v4: true, ..Takes::default() });
        let mut nodes = good_terms();
        for flag in &mut nodes[6..11] {
            *flag = Some("1");
        }
        let (full, _) = terms("/f", &found(&nodes)).unwrap();
        let all = Takes { sg: true, gso_v4: true, gso_v6: true, blank_v4: false, blank_v6: true };
        assert_eq!(full.takes, all);
    }

    #[test]
    fn each_bad_node_of_the_frontend_is_named_with_its_value() {
        let bad = [
            (0, Some("-1"), "/f/tx-ring-ref is \"-1\", not a grant reference"),
            (0, Some("4294967296"), "/f/tx-ring-ref is \"4294967296\""),
            (1, Some("8"), "/f/rx-ring-ref is \"8\", not a grant reference other than tx-ring-ref"),
            (1, None, "/f/rx-ring-ref is missing"),
            (2, Some("+1"), "/f/event-channel is \"+1\", not an event channel"),
            (2, None, "/f/event-channel is missing"),
            (5, Some("0"), "/f/request-rx-copy is \"0\", not 1"),
            (11, Some("67"), "/f/mtu is \"67\", not an MTU"),
        ];
        for (at, value, message) in bad {
            let mut nodes = good_terms();
            nodes[at] = value;
            let text = terms("/f", &found(&nodes)).unwrap_err().to_string();
            assert!(text.starts_with(message), "{text}");
        }
        let mut half_split = good_terms();
        (half_split[2], half_split[3]) = (None, Some("12"));
        let text = terms("/f", &found(&half_split)).unwrap_err().to_string();
        assert!(text.starts_with("/f/event-channel-rx is missing"), "{text}");
    }

    #[test]
    fn long_and_unprintable_values_are_cut_and_escaped() {
        assert_eq!(shown(&[7; 2]), "\\x07\\x07");
        assert_eq!(shown(&[b'a'; 2048]).len(), SHOWN_MAX + 3);
    }

    #[test]
    fn directory_names_are_plain_numbers_below_the_reserved_ones() {
        assert_eq!(VifId::parse("5", "0"), Some(ID));
        for (dom, handle) in
            [("32752", "0"), ("5", ""), ("5", "x"), ("-5", "0"), ("", "0"), ("5", "+1")]
        {
            assert_eq!(VifId::parse(dom, handle), None, "{dom}/{handle}");
        }
        assert_eq!(VifId { dom: DomId(32751), handle: 7 }.dir(), "backend/vif/32751/7");
    }
}
