//! Which conversation a packet belongs to.

use core::fmt;
use core::net::IpAddr;

/// A transport protocol that can be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Proto {
    /// TCP (RFC 9293).
    Tcp = 6,
    /// UDP (RFC 768).
    Udp = 17,
    /// ICMP queries (RFC 792).
    Icmp = 1,
    /// ICMPv6 queries (RFC 4443).
    Icmpv6 = 58,
}

impl Proto {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Icmpv6];

    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
        })
    }
}

/// Protocol, addresses and ports of a packet, in the direction it travels.
///
/// An ICMP query has one number instead of two ports: its id stands at the end that asked. So a
/// request carries it as `sport` (and `dport` is 0), a response as `dport` (and `sport` is 0), and
/// [`Tuple::reversed`] of a request is its response, as with TCP and UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Transport protocol.
    pub proto: Proto,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family as `src`.
    pub dst: IpAddr,
    /// Source port, or the id of an ICMP request.
    pub sport: u16,
    /// Destination port, or the id of an ICMP response.
    pub dport: u16,
}

impl Tuple {
    /// The tuple of an answer.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            proto: self.proto,
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, src, dst, sport, dport } = self;
        match (src, dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                write!(f, "{proto} [{src}]:{sport} -> [{dst}]:{dport}")
            }
            _ => write!(f, "{proto} {src}:{sport} -> {dst}:{dport}"),
        }
    }
}
