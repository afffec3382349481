//! Frames from the backend: own pages it fills, read only after they were taken from it.
//!
//! In: responses in the RX ring, which may say anything. Out: frames whose pieces stand in pages that
//! nobody else can write any more. Never: reads a page the backend may still write, or keeps a frame.
#![deny(clippy::arithmetic_side_effects)]

use crate::fault::Fault;
use crate::pool::Pool;
use alloc::vec::Vec;
use wire::{Csum, DropReason};
use xen::hypervisor::{Access, CopyEnd, DomId, GrantRef, Hypervisor, Memory, NoMemory, Page};
use xen::io::{Incoming, Piece, Pulled};
use xen::netif::{self, RxFrame, RxPacket, RxRequest, RxResponse, read_rx};
use xen::ring::{Front, RingIndex, SLOTS};

/// The RX ring and its pages.
pub(crate) struct Rx<H: Hypervisor> {
    ring: Front<netif::Rx, H::Page>,
    buffers: Vec<Buffer<H::Page>>,
    /// For each place in the ring: the buffer posted there and the id the backend echoed.
    posted: [Posted; SLOTS as usize],
    free: Vec<u16>,
    stuck: Vec<u16>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Default)]
struct Posted {
    buffer: u16,
    echoed: u16,
}

struct Buffer<P> {
    page: P,
    state: State,
    /// The buffer with the next bytes of the same frame.
    next: Option<u16>,
}

/// Who may touch a page.
enum State {
    /// Nobody needs to.
    Free,
    /// The backend may write.
    Posted(GrantRef),
    /// Ours again, for this frame or none.
    Taken,
    /// Part of a frame: we read, nobody writes.
    InFrame,
    /// Answered, and still mapped by the backend.
    Stuck(GrantRef),
}

impl<H: Hypervisor> Rx<H> {
    /// An empty ring with `pages` pages to receive in. What was taken is given back on failure.
    pub(crate) fn new(h: &mut H, pool: &mut Pool<H>, pages: u16) -> Result<Self, NoMemory> {
        let mut rx = Self {
            ring: Front::new(pool.take(h)?),
            buffers: Vec::with_capacity(usize::from(pages)),
            posted: [Posted::default(); SLOTS as usize],
            free: Vec::with_capacity(usize::from(pages)),
            stuck: Vec::with_capacity(usize::from(pages)),
            fault: None,
        };
        for n in 0..pages {
            let Ok(page) = pool.take(h) else {
                rx.close(h, pool, None);
                return Err(NoMemory);
            };
            rx.buffers.push(Buffer { page, state: State::Free, next: None });
            rx.free.push(n);
        }
        Ok(rx)
    }

    /// Gives all pages to the pool, those still lent with their grants.
    pub(crate) fn close(self, h: &mut H, pool: &mut Pool<H>, ring: Option<GrantRef>) {
        pool.give(h, self.ring.into_page(), ring);
        for buffer in self.buffers {
            let grant = match buffer.state {
                State::Free | State::Taken | State::InFrame => None,
                State::Posted(gref) | State::Stuck(gref) => Some(gref),
            };
            pool.give(h, buffer.page, grant);
        }
    }

    /// The page of the ring.
    pub(crate) const fn ring_page(&self) -> &H::Page {
        self.ring.page()
    }

    /// Buffers the backend has.
    pub(crate) const fn posted(&self) -> u32 {
        self.ring.outstanding()
    }

    /// Buffers that wait to be posted.
    pub(crate) const fn unposted(&self) -> usize {
        self.free.len()
    }

    /// The next frame, its pieces added to `pieces`. When there is none, asks to be signalled at the
    /// next.
    pub(crate) fn pull(&mut self, h: &mut H, pieces: &mut Vec<Piece>) -> Pulled<Incoming> {
        while self.fault.is_none() {
            if let Some(packet) = self.read() {
                return self.packet(h, &packet, pieces);
            }
            match self.fault.map_or_else(|| self.ring.arm(1), |_| Ok(false)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(broken) => self.fault = Some(Fault::RxRing(broken)),
            }
        }
        Pulled::Empty
    }

    fn read(&mut self) -> Option<RxPacket> {
        let Self { ring, posted, fault, .. } = self;
        read_rx(|| match ring.take() {
            Ok(next) => {
                let (index, slot) = next?;
                if let Some(place) = posted.get_mut(index.slot()) {
                    place.echoed = RxResponse::decode(&slot).id;
                }
                Some((index, slot))
            }
            Err(broken) => {
                *fault = Some(Fault::RxRing(broken));
                None
            }
        })
    }

    /// Takes all pages of `packet` from the backend before a byte of them is believed.
    fn packet(
        &mut self,
        h: &mut H,
        packet: &RxPacket,
        pieces: &mut Vec<Piece>,
    ) -> Pulled<Incoming> {
        let mut ours = true;
        for n in 0..packet.slots {
            ours &= self.take_back(h, packet.first.plus(n));
        }
        let pulled = match &packet.frame {
            Err(reason) => Pulled::Bad(*reason),
            Ok(_) if !ours => Pulled::Bad(DropReason::StillMapped),
            Ok(frame) => match self.chain(frame, pieces) {
                Some(incoming) => Pulled::Frame(incoming),
                None => Pulled::Bad(DropReason::BadSlot),
            },
        };
        for n in 0..packet.slots {
            self.release_if_unused(packet.first.plus(n));
        }
        pulled
    }

    /// Ends the grant of the buffer at `index`; `false` if the backend has it mapped.
    fn take_back(&mut self, h: &mut H, index: RingIndex) -> bool {
        let Some(id) = self.buffer_at(index) else { return false };
        let Some(buffer) = self.buffers.get_mut(usize::from(id)) else { return false };
        let State::Posted(grant) = core::mem::replace(&mut buffer.state, State::Taken) else {
            return false;
        };
        match h.end(grant) {
            Ok(()) => true,
            Err((grant, _)) => {
                buffer.state = State::Stuck(grant);
                self.stuck.push(id);
                false
            }
        }
    }

    /// Makes a frame of its pages. `None` if it contradicts what was posted, or itself.
    fn chain(&mut self, frame: &RxFrame, pieces: &mut Vec<Piece>) -> Option<Incoming> {
        // What is to be cut into segments gets a checksum with each, so its own must be blank.
        let whole = frame.offload.gso.is_none() || frame.offload.csum == Csum::Blank;
        if !whole || !frame.data.iter().all(|data| self.echoed(data.index)) {
            return None;
        }
        let from = pieces.len();
        let mut next = None;
        // From the last, so that each knows the next.
        for data in frame.data.iter().rev() {
            let id = self.buffer_at(data.index)?;
            let buffer = self.buffers.get_mut(usize::from(id))?;
            buffer.state = State::InFrame;
            buffer.next = next.replace(id);
            let at = CopyEnd::Page(buffer.page.frame());
            pieces.push(Piece { at, offset: data.offset, len: data.len });
        }
        pieces.get_mut(from..)?.reverse();
        let (pieces, token) = (from..pieces.len(), u32::from(next?));
        Some(Incoming { pieces, len: frame.len, offload: frame.offload, token })
    }

    fn release_if_unused(&mut self, index: RingIndex) {
        let Some(id) = self.buffer_at(index) else { return };
        if let Some(buffer) = self.buffers.get_mut(usize::from(id))
            && matches!(buffer.state, State::Taken)
        {
            buffer.state = State::Free;
            self.free.push(id);
        }
    }

    fn buffer_at(&self, index: RingIndex) -> Option<u16> {
        self.posted.get(index.slot()).map(|place| place.buffer)
    }

    fn echoed(&self, index: RingIndex) -> bool {
        self.posted.get(index.slot()).is_some_and(|place| place.echoed == id_at(index))
    }

    /// Copies the first bytes of the frame with buffer `first`, as many as fit `into`. Returns how
    /// many they are.
    pub(crate) fn heads(&self, first: u16, pieces: &[Piece], into: &mut [u8]) -> usize {
        let mut done = 0usize;
        for (buffer, piece) in self.frame(first).zip(pieces) {
            let rest = into.get_mut(done..).unwrap_or_default();
            let now = rest.len().min(usize::from(piece.len));
            let Some(part) = rest.get_mut(..now) else { break };
            buffer.page.read(usize::from(piece.offset), part);
            done = done.saturating_add(now);
        }
        done
    }

    fn frame(&self, first: u16) -> impl Iterator<Item = &Buffer<H::Page>> {
        let in_frame = |id: u16| {
            self.buffers.get(usize::from(id)).filter(|b| matches!(b.state, State::InFrame))
        };
        core::iter::successors(in_frame(first), move |buffer| in_frame(buffer.next?))
    }

    /// Frees the buffers of a frame.
    pub(crate) fn done(&mut self, first: u16) {
        let mut next = Some(first);
        while let Some(id) = next {
            let Some(buffer) = self.buffers.get_mut(usize::from(id)) else { return };
            if !matches!(buffer.state, State::InFrame) {
                return;
            }
            buffer.state = State::Free;
            next = buffer.next.take();
            self.free.push(id);
        }
    }

    /// Posts all free buffers and shows them to the backend; `true` if it wants a signal.
    pub(crate) fn publish(&mut self, h: &mut H, peer: DomId) -> bool {
        while self.ring.free() != 0
            && let Some(id) = self.free.pop()
        {
            if self.post(h, peer, id).is_none() {
                self.free.push(id);
                break;
            }
        }
        self.ring.publish()
    }

    fn post(&mut self, h: &mut H, peer: DomId, id: u16) -> Option<()> {
        let buffer = self.buffers.get_mut(usize::from(id))?;
        let grant = h.grant(peer, &buffer.page, Access::ReadWrite).ok()?;
        let request = RxRequest { id: id_at(self.ring.next_request()), gref: grant.number() };
        buffer.state = State::Posted(grant);
        let index = self.ring.push(&request.encode())?;
        // Until it is answered, nothing but the wrong id stands here.
        *self.posted.get_mut(index.slot())? = Posted { buffer: id, echoed: !request.id };
        Some(())
    }

    /// Pages set aside.
    pub(crate) const fn stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Tries the pages set aside again; returns how many remain so.
    pub(crate) fn retry(&mut self, h: &mut H) -> usize {
        let Self { stuck, buffers, free, .. } = self;
        stuck.retain(|id| {
            let Some(buffer) = buffers.get_mut(usize::from(*id)) else { return false };
            let State::Stuck(grant) = core::mem::replace(&mut buffer.state, State::Free) else {
                return false;
            };
            match h.end(grant) {
                Ok(()) => free.push(*id),
                Err((grant, _)) => buffer.state = State::Stuck(grant),
            }
            matches!(buffer.state, State::Stuck(_))
        });
        stuck.len()
    }

    /// What the backend did that no backend may do.
    pub(crate) const fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

/// The id of the request at `index`: its place in the ring, as there is no other pairing.
fn id_at(index: RingIndex) -> u16 {
    u16::try_from(index.slot()).unwrap_or(u16::MAX)
}
