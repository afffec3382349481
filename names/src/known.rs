//! The addresses of one name in the rules of one client.
//!
//! In: addresses with the time they may be used for. Out: those that may be used now. Never: more than
//! there is room for, less than a minute or more than an hour after an address was last told.

use crate::message::ADDRS_MAX;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::time::Duration;
use wire::Instant;

/// The least time an address is used for, whatever its TTL.
pub const TTL_MIN: Duration = Duration::from_secs(60);

/// The longest time an address is used for without being told again.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// Most addresses of all names of one client address.
pub const ADDRS_PER_CLIENT: usize = 256;

/// The addresses of one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    addrs: Vec<Place>,
    /// Until when there may be addresses for which there was no room.
    partial: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    addr: IpAddr,
    until: Instant,
    /// Until when it may be kept at most.
    last: Instant,
}

/// How long an address with this TTL in seconds is used.
pub(crate) fn clamped(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into()).clamp(TTL_MIN, TTL_MAX)
}

impl Known {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.addrs.len()
    }

    /// The addresses.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addrs.iter().map(|place| place.addr)
    }

    /// Whether these are all the addresses that were told.
    pub(crate) const fn is_whole(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes an address that was told, if there is `room` for one more. Whether the set changed.
    pub(crate) fn tell(&mut self, now: Instant, addr: IpAddr, ttl: u32, room: bool) -> bool {
        let (until, last) = (now + clamped(ttl), now + TTL_MAX);
        if let Some(place) = self.addrs.iter_mut().find(|place| place.addr == addr) {
            (place.until, place.last) = (place.until.max(until), last);
            return false;
        }
        if !room || self.addrs.len() >= ADDRS_MAX {
            return self.lack(until);
        }
        self.addrs.push(Place { addr, until, last });
        true
    }

    /// Notes that until then there are addresses which are not here. Whether that is new.
    pub(crate) fn lack(&mut self, until: Instant) -> bool {
        let before = self.partial;
        self.partial = before.max(Some(until));
        before.is_none()
    }

    /// Takes out what is over. An address that is still used is kept a minute longer, unless it was
    /// told too long ago; `used` says of some addresses which are, by the bits of a number. Whether the
    /// set changed.
    pub(crate) fn expire(&mut self, now: Instant, used: impl FnOnce(&[IpAddr]) -> u64) -> bool {
        let before = (self.addrs.len(), self.partial.is_some());
        self.partial = self.partial.filter(|until| *until > now);
        let is_over = |place: &Place| place.until <= now && place.last > now;
        let over: ArrayVec<IpAddr, ADDRS_MAX> =
            self.addrs.iter().filter(|place| is_over(place)).map(|place| place.addr).collect();
        let mut used = if over.is_empty() { 0 } else { used(&over) };
        self.addrs.retain_mut(|place| {
            if is_over(place) {
                if used & 1 == 1 {
                    place.until = (now + TTL_MIN).min(place.last);
                }
                used >>= 1;
            }
            place.until > now
        });
        before != (self.addrs.len(), self.partial.is_some())
    }

    /// When something is over next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.addrs.iter().map(|place| place.until).chain(self.partial).min()
    }

    /// Nothing ran for so long: all of it is as old as it was.
    pub(crate) fn paused(&mut self, silence: Duration) {
        for place in &mut self.addrs {
            (place.until, place.last) = (place.until + silence, place.last + silence);
        }
        self.partial = self.partial.map(|until| until + silence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    #[test]
    fn an_address_is_used_for_a_minute_at_least_and_an_hour_at_most() {
        for (ttl, secs) in [(0, 60), (60, 60), (61, 61), (3600, 3600), (u32::MAX, 3600)] {
            let mut known = Known::default();
            let start = Instant::from_secs(1000);
            assert!(known.tell(start, addr(1), ttl, true));
            let end = start + Duration::from_secs(secs);
            assert_eq!(known.deadline(), Some(end));
            assert!(!known.expire(end - Duration::from_nanos(1), |_| 0));
            assert!(known.expire(end, |_| 0), "{ttl}");
            assert_eq!(known.len(), 0);
        }
    }

    #[test]
    fn one_that_is_told_again_lives_on_and_never_shorter() {
        let mut known = Known::default();
        let at = Instant::from_secs;
        assert!(known.tell(at(0), addr(1), 300, true));
        assert!(!known.tell(at(10), addr(1), 0, true));
        assert_eq!(known.deadline(), Some(at(300)));
        assert!(!known.tell(at(200), addr(1), 300, true));
        assert_eq!(known.deadline(), Some(at(500)));
    }

    #[test]
    fn one_that_is_used_is_kept_but_not_beyond_an_hour() {
        let mut known = Known::default();
        let start = Instant::from_secs(0);
        known.tell(start, addr(1), 0, true);
        known.tell(start, addr(2), 0, true);
        let mut now = start;
        let mut minutes = 0;
        while let Some(due) = known.deadline() {
            now = due;
            known.expire(now, |over| {
                over.iter().rev().fold(0, |used, over| used << 1 | u64::from(*over == addr(1)))
            });
            assert!(!known.addrs().any(|known| known == addr(2)));
            minutes += 1;
        }
        assert_eq!((now, minutes), (start + TTL_MAX, 60));
    }

    #[test]
    fn what_does_not_fit_makes_the_set_partial_until_it_would_be_over() {
        let mut known = Known::default();
        let start = Instant::from_secs(0);
        for n in 0..ADDRS_MAX {
            assert!(known.tell(start, addr(n), 3600, true));
        }
        assert!(known.is_whole());
        assert!(known.tell(start, addr(99), 100, true), "that it is partial is a change");
        assert!(!known.tell(start, addr(98), 90, true));
        assert_eq!((known.len(), known.is_whole()), (ADDRS_MAX, false));
        assert!(!known.expire(Instant::from_secs(99), |_| 0));
        assert!(known.expire(Instant::from_secs(100), |_| 0));
        assert!(known.is_whole());
        let mut full = Known::default();
        assert!(full.tell(start, addr(1), 0, false));
        assert_eq!((full.len(), full.is_whole()), (0, false));
    }

    #[test]
    fn a_pause_ages_nothing() {
        let mut known = Known::default();
        known.tell(Instant::from_secs(0), addr(1), 100, true);
        known.paused(Duration::from_secs(7200));
        assert_eq!(known.deadline(), Some(Instant::from_secs(7300)));
    }
}
