//! Frames to a client: its RX ring.
//!
//! In: a new head and pieces of another frame. Out: grant copies into the pages the client has posted,
//! and one response for each, at the index of its request. Never: waits for pages (a client that
//! posts none loses its own frames), or shows a frame before all of it was copied.
#![deny(clippy::arithmetic_side_effects)]

use crate::link::Fault;
use alloc::boxed::Box;
use alloc::vec::Vec;
use wire::{DropReason, Offload, Takes};
use xen::hypervisor::{CopyEnd, CopyOp, DomId, Memory, PAGE_SIZE};
use xen::io::{Head, Piece, Staged, all_okay};
use xen::layout::{self, Cuts, Packing};
use xen::netif::{Extra, Rx, RxFlags, RxRequest, RxResponse, Status};
use xen::ring::{Back, RingIndex, SLOTS};

/// Most data slots of a frame toward a client. Linux' netfront takes one more only if the first is
/// short enough to be pulled out of its page (`MAX_SKB_FRAGS`).
const CLIENT_SLOTS_MAX: usize = 17;

/// Why a frame was not staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This frame only.
    Frame(DropReason),
    /// The ring is broken.
    Fault(Fault),
}

/// The requests of a frame are counted before the first is taken: this cannot come after that.
const NO_ROOM: Refused = Refused::Frame(DropReason::EgressFull);

/// The RX ring of one client and the frames on their way into it.
#[derive(Debug)]
pub(crate) struct RxPath<M> {
    dom: DomId,
    ring: Back<Rx, M>,
    takes: Takes,
    /// By request: the response, if all goes well.
    answers: Box<[[u8; 8]; SLOTS as usize]>,
    /// By the first request of a staged frame: how many it takes.
    slots: Box<[u8; SLOTS as usize]>,
}

impl<M: Memory> RxPath<M> {
    pub(crate) fn new(dom: DomId, ring: Back<Rx, M>, takes: Takes) -> Self {
        let answers = Box::new([[0; 8]; SLOTS as usize]);
        Self { dom, ring, takes, answers, slots: Box::new([0; SLOTS as usize]) }
    }

    pub(crate) fn into_page(self) -> M {
        self.ring.into_page()
    }

    /// What the frontend can take.
    pub(crate) const fn takes(&self) -> Takes {
        self.takes
    }

    /// Takes the requests for a frame and adds its copies to `ops`. On an error nothing is taken.
    pub(crate) fn stage(
        &mut self,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<Staged, Refused> {
        if !self.takes.frame(head.bytes, offload) {
            return Err(Refused::Frame(DropReason::EgressOffload));
        }
        let from = private_end(head).ok_or(Refused::Frame(DropReason::BadHeader))?;
        let (packing, slots) = self.packing(from.len, rest).map_err(Refused::Frame)?;
        let all = slots.saturating_add(usize::from(offload.gso.is_some()));
        let posted = self.ring.requests().map_err(|broken| Refused::Fault(Fault::of(broken)))?;
        if (posted as usize) < all {
            return Err(NO_ROOM);
        }

        let first_op = ops.len();
        let token = self.ring.next_request();
        let mut cuts = Cuts::new();
        let pieces = layout::cut(from.len, rest, packing, &mut cuts);
        let (own, mut rest) = split(from.len, pieces, packing);
        let more = |rest: &[Piece]| RxFlags(0).with_if(RxFlags::MORE_DATA, !rest.is_empty());
        let flags = RxFlags::of(offload).with(more(rest));
        self.fill(Some(&from), own, flags, ops).ok_or(NO_ROOM)?;
        if let Some(gso) = offload.gso {
            // The page posted with this request stays unused.
            let (index, _) = self.ring.take_counted().ok_or(NO_ROOM)?;
            self.write(index, Extra::gso(gso).encode_rx());
        }
        if packing == Packing::Kept {
            // A page each, as nearly always: known to be one, they are done without a loop in a loop.
            while let Some((next, others)) = rest.split_first() {
                self.fill(None, core::slice::from_ref(next), more(others), ops).ok_or(NO_ROOM)?;
                rest = others;
            }
        }
        while !rest.is_empty() {
            let (here, others) = split(0, rest, packing);
            self.fill(None, here, more(others), ops).ok_or(NO_ROOM)?;
            rest = others;
        }
        if let Some(slots) = self.slots.get_mut(token.slot()) {
            *slots = u8::try_from(all).unwrap_or(u8::MAX);
        }
        Ok(Staged { ops: first_op..ops.len(), token: token.0 })
    }

    /// Takes the next request, adds the copies that fill its page with `head` and `pieces`, and writes
    /// the response.
    #[inline(always)] // As all that is done for each slot.
    fn fill(
        &mut self,
        head: Option<&Piece>,
        pieces: &[Piece],
        flags: RxFlags,
        ops: &mut Vec<CopyOp>,
    ) -> Option<()> {
        let (index, request) = self.ring.take_counted()?;
        let RxRequest { id, gref } = RxRequest::decode(&request);
        let page = CopyEnd::Grant { dom: self.dom, gref };
        let mut at = 0u16;
        for piece in head.into_iter().chain(pieces) {
            ops.push(CopyOp::new(piece.at, piece.offset, page, at, piece.len));
            // They are so many as fit the page.
            at = at.wrapping_add(piece.len);
        }
        let response = RxResponse { id, offset: 0, flags, status: Status::bytes(at) };
        self.write(index, response.encode());
        Some(())
    }

    /// Writes a response, which stays unseen as long as its frame is on its way.
    #[inline(always)]
    fn write(&mut self, index: RingIndex, answer: [u8; 8]) {
        self.ring.write(index, &answer);
        if let Some(place) = self.answers.get_mut(index.slot()) {
            *place = answer;
        }
    }

    /// Answers the requests of a staged frame whose copies are done. If one failed, all get a negative
    /// status, on which the frontend drops the frame; the chain of slots stays whole.
    pub(crate) fn commit(&mut self, staged: &Staged, ops: &[CopyOp]) -> Result<(), DropReason> {
        let first = RingIndex(staged.token);
        let slots = self.slots.get_mut(first.slot()).map_or(0, core::mem::take).into();
        let copied = ops.get(staged.ops.clone()).is_some_and(all_okay);
        if !copied {
            self.spoil(first, slots);
        }
        self.ring.complete(first, slots);
        if copied { Ok(()) } else { Err(DropReason::CopyFailed) }
    }

    /// Writes negative statuses in place of the lengths of a staged frame.
    fn spoil(&mut self, first: RingIndex, slots: u32) {
        let mut is_extra = false;
        for index in (0..slots).map(|n| first.plus(n)) {
            let Some(answer) = self.answers.get(index.slot()) else { break };
            let response = RxResponse::decode(answer);
            if !is_extra {
                let failed = RxResponse { status: Status::ERROR, ..response };
                self.ring.write(index, &failed.encode());
            }
            is_extra = index == first && response.flags.has(RxFlags::EXTRA_INFO);
        }
    }

    /// Slots that are posted now; none if the ring is broken.
    pub(crate) fn posted(&mut self) -> usize {
        self.ring.requests().map_or(0, |slots| slots as usize)
    }

    /// Returns whether the frontend asked to be signalled.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// The layout of a frame.
    fn packing(&self, head: u16, rest: &[Piece]) -> Result<(Packing, usize), DropReason> {
        let most = if self.takes.sg { CLIENT_SLOTS_MAX } else { 1 };
        let len = layout::frame_len(head, rest);
        if len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        layout::packing(head, rest, len, most).ok_or(DropReason::TooBig)
    }
}

/// The pieces that go to the page that begins with `head` bytes, and the others.
#[inline(always)] // As all that is done for each slot.
fn split(head: u16, pieces: &[Piece], packing: Packing) -> (&[Piece], &[Piece]) {
    pieces.split_at_checked(layout::on_page(head, pieces, packing)).unwrap_or((pieces, &[]))
}

/// Where a head stands; `None` if it crosses a page.
fn private_end(head: Head<'_>) -> Option<Piece> {
    let page = (head.private_offset as usize).checked_div(PAGE_SIZE)?;
    let offset = (head.private_offset as usize).checked_rem(PAGE_SIZE)?;
    (offset.saturating_add(head.bytes.len()) <= PAGE_SIZE).then_some(())?;
    Some(Piece {
        at: CopyEnd::Private(u16::try_from(page).ok()?),
        offset: u16::try_from(offset).ok()?,
        len: u16::try_from(head.bytes.len()).ok()?,
    })
}
