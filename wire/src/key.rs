//! What a packet is looked up by, in the fewest bytes.
//!
//! In: a tuple, or headers ([`crate::Plain`]). Out: the same, to be hashed and compared without a
//! look at the family. Never: two tuples with one key.

use crate::{Proto, Tuple};
use core::net::{IpAddr, Ipv6Addr};

/// An IPv4 or IPv6 address without its family, which whoever holds it knows: the bytes of the
/// header, those of IPv4 first and zeros behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addr(pub(crate) [u8; 16]);

impl Addr {
    /// The address again.
    #[must_use]
    pub const fn ip(self, v6: bool) -> IpAddr {
        let [a, b, c, d, ..] = self.0;
        if v6 {
            IpAddr::V6(Ipv6Addr::from_octets(self.0))
        } else {
            IpAddr::V4(core::net::Ipv4Addr::new(a, b, c, d))
        }
    }

    pub(crate) const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// As two numbers, for hashing and sums.
    #[must_use]
    pub fn words(self) -> [u64; 2] {
        let (words, _) = self.0.as_chunks::<8>();
        match words {
            [a, b] => [u64::from_be_bytes(*a), u64::from_be_bytes(*b)],
            _ => [0; 2],
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::v4(addr.octets()),
            IpAddr::V6(addr) => Self(addr.octets()),
        }
    }
}

/// A protocol over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// ICMP queries.
    Icmp = 1,
    /// TCP over IPv4.
    Tcp4 = 6,
    /// UDP over IPv4.
    Udp4 = 17,
    /// ICMPv6 queries.
    Icmpv6 = 128 + 58,
    /// TCP over IPv6.
    Tcp6 = 128 + 6,
    /// UDP over IPv6.
    Udp6 = 128 + 17,
}

impl Kind {
    /// Of a protocol that can be carried by both families; ICMP has one each.
    #[must_use]
    pub const fn new(proto: Proto, v6: bool) -> Self {
        match (proto, v6) {
            (Proto::Tcp, false) => Self::Tcp4,
            (Proto::Tcp, true) => Self::Tcp6,
            (Proto::Udp, false) => Self::Udp4,
            (Proto::Udp, true) => Self::Udp6,
            (Proto::Icmp, _) => Self::Icmp,
            (Proto::Icmpv6, _) => Self::Icmpv6,
        }
    }

    /// The protocol.
    #[must_use]
    pub const fn proto(self) -> Proto {
        match self {
            Self::Tcp4 | Self::Tcp6 => Proto::Tcp,
            Self::Udp4 | Self::Udp6 => Proto::Udp,
            Self::Icmp => Proto::Icmp,
            Self::Icmpv6 => Proto::Icmpv6,
        }
    }

    /// Whether it is carried by IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self as u8 & 128 != 0
    }
}

/// A [`Tuple`] in the fewest bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or the id of an ICMP request.
    pub sport: u16,
    /// Destination port, or the id of an ICMP response.
    pub dport: u16,
    /// Protocol and family.
    pub kind: Kind,
}

impl Key {
    /// Of a tuple whose addresses are of one family; `None` if they are not, or if that family does
    /// not carry the protocol.
    #[must_use]
    pub fn new(tuple: &Tuple) -> Option<Self> {
        let v6 = tuple.src.is_ipv6();
        let kind = Kind::new(tuple.proto, v6);
        (kind.is_ipv6() == v6 && tuple.dst.is_ipv6() == v6).then(|| Self {
            src: tuple.src.into(),
            dst: tuple.dst.into(),
            sport: tuple.sport,
            dport: tuple.dport,
            kind,
        })
    }

    /// The tuple again.
    #[must_use]
    pub const fn tuple(&self) -> Tuple {
        let v6 = self.kind.is_ipv6();
        Tuple {
            proto: self.kind.proto(),
            src: self.src.ip(v6),
            dst: self.dst.ip(v6),
            sport: self.sport,
            dport: self.dport,
        }
    }

    /// The key of an answer.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, kind: self.kind }
    }
}
