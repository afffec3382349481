//! What an observer in the world can tell of the ports that are given: nothing.
//!
//! The translator is asked through its front door, and judged by the same judges as allocators
//! planted to be caught. What only shows inside (that a search is keyed anew, and that a walk meets
//! every number) is tested beside the allocator, in src/ports_tests.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "ports/judges.rs"]
mod judges;
#[path = "ports/planted.rs"]
mod planted;

use common::{World, client, inside, remote, tuple, udp};
use judges::{Judge, Observed, foretold};
use planted::{Allocator, LowBitBiased, OneLcg, OneWalk, Sequential, Unkeyed, observe};
use std::collections::BTreeSet;
use wire::{DropReason, Proto};

const CLIENTS: u16 = 4;

/// Sockets of one client that take up this share of its ports.
fn filled(percent: u32, secret: u8) -> (World, BTreeSet<u16>) {
    let mut world = World::keyed(40 << 20, [secret; 32]);
    let mut free: BTreeSet<u16> = (1024..=u16::MAX).collect();
    let each = 64_512 / u32::from(CLIENTS) * percent / 100;
    for slot in 0..CLIENTS {
        for port in 0..u16::try_from(each).unwrap() {
            let sent = world.udp(slot, port, remote(1)).unwrap().tuple;
            assert!(free.remove(&sent.sport), "given twice");
        }
    }
    (world, free)
}

/// The ports of so many flows of which each is over before the next begins.
fn observed(percent: u32, secret: u8, count: usize) -> Observed {
    let (mut world, free) = filled(percent, secret);
    let asked = tuple(Proto::Udp, inside(0), 65_000, remote(2), 4000);
    let picks = std::iter::repeat_with(|| {
        let sent = world.send(client(0), asked, &udp()).unwrap().tuple;
        let flow = world.flow_out(&asked).unwrap();
        world.nat.close(world.now, flow);
        sent.sport
    });
    Observed { picks: picks.take(count).collect(), free }
}

const ENOUGH: usize = 60_000;

#[test]
fn n30_no_judge_finds_anything_however_full_it_is() {
    for percent in [0, 50, 90, 99] {
        let observed = observed(percent, 1, ENOUGH);
        for judge in Judge::ALL {
            let found = judge.deviation(&observed);
            assert!(found < judges::LIMIT, "{judge:?} at {percent} %: {found} deviations");
        }
    }
}

#[test]
fn n30_planted_allocators_are_found_out_by_the_judge_they_deserve() {
    let cases: [(Box<dyn Allocator>, &[Judge]); 3] = [
        (Box::new(Sequential(2000)), &[Judge::Pairs, Judge::Lag, Judge::LowBitLag]),
        (Box::new(LowBitBiased::new(3)), &[Judge::LowBits]),
        (Box::new(OneWalk::new(4)), &[Judge::LowBitLag]),
    ];
    for (mut allocator, judges) in cases {
        for percent in [0, 50, 90] {
            let observed = observe(allocator.as_mut(), percent, ENOUGH);
            for judge in judges {
                let found = judge.deviation(&observed);
                assert!(found > judges::LIMIT, "{judge:?} at {percent} %: {found} deviations");
            }
        }
    }
}

#[test]
fn n30_a_hundred_thousand_ports_foretell_none() {
    const OBSERVED: usize = 100_000;
    // By chance each enemy is right once in 64,512 guesses.
    let hits = foretold(&observed(0, 2, OBSERVED).picks);
    assert!(hits.iter().all(|hits| *hits <= 10), "{hits:?}");
    let [_, small_relation, _] = foretold(&observe(&mut Sequential(2000), 0, OBSERVED).picks);
    assert!(small_relation > OBSERVED / 4, "{small_relation}");
    let [three_outputs, ..] = foretold(&observe(&mut OneWalk::new(5), 0, OBSERVED).picks);
    assert!(three_outputs > OBSERVED / 5, "{three_outputs}");
    let [.., hidden_half] = foretold(&observe(&mut OneLcg(99), 0, OBSERVED).picks);
    assert!(hidden_half > OBSERVED / 4, "{hidden_half}");
}

#[test]
fn n30_who_knows_the_code_but_not_the_secret_knows_nothing() {
    let same = |a: &[u16], b: &[u16]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let [ours, theirs] = [6, 7].map(|secret| observed(0, secret, 1000).picks);
    assert!(same(&ours, &theirs) < 5);
    let [ours, theirs] = [(), ()].map(|()| observe(&mut Unkeyed::new(), 0, 1000).picks);
    assert_eq!(same(&ours, &theirs), 1000, "an enemy with the same code gets the same");
}

#[test]
fn n04_n24_when_a_share_is_used_up_the_next_flow_is_refused_at_once_and_nobody_loses_any() {
    let (mut world, free) = filled(100, 8);
    assert_eq!((free.len(), world.nat.stats().ports_free.udp), (0, 0));
    for slot in 0..CLIENTS {
        // Answered, so that none may be lost.
        for port in 0..16_128 {
            let asked = tuple(Proto::Udp, inside(slot), port, remote(1), 4000);
            let flow = world.flow_out(&asked).unwrap();
            let sent = world.nat.facts(flow).unwrap().sent;
            world.answer(sent).unwrap();
        }
    }
    let before = world.nat.stats();
    for port in 60_000..60_100 {
        assert_eq!(world.udp(0, port, remote(2)), Err(DropReason::QuotaExceeded));
    }
    assert_eq!(world.nat.stats(), before);
    // A socket that has a port needs no other.
    assert!(world.udp(0, 0, remote(2)).is_ok());
}
