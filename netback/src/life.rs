//! The xenbus life of one vif as a table: what our node and the frontend's say in, one step out.
//!
//! Level-triggered: the step follows from what is, never from what changed, so lost, merged and
//! repeated watch events cannot lead astray. Follows Linux' xen-netback (`set_backend_state`) and what
//! libxl waits for. Never: I/O, time, memory of earlier steps.

use core::time::Duration;
use xen::xenbus::XenbusState as State;

/// What we know by ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// The frontend's rings are mapped and its event channel is bound.
    pub linked: bool,
    /// Neither our own directory nor the frontend's part of the bargain has been found broken.
    pub sound: bool,
    /// Our present state, and whether we are online, have stood for as long as [`hold`] says.
    pub rested: bool,
}

/// What stands in XenStore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Our `state`, which the toolstack writes as well; `None` if our directory is gone (or holds
    /// nothing that could be a state, so that nobody can mean us).
    pub own: Option<State>,
    /// Whether the toolstack wants the device to exist.
    pub online: bool,
    /// The frontend's `state`; `None` if it is gone, may not be read any more or is no state: Linux
    /// takes all of these for XenbusStateUnknown.
    pub front: Option<State>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something changes, or time makes us rested.
    Wait,
    /// Write our features and state 2 (`InitWait`).
    Offer,
    /// Map rings, bind the event channel, write state 4 (`Connected`).
    Connect,
    /// Stop, unmap, unbind, write state 5 (`Closing`).
    Close,
    /// Write state 6 (`Closed`).
    Finish,
    /// Remove our directory: the toolstack has had time to see state 6 and waits for this.
    Remove,
    /// The directory is gone: drop everything, write nothing.
    Forget,
}

/// How long a state of ours stays readable at least. libxl reads the value some time after the event,
/// on a busy dom0 long after, and takes no later state, and no missing directory, for the one it wants.
/// Then it waits ten seconds for us to remove the directory.
#[must_use]
pub const fn hold(own: Option<State>) -> Duration {
    match own {
        Some(State::InitWait) => Duration::from_millis(500),
        Some(State::Closed) => Duration::from_secs(1),
        // Nobody but a frontend is waited for, which has something to close.
        _ => Duration::from_millis(150),
    }
}

/// The step that brings our end to where the toolstack and the frontend want it.
#[must_use]
pub fn next(ours: Ours, seen: Seen) -> Step {
    use State::{Closed, Closing, Connected, InitWait, Initialising};
    let Some(own) = seen.own else { return Step::Forget };
    let wanted = seen.online && ours.sound;
    match (own, seen.front) {
        // Rings are mapped in state 4 only, and state 4 means that they are.
        (Connected, _) if !ours.linked => Step::Close,
        (Connected, Some(Initialising | Closing | Closed) | None) => Step::Close,
        (Connected, Some(_)) if wanted => Step::Wait,
        (Connected, Some(_)) => Step::Close,
        (_, _) if ours.linked => Step::Close,

        (Initialising | InitWait, None) => Step::Close,
        (Initialising | InitWait, _) if !wanted => Step::Close,
        (Initialising, Some(_)) => Step::Offer,
        // libxl completes an attach at exactly this state, so not even an eager frontend moves us on.
        (InitWait, Some(_)) if !ours.rested => Step::Wait,
        (InitWait, Some(Connected)) => Step::Connect,
        (InitWait, Some(Closing | Closed)) => Step::Close,
        (InitWait, Some(_)) => Step::Wait,

        // A frontend may take its time in state 5; Windows' driver wants to see ours there.
        (Closing, Some(Closed | Initialising) | None) => Step::Finish,
        (Closing, Some(Closing)) if wanted => Step::Wait,
        (Closing, Some(_)) if ours.rested => Step::Finish,
        (Closing, Some(_)) => Step::Wait,

        (Closed, _) if !seen.online => {
            if ours.rested {
                Step::Remove
            } else {
                Step::Wait
            }
        }
        (Closed, Some(Initialising | Connected)) if wanted => Step::Offer,
        (Closed, Some(Closing)) if wanted => Step::Close,
        (Closed, _) => Step::Wait,

        // States that no backend has: whoever wrote that gets a closing device.
        (_, _) => Step::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
    use std::vec::Vec;

    fn fronts() -> Vec<Option<State>> {
        core::iter::once(None).chain(State::ALL.iter().copied().map(Some)).collect()
    }

    fn everything() -> Vec<(Ours, Seen)> {
        let mut all = Vec::new();
        let bools = [false, true];
        for own in fronts() {
            for front in fronts() {
                for online in bools {
                    for linked in bools {
                        for sound in bools {
                            for rested in bools {
                                let ours = Ours { linked, sound, rested };
                                all.push((ours, Seen { own, online, front }));
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// What the step does to both tables, if the world stands still otherwise.
    fn apply(step: Step, ours: &mut Ours, seen: &mut Seen) {
        let state = match step {
            Step::Wait => {
                ours.rested = true;
                return;
            }
            Step::Offer => InitWait,
            Step::Connect => {
                ours.linked = true;
                Connected
            }
            Step::Close => {
                ours.linked = false;
                Closing
            }
            Step::Finish => Closed,
            Step::Remove | Step::Forget => {
                ours.linked = false;
                seen.own = None;
                return;
            }
        };
        seen.own = Some(state);
        ours.rested = false;
    }

    #[test]
    fn there_are_as_many_combinations_as_expected() {
        assert_eq!(everything().len(), 9 * 9 * 16);
    }

    #[test]
    fn every_step_stands_where_its_effect_is_allowed() {
        for (ours, seen) in everything() {
            let at = std::format!("{ours:?} {seen:?}");
            match next(ours, seen) {
                Step::Forget => assert_eq!(seen.own, None, "{at}"),
                Step::Connect => {
                    assert_eq!((seen.own, seen.front), (Some(InitWait), Some(Connected)), "{at}");
                    assert!(seen.online && ours.sound && ours.rested && !ours.linked, "{at}");
                }
                Step::Offer => {
                    assert!(matches!(seen.own, Some(Initialising | Closed)), "{at}");
                    assert!(seen.online && ours.sound && !ours.linked, "{at}");
                    assert_ne!(seen.front, None, "{at}");
                }
                // 5 is never skipped on the way to 6: a Windows frontend would hang.
                Step::Finish => assert!(seen.own == Some(Closing) && !ours.linked, "{at}"),
                // Neither before the toolstack has seen 6 nor while it wants the device.
                Step::Remove => {
                    assert!(seen.own == Some(Closed) && !ours.linked, "{at}");
                    assert!(!seen.online && ours.rested, "{at}");
                }
                Step::Close | Step::Wait => assert_ne!(seen.own, None, "{at}"),
            }
        }
    }

    #[test]
    fn rings_stay_mapped_only_while_both_ends_are_connected() {
        for (ours, seen) in everything() {
            if !ours.linked || seen.own.is_none() {
                continue;
            }
            let front_is_up = !matches!(seen.front, None | Some(Initialising | Closing | Closed));
            let stays = seen.own == Some(Connected) && front_is_up && seen.online && ours.sound;
            let expected = if stays { Step::Wait } else { Step::Close };
            assert_eq!(next(ours, seen), expected, "{ours:?} {seen:?}");
        }
    }

    #[test]
    fn from_everywhere_the_way_ends_where_the_peers_want_it() {
        for (mut ours, mut seen) in everything() {
            let start = std::format!("{ours:?} {seen:?}");
            let mut idle = 0;
            for _ in 0..12 {
                let step = next(ours, seen);
                idle = if step == Step::Wait { idle + 1 } else { 0 };
                apply(step, &mut ours, &mut seen);
                if step == Step::Forget || idle == 2 {
                    break;
                }
            }
            let settled = seen.own.is_none() || idle == 2;
            assert!(settled, "goes round in circles from {start}");
            let expected: &[Option<State>] = match (seen.online, ours.sound, seen.front) {
                (false, _, _) => &[None],
                (_, false, _) | (_, _, None | Some(Closed)) => &[Some(Closed)],
                (_, _, Some(Initialising)) => &[Some(InitWait)],
                (_, _, Some(Connected)) => &[Some(Connected)],
                (_, _, Some(Closing)) => &[Some(Closing)],
                // 2, 3, 7 and 8 ask for nothing: any state at rest will do.
                (_, _, Some(_)) => &[Some(InitWait), Some(Connected), Some(Closed)],
            };
            assert!(seen.own.is_none() || expected.contains(&seen.own), "{start} ends at {seen:?}");
            assert_eq!(ours.linked, seen.own == Some(Connected), "{start}");
        }
    }

    /// Walks through `fronts`, letting our end settle at each, and lists the states we went through.
    fn walk(online: bool, fronts: &[Option<State>]) -> Vec<State> {
        let mut ours = Ours { linked: false, sound: true, rested: false };
        let mut seen = Seen { own: Some(Initialising), online, front: None };
        let mut states = Vec::new();
        for front in fronts {
            seen.front = *front;
            for _ in 0..12 {
                let before = seen.own;
                apply(next(ours, seen), &mut ours, &mut seen);
                if seen.own != before {
                    states.extend(seen.own);
                }
            }
        }
        states
    }

    #[test]
    fn linux_connects_closes_and_opens_again() {
        let fronts =
            [Initialising, Initialised, Connected, Closing, Closed, Initialising, Connected];
        assert_eq!(
            walk(true, &fronts.map(Some)),
            [InitWait, Connected, Closing, Closed, InitWait, Connected]
        );
    }

    #[test]
    fn windows_closes_before_it_first_connects() {
        let fronts = [Initialising, Closing, Closed, Initialising, Connected];
        assert_eq!(walk(true, &fronts.map(Some)), [InitWait, Closing, Closed, InitWait, Connected]);
    }

    #[test]
    fn a_frontend_that_starts_over_is_closed_and_offered_again() {
        let fronts = [Initialising, Connected, Initialising, Connected];
        assert_eq!(
            walk(true, &fronts.map(Some)),
            [InitWait, Connected, Closing, Closed, InitWait, Connected]
        );
    }

    #[test]
    fn a_frontend_that_vanished_leaves_us_closed_and_present() {
        assert_eq!(walk(true, &[Some(Connected), None]), [InitWait, Connected, Closing, Closed]);
    }

    #[test]
    fn a_device_taken_offline_is_closed_shown_and_removed() {
        assert_eq!(walk(false, &[Some(Connected)]), [Closing, Closed]);
    }
}
