//! The packet path: frames from one TAP, their verdicts, and frames to the others.
//!
//! In: TAPs with frames. Out: what the firewall let through and what it says itself; counted losses.
//! Never: shows the firewall more of a frame than its first bytes, unless it asks; keeps a frame.

use crate::error::Error;
use crate::tap::{Buffer, Received, Tap};
use arrayvec::ArrayVec;
use tidegate::firewall::Firewall;
use wire::{
    BATCH, DropReason, Emit, Frame, HEAD_MAX, Instant, Offload, Outbox, PerReason, Port, REPLY_MAX,
    Reply, Verdict, WHOLE_MAX,
};

/// All TAPs, and memory for one batch.
pub(crate) struct Path {
    taps: Vec<Tap>,
    buffers: Vec<Buffer>,
    heads: Vec<[u8; HEAD_MAX]>,
    replies: Vec<[u8; REPLY_MAX]>,
    lost: PerReason<u64>,
}

/// A frame in a buffer.
#[derive(Clone, Copy)]
struct Flight {
    buffer: usize,
    len: usize,
    offload: Offload,
}

/// The port of the `n`-th TAP.
pub(crate) fn port(n: usize) -> Port {
    Port::new(u16::try_from(n).unwrap_or(u16::MAX), 0)
}

impl Path {
    pub(crate) fn new(taps: Vec<Tap>) -> Self {
        Self {
            taps,
            buffers: std::iter::repeat_with(Buffer::new).take(BATCH).collect(),
            heads: vec![[0; HEAD_MAX]; BATCH],
            replies: vec![[0; REPLY_MAX]; BATCH],
            lost: PerReason::default(),
        }
    }

    /// The TAPs, in the order of their ports.
    pub(crate) fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Frames lost beside the firewall's own drops, by reason.
    pub(crate) const fn lost(&self) -> &PerReason<u64> {
        &self.lost
    }

    /// Takes up to one batch from the `n`-th TAP and sends on what may pass.
    pub(crate) fn turn(
        &mut self,
        firewall: &mut Firewall,
        now: Instant,
        n: usize,
    ) -> Result<(), Error> {
        let Some(tap) = self.taps.get(n) else { return Ok(()) };
        let mut flights = ArrayVec::<Flight, BATCH>::new();
        for (buffer, place) in self.buffers.iter_mut().enumerate() {
            match tap.receive(place)? {
                Received::Frame(len, offload) => flights.push(Flight { buffer, len, offload }),
                Received::Bad(reason) => self.lost[reason] += 1,
                Received::Nothing => break,
            }
        }
        let wholes = self.decide(firewall, now, port(n), &flights, HEAD_MAX);
        let (short, long): (ArrayVec<_, BATCH>, ArrayVec<_, BATCH>) =
            wholes.into_iter().partition(|flight| flight.len <= WHOLE_MAX);
        let undecided = self.decide(firewall, now, port(n), &short, WHOLE_MAX);
        self.lost[DropReason::TooLongToInspect] += (long.len() + undecided.len()) as u64;
        Ok(())
    }

    /// Lets the firewall do what time demands; says when it wants to be called again.
    pub(crate) fn tick(&mut self, firewall: &mut Firewall, now: Instant) -> Option<Instant> {
        let mut out = Outbox::new(&mut [], &mut self.replies);
        let due = firewall.tick(now, &mut out);
        let (_, replies) = out.into_parts();
        self.say(&replies);
        due
    }

    /// Asks about frames of `from`, of which the firewall sees `seen` bytes; returns those of which
    /// it needs more.
    fn decide(
        &mut self,
        firewall: &mut Firewall,
        now: Instant,
        from: Port,
        flights: &[Flight],
        seen: usize,
    ) -> ArrayVec<Flight, BATCH> {
        let (verdicts, replies) = {
            let frames: ArrayVec<Frame<'_>, BATCH> =
                flights.iter().map(|flight| flight.seen(&self.buffers, from, seen)).collect();
            let mut out = Outbox::new(&mut self.heads, &mut self.replies);
            firewall.batch(now, &frames, &mut out);
            out.into_parts()
        };
        let mut more = ArrayVec::new();
        for (n, (flight, verdict)) in flights.iter().zip(verdicts).enumerate() {
            match verdict {
                Verdict::Emit(emit) => self.emit(flight, n, emit),
                Verdict::NeedWhole => more.push(*flight),
                Verdict::Kept | Verdict::Drop(_) => {}
            }
        }
        self.say(&replies);
        more
    }

    /// Sends a frame on behind its new head, the `n`-th.
    fn emit(&mut self, flight: &Flight, n: usize, emit: Emit) {
        let (skip, head) = (emit.skip as usize, usize::from(emit.head));
        let head = self.heads.get(n).and_then(|place| place.get(..head)).unwrap_or_default();
        let old = self.buffers.get(flight.buffer).map_or(&[][..], |b| b.frame(flight.len));
        let body = old.get(skip..emit.end as usize).unwrap_or_default();
        let sent = self.send(emit.to, head, body, emit.offload);
        self.count(sent);
    }

    /// Sends the firewall's own frames.
    fn say(&mut self, replies: &[Reply]) {
        for (n, reply) in replies.iter().enumerate() {
            let len = usize::from(reply.len);
            let bytes = self.replies.get(n).and_then(|place| place.get(..len)).unwrap_or_default();
            let sent = self.send(reply.to, bytes, &[], Offload::NONE);
            self.count(sent);
        }
    }

    fn send(&self, to: Port, head: &[u8], body: &[u8], offload: Offload) -> Result<(), DropReason> {
        let tap = self.taps.get(to.index()).ok_or(DropReason::EgressDown)?;
        let len = u32::try_from(head.len() + body.len()).map_err(|_| DropReason::TooBig)?;
        tap.send(&Frame { from: to, head, len, offload }, body)
    }

    fn count(&mut self, sent: Result<(), DropReason>) {
        if let Err(reason) = sent {
            self.lost[reason] += 1;
        }
    }
}

impl Flight {
    fn seen<'b>(&self, buffers: &'b [Buffer], from: Port, seen: usize) -> Frame<'b> {
        let head = buffers.get(self.buffer).map_or(&[][..], |b| b.frame(self.len.min(seen)));
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        Frame { from, head, len, offload: self.offload }
    }
}
