//! Frames out of slots, with the checks and the severity of Linux' netback and netfront.

use super::{
    BadExtra, ETH_HEADER, Extra, ExtraKind, RxFlags, RxResponse, Status, TxFlags, TxRequest,
    TxResponse,
};
use crate::hypervisor::{CopyEnd, PAGE_SIZE};
use crate::io::{Piece, SLOTS_MAX};
use crate::ring::RingIndex;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::{Csum, DropReason, Gso, Offload};

/// Data slots in a frame from which on its sender is taken for broken; between this and
/// [`SLOTS_MAX`] only the frame is dropped (fatal_skb_slots of Linux' netback, plus the first).
pub const TX_SLOTS_FATAL: usize = 22;

/// Most extras behind one first slot: each type once.
const EXTRAS_MAX: u8 = 5;

/// A fault in a TX ring that ends the vif.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxFault {
    /// The published requests end in the middle of a frame.
    CutShort,
    /// [`TX_SLOTS_FATAL`] data slots or more, or more extras than there are types.
    TooManySlots,
    /// An extra-info slot that is none.
    BadExtra(BadExtra),
    /// Data that would cross the end of its page.
    CrossesPage {
        /// Where the data starts.
        offset: u16,
        /// Its bytes.
        size: u16,
    },
}

/// One data slot of a TX frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxData {
    /// The page with the data.
    pub gref: u32,
    /// Where the data starts in it; `offset + len` is at most a page.
    pub offset: u16,
    /// Bytes in this slot; never 0.
    pub len: u16,
}

/// A TX frame, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxFrame {
    /// Its data, in order.
    pub data: ArrayVec<TxData, SLOTS_MAX>,
    /// The sum of the data's lengths, at least an Ethernet header.
    pub len: u32,
    /// What the sender left to do. "Data validated" counts as unknown: a client is not trusted.
    pub offload: Offload,
}

/// What a frontend must be answered for one TX frame: every slot, extras included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxAnswer {
    first: RingIndex,
    extras: u8,
    ids: ArrayVec<u16, TX_SLOTS_FATAL>,
}

impl TxAnswer {
    /// The index of the first request.
    #[must_use]
    pub const fn first(&self) -> RingIndex {
        self.first
    }

    /// The responses, each with the index of its request. The extras stand behind the first slot.
    pub fn responses(&self, status: Status) -> impl Iterator<Item = (RingIndex, TxResponse)> {
        let extras = usize::from(self.extras);
        let id = move |n: usize| match n {
            0 => self.ids.first(),
            n => self.ids.get(n.checked_sub(extras).filter(|at| *at != 0)?),
        };
        (0u32..).take(self.slots()).map(move |n| {
            let null = TxResponse { id: 0, status: Status::NULL };
            let response = id(n as usize).map_or(null, |id| TxResponse { id: *id, status });
            (self.first.plus(n), response)
        })
    }

    /// Slots in the ring.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.ids.len().saturating_add(usize::from(self.extras))
    }
}

/// The slots of one frame: what to answer, and the frame or why it is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxPacket {
    /// What the frontend must be answered, whatever becomes of the frame.
    pub answer: TxAnswer,
    /// The frame, or why it must be dropped.
    pub frame: Result<TxFrame, DropReason>,
}

/// Puts the next TX frame together. `next` takes slots from the ring; `None` means that no more are
/// published. Returns `Ok(None)` if there is no frame.
///
/// # Errors
/// [`TxFault`]: the sender is broken, and its vif is to be closed.
pub fn read_tx(
    mut next: impl FnMut() -> Option<(RingIndex, [u8; 12])>,
) -> Result<Option<TxPacket>, TxFault> {
    let Some((first, slot)) = next() else { return Ok(None) };
    let head = TxRequest::decode(&slot);
    let mut answer = TxAnswer { first, extras: 0, ids: ArrayVec::from_iter([head.id]) };
    let mut drop = None;
    let mut gso = None;

    let mut extra_follows = head.flags.has(TxFlags::EXTRA_INFO);
    while extra_follows {
        let (_, slot) = next().ok_or(TxFault::CutShort)?;
        answer.extras = answer.extras.saturating_add(1);
        if answer.extras > EXTRAS_MAX {
            return Err(TxFault::TooManySlots);
        }
        let extra = Extra::decode_tx(&slot).map_err(TxFault::BadExtra)?;
        match extra.kind {
            ExtraKind::Gso(request) => gso = Some(request),
            ExtraKind::Mcast => drop = Some(DropReason::BadSlot),
            ExtraKind::Hint(_) => {}
        }
        extra_follows = extra.more;
    }

    // What is left of its length for the first slot, which stands before all others.
    let mut own = head.size;
    let mut data: ArrayVec<TxData, SLOTS_MAX> = ArrayVec::new();
    data.push(TxData { gref: head.gref, offset: head.offset, len: 0 });
    let mut more = head.flags.has(TxFlags::MORE_DATA);
    while more {
        let (_, slot) = next().ok_or(TxFault::CutShort)?;
        let request = TxRequest::decode(&slot);
        more = request.flags.has(TxFlags::MORE_DATA);
        answer.ids.try_push(request.id).map_err(|_| TxFault::TooManySlots)?;
        if answer.ids.len() >= TX_SLOTS_FATAL {
            return Err(TxFault::TooManySlots);
        }
        within_page(request.offset, request.size)?;
        match own.checked_sub(request.size) {
            Some(left) => own = left,
            None => drop = Some(DropReason::BadSlot),
        }
        if answer.ids.len() > SLOTS_MAX {
            drop = Some(DropReason::TooManySlots);
        } else if request.size != 0 {
            let more = TxData { gref: request.gref, offset: request.offset, len: request.size };
            let _ = data.try_push(more);
        }
    }

    if let Some(reason) = drop {
        return Ok(Some(TxPacket { answer, frame: Err(reason) }));
    }
    if u32::from(own) < ETH_HEADER {
        return Ok(Some(TxPacket { answer, frame: Err(DropReason::Truncated) }));
    }
    within_page(head.offset, own)?;
    if let Some(first) = data.first_mut() {
        first.len = own;
    }
    let csum = if head.flags.has(TxFlags::CSUM_BLANK) { Csum::Blank } else { Csum::Unknown };
    let frame = TxFrame { data, len: u32::from(head.size), offload: Offload { csum, gso } };
    Ok(Some(TxPacket { answer, frame: Ok(frame) }))
}

fn within_page(offset: u16, size: u16) -> Result<(), TxFault> {
    if fits_page(offset, size) { Ok(()) } else { Err(TxFault::CrossesPage { offset, size }) }
}

fn fits_page(offset: u16, size: u16) -> bool {
    usize::from(offset).saturating_add(usize::from(size)) <= PAGE_SIZE
}

/// A response that was taken from an RX ring, and with it the page it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxAnswer {
    /// What stands in the ring.
    pub response: [u8; 8],
    /// The page the backend was given with the request.
    pub page: CopyEnd,
    /// The id of that request.
    pub id: u16,
}

/// An RX frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxFrame {
    /// The sum of its pieces' lengths, at least an Ethernet header.
    pub len: u32,
    /// What the sender left to do, or vouches for.
    pub offload: Offload,
}

/// Puts the next RX frame together. `next` takes responses from the ring; `None` means that no more
/// are published. The frame's bytes are added to `pieces`, at most [`SLOTS_MAX`]; none if it must be
/// dropped. Returns `None` if there is no frame.
///
/// Nothing here ends the vif: whatever the backend writes costs this frame at most.
#[inline] // Into its only caller, so that what is done for each slot is done at once.
pub fn read_rx(
    mut next: impl FnMut() -> Option<RxAnswer>,
    pieces: &mut Vec<Piece>,
) -> Option<Result<RxFrame, DropReason>> {
    let from = pieces.len();
    let mut reader = RxReader { pieces, from, len: 0, gso: None, drop: None };
    // What the first slot says, which stands for the frame.
    let mut head: Option<RxFlags> = None;
    let (mut extra_follows, mut more) = (false, true);
    while extra_follows || more {
        let Some(slot) = next() else {
            head?;
            reader.drop = Some(DropReason::BadSlot);
            break;
        };
        if extra_follows {
            extra_follows = reader.extra(&slot.response);
            continue;
        }
        let response = RxResponse::decode(&slot.response);
        reader.data(&slot, response);
        more = response.flags.has(RxFlags::MORE_DATA);
        if head.is_none() {
            head = Some(response.flags);
            extra_follows = response.flags.has(RxFlags::EXTRA_INFO);
        }
    }
    head.map(|flags| reader.frame(flags))
}

struct RxReader<'p> {
    pieces: &'p mut Vec<Piece>,
    /// How many pieces there were before.
    from: usize,
    len: u32,
    gso: Option<Gso>,
    drop: Option<DropReason>,
}

impl RxReader<'_> {
    #[inline(always)] // Once for each slot.
    fn data(&mut self, slot: &RxAnswer, response: RxResponse) {
        if response.id != slot.id {
            // If nothing worse is wrong.
            self.drop.get_or_insert(DropReason::BadSlot);
        }
        match u16::try_from(response.status.0) {
            Ok(0) => {}
            Ok(len) if fits_page(response.offset, len) => {
                self.len = self.len.saturating_add(u32::from(len));
                if self.pieces.len().saturating_sub(self.from) < SLOTS_MAX {
                    self.pieces.push(Piece { at: slot.page, offset: response.offset, len });
                } else {
                    self.drop = Some(DropReason::TooManySlots);
                }
            }
            Ok(_) => self.drop = Some(DropReason::BadSlot),
            Err(_) => self.drop = Some(DropReason::CopyFailed),
        }
    }

    /// Returns whether another extra follows.
    fn extra(&mut self, slot: &[u8; 8]) -> bool {
        match Extra::decode_rx(slot) {
            Ok(extra) => {
                if let ExtraKind::Gso(gso) = extra.kind {
                    self.gso = Some(gso);
                }
                extra.more
            }
            Err(_) => {
                self.drop = Some(DropReason::BadSlot);
                false
            }
        }
    }

    fn frame(self, flags: RxFlags) -> Result<RxFrame, DropReason> {
        let reason = match self.drop {
            Some(reason) => reason,
            None if self.len < ETH_HEADER => DropReason::Truncated,
            None if self.len > u32::from(u16::MAX) => DropReason::TooBig,
            None => {
                let csum = if flags.has(RxFlags::CSUM_BLANK) {
                    Csum::Blank
                } else if flags.has(RxFlags::DATA_VALIDATED) {
                    Csum::Valid
                } else {
                    Csum::Unknown
                };
                let offload = Offload { csum, gso: self.gso };
                return Ok(RxFrame { len: self.len, offload });
            }
        };
        self.pieces.truncate(self.from);
        Err(reason)
    }
}
