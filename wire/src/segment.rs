//! What a sender left to its receiver, done for one that cannot: segmentation and checksums.
//!
//! In: the packet of an outgoing frame. Out: which bytes go into each frame it becomes, and the head
//! of each, with a blank checksum or a complete one. Never: payload (it is told as a range and as its
//! sum), or more than [`SEGMENTS_MAX`] frames for one.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{be16, be32, put};
use crate::parse::ETHERNET_HEADER;
use crate::sums::{Delta, Field, Sum, pseudo_header};
use crate::{DropReason, HEAD_MAX, Packet, Proto, TcpFlags, Transport};
use core::ops::Range;

/// Most frames that one becomes: what 64 KiB at the MSS of whoever was told none makes (536 bytes, RFC
/// 9293 section 3.7.1), rounded up. Smaller segments that many are an attack on whoever cuts them.
pub const SEGMENTS_MAX: usize = 128;

const IPV6_HEADER: u32 = 40;
const FLAGS_AT: usize = 13;

/// A TCP or UDP packet as the frames it becomes: one if it is not to be segmented.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: Packet<'a>,
    proto: Proto,
    ranges: Ranges,
}

impl<'a> Segments<'a> {
    /// Plans the frames for `packet`.
    ///
    /// # Errors
    /// [`DropReason::EgressOffload`] if nobody can do its offload: it is neither TCP nor UDP, or would
    /// be more than [`SEGMENTS_MAX`] frames.
    pub fn new(packet: Packet<'a>) -> Result<Self, DropReason> {
        let proto = match packet.transport {
            Transport::Tcp(_) => Proto::Tcp,
            Transport::Udp(_) => Proto::Udp,
            _ => return Err(DropReason::EgressOffload),
        };
        // What follows the packet is Ethernet padding, and nobody's loss.
        let end = packet.ip_len.saturating_add(ETHERNET_HEADER as u32);
        let size = packet.offload.gso.map_or(u32::MAX, |gso| gso.size.into());
        let ranges = Ranges { at: packet.payload.into(), size, end, first: true };
        if ranges.len() > SEGMENTS_MAX {
            return Err(DropReason::EgressOffload);
        }
        Ok(Self { packet, proto, ranges })
    }

    /// The payload of each frame, in bytes from the start of the packet's frame.
    #[must_use]
    pub const fn ranges(&self) -> Ranges {
        self.ranges
    }

    /// Bytes of each head.
    #[must_use]
    pub const fn head_len(&self) -> u16 {
        self.packet.payload
    }

    /// Writes the head of the frame that carries `payload`. With `sum`, that of this payload, its
    /// checksum is complete, otherwise blank. Returns its length; `None` if `payload` is none of
    /// [`ranges`](Self::ranges).
    pub fn head(
        &self,
        payload: &Range<u32>,
        sum: Option<Sum>,
        out: &mut [u8; HEAD_MAX],
    ) -> Option<u16> {
        let packet = &self.packet;
        let len = usize::from(packet.payload);
        let out = out.get_mut(..len)?;
        out.copy_from_slice(packet.head.get(..len)?);
        let done = payload.start.checked_sub(self.ranges.at)?;
        let index = u16::try_from(done.checked_div(self.ranges.size)?).ok()?;
        let l4 = usize::from(packet.l4);
        let l4_len = u32::from(packet.payload.checked_sub(packet.l4)?)
            .checked_add(payload.end.checked_sub(payload.start)?)?;
        network(packet, l4_len, index, out)?;
        if self.proto == Proto::Tcp && packet.offload.gso.is_some() {
            let seq = be32(out, l4.checked_add(4)?)?.wrapping_add(done);
            put(out, l4.checked_add(4)?, &seq.to_be_bytes())?;
            let flags = out.get_mut(l4.checked_add(FLAGS_AT)?)?;
            *flags &= !not_here(index == 0, payload.end == self.ranges.end).0;
        }
        if self.proto == Proto::Udp {
            put(out, l4.checked_add(4)?, &u16::try_from(l4_len).ok()?.to_be_bytes())?;
        }
        let field_at = l4.checked_add(if self.proto == Proto::Tcp { 16 } else { 6 })?;
        let pseudo = pseudo_header(packet.src, packet.dst, self.proto.number(), l4_len);
        put(out, field_at, &[0, 0])?;
        let field = match sum {
            None => pseudo.fold(),
            Some(sum) => match pseudo.bytes(out.get(l4..)?).plus(sum).checksum() {
                // Zero would mean that there is none (RFC 768).
                0 if self.proto == Proto::Udp => 0xffff,
                field => field,
            },
        };
        put(out, field_at, &field.to_be_bytes())?;
        Some(packet.payload)
    }
}

/// The flags of the whole that a segment does not have: the end of the data is in the last one only,
/// and the congestion window was reduced once (RFC 3168 section 6.1.2).
const fn not_here(is_first: bool, is_last: bool) -> TcpFlags {
    let end = if is_last { TcpFlags(0) } else { TcpFlags::FIN.with(TcpFlags::PSH) };
    if is_first { end } else { end.with(TcpFlags::CWR) }
}

/// Gives the IP header its length, and IPv4 an identification of its own (RFC 6864 asks that only of
/// what may be fragmented; Linux does it always).
fn network(packet: &Packet<'_>, l4_len: u32, index: u16, out: &mut [u8]) -> Option<()> {
    let l3 = usize::from(packet.l3);
    let header = u32::from(packet.l4.checked_sub(packet.l3)?);
    let ip_len = header.checked_add(l4_len)?;
    if packet.is_ipv6() {
        let len = u16::try_from(ip_len.checked_sub(IPV6_HEADER)?).ok()?;
        return put(out, l3.checked_add(4)?, &len.to_be_bytes());
    }
    let mut delta = Delta::NONE;
    let id = be16(out, l3.checked_add(4)?)?.wrapping_add(index);
    for (at, new) in [(2, u16::try_from(ip_len).ok()?), (4, id)] {
        let at = l3.checked_add(at)?;
        delta = delta.word(be16(out, at)?, new);
        put(out, at, &new.to_be_bytes())?;
    }
    let at = l3.checked_add(10)?;
    put(out, at, &delta.apply(Field::Complete, be16(out, at)?).to_be_bytes())
}

/// See [`Segments::ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    at: u32,
    size: u32,
    end: u32,
    /// A packet without payload is a frame too.
    first: bool,
}

impl Iterator for Ranges {
    type Item = Range<u32>;

    fn next(&mut self) -> Option<Range<u32>> {
        if self.at >= self.end && !self.first {
            return None;
        }
        self.first = false;
        let to = self.at.saturating_add(self.size).min(self.end);
        let range = self.at..to;
        self.at = to;
        Some(range)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.at).div_ceil(self.size.max(1));
        let len = left.max(u32::from(self.first)) as usize;
        (len, Some(len))
    }
}

impl ExactSizeIterator for Ranges {}
