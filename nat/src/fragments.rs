//! Datagrams that come in fragments, and the flow that the first fragment of each passed.
//!
//! In: where each fragment stands in its datagram. Out: the flow of a later one, or that its first
//! has not come yet, or that it must not pass. Never: bytes, two fragments that overlap, a datagram
//! remembered for longer than `LIFETIME`, or one client's datagrams at the cost of another's.
//!
//! Only the first fragment has ports (RFC 4787 REQ-14). What is refused here is what no sender does,
//! but who wants a receiver to put together other headers than a filter saw (RFC 1858, RFC 3128,
//! RFC 5722).
#![deny(clippy::arithmetic_side_effects)]

use crate::FlowId;
use crate::hash::Hasher;
use alloc::boxed::Box;
use alloc::vec;
use arrayvec::ArrayVec;
use core::cmp::Reverse;
use core::net::IpAddr;
use core::time::Duration;
use hashbrown::HashMap;
use wire::{DropReason, Fragment, Instant, Port};

/// How long the fragments of a datagram may take: what receivers wait for the rest.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);

/// Places of the table.
const PLACES: usize = 512;

/// How many of them it fills before it puts itself in order.
const ROOM: usize = PLACES / 8 * 7;

/// Datagrams remembered at once: as many as it puts in order where they are. With more it would grow.
const DATAGRAMS: usize = ROOM / 2;

/// Of one client, in both directions together.
const PER_CLIENT: u16 = 32;

/// Stretches of a datagram that were seen with gaps between. Who sends in such disorder is dropped.
const STRETCHES: usize = 8;

/// Fragments of one datagram: 64 KiB in the smallest packets that every link must carry (RFC 791),
/// which leave room for 552 bytes.
const PIECES: u8 = 120;

/// TCP, in the numbers of IANA.
const TCP: u8 = 6;

/// What the fragments of one datagram have in common (RFC 791, RFC 8200 section 4.5), and where they
/// come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramId {
    /// The interface they come in by.
    pub from: Port,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// IANA number of the protocol that was cut. In IPv6 only an identification and addresses count,
    /// but no sender's fragments differ in it either.
    pub protocol: u8,
}

/// Where a fragment stands in its datagram, found to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    start: u16,
    end: u16,
    last: bool,
}

impl Piece {
    /// A fragment with `len` bytes of data.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] if no sender makes such: it is empty, not the last and no multiple of
    /// 8 bytes long, reaches past what a datagram can hold, or starts within a TCP header.
    pub fn new(fragment: &Fragment, len: u32) -> Result<Self, DropReason> {
        let start = fragment.offset;
        let end = u32::from(start).checked_add(len).and_then(|end| u16::try_from(end).ok());
        let end = end.ok_or(DropReason::Fragment)?;
        let ragged = fragment.more && !len.is_multiple_of(8);
        let in_header = fragment.protocol == TCP && start > 0 && start < 20;
        if len == 0 || ragged || in_header {
            return Err(DropReason::Fragment);
        }
        Ok(Self { start, end, last: !fragment.more })
    }
}

/// What becomes of a fragment that is not the first of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// It goes where the first one went. With TCP, up to which sequence number it reaches.
    Follows(FlowId, Option<u32>),
    /// The first has not come yet.
    Early,
}

/// A datagram whose first fragment passed.
#[derive(Clone, Debug)]
struct Datagram {
    flow: FlowId,
    /// Slot of the client whose flow it is.
    owner: u16,
    since: Instant,
    /// Sequence number that the first byte behind a TCP segment's header would have if the header
    /// were data.
    tcp_base: Option<u32>,
    /// What was seen, in order, without overlaps.
    seen: ArrayVec<(u16, u16), STRETCHES>,
    /// Where it ends, once the last fragment was seen.
    end: Option<u16>,
    pieces: u8,
    /// Two fragments overlapped: nothing of it passes any more.
    spoilt: bool,
}

/// The datagrams that are coming.
#[derive(Debug)]
pub struct Fragments {
    /// Senders choose what they are found by, so the hash has a key.
    datagrams: HashMap<DatagramId, Datagram, Hasher>,
    /// How many each client has, by slot.
    held: Box<[u16]>,
}

impl Fragments {
    /// Bytes it takes for clients in so many slots.
    #[must_use]
    pub const fn bytes(slots: u16) -> usize {
        let held = (slots as usize).saturating_mul(size_of::<u16>());
        // A byte of its own for each place, and so many behind the last.
        let place = size_of::<(DatagramId, Datagram)>().saturating_add(1);
        PLACES.saturating_mul(place).saturating_add(16).saturating_add(held)
    }

    /// None, of clients in so many slots. All memory is taken here. `key` must be fresh.
    #[must_use]
    pub fn new(slots: u16, key: [u8; 16]) -> Self {
        Self {
            datagrams: HashMap::with_capacity_and_hasher(ROOM, Hasher::with_key(key)),
            held: vec![0; slots.into()].into_boxed_slice(),
        }
    }

    /// Whether a first fragment may pass: asked before the flow is.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] if another first fragment of this datagram came before.
    pub fn may_begin(&mut self, now: Instant, id: &DatagramId) -> Result<(), DropReason> {
        match self.find(now, id) {
            Some(datagram) => {
                datagram.spoilt = true;
                Err(DropReason::Fragment)
            }
            None => Ok(()),
        }
    }

    /// A first fragment passed by `flow` of `client`. `tcp_base` is the sequence number of a TCP
    /// segment less the length of its header.
    pub fn begin(
        &mut self,
        now: Instant,
        id: DatagramId,
        piece: Piece,
        flow: FlowId,
        client: Port,
        tcp_base: Option<u32>,
    ) {
        let owner = client.slot().0;
        self.forget(&id);
        self.make_room(now, owner);
        let Some(held) = self.held.get_mut(usize::from(owner)) else { return };
        *held = held.saturating_add(1);
        let mut seen = ArrayVec::new();
        seen.push((piece.start, piece.end));
        let datagram = Datagram {
            flow,
            owner,
            since: now,
            tcp_base,
            seen,
            end: piece.last.then_some(piece.end),
            pieces: 1,
            spoilt: false,
        };
        self.datagrams.insert(id, datagram);
    }

    /// The flow that the first fragment of a datagram passed by.
    #[must_use]
    pub fn flow(&self, now: Instant, id: &DatagramId) -> Option<FlowId> {
        let datagram = self.datagrams.get(id)?;
        (now.since(datagram.since) < LIFETIME).then_some(datagram.flow)
    }

    /// Judges a fragment that is not the first.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] if it overlaps another of its datagram, reaches past its end, or is
    /// one of too many.
    pub fn later(
        &mut self,
        now: Instant,
        id: &DatagramId,
        piece: Piece,
    ) -> Result<Later, DropReason> {
        let Some(datagram) = self.find(now, id) else { return Ok(Later::Early) };
        datagram.take(piece)?;
        let end = datagram.tcp_base.map(|base| base.wrapping_add(piece.end.into()));
        let follows = Later::Follows(datagram.flow, end);
        if datagram.is_whole() {
            self.forget(id);
        }
        Ok(follows)
    }

    /// A client is gone, and with it what was coming from it and to it.
    pub fn client_gone(&mut self, client: Port) {
        let owner = client.slot().0;
        self.datagrams.retain(|_, datagram| datagram.owner != owner);
        if let Some(held) = self.held.get_mut(usize::from(owner)) {
            *held = 0;
        }
    }

    fn find(&mut self, now: Instant, id: &DatagramId) -> Option<&mut Datagram> {
        let datagram = self.datagrams.get_mut(id)?;
        (now.since(datagram.since) < LIFETIME).then_some(datagram)
    }

    fn forget(&mut self, id: &DatagramId) {
        let Some(datagram) = self.datagrams.remove(id) else { return };
        if let Some(held) = self.held.get_mut(usize::from(datagram.owner)) {
            *held = held.saturating_sub(1);
        }
    }

    /// Sees that there is room for one datagram more of `owner`, who loses its oldest if it has its
    /// share. Otherwise, if there is none, one is lost whose time is over, or the oldest of whoever has
    /// most.
    fn make_room(&mut self, now: Instant, owner: u16) {
        let held = |slot: u16| self.held.get(usize::from(slot)).copied().unwrap_or(0);
        let lost = if held(owner) >= PER_CLIENT {
            self.datagrams.iter().filter(|(_, d)| d.owner == owner).min_by_key(|(_, d)| d.since)
        } else if self.datagrams.len() < DATAGRAMS {
            None
        } else {
            let lives = |d: &Datagram| now.since(d.since) < LIFETIME;
            self.datagrams.iter().min_by_key(|(_, d)| (lives(d), Reverse(held(d.owner)), d.since))
        };
        if let Some(id) = lost.map(|(id, _)| *id) {
            self.forget(&id);
        }
    }
}

impl Datagram {
    /// Adds a fragment to what was seen.
    fn take(&mut self, piece: Piece) -> Result<(), DropReason> {
        let past_end = self.end.is_some_and(|end| piece.end > end || piece.last);
        let short = piece.last && self.seen.last().is_some_and(|(_, end)| *end > piece.end);
        let overlaps = self.seen.iter().any(|(s, e)| piece.start < *e && *s < piece.end);
        if past_end || short || overlaps {
            self.spoilt = true;
        }
        self.pieces = self.pieces.saturating_add(1);
        if self.spoilt || self.pieces > PIECES {
            return Err(DropReason::Fragment);
        }
        let (mut start, mut end) = (piece.start, piece.end);
        self.seen.retain(|(s, e)| {
            let touches = *e == start || *s == end;
            if touches {
                (start, end) = (start.min(*s), end.max(*e));
            }
            !touches
        });
        let at = self.seen.iter().take_while(|(s, _)| *s < start).count();
        self.seen.try_insert(at, (start, end)).map_err(|_| DropReason::Fragment)?;
        if piece.last {
            self.end = Some(piece.end);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        match (self.seen.as_slice(), self.end) {
            ([(0, seen)], Some(end)) => *seen == end,
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
