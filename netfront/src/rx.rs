//! Frames from the backend: own pages it fills, read only after they were taken from it.
//!
//! In: responses in the RX ring, which may say anything. Out: frames whose pieces stand in pages that
//! nobody else can write any more. Never: reads a page the backend may still write, or keeps a frame.
#![deny(clippy::arithmetic_side_effects)]

use crate::fault::Fault;
use crate::pool::Pool;
use alloc::vec::Vec;
use wire::{Csum, DropReason, Offload};
use xen::hypervisor::{Access, CopyEnd, DomId, GrantRef, Hypervisor, Memory, NoMemory, Page};
use xen::io::{Incoming, Piece, Pulled};
use xen::netif::{self, RxAnswer, RxFrame, RxRequest, read_rx};
use xen::ring::{Front, RingIndex, SLOTS};

/// The RX ring and its pages.
pub(crate) struct Rx<H: Hypervisor> {
    ring: Front<netif::Rx, H::Page>,
    buffers: Vec<Buffer<H::Page>>,
    /// For each place in the ring: the buffer posted there.
    posted: [u16; SLOTS as usize],
    free: Vec<u16>,
    stuck: Vec<u16>,
    fault: Option<Fault>,
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
    /// Part of a frame: we read, nobody writes.
    InFrame,
    /// Answered, and still mapped by the backend.
    Stuck(GrantRef),
}

/// The buffers of a frame that is being taken.
struct Chain {
    first: Option<u16>,
    last: Option<u16>,
    /// Whether all of them were taken from the backend.
    whole: bool,
}

impl<H: Hypervisor> Rx<H> {
    /// An empty ring with `pages` pages to receive in. What was taken is given back on failure.
    pub(crate) fn new(h: &mut H, pool: &mut Pool<H>, pages: u16) -> Result<Self, NoMemory> {
        let mut rx = Self {
            ring: Front::new(pool.take(h)?),
            buffers: Vec::with_capacity(usize::from(pages)),
            posted: [0; SLOTS as usize],
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
                State::Free | State::InFrame => None,
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
            if let Some(pulled) = self.read(h, pieces) {
                return pulled;
            }
            match self.fault.map_or_else(|| self.ring.arm(1), |_| Ok(false)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(broken) => self.fault = Some(Fault::RxRing(broken)),
            }
        }
        Pulled::Empty
    }

    /// Takes the next frame and with it all its pages, before a byte of them is believed.
    fn read(&mut self, h: &mut H, pieces: &mut Vec<Piece>) -> Option<Pulled<Incoming>> {
        let from = pieces.len();
        let mut chain = Chain { first: None, last: None, whole: true };
        let read = read_rx(|| self.take(h, &mut chain), pieces)?;
        let frame = read.and_then(|frame| match chain.first {
            Some(first) if chain.whole && is_whole(frame.offload) => Ok((frame, first)),
            Some(_) if chain.whole => Err(DropReason::BadSlot),
            _ => Err(DropReason::StillMapped),
        });
        Some(match frame {
            Ok((RxFrame { len, offload }, first)) => {
                let token = first.into();
                Pulled::Frame(Incoming { pieces: from..pieces.len(), len, offload, token })
            }
            Err(reason) => {
                chain.first.into_iter().for_each(|first| self.done(first));
                pieces.truncate(from);
                Pulled::Bad(reason)
            }
        })
    }

    /// The next response. Ends the grant of its buffer, which then is the last of `chain`.
    #[inline(always)] // Once for each slot.
    fn take(&mut self, h: &mut H, chain: &mut Chain) -> Option<RxAnswer> {
        let (index, response) = match self.ring.take() {
            Ok(next) => next?,
            Err(broken) => {
                self.fault = Some(Fault::RxRing(broken));
                return None;
            }
        };
        let id = *self.posted.get(index.slot())?;
        let buffer = self.buffers.get_mut(usize::from(id))?;
        let page = CopyEnd::Page(buffer.page.frame());
        let slot = RxAnswer { response, page, id: id_at(index) };
        let ended = match core::mem::replace(&mut buffer.state, State::InFrame) {
            State::Posted(grant) => h.end(grant).map_err(|(grant, _)| {
                self.stuck.push(id);
                State::Stuck(grant)
            }),
            other => Err(other),
        };
        match ended {
            Ok(()) => match chain.last.replace(id) {
                Some(last) => self.buffers.get_mut(usize::from(last))?.next = Some(id),
                None => chain.first = Some(id),
            },
            Err(state) => {
                buffer.state = state;
                chain.whole = false;
            }
        }
        Some(slot)
    }

    /// Copies the first bytes of the frame with buffer `first`, as many as fit `into`. Returns how
    /// many they are.
    pub(crate) fn heads(&self, first: u16, pieces: &[Piece], into: &mut [u8]) -> usize {
        let (mut done, mut pieces) = (0usize, pieces.iter());
        let mut next = pieces.next();
        for buffer in self.frame(first) {
            let Some(piece) = next else { break };
            if piece.at != CopyEnd::Page(buffer.page.frame()) {
                // Of an extra, or of a slot without data.
                continue;
            }
            next = pieces.next();
            let rest = into.get_mut(done..).unwrap_or_default();
            let now = rest.len().min(usize::from(piece.len));
            let Some(part) = rest.get_mut(..now).filter(|part| !part.is_empty()) else { break };
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
        *self.posted.get_mut(index.slot())? = id;
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

/// Whether a frame may be what `offload` says: what is to be cut into segments gets a checksum with each,
/// so its own must be blank.
fn is_whole(offload: Offload) -> bool {
    offload.gso.is_none() || offload.csum == Csum::Blank
}

/// The id of the request at `index`: its place in the ring, as there is no other pairing.
fn id_at(index: RingIndex) -> u16 {
    u16::try_from(index.slot()).unwrap_or(u16::MAX)
}
