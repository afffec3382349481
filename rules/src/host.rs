//! Host names in rules, and what they stand for.
//!
//! In: names as they were written, and for each client the addresses that each name has at this
//! moment. Out: which names stand for an address. Never: one client's knowledge in the answer about
//! another.
#![deny(clippy::arithmetic_side_effects)]

use crate::{AddrSet, RangeSet};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

/// Bytes of a name, without a dot at its end (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;

/// Bytes of what stands between two dots (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// Most names in one rule.
pub const HOSTS_PER_RULE: usize = 64;

/// Most names in all rules of a policy: each is resolved for each client whose flows may meet it.
pub const HOSTS_MAX: usize = 64;

/// A host name, in lower case. Shared, as one name stands in many places.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHost {
    /// A `*`: addresses are asked for ahead, which takes one name.
    Wildcard,
    /// An address.
    Address,
    /// A character other than letters, digits, `-` and `_`.
    Character(char),
    /// Nothing before, behind or between dots.
    EmptyLabel,
    /// More than 63 characters between two dots.
    LongLabel,
    /// More than 253 characters.
    Long,
    /// A `-` where a label begins or ends.
    Hyphen,
}

impl HostName {
    /// The host that `text` names. Upper and lower case are the same (RFC 4343).
    ///
    /// # Errors
    /// [`NoHost`].
    pub fn new(text: &str) -> Result<Self, NoHost> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.contains('*') {
            return Err(NoHost::Wildcard);
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        let is_number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
        // A name whose end is a number is taken for an address elsewhere (RFC 1123 section 2.1).
        if text.parse::<IpAddr>().is_ok() || is_number {
            return Err(NoHost::Address);
        }
        if let Some(c) = text.chars().find(|c| !fits(*c)) {
            return Err(NoHost::Character(c));
        }
        if text.len() > NAME_MAX {
            return Err(NoHost::Long);
        }
        for label in text.split('.') {
            match label {
                "" => return Err(NoHost::EmptyLabel),
                _ if label.len() > LABEL_MAX => return Err(NoHost::LongLabel),
                _ if label.starts_with('-') || label.ends_with('-') => return Err(NoHost::Hyphen),
                _ => {}
            }
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// A name as Qubes writes it, which says less about what a name is.
    pub(crate) fn of_qubes(name: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let fine = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits);
        fine.then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wildcard => f.write_str("a `*` stands for no host"),
            Self::Address => f.write_str("this is an address, or would be taken for one"),
            Self::Character(c) => write!(f, "`{}` is in no host name", c.escape_debug()),
            Self::EmptyLabel => f.write_str("a dot has nothing before or behind it"),
            Self::LongLabel => write!(f, "more than {LABEL_MAX} characters without a dot"),
            Self::Long => write!(f, "more than {NAME_MAX} characters"),
            Self::Hyphen => f.write_str("a part of it begins or ends with `-`"),
        }
    }
}

impl core::error::Error for NoHost {}

/// The names of one rule, in order, each once, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostSet(Vec<HostName>);

impl HostSet {
    /// These names; `None` if there are none.
    pub fn new(names: impl IntoIterator<Item = HostName>) -> Option<Self> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(Self(names))
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &[HostName] {
        &self.0
    }

    /// Whether one of `names` is among them.
    #[must_use]
    pub fn has_one_of(&self, names: &[HostName]) -> bool {
        names.iter().any(|name| self.0.binary_search(name).is_ok())
    }
}

/// What the names in a policy stand for at this moment, for each client by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTable {
    /// By client and address, because that is what is known of a packet; none of the lists is empty.
    names: BTreeMap<(IpAddr, IpAddr), Vec<HostName>>,
}

impl HostTable {
    /// Nothing stands for anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { names: BTreeMap::new() }
    }

    /// Says which addresses `host` stands for in the eyes of `client`, and no others. Whether that
    /// changed anything.
    pub fn set(&mut self, client: IpAddr, host: &HostName, addrs: &[IpAddr]) -> bool {
        let mut changed = false;
        self.retain(client, |addr, name| {
            let goes = name == host && !addrs.contains(&addr);
            changed |= goes;
            !goes
        });
        for addr in addrs {
            let names = self.names.entry((client, *addr)).or_default();
            if let Err(place) = names.binary_search(host) {
                names.insert(place, host.clone());
                changed = true;
            }
        }
        changed
    }

    /// Forgets what `client` knows of other names than `hosts`.
    pub fn keep(&mut self, client: IpAddr, hosts: &BTreeSet<&HostName>) {
        self.retain(client, |_, name| hosts.contains(name));
    }

    /// Forgets all that `client` knows.
    pub fn forget(&mut self, client: IpAddr) {
        self.retain(client, |_, _| false);
    }

    /// The names that stand for `addr` in the eyes of `client`, in order.
    #[must_use]
    pub fn of(&self, client: IpAddr, addr: IpAddr) -> &[HostName] {
        self.names.get(&(client, addr)).map_or(&[], Vec::as_slice)
    }

    /// Keeps what `keeps` says of what `client` knows.
    fn retain(&mut self, client: IpAddr, mut keeps: impl FnMut(IpAddr, &HostName) -> bool) {
        let (first, last) = match client {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
            IpAddr::V6(_) => (IpAddr::from([0; 16]), IpAddr::from([0xff; 16])),
        };
        let known = self.names.range_mut((client, first)..=(client, last));
        let mut over = Vec::new();
        for (&(_, addr), names) in known {
            names.retain(|name| keeps(addr, name));
            if names.is_empty() {
                over.push((client, addr));
            }
        }
        for place in over {
            self.names.remove(&place);
        }
    }
}

/// Addresses that no name has in the eyes of the firewall: what can never be routed (RFC 6890), and
/// what Qubes gives to VMs and resolvers.
#[must_use]
pub fn nameless() -> AddrSet {
    let v4 = |first, last| (Ipv4Addr::from(first).to_bits(), Ipv4Addr::from(last).to_bits());
    let v6 = |first: u128, bits: u32| (first, first | u128::MAX.checked_shr(bits).unwrap_or(0));
    AddrSet {
        v4: RangeSet::from_ranges([
            v4([0; 4], [0, 255, 255, 255]),
            v4([10, 137, 0, 0], [10, 139, 255, 255]),
            v4([127, 0, 0, 0], [127, 255, 255, 255]),
            v4([169, 254, 0, 0], [169, 254, 255, 255]),
            v4([224, 0, 0, 0], [255; 4]),
        ]),
        v6: RangeSet::from_ranges([
            v6(0, 127),
            v6(0xffff << 32, 96),
            v6(0xfd09_24ef_4179 << 80, 48),
            v6(0xfe80 << 112, 10),
            v6(0xff << 120, 8),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn a_host_is_what_a_resolver_can_be_asked_for() {
        for (text, name) in [
            ("deb.debian.org", "deb.debian.org"),
            ("Deb.Debian.ORG", "deb.debian.org"),
            ("printer", "printer"),
            ("_sip.x-1.example", "_sip.x-1.example"),
            ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
            ("4chan.org", "4chan.org"),
        ] {
            assert_eq!(HostName::new(text).unwrap().as_str(), name);
        }
        let label = "a".repeat(63);
        assert!(HostName::new(&label).is_ok());
        let long = [&*label; 4].join(".");
        assert!(HostName::new(&long[..253]).is_ok());
        for (text, why) in [
            ("*.debian.org", NoHost::Wildcard),
            ("10.0.0.1", NoHost::Address),
            ("10.0.0.256", NoHost::Address),
            ("0x7f.1", NoHost::Address),
            ("2001:db8::1", NoHost::Address),
            ("debian.org:443", NoHost::Character(':')),
            ("debian.org/24", NoHost::Character('/')),
            ("bücher.example", NoHost::Character('ü')),
            ("", NoHost::EmptyLabel),
            ("debian.org.", NoHost::EmptyLabel),
            (".org", NoHost::EmptyLabel),
            ("a..b", NoHost::EmptyLabel),
            (&format!("{label}a.org"), NoHost::LongLabel),
            (&long[..254], NoHost::Long),
            ("-a.org", NoHost::Hyphen),
            ("a-.org", NoHost::Hyphen),
        ] {
            assert_eq!(HostName::new(text), Err(why), "{text}");
        }
    }

    fn small_addr(n: u8, v6: bool) -> IpAddr {
        if v6 {
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(n)])
        } else {
            IpAddr::from([0, 0, 0, n])
        }
    }

    /// A family, a client, a name and addresses, by small numbers.
    fn telling() -> impl Strategy<Value = (bool, u8, u8, Vec<u8>)> {
        (any::<bool>(), 0u8..3, 0u8..3, proptest::collection::vec(0u8..4, 0..4))
    }

    proptest! {
        /// The same table as a plain list of triples.
        #[test]
        fn a_table_knows_what_it_was_told_last_of_each_name_and_client(
            told in proptest::collection::vec(telling(), 0..20),
        ) {
            let (mut table, mut plain) = (HostTable::new(), BTreeSet::new());
            let names = ["a", "b", "c"].map(|name| HostName::new(name).unwrap());
            for (v6, client, name, addrs) in told {
                let client = small_addr(client, v6);
                let addrs: Vec<_> = addrs.into_iter().map(|n| small_addr(n, v6)).collect();
                let name = &names[usize::from(name)];
                let before = plain.clone();
                plain.retain(|(c, n, _)| (c, n) != (&client, name));
                plain.extend(addrs.iter().map(|addr| (client, name.clone(), *addr)));
                prop_assert_eq!(table.set(client, name, &addrs), plain != before);
                if addrs.len() == 2 {
                    plain.retain(|(c, n, _)| *c != client || *n == names[0]);
                    table.keep(client, &BTreeSet::from([&names[0]]));
                }
                if addrs.len() == 3 {
                    plain.retain(|(c, ..)| *c != client);
                    table.forget(client);
                }
            }
            for client in (0..3).flat_map(|n| [small_addr(n, false), small_addr(n, true)]) {
                for addr in (0..4).flat_map(|n| [small_addr(n, false), small_addr(n, true)]) {
                    let stands = |name: &&HostName| plain.contains(&(client, (*name).clone(), addr));
                    let want: Vec<_> = names.iter().filter(stands).cloned().collect();
                    prop_assert_eq!(table.of(client, addr), want);
                }
            }
            prop_assert!(table.names.values().all(|names| !names.is_empty()), "nothing is kept for nobody");
        }
    }

    #[test]
    fn a_set_has_each_name_once_and_in_order() {
        let name = |text| HostName::new(text).unwrap();
        assert_eq!(HostSet::new([]), None);
        let set = HostSet::new([name("b"), name("a"), name("b")]).unwrap();
        assert_eq!(set.names(), [name("a"), name("b")]);
        assert!(set.has_one_of(&[name("0a"), name("b")]) && !set.has_one_of(&[name("c")]));
        assert!(!set.has_one_of(&[]));
    }
}
