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
use alloc::boxed::Box;
use alloc::vec;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::time::Duration;
use wire::{DropReason, Fragment, Instant, Port};

/// How long the fragments of a datagram may take: what receivers wait for the rest.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);

/// Datagrams remembered at once.
const DATAGRAMS: usize = 256;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    id: DatagramId,
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
    datagrams: Box<[Option<Datagram>]>,
    /// How many each client has, by slot.
    held: Box<[u16]>,
}

impl Fragments {
    /// Bytes it takes for clients in so many slots.
    #[must_use]
    pub const fn bytes(slots: u16) -> usize {
        let held = (slots as usize).saturating_mul(size_of::<u16>());
        DATAGRAMS.saturating_mul(size_of::<Option<Datagram>>()).saturating_add(held)
    }

    /// None, of clients in so many slots.
    #[must_use]
    pub fn new(slots: u16) -> Self {
        Self {
            datagrams: vec![None; DATAGRAMS].into_boxed_slice(),
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
        let owner = client.slot.0;
        let Some(place) = self.room(now, owner) else { return };
        let Some(held) = self.held.get_mut(usize::from(owner)) else { return };
        *held = held.saturating_add(1);
        let mut seen = ArrayVec::new();
        seen.push((piece.start, piece.end));
        let datagram = Datagram {
            id,
            flow,
            owner,
            since: now,
            tcp_base,
            seen,
            end: piece.last.then_some(piece.end),
            pieces: 1,
            spoilt: false,
        };
        if let Some(place) = self.datagrams.get_mut(place) {
            *place = Some(datagram);
        }
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
        let owner = client.slot.0;
        for place in &mut self.datagrams {
            if place.as_ref().is_some_and(|datagram| datagram.owner == owner) {
                *place = None;
            }
        }
        if let Some(held) = self.held.get_mut(usize::from(owner)) {
            *held = 0;
        }
    }

    fn find(&mut self, now: Instant, id: &DatagramId) -> Option<&mut Datagram> {
        let mut live = self.datagrams.iter_mut().flatten();
        live.find(|datagram| datagram.id == *id && now.since(datagram.since) < LIFETIME)
    }

    fn forget(&mut self, id: &DatagramId) {
        let same = |place: &Option<Datagram>| place.as_ref().is_some_and(|d| d.id == *id);
        if let Some(at) = self.datagrams.iter().position(same) {
            self.vacate(at);
        }
    }

    fn vacate(&mut self, at: usize) {
        let Some(datagram) = self.datagrams.get_mut(at).and_then(Option::take) else { return };
        if let Some(held) = self.held.get_mut(usize::from(datagram.owner)) {
            *held = held.saturating_sub(1);
        }
    }

    /// A place for one datagram more of `owner`: a vacant one or one whose time is over; else that of
    /// the oldest of `owner`, if it has its share, or of whoever has most.
    fn room(&mut self, now: Instant, owner: u16) -> Option<usize> {
        let held = |slot: u16| self.held.get(usize::from(slot)).copied().unwrap_or(0);
        let places = || self.datagrams.iter().enumerate();
        let taken = || places().filter_map(|(at, place)| Some((at, place.as_ref()?)));
        let over = taken().find(|(_, d)| now.since(d.since) >= LIFETIME).map(|(at, _)| at);
        let vacant = places().find(|(_, place)| place.is_none()).map(|(at, _)| at);
        let at = if held(owner) >= PER_CLIENT {
            taken().filter(|(_, d)| d.owner == owner).min_by_key(|(_, d)| d.since).map(|(at, _)| at)
        } else {
            let greedy = || {
                let key =
                    |(_, d): &(usize, &Datagram)| (core::cmp::Reverse(held(d.owner)), d.since);
                taken().min_by_key(key).map(|(at, _)| at)
            };
            vacant.or(over).or_else(greedy)
        }?;
        self.vacate(at);
        Some(at)
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
