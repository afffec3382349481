//! How much is taken from the uplink at a time, so that the clients it is for have room.
//!
//! In: which clients got frames of late, and how many slots each has posted. Out: slots that may be
//! taken now. What is not taken waits in the backend's own queue, where there is room for more than
//! one ring. Never: holds the uplink longer than a moment for the same client without getting room
//! from it, or at all for one that posts none.

use alloc::vec::Vec;
use core::time::Duration;
use wire::{Instant, Port};

/// Slots that the longest frame may take at a client.
pub(super) const FRAME: usize = 20;

/// How long the uplink is held at most for clients to make room. A ring holds 256 slots, so even a
/// client that makes room only at the last moment, again and again, leaves a quarter of a million
/// small frames a second to the others.
const HOLD: Duration = Duration::from_millis(1);

/// Clients looked after at a time: those that got frames last.
const RECENT: usize = 16;

/// What is known of those that frames go to.
pub(super) struct Brake {
    recent: Vec<Recipient>,
    /// When the hold that is on ends.
    until: Option<Instant>,
}

struct Recipient {
    port: Port,
    /// Most slots it was ever seen to post: who never posts enough for the longest frame is no
    /// slower than it always is.
    most: usize,
    /// Slots it had posted when the hold began.
    then: usize,
    /// It made no room during a whole hold: nobody waits for it until it does.
    mute: bool,
}

impl Brake {
    pub(super) fn new() -> Self {
        Self { recent: Vec::with_capacity(RECENT), until: None }
    }

    /// A frame went to the client at `port`, or was to.
    pub(super) fn went_to(&mut self, port: Port) {
        if self.recent.iter().any(|recipient| recipient.port == port) {
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        self.recent.push(Recipient { port, most: 0, then: 0, mute: false });
    }

    /// Slots that may be taken from the uplink now; `room` says how many a client has posted, `None`
    /// if it is gone.
    pub(super) fn slots(
        &mut self,
        now: Instant,
        mut room: impl FnMut(Port) -> Option<usize>,
    ) -> usize {
        let over = self.until.is_some_and(|until| until <= now);
        let begins = self.until.is_none();
        let mut least = usize::MAX;
        self.recent.retain_mut(|recipient| {
            let Some(posted) = room(recipient.port) else { return false };
            recipient.most = recipient.most.max(posted);
            if posted >= FRAME {
                recipient.mute = false;
            } else if over {
                recipient.mute = posted <= recipient.then;
            } else if begins {
                recipient.then = posted;
            }
            if !recipient.mute && recipient.most >= FRAME {
                least = least.min(posted);
            }
            true
        });
        if least >= FRAME {
            self.until = None;
            return least;
        }
        if over {
            // Others have waited long enough: who has no room now loses frames.
            self.until = None;
            return usize::MAX;
        }
        self.until = self.until.or(Some(now + HOLD));
        0
    }

    /// When to look again.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    const FAST: Port = Port::new(1, 0);
    const SLOW: Port = Port::new(2, 0);
    const T0: Instant = Instant::from_nanos(1_000_000_000);

    fn after(micros: u64) -> Instant {
        T0 + Duration::from_micros(micros)
    }

    #[test]
    fn nobody_is_waited_for_before_anything_was_sent() {
        assert_eq!(Brake::new().slots(T0, |_| Some(0)), usize::MAX);
    }

    #[test]
    fn the_uplink_is_held_for_who_makes_room_and_let_go_as_soon_as_there_is_some() {
        let mut brake = Brake::new();
        brake.went_to(FAST);
        assert_eq!(brake.slots(T0, |_| Some(256)), 256);
        assert_eq!(brake.slots(after(10), |_| Some(FRAME - 1)), 0);
        assert_eq!(brake.deadline(), Some(after(10) + HOLD));
        assert_eq!(brake.slots(after(20), |_| Some(100)), 100);
        assert_eq!(brake.deadline(), None);
    }

    #[test]
    fn who_posts_nothing_holds_the_uplink_once_and_no_more() {
        let mut brake = Brake::new();
        brake.went_to(SLOW);
        brake.went_to(FAST);
        assert_eq!(brake.slots(T0, |_| Some(256)), 256);
        let room = |port| Some(if port == SLOW { 3 } else { 200 });
        assert_eq!(brake.slots(T0, room), 0);
        assert_eq!(brake.slots(after(999), room), 0);
        assert_eq!(brake.slots(after(1000), room), 200);
        for n in 0..100 {
            assert_eq!(brake.slots(after(1001 + n), room), 200, "mute, and not waited for");
        }
        assert_eq!(brake.deadline(), None);
        // It is waited for again once it has shown room.
        assert_eq!(brake.slots(after(2000), |_| Some(50)), 50);
        assert_eq!(brake.slots(after(2001), room), 0);
    }

    #[test]
    fn who_makes_a_little_room_again_and_again_leaves_the_others_a_ring_each_hold() {
        let mut brake = Brake::new();
        brake.went_to(SLOW);
        assert_eq!(brake.slots(T0, |_| Some(256)), 256);
        let (mut posted, mut let_go) = (0, 0);
        for n in 0..10_000 {
            posted = (posted + 1) % FRAME;
            if brake.slots(after(n * 10), |_| Some(posted)) == usize::MAX {
                let_go += 1;
            }
        }
        assert!(let_go >= 90, "{let_go} times in 100 ms");
    }

    #[test]
    fn who_never_posts_enough_for_a_long_frame_is_not_waited_for() {
        let mut brake = Brake::new();
        brake.went_to(SLOW);
        for n in 0..100 {
            let _any = brake.slots(after(n), |_| Some(FRAME - 1));
            assert_eq!(brake.deadline(), None);
        }
    }

    #[test]
    fn who_is_gone_is_forgotten_and_only_the_last_are_known() {
        let mut brake = Brake::new();
        for slot in 0..100 {
            brake.went_to(Port::new(slot, 0));
        }
        assert_eq!(brake.recent.len(), RECENT);
        assert_eq!(brake.slots(T0, |_| None), usize::MAX);
        assert!(brake.recent.is_empty());
    }
}
