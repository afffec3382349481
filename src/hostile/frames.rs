//! Frames of a client: those an honest one would send, for attacks to be built from.
//!
//! In: addresses. Out: Ethernet frames with right sums. Never: a ring.

#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use wire::Mac;
use wire::sums::{Sum, pseudo_header};

const IPV4: [u8; 2] = [0x08, 0x00];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where the ICMP message of a frame without IP options stands.
const ICMP_AT: usize = 34;
const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;
/// Tells our echo requests from others.
const IDENT: u16 = 0x7469;

/// Who is who.
pub(crate) struct Net {
    pub(crate) mac: Mac,
    pub(crate) own: Ipv4Addr,
    /// Answers pings itself.
    pub(crate) gateway: Ipv4Addr,
    /// Beyond the firewall; policy lets us reach it.
    pub(crate) server: Ipv4Addr,
}

impl Net {
    /// An echo request to the gateway (RFC 792).
    pub(crate) fn echo(&self, sequence: u16) -> Vec<u8> {
        let mut icmp = vec![ECHO, 0, 0, 0];
        icmp.extend(IDENT.to_be_bytes());
        icmp.extend(sequence.to_be_bytes());
        icmp.extend([0x5a; 56]);
        let sum = Sum::ZERO.bytes(&icmp).checksum();
        put(&mut icmp, 2, sum);
        self.ipv4(self.gateway, ICMP, &icmp)
    }

    /// Whether `frame` answers the echo request `sequence`.
    pub(crate) fn is_reply(&self, frame: &[u8], sequence: u16) -> bool {
        let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
        is(12, &IPV4)
            && is(23, &[ICMP])
            && is(26, &self.gateway.octets())
            && is(ICMP_AT, &[ECHO_REPLY])
            && is(ICMP_AT + 4, &IDENT.to_be_bytes())
            && is(ICMP_AT + 6, &sequence.to_be_bytes())
    }

    /// A datagram of `len` bytes in all to the server's `port`.
    pub(crate) fn udp(&self, port: u16, len: usize) -> Vec<u8> {
        let mut udp = vec![0x5a; len.saturating_sub(ICMP_AT).max(8)];
        put(&mut udp, 0, 4000);
        put(&mut udp, 2, port);
        let length = udp.len() as u16;
        put(&mut udp, 4, length);
        put(&mut udp, 6, 0);
        let sum = self.pseudo(UDP, udp.len()).bytes(&udp).checksum();
        put(&mut udp, 6, sum);
        self.ipv4(self.server, UDP, &udp)
    }

    /// The first segment of a connection to the server, with `len` bytes of payload and a blank sum.
    pub(crate) fn syn(&self, port: u16, len: usize) -> Vec<u8> {
        let mut tcp = vec![0; 20 + len];
        put(&mut tcp, 0, 4000);
        put(&mut tcp, 2, port);
        // Five words of header, SYN.
        put(&mut tcp, 12, 0x5002);
        put(&mut tcp, 14, 0xffff);
        let blank = self.pseudo(TCP, tcp.len()).fold();
        put(&mut tcp, 16, blank);
        self.ipv4(self.server, TCP, &tcp)
    }

    fn pseudo(&self, protocol: u8, len: usize) -> Sum {
        let (own, server) = (IpAddr::V4(self.own), IpAddr::V4(self.server));
        pseudo_header(own, server, protocol, len as u32)
    }

    fn ipv4(&self, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        ip.extend(self.own.octets());
        ip.extend(to.octets());
        let length = (ip.len() + payload.len()) as u16;
        put(&mut ip, 2, length);
        let sum = Sum::ZERO.bytes(&ip).checksum();
        put(&mut ip, 10, sum);
        [&Mac::BACKEND.0[..], &self.mac.0, &IPV4, &ip[..], payload].concat()
    }
}

/// Writes 16 bits at `at`, which is inside.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
