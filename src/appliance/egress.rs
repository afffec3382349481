//! What leaves: accepted frames and our own, staged on their egress, their bodies copied, committed.
//!
//! In: frames with their verdicts, and replies. Out: whole frames on other devices, in the order they
//! came; counted drops. Never: shows a byte of a body that was not accepted, or has a frame changed in
//! its sender's pages.
//!
//! What an egress takes goes as it came. For one that takes less, frames are cut into segments and
//! checksums are completed (`wire::Segments`): new heads in private memory, and behind them the bodies
//! from where they are. Only what has to be summed is brought to private memory first, as much at a
//! time as there is room; so there can be several rounds of copies, but one is all that is needed for
//! frames that go as they came.

use super::memory;
use super::path::{Decision, Fabric, Flight, OPS_MAX, OnWay, Path};
use super::share::Cost;
use arrayvec::ArrayVec;
use core::ops::Range;
use wire::sums::Sum;
use wire::{
    BATCH, Csum, DropReason, Emit, Frame, Offload, Parsed, Port, Ranges, Reply, SEGMENTS_MAX,
    Segments, Verdict, parse,
};
use xen::hypervisor::{Hypervisor, PAGE_SIZE};
use xen::io::{self, Head, Incoming, Piece, SLOTS_MAX, Staged};

/// A frame to be sent on.
struct Leaving<'f> {
    flight: &'f Flight,
    emit: Emit,
    head: Place,
}

/// One, and how it is to be cut, if it is.
struct Planned<'f> {
    leaving: Leaving<'f>,
    cut: Option<Cut>,
}

/// What is done to a frame that does not go as it came.
#[derive(Clone)]
struct Cut {
    /// The payload of each frame it becomes.
    ranges: Ranges,
    /// Whether their checksums are completed.
    complete: bool,
    /// The place of the first one's head.
    first: usize,
    body: Body,
}

/// Where the payload is that is cut.
#[derive(Clone)]
enum Body {
    /// In its sender's pages.
    Sender,
    /// In private memory, where the frame would begin at this byte.
    Private(u32),
    /// To be brought there to be summed, by these copies; by none if it is not all there.
    ToBring(u32, Option<Range<usize>>),
}

/// A frame for an egress: a head in private memory, and what comes behind it.
struct Parcel<'p> {
    to: Port,
    head: Place,
    rest: &'p [Piece],
    offload: Offload,
    /// Bytes of all of it.
    len: u32,
}

/// A head in private memory.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    len: u16,
}

impl Place {
    fn range(self) -> Range<usize> {
        let at = self.at as usize;
        at..at + usize::from(self.len)
    }
}

impl Leaving<'_> {
    /// Length of the whole frame.
    fn len(&self) -> u32 {
        u32::from(self.emit.head) + self.flight.frame.len.saturating_sub(self.emit.skip)
    }

    fn frame<'h>(&self, head: &'h [u8]) -> Frame<'h> {
        Frame { from: self.flight.from, head, len: self.len(), offload: self.emit.offload }
    }
}

impl Planned<'_> {
    const fn is_to_bring(&self) -> bool {
        matches!(self.cut, Some(Cut { body: Body::ToBring(..), .. }))
    }
}

/// What is used of a round.
#[derive(Default)]
struct Used {
    ops: usize,
    segments: usize,
    bodies: usize,
}

impl Used {
    /// Gives a frame its places, if there is room for it. In an empty round there is for any frame.
    fn take(&mut self, frame: &Incoming, cut: Option<&mut Cut>) -> bool {
        let len = frame.len as usize;
        // Each piece and each segment begins an operation, and so does each page of either side.
        let mut ops = self.ops + 2 * frame.pieces.len() + len / PAGE_SIZE + 4;
        let (mut segments, mut bodies) = (self.segments, self.bodies);
        if let Some(cut) = cut {
            cut.first = segments;
            segments += cut.ranges.len();
            ops += 3 * cut.ranges.len();
            if let Body::ToBring(at, _) = &mut cut.body {
                *at = memory::body_at(bodies);
                bodies += len;
            }
        }
        // Replies are one copy each, two if they cross a page of the receiver.
        let fits =
            ops <= OPS_MAX - 2 * BATCH && segments <= SEGMENTS_MAX && bodies <= memory::BODIES;
        if fits {
            *self = Self { ops, segments, bodies };
        }
        fits
    }
}

impl<H: Hypervisor> Path<H> {
    /// Sends on what was accepted, and what is our own.
    pub(super) fn bodies(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        flights: &[Flight],
        pieces: &mut [Piece],
        decisions: &[Decision],
        replies: &[Reply],
    ) {
        let mut accepted = flights.iter().zip(decisions).filter_map(|(flight, decision)| {
            let Verdict::Emit(emit) = decision.verdict else { return None };
            let head = Place { at: decision.new_head_at, len: emit.head };
            Some(Leaving { flight, emit, head })
        });
        let mut used = Used::default();
        self.ops.clear();
        let mut next = self.stage_plain(h, fabric, &mut accepted, pieces, &mut used);
        while let Some(first) = next {
            next = self.stage_round(h, fabric, first, &mut accepted, pieces, &mut used);
            if next.is_some() {
                self.send(h, fabric);
                used = Used::default();
            }
        }
        for (n, reply) in replies.iter().enumerate() {
            let head = Place { at: memory::reply_at(n), len: reply.len };
            let (len, offload) = (reply.len.into(), Offload::NONE);
            self.stage(h, fabric, &Parcel { to: reply.to, head, rest: &[], offload, len }, 1);
        }
        self.send(h, fabric);
    }

    /// Copies the bodies of all that is staged, and gives it to its devices.
    fn send(&mut self, h: &mut H, fabric: &mut impl Fabric<H>) {
        self.copy(h);
        self.commit(h, fabric);
        self.ops.clear();
    }

    /// Stages frames up to the first that does not go as it came, or for which there is no room in this
    /// round: that is returned.
    fn stage_plain<'f>(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        accepted: &mut impl Iterator<Item = Leaving<'f>>,
        pieces: &mut [Piece],
        used: &mut Used,
    ) -> Option<Planned<'f>> {
        for leaving in accepted {
            if used.take(&leaving.flight.frame, None)
                && self.stage_as_it_came(h, fabric, &leaving, pieces)
            {
                continue;
            }
            match self.plan(fabric, &leaving) {
                Ok(cut) => return Some(Planned { leaving, cut }),
                Err(reason) => self.counters.drops[reason] += 1,
            }
        }
        None
    }

    /// Stages `first` and all behind it that there is room for in this round, cut as they have to be.
    /// Returns the frame with which the next one begins.
    #[inline(never)] // Seldom used, and its list would stand on the stack of every turn.
    fn stage_round<'f>(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        first: Planned<'f>,
        accepted: &mut impl Iterator<Item = Leaving<'f>>,
        pieces: &mut [Piece],
        used: &mut Used,
    ) -> Option<Planned<'f>> {
        let mut round = ArrayVec::<Planned<'_>, BATCH>::new();
        let mut next = Some(first);
        while let Some(mut planned) = next.take() {
            if !used.take(&planned.leaving.flight.frame, planned.cut.as_mut()) {
                next = Some(planned);
                break;
            }
            round.push(planned);
            next = accepted.find_map(|leaving| match self.plan(fabric, &leaving) {
                Ok(cut) => Some(Planned { leaving, cut }),
                Err(reason) => {
                    self.counters.drops[reason] += 1;
                    None
                }
            });
        }
        if round.iter().any(Planned::is_to_bring) {
            self.send(h, fabric);
            self.bring(h, fabric, pieces, &mut round);
        }
        for Planned { leaving, cut } in &round {
            match cut {
                // Its egress takes it so, or it would be cut.
                None => _ = self.stage_as_it_came(h, fabric, leaving, pieces),
                Some(cut) => self.stage_cut(h, fabric, leaving, pieces, cut),
            }
        }
        next
    }

    /// How `leaving` has to be cut for its egress: not at all, if that takes it as it came.
    fn plan(
        &self,
        fabric: &mut impl Fabric<H>,
        leaving: &Leaving<'_>,
    ) -> Result<Option<Cut>, DropReason> {
        let offload = leaving.emit.offload;
        let takes = fabric.device(leaving.emit.to).ok_or(DropReason::EgressDown)?.takes();
        let head = self.private.as_ref().get(leaving.head.range()).unwrap_or_default();
        if takes.frame(head, offload) {
            return Ok(None);
        }
        let segments = segments(leaving.frame(head))?;
        let complete = !takes.frame(head, Offload { gso: None, ..offload });
        let body = if leaving.emit.skip >= leaving.flight.frame.len {
            Body::Private(leaving.head.at)
        } else if complete {
            Body::ToBring(0, None)
        } else {
            Body::Sender
        };
        Ok(Some(Cut { ranges: segments.ranges(), complete, first: 0, body }))
    }

    /// Brings all bodies that have to be summed to private memory, with one hypercall at most. A frame
    /// whose body cannot be read is lost: what stands there then may be another's.
    fn bring(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        pieces: &[Piece],
        round: &mut ArrayVec<Planned<'_>, BATCH>,
    ) {
        for Planned { leaving, cut } in round.iter_mut() {
            let Some(Cut { body: Body::ToBring(at, copies), .. }) = cut else { continue };
            let (from, frame) = (self.ops.len(), &leaving.flight.frame);
            let brought = fabric.device(leaving.flight.from).map_or(0, |device| {
                let len = frame.len as usize;
                device.heads(frame, pieces, len, *at, self.private.as_mut(), &mut self.ops)
            });
            *copies = (brought == frame.len as usize).then_some(from..self.ops.len());
        }
        self.copy(h);
        let Self { ops, counters, .. } = self;
        round.retain(|Planned { leaving, cut }| {
            let Some(cut) = cut else { return true };
            let Body::ToBring(at, copies) = &cut.body else { return true };
            let copies = copies.clone().and_then(|copies| ops.get(copies));
            let there = copies.is_some_and(io::all_okay);
            // The new head is as long as what it stands for, or the payload would not be whole.
            let begin = (*at + leaving.emit.skip).checked_sub(leaving.emit.head.into());
            match begin.filter(|_| there) {
                Some(begin) => cut.body = Body::Private(begin),
                None => counters.drops[DropReason::CopyFailed] += 1,
            }
            matches!(cut.body, Body::Private(_))
        });
        self.ops.clear();
    }

    /// Tells the brake which client a frame of the world goes to.
    fn note_way(&mut self, fabric: &impl Fabric<H>, leaving: &Leaving<'_>) {
        if fabric.is_uplink(leaving.flight.from) {
            self.brake.went_to(leaving.emit.to);
        }
    }

    /// Stages a frame as it came, if its egress takes it so. Otherwise nothing has happened.
    fn stage_as_it_came(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        leaving: &Leaving<'_>,
        pieces: &mut [Piece],
    ) -> bool {
        let Leaving { flight, emit, head } = leaving;
        let Some(device) = fabric.device(emit.to) else {
            self.counters.drops[DropReason::EgressDown] += 1;
            return true;
        };
        let bytes = self.private.as_ref().get(head.range()).unwrap_or_default();
        if !device.takes().frame(bytes, emit.offload) {
            return false;
        }
        let rest = pieces.get_mut(flight.frame.pieces.clone()).unwrap_or_default();
        let rest = io::skip(rest, emit.skip);
        let head = Head { bytes, private_offset: head.at };
        let staged = device.stage(h, head, rest, emit.offload, &mut self.ops);
        self.note_way(fabric, leaving);
        self.on_way(emit.to, leaving.len(), 1, staged);
        true
    }

    /// Stages the frames that `leaving` becomes.
    fn stage_cut(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        leaving: &Leaving<'_>,
        pieces: &[Piece],
        cut: &Cut,
    ) {
        let Leaving { flight, emit, .. } = leaving;
        self.note_way(fabric, leaving);
        let Some(head_len) = self.write_heads(leaving, cut) else {
            self.counters.drops[DropReason::EgressOffload] += 1;
            return;
        };
        let bytes = if cut.complete { leaving.len() } else { 0 };
        self.shares.charge(flight.from, Cost::of_more(cut.ranges.len(), bytes));
        let csum = if cut.complete { Csum::Valid } else { Csum::Blank };
        let shift = emit.skip.saturating_sub(emit.head.into());
        let mut left = cut.ranges.len();
        for (n, payload) in cut.ranges.enumerate() {
            let len = payload.end - payload.start;
            let rest: ArrayVec<Piece, SLOTS_MAX> = match cut.body {
                Body::Private(begin) => memory::pieces(begin + payload.start, len),
                Body::Sender | Body::ToBring(..) => {
                    io::part(flight.frame.of(pieces), payload.start + shift, len)
                }
            };
            let head = Place { at: memory::segment_at(cut.first + n), len: head_len };
            // If one finds no room, those behind it find none either.
            let (to, offload) = (emit.to, Offload { csum, gso: None });
            let len = len + u32::from(head_len);
            if !self.stage(h, fabric, &Parcel { to, head, rest: &rest, offload, len }, left) {
                return;
            }
            left -= 1;
        }
    }

    /// Writes the heads of the frames that `leaving` becomes; returns their length.
    fn write_heads(&mut self, leaving: &Leaving<'_>, cut: &Cut) -> Option<u16> {
        let (known, places) = memory::segments(self.private.as_mut());
        let segments = segments(leaving.frame(known.get(leaving.head.range())?)).ok()?;
        let places = places.get_mut(cut.first..)?;
        for (payload, place) in segments.ranges().zip(places) {
            let sum = match cut.body {
                Body::Private(begin) if cut.complete => {
                    let (from, to) = (begin + payload.start, begin + payload.end);
                    Some(Sum::ZERO.bytes(known.get(from as usize..to as usize)?))
                }
                _ => None,
            };
            segments.head(&payload, sum, place)?;
        }
        Some(segments.head_len())
    }

    /// Stages a frame; `false` if its egress does not take it. Then `lost` frames are lost with it.
    fn stage(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        parcel: &Parcel<'_>,
        lost: usize,
    ) -> bool {
        let Parcel { to, head, rest, offload, len } = *parcel;
        let staged = fabric.device(to).ok_or(DropReason::EgressDown).and_then(|device| {
            let bytes = self.private.as_ref().get(head.range()).unwrap_or_default();
            let head = Head { bytes, private_offset: head.at };
            device.stage(h, head, rest, offload, &mut self.ops)
        });
        self.on_way(to, len, lost, staged)
    }

    /// Notes a frame of `len` bytes that was staged, or counts that `lost` are lost; `false` for these.
    fn on_way(
        &mut self,
        port: Port,
        len: u32,
        lost: usize,
        staged: Result<Staged, DropReason>,
    ) -> bool {
        match staged {
            Ok(frame) => {
                self.staged.push(OnWay { port, frame, len });
                true
            }
            Err(reason) => {
                self.counters.drops[reason] += lost as u64;
                false
            }
        }
    }

    /// Gives all staged frames to their devices, now that their copies are done.
    fn commit(&mut self, h: &mut H, fabric: &mut impl Fabric<H>) {
        for OnWay { port, frame, len } in self.staged.drain(..) {
            let Some(device) = fabric.device(port) else { continue };
            self.touched.add(port);
            match device.commit(h, frame, &self.ops) {
                Ok(()) => {
                    self.counters.sent += 1;
                    self.counters.sent_bytes += u64::from(len);
                }
                Err(reason) => self.counters.drops[reason] += 1,
            }
        }
    }
}

/// The frames that an outgoing `frame` becomes if nothing is left to its receiver.
fn segments(frame: Frame<'_>) -> Result<Segments<'_>, DropReason> {
    match parse(&frame) {
        Ok(Parsed::Ip(packet)) => Segments::new(packet),
        // The firewall has read it before.
        Ok(Parsed::Arp(_)) | Err(_) => Err(DropReason::EgressOffload),
    }
}
