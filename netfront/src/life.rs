//! The xenbus life of one frontend as a table: what is the case, hence what is to be done.
//!
//! In: how far our own link is, and what XenStore says of both ends. Out: one step. Level-triggered:
//! nothing is remembered between two looks, so lost, doubled and spurious watch events do no harm.
//! Never: touches the store, the rings or the clock.

use xen::xenbus::XenbusState as State;

/// How far the rings of this device are, in our own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There are none.
    Idle,
    /// Granted and published with our state 4; the backend has not answered yet.
    Offered,
    /// Both ends are connected.
    Up,
}

/// What XenStore says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Our own directory is there.
    pub exists: bool,
    /// Our own `state`, if it is one.
    pub front: Option<State>,
    /// The backend's `state`, if it is one.
    pub back: Option<State>,
    /// The backend's `online`: the toolstack does not want it to go away.
    pub online: bool,
    /// `backend` and `backend-id` name the one our rings are granted to (always so without rings).
    pub same: bool,
    /// Every node needed was there and well-formed, and the backend can be served by us.
    pub fit: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something changes.
    Wait,
    /// Write our state 1: ask the backend to become ready (again).
    Init,
    /// Make rings, publish them and our state 4.
    Offer,
    /// The backend is connected: traffic may flow.
    Connect,
    /// Take the rings down, write our state 6.
    Close,
    /// Take the rings down without a word: what stands in the store is of a newer device.
    Drop,
    /// The device is gone: take the rings down and forget it.
    Forget,
}

/// What to do with a device whose link is at `ours` when the store says `seen`.
///
/// The order of states is the one Linux netback understands (set_backend_state of its xenbus.c): it
/// goes to InitWait on our 1, to Connected on our 4, and through Closing to Closed on our 6.
#[must_use]
pub fn next(ours: Link, seen: Seen) -> Step {
    use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
    if !seen.exists {
        return Step::Forget;
    }
    match ours {
        Link::Idle => idle(seen),
        // As long as we have rings, 4 stands there; if not, the directory was made anew.
        _ if seen.front != Some(Connected) || !seen.same => Step::Drop,
        _ if !seen.fit => Step::Close,
        Link::Offered => match seen.back {
            Some(Connected) => Step::Connect,
            None | Some(Closing | Closed) => Step::Close,
            // A backend that was restarted just now finds our offer and takes it.
            Some(_) => Step::Wait,
        },
        Link::Up => match seen.back {
            // At the start again without having closed: restarted, it knows nothing of our rings.
            Some(Initialising | InitWait | Initialised) => Step::Close,
            None | Some(Closing | Closed) => Step::Close,
            Some(_) => Step::Wait,
        },
    }
}

/// Without rings: from whatever state stands there to an offer.
const fn idle(seen: Seen) -> Step {
    use State::{Closed, Closing, InitWait, Initialising};
    match (seen.front, seen.back) {
        (Some(Initialising), Some(InitWait)) if seen.fit => Step::Offer,
        // It is to go away, or cannot: it waits for our Closed.
        (Some(Initialising), Some(Closing)) => Step::Close,
        (Some(Initialising), _) => Step::Wait,
        // A backend rests in Closed until it is asked. From any other state it comes there by
        // itself, as our Closed stands before it.
        (Some(Closed), Some(InitWait | Closed)) if seen.online => Step::Init,
        (Some(Closed), _) => Step::Wait,
        // Not written by the toolstack yet, or on its way out.
        (None, _) => Step::Wait,
        // Any other state promises rings we do not have.
        (Some(_), _) => Step::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};

    const STATES: [Option<State>; 9] = [
        None,
        Some(Initialising),
        Some(InitWait),
        Some(Initialised),
        Some(Connected),
        Some(Closing),
        Some(Closed),
        Some(State::Reconfiguring),
        Some(State::Reconfigured),
    ];

    /// A row for each state of ours, a column for each of the backend: none, then 1 to 8.
    type Grid = [&'static str; 9];

    const IDLE: Grid = [
        ". . . . . . . . .",
        ". . O . . x . . .",
        "x x x x x x x x x",
        "x x x x x x x x x",
        "x x x x x x x x x",
        "x x x x x x x x x",
        ". . i . . . i . .",
        "x x x x x x x x x",
        "x x x x x x x x x",
    ];
    const OFFERED: Grid = [
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "x . . . C x x . .",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
    ];
    const UP: Grid = [
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "x x x x . x x . .",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
        "d d d d d d d d d",
    ];

    /// The grid holds for a device that is there, online, fit and the same; the rest is said here.
    fn expected(ours: Link, grid: &Grid, row: usize, column: usize, seen: Seen) -> Step {
        let linked = ours != Link::Idle;
        match grid[row].as_bytes()[2 * column] {
            _ if !seen.exists => Step::Forget,
            b'd' => Step::Drop,
            _ if linked && !seen.same => Step::Drop,
            _ if linked && !seen.fit => Step::Close,
            b'x' => Step::Close,
            b'O' if seen.fit => Step::Offer,
            b'i' if seen.online => Step::Init,
            b'C' => Step::Connect,
            _ => Step::Wait,
        }
    }

    #[test]
    fn every_combination_leads_to_its_step() {
        let mut combinations = 0;
        for (ours, grid) in [(Link::Idle, IDLE), (Link::Offered, OFFERED), (Link::Up, UP)] {
            for (row, front) in STATES.into_iter().enumerate() {
                for (column, back) in STATES.into_iter().enumerate() {
                    for flags in 0..16 {
                        let flag = |bit: u8| flags >> bit & 1 == 1;
                        let (exists, online, same, fit) = (flag(0), flag(1), flag(2), flag(3));
                        let seen = Seen { exists, front, back, online, same, fit };
                        let expected = expected(ours, &grid, row, column, seen);
                        assert_eq!(next(ours, seen), expected, "{ours:?} {seen:?}");
                        combinations += 1;
                    }
                }
            }
        }
        assert_eq!(combinations, 3 * 9 * 9 * 16);
    }

    /// Linux netback's answer to a state of ours (frontend_changed and set_backend_state).
    fn netback(back: State, front: State) -> State {
        match front {
            // Its probe, whatever we say.
            _ if back == Initialising => InitWait,
            Initialising => InitWait,
            Connected if matches!(back, InitWait | Connected) => Connected,
            Closing if back != Closed => Closing,
            Closed => Closed,
            _ => back,
        }
    }

    #[test]
    fn from_everywhere_a_linux_backend_is_connected_in_few_steps_and_stays_so() {
        for ours in [Link::Idle, Link::Offered, Link::Up] {
            for front in STATES.into_iter().flatten() {
                for back in [Initialising, InitWait, Connected, Closing, Closed] {
                    let (mut ours, mut front, mut back) = (ours, front, back);
                    for _ in 0..8 {
                        let (f, b) = (Some(front), Some(back));
                        let seen = Seen {
                            exists: true,
                            front: f,
                            back: b,
                            online: true,
                            same: true,
                            fit: true,
                        };
                        (ours, front) = match next(ours, seen) {
                            Step::Wait | Step::Forget => (ours, front),
                            Step::Init => (ours, Initialising),
                            Step::Offer => (Link::Offered, Connected),
                            Step::Connect => (Link::Up, front),
                            Step::Close => (Link::Idle, Closed),
                            Step::Drop => (Link::Idle, front),
                        };
                        back = netback(back, front);
                    }
                    assert_eq!((ours, front, back), (Link::Up, Connected, Connected));
                }
            }
        }
    }
}
