//! Packets of the plain kind, which nearly all traffic is, read and rewritten in few steps.
//!
//! In: a frame. Out: what it is looked up by and what belongs to it, and later the same with one end
//! renamed. Never: a packet that has to be looked at more closely: IP options, extension headers,
//! fragments, ICMP, segments that begin or end a connection, the last hop, anything that is wrong.
//! Those are for [`crate::parse`], which would say the same of the plain ones.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{array, be16, put};
use crate::parse::ETHERNET_HEADER;
use crate::sums::{Delta, Field, Sum};
use crate::{Addr, Csum, Frame, GsoKind, HEAD_MAX, Key, Kind, Mac, Offload, Proto, Tcp, TcpFlags};

/// Whether the first bytes of a frame have all headers of a TCP segment, behind an IPv4 header without
/// options or one of IPv6 without extensions: more of it says nothing new of the packet. What these headers
/// say may still be wrong.
#[must_use]
pub fn has_tcp_headers(head: &[u8]) -> bool {
    const TCP: u8 = 6;
    let (v6, protocol) = match be16(head, 12) {
        Some(0x0800) if head.get(14) == Some(&0x45) => (false, head.get(23)),
        Some(0x86dd) => (true, head.get(20)),
        _ => return false,
    };
    let l4 = l4(v6);
    let offset = l4.checked_add(12).and_then(|at| head.get(at));
    let header = offset.map_or(usize::MAX, |offset| usize::from(offset >> 4).saturating_mul(4));
    protocol == Some(&TCP) && l4.saturating_add(header.max(TCP_MIN)) <= head.len()
}

/// Where the transport header starts: behind an IPv4 header without options, or one of IPv6.
const fn l4(v6: bool) -> usize {
    if v6 { ETHERNET_HEADER + 40 } else { ETHERNET_HEADER + 20 }
}

/// What of it is read to know the packet: both ports, and the length or the sequence number.
const PORTS: usize = 8;

/// The shortest TCP header, and the longest.
const TCP_MIN: usize = 20;
const TCP_MAX: usize = 60;
const _: () = assert!(l4(true) + TCP_MAX <= HEAD_MAX);

/// A packet of the plain kind. Its headers lie inside the head it was read from, its lengths agree
/// with the frame, its IPv4 header sum is right, and there is a TTL to take from.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// What it is looked up by.
    pub key: Key,
    /// Length of all headers, that of Ethernet included.
    payload: u16,
    /// Length of the IP packet.
    ip_len: u32,
}

/// Which end of a packet gets another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
}

/// How a plain packet goes on.
#[derive(Clone, Copy, Debug)]
pub struct Onward {
    /// New destination of the Ethernet frame.
    pub eth_dst: Mac,
    /// New source of the Ethernet frame.
    pub eth_src: Mac,
    /// The end that changes.
    pub end: End,
    /// Its new address, of the packet's family.
    pub addr: Addr,
    /// Its new port.
    pub port: u16,
}

impl Plain {
    /// Reads a frame; `None` if it is not of this kind.
    #[inline(always)]
    #[must_use]
    pub fn read(frame: &Frame<'_>) -> Option<Self> {
        match be16(frame.head, 12)? {
            0x0800 => Self::v4(frame, frame.head.first_chunk()?),
            0x86dd => Self::v6(frame, frame.head.first_chunk()?),
            _ => None,
        }
    }

    #[inline(always)]
    fn v4(frame: &Frame<'_>, head: &[u8; l4(false) + PORTS]) -> Option<Self> {
        let flags = be16(head, 20)?;
        let dont_fragment = 0x4000;
        let plain = head[14] == 0x45 && flags & !dont_fragment == 0 && head[22] > 1;
        if !plain || !Sum::is_right(&array(head, ETHERNET_HEADER)?) {
            return None;
        }
        let addr = |at| array(head, at).map(Addr::from_v4);
        let ip_len = u32::from(be16(head, 16)?);
        Self::new(frame, ip_len, head[23], [addr(26)?, addr(30)?], head.last_chunk()?, false)
    }

    #[inline(always)]
    fn v6(frame: &Frame<'_>, head: &[u8; l4(true) + PORTS]) -> Option<Self> {
        if head[14] >> 4 != 6 || head[21] <= 1 {
            return None;
        }
        let addr = |at| array(head, at).map(Addr::from_v6);
        let ip_len = u32::from(be16(head, 18)?).checked_add(40)?;
        Self::new(frame, ip_len, head[20], [addr(22)?, addr(38)?], head.last_chunk()?, true)
    }

    #[inline(always)]
    fn new(
        frame: &Frame<'_>,
        ip_len: u32,
        protocol: u8,
        [src, dst]: [Addr; 2],
        ports: &[u8; PORTS],
        v6: bool,
    ) -> Option<Self> {
        let l4 = l4(v6);
        let l4_len = ip_len.checked_add(ETHERNET_HEADER as u32)?.checked_sub(l4 as u32)?;
        let (proto, header) = match protocol {
            17 => {
                let whole = u32::from(be16(ports, 4)?) == l4_len && l4_len >= 8;
                (Proto::Udp, (whole && frame.offload.gso.is_none()).then_some(8)?)
            }
            6 => (Proto::Tcp, tcp_header(frame, l4, l4_len, v6)?),
            _ => return None,
        };
        let fits = ip_len.checked_add(ETHERNET_HEADER as u32)? <= frame.len;
        let key = Key {
            src,
            dst,
            sport: be16(ports, 0)?,
            dport: be16(ports, 2)?,
            kind: Kind::new(proto, v6),
        };
        fits.then_some(Self { key, payload: u16::try_from(l4.checked_add(header)?).ok()?, ip_len })
    }

    /// Destination and source of the Ethernet frame. `head` is that of the frame it was read from.
    #[inline]
    #[must_use]
    pub fn macs(&self, head: &[u8]) -> Option<[Mac; 2]> {
        Some([Mac(array(head, 0)?), Mac(array(head, 6)?)])
    }

    /// Where the packet ends in its frame.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.ip_len.saturating_add(ETHERNET_HEADER as u32)
    }

    /// As [`crate::Packet::wire_len`].
    #[inline]
    #[must_use]
    pub fn wire_len(&self, offload: Offload) -> u32 {
        match offload.gso {
            Some(gso) => {
                let headers = u32::from(self.payload).saturating_sub(ETHERNET_HEADER as u32);
                self.ip_len.min(headers.saturating_add(u32::from(gso.size)))
            }
            None => self.ip_len,
        }
    }

    /// The TCP header, if it has one. `head` is that of the frame it was read from.
    #[inline]
    #[must_use]
    pub fn tcp(&self, head: &[u8]) -> Option<Tcp> {
        if self.key.kind.proto() != Proto::Tcp {
            return None;
        }
        let l4 = l4(self.key.kind.is_ipv6());
        let header: [u8; 16] = array(head, l4)?;
        Some(Tcp {
            sport: self.key.sport,
            dport: self.key.dport,
            flags: TcpFlags(header[13]),
            seq: u32::from_be_bytes(array(&header, 4)?),
            ack: u32::from_be_bytes(array(&header, 8)?),
            window: be16(&header, 14)?,
            window_scale: None,
            data: self.end().saturating_sub(u32::from(self.payload)),
        })
    }

    /// Writes the new head to `out` and says how long it is: as [`crate::Packet::rewrite`] does, with
    /// one hop counted. `frame` is the one it was read from. `None` never, for such a frame.
    #[inline(always)]
    pub fn write(&self, frame: &Frame<'_>, to: &Onward, out: &mut [u8; HEAD_MAX]) -> Option<u16> {
        let end = self.end() as usize;
        let whole = end <= HEAD_MAX && end <= frame.head.len();
        let len = if whole { end } else { usize::from(self.payload) };
        copy(frame.head.get(..len)?, out)?;
        put(out, 0, &to.eth_dst.0)?;
        put(out, 6, &to.eth_src.0)?;
        let blank = frame.offload.csum == Csum::Blank;
        let edited = match self.key.kind.is_ipv6() {
            true => self.edit::<true>(to, blank, out),
            false => self.edit::<false>(to, blank, out),
        };
        edited?;
        u16::try_from(len).ok()
    }

    /// Renames one end. `V6` is a constant so that all places are.
    #[inline(always)]
    fn edit<const V6: bool>(
        &self,
        to: &Onward,
        blank: bool,
        out: &mut [u8; HEAD_MAX],
    ) -> Option<()> {
        let l4 = l4(V6);
        let (old, old_port, port_at) = match to.end {
            End::Source => (self.key.src, self.key.sport, l4),
            End::Destination => (self.key.dst, self.key.dport, l4.checked_add(2)?),
        };
        let renamed = Delta::NONE.packed(old, to.addr);
        let ttl_at = if V6 { 21 } else { 22 };
        let [ttl] = array(out, ttl_at)?;
        let one_less = ttl.checked_sub(1)?;
        put(out, ttl_at, &[one_less])?;
        if V6 {
            let at = if to.end == End::Source { 22 } else { 38 };
            let [high, low] = to.addr.words();
            put(out, at, &high.to_be_bytes())?;
            put(out, at.checked_add(8)?, &low.to_be_bytes())?;
        } else {
            let at = if to.end == End::Source { 26 } else { 30 };
            put(out, at, &to.addr.v4_octets())?;
            let hop = Delta::NONE.word(u16::from(ttl) << 8, u16::from(one_less) << 8);
            let sum = hop.plus(renamed).apply(Field::Complete, be16(out, 24)?);
            put(out, 24, &sum.to_be_bytes())?;
        }
        put(out, port_at, &to.port.to_be_bytes())?;
        let (sum_at, field) = match self.key.kind {
            Kind::Udp4 | Kind::Udp6 => (l4.checked_add(6)?, Field::Udp),
            _ => (l4.checked_add(16)?, Field::Complete),
        };
        let field = if blank { Field::Blank } else { field };
        let sum = renamed.word(old_port, to.port).apply(field, be16(out, sum_at)?);
        put(out, sum_at, &sum.to_be_bytes())
    }
}

/// Length of the header of a segment that neither begins nor ends a connection.
#[inline(always)]
fn tcp_header(frame: &Frame<'_>, l4: usize, l4_len: u32, v6: bool) -> Option<usize> {
    let [offset, flags] = array(frame.head, l4.checked_add(12)?)?;
    let header = usize::from(offset >> 4).checked_mul(4)?;
    let control = TcpFlags::SYN.with(TcpFlags::FIN).with(TcpFlags::RST);
    let goes_on = flags & control.with(TcpFlags::ACK).0 == TcpFlags::ACK.0;
    let there = header >= TCP_MIN
        && header <= l4_len as usize
        && l4.checked_add(header)? <= frame.head.len();
    let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    let offload = frame
        .offload
        .gso
        .is_none_or(|gso| frame.offload.csum == Csum::Blank && gso.size > 0 && gso.kind == kind);
    (goes_on && there && offload).then_some(header)
}

/// Copies to the start of `to`; in two pieces that overlap, as they are of a size that is known.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8; HEAD_MAX]) -> Option<()> {
    let to = to.get_mut(..from.len())?;
    match from.len() {
        32..=64 => {
            *to.first_chunk_mut()? = *from.first_chunk::<32>()?;
            *to.last_chunk_mut()? = *from.last_chunk::<32>()?;
        }
        65..=128 => {
            *to.first_chunk_mut()? = *from.first_chunk::<64>()?;
            *to.last_chunk_mut()? = *from.last_chunk::<64>()?;
        }
        _ => to.copy_from_slice(from),
    }
    Some(())
}
