//! What a packet is looked up by, in the fewest bytes.
//!
//! In: a tuple, or headers ([`crate::Plain`]). Out: the same, to be hashed and compared without a
//! look at the family. Never: two tuples with one key.

use crate::{Proto, Tuple};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address without its family, which whoever holds it knows: the bytes of the
/// header, those of IPv4 first and zeros behind them. Kept as two numbers, which are hashed, compared
/// and summed in few steps; packed, as tables are full of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub struct Addr {
    high: u64,
    low: u64,
}

impl Addr {
    /// The address again.
    #[must_use]
    pub const fn ip(self, v6: bool) -> IpAddr {
        let [high, low] = self.words();
        if v6 {
            IpAddr::V6(Ipv6Addr::from_bits((high as u128) << 64 | low as u128))
        } else {
            IpAddr::V4(Ipv4Addr::from_octets(self.v4_octets()))
        }
    }

    pub(crate) fn from_v4(octets: [u8; 4]) -> Self {
        Self { high: u64::from(u32::from_be_bytes(octets)) << 32, low: 0 }
    }

    pub(crate) fn from_v6(octets: [u8; 16]) -> Self {
        match octets.as_chunks::<8>().0 {
            [high, low] => Self { high: u64::from_be_bytes(*high), low: u64::from_be_bytes(*low) },
            _ => Self { high: 0, low: 0 },
        }
    }

    /// The bytes of an IPv4 address.
    pub(crate) const fn v4_octets(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.words()[0].to_be_bytes();
        [a, b, c, d]
    }

    /// As two numbers, the first bytes first.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [self.high, self.low]
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::from_v4(addr.octets()),
            IpAddr::V6(addr) => Self::from_v6(addr.octets()),
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
    #[inline(always)] // A call costs more than what it does.
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
