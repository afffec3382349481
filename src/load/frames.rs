//! The frames this guest sends, with right sums.
//!
//! In: addresses, ports, sequence numbers. Out: bytes of an Ethernet frame. Never: allocates.

#![forbid(unsafe_code)]

use core::net::{Ipv4Addr, SocketAddrV4};
use wire::sums::{Sum, pseudo_header};
use wire::{Mac, TcpFlags};

/// Room for the longest.
pub(crate) const FRAME_MAX: usize = 1514;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const L4: usize = ETHERNET + IPV4;
const TCP: usize = 20;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// Both ends of the link, and our address.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) own_mac: Mac,
    /// Of whatever serves our vif.
    pub(crate) gateway_mac: Mac,
    pub(crate) own: Ipv4Addr,
}

/// A TCP segment without data.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) from: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: TcpFlags,
}

impl Ends {
    /// A datagram (RFC 768) in a frame of `len` bytes.
    pub(crate) fn udp(&self, out: &mut [u8; FRAME_MAX], from: u16, to: SocketAddrV4, len: u16) {
        let length = usize::from(len).clamp(L4 + 8, FRAME_MAX) - L4;
        put(out, L4, from);
        put(out, L4 + 2, to.port());
        put(out, L4 + 4, length as u16);
        put(out, L4 + 6, 0);
        let sum = self.around(out, *to.ip(), PROTO_UDP, length).checksum();
        // Zero would mean that there is no sum.
        put(out, L4 + 6, if sum == 0 { 0xffff } else { sum });
    }

    /// A segment (RFC 9293) of [`SEGMENT`] bytes.
    pub(crate) fn tcp(&self, out: &mut [u8; FRAME_MAX], segment: Segment, to: SocketAddrV4) {
        let Segment { from, seq, ack, flags } = segment;
        put(out, L4, from);
        put(out, L4 + 2, to.port());
        put(out, L4 + 4, (seq >> 16) as u16);
        put(out, L4 + 6, seq as u16);
        put(out, L4 + 8, (ack >> 16) as u16);
        put(out, L4 + 10, ack as u16);
        // Five words of header.
        put(out, L4 + 12, 0x5000 | u16::from(flags.0));
        put(out, L4 + 14, 0xffff);
        put(out, L4 + 16, 0);
        put(out, L4 + 18, 0);
        let sum = self.around(out, *to.ip(), PROTO_TCP, TCP).checksum();
        put(out, L4 + 16, sum);
    }

    /// Writes the headers before `length` bytes of transport, and sums those.
    fn around(&self, out: &mut [u8; FRAME_MAX], to: Ipv4Addr, proto: u8, length: usize) -> Sum {
        copy(out, 0, &self.gateway_mac.0);
        copy(out, 6, &self.own_mac.0);
        put(out, 12, 0x0800);
        // Version and header length, no service, a packet that may not be fragmented, TTL 64.
        put(out, 14, 0x4500);
        put(out, 16, (IPV4 + length) as u16);
        put(out, 18, 0);
        put(out, 20, 0x4000);
        put(out, 22, 64 << 8 | u16::from(proto));
        put(out, 24, 0);
        copy(out, 26, &self.own.octets());
        copy(out, 30, &to.octets());
        let header = out.get(ETHERNET..L4).unwrap_or_default();
        let sum = Sum::ZERO.bytes(header).checksum();
        put(out, 24, sum);
        let pseudo = pseudo_header(self.own.into(), to.into(), proto, length as u32);
        pseudo.bytes(out.get(L4..L4 + length).unwrap_or_default())
    }
}

/// Length of what [`Ends::tcp`] writes.
pub(crate) const SEGMENT: usize = L4 + TCP;

fn put(out: &mut [u8], at: usize, value: u16) {
    copy(out, at, &value.to_be_bytes());
}

fn copy(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
