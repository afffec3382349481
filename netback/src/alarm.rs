//! What a vif tells who owns them all: frames are moved by one vif at a time, which knows no other.
//!
//! In: faults, and signals that are kept back. Out: whether to look at all vifs, and when. Never: which
//! vif it was.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use wire::Instant;

/// Never.
const NEVER: u64 = u64::MAX;

/// Shared by all vifs and their owner. One thread uses it, so no order matters.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<Told>);

#[derive(Debug)]
struct Told {
    fault: AtomicBool,
    /// How many vifs keep a signal back.
    keeping: AtomicU32,
    /// Nanoseconds of the time at which the first of these signals is due, or was before it was given.
    due: AtomicU64,
}

impl Default for Alarm {
    fn default() -> Self {
        let (fault, keeping, due) =
            (AtomicBool::new(false), AtomicU32::new(0), AtomicU64::new(NEVER));
        Self(Arc::new(Told { fault, keeping, due }))
    }
}

impl Alarm {
    /// A vif has found its client's rings broken.
    pub(crate) fn raise(&self) {
        self.0.fault.store(true, Ordering::Relaxed);
    }

    /// Whether one has since this was last asked.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.fault.swap(false, Ordering::Relaxed)
    }

    /// Until when a vif keeps a signal back was `before`, and is `now`.
    pub(crate) fn keeps(&self, before: Option<Instant>, now: Option<Instant>) {
        let Told { keeping, due, .. } = &*self.0;
        match (before, now) {
            (None, Some(_)) => drop(keeping.fetch_add(1, Ordering::Relaxed)),
            // Nobody is to be woken for what is given.
            (Some(_), None) if keeping.fetch_sub(1, Ordering::Relaxed) == 1 => {
                due.store(NEVER, Ordering::Relaxed);
            }
            (Some(_), None | Some(_)) | (None, None) => {}
        }
        if let Some(until) = now {
            due.fetch_min(until.as_nanos(), Ordering::Relaxed);
        }
    }

    /// When the first is to be given, if any is kept back.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = self.0.due.load(Ordering::Relaxed);
        (due != NEVER).then(|| Instant::from_nanos(due))
    }

    /// Whether one is due. Then all vifs are to say again until when they keep theirs.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if due {
            self.0.due.store(NEVER, Ordering::Relaxed);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_that_is_due_counts_and_is_told_once() {
        let alarm = Alarm::default();
        let vif = alarm.clone();
        assert_eq!(alarm.due(), None);
        for second in [7, 3, 5] {
            vif.keeps(None, Some(Instant::from_secs(second)));
        }
        assert_eq!(alarm.due(), Some(Instant::from_secs(3)));
        let told = [2, 3, 4].map(|second| alarm.is_due(Instant::from_secs(second)));
        assert_eq!((told, alarm.due()), ([false, true, false], None));
    }

    #[test]
    fn when_no_signal_is_kept_back_none_is_due() {
        let (alarm, [first, second]) = (Alarm::default(), [1, 2].map(Instant::from_secs));
        alarm.keeps(None, Some(first));
        alarm.keeps(None, Some(second));
        alarm.keeps(Some(first), None);
        assert_eq!(alarm.due(), Some(first), "which one it was is not known");
        alarm.keeps(Some(second), None);
        assert_eq!(alarm.due(), None);
        alarm.keeps(None, Some(second));
        alarm.keeps(Some(second), Some(second));
        assert_eq!(alarm.due(), Some(second));
    }

    #[test]
    fn a_fault_is_told_once() {
        let alarm = Alarm::default();
        assert!(!alarm.is_raised());
        alarm.clone().raise();
        assert_eq!([alarm.is_raised(), alarm.is_raised()], [true, false]);
    }
}
