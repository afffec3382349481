//! The guest's one interface: frames as bytes, out and in.
//!
//! In: bytes to be sent, events. Out: bytes that came. Never: keeps a frame that the ring does not take.

#![forbid(unsafe_code)]

use crate::boot::say;
use crate::frames::Ends;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use netfront::{Config, Netfront, Notice};
use wire::{HEAD_MAX, Instant, Mac, Offload, PortSlot};
use xen::hypervisor::{CopyOp, EvtPort, Hypervisor, Memory, NoMemory, PortSet};
use xen::io::{Device, Head, Piece, Pulled, SLOTS_MAX};
use xen::raw::Xen;
use xen::store::{Client, Event, Tag};

/// What backends of Qubes and of the rig call themselves.
const GATEWAY: Mac = Mac([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);
/// Frames taken from the ring in one turn.
const RECEIVE: usize = 64;
/// Room for the head of a received frame.
const PRIVATE_PAGES: u16 = 1;

/// The interface.
pub(crate) struct Net {
    front: Netfront<Xen>,
    private: <Xen as Hypervisor>::Private,
    ops: Vec<CopyOp>,
    pieces: Vec<Piece>,
    pub(crate) ends: Ends,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
}

impl Net {
    pub(crate) fn new(h: &mut Xen, own: Ipv4Addr) -> Result<Self, NoMemory> {
        Ok(Self {
            front: Netfront::new(Config::new(PortSlot(0), Tag(1))),
            private: h.private(PRIVATE_PAGES)?,
            ops: Vec::with_capacity(8),
            pieces: Vec::with_capacity(SLOTS_MAX),
            ends: Ends { own_mac: Mac([0; 6]), gateway_mac: GATEWAY, own },
            received: 0,
            received_bytes: 0,
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.front.port().is_some()
    }

    pub(crate) fn event(&self) -> Option<EvtPort> {
        self.front.event()
    }

    pub(crate) fn on_store<M: Memory>(&mut self, h: &mut Xen, store: &mut Client<M>, e: &Event) {
        self.front.on_store(h, store, e);
    }

    /// Does what is due; returns when there will be something again.
    pub(crate) fn work<M: Memory>(
        &mut self,
        h: &mut Xen,
        store: &mut Client<M>,
        pending: &PortSet,
    ) -> Option<Instant> {
        self.front.on_event(h, pending);
        let now = h.now();
        let due = self.front.tick(h, store, now);
        while let Some(notice) = self.front.next_notice() {
            match notice {
                Notice::Up { mac, .. } => {
                    self.ends.own_mac = mac;
                    say(format_args!("load: up"));
                }
                Notice::Down { .. } => say(format_args!("load: down")),
                Notice::Problem { text } => say(format_args!("load: {text}")),
            }
        }
        due
    }

    /// Puts a frame into the ring, where nobody sees it before [`Net::publish`]. Returns whether there
    /// was room.
    pub(crate) fn send(&mut self, h: &mut Xen, frame: &[u8]) -> bool {
        self.ops.clear();
        // All of it is head: then netfront writes it itself, and there is nothing to be copied.
        let head = Head { bytes: frame, private_offset: 0 };
        match self.front.stage(h, head, &[], Offload::NONE, &mut self.ops) {
            Ok(staged) => self.front.commit(h, staged, &self.ops).is_ok(),
            Err(_) => false,
        }
    }

    /// Shows the backend what was sent and what was received.
    pub(crate) fn publish(&mut self, h: &mut Xen) {
        self.front.publish(h);
    }

    /// Takes frames and hands on the head of each and its whole length. Returns whether more may be
    /// there.
    pub(crate) fn receive(&mut self, h: &mut Xen, mut take: impl FnMut(&[u8], u32)) -> bool {
        for _ in 0..RECEIVE {
            self.pieces.clear();
            match self.front.pull(h, &mut self.pieces) {
                Pulled::Frame(frame) => {
                    self.ops.clear();
                    let (private, ops) = (self.private.as_mut(), &mut self.ops);
                    let len = self.front.heads(&frame, &self.pieces, HEAD_MAX, 0, private, ops);
                    take(self.private.as_ref().get(..len).unwrap_or_default(), frame.len);
                    self.received += 1;
                    self.received_bytes += u64::from(frame.len);
                    self.front.done(h, frame);
                }
                Pulled::Bad(_) => {}
                Pulled::Empty => {
                    self.front.publish(h);
                    return false;
                }
            }
        }
        self.front.publish(h);
        true
    }
}
