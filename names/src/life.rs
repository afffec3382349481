//! The life of one name: when it is asked for, and what follows from how that went.
//!
//! In: what happened. Out: what is to be done now. Never: time; who calls keeps it.
//!
//! | phase | what happens | then |
//! |---|---|---|
//! | rests | its time has come | ask |
//! | asks | it is told addresses | rest, and ask again ahead of their end |
//! | asks | it is told that there are none | rest, longer each time |
//! | asks | refusal, nonsense or silence | ask again: the other resolver; after four tries rest, longer each time |
//! | any | resolvers or the way to them are new | rest, and ask at once |
//!
//! Whatever else happens changes nothing.

use core::time::Duration;

/// How often a name is asked for before it rests.
pub(crate) const TRIES: u8 = 4;

/// Tries that allow long answers; old resolvers refuse those.
const TRIES_WITH_EDNS: u8 = 2;

/// How long a name rests that could not be resolved, the first time; each time it is twice as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it gets longer.
const FAILURES_MAX: u8 = 6;

/// How it stands with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    /// How often in a row it could not be resolved.
    failures: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nobody is asked.
    Rests,
    /// A resolver is asked, or is to be asked when there is room: the n-th try.
    Asks(u8),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its time has come.
    Due,
    /// It has addresses.
    Told,
    /// It has none that may be used.
    None,
    /// The resolver refused, or its answer was of no use.
    Refused,
    /// The resolver said nothing.
    Silence,
    /// There are new resolvers, or a new way to them.
    Anew,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// Ask.
    Ask,
    /// Be due again ahead of the end of what was told.
    Refresh,
    /// Be due again after this time.
    Rest(Duration),
}

impl Life {
    /// Of a name nobody has asked for yet.
    pub(crate) const NEW: Self = Self { phase: Phase::Rests, failures: 0 };

    /// What follows from `event`.
    pub(crate) fn next(self, event: Event) -> (Self, Step) {
        match (self.phase, event) {
            (_, Event::Anew) => (Self::NEW, Step::Rest(Duration::ZERO)),
            (Phase::Rests, Event::Due) => (Self { phase: Phase::Asks(0), ..self }, Step::Ask),
            (Phase::Rests, _) | (Phase::Asks(_), Event::Due) => (self, Step::Stay),
            (Phase::Asks(_), Event::Told) => (Self::NEW, Step::Refresh),
            (Phase::Asks(tries), Event::Refused | Event::Silence) if tries < TRIES - 1 => {
                (Self { phase: Phase::Asks(tries + 1), ..self }, Step::Ask)
            }
            (Phase::Asks(_), Event::None | Event::Refused | Event::Silence) => {
                let rest = PATIENCE.saturating_mul(1 << self.failures.min(FAILURES_MAX));
                let failures = self.failures.saturating_add(1).min(FAILURES_MAX);
                (Self { phase: Phase::Rests, failures }, Step::Rest(rest))
            }
        }
    }
}

/// Which of so many resolvers the n-th try asks, and whether it allows long answers.
pub(crate) fn whom(tries: u8, resolvers: usize) -> (usize, bool) {
    (usize::from(tries).checked_rem(resolvers).unwrap_or(0), tries < TRIES_WITH_EDNS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec;

    const EVENTS: [Event; 6] =
        [Event::Due, Event::Told, Event::None, Event::Refused, Event::Silence, Event::Anew];

    /// Every life there can be.
    fn all() -> BTreeSet<Life> {
        let (mut seen, mut new) = (BTreeSet::new(), vec![Life::NEW]);
        while let Some(life) = new.pop() {
            if seen.insert(life) {
                new.extend(EVENTS.map(|event| life.next(event).0));
            }
        }
        seen
    }

    #[test]
    fn from_every_life_the_table_holds() {
        let lives = all();
        assert_eq!(lives.len(), 7 * 5, "seven counts of failures; rests, or one of four tries");
        for life in lives {
            for event in EVENTS {
                let (next, step) = life.next(event);
                let asks = matches!(next.phase, Phase::Asks(_));
                match step {
                    Step::Stay => assert_eq!(next, life),
                    Step::Ask => assert!(asks && next != life),
                    Step::Refresh => assert_eq!((next, event), (Life::NEW, Event::Told)),
                    Step::Rest(rest) => {
                        assert!(!asks && rest <= Duration::from_secs(320));
                        assert_eq!(rest.is_zero(), event == Event::Anew);
                    }
                }
                // Nothing that is not answered changes a name that rests.
                let rests = life.phase == Phase::Rests;
                assert_eq!(
                    step == Step::Stay,
                    match event {
                        Event::Anew => false,
                        Event::Due => !rests,
                        _ => rests,
                    }
                );
            }
        }
    }

    #[test]
    fn both_resolvers_are_asked_twice_and_then_there_is_a_rest_that_grows() {
        let mut life = Life::NEW;
        for rest in [5, 10, 20, 40, 80, 160, 320, 320] {
            let mut step;
            (life, step) = life.next(Event::Due);
            let mut asked = vec![];
            while step == Step::Ask {
                let Phase::Asks(tries) = life.phase else { panic!() };
                asked.push(whom(tries, 2));
                (life, step) = life.next(Event::Silence);
            }
            assert_eq!(asked, [(0, true), (1, true), (0, false), (1, false)]);
            assert_eq!(step, Step::Rest(Duration::from_secs(rest)));
        }
        assert_eq!(whom(3, 1).0, 0);
        assert_eq!(whom(3, 0).0, 0);
    }
}
