//! The Ethernet address of the next hop on the uplink.
//!
//! In: what ARP and neighbour discovery tell, and time. Out: where to send, and when to ask. Never:
//! a wait: until somebody answers, frames go to the address every Xen backend takes.

use core::net::IpAddr;
use core::time::Duration;
use wire::{Instant, Mac};

/// Between questions while nobody has answered, and how many of them there are.
const RETRY: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;

/// Between questions after that, answered or not: a gateway may be replaced, or start late.
const AGAIN: Duration = Duration::from_secs(30);

/// How the next hop is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// It has this address. Qubes' backends all take [`Mac::BACKEND`].
    Static(Mac),
    /// Ask for the address of this gateway; until it answers, [`Mac::BACKEND`].
    Ask(IpAddr),
}

/// The next hop, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    how: NextHop,
    told: Option<Mac>,
    tries: u8,
    due: Option<Instant>,
}

impl Hop {
    pub(super) const fn new(how: NextHop) -> Self {
        Self { how, told: None, tries: 0, due: None }
    }

    /// How it is found.
    pub(super) const fn how(&self) -> NextHop {
        self.how
    }

    /// The uplink came up: whatever was known was known of another.
    pub(super) fn start(&mut self, now: Instant) {
        *self = Self { due: Some(now), ..Self::new(self.how) };
    }

    /// The uplink went away.
    pub(super) const fn stop(&mut self) {
        *self = Self::new(self.how);
    }

    /// Where frames go.
    pub(super) fn mac(&self) -> Mac {
        match self.how {
            NextHop::Static(mac) => mac,
            NextHop::Ask(_) => self.told.unwrap_or(Mac::BACKEND),
        }
    }

    /// `ip` says that it is at `mac`. Whether that is news about the next hop.
    pub(super) fn tell(&mut self, now: Instant, ip: IpAddr, mac: Mac) -> bool {
        if self.how != NextHop::Ask(ip) || mac.is_group() {
            return false;
        }
        self.tries = TRIES;
        self.due = Some(now + AGAIN);
        self.told.replace(mac) != Some(mac)
    }

    /// Who is to be asked for now, if anybody.
    pub(super) fn ask(&mut self, now: Instant) -> Option<IpAddr> {
        let NextHop::Ask(gateway) = self.how else { return None };
        if self.due? > now {
            return None;
        }
        self.tries = self.tries.saturating_add(1);
        self.due = Some(now + if self.tries < TRIES { RETRY } else { AGAIN });
        Some(gateway)
    }

    /// When to ask next.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.how {
            NextHop::Static(_) => None,
            NextHop::Ask(_) => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_is_asked_thrice_quickly_and_then_now_and_then() {
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let mut hop = Hop::new(NextHop::Ask(gateway));
        assert_eq!(hop.ask(Instant::ZERO), None, "there is no uplink");
        hop.start(Instant::ZERO);
        for (at, asked) in
            [(0, true), (0, false), (1, true), (2, true), (3, false), (32, true), (62, true)]
        {
            assert_eq!(hop.ask(Instant::from_secs(at)), asked.then_some(gateway), "at {at} s");
            assert_eq!(hop.mac(), Mac::BACKEND);
        }
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert!(!hop.tell(Instant::from_secs(63), IpAddr::from([10, 0, 0, 2]), mac));
        assert!(!hop.tell(Instant::from_secs(63), gateway, Mac::BROADCAST));
        assert!(hop.tell(Instant::from_secs(63), gateway, mac));
        assert!(!hop.tell(Instant::from_secs(63), gateway, mac));
        assert_eq!(hop.mac(), mac);
        assert_eq!(hop.deadline(), Some(Instant::from_secs(93)));
        hop.stop();
        assert_eq!((hop.mac(), hop.deadline()), (Mac::BACKEND, None));
    }
}
