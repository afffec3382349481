//! What netfront and netback have in common for those who move frames between them.
//!
//! In: a frame as it stands in a ring, in pieces. Out: grant copies that bring it to another ring.
//! Never: looks into a frame.

use crate::hypervisor::{CopyEnd, CopyOp, GrantStatus, Hypervisor};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::ops::Range;
use wire::{DropReason, GsoKind, Offload, Takes};

/// Most data slots of a frame (XEN_NETIF_NR_SLOTS_MIN, netif.h).
pub const SLOTS_MAX: usize = 18;

/// Slots that must be free on an egress before a frame is taken that may leave by it.
#[must_use]
pub const fn room_for_a_frame(takes: Takes) -> u32 {
    if takes.gso(GsoKind::TcpV4) && takes.gso(GsoKind::TcpV6) {
        // Its own, one for GSO, one if the new head spills over a page.
        SLOTS_MAX as u32 + 2
    } else {
        // 64 KiB in segments of 1 KiB; if they are smaller, the last may find no room.
        64
    }
}

/// A stretch of a frame inside one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The page it stands in.
    pub at: CopyEnd,
    /// Byte offset in that page; `offset + len` is at most a page.
    pub offset: u16,
    /// Bytes; never 0.
    pub len: u16,
}

/// A frame that arrived in a ring, its slots read once and checked.
///
/// Not `Clone`: it is given back to its device exactly once ([`Device::done`]), which then answers
/// the slots to the peer. Small, as it is moved about: its bytes stand in the list it was pulled into.
#[derive(Debug)]
pub struct Incoming {
    /// Which pieces of that list have its bytes, in order; at most [`SLOTS_MAX`].
    pub pieces: Range<usize>,
    /// The sum of the pieces' lengths.
    pub len: u32,
    /// What the sender left to do.
    pub offload: Offload,
    /// For the device only: where the frame stands in its books.
    pub token: u32,
}

impl Incoming {
    /// Its part of the list it was pulled into.
    #[must_use]
    pub fn of<'p>(&self, pieces: &'p [Piece]) -> &'p [Piece] {
        pieces.get(self.pieces.clone()).unwrap_or_default()
    }

    /// Keeps the first `len` bytes, if there are more. `pieces` is the list it was pulled into.
    pub fn truncate(&mut self, pieces: &mut [Piece], len: u32) {
        if len >= self.len {
            return;
        }
        let mut left = len;
        let own = pieces.get_mut(self.pieces.clone()).unwrap_or_default();
        let mut kept = 0;
        while let Some(piece) = own.get_mut(kept).filter(|_| left != 0) {
            piece.len = u16::try_from(left).unwrap_or(u16::MAX).min(piece.len);
            left -= u32::from(piece.len);
            kept += 1;
        }
        self.pieces.end = self.pieces.start + kept;
        self.len = len;
    }
}

/// Why a device has no frame to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled<T> {
    /// A frame.
    Frame(T),
    /// Slots that were not a valid frame: answered already, to be counted.
    Bad(DropReason),
    /// The ring is empty.
    Empty,
}

/// A frame staged on an egress: its slots are taken, its bytes come with the copies `ops` of the list
/// it was staged with. Given back exactly once ([`Device::commit`]).
#[derive(Debug)]
pub struct Staged {
    /// Which operations of the list bring its bytes.
    pub ops: Range<usize>,
    /// For the device only.
    pub token: u32,
}

/// A head of an outgoing frame in private memory.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where they start in private memory; they do not cross a page.
    pub private_offset: u32,
}

/// One end of a vif: a ring that frames come from and a ring that they go to.
///
/// The order of one turn is: [`pull`](Self::pull), [`heads`](Self::heads), the verdict,
/// [`stage`](Self::stage) on the egress, one grant copy for everybody, [`commit`](Self::commit),
/// [`done`](Self::done) on the ingress, [`publish`](Self::publish) on every device that was used.
/// Nothing is visible to a peer before `publish`.
pub trait Device<H: Hypervisor> {
    /// The next frame of the ring, its pieces added to `pieces`.
    fn pull(&mut self, h: &mut H, pieces: &mut Vec<Piece>) -> Pulled<Incoming>;

    /// Brings the first bytes of `frame`, which was pulled into `pieces`, at most `want` of them, to
    /// byte `at` of private memory: either at once through `private`, or by adding copies to `ops`.
    /// Returns how many they are.
    fn heads(
        &mut self,
        frame: &Incoming,
        pieces: &[Piece],
        want: usize,
        at: u32,
        private: &mut [u8],
        ops: &mut Vec<CopyOp>,
    ) -> usize;

    /// What the peer can take. What is left to do beyond that has to be done before
    /// [`stage`](Self::stage), which refuses it.
    fn takes(&self) -> Takes;

    /// Makes room for the frame `head` + `rest` and adds the copies that bring its bytes to `ops`.
    ///
    /// # Errors
    /// Why this device cannot take the frame; nothing is taken then.
    fn stage(
        &mut self,
        h: &mut H,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<Staged, DropReason>;

    /// The copies of a staged frame are done. If one of them failed the frame is not sent, and the
    /// reason is returned to be counted.
    ///
    /// # Errors
    /// [`DropReason::CopyFailed`] or what else went wrong.
    fn commit(&mut self, h: &mut H, staged: Staged, ops: &[CopyOp]) -> Result<(), DropReason>;

    /// The last copy out of `frame` is done: its slots may be answered.
    fn done(&mut self, h: &mut H, frame: Incoming);

    /// Shows the peer all that was committed or done since, and signals it if it asked for that.
    /// Whole frames only, at most one signal for each event channel.
    fn publish(&mut self, h: &mut H);
}

/// Cuts the first `skip` bytes off `pieces`; returns what is left of them.
pub fn skip(pieces: &mut [Piece], skip: u32) -> &[Piece] {
    let mut left = skip;
    let whole = pieces.iter().take_while(|piece| match left.checked_sub(piece.len.into()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    let whole = whole.count();
    let rest = pieces.get_mut(whole..).unwrap_or_default();
    if let (Some(first), Ok(cut)) = (rest.first_mut(), u16::try_from(left)) {
        first.offset += cut;
        first.len -= cut;
    }
    rest
}

/// `len` bytes of `pieces` from byte `from` on, or as many as there are.
#[must_use]
pub fn part(pieces: &[Piece], from: u32, len: u32) -> ArrayVec<Piece, SLOTS_MAX> {
    let (mut before, mut left) = (from, len);
    pieces
        .iter()
        .filter_map(|piece| {
            let cut = u16::try_from(before).unwrap_or(u16::MAX).min(piece.len);
            before -= u32::from(cut);
            let len = u16::try_from(left).unwrap_or(u16::MAX).min(piece.len - cut);
            left -= u32::from(len);
            (len != 0).then_some(Piece { at: piece.at, offset: piece.offset + cut, len })
        })
        .take(SLOTS_MAX)
        .collect()
}

/// Whether all of `ops` took effect.
#[must_use]
pub fn all_okay(ops: &[CopyOp]) -> bool {
    ops.iter().all(|op| op.status == GrantStatus::OKAY)
}
