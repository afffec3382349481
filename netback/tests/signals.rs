//! When a client is signalled about its own frames: never for nothing, and late only if they are small.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::{BACK, Machine, frame};
use std::time::Duration;
use wire::Offload;
use xen::sim::peer_front::{Manners, Outgoing, PeerFront};

/// An acknowledgement.
const SMALL: usize = 66;
/// The shortest frame whose sender may be waiting for the signal.
const LARGE: usize = 129;
/// When a client knows at the latest that a small frame of its is sent.
const QUIET: Duration = Duration::from_millis(10);

fn machine(manners: Manners) -> (Machine, PeerFront) {
    let m = Machine::new(1);
    let (peer, _) = m.connected(10, manners);
    // What is to be said in XenStore is said.
    m.run(Duration::from_secs(1));
    (m, peer)
}

/// Has the client send so many frames of `len` bytes, and netback take and answer them.
fn pass(m: &Machine, peer: &PeerFront, frames: usize, len: usize) {
    for n in 0..frames {
        assert!(peer.send(&Outgoing::plain(frame(len, u8::try_from(n).unwrap()))));
    }
    m.sim.settle();
    assert_eq!(m.back().pull_all().0.len(), frames);
    m.sim.settle();
}

/// Wakes netback, which tells then when it wants to be woken next, and lets time pass.
fn wait(m: &Machine, peer: &PeerFront, time: Duration) {
    peer.signal();
    m.run(time);
}

fn signals(m: &Machine, act: impl FnOnce()) -> u64 {
    let before = m.sim.counters(BACK).notifies;
    act();
    m.sim.counters(BACK).notifies - before
}

#[test]
fn a_large_frame_is_told_at_once() {
    let (m, peer) = machine(Manners::default());
    assert_eq!(signals(&m, || pass(&m, &peer, 1, LARGE)), 1);
    assert_eq!(peer.in_flight(), 0);
}

#[test]
fn a_small_frame_is_told_ten_milliseconds_later_and_once() {
    let (m, peer) = machine(Manners::default());
    assert_eq!(signals(&m, || pass(&m, &peer, 1, SMALL)), 0);
    assert_eq!(peer.in_flight(), 1, "the client sleeps");
    let early = QUIET.checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(signals(&m, || wait(&m, &peer, early)), 0);
    assert_eq!(signals(&m, || wait(&m, &peer, QUIET)), 1);
    assert_eq!(peer.in_flight(), 0);
    assert_eq!(signals(&m, || wait(&m, &peer, 10 * QUIET)), 0);
}

#[test]
fn a_small_frame_is_told_with_what_the_client_gets() {
    let (m, peer) = machine(Manners::default());
    let port = m.back().port_of(10);
    let told = signals(&m, || {
        pass(&m, &peer, 1, SMALL);
        m.back().send(port, &frame(60, 1), 60, &[], Offload::NONE).unwrap();
        m.sim.settle();
    });
    assert_eq!((told, peer.in_flight(), peer.take_received().len()), (1, 0, 1));
    assert_eq!(signals(&m, || wait(&m, &peer, 10 * QUIET)), 0);
}

#[test]
fn who_has_seen_the_answer_by_another_signal_is_not_told_of_it() {
    let (m, peer) = machine(Manners { split: true, ..Manners::default() });
    let port = m.back().port_of(10);
    let told = signals(&m, || {
        pass(&m, &peer, 1, SMALL);
        m.back().send(port, &frame(60, 1), 60, &[], Offload::NONE).unwrap();
        m.sim.settle();
    });
    // Woken for what it got, it looks at both rings.
    assert_eq!((told, peer.in_flight()), (1, 0));
    assert_eq!(signals(&m, || wait(&m, &peer, 10 * QUIET)), 0);
}

#[test]
fn many_small_frames_are_not_kept_back() {
    let (m, peer) = machine(Manners::default());
    assert_eq!(signals(&m, || pass(&m, &peer, 31, SMALL)), 0);
    assert_eq!(signals(&m, || pass(&m, &peer, 1, SMALL)), 1);
    assert_eq!(peer.in_flight(), 0);
}
