//! One rule: what it matches, and what then happens.

use crate::{
    Action, AddrSet, Conditions, Family, HostName, HostSet, Note, PortSet, Query, Rate, Transport,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Names a rule of one policy; the index of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u32);

impl RuleId {
    /// The rule nobody wrote: what no block of the policy speaks of is dropped.
    pub const DEFAULT: Self = Self(0);

    /// As an index into [`crate::Counters`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A rule. All of its conditions must hold; the first rule of a block that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The line it was written on, from 1; 0 if nobody wrote it.
    pub line: u32,
    /// Source addresses. Shared, because many rules name the same set.
    pub src: Arc<AddrSet>,
    /// Destination addresses.
    pub dst: Arc<AddrSet>,
    /// Names whose addresses are destinations too, whatever they are at the time. Shared, as most
    /// rules have none.
    pub hosts: Option<Arc<HostSet>>,
    /// Protocols, ports and ICMP types.
    pub what: What,
    /// What it demands of the rest of the header; `None` is nothing. Shared, as most rules demand
    /// nothing.
    pub when: Option<Arc<Conditions>>,
    /// What happens to a flow it matches.
    pub then: Then,
    /// How many flows it may decide; what is more is dropped without a word.
    pub limit: Option<Rate>,
    /// The line it writes about a flow it matches, if it does.
    pub log: Option<Note>,
}

/// Which protocols a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// All of them.
    Any,
    /// One of these.
    Of(Vec<Traffic>),
}

/// One kind of traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// TCP between these ports.
    Tcp {
        /// Source ports.
        sport: PortSet,
        /// Destination ports.
        dport: PortSet,
    },
    /// UDP between these ports.
    Udp {
        /// Source ports.
        sport: PortSet,
        /// Destination ports.
        dport: PortSet,
    },
    /// All of ICMP in IPv4 and ICMPv6 in IPv6.
    Icmp,
    /// One type of ICMP, in the numbering of one family.
    IcmpType {
        /// Whose numbering.
        family: Family,
        /// The type.
        kind: u8,
        /// The code; `None` is any.
        code: Option<u8>,
    },
}

/// What happens to a flow that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// This, and no further rule is looked at.
    Do(Action),
    /// The VM's own rules from QubesDB decide ([`crate::qubes`]). They always do: without rules,
    /// or with broken ones, the VM is blocked.
    Qubes,
}

impl Rule {
    /// Whether all its conditions hold for `query`, whose sender knows its destination by the names
    /// `named`.
    #[must_use]
    pub fn matches(&self, query: &Query, named: &[HostName]) -> bool {
        self.what.matches(query)
            && self.src.contains(query.src)
            && (self.dst.contains(query.dst) || self.has_host(named))
            && self.when.as_ref().is_none_or(|when| when.hold(&query.header))
    }

    fn has_host(&self, named: &[HostName]) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.has_one_of(named))
    }

    /// Whether it matches every packet there is.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        self.what == What::Any && self.src.is_any() && self.dst.is_any() && self.when.is_none()
    }
}

impl What {
    /// Whether the transport header of `query` is one of these.
    #[must_use]
    pub fn matches(&self, query: &Query) -> bool {
        match self {
            Self::Any => true,
            Self::Of(kinds) => kinds.iter().any(|kind| kind.matches(query)),
        }
    }

    /// Whether it matches nothing but TCP.
    #[must_use]
    pub fn is_tcp_only(&self) -> bool {
        matches!(self, Self::Of(kinds) if kinds.iter().all(|k| matches!(k, Traffic::Tcp { .. })))
    }
}

impl Traffic {
    /// Whether the transport header of `query` is of this kind.
    #[must_use]
    pub fn matches(&self, query: &Query) -> bool {
        match (self, query.transport) {
            (Self::Tcp { sport: s, dport: d }, Transport::Tcp { sport, dport })
            | (Self::Udp { sport: s, dport: d }, Transport::Udp { sport, dport }) => {
                s.contains(sport) && d.contains(dport)
            }
            (Self::Icmp, Transport::Icmp { .. }) => true,
            (&Self::IcmpType { family, kind: k, code: c }, Transport::Icmp { kind, code }) => {
                family == query.family() && k == kind && c.is_none_or(|c| c == code)
            }
            _ => false,
        }
    }
}
