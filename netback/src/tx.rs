//! Frames from a client: its TX ring.
//!
//! In: request slots a hostile frontend wrote. Out: checked frames as pieces in its own pages, and one
//! response for every slot once the frame is done with. Never: reads a slot twice, or answers while a
//! copy out of the frame may still come.
#![deny(clippy::arithmetic_side_effects)]

use crate::link::Fault;
use alloc::boxed::Box;
use alloc::vec::Vec;
use xen::hypervisor::{CopyEnd, CopyOp, DomId, Memory, PAGE_SIZE};
use xen::io::{Incoming, Piece, Pulled};
use xen::netif::{Status, Tx, TxFrame, TxPacket, TxResponse, read_tx};
use xen::ring::{Back, RingIndex, SLOTS};

/// Bytes of a frame whose sender hardly waits for the answer: an acknowledgement, a query.
const SMALL: u32 = 128;

/// Slots answered of which the client is told at the latest.
const QUIETLY_MOST: u32 = 32;

/// The TX ring of one client and what is owed to it.
#[derive(Debug)]
pub(crate) struct TxPath<M> {
    dom: DomId,
    ring: Back<Tx, M>,
    /// The answers owed for frames in flight, each at the slot of its request.
    owed: Box<[TxResponse; SLOTS as usize]>,
    /// How many slots the frame takes that begins at this one; 0 if none in flight does.
    slots: [u8; SLOTS as usize],
    /// Whether something was answered for which its sender may wait since it was last asked whether it
    /// wants a signal: a frame of more than [`SMALL`] bytes, or one that was refused.
    pressing: bool,
}

impl<M: Memory> TxPath<M> {
    pub(crate) fn new(dom: DomId, ring: Back<Tx, M>) -> Self {
        let none = TxResponse { id: 0, status: Status::NULL };
        let (owed, slots) = (Box::new([none; SLOTS as usize]), [0; SLOTS as usize]);
        Self { dom, ring, owed, slots, pressing: false }
    }

    pub(crate) fn into_page(self) -> M {
        self.ring.into_page()
    }

    /// The next frame, its pieces added to `pieces`. After [`Pulled::Empty`] the frontend signals when
    /// there is another.
    pub(crate) fn pull(&mut self, pieces: &mut Vec<Piece>) -> Result<Pulled<Incoming>, Fault> {
        loop {
            let mut broken = None;
            let packet = read_tx(|| match self.ring.take() {
                Ok(slot) => slot,
                Err(error) => {
                    broken = Some(error);
                    None
                }
            });
            if let Some(error) = broken {
                return Err(Fault::of(error));
            }
            match packet {
                Ok(Some(packet)) => return Ok(self.accept(&packet, pieces)),
                Ok(None) if self.ring.arm(1).map_err(Fault::of)? => {}
                Ok(None) => return Ok(Pulled::Empty),
                Err(fault) => return Err(Fault::Frame(fault)),
            }
        }
    }

    fn accept(&mut self, packet: &TxPacket, pieces: &mut Vec<Piece>) -> Pulled<Incoming> {
        let TxPacket { answer, frame } = packet;
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => {
                self.pressing = true;
                for (index, response) in answer.responses(Status::ERROR) {
                    self.ring.answer(index, &response.encode());
                }
                return Pulled::Bad(*reason);
            }
        };
        for (index, response) in answer.responses(Status::OKAY) {
            if let Some(owed) = self.owed.get_mut(index.slot()) {
                *owed = response;
            }
        }
        let first = answer.first();
        if let Some(n) = self.slots.get_mut(first.slot()) {
            *n = u8::try_from(answer.slots()).unwrap_or(u8::MAX);
        }
        let (dom, from) = (self.dom, pieces.len());
        pieces.extend(frame.data.iter().map(|data| Piece {
            at: CopyEnd::Grant { dom, gref: data.gref },
            offset: data.offset,
            len: data.len,
        }));
        let TxFrame { len, offload, .. } = *frame;
        Pulled::Frame(Incoming { pieces: from..pieces.len(), len, offload, token: first.0 })
    }

    /// Answers every slot of `frame`; the frontend sees it after [`publish`](Self::publish).
    pub(crate) fn done(&mut self, frame: &Incoming) {
        let first = RingIndex(frame.token);
        let slots = self.slots.get_mut(first.slot()).map_or(0, core::mem::take);
        self.pressing |= frame.len > SMALL;
        for index in (0..u32::from(slots)).map(|n| first.plus(n)) {
            if let Some(response) = self.owed.get(index.slot()) {
                self.ring.answer(index, &response.encode());
            }
        }
    }

    /// Shows the frontend what was answered.
    pub(crate) fn show(&mut self) {
        self.ring.show();
    }

    /// Whether a signal about what was answered cannot wait for another reason to give one.
    pub(crate) const fn is_pressing(&self) -> bool {
        self.pressing || self.ring.unasked() >= QUIETLY_MOST
    }

    /// Whether something was answered about which it was not asked whether the frontend wants a signal.
    pub(crate) const fn is_unasked(&self) -> bool {
        self.ring.unasked() != 0
    }

    /// Whether the frontend asked to be signalled about what was answered.
    pub(crate) fn wants_signal(&mut self) -> bool {
        self.pressing = false;
        self.ring.wants_signal()
    }
}

/// Adds the copies that gather the first bytes of `pieces`, at most `want`, at byte `at` of private
/// memory. Returns how many bytes that is.
pub(crate) fn gather(pieces: &[Piece], want: usize, at: u32, ops: &mut Vec<CopyOp>) -> usize {
    const PAGE: u32 = PAGE_SIZE as u32;
    let want = u32::try_from(want).unwrap_or(u32::MAX);
    let mut done: u32 = 0;
    for piece in pieces {
        let mut from = piece.offset;
        let mut left = u32::from(piece.len).min(want.saturating_sub(done));
        while left != 0 {
            let to = at.saturating_add(done);
            let (Some(page), Some(offset)) = (to.checked_div(PAGE), to.checked_rem(PAGE)) else {
                break;
            };
            let room = PAGE.saturating_sub(offset);
            let (Ok(page), Ok(dst_offset), Ok(len)) =
                (u16::try_from(page), u16::try_from(offset), u16::try_from(left.min(room)))
            else {
                return done as usize;
            };
            ops.push(CopyOp::new(piece.at, from, CopyEnd::Private(page), dst_offset, len));
            from = from.saturating_add(len);
            left = left.saturating_sub(u32::from(len));
            done = done.saturating_add(u32::from(len));
        }
        if done >= want {
            break;
        }
    }
    done as usize
}
