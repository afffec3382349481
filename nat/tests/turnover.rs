//! Turnover: a thousand new connections a second from four clients to one server. Each is opened,
//! used and closed as browsers do it; ports come back in time, and none comes back too early.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{ACK, FIN_ACK, SYN, SYN_ACK, World, client, inside, remote, segment, tuple};
use core::time::Duration;
use nat::QUARANTINE;
use std::collections::VecDeque;
use wire::{Proto, Tuple};

const CLIENTS: u16 = 4;
const PER_MILLISECOND: u16 = 1;
const SECONDS: u64 = 600;

/// Ports that Linux gives to its own connections, from the first to the last and over again.
const EPHEMERAL: std::ops::Range<u16> = 32_768..61_000;

/// A connection between its opening and its end.
struct Open {
    slot: u16,
    asked: Tuple,
    sent: Tuple,
}

fn opened(world: &mut World, slot: u16, port: u16) -> Open {
    let asked = tuple(Proto::Tcp, inside(slot), port, remote(1), 443);
    let sent = world.send(client(slot), asked, &segment(SYN, 100, 0, 0)).unwrap().tuple;
    world.receive(sent.reversed(), &segment(SYN_ACK, 900, 101, 0)).unwrap();
    world.send(client(slot), asked, &segment(ACK, 101, 901, 500)).unwrap();
    Open { slot, asked, sent }
}

fn closed(world: &mut World, open: &Open) {
    let Open { slot, asked, sent } = *open;
    world.receive(sent.reversed(), &segment(ACK, 901, 601, 1400)).unwrap();
    world.send(client(slot), asked, &segment(FIN_ACK, 601, 2301, 0)).unwrap();
    world.receive(sent.reversed(), &segment(FIN_ACK, 2301, 602, 0)).unwrap();
    world.send(client(slot), asked, &segment(ACK, 602, 2302, 0)).unwrap();
}

#[test]
fn a_thousand_connections_a_second_go_on_for_ever() {
    let mut world = World::sized(16 << 20);
    let mut ports = [EPHEMERAL.start; CLIENTS as usize];
    let mut open: VecDeque<Open> = VecDeque::new();
    let mut free_since = vec![None; 65_536];
    let mut most_held = 0;
    for millisecond in 0..SECONDS * 1000 {
        world.now = world.now + Duration::from_millis(1);
        for nth in 0..PER_MILLISECOND {
            let slot = u16::try_from((millisecond + u64::from(nth)) % u64::from(CLIENTS)).unwrap();
            let port = &mut ports[usize::from(slot)];
            *port = if *port + 1 < EPHEMERAL.end { *port + 1 } else { EPHEMERAL.start };
            let connection = opened(&mut world, slot, *port);
            let external = usize::from(connection.sent.sport);
            if let Some(since) = free_since[external] {
                assert!(world.now.since(since) >= QUARANTINE, "port {external} too early");
            }
            open.push_back(connection);
        }
        // Each is used for a second.
        if open.len() > 1000 {
            let connection = open.pop_front().unwrap();
            closed(&mut world, &connection);
            free_since[usize::from(connection.sent.sport)] = Some(world.now);
        }
        world.nat.tick(world.now, 64);
        most_held = most_held.max(world.nat.stats().flows);
    }
    let stats = world.nat.stats();
    assert_eq!(stats.opened, SECONDS * 1000 * u64::from(PER_MILLISECOND));
    assert_eq!((stats.lost_half_open, stats.lost_idle, stats.flushes), (0, 0, 0));
    // A second in use, ten closed, one of rounding: what a thousand a second come to.
    assert!(most_held <= 12_500, "{most_held} flows at once");
    drop(open);
    world.wait(7442);
    assert_eq!((world.nat.stats().flows, world.nat.stats().ports_free.tcp), (0, 64_512));
}
