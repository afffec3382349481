//! The firewall's part of a turn: what it says of the frames that were brought, or whose heads were.
//!
//! In: heads in private memory, and whole frames where they are short. Out: a decision for each frame,
//! new heads and replies in private memory. Never: allocates.

use super::memory;
use super::path::{Decision, Flight, Path, PathCounters};
use crate::firewall::Firewall;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::{BATCH, DropReason, Frame, HEAD_MAX, Instant, Outbox, Reply, Verdict, WHOLE_MAX};
use xen::hypervisor::Hypervisor;

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

    /// Drops what cannot be told from as much as is ever brought.
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
    /// Asks the firewall about all frames.
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
            // Longer frames are not looked into.
            let shown = if flight.head <= WHOLE_MAX { flight.head } else { HEAD_MAX };
            let from = areas.frames.get(flight.at as usize..).unwrap_or_default();
            flight.seen(from.get(..shown).unwrap_or_default())
        }));
        let mut outbox = Outbox::new(areas.new_heads, areas.replies);
        firewall.batch(now, &frames, &mut outbox);
        answers.decisions.extend(outbox.verdicts().iter().enumerate().map(|(n, verdict)| {
            Decision { verdict: *verdict, new_head_at: memory::new_head_at(n) }
        }));
        answers.add_replies(&outbox);
        answers.refuse_undecided(&mut self.counters);
    }

    /// Lets what was brought of accepted frames leave from private memory, in one piece: the new head goes
    /// right before what it does not replace. One that is longer than what it replaces stays where it is.
    pub(super) fn join(&mut self, flights: &[Flight], decisions: &mut [Decision]) {
        let areas = memory::areas(self.private.as_mut());
        for (n, (flight, decision)) in flights.iter().zip(decisions).enumerate() {
            let Verdict::Emit(emit) = &mut decision.verdict else { continue };
            let (skip, end) = (emit.skip, flight.frame.len.min(flight.head as u32));
            if skip >= end {
                continue;
            }
            let head = areas.new_heads.get(n).and_then(|place| place.get(..emit.head.into()));
            let Some(begin) = skip.checked_sub(emit.head.into()) else { continue };
            let replaced = (flight.at + begin) as usize..(flight.at + skip) as usize;
            let place = areas.frames.get_mut(replaced);
            let (Some(head), Some(place)) = (head, place) else { continue };
            place.copy_from_slice(head);
            decision.new_head_at = flight.at + begin;
            (emit.head, emit.skip) = ((end - begin) as u16, end);
        }
    }
}
