//! Two clocks.
//!
//! In: nothing. Out: how much time has passed, or was spent on this thread. Never: an allocation.

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time since somebody first asked.
pub(crate) fn passed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Time that the processor spent on this thread, without what it did for others meanwhile.
pub(crate) fn worked() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}
