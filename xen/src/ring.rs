//! The two ends of a shared ring of 256 slots (xen/io/ring.h), as netif uses it.
//!
//! In: indices and slots a peer may change at any moment. Out: slots copied once into private arrays,
//! and whether the peer asked to be signalled. Never: believes an index without checking its range,
//! looks twice at a slot, or signals by itself.
//!
//! Writing a slot and showing it to the peer are two steps: a netif peer takes a frame cut short for
//! a fault, so `publish` is called between frames only.
#![deny(clippy::arithmetic_side_effects)]

use crate::hypervisor::Memory;
use core::marker::PhantomData;

/// Slots in a netif ring.
pub const SLOTS: u32 = 256;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const FIRST_SLOT: usize = 64;

/// What tells one kind of ring from another: the size of its slots.
pub trait Layout {
    /// A slot in private memory.
    type Slot: Copy + Default + AsRef<[u8]> + AsMut<[u8]>;
    /// Bytes of a slot.
    const SLOT_SIZE: usize;
}

/// A free-running ring index; it wraps at 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RingIndex(pub u32);

impl RingIndex {
    /// Which of the [`SLOTS`] it stands for.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 % SLOTS) as usize
    }

    /// The index `n` slots further on.
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// How many slots it stands after `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// The peer's producer index claims more than a ring can hold, or than it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBroken {
    /// The first index not yet consumed.
    pub from: RingIndex,
    /// What the peer says it has produced.
    pub claimed: RingIndex,
}

/// Whether moving a producer index from `old` to `new` passes the `event` the peer asked to be
/// signalled at (RING_PUSH_AND_CHECK_NOTIFY, ring.h).
#[must_use]
const fn passes(old: RingIndex, new: RingIndex, event: RingIndex) -> bool {
    new.since(event) < new.since(old)
}

/// The lowest `count` bits.
const fn ones(count: u32) -> u64 {
    u64::MAX.unbounded_shr(u64::BITS.saturating_sub(count))
}

#[allow(clippy::arithmetic_side_effects, reason = "slot() < 256 and slots of at most 12 bytes")]
fn offset<L: Layout>(index: RingIndex) -> usize {
    FIRST_SLOT + index.slot() * L::SLOT_SIZE
}

fn read_slot<L: Layout>(page: &impl Memory, index: RingIndex) -> L::Slot {
    let mut slot = L::Slot::default();
    page.read(offset::<L>(index), slot.as_mut());
    slot
}

/// The end that asks: writes requests, reads responses.
#[derive(Debug)]
pub struct Front<L, M> {
    page: M,
    /// The next request to be written.
    req_prod: RingIndex,
    /// Requests before this one were shown to the peer.
    published: RingIndex,
    /// The next response to be read.
    rsp_cons: RingIndex,
    /// Responses before this one are there (checked).
    rsp_seen: RingIndex,
    layout: PhantomData<fn() -> L>,
}

impl<L: Layout, M: Memory> Front<L, M> {
    /// Makes `page` an empty ring. It must not be lent yet.
    #[must_use]
    pub fn new(page: M) -> Self {
        page.zero();
        page.store(REQ_EVENT, 1);
        page.store(RSP_EVENT, 1);
        let zero = RingIndex(0);
        Self {
            page,
            req_prod: zero,
            published: zero,
            rsp_cons: zero,
            rsp_seen: zero,
            layout: PhantomData,
        }
    }

    /// As [`new`](Self::new), but with all indices at `start`: what a ring is like that has been in
    /// use for long.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn starting_at(page: M, start: RingIndex) -> Self {
        let front = Self::new(page);
        for (offset, index) in [
            (REQ_PROD, start),
            (RSP_PROD, start),
            (REQ_EVENT, start.plus(1)),
            (RSP_EVENT, start.plus(1)),
        ] {
            front.page.store(offset, index.0);
        }
        Self { req_prod: start, published: start, rsp_cons: start, rsp_seen: start, ..front }
    }

    /// The shared page.
    pub const fn page(&self) -> &M {
        &self.page
    }

    /// The shared page, when the ring is no longer used.
    pub fn into_page(self) -> M {
        self.page
    }

    /// Requests that can still be written.
    pub const fn free(&self) -> u32 {
        SLOTS.saturating_sub(self.outstanding())
    }

    /// Requests written and not yet answered.
    pub const fn outstanding(&self) -> u32 {
        self.req_prod.since(self.rsp_cons)
    }

    /// The index the next request will get.
    pub const fn next_request(&self) -> RingIndex {
        self.req_prod
    }

    /// Writes the next request, unseen by the peer until [`publish`](Self::publish). `None` if the
    /// ring is full.
    pub fn push(&mut self, slot: &L::Slot) -> Option<RingIndex> {
        if self.free() == 0 {
            return None;
        }
        let index = self.req_prod;
        self.page.write(offset::<L>(index), slot.as_ref());
        self.req_prod = index.plus(1);
        Some(index)
    }

    /// Shows the peer all requests written so far. Returns whether it asked to be signalled.
    #[must_use = "the peer may be waiting for the signal"]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.req_prod);
        if old == self.req_prod {
            return false;
        }
        self.page.store(REQ_PROD, self.req_prod.0);
        self.page.barrier();
        passes(old, self.req_prod, RingIndex(self.page.load(REQ_EVENT)))
    }

    /// How many responses can be taken now.
    ///
    /// # Errors
    /// [`RingBroken`] if the peer claims to have answered what was never asked.
    pub fn responses(&mut self) -> Result<u32, RingBroken> {
        let claimed = RingIndex(self.page.load(RSP_PROD));
        if claimed.since(self.rsp_cons) > self.published.since(self.rsp_cons) {
            return Err(RingBroken { from: self.rsp_cons, claimed });
        }
        self.rsp_seen = claimed;
        Ok(claimed.since(self.rsp_cons))
    }

    /// Takes the next response, copied once. `None` if there is none.
    ///
    /// # Errors
    /// As [`responses`](Self::responses).
    pub fn take(&mut self) -> Result<Option<(RingIndex, L::Slot)>, RingBroken> {
        if self.rsp_cons == self.rsp_seen && self.responses()? == 0 {
            return Ok(None);
        }
        let index = self.rsp_cons;
        self.rsp_cons = index.plus(1);
        Ok(Some((index, read_slot::<L>(&self.page, index))))
    }

    /// Asks to be signalled when `ahead` more responses are there (1: at the next one), and looks
    /// again: `true` means there is something to take and sleeping would be wrong.
    ///
    /// # Errors
    /// As [`responses`](Self::responses).
    pub fn arm(&mut self, ahead: u32) -> Result<bool, RingBroken> {
        self.page.store(RSP_EVENT, self.rsp_cons.plus(ahead.max(1)).0);
        self.page.barrier();
        Ok(self.responses()? >= ahead.max(1))
    }
}

/// The end that answers: reads requests, writes each response at the index of its request.
///
/// netfront pairs RX responses with its requests by index (not by id), so there is no other way to
/// answer here; for TX, whose responses are paired by id, it does no harm.
#[derive(Debug)]
pub struct Back<L, M> {
    page: M,
    /// The next request to be read.
    req_cons: RingIndex,
    /// Requests before this one are there (checked).
    req_seen: RingIndex,
    /// Responses before this one were shown to the peer.
    rsp_published: RingIndex,
    /// Responses before this one were shown when it was last asked whether the peer wants a signal.
    asked: RingIndex,
    /// Slots whose response is complete and not yet shown.
    answered: [u64; SLOTS as usize / 64],
    layout: PhantomData<fn() -> L>,
}

impl<L: Layout, M: Memory> Back<L, M> {
    /// Takes over a ring a frontend has made, from where its last backend stopped.
    ///
    /// # Errors
    /// [`RingBroken`] if the indices in it contradict each other; the page is given back.
    pub fn attach(page: M) -> Result<Self, (M, RingBroken)> {
        let from = RingIndex(page.load(RSP_PROD));
        let mut back = Self {
            page,
            req_cons: from,
            req_seen: from,
            rsp_published: from,
            asked: from,
            answered: [0; SLOTS as usize / 64],
            layout: PhantomData,
        };
        match back.requests() {
            Ok(_) => Ok(back),
            Err(broken) => Err((back.page, broken)),
        }
    }

    /// The shared page.
    pub const fn page(&self) -> &M {
        &self.page
    }

    /// The shared page, when the ring is no longer used.
    pub fn into_page(self) -> M {
        self.page
    }

    /// Requests taken and not yet published as answered.
    pub const fn outstanding(&self) -> u32 {
        self.req_cons.since(self.rsp_published)
    }

    /// The index the next request will have.
    pub const fn next_request(&self) -> RingIndex {
        self.req_cons
    }

    /// How many requests can be taken now.
    ///
    /// # Errors
    /// [`RingBroken`] if the peer claims more than the slots it may use: unanswered requests and new
    /// ones together are at most [`SLOTS`].
    pub fn requests(&mut self) -> Result<u32, RingBroken> {
        let claimed = RingIndex(self.page.load(REQ_PROD));
        let fits = claimed.since(self.rsp_published) <= SLOTS
            && claimed.since(self.rsp_published) >= self.req_seen.since(self.rsp_published);
        if !fits {
            return Err(RingBroken { from: self.req_cons, claimed });
        }
        self.req_seen = claimed;
        Ok(claimed.since(self.req_cons))
    }

    /// Takes the next request, copied once. `None` if there is none.
    ///
    /// # Errors
    /// As [`requests`](Self::requests).
    pub fn take(&mut self) -> Result<Option<(RingIndex, L::Slot)>, RingBroken> {
        if self.req_cons == self.req_seen && self.requests()? == 0 {
            return Ok(None);
        }
        Ok(self.take_counted())
    }

    /// Takes the next of the requests that [`requests`](Self::requests) has counted, copied once. `None`
    /// if all of them are taken.
    pub fn take_counted(&mut self) -> Option<(RingIndex, L::Slot)> {
        let index = self.req_cons;
        (index != self.req_seen).then_some(())?;
        self.req_cons = index.plus(1);
        Some((index, read_slot::<L>(&self.page, index)))
    }

    /// Writes the response to the request taken as `index`, unseen by the peer until
    /// [`publish`](Self::publish). An index that is not outstanding has no effect.
    pub fn answer(&mut self, index: RingIndex, slot: &L::Slot) {
        if self.is_outstanding(index, 1) {
            self.write(index, slot);
            self.complete(index, 1);
        }
    }

    /// Writes a response to the request taken as `index` that may still be changed: it is one only when
    /// [`complete`](Self::complete) says so.
    #[inline]
    pub fn write(&mut self, index: RingIndex, slot: &L::Slot) {
        debug_assert!(self.is_outstanding(index, 1), "a response to no request");
        self.page.write(offset::<L>(index), slot.as_ref());
    }

    /// The responses to the `count` requests from `first` on are written, to be shown by
    /// [`publish`](Self::publish). Without effect if these are not all outstanding.
    pub fn complete(&mut self, first: RingIndex, count: u32) {
        let outstanding = self.is_outstanding(first, count);
        debug_assert!(outstanding, "an answer to a request that is not outstanding");
        let (mut next, mut left) = (first, if outstanding { count } else { 0 });
        // As many at a time as stand in one word.
        while left != 0
            && let Some(word) = self.answered.get_mut(next.slot() / 64)
        {
            let shift = next.slot() as u32 % 64;
            let run = left.min(u64::BITS.saturating_sub(shift));
            *word |= ones(run).unbounded_shl(shift);
            (next, left) = (next.plus(run), left.saturating_sub(run));
        }
    }

    fn is_outstanding(&self, first: RingIndex, count: u32) -> bool {
        first.since(self.rsp_published).saturating_add(count) <= self.outstanding()
    }

    /// Shows the peer all responses up to the first request that has none yet. Returns whether it
    /// asked to be signalled.
    #[must_use = "the peer may be waiting for the signal"]
    pub fn publish(&mut self) -> bool {
        self.show();
        self.wants_signal()
    }

    /// Shows the peer all responses up to the first request that has none yet. It may be waiting for
    /// the signal: [`wants_signal`](Self::wants_signal) is to be asked soon.
    pub fn show(&mut self) {
        let old = self.rsp_published;
        let mut new = old;
        // As many at a time as stand in one word.
        while let Some(word) = self.answered.get_mut(new.slot() / 64) {
            let shift = new.slot() as u32 % 64;
            let run = word.unbounded_shr(shift).trailing_ones().min(self.req_cons.since(new));
            if run == 0 {
                break;
            }
            *word &= !ones(run).unbounded_shl(shift);
            new = new.plus(run);
        }
        if new != old {
            self.rsp_published = new;
            self.page.store(RSP_PROD, new.0);
        }
    }

    /// Whether the peer wants to be signalled because of the responses shown since this was last asked.
    /// One that has taken them meanwhile does not.
    #[must_use = "the peer may be waiting for the signal"]
    pub fn wants_signal(&mut self) -> bool {
        let old = core::mem::replace(&mut self.asked, self.rsp_published);
        if old == self.rsp_published {
            return false;
        }
        self.page.barrier();
        passes(old, self.rsp_published, RingIndex(self.page.load(RSP_EVENT)))
    }

    /// Responses shown since that was last asked.
    pub const fn unasked(&self) -> u32 {
        self.rsp_published.since(self.asked)
    }

    /// Asks to be signalled when `ahead` more requests are there (1: at the next one), and looks
    /// again: `true` means there is something to take and sleeping would be wrong.
    ///
    /// # Errors
    /// As [`requests`](Self::requests).
    pub fn arm(&mut self, ahead: u32) -> Result<bool, RingBroken> {
        self.page.store(REQ_EVENT, self.req_cons.plus(ahead.max(1)).0);
        self.page.barrier();
        Ok(self.requests()? >= ahead.max(1))
    }
}
