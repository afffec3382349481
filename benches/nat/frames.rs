//! Datagrams and pings of the shortest kind, written into place.
//!
//! In: endpoints. Out: a frame of 60 bytes (IPv4) or 80 (IPv6), sums right. Never: an allocation.

use std::net::{IpAddr, Ipv6Addr};
use wire::sums::{Sum, pseudo_header};
use wire::{Mac, Proto};

/// Longest frame made here.
pub(crate) const LONGEST: usize = 80;

/// Bytes of transport header and payload.
const L4: u16 = 26;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    pub(crate) const fn ping(self) -> Proto {
        match self {
            Self::V4 => Proto::Icmp,
            Self::V6 => Proto::Icmpv6,
        }
    }

    /// The n-th address of a block that begins as given for IPv4.
    pub(crate) fn addr(self, block: u8, nth: u32) -> IpAddr {
        let [_, b, c, d] = nth.to_be_bytes();
        match self {
            Self::V4 => IpAddr::from([block, b, c, d]),
            Self::V6 => {
                let (high, low) = (u16::from(b), u16::from_be_bytes([c, d]));
                Ipv6Addr::new(0x2600 | u16::from(block), 0, 0, 0, 0, 0, high, low).into()
            }
        }
    }
}

/// Writes a datagram, or a ping whose id is the source's port, or its `answer`; says how long the
/// frame is.
pub(crate) fn write(
    place: &mut [u8; LONGEST],
    (proto, answer): (Proto, bool),
    (to, from): (Mac, Mac),
    (src, sport): (IpAddr, u16),
    (dst, dport): (IpAddr, u16),
) -> usize {
    place[..6].copy_from_slice(&to.0);
    place[6..12].copy_from_slice(&from.0);
    let l4 = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            place[12..14].copy_from_slice(&[8, 0]);
            let header = &mut place[14..34];
            header.copy_from_slice(&[
                0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ]);
            header[9] = proto.number();
            header[2..4].copy_from_slice(&(20 + L4).to_be_bytes());
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            let sum = Sum::ZERO.bytes(header).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            34
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            place[12..14].copy_from_slice(&[0x86, 0xdd]);
            place[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, proto.number(), 64]);
            place[18..20].copy_from_slice(&L4.to_be_bytes());
            place[22..38].copy_from_slice(&src.octets());
            place[38..54].copy_from_slice(&dst.octets());
            54
        }
        mixed => panic!("{mixed:?}"),
    };
    let end = l4 + usize::from(L4);
    let message = &mut place[l4..end];
    message.fill(0x55);
    let sum_at = match proto {
        Proto::Icmp | Proto::Icmpv6 => {
            let kind = match (proto, answer) {
                (Proto::Icmp, false) => 8,
                (Proto::Icmp, true) => 0,
                (_, false) => 128,
                (_, true) => 129,
            };
            message[..4].copy_from_slice(&[kind, 0, 0, 0]);
            message[4..6].copy_from_slice(&sport.to_be_bytes());
            2
        }
        Proto::Udp | Proto::Tcp => {
            message[..2].copy_from_slice(&sport.to_be_bytes());
            message[2..4].copy_from_slice(&dport.to_be_bytes());
            message[4..6].copy_from_slice(&L4.to_be_bytes());
            message[6..8].fill(0);
            6
        }
    };
    let pseudo = match proto {
        Proto::Icmp => Sum::ZERO,
        _ => pseudo_header(src, dst, proto.number(), L4.into()),
    };
    let sum = pseudo.bytes(message).checksum();
    message[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    end
}
