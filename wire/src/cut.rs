//! IPv4 packets that are too long for a link and may be cut (RFC 791 section 3.2).
//!
//! In: a whole packet and what to change in it. Out: its fragments, in order. Never: a cut where the
//! sender forbade it, or through what the sender left to be segmented or summed.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{be16, put};
use crate::edit::Rewrite;
use crate::sums::Sum;
use crate::{Csum, DropReason, HEAD_MAX, Packet, REPLY_MAX, Transport, WHOLE_MAX};

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// More fragments follow.
const MORE: u16 = 0x2000;

impl Packet<'_> {
    /// Whether a router may cut it: IPv4 without DF, and without options, of which some would have
    /// to be copied and some not.
    #[must_use]
    pub fn may_be_cut(&self) -> bool {
        let plain = self.head.get(ETHERNET) == Some(&0x45);
        plain && !self.is_ipv6() && !self.dont_fragment && self.offload.gso.is_none()
    }

    /// Writes the whole packet with new headers, and with the checksum that its sender left out; says
    /// how many bytes it has. The head has to be the whole frame.
    ///
    /// # Errors
    /// As [`Packet::rewrite`]; [`DropReason::TooLongToInspect`] if it is not whole.
    pub fn rewrite_whole(
        &self,
        change: &Rewrite,
        out: &mut [u8; WHOLE_MAX],
    ) -> Result<usize, DropReason> {
        let mut head = [0; HEAD_MAX];
        let new = self.rewrite(change, &mut head)?;
        let end = usize::from(self.l3).saturating_add(self.ip_len as usize);
        let old = self.head.get(..end).ok_or(DropReason::TooLongToInspect)?;
        put(out, 0, old).ok_or(DropReason::TooLongToInspect)?;
        // Padding behind a short packet is not worth sending.
        let len = usize::from(new.len).min(end);
        put(out, 0, head.get(..len).unwrap_or_default()).ok_or(DropReason::TooLongToInspect)?;
        if self.offload.csum == Csum::Blank {
            self.fill_blank(out.get_mut(..end).unwrap_or_default());
        }
        Ok(end)
    }

    /// Completes a checksum that is only the sum of the pseudo header so far.
    fn fill_blank(&self, frame: &mut [u8]) {
        let l4 = usize::from(self.l4);
        let at = match self.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp(_) => 6,
            _ => return,
        };
        let sum = Sum::ZERO.bytes(frame.get(l4..).unwrap_or_default()).checksum();
        let sum = match (self.transport, sum) {
            (Transport::Udp(_), 0) => 0xffff,
            _ => sum,
        };
        let _ = put(frame, l4.saturating_add(at), &sum.to_be_bytes());
    }
}

/// How many data bytes each fragment but the last has on a link that carries packets of `mtu` bytes.
fn step(mtu: u16) -> usize {
    let room = usize::from(mtu).min(REPLY_MAX.saturating_sub(ETHERNET));
    (room.saturating_sub(IPV4) & !7).max(8)
}

/// How many fragments a frame of `len` bytes makes.
#[must_use]
pub fn count(len: usize, mtu: u16) -> usize {
    len.saturating_sub(ETHERNET.saturating_add(IPV4)).div_ceil(step(mtu))
}

/// Writes the `nth` fragment of a whole frame that carries an IPv4 packet without options; says how
/// many bytes it has. The packet may be a fragment itself. `None` if there are fewer.
pub fn fragment(frame: &[u8], nth: usize, mtu: u16, out: &mut [u8; REPLY_MAX]) -> Option<usize> {
    let headers = frame.get(..ETHERNET.checked_add(IPV4)?)?;
    let data = frame.get(headers.len()..)?;
    let start = nth.checked_mul(step(mtu))?;
    let end = start.checked_add(step(mtu))?.min(data.len());
    let piece = data.get(start..end).filter(|piece| !piece.is_empty())?;
    put(out, 0, headers)?;
    put(out, headers.len(), piece)?;
    let len = u16::try_from(IPV4.checked_add(piece.len())?).ok()?;
    put(out, 16, &len.to_be_bytes())?;
    let old = be16(headers, 20)?;
    let more = if end < data.len() { MORE } else { old & MORE };
    let offset = (old & 0x1fff).checked_add(u16::try_from(start / 8).ok()?)?;
    put(out, 20, &(offset | more).to_be_bytes())?;
    put(out, 24, &[0, 0])?;
    let sum = Sum::ZERO.bytes(out.get(ETHERNET..headers.len())?).checksum();
    put(out, 24, &sum.to_be_bytes())?;
    headers.len().checked_add(piece.len())
}
