//! Whether a backend takes frames at all.
//!
//! In: how much room its ring has, and time. Out: that it is no use to wait for more, and that it is
//! again. Never: touches the ring.

use core::time::Duration;
use wire::Instant;

/// How long frames wait in their senders' rings for a backend that gives no sign of life before they are lost instead.
const PATIENCE: Duration = Duration::from_millis(500);

/// A TX ring as it fills and empties.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Full>);

/// It has no room for a frame.
#[derive(Debug)]
struct Full {
    /// Slots that are free nevertheless.
    room: u32,
    /// When the backend last gave a sign of life.
    since: Instant,
    /// Since then too long has passed.
    stalled: bool,
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Frames can be sent, as before.
    Room,
    /// Frames wait; look again at this time.
    Waiting(Instant),
    /// From now on it is no use to wait.
    Stalled,
    /// As before, it is no use to wait.
    StillStalled,
    /// Frames can be sent again.
    Over,
}

impl Stall {
    /// Whether it is no use to wait for room.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.as_ref().is_some_and(|full| full.stalled)
    }

    /// Looks at a ring with `room` free slots, of which a frame may need `least`.
    pub(crate) fn look(&mut self, room: u32, least: u32, now: Instant) -> Seen {
        let stalled = self.is_stalled();
        if room >= least {
            self.0 = None;
            return if stalled { Seen::Over } else { Seen::Room };
        }
        let full = self.0.get_or_insert(Full { room, since: now, stalled: false });
        if room > full.room {
            (full.since, full.stalled) = (now, false);
        }
        full.room = room;
        let due = full.since + PATIENCE;
        if now < due {
            return Seen::Waiting(due);
        }
        full.stalled = true;
        if stalled { Seen::StillStalled } else { Seen::Stalled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_without_a_sign_of_life_and_begins_anew_with_each() {
        let at = Instant::from_millis;
        let table = [
            (256, 0, Seen::Room),
            (20, 1, Seen::Room),
            (3, 10, Seen::Waiting(at(510))),
            (0, 20, Seen::Waiting(at(510))),
            // It takes a frame now and then.
            (5, 400, Seen::Waiting(at(900))),
            (5, 899, Seen::Waiting(at(900))),
            (5, 900, Seen::Stalled),
            (0, 901, Seen::StillStalled),
            (0, 5000, Seen::StillStalled),
            (19, 5001, Seen::Waiting(at(5501))),
            (19, 5501, Seen::Stalled),
            (20, 5502, Seen::Over),
            (20, 5503, Seen::Room),
        ];
        let mut stall = Stall::default();
        for (room, millis, seen) in table {
            assert_eq!(stall.look(room, 20, at(millis)), seen, "{room} free at {millis} ms");
            let expected = matches!(seen, Seen::Stalled | Seen::StillStalled);
            assert_eq!(stall.is_stalled(), expected);
        }
    }
}
