//! The two ends of a ring against each other, and each against a peer that lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use xen::hypervisor::{Access, DomId, Hypervisor, Memory, Page};
use xen::netif::{Rx, Tx};
use xen::ring::{Back, Front, RingBroken, RingIndex, SLOTS};
use xen::sim::{Sim, SimMapped, SimPage, TouchKind};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

type Ends<L> = (Front<L, SimPage>, Back<L, SimMapped>);

fn ends<L: xen::ring::Layout>(sim: &Sim, start: u32) -> Ends<L> {
    let (mut h, mut g) = (sim.domain(FRONT), sim.domain(BACK));
    let page = h.page().unwrap();
    let gref = h.grant(BACK, &page, Access::ReadWrite).unwrap();
    let front = Front::starting_at(page, RingIndex(start));
    let back = Back::attach(g.map(FRONT, gref.number(), Access::ReadWrite).unwrap());
    (front, back.map_err(|(_, broken)| broken).unwrap())
}

fn slot(n: u32) -> [u8; 12] {
    let mut slot = [0xee; 12];
    slot[..4].copy_from_slice(&n.to_le_bytes());
    slot
}

#[test]
fn a_fresh_ring_is_zero_but_for_the_events() {
    let sim = Sim::new(0);
    let page = sim.domain(FRONT).page().unwrap();
    page.write(0, &[0xff; 4096]);
    let frame = page.frame();
    let _front = Front::<Tx, _>::new(page);
    let bytes = sim.peek(frame);
    assert_eq!(bytes[..16], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert!(bytes[16..].iter().all(|b| *b == 0));
}

#[test]
fn slots_stand_where_ring_h_puts_them() {
    let sim = Sim::new(0);
    let (mut tx, _) = ends::<Tx>(&sim, 257);
    tx.push(&slot(7)).unwrap();
    let bytes = sim.peek(tx.page().frame());
    assert_eq!(bytes[64 + 12..64 + 24], slot(7));
    let (mut rx, _) = ends::<Rx>(&sim, 255);
    rx.push(&[9; 8]).unwrap();
    let bytes = sim.peek(rx.page().frame());
    assert_eq!(bytes[64 + 255 * 8..64 + 256 * 8], [9; 8]);
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let sim = Sim::new(0);
    let (mut front, mut back) = ends::<Tx>(&sim, 0);
    front.push(&slot(1)).unwrap();
    assert_eq!(back.take(), Ok(None));
    assert!(front.publish(), "the backend asked for the first request");
    let (index, taken) = back.take().unwrap().unwrap();
    assert_eq!((index, taken), (RingIndex(0), slot(1)));
    back.answer(index, &slot(2));
    assert_eq!(front.take(), Ok(None));
    assert!(back.publish());
    assert_eq!(front.take(), Ok(Some((RingIndex(0), slot(2)))));
    assert!(!front.publish() && !back.publish(), "nothing new, no signal");
}

#[test]
fn a_full_ring_takes_no_more() {
    let sim = Sim::new(0);
    let (mut front, mut back) = ends::<Tx>(&sim, u32::MAX - 100);
    for n in 0..SLOTS {
        assert_eq!(front.free(), SLOTS - n);
        front.push(&slot(n)).unwrap();
    }
    assert_eq!(front.push(&slot(0)), None);
    let _ = front.publish();
    assert_eq!(back.requests(), Ok(SLOTS));
    let (index, _) = back.take().unwrap().unwrap();
    back.answer(index, &slot(0));
    let _ = back.publish();
    assert_eq!(front.push(&slot(0)), None, "the response was not taken yet");
    front.take().unwrap().unwrap();
    assert!(front.push(&slot(0)).is_some());
}

#[test]
fn a_signal_is_asked_for_exactly_when_the_event_is_passed() {
    let sim = Sim::new(0);
    for start in [0, u32::MAX - 3] {
        let (mut front, mut back) = ends::<Tx>(&sim, start);
        assert!(!back.arm(3).unwrap());
        let signals: Vec<bool> = (0..5)
            .map(|n| {
                front.push(&slot(n)).unwrap();
                front.publish()
            })
            .collect();
        assert_eq!(signals, [false, false, true, false, false]);
        assert!(back.arm(1).unwrap(), "there is something to take: do not sleep");
    }
}

#[test]
fn arming_sees_what_came_in_between() {
    let sim = Sim::new(0);
    let (front, mut back) = ends::<Tx>(&sim, 0);
    let frame = front.page().frame();
    let publisher = sim.clone();
    let raced = Rc::new(Cell::new(false));
    let seen = Rc::clone(&raced);
    // The frontend publishes just before the backend writes its event: no signal will come.
    sim.on_touch(move |touch, bytes| {
        if touch.by == BACK && touch.kind == TouchKind::Write && touch.offset == 4 {
            bytes[0] = 1;
            seen.set(true);
        }
        let _ = (&publisher, frame);
    });
    assert!(back.arm(1).unwrap());
    assert!(raced.get());
}

#[test]
fn answers_wait_for_those_before_them() {
    let sim = Sim::new(0);
    let (mut front, mut back) = ends::<Rx>(&sim, u32::MAX);
    for n in 0..3 {
        front.push(&[n; 8]).unwrap();
    }
    let _ = front.publish();
    let taken: Vec<_> = std::iter::from_fn(|| back.take().unwrap()).map(|(i, _)| i).collect();
    back.answer(taken[2], &[2; 8]);
    back.answer(taken[1], &[1; 8]);
    assert!(!back.publish());
    assert_eq!(front.take(), Ok(None));
    back.answer(taken[0], &[0; 8]);
    let _ = back.publish();
    for (n, index) in (0..3).zip([u32::MAX, 0, 1]) {
        assert_eq!(front.take(), Ok(Some((RingIndex(index), [n; 8]))));
    }
    assert_eq!(back.outstanding(), 0);
}

#[test]
fn a_frontend_that_claims_too_much_is_found_out() {
    let sim = Sim::new(0);
    for (start, claimed) in [(0, 257), (0, u32::MAX), (u32::MAX, 256), (5, 4)] {
        let (front, mut back) = ends::<Tx>(&sim, start);
        sim.poke(front.page().frame(), 0, &u32::to_le_bytes(claimed));
        let broken = RingBroken { from: RingIndex(start), claimed: RingIndex(claimed) };
        assert_eq!(back.take(), Err(broken), "{start} {claimed}");
        assert_eq!(back.arm(1), Err(broken));
    }
}

#[test]
fn a_frontend_cannot_take_back_what_it_published() {
    let sim = Sim::new(0);
    let (mut front, mut back) = ends::<Tx>(&sim, 0);
    assert!((0..4).all(|n| front.push(&slot(n)).is_some()));
    let _ = front.publish();
    back.take().unwrap().unwrap();
    sim.poke(front.page().frame(), 0, &[2]);
    assert!(back.requests().is_err());
}

#[test]
fn a_backend_that_answers_what_was_never_asked_is_found_out() {
    let sim = Sim::new(0);
    let (mut front, back) = ends::<Tx>(&sim, 10);
    front.push(&slot(0)).unwrap();
    let _ = front.publish();
    front.push(&slot(1)).unwrap();
    for claimed in [12u32, 9, 300] {
        sim.poke(front.page().frame(), 8, &claimed.to_le_bytes());
        assert!(front.take().is_err(), "{claimed}");
    }
    drop(back);
}

#[test]
fn a_ring_with_impossible_indices_cannot_be_attached() {
    let sim = Sim::new(0);
    let mut h = sim.domain(FRONT);
    let page = h.page().unwrap();
    page.store(0, 300);
    page.store(8, 43);
    assert!(Back::<Tx, _>::attach(page).is_err());
}

#[test]
fn every_slot_is_read_once() {
    let sim = Sim::new(0);
    let (mut front, mut back) = ends::<Tx>(&sim, 0);
    for n in 0..10 {
        front.push(&slot(n)).unwrap();
    }
    let _ = front.publish();
    let reads = Rc::new(Cell::new(0));
    let count = Rc::clone(&reads);
    sim.on_touch(move |touch, bytes| {
        if touch.kind == TouchKind::Read && touch.offset >= 64 {
            count.set(count.get() + 1);
            // Whoever looks again sees something else.
            bytes[touch.offset..touch.offset + touch.len].fill(0x55);
        }
    });
    let taken = std::iter::from_fn(|| back.take().unwrap()).count();
    assert_eq!((taken, reads.get()), (10, 10));
}

proptest! {
    /// Any interleaving, over the wrap of the indices, is a queue in both directions, and a peer that
    /// sleeps after arming is signalled.
    #[test]
    fn two_honest_ends_are_two_queues(
        start in any::<u32>().prop_map(|n| n % 600).prop_map(|n| 0u32.wrapping_sub(n)),
        steps in prop::collection::vec((0u8..5, 1u32..40), 1..200),
    ) {
        let sim = Sim::new(0);
        let (mut front, mut back) = ends::<Tx>(&sim, start);
        let mut asked: VecDeque<u32> = VecDeque::new();
        let mut taken: VecDeque<(RingIndex, u32)> = VecDeque::new();
        let mut answered: VecDeque<u32> = VecDeque::new();
        let (mut next, mut asleep) = (0, false);
        for (what, times) in steps {
            match what {
                0 => for _ in 0..times {
                    if front.push(&slot(next)).is_some() {
                        asked.push_back(next);
                        next += 1;
                    }
                },
                1 => {
                    let shown = back.requests().unwrap();
                    let signal = front.publish();
                    let now = back.requests().unwrap();
                    if asleep && now > shown {
                        prop_assert!(signal, "a sleeping backend was not signalled");
                        asleep = false;
                    }
                }
                2 => for _ in 0..times {
                    let Some((index, s)) = back.take().unwrap() else { break };
                    let n = asked.pop_front().unwrap();
                    prop_assert_eq!(s, slot(n));
                    taken.push_back((index, n));
                    asleep = false;
                },
                3 => {
                    for _ in 0..times {
                        let Some((index, n)) = taken.pop_front() else { break };
                        back.answer(index, &slot(n + 1_000_000));
                        answered.push_back(n);
                    }
                    let _ = back.publish();
                    while let Some((_, s)) = front.take().unwrap() {
                        prop_assert_eq!(s, slot(answered.pop_front().unwrap() + 1_000_000));
                    }
                    prop_assert!(answered.is_empty());
                }
                _ => asleep = !back.arm(1).unwrap(),
            }
        }
    }

    /// Whatever a hostile peer writes into the page at whatever moment, no call loops or stops, and
    /// no more than a ring full comes out between two publications.
    #[test]
    fn a_hostile_page_is_an_error_at_most(
        writes in prop::collection::vec((0usize..4, any::<u32>()), 1..300),
    ) {
        let sim = Sim::new(0);
        let (mut front, mut back) = ends::<Tx>(&sim, u32::MAX - 10);
        let mut writes = writes.into_iter();
        sim.on_touch(move |_, bytes| {
            if let Some((word, value)) = writes.next() {
                bytes[word * 4..word * 4 + 4].copy_from_slice(&value.to_le_bytes());
            }
        });
        for n in 0..20 {
            let _ = front.push(&slot(n));
            let _ = front.publish();
            let mut taken = 0;
            while let Ok(Some((index, s))) = back.take() {
                back.answer(index, &s);
                taken += 1;
                prop_assert!(taken <= SLOTS);
            }
            let _ = back.publish();
            while let Ok(Some(_)) = front.take() {}
            prop_assert!(front.outstanding() <= SLOTS);
        }
    }
}
