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
use xen::hypervisor::{CopyEnd, CopyOp, DomId, GrantStatus, Memory, PAGE_SIZE};
use xen::io::{Head, Piece, Staged, all_okay};
use xen::layout::{self, Packing, Part};
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

/// A request that was taken for a staged frame.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The response, if all goes well.
    answer: [u8; 8],
    /// Copies that bring this slot's bytes, in the order of the frame's. None for an extra.
    ops: u8,
    /// In the first slot of a frame: how many slots it takes.
    slots: u8,
}

impl Taken {
    const NONE: Self = Self { answer: [0; 8], ops: 0, slots: 0 };
}

/// The slot of a frame that copies are being made for.
struct Filling {
    index: RingIndex,
    request: RxRequest,
    slot: usize,
    bytes: u16,
    ops: u8,
}

impl Filling {
    /// Adds the copy that brings `part`.
    #[inline(always)]
    fn add(&mut self, part: Part, dom: DomId, ops: &mut Vec<CopyOp>) {
        let Part { source, at, .. } = part;
        ops.push(CopyOp {
            src: source.at,
            src_offset: source.offset,
            dst: CopyEnd::Grant { dom, gref: self.request.gref },
            dst_offset: at,
            len: source.len,
            status: GrantStatus::GENERAL_ERROR,
        });
        self.ops = self.ops.saturating_add(1);
        self.bytes = self.bytes.saturating_add(source.len);
    }
}

/// The RX ring of one client and the frames on their way into it.
#[derive(Debug)]
pub(crate) struct RxPath<M> {
    dom: DomId,
    ring: Back<Rx, M>,
    takes: Takes,
    taken: Box<[Taken; SLOTS as usize]>,
}

impl<M: Memory> RxPath<M> {
    pub(crate) fn new(dom: DomId, ring: Back<Rx, M>, takes: Takes) -> Self {
        Self { dom, ring, takes, taken: Box::new([Taken::NONE; SLOTS as usize]) }
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
        let (token, dom) = (self.ring.next_request(), self.dom);
        let mut filling = self.begin(0).ok_or(NO_ROOM)?;
        filling.add(Part { source: from, slot: 0, at: 0 }, dom, ops);
        for part in layout::parts(from.len, rest, packing) {
            if part.slot != filling.slot {
                self.end(&filling, offload, true);
                filling = self.begin(part.slot).ok_or(NO_ROOM)?;
            }
            filling.add(part, dom, ops);
        }
        self.end(&filling, offload, false);
        if let Some(first) = self.taken.get_mut(token.slot()) {
            first.slots = u8::try_from(all).unwrap_or(u8::MAX);
        }
        Ok(Staged { ops: first_op..ops.len(), token: token.0 })
    }

    /// Takes the request for slot `slot` of a frame.
    #[inline(always)]
    fn begin(&mut self, slot: usize) -> Option<Filling> {
        let (index, request) = self.ring.take_counted()?;
        let request = RxRequest::decode(&request);
        Some(Filling { index, request, slot, bytes: 0, ops: 0 })
    }

    /// Remembers the answer to that request; behind the first slot there is one for GSO.
    #[inline(always)] // As all that is done for each slot.
    fn end(&mut self, filled: &Filling, offload: Offload, more: bool) {
        let first = if filled.slot == 0 { offload } else { Offload::NONE };
        let flags = RxFlags::of(first).with_if(RxFlags::MORE_DATA, more);
        let status = Status::bytes(filled.bytes);
        let response = RxResponse { id: filled.request.id, offset: 0, flags, status };
        self.keep(filled.index, Taken { answer: response.encode(), ops: filled.ops, slots: 0 });
        if let Some(gso) = first.gso
            && let Some((index, _)) = self.ring.take_counted()
        {
            // The page posted with this request stays unused.
            self.keep(index, Taken { answer: Extra::gso(gso).encode_rx(), ..Taken::NONE });
        }
    }

    /// Answers the requests of a staged frame whose copies are done. A slot whose copy failed gets a
    /// negative status, on which the frontend drops the frame; the chain of slots stays whole.
    pub(crate) fn commit(&mut self, staged: &Staged, ops: &[CopyOp]) -> Result<(), DropReason> {
        let first = RingIndex(staged.token);
        let slots = self.taken.get_mut(first.slot()).map_or(0, |t| core::mem::take(&mut t.slots));
        let mut ops = ops.get(staged.ops.clone()).unwrap_or_default();
        let copied = ops.len() == staged.ops.len() && all_okay(ops);
        for index in (0..u32::from(slots)).map(|n| first.plus(n)) {
            let Some(taken) = self.taken.get(index.slot()) else { break };
            if copied {
                self.ring.answer(index, &taken.answer);
                continue;
            }
            let (own, others) = ops.split_at_checked(usize::from(taken.ops)).unwrap_or_default();
            ops = others;
            let whole = own.len() == usize::from(taken.ops) && all_okay(own);
            let response = RxResponse::decode(&taken.answer);
            let failed = RxResponse { status: Status::ERROR, ..response };
            self.ring.answer(index, &if whole { response } else { failed }.encode());
        }
        if copied { Ok(()) } else { Err(DropReason::CopyFailed) }
    }

    /// Slots that are posted now; none if the ring is broken.
    pub(crate) fn posted(&mut self) -> usize {
        self.ring.requests().map_or(0, |slots| slots as usize)
    }

    /// Returns whether the frontend asked to be signalled.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    fn keep(&mut self, index: RingIndex, taken: Taken) {
        if let Some(place) = self.taken.get_mut(index.slot()) {
            *place = taken;
        }
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
