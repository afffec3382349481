//! Where many flows end at once, and where time stands still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{EXTERNAL, SYN, World, client, inside, remote, segment, tuple, udp};
use core::time::Duration;
use nat::{Direction, Forward, NewInflow, OneToOne, Sender, Statics};
use wire::{DropReason, Port, Proto, Quote, Tuple, Uplink};

/// A world with so many flows of client 1, and one of client 2. The sent tuples of both.
fn crowded(flows: u16) -> (World, Vec<Tuple>, Tuple) {
    let mut world = World::sized(8 << 20);
    let sent = (0..flows).map(|n| world.udp(1, 5000, remote(n)).unwrap().tuple).collect();
    let other = world.udp(2, 5000, remote(1)).unwrap().tuple;
    (world, sent, other)
}

#[test]
fn n24_a_client_that_leaves_is_gone_at_once_and_taken_away_in_slices() {
    let (mut world, sent, other) = crowded(3000);
    world.nat.client_gone(world.now, client(1));
    let left = world.nat.stats().flows;
    assert!(left > 1, "not all of them in one call");
    for sent in &sent {
        assert_eq!(world.flow_in(&sent.reversed()), None);
    }
    assert_eq!(world.nat.holding(client(1)), None);
    assert!(world.answer(other).is_ok());
    // Who comes into the same place waits until it is clean; another place is free at once, even
    // with the same addresses.
    let next = tuple(Proto::Udp, inside(1), 5000, remote(2999), 4000);
    assert_eq!(world.send(Port::new(1, 1), next, &udp()), Err(DropReason::QuotaExceeded));
    assert!(world.send(client(7), next, &udp()).is_ok());
    assert_eq!(world.nat.tick(world.now, 100), Some(world.now), "there is more to do");
    assert_eq!(world.nat.stats().flows, left + 1 - 100 - 1);
    while world.nat.tick(world.now, 100) == Some(world.now) {}
    assert_eq!(world.nat.stats().flows, 2);
    let mine = tuple(Proto::Udp, inside(9), 5000, remote(1), 4000);
    assert_eq!(world.send(Port::new(1, 1), mine, &udp()).unwrap().client, Port::new(1, 1));
}

#[test]
fn n24_a_flush_ends_all_flows_at_once_and_no_client() {
    let (mut world, sent, other) = crowded(3000);
    world.nat.flush(world.now);
    assert_eq!(world.answer(other), Err(DropReason::Unsolicited));
    assert!(sent.iter().all(|sent| world.flow_in(&sent.reversed()).is_none()));
    while world.nat.tick(world.now, 100) == Some(world.now) {}
    let stats = world.nat.stats();
    assert_eq!((stats.flows, stats.mappings, stats.ports_free.udp), (0, 0, 64_512));
    assert!(world.udp(1, 5000, remote(1)).is_ok() && world.udp(2, 5000, remote(1)).is_ok());
    // One that leaves while its flows are being taken away is gone when they are.
    let (mut world, ..) = crowded(3000);
    world.nat.flush(world.now);
    world.nat.client_gone(world.now, client(1));
    while world.nat.tick(world.now, 100) == Some(world.now) {}
    assert_eq!(world.nat.holding(client(1)), None);
    assert!(world.nat.holding(client(2)).is_some());
}

#[test]
fn a_flush_of_one_uplink_ends_its_flows_at_once_and_no_other() {
    let (mut world, sent, _) = crowded(3000);
    let lab = Uplink::new(1).unwrap();
    (world.uplink, world.external) = (lab, [198, 18, 0, 1].into());
    let there: Vec<_> =
        (0..2000).map(|n| world.udp(3, 5000 + n, remote(n % 50)).unwrap().tuple).collect();
    world.nat.flush_uplink(world.now, Uplink::FIRST);
    let found = |world: &World, uplink, sent: &[Tuple]| {
        let back = |sent: &&Tuple| {
            let answer = sent.reversed();
            world.nat.find_in(world.now, world.nat.hash(&answer), uplink, &answer).is_some()
        };
        sent.iter().filter(back).count()
    };
    assert_eq!(found(&world, Uplink::FIRST, &sent), 0);
    assert_eq!(found(&world, lab, &there), 2000);
    // A socket whose flows are over begins another one at once, and has no short way meanwhile.
    (world.uplink, world.external) = (Uplink::FIRST, EXTERNAL);
    let again = world.udp(1, 5000, remote(1)).unwrap().tuple;
    assert_eq!(found(&world, Uplink::FIRST, &[again]), 1);
    while world.nat.tick(world.now, 100) == Some(world.now) {}
    let stats = world.nat.stats();
    assert_eq!((stats.flows, stats.mappings), (2001, 2001));
    assert_eq!((found(&world, Uplink::FIRST, &[again]), found(&world, lab, &there)), (1, 2000));
    // Twice is no more than once.
    world.nat.flush_uplink(world.now, lab);
    world.nat.flush_uplink(world.now, lab);
    while world.nat.tick(world.now, 100) == Some(world.now) {}
    assert_eq!((world.nat.stats().flows, found(&world, lab, &there)), (1, 0));
}

#[test]
fn what_comes_by_another_uplink_finds_no_flow() {
    let mut world = World::new();
    let lab = Uplink::new(1).unwrap();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    let answer = sent.reversed();
    let hash = world.nat.hash(&answer);
    let id = world.nat.find_in(world.now, hash, Uplink::FIRST, &answer).unwrap();
    assert_eq!(world.nat.find_in(world.now, hash, lab, &answer), None);
    world.nat.shorten(id, Direction::In, 1);
    let now = world.nat.moment(world.now);
    let mut is_short = |uplink| world.nat.shortcut(now, id, Sender::World(uplink), 1).is_some();
    assert_eq!([Uplink::FIRST, lab].map(&mut is_short), [true, false]);
    let quote = Quote { tuple: sent, l3: 0, l4: 0, tcp_seq: None };
    let error =
        |uplink| world.nat.icmp_error(world.now, Sender::World(uplink), remote(9), &quote).is_ok();
    assert_eq!([Uplink::FIRST, lab].map(error), [true, false]);
    assert_eq!((world.nat.uplink(id), world.nat.came_by(id)), (Some(Uplink::FIRST), None));
}

#[test]
fn n24_time_in_which_nothing_ran_ages_nothing() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    world.wait(200);
    let pause = Duration::from_secs(3 * 3600);
    world.now = world.now + pause;
    world.nat.paused(pause);
    assert!(world.answer(sent).is_ok());
    let next = world.nat.tick(world.now, 10).unwrap();
    assert_eq!(next, world.now + Duration::from_secs(101));
    world.wait(100);
    assert!(world.answer(sent).is_ok());
    world.wait(1);
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
    assert_eq!(world.nat.stats().flows, 0);
}

#[test]
fn a_flow_from_the_world_keeps_to_the_books() {
    let mut world = World::new();
    let forward = Forward {
        uplink: Uplink::FIRST,
        proto: Proto::Tcp,
        external: EXTERNAL,
        port: 8022,
        from: vec![],
        to: vec![(inside(1), 22)],
        balance: nat::Balance::RoundRobin,
    };
    let pair =
        OneToOne { uplink: Uplink::FIRST, inside: inside(2), external: [192, 0, 2, 2].into() };
    let statics = Statics { forwards: vec![forward], one_to_one: vec![pair], ..Statics::default() };
    let free = world.nat.stats().ports_free.tcp;
    world.nat.set_statics(statics).unwrap();
    assert_eq!(world.nat.stats().ports_free.tcp, free - 1);
    let asks = tuple(Proto::Tcp, remote(1), 999, EXTERNAL, 8022);
    assert_eq!(world.nat.inbound(&asks, |_| false), None, "nobody is there");
    let to = world.nat.inbound(&asks, |_| true).unwrap().to;
    assert_eq!(to, (inside(1), 22));
    let transport = &segment(SYN, 1, 0, 0);
    let uplink = Uplink::FIRST;
    let new = NewInflow { client: client(1), uplink, tuple: asks, transport, to, epoch: 1 };
    let (id, got) = world.nat.open_inbound(world.now, &new).unwrap();
    assert_eq!(got.tuple, tuple(Proto::Tcp, remote(1), 999, inside(1), 22));
    let facts = world.nat.facts(id).unwrap();
    assert_eq!((facts.opened, facts.sent.reversed()), (Direction::In, asks));
    assert_eq!(world.nat.still_lets_in(&facts), Some(true));
    let holding = world.nat.holding(client(1)).unwrap();
    assert_eq!((holding.flows, holding.ports.tcp), (1, 0), "no port is drawn");
    // The same two ends cannot meet under two names.
    assert_eq!(world.nat.open_inbound(world.now, &new).err(), Some(DropReason::Unsolicited));
    // A client whose address is its own keeps its port, and uses none of the others.
    let out = tuple(Proto::Udp, inside(2), 53, remote(1), 4000);
    let sent = world.send(client(2), out, &udp()).unwrap().tuple;
    assert_eq!((sent.src, sent.sport), (pair.external, 53));
    assert!(world.answer(sent).is_ok());
    world.nat.set_statics(Statics::default()).unwrap();
    assert_eq!(world.nat.stats().ports_free.tcp, free);
    assert_eq!(world.nat.still_lets_in(&facts), None);
    world.nat.close(world.now, id);
    world.wait(301);
    let stats = world.nat.stats();
    assert_eq!((stats.flows, stats.mappings, stats.ports_free.tcp), (0, 0, free));
}

#[test]
fn a_port_that_is_written_down_while_a_client_has_it_is_not_drawn_again() {
    let mut world = World::new();
    let free = world.nat.stats().ports_free.udp;
    let port = world.udp(1, 5000, remote(1)).unwrap().tuple.sport;
    let forward = Forward {
        uplink: Uplink::FIRST,
        proto: Proto::Udp,
        external: EXTERNAL,
        port,
        from: vec![],
        to: vec![(inside(2), 9)],
        balance: nat::Balance::Hash,
    };
    let forwards = vec![forward];
    world.nat.set_statics(Statics { forwards, ..Statics::default() }).unwrap();
    assert!(world.udp(1, 5000, remote(2)).is_ok(), "who has it keeps it");
    world.wait(301);
    assert_eq!(world.nat.stats().ports_free.udp, free - 1);
    world.nat.set_statics(Statics::default()).unwrap();
    assert_eq!(world.nat.stats().ports_free.udp, free);
}
