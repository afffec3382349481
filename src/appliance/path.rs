//! One turn of the packet path, over all ports: pull, heads, decide, bodies, publish.
//!
//! In: the rings of all devices and the firewall's verdicts. Out: frames in other rings, answered
//! slots, counted drops. Never: keeps a frame from one turn to the next, allocates, lets payload out of
//! private memory or out of its sender's pages before its verdict, or answers a frame's slots before
//! the last copy out of them.

use super::ask::Answers;
use super::brake::{self, Brake};
use super::memory::{self, Places};
use super::share::{Cost, Shares};
use crate::firewall::Firewall;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::{
    BATCH, DropReason, Frame, HEAD_MAX, Instant, Outbox, PerReason, Port, SEGMENTS_MAX, Takes,
    Verdict, has_tcp_headers,
};
use xen::hypervisor::{CopyOp, GrantStatus, Hypervisor, NoMemory};
use xen::io::{self, Device, Incoming, Piece, Pulled, SLOTS_MAX, Staged};

/// Copies that are made by one hypercall at most. The heads of a turn are fewer, as each costs a slot.
pub(super) const OPS_MAX: usize = 768;

/// Frames that can be staged at a time: as they came, cut into segments, and our own.
pub(super) const STAGED_MAX: usize = BATCH + SEGMENTS_MAX + BATCH;

/// All devices by their ports.
pub(super) trait Fabric<H: Hypervisor> {
    /// The device behind `port`, if that very one is still there.
    fn device(&mut self, port: Port) -> Option<&mut dyn Device<H>>;

    /// What frames of clients may take on the uplink that has most room; `None` if none takes any. What
    /// does not fit waits in its sender's ring. Which uplink a frame takes is known when it has been
    /// decided, so none waits for one that is full while another is not.
    fn uplink_room(&self) -> Option<Room>;

    /// Slots that the client at `port` has posted for frames; `None` if it is gone.
    fn posted(&mut self, port: Port) -> Option<usize>;

    /// Whether `port` is an uplink.
    fn is_uplink(&self, port: Port) -> bool;
}

/// Room on an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) slots: usize,
    pub(super) takes: Takes,
}

impl Room {
    /// Frames without a way out are answered by the firewall or lost, not kept: behind them wait those
    /// that need no way out.
    const NO_WAY_OUT: Self = Self { slots: usize::MAX, takes: Takes::ALL };
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Frames taken from rings, bad ones included.
    pub(super) frames: usize,
    /// Whether frames may be left in a ring because the batch or the egress was full.
    pub(super) more: bool,
}

/// What the packet path counted, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Frames taken from rings.
    pub pulled: u64,
    /// Frames put into rings, replies and segments included.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames lost outside the firewall's verdicts.
    pub drops: PerReason<u64>,
}

/// The packet path: its private memory and its lists, all allocated once.
pub(super) struct Path<H: Hypervisor> {
    pub(super) private: H::Private,
    pub(super) ops: Vec<CopyOp>,
    pub(super) staged: Vec<OnWay>,
    pub(super) shares: Shares,
    pub(super) brake: Brake,
    pub(super) touched: Touched,
    pub(super) counters: PathCounters,
    flights: Vec<Flight>,
    /// Where the bytes of the frames in flight are.
    pieces: Vec<Piece>,
    answers: Answers,
    /// Ports that may have frames in this turn.
    awake: Vec<Port>,
    first: usize,
}

/// A frame between its ring and its verdict; its first `head` bytes, all of them if it is short, stand in
/// private memory from byte `at` on.
pub(super) struct Flight {
    pub(super) from: Port,
    pub(super) frame: Incoming,
    pub(super) at: u32,
    pub(super) head: usize,
}

/// A verdict, with the place of the new head if there is one.
#[derive(Clone, Copy)]
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) new_head_at: u32,
}

/// A staged frame, its port and its length.
pub(super) struct OnWay {
    pub(super) port: Port,
    pub(super) frame: Staged,
    pub(super) len: u32,
}

/// What a turn may still take.
struct Allowance {
    /// What there is on the uplinks, and how many slots must be free for a frame.
    room: Room,
    least: usize,
    /// Slots that frames of uplinks may take at any client, and what is left of them.
    down: usize,
    /// What the turn has cost so far.
    work: Cost,
    /// Frames taken, bad ones included.
    frames: usize,
}

/// Why a port sends no more for now.
enum Served {
    /// It has used its share.
    Spent,
    /// Its ring is empty.
    Silent,
    /// Its frames must wait for room on the uplink.
    Waits,
    /// Its frames must wait for room at a client.
    Held,
    /// The turn is full.
    Full,
}

impl<H: Hypervisor> Path<H> {
    pub(super) fn new(h: &mut H) -> Result<Self, NoMemory> {
        Ok(Self {
            private: h.private(memory::PAGES)?,
            ops: Vec::with_capacity(OPS_MAX),
            staged: Vec::with_capacity(STAGED_MAX),
            shares: Shares::default(),
            brake: Brake::new(),
            touched: Touched::default(),
            counters: PathCounters::default(),
            flights: Vec::with_capacity(BATCH),
            pieces: Vec::with_capacity(BATCH * SLOTS_MAX),
            answers: Answers::new(),
            awake: Vec::new(),
            first: 0,
        })
    }

    /// One turn over `ports`, which are those with something to say.
    pub(super) fn turn(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        now: Instant,
        ports: &[Port],
    ) -> Turn {
        let mut flights = core::mem::take(&mut self.flights);
        let mut pieces = core::mem::take(&mut self.pieces);
        pieces.clear();
        let turn = self.pull(h, fabric, now, ports, &mut flights, &mut pieces);
        if !flights.is_empty() {
            self.heads(h, fabric, &mut flights, &pieces);
            let mut answers = core::mem::take(&mut self.answers);
            answers.clear();
            self.ask(firewall, now, &flights, &mut answers);
            for (flight, decision) in flights.iter_mut().zip(&answers.decisions) {
                if let Verdict::Emit(emit) = decision.verdict {
                    flight.frame.truncate(&mut pieces, emit.end);
                }
            }
            self.join(&flights, &mut answers.decisions);
            let Answers { decisions, replies } = &answers;
            self.bodies(h, fabric, &flights, &mut pieces, decisions, replies);
            self.answers = answers;
            for flight in flights.drain(..) {
                if let Some(device) = fabric.device(flight.from) {
                    device.done(h, flight.frame);
                }
            }
        }
        self.pieces = pieces;
        self.touched.publish(h, fabric);
        self.flights = flights;
        turn
    }

    /// Lets the firewall do what time demands; returns when it wants to be asked again.
    pub(super) fn tick(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        now: Instant,
    ) -> Option<Instant> {
        let areas = memory::areas(self.private.as_mut());
        let mut outbox = Outbox::new(areas.new_heads, areas.replies);
        let next = firewall.tick(now, &mut outbox);
        if !outbox.replies().is_empty() {
            let mut answers = core::mem::take(&mut self.answers);
            answers.clear();
            answers.add_replies(&outbox);
            self.bodies(h, fabric, &[], &mut [], &[], &answers.replies);
            self.touched.publish(h, fabric);
            self.answers = answers;
        }
        [next, self.brake.deadline()].into_iter().flatten().min()
    }

    /// Takes frames of all ports, as their shares allow, beginning with another port each time.
    fn pull(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        now: Instant,
        ports: &[Port],
        flights: &mut Vec<Flight>,
        pieces: &mut Vec<Piece>,
    ) -> Turn {
        self.first = self.first.wrapping_add(1);
        let start = self.first.checked_rem(ports.len()).unwrap_or(0);
        self.awake.clear();
        self.awake.extend(ports.iter().cycle().skip(start).take(ports.len()));
        let room = fabric.uplink_room().unwrap_or(Room::NO_WAY_OUT);
        let mut allowance = Allowance {
            room,
            least: io::room_for_a_frame(room.takes) as usize,
            down: self.brake.slots(now, |port| fabric.posted(port)),
            work: Cost::default(),
            frames: 0,
        };
        let (mut waits, mut held) = (false, false);
        loop {
            let mut n = 0;
            while let Some(port) = self.awake.get(n).copied() {
                match self.serve(h, fabric, port, flights, pieces, &mut allowance) {
                    Served::Spent => n += 1,
                    Served::Silent => {
                        self.awake.remove(n);
                    }
                    Served::Waits => {
                        waits = true;
                        self.awake.remove(n);
                    }
                    Served::Held => {
                        held = true;
                        self.awake.remove(n);
                    }
                    Served::Full => return Turn { frames: allowance.frames, more: true },
                }
            }
            if waits {
                // Who waits has credit left: no client gets more before that is used.
                self.awake.retain(|port| fabric.is_uplink(*port));
            }
            if self.awake.is_empty() {
                // The room was reckoned for the worst case: after this turn there may be some. If no
                // frame was taken, the answer that makes room comes with a signal.
                let more = (waits || held) && allowance.frames != 0;
                return Turn { frames: allowance.frames, more };
            }
            self.shares.begin_round(&self.awake, |port| fabric.is_uplink(port));
        }
    }

    /// Takes frames of `port` as long as it has credit.
    fn serve(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        port: Port,
        flights: &mut Vec<Flight>,
        pieces: &mut Vec<Piece>,
        allowance: &mut Allowance,
    ) -> Served {
        let is_uplink = fabric.is_uplink(port);
        let mut device = fabric.device(port);
        while self.shares.may_send(port) {
            if flights.len() >= BATCH || allowance.work >= Cost::TURN {
                return Served::Full;
            }
            if !is_uplink && allowance.room.slots < allowance.least {
                return Served::Waits;
            }
            if is_uplink && allowance.down < brake::FRAME {
                return Served::Held;
            }
            let pulled = device.as_mut().map_or(Pulled::Empty, |device| device.pull(h, pieces));
            let cost = match pulled {
                Pulled::Empty => {
                    self.shares.rest(port);
                    return Served::Silent;
                }
                // A bad frame costs work too.
                Pulled::Bad(reason) => {
                    self.counters.drops[reason] += 1;
                    Cost::of_frame(1, 0)
                }
                Pulled::Frame(frame) => {
                    self.counters.pulled += 1;
                    let cost = Cost::of_frame(frame.pieces.len(), frame.len);
                    if is_uplink {
                        // Its own, one for GSO, and one if the new head needs a slot.
                        let slots = frame.pieces.len() + 2;
                        allowance.down = allowance.down.saturating_sub(slots);
                    } else {
                        let room = &mut allowance.room;
                        let slots = uplink_slots(&frame, room.takes);
                        room.slots = room.slots.saturating_sub(slots);
                    }
                    flights.push(Flight { from: port, frame, at: 0, head: 0 });
                    cost
                }
            };
            allowance.frames += 1;
            allowance.work = allowance.work.plus(cost);
            self.shares.charge(port, cost);
            self.touched.add(port);
        }
        Served::Spent
    }

    /// Brings all heads to private memory, and short frames whole, with one hypercall at most; with a
    /// second one if a frame does not begin as nearly all do.
    fn heads(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        flights: &mut Vec<Flight>,
        pieces: &[Piece],
    ) {
        let mut places = Places::new();
        self.bring_heads(h, fabric, flights, pieces, |flight| {
            let (want, room) = memory::head(&flight.frame, pieces);
            flight.at = places.take(room);
            want
        });
        let private = self.private.as_ref();
        let short = |flight: &&mut Flight| {
            let all = flight.frame.len as usize;
            flight.head < HEAD_MAX.min(all) && !has_tcp_headers(flight.head_in(private))
        };
        let mut any = false;
        flights.iter_mut().filter(short).for_each(|flight| (flight.head, any) = (0, true));
        if any {
            self.bring_heads(h, fabric, flights, pieces, |_| HEAD_MAX);
        }
    }

    /// Brings as much as `want` says of the frames of which nothing is there, with one hypercall at most. A
    /// frame of which that cannot be read is answered and gone.
    fn bring_heads(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        flights: &mut Vec<Flight>,
        pieces: &[Piece],
        mut want: impl FnMut(&mut Flight) -> usize,
    ) {
        self.ops.clear();
        let mut ranges = ArrayVec::<_, BATCH>::new();
        for run in flights.chunk_by_mut(|a, b| a.from == b.from) {
            let mut device = run.first().and_then(|flight| fabric.device(flight.from));
            for flight in run {
                let from = self.ops.len();
                if let Some(device) = device.as_mut().filter(|_| flight.head == 0) {
                    let want = want(flight);
                    let (frame, private) = (&flight.frame, self.private.as_mut());
                    flight.head =
                        device.heads(frame, pieces, want, flight.at, private, &mut self.ops);
                }
                ranges.push(from..self.ops.len());
            }
        }
        self.copy(h);
        if io::all_okay(&self.ops) && flights.iter().all(|flight| flight.head != 0) {
            return;
        }
        let Self { ops, counters, .. } = self;
        let mut ranges = ranges.into_iter();
        let unread = flights.extract_if(.., |flight| {
            let copied = ranges.next().is_some_and(|r| ops.get(r).is_some_and(io::all_okay));
            flight.head == 0 || !copied
        });
        for flight in unread {
            counters.drops[DropReason::CopyFailed] += 1;
            if let Some(device) = fabric.device(flight.from) {
                device.done(h, flight.frame);
            }
        }
    }

    /// Runs the list of copies. If the hypercall itself fails, no operation counts as done.
    pub(super) fn copy(&mut self, h: &mut H) {
        debug_assert!(self.ops.len() <= OPS_MAX && self.staged.len() <= STAGED_MAX);
        if !self.ops.is_empty() && h.copy(&mut self.private, &mut self.ops).is_err() {
            for op in &mut self.ops {
                op.status = GrantStatus::GENERAL_ERROR;
            }
        }
    }
}

impl Flight {
    /// What of it stands in private memory.
    pub(super) fn head_in<'a>(&self, private: &'a [u8]) -> &'a [u8] {
        private.get(self.at as usize..).and_then(|from| from.get(..self.head)).unwrap_or_default()
    }

    pub(super) fn seen<'a>(&self, head: &'a [u8]) -> Frame<'a> {
        Frame { from: self.from, head, len: self.frame.len, offload: self.frame.offload }
    }
}

/// Slots that a frame takes on the uplink, at most.
fn uplink_slots(frame: &Incoming, takes: Takes) -> usize {
    let gso = frame.offload.gso.filter(|gso| !takes.gso(gso.kind));
    let segments = gso.map_or(0, |gso| frame.len.div_ceil(gso.size.max(1).into()) as usize);
    segments.min(SEGMENTS_MAX).max(frame.pieces.len() + 2)
}

/// Ports with something to publish, each once.
#[derive(Default)]
pub(super) struct Touched(Vec<Port>);

impl Touched {
    pub(super) fn add(&mut self, port: Port) {
        if self.0.last() != Some(&port) && !self.0.contains(&port) {
            self.0.push(port);
        }
    }

    fn publish<H: Hypervisor>(&mut self, h: &mut H, fabric: &mut impl Fabric<H>) {
        for port in self.0.drain(..) {
            if let Some(device) = fabric.device(port) {
                device.publish(h);
            }
        }
    }
}
