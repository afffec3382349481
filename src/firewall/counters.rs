//! What has happened so far, in numbers.

use rules::Policy;
use wire::{DropReason, PerReason, Verdict};

/// What has happened so far. Numbers only grow, and stop at their largest value.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames sent on.
    pub emitted: u64,
    /// Their bytes, as they came in.
    pub emitted_bytes: u64,
    /// Frames taken over: fragments that wait for the first of their datagram (those that go on when
    /// it has come are emitted), and packets that were sent in fragments.
    pub kept: u64,
    /// Frames of our own.
    pub answers: u64,
    /// Frames of our own that were not sent, for want of room or to keep to their rate.
    pub answers_withheld: u64,
    /// Frames dropped, by reason.
    pub drops: PerReason<u64>,
    /// New flows decided by each rule.
    pub rules: rules::Counters,
}

impl Counters {
    pub(super) fn new(policy: Option<&Policy>) -> Self {
        let rules = policy.map(rules::Counters::new).unwrap_or_default();
        Self { rules, ..Self::default() }
    }

    pub(super) fn count(&mut self, verdict: &Verdict, len: u32) {
        match verdict {
            Verdict::Emit(_) => self.emitted(len),
            Verdict::Drop(reason) => self.dropped(*reason),
            Verdict::Kept => more(&mut self.kept, 1),
            Verdict::NeedWhole => {}
        }
    }

    pub(super) fn emitted(&mut self, len: u32) {
        more(&mut self.emitted, 1);
        more(&mut self.emitted_bytes, u64::from(len));
    }

    /// A frame that was kept went on.
    pub(super) fn released(&mut self, len: usize) {
        more(&mut self.emitted, 1);
        more(&mut self.emitted_bytes, u64::try_from(len).unwrap_or(u64::MAX));
    }

    pub(super) fn answered(&mut self, sent: bool) {
        more(if sent { &mut self.answers } else { &mut self.answers_withheld }, 1);
    }

    pub(super) fn dropped(&mut self, reason: DropReason) {
        more(&mut self.drops[reason], 1);
    }
}

fn more(counter: &mut u64, by: u64) {
    *counter = counter.saturating_add(by);
}
