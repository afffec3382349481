//! Frames to the backend: a bounded set of own pages, one for each slot in flight.
//!
//! In: a decided head, and where the rest of the frame stands. Out: whole frames in the TX ring, from
//! pages lent read-only until they are answered. Never: writes a page while the backend may read it,
//! or shows it one that was not wholly written for it.
#![deny(clippy::arithmetic_side_effects)]

use crate::fault::Fault;
use crate::pool::Pool;
use alloc::vec::Vec;
use wire::{DropReason, Offload, Takes};
use xen::hypervisor::{
    Access, CopyEnd, CopyOp, DomId, GrantRef, Hypervisor, Memory, NoMemory, PAGE_SIZE, Page,
};
use xen::io::{Head, Piece, SLOTS_MAX, all_okay};
use xen::layout::{self, Cuts, Packing};
use xen::netif::{self, ETH_HEADER, Extra, Status, TxFlags, TxRequest, TxResponse};
use xen::ring::{Front, SLOTS};

/// The TX ring and its pages. A page's place in `slots` is the id of its requests.
pub(crate) struct Tx<H: Hypervisor> {
    ring: Front<netif::Tx, H::Page>,
    slots: Vec<Slot<H::Page>>,
    free: Vec<u16>,
    stuck: Vec<u16>,
    /// Ring slots promised to staged frames.
    promised: u32,
    /// Extra-info slots in flight: each is answered with [`Status::NULL`] and an id of no meaning.
    extras: u32,
    fault: Option<Fault>,
}

struct Slot<P> {
    page: P,
    state: State,
    /// Bytes of the frame in this page.
    len: u16,
    /// The slot with the next bytes of the same frame.
    next: Option<u16>,
    /// What the frame asks for; counts in its first slot.
    offload: Offload,
}

/// Who may touch a page.
enum State {
    /// We may write.
    Free,
    /// Being written for a frame.
    Staged,
    /// In flight: the backend may read.
    Sent(GrantRef),
    /// Answered, and still mapped by the backend.
    Stuck(GrantRef),
}

impl<H: Hypervisor> Tx<H> {
    /// An empty ring with `pages` pages to send from. What was taken is given back on failure.
    pub(crate) fn new(h: &mut H, pool: &mut Pool<H>, pages: u16) -> Result<Self, NoMemory> {
        let mut tx = Self {
            ring: Front::new(pool.take(h)?),
            slots: Vec::with_capacity(usize::from(pages)),
            free: Vec::with_capacity(usize::from(pages)),
            stuck: Vec::with_capacity(usize::from(pages)),
            promised: 0,
            extras: 0,
            fault: None,
        };
        for id in 0..pages {
            let Ok(page) = pool.take(h) else {
                tx.close(h, pool, None);
                return Err(NoMemory);
            };
            let (state, offload) = (State::Free, Offload::NONE);
            tx.slots.push(Slot { page, state, len: 0, next: None, offload });
            tx.free.push(id);
        }
        Ok(tx)
    }

    /// Gives all pages to the pool, those still lent with their grants.
    pub(crate) fn close(self, h: &mut H, pool: &mut Pool<H>, ring: Option<GrantRef>) {
        pool.give(h, self.ring.into_page(), ring);
        for slot in self.slots {
            let grant = match slot.state {
                State::Free | State::Staged => None,
                State::Sent(gref) | State::Stuck(gref) => Some(gref),
            };
            pool.give(h, slot.page, grant);
        }
    }

    /// The page of the ring.
    pub(crate) const fn ring_page(&self) -> &H::Page {
        self.ring.page()
    }

    /// Slots a frame could take now, without looking for answers.
    pub(crate) fn room(&self) -> u32 {
        let pages = u32::try_from(self.free.len()).unwrap_or(u32::MAX);
        self.ring.free().saturating_sub(self.promised).min(pages)
    }

    /// Takes pages for a frame, writes its head and adds the copies that bring the rest. Returns the
    /// id that [`commit`](Self::commit) wants to be told.
    ///
    /// # Errors
    /// Why the frame cannot be sent; nothing is taken then.
    pub(crate) fn stage(
        &mut self,
        h: &mut H,
        takes: Takes,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<u16, DropReason> {
        let (packing, pages) = plan(takes, head, rest, offload)?;
        let slots = ring_slots(pages, offload);
        if self.room() < slots {
            self.harvest(h);
        }
        if self.fault.is_some() {
            return Err(DropReason::EgressDown);
        }
        if self.room() < slots {
            return Err(DropReason::EgressFull);
        }
        let first = self.take(offload)?;
        self.promised = self.promised.saturating_add(slots);
        if let Some(slot) = self.slots.get_mut(usize::from(first)) {
            slot.page.write(0, head.bytes);
            slot.len = head_len(head);
        }
        let (mut at, mut cuts) = (head_len(head), Cuts::new());
        let mut left = layout::cut(at, rest, packing, &mut cuts);
        let mut filling = first;
        loop {
            let slot = self.slots.get_mut(usize::from(filling)).ok_or(DropReason::EgressFull)?;
            let here = layout::on_page(at, left, packing);
            let (here, others) = left.split_at_checked(here).unwrap_or((left, &[]));
            for piece in here {
                let dst = CopyEnd::Page(slot.page.frame());
                ops.push(CopyOp::new(piece.at, piece.offset, dst, at, piece.len));
                // They are so many as fit the page.
                at = at.wrapping_add(piece.len);
            }
            slot.len = at;
            if others.is_empty() {
                return Ok(first);
            }
            let next = self.take(offload)?;
            if let Some(slot) = self.slots.get_mut(usize::from(filling)) {
                slot.next = Some(next);
            }
            (filling, left, at) = (next, others, 0);
        }
    }

    /// A free page for a frame that is staged. There is one: there is room.
    fn take(&mut self, offload: Offload) -> Result<u16, DropReason> {
        let id = self.free.pop().ok_or(DropReason::EgressFull)?;
        let slot = self.slots.get_mut(usize::from(id)).ok_or(DropReason::EgressFull)?;
        (slot.state, slot.len, slot.next) = (State::Staged, 0, None);
        slot.offload = offload;
        Ok(id)
    }

    /// Lends the pages of a staged frame and writes its requests, if all its copies `ops` are there and
    /// were done.
    ///
    /// # Errors
    /// Why it is not sent; its pages are free again.
    pub(crate) fn commit(
        &mut self,
        h: &mut H,
        peer: DomId,
        id: u16,
        ops: Option<&[CopyOp]>,
    ) -> Result<(), DropReason> {
        let slot = self.slots.get(usize::from(id));
        let staged = slot.filter(|slot| matches!(slot.state, State::Staged));
        let offload = staged.ok_or(DropReason::BadSlot)?.offload;
        let copied = ops.is_some_and(all_okay);
        let lent = if copied { self.lend(h, peer, id) } else { Err(DropReason::CopyFailed) };
        let slots = match lent {
            Ok(bytes) => self.write(id, bytes, offload),
            Err(_) => ring_slots(self.unstage(h, id), offload),
        };
        self.promised = self.promised.saturating_sub(slots);
        lent.map(drop)
    }

    /// Lends the pages of the frame that begins in `first`; returns its length.
    fn lend(&mut self, h: &mut H, peer: DomId, first: u16) -> Result<u16, DropReason> {
        let (mut next, mut bytes) = (Some(first), 0u16);
        while let Some(id) = next {
            let slot = self.slots.get_mut(usize::from(id)).ok_or(DropReason::BadSlot)?;
            let grant = h.grant(peer, &slot.page, Access::ReadOnly);
            slot.state = State::Sent(grant.map_err(|_| DropReason::EgressFull)?);
            bytes = bytes.saturating_add(slot.len);
            next = slot.next;
        }
        Ok(bytes)
    }

    /// Writes the requests of a frame of `bytes` bytes; returns how many. There is room: it was
    /// promised.
    fn write(&mut self, first: u16, bytes: u16, offload: Offload) -> u32 {
        let (mut next, mut pages) = (Some(first), 0usize);
        while let Some(id) = next {
            let Some(slot) = self.slots.get(usize::from(id)) else { break };
            let State::Sent(grant) = &slot.state else { break };
            let (frame, size) =
                if pages == 0 { (offload, bytes) } else { (Offload::NONE, slot.len) };
            next = slot.next;
            pages = pages.saturating_add(1);
            let request = TxRequest {
                gref: grant.number(),
                offset: 0,
                flags: TxFlags::of(frame).with_if(TxFlags::MORE_DATA, next.is_some()),
                id,
                size,
            };
            self.ring.push(&request.encode());
            if let Some(gso) = frame.gso {
                self.ring.push(&Extra::gso(gso).encode_tx());
                self.extras = self.extras.saturating_add(1);
            }
        }
        ring_slots(pages, offload)
    }

    /// Frees the pages of a frame that is not sent; returns how many.
    fn unstage(&mut self, h: &mut H, first: u16) -> usize {
        let (mut next, mut pages) = (Some(first), 0usize);
        while let Some(id) = next {
            next = self.slots.get(usize::from(id)).and_then(|slot| slot.next);
            self.reclaim(h, id);
            pages = pages.saturating_add(1);
        }
        pages
    }

    /// Shows the backend all that was committed; `true` if it wants a signal.
    pub(crate) fn publish(&mut self, h: &mut H) -> bool {
        let signal = self.ring.publish();
        self.harvest(h);
        signal
    }

    /// Takes the answers that are there: ends the grants, frees the pages. Asks to be signalled when
    /// half of what is outstanding is answered; and not at all as long as half of the pages are free,
    /// since the next frame brings us here anyway.
    pub(crate) fn harvest(&mut self, h: &mut H) {
        while self.fault.is_none() {
            match self.ring.take() {
                Ok(Some((_, slot))) => self.answered(h, TxResponse::decode(&slot)),
                Ok(None) => {
                    let wanted = if self.free.len() < self.slots.len().div_ceil(2) {
                        self.ring.outstanding().div_ceil(2)
                    } else {
                        SLOTS
                    };
                    match self.ring.arm(wanted) {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(broken) => self.fault = Some(Fault::TxRing(broken)),
                    }
                }
                Err(broken) => self.fault = Some(Fault::TxRing(broken)),
            }
        }
    }

    fn answered(&mut self, h: &mut H, response: TxResponse) {
        if response.status == Status::NULL {
            match self.extras.checked_sub(1) {
                Some(left) => self.extras = left,
                None => self.fault = Some(Fault::TxNull),
            }
            return;
        }
        match self.slots.get(usize::from(response.id)) {
            Some(Slot { state: State::Sent(_), .. }) => self.reclaim(h, response.id),
            _ => self.fault = Some(Fault::TxId(response.id)),
        }
    }

    /// Makes a page free, or sets it aside if the backend has it mapped.
    fn reclaim(&mut self, h: &mut H, id: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        match core::mem::replace(&mut slot.state, State::Free) {
            State::Free => {}
            State::Staged => self.free.push(id),
            State::Sent(grant) | State::Stuck(grant) => match h.end(grant) {
                Ok(()) => self.free.push(id),
                Err((grant, _)) => {
                    slot.state = State::Stuck(grant);
                    self.stuck.push(id);
                }
            },
        }
    }

    /// Pages set aside.
    pub(crate) const fn stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Tries the pages set aside again; returns how many remain so.
    pub(crate) fn retry(&mut self, h: &mut H) -> usize {
        let Self { stuck, slots, free, .. } = self;
        stuck.retain(|id| {
            let Some(slot) = slots.get_mut(usize::from(*id)) else { return false };
            let State::Stuck(grant) = core::mem::replace(&mut slot.state, State::Free) else {
                return false;
            };
            match h.end(grant) {
                Ok(()) => free.push(*id),
                Err((grant, _)) => slot.state = State::Stuck(grant),
            }
            matches!(slot.state, State::Stuck(_))
        });
        stuck.len()
    }

    /// What the backend did that no backend may do.
    pub(crate) const fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

/// The layout of a frame and its pages, if this backend can take it at all.
fn plan(
    takes: Takes,
    head: Head<'_>,
    rest: &[Piece],
    offload: Offload,
) -> Result<(Packing, usize), DropReason> {
    let len = layout::frame_len(head_len(head), rest);
    if head.bytes.len() > PAGE_SIZE || len > usize::from(u16::MAX) {
        return Err(DropReason::TooBig);
    }
    if len < ETH_HEADER as usize {
        return Err(DropReason::Truncated);
    }
    if !takes.frame(head.bytes, offload) {
        return Err(DropReason::EgressOffload);
    }
    let (most, too_many) = if takes.sg {
        (SLOTS_MAX, DropReason::TooManySlots)
    } else {
        (1, DropReason::EgressOffload)
    };
    layout::packing(head_len(head), rest, len, most).ok_or(too_many)
}

fn head_len(head: Head<'_>) -> u16 {
    u16::try_from(head.bytes.len()).unwrap_or(u16::MAX)
}

/// Slots in the ring for a frame with `data` slots of data.
fn ring_slots(data: usize, offload: Offload) -> u32 {
    let extra = u32::from(offload.gso.is_some());
    u32::try_from(data).unwrap_or(u32::MAX).saturating_add(extra)
}
