//! A token bucket: a burst at once, then one for each interval. What slows down whoever makes us
//! reconnect, look or complain again and again, and nobody else.

use core::time::Duration;
use wire::Instant;

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// When it would be full, had nothing been taken since: a full one lies in the past.
    full_at: Instant,
    every: Duration,
    burst: u32,
}

impl Bucket {
    pub(crate) const fn new(burst: u32, every: Duration) -> Self {
        Self { full_at: Instant::ZERO, every, burst }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When one will be there.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let then = self.full_at.max(now) + self.every;
        let most = now + self.every * self.burst;
        if then > most {
            return Err(now + then.since(most));
        }
        self.full_at = then;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval() {
        let mut bucket = Bucket::new(3, Duration::from_millis(10));
        let at = Instant::from_millis;
        for _ in 0..3 {
            assert_eq!(bucket.take(at(100)), Ok(()));
        }
        assert_eq!(bucket.take(at(100)), Err(at(110)));
        assert_eq!(bucket.take(at(104)), Err(at(110)));
        assert_eq!(bucket.take(at(110)), Ok(()));
        assert_eq!(bucket.take(at(110)), Err(at(120)));
        for _ in 0..3 {
            assert_eq!(bucket.take(at(1000)), Ok(()));
        }
        assert_eq!(bucket.take(at(1000)), Err(at(1010)));
    }
}
