//! One turn of the packet path, over all ports: pull, heads, decide, bodies, publish.
//!
//! In: the rings of all devices and the firewall's verdicts. Out: frames in other rings, answered
//! slots, counted drops. Never: keeps a frame from one turn to the next, allocates, lets payload out of
//! private memory or out of its sender's pages before its verdict, or answers a frame's slots before
//! the last copy out of them.

use super::memory::{self, WHOLES};
use crate::firewall::Firewall;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::{
    BATCH, DropReason, Frame, HEAD_MAX, Instant, Offload, Outbox, PerReason, Port, Reply, Verdict,
    WHOLE_MAX,
};
use xen::hypervisor::{CopyOp, GrantStatus, Hypervisor, NoMemory};
use xen::io::{self, Device, Head, Incoming, Pulled, SLOTS_MAX, Staged};

/// Pieces after which a turn takes no more frames: about one grant-copy operation each, so that one
/// turn stays short for whoever waits for the next.
const PIECES_MAX: usize = 192;

/// Slots a frame can take on an egress: its own, one for GSO, one if the new head spills over a page.
const EGRESS_SLOTS_MAX: usize = SLOTS_MAX + 2;

/// All devices by their ports.
pub(super) trait Fabric<H: Hypervisor> {
    /// The device behind `port`, if that very one is still there.
    fn device(&mut self, port: Port) -> Option<&mut dyn Device<H>>;

    /// Slots that frames of clients may take on the uplink before it is full. What does not fit waits
    /// in its sender's ring.
    fn uplink_room(&self) -> usize;

    /// Whether `port` is the uplink.
    fn is_uplink(&self, port: Port) -> bool;
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Frames taken from rings.
    pub(super) frames: usize,
    /// Whether frames may be left in a ring because the batch or the egress was full.
    pub(super) more: bool,
}

/// What the packet path counted, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Frames taken from rings.
    pub pulled: u64,
    /// Frames put into rings, replies included.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames lost outside the firewall's verdicts.
    pub drops: PerReason<u64>,
}

/// The packet path: its private memory and the list of copies, both allocated once.
pub(super) struct Path<H: Hypervisor> {
    private: H::Private,
    ops: Vec<CopyOp>,
    first: usize,
    pub(super) counters: PathCounters,
}

/// A frame between its ring and its verdict; its first `head` bytes stand in place `place`.
struct Flight {
    from: Port,
    frame: Incoming,
    place: usize,
    head: usize,
}

/// A verdict, with the place of the new head if there is one.
#[derive(Clone, Copy)]
struct Decision {
    verdict: Verdict,
    new_head_at: u32,
}

type Flights = ArrayVec<Flight, BATCH>;
type Decisions = ArrayVec<Decision, BATCH>;
type Replies = ArrayVec<Reply, BATCH>;
type OnEgress = ArrayVec<(Port, Staged, u32), { 2 * BATCH }>;

impl<H: Hypervisor> Path<H> {
    pub(super) fn new(h: &mut H) -> Result<Self, NoMemory> {
        let ops = Vec::with_capacity(2 * PIECES_MAX + 4 * BATCH);
        let counters = PathCounters::default();
        Ok(Self { private: h.private(memory::PAGES)?, ops, first: 0, counters })
    }

    /// One turn over `ports`, which are those with something to say.
    pub(super) fn turn(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        ports: &[Port],
    ) -> Turn {
        let mut touched = Touched::default();
        let (mut flights, more) = self.pull(h, fabric, ports, &mut touched);
        let turn = Turn { frames: flights.len(), more };
        if flights.is_empty() {
            touched.publish(h, fabric);
            return turn;
        }
        self.heads(h, fabric, &mut flights);
        let now = h.now();
        let (decisions, replies) = self.decide(h, fabric, firewall, now, &flights);
        self.bodies(h, fabric, &flights, &decisions, &replies, &mut touched);
        for flight in flights {
            if let Some(device) = fabric.device(flight.from) {
                device.done(h, flight.frame);
            }
        }
        touched.publish(h, fabric);
        turn
    }

    /// Lets the firewall do what time demands; returns when it wants to be asked again.
    pub(super) fn tick(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
    ) -> Option<Instant> {
        let now = h.now();
        let areas = memory::areas(self.private.as_mut());
        let mut outbox = Outbox::new(areas.new_heads, areas.replies);
        let next = firewall.tick(now, &mut outbox);
        let (_, replies) = outbox.into_parts();
        if !replies.is_empty() {
            let mut touched = Touched::default();
            self.bodies(h, fabric, &Flights::new(), &Decisions::new(), &replies, &mut touched);
            touched.publish(h, fabric);
        }
        next
    }

    /// Takes frames in turns, one a port, beginning with another port each time.
    fn pull(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        ports: &[Port],
        touched: &mut Touched,
    ) -> (Flights, bool) {
        let mut flights = Flights::new();
        let mut room = fabric.uplink_room();
        let mut pieces = 0;
        let mut asleep = 0;
        self.first = self.first.wrapping_add(1);
        let start = self.first.checked_rem(ports.len()).unwrap_or(0);
        for port in ports.iter().copied().cycle().skip(start) {
            if asleep == ports.len() {
                return (flights, false);
            }
            if flights.is_full() || pieces >= PIECES_MAX {
                return (flights, true);
            }
            let waits = !fabric.is_uplink(port) && room < EGRESS_SLOTS_MAX;
            let pulled = match fabric.device(port) {
                Some(device) if !waits => device.pull(h),
                _ => Pulled::Empty,
            };
            match pulled {
                Pulled::Frame(frame) => {
                    asleep = 0;
                    self.counters.pulled += 1;
                    pieces += frame.pieces.len();
                    if !fabric.is_uplink(port) {
                        room = room.saturating_sub(frame.pieces.len() + 2);
                    }
                    touched.add(port);
                    flights.push(Flight { from: port, frame, place: 0, head: 0 });
                }
                Pulled::Bad(reason) => {
                    asleep = 0;
                    // A bad frame costs work too: it counts against the turn as one piece.
                    pieces += 1;
                    self.counters.drops[reason] += 1;
                    touched.add(port);
                }
                Pulled::Empty => asleep += 1,
            }
        }
        (flights, false)
    }

    /// Brings all heads to private memory, with one hypercall at most. A frame whose head cannot be
    /// read is answered and gone.
    fn heads(&mut self, h: &mut H, fabric: &mut impl Fabric<H>, flights: &mut Flights) {
        self.ops.clear();
        let mut ranges = ArrayVec::<_, BATCH>::new();
        for (place, flight) in flights.iter_mut().enumerate() {
            let from = self.ops.len();
            if let Some(device) = fabric.device(flight.from) {
                let (at, private) = (memory::head_at(place), self.private.as_mut());
                flight.head = device.heads(&flight.frame, HEAD_MAX, at, private, &mut self.ops);
            }
            flight.place = place;
            ranges.push(from..self.ops.len());
        }
        self.copy(h);
        for (flight, range) in core::mem::take(flights).into_iter().zip(ranges) {
            if flight.head != 0 && self.ops.get(range).is_some_and(io::all_okay) {
                flights.push(flight);
                continue;
            }
            self.counters.drops[DropReason::CopyFailed] += 1;
            if let Some(device) = fabric.device(flight.from) {
                device.done(h, flight.frame);
            }
        }
    }

    /// Asks the firewall, a second time for frames it needs whole.
    fn decide(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        now: Instant,
        flights: &Flights,
    ) -> (Decisions, Replies) {
        let (verdicts, mut replies) = self.ask(firewall, now, flights);
        let mut decisions: Decisions = verdicts
            .into_iter()
            .enumerate()
            .map(|(n, verdict)| Decision { verdict, new_head_at: memory::new_head_at(n) })
            .collect();
        self.decide_whole(h, fabric, firewall, now, flights, &mut decisions, &mut replies);
        (decisions, replies)
    }

    /// Asks about all heads.
    fn ask(
        &mut self,
        firewall: &mut Firewall,
        now: Instant,
        flights: &Flights,
    ) -> (ArrayVec<Verdict, BATCH>, Replies) {
        let areas = memory::areas(self.private.as_mut());
        let frames: ArrayVec<Frame<'_>, BATCH> = flights
            .iter()
            .map(|flight| {
                let place = areas.heads.get(flight.place);
                flight.seen(place.and_then(|p| p.get(..flight.head)).unwrap_or_default())
            })
            .collect();
        let mut outbox = Outbox::new(areas.new_heads, areas.replies);
        firewall.batch(now, &frames, &mut outbox);
        outbox.into_parts()
    }

    /// Fetches the frames that cannot be told from their heads, as many as there is room for, and
    /// asks again. What is left over or still undecided is dropped and counted.
    #[allow(clippy::too_many_arguments, reason = "one step of decide, kept apart to be read apart")]
    fn decide_whole(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        now: Instant,
        flights: &Flights,
        decisions: &mut Decisions,
        replies: &mut Replies,
    ) {
        let wanted: ArrayVec<usize, WHOLES> = decisions
            .iter()
            .zip(flights)
            .enumerate()
            .filter(|(_, (d, f))| {
                d.verdict == Verdict::NeedWhole && f.frame.len as usize <= WHOLE_MAX
            })
            .map(|(n, _)| n)
            .take(WHOLES)
            .collect();
        self.ops.clear();
        for (place, n) in wanted.iter().enumerate() {
            let Some(flight) = flights.get(*n) else { continue };
            if let Some(device) = fabric.device(flight.from) {
                let at = memory::whole_at(place);
                device.heads(&flight.frame, WHOLE_MAX, at, self.private.as_mut(), &mut self.ops);
            }
        }
        self.copy(h);
        if io::all_okay(&self.ops) && !wanted.is_empty() {
            let areas = memory::areas(self.private.as_mut());
            let frames: ArrayVec<Frame<'_>, BATCH> = wanted
                .iter()
                .zip(areas.wholes.iter())
                .filter_map(|(n, bytes)| {
                    let flight = flights.get(*n)?;
                    Some(flight.seen(bytes.get(..flight.frame.len as usize)?))
                })
                .collect();
            let free = areas.replies.get_mut(replies.len()..).unwrap_or_default();
            let mut outbox = Outbox::new(areas.whole_heads, free);
            firewall.batch(now, &frames, &mut outbox);
            let (verdicts, more) = outbox.into_parts();
            for (place, (n, verdict)) in wanted.iter().zip(verdicts).enumerate() {
                if let Some(decision) = decisions.get_mut(*n) {
                    *decision = Decision { verdict, new_head_at: memory::whole_head_at(place) };
                }
            }
            replies.extend(more.into_iter().take(replies.remaining_capacity()));
        }
        for decision in decisions.iter_mut().filter(|d| d.verdict == Verdict::NeedWhole) {
            decision.verdict = Verdict::Drop(DropReason::TooLongToInspect);
            self.counters.drops[DropReason::TooLongToInspect] += 1;
        }
    }

    /// Stages what is sent on and what is our own, copies all bodies with one hypercall, and commits.
    fn bodies(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        flights: &Flights,
        decisions: &Decisions,
        replies: &Replies,
        touched: &mut Touched,
    ) {
        self.ops.clear();
        let mut staged = OnEgress::new();
        for (flight, decision) in flights.iter().zip(decisions) {
            let Verdict::Emit(emit) = decision.verdict else { continue };
            let rest = io::skip(&flight.frame.pieces, emit.skip);
            let len = u32::from(emit.head) + flight.frame.len.saturating_sub(emit.skip);
            let head = Place { at: decision.new_head_at, len: emit.head };
            self.stage(h, fabric, emit.to, head, &rest, emit.offload, len, &mut staged);
        }
        for (n, reply) in replies.iter().enumerate() {
            let head = Place { at: memory::reply_at(n), len: reply.len };
            let len = u32::from(reply.len);
            self.stage(h, fabric, reply.to, head, &[], Offload::NONE, len, &mut staged);
        }
        self.copy(h);
        for (port, frame, len) in staged {
            let Some(device) = fabric.device(port) else { continue };
            touched.add(port);
            match device.commit(h, frame, &self.ops) {
                Ok(()) => {
                    self.counters.sent += 1;
                    self.counters.sent_bytes += u64::from(len);
                }
                Err(reason) => self.counters.drops[reason] += 1,
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the two callers differ in all of them")]
    fn stage(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        to: Port,
        head: Place,
        rest: &[io::Piece],
        offload: Offload,
        len: u32,
        staged: &mut OnEgress,
    ) {
        let result = match fabric.device(to) {
            None => Err(DropReason::EgressDown),
            Some(device) => {
                let bytes = self.private.as_ref().get(head.range()).unwrap_or_default();
                let head = Head { bytes, private_offset: head.at };
                device.stage(h, head, rest, offload, &mut self.ops)
            }
        };
        match result {
            Ok(frame) => staged.push((to, frame, len)),
            Err(reason) => self.counters.drops[reason] += 1,
        }
    }

    /// Runs the list of copies. If the hypercall itself fails, no operation counts as done.
    fn copy(&mut self, h: &mut H) {
        if !self.ops.is_empty() && h.copy(&mut self.private, &mut self.ops).is_err() {
            for op in &mut self.ops {
                op.status = GrantStatus::GENERAL_ERROR;
            }
        }
    }
}

impl Flight {
    fn seen<'a>(&self, head: &'a [u8]) -> Frame<'a> {
        Frame { from: self.from, head, len: self.frame.len, offload: self.frame.offload }
    }
}

/// Where a head stands in private memory.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    len: u16,
}

impl Place {
    fn range(self) -> core::ops::Range<usize> {
        let at = self.at as usize;
        at..at + usize::from(self.len)
    }
}

/// Ports with something to publish, each once.
#[derive(Default)]
struct Touched(ArrayVec<Port, { PIECES_MAX + 2 * BATCH }>);

impl Touched {
    fn add(&mut self, port: Port) {
        if !self.0.contains(&port) {
            // One for each piece pulled and each frame sent is all there can be.
            let _ = self.0.try_push(port);
        }
    }

    fn publish<H: Hypervisor>(self, h: &mut H, fabric: &mut impl Fabric<H>) {
        for port in self.0 {
            if let Some(device) = fabric.device(port) {
                device.publish(h);
            }
        }
    }
}
