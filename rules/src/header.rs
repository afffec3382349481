//! What rules may look at beyond addresses, protocols and ports.
//!
//! In: the header fields of a packet that asks for admission. Out: whether they meet a rule's
//! [`Conditions`]. Never: looked at for a packet of a flow that has been admitted, nor filled in unless
//! some rule of the policy asks ([`crate::Policy::looks_at_headers`]).

use crate::{PortSet, RangeSet};
use core::fmt;

/// Whether the flow is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Its first packet asks.
    #[default]
    New,
    /// Older rules accepted it; since then they have changed, and it is asked about again.
    Established,
}

impl State {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::New, Self::Established];

    /// The word for it in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
        }
    }
}

/// Fields of the packet that asks, and of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Whether the flow is new.
    pub state: State,
    /// TTL, in IPv6 the hop limit, as it came.
    pub ttl: u8,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: u8,
    /// Length of the IP packet in bytes, its header included.
    pub length: u16,
    /// The control bits of TCP (RFC 9293 section 3.1); 0 for anything else.
    pub flags: u8,
}

impl Header {
    /// Of a packet nothing more is known of: a small one that opens a connection.
    pub const PLAIN: Self =
        Self { state: State::New, ttl: 64, dscp: 0, length: 60, flags: Self::SYN };

    const SYN: u8 = 2;
}

impl Default for Header {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// The names of the control bits of TCP, from the lowest.
pub const FLAG_NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// What differs from [`Header::PLAIN`], each with a comma before it.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Self::PLAIN;
        if self.state != plain.state {
            write!(f, ", state {}", self.state.name())?;
        }
        let numbers = [
            ("ttl", u16::from(self.ttl), u16::from(plain.ttl)),
            ("dscp", u16::from(self.dscp), u16::from(plain.dscp)),
            ("length", self.length, plain.length),
        ];
        for (name, value, usual) in numbers {
            if value != usual {
                write!(f, ", {name} {value}")?;
            }
        }
        if self.flags == plain.flags || self.flags == 0 {
            return Ok(());
        }
        f.write_str(", flags")?;
        let set = (0..8).zip(FLAG_NAMES).filter(|(bit, _)| self.flags >> bit & 1 == 1);
        for (number, (_, name)) in set.enumerate() {
            write!(f, "{}{name}", if number == 0 { " " } else { "+" })?;
        }
        Ok(())
    }
}

/// What a rule demands of a [`Header`]: each field is in its set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conditions {
    /// `None` is both.
    pub state: Option<State>,
    /// TTL or hop limit.
    pub ttl: RangeSet<u8>,
    /// DSCP.
    pub dscp: RangeSet<u8>,
    /// Length in bytes.
    pub length: PortSet,
    /// Control bits of TCP. Only in rules that match nothing but TCP.
    pub flags: RangeSet<u8>,
}

impl Conditions {
    /// Those that always hold.
    #[must_use]
    pub fn none() -> Self {
        Self {
            state: None,
            ttl: RangeSet::full(),
            dscp: RangeSet::from_ranges([(0, Self::DSCP_MAX)]),
            length: RangeSet::full(),
            flags: RangeSet::full(),
        }
    }

    /// The largest DSCP.
    pub const DSCP_MAX: u8 = 63;

    /// The values of the control bits in which all of `set` and none of `clear` are.
    #[must_use]
    pub fn flags(set: u8, clear: u8) -> RangeSet<u8> {
        let fitting = (0..=u8::MAX).filter(|bits| bits & set == set && bits & clear == 0);
        RangeSet::from_ranges(fitting.map(|bits| (bits, bits)))
    }

    /// Whether all of them hold.
    #[must_use]
    pub fn hold(&self, header: &Header) -> bool {
        self.state.is_none_or(|state| state == header.state)
            && self.ttl.contains(header.ttl)
            && self.dscp.contains(header.dscp)
            && self.length.contains(header.length)
            && self.flags.contains(header.flags)
    }

    /// Whether no header meets them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let numbers = [&self.ttl, &self.dscp, &self.flags];
        numbers.into_iter().any(RangeSet::is_empty) || self.length.is_empty()
    }

    /// Whether they demand anything of the control bits of TCP.
    #[must_use]
    pub fn is_about_tcp(&self) -> bool {
        !self.flags.is_full()
    }
}
