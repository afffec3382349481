//! How much we say of our own accord, and how often rules let something begin.

use alloc::vec::Vec;
use rules::{Policy, Rate, RuleId};
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
        Self::new(now, Rate { count: 1000, secs: 1, burst: 250 })
    }

    /// Lines in the log about one interface.
    pub(super) fn logs(now: Instant) -> Self {
        Self::new(now, Rate { count: 5, secs: 1, burst: 20 })
    }

    /// Lines sent to the receiver of the log.
    pub(super) fn syslog(now: Instant) -> Self {
        Self::new(now, Rate { count: 200, secs: 1, burst: 200 })
    }

    fn new(now: Instant, rate: Rate) -> Self {
        let period = SECOND.saturating_mul(rate.secs.into());
        let cost = period.checked_div(rate.count.into()).unwrap_or(period);
        Self { debt: 0, since: now, cost, burst: cost.saturating_mul(rate.burst.into()) }
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

/// What the rules of a policy that keep to a rate have spent.
#[derive(Debug, Default)]
pub(super) struct Rates(Vec<Spent>);

/// Of one rule: what it may decide, and what it may write.
#[derive(Debug)]
struct Spent {
    rule: RuleId,
    decides: Option<Bucket>,
    writes: Option<Bucket>,
}

impl Rates {
    /// Nothing is spent yet.
    pub(super) fn new(policy: Option<&Policy>) -> Self {
        let Some(policy) = policy else { return Self::default() };
        let bucket = |rate: Rate| Bucket::new(Instant::ZERO, rate);
        let limited = policy.rule_ids().filter_map(|id| {
            let (_, rule) = policy.rule(id)?;
            let decides = rule.limit.map(bucket);
            let writes = rule.log.and_then(|note| note.limit).map(bucket);
            decides.or(writes).map(|_| Spent { rule: id, decides, writes })
        });
        Self(limited.collect())
    }

    /// Whether `rule` may decide one more new flow now.
    pub(super) fn may_decide(&mut self, now: Instant, rule: RuleId) -> bool {
        let bucket = self.of(rule).and_then(|spent| spent.decides.as_mut());
        bucket.is_none_or(|bucket| bucket.take(now))
    }

    /// Whether `rule` may write one more line now.
    pub(super) fn may_write(&mut self, now: Instant, rule: RuleId) -> bool {
        let bucket = self.of(rule).and_then(|spent| spent.writes.as_mut());
        bucket.is_none_or(|bucket| bucket.take(now))
    }

    fn of(&mut self, rule: RuleId) -> Option<&mut Spent> {
        let at = self.0.binary_search_by_key(&rule, |spent| spent.rule).ok()?;
        self.0.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut bucket = Bucket::new(Instant::ZERO, Rate { count: 5, secs: 1, burst: 20 });
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Instant::ZERO), 20);
        assert_eq!(taken(&mut bucket, Instant::from_millis(199)), 0);
        assert_eq!(taken(&mut bucket, Instant::from_millis(200)), 1);
        assert_eq!(taken(&mut bucket, Instant::from_secs(1)), 4);
        assert_eq!(taken(&mut bucket, Instant::from_secs(9000)), 20);
    }

    #[test]
    fn a_rate_may_be_slow() {
        let mut bucket = Bucket::new(Instant::ZERO, Rate { count: 1, secs: 86400, burst: 1 });
        assert!(bucket.take(Instant::ZERO) && !bucket.take(Instant::from_secs(86399)));
        assert!(bucket.take(Instant::from_secs(86400)));
    }
}
