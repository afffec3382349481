//! A link to one backend: both rings, their pages, the event channel.
//!
//! In: who the backend is and what it can take. Out: frames both ways, as [`xen::io::Device`] wants
//! it. Never: asks XenStore, or lets go of a page the backend may still have mapped.

use crate::fault::Fault;
use crate::pool::Pool;
use crate::rx::Rx;
use crate::tx::Tx;
use crate::{Config, Slots};
use alloc::vec::Vec;
use core::fmt;
use wire::{DropReason, Offload, Takes};
use xen::hypervisor::{Access, CopyOp, DomId, Errno, EvtPort, GrantRef, Hypervisor, PAGE_SIZE};
use xen::io::{Head, Incoming, Piece, Pulled, Staged};

/// Why no link could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    NoMemory,
    NoRef,
    Event(Errno),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory for its rings and buffers"),
            Self::NoRef => f.write_str("the grant table is full"),
            Self::Event(Errno(errno)) => write!(f, "no event channel, errno {errno}"),
        }
    }
}

/// Both rings, connected or on offer.
pub(crate) struct Link<H: Hypervisor> {
    pub(crate) peer: DomId,
    takes: Takes,
    generation: u16,
    tx: Tx<H>,
    rx: Rx<H>,
    tx_ring: Option<GrantRef>,
    rx_ring: Option<GrantRef>,
    event: EvtPort,
}

impl<H: Hypervisor> Link<H> {
    /// Makes rings for `peer`, with all RX buffers posted. Nothing stays taken on failure.
    pub(crate) fn open(
        h: &mut H,
        pool: &mut Pool<H>,
        config: &Config,
        peer: DomId,
        takes: Takes,
        generation: u16,
    ) -> Result<Self, OpenError> {
        pool.serve(peer);
        let tx = Tx::new(h, pool, config.tx_pages).map_err(|_| OpenError::NoMemory)?;
        let Ok(rx) = Rx::new(h, pool, config.rx_pages) else {
            tx.close(h, pool, None);
            return Err(OpenError::NoMemory);
        };
        let event = match h.alloc_unbound(peer) {
            Ok(event) => event,
            Err(errno) => {
                tx.close(h, pool, None);
                rx.close(h, pool, None);
                return Err(OpenError::Event(errno));
            }
        };
        let tx_ring = h.grant(peer, tx.ring_page(), Access::ReadWrite).ok();
        let rx_ring = h.grant(peer, rx.ring_page(), Access::ReadWrite).ok();
        let mut link = Self { peer, takes, generation, tx, rx, tx_ring, rx_ring, event };
        if link.tx_ring.is_none() || link.rx_ring.is_none() {
            link.close(h, pool);
            return Err(OpenError::NoRef);
        }
        // Nobody to signal yet: Xen signals a port when it is bound.
        let _ = link.rx.publish(h, peer);
        Ok(link)
    }

    /// Ends it: what the backend still has mapped goes to the pool's quarantine.
    pub(crate) fn close(self, h: &mut H, pool: &mut Pool<H>) {
        h.close(self.event);
        self.tx.close(h, pool, self.tx_ring);
        self.rx.close(h, pool, self.rx_ring);
    }

    /// What the backend must be told: tx-ring-ref, rx-ring-ref and event-channel.
    pub(crate) fn refs(&self) -> [(&'static str, u32); 3] {
        let number = |gref: &Option<GrantRef>| gref.as_ref().map_or(0, GrantRef::number);
        [
            ("tx-ring-ref", number(&self.tx_ring)),
            ("rx-ring-ref", number(&self.rx_ring)),
            ("event-channel", self.event.0),
        ]
    }

    pub(crate) const fn event(&self) -> EvtPort {
        self.event
    }

    /// What the backend did that no backend may do.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.tx.fault().or(self.rx.fault())
    }

    pub(crate) const fn takes(&self) -> Takes {
        self.takes
    }

    pub(crate) fn room(&self) -> Slots {
        Slots(self.tx.room())
    }

    pub(crate) const fn posted(&self) -> Slots {
        Slots(self.rx.posted())
    }

    pub(crate) fn harvest(&mut self, h: &mut H) {
        self.tx.harvest(h);
    }

    /// Pages that are not in use because the backend kept them mapped, or for lack of a grant.
    pub(crate) const fn lacks(&self) -> usize {
        self.tx.stuck() + self.rx.stuck() + self.rx.unposted()
    }

    /// Tries pages the backend kept mapped again, and buffers that found no grant. Returns how many
    /// remain.
    pub(crate) fn retry(&mut self, h: &mut H) -> usize {
        let stuck = self.tx.retry(h) + self.rx.retry(h);
        if self.rx.unposted() != 0 {
            self.publish(h);
        }
        stuck + self.rx.unposted()
    }

    pub(crate) fn pull(&mut self, h: &mut H, pieces: &mut Vec<Piece>) -> Pulled<Incoming> {
        if self.fault().is_some() {
            return Pulled::Empty;
        }
        match self.rx.pull(h, pieces) {
            Pulled::Frame(frame) => {
                Pulled::Frame(Incoming { token: self.token(frame.token), ..frame })
            }
            other => other,
        }
    }

    pub(crate) fn heads(
        &self,
        frame: &Incoming,
        pieces: &[Piece],
        want: usize,
        at: u32,
        private: &mut [u8],
    ) -> usize {
        let Some(id) = self.id(frame.token) else { return 0 };
        let at = at as usize;
        let into = private.get_mut(at..at.saturating_add(want)).unwrap_or_default();
        self.rx.heads(id, frame.of(pieces), into)
    }

    pub(crate) fn stage(
        &mut self,
        h: &mut H,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<Staged, DropReason> {
        if self.fault().is_some() {
            return Err(DropReason::EgressDown);
        }
        let from = ops.len();
        let id = self.tx.stage(h, self.takes, head, rest, offload, ops)?;
        Ok(Staged { ops: from..ops.len(), token: self.token(u32::from(id)) })
    }

    pub(crate) fn commit(
        &mut self,
        h: &mut H,
        staged: Staged,
        ops: &[CopyOp],
    ) -> Result<(), DropReason> {
        let id = self.id(staged.token).ok_or(DropReason::EgressDown)?;
        self.tx.commit(h, self.peer, id, ops.get(staged.ops))
    }

    pub(crate) fn done(&mut self, frame: &Incoming) {
        if let Some(id) = self.id(frame.token) {
            self.rx.done(id);
        }
    }

    pub(crate) fn publish(&mut self, h: &mut H) {
        if self.fault().is_some() {
            return;
        }
        let tx = self.tx.publish(h);
        let rx = self.rx.publish(h, self.peer);
        if tx || rx {
            // It fails if the backend has just closed its end; XenStore will tell.
            let _ = h.notify(self.event);
        }
    }

    /// Marks an id as of this link, so that one of an earlier link is recognised.
    fn token(&self, id: u32) -> u32 {
        u32::from(self.generation) << 16 | (id & 0xffff)
    }

    fn id(&self, token: u32) -> Option<u16> {
        (token >> 16 == u32::from(self.generation)).then_some(token as u16)
    }
}

const _: () = assert!(PAGE_SIZE <= u16::MAX as usize);
