//! The firewall's part of a turn: what it says of the frames whose heads are there.
//!
//! In: heads in private memory, and whole frames where it wants them. Out: a decision for each frame,
//! new heads and replies in private memory. Never: allocates.

use super::memory::{self, WHOLES};
use super::path::{Decision, Fabric, Flight, Path, PathCounters};
use crate::firewall::Firewall;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::{BATCH, DropReason, Frame, Instant, Outbox, Reply, Verdict, WHOLE_MAX};
use xen::hypervisor::Hypervisor;
use xen::io::{self, Piece};

/// What the firewall said of a batch. Kept from turn to turn: handed over by value, all its places
/// would be moved each time, used or not.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) decisions: Vec<Decision>,
    pub(super) replies: Vec<Reply>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { decisions: Vec::with_capacity(BATCH), replies: Vec::with_capacity(BATCH) }
    }

    pub(super) fn clear(&mut self) {
        self.decisions.clear();
        self.replies.clear();
    }

    /// Drops what is still undecided.
    fn refuse_undecided(&mut self, counters: &mut PathCounters) {
        for decision in self.decisions.iter_mut().filter(|d| d.verdict == Verdict::NeedWhole) {
            decision.verdict = Verdict::Drop(DropReason::TooLongToInspect);
            counters.drops[DropReason::TooLongToInspect] += 1;
        }
    }

    /// Adds the replies in `outbox`, which begin in memory where these end.
    pub(super) fn add_replies(&mut self, outbox: &Outbox<'_>) {
        let room = BATCH.saturating_sub(self.replies.len());
        self.replies.extend(outbox.replies().iter().take(room));
    }
}

impl<H: Hypervisor> Path<H> {
    /// Asks the firewall about all heads.
    pub(super) fn ask(
        &mut self,
        firewall: &mut Firewall,
        now: Instant,
        flights: &[Flight],
        answers: &mut Answers,
    ) {
        let areas = memory::areas(self.private.as_mut());
        let mut frames = ArrayVec::<Frame<'_>, BATCH>::new();
        frames.extend(flights.iter().map(|flight| {
            let place = areas.heads.get(flight.place);
            flight.seen(place.and_then(|p| p.get(..flight.head)).unwrap_or_default())
        }));
        let mut outbox = Outbox::new(areas.new_heads, areas.replies);
        firewall.batch(now, &frames, &mut outbox);
        answers.decisions.extend(outbox.verdicts().iter().enumerate().map(|(n, verdict)| {
            Decision { verdict: *verdict, new_head_at: memory::new_head_at(n) }
        }));
        answers.add_replies(&outbox);
    }

    /// Fetches the frames that cannot be told from their heads, as many as there is room for, and
    /// asks again. What is left over or still undecided is dropped and counted.
    #[allow(clippy::too_many_arguments, reason = "all that a turn holds")]
    pub(super) fn ask_whole(
        &mut self,
        h: &mut H,
        fabric: &mut impl Fabric<H>,
        firewall: &mut Firewall,
        now: Instant,
        flights: &[Flight],
        pieces: &[Piece],
        answers: &mut Answers,
    ) {
        let wanted: ArrayVec<usize, WHOLES> = answers
            .decisions
            .iter()
            .zip(flights)
            .enumerate()
            .filter(|(_, (d, f))| {
                d.verdict == Verdict::NeedWhole && f.frame.len as usize <= WHOLE_MAX
            })
            .map(|(n, _)| n)
            .take(WHOLES)
            .collect();
        if wanted.is_empty() {
            return answers.refuse_undecided(&mut self.counters);
        }
        self.ops.clear();
        for (place, n) in wanted.iter().enumerate() {
            let Some(flight) = flights.get(*n) else { continue };
            if let Some(device) = fabric.device(flight.from) {
                let (at, private) = (memory::whole_at(place), self.private.as_mut());
                device.heads(&flight.frame, pieces, WHOLE_MAX, at, private, &mut self.ops);
            }
        }
        self.copy(h);
        if io::all_okay(&self.ops) {
            let areas = memory::areas(self.private.as_mut());
            let frames: ArrayVec<Frame<'_>, BATCH> = wanted
                .iter()
                .zip(areas.wholes.iter())
                .filter_map(|(n, bytes)| {
                    let flight = flights.get(*n)?;
                    Some(flight.seen(bytes.get(..flight.frame.len as usize)?))
                })
                .collect();
            let free = areas.replies.get_mut(answers.replies.len()..).unwrap_or_default();
            let mut outbox = Outbox::new(areas.whole_heads, free);
            firewall.batch(now, &frames, &mut outbox);
            for (place, (n, verdict)) in wanted.iter().zip(outbox.verdicts()).enumerate() {
                if let Some(decision) = answers.decisions.get_mut(*n) {
                    let new_head_at = memory::whole_head_at(place);
                    *decision = Decision { verdict: *verdict, new_head_at };
                }
            }
            answers.add_replies(&outbox);
        }
        answers.refuse_undecided(&mut self.counters);
    }
}
