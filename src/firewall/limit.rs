//! How much we say of our own accord.

use wire::Instant;

const SECOND: u64 = 1_000_000_000;

/// A token bucket: so many at once, so many a second from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// What has been taken and not yet earned back at `since`, in nanoseconds.
    debt: u64,
    since: Instant,
    cost: u64,
    burst: u64,
}

impl Bucket {
    /// Own frames to one interface: ARP, echo replies, ICMP errors, resets.
    pub(super) fn answers(now: Instant) -> Self {
        Self::new(now, 1000, 250)
    }

    /// Lines in the log about one interface.
    pub(super) fn logs(now: Instant) -> Self {
        Self::new(now, 5, 20)
    }

    fn new(now: Instant, per_second: u64, burst: u64) -> Self {
        let cost = SECOND.checked_div(per_second).unwrap_or(SECOND);
        Self { debt: 0, since: now, cost, burst: cost.saturating_mul(burst) }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.as_nanos().saturating_sub(self.since.as_nanos());
        let debt = self.debt.saturating_sub(earned).saturating_add(self.cost);
        if debt > self.burst {
            return false;
        }
        (self.debt, self.since) = (debt, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut bucket = Bucket::new(Instant::ZERO, 5, 20);
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Instant::ZERO), 20);
        assert_eq!(taken(&mut bucket, Instant::from_millis(199)), 0);
        assert_eq!(taken(&mut bucket, Instant::from_millis(200)), 1);
        assert_eq!(taken(&mut bucket, Instant::from_secs(1)), 4);
        assert_eq!(taken(&mut bucket, Instant::from_secs(9000)), 20);
    }
}
