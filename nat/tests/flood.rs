//! Neighbours: sixty-four clients behind one translator, one of which floods it with everything a
//! client can send. The others lose nothing, are refused nothing, and what they are told is the same
//! to the bit as if there were no flood.
//!
//! `TIDEGATE_FLOOD=full` floods with all of 100,000 packets a second instead of a part of them,
//! `TIDEGATE_FLOOD=hour` does so for an hour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{
    ACK, FIN_ACK, SYN, SYN_ACK, World, client, echo, inside, remote, segment, tuple, udp,
};
use core::time::Duration;
use nat::Passage;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use wire::{DropReason, Instant, Port, Proto, Transport, Tuple};

const CLIENTS: u16 = 64;
const FLOODER: u16 = CLIENTS - 1;

/// How hard, and how long.
#[derive(Clone, Copy)]
struct Flood {
    packets_per_millisecond: u32,
    seconds: u64,
}

impl Flood {
    /// What the environment asks for. The share of the one who floods is used up within the first
    /// second either way; the rest of the packets only say so more often.
    fn asked() -> Self {
        match std::env::var("TIDEGATE_FLOOD").as_deref() {
            Ok("hour") => Self { packets_per_millisecond: 100, seconds: 3600 },
            Ok("full") => Self { packets_per_millisecond: 100, seconds: 600 },
            _ => Self { packets_per_millisecond: 5, seconds: 600 },
        }
    }

    const fn none(self) -> Self {
        Self { packets_per_millisecond: 0, ..self }
    }
}

/// What a neighbour saw: when, what it did, and what came of it. Of an external port only whether it
/// is the one its socket had before.
type Page = (Instant, Port, &'static str, Result<(Tuple, bool), DropReason>);

/// Everybody but the flooder, and what they noted.
struct Neighbours {
    diary: Vec<Page>,
    ports: BTreeMap<(Port, Tuple), u16>,
}

impl Neighbours {
    fn send(
        &mut self,
        world: &mut World,
        what: &'static str,
        asked: Tuple,
        slot: u16,
        transport: &Transport,
    ) -> Option<Tuple> {
        let from = client(slot);
        let got = world.send(from, asked, transport);
        let noted = got.map(|Passage { tuple, .. }| {
            let before = self.ports.insert((from, asked), tuple.sport);
            let same = before.is_none_or(|port| port == tuple.sport);
            (Tuple { sport: 0, ..tuple }, same)
        });
        self.diary.push((world.now, from, what, noted));
        got.ok().map(|passage| passage.tuple)
    }

    fn answered(
        &mut self,
        world: &mut World,
        what: &'static str,
        slot: u16,
        sent: Option<Tuple>,
        transport: &Transport,
    ) {
        let got = sent.ok_or(DropReason::Unsolicited).and_then(|sent| {
            world.receive(sent.reversed(), transport).map(|passage| (passage.tuple, true))
        });
        self.diary.push((world.now, client(slot), what, got));
    }

    /// One second of a neighbour's life.
    fn live(&mut self, world: &mut World, slot: u16, second: u16) {
        let long = tuple(Proto::Tcp, inside(slot), 22_222, remote(1), 22);
        if second == 0 {
            let sent = self.send(world, "open", long, slot, &segment(SYN, 100, 0, 0));
            self.answered(world, "open", slot, sent, &segment(SYN_ACK, 900, 101, 0));
            self.send(world, "open", long, slot, &segment(ACK, 101, 901, 0));
        } else if second.is_multiple_of(10) {
            let sent = self.send(world, "work", long, slot, &segment(ACK, 101, 901, 0));
            self.answered(world, "work", slot, sent, &segment(ACK, 901, 101, 0));
        }
        let fresh = tuple(Proto::Udp, inside(slot), 2000 + second % 1000, remote(second), 4000);
        let sent = self.send(world, "talk", fresh, slot, &udp());
        self.answered(world, "talk", slot, sent, &udp());
        let query = tuple(Proto::Udp, inside(slot), 5000 + second, remote(2), 53);
        let sent = self.send(world, "ask", query, slot, &udp());
        self.answered(world, "ask", slot, sent, &udp());
        if second.is_multiple_of(5) {
            let ping = tuple(Proto::Icmp, inside(slot), second, remote(3), 0);
            let sent = self.send(world, "ping", ping, slot, &echo(false));
            self.answered(world, "ping", slot, sent, &echo(true));
        }
        let short = tuple(Proto::Tcp, inside(slot), 10_000 + second, remote(4), 443);
        let sent = self.send(world, "fetch", short, slot, &segment(SYN, 1, 0, 0));
        self.answered(world, "fetch", slot, sent, &segment(SYN_ACK, 1, 2, 0));
        self.send(world, "fetch", short, slot, &segment(FIN_ACK, 2, 2, 0));
        self.answered(world, "fetch", slot, sent, &segment(FIN_ACK, 2, 3, 0));
        self.send(world, "fetch", short, slot, &segment(ACK, 3, 3, 0));
    }
}

/// The one who floods, and an accomplice in the world who answers.
struct Flooder {
    rng: Pcg64Mcg,
    sent: Vec<Tuple>,
}

impl Flooder {
    fn send(&mut self, world: &mut World) {
        let dice = self.rng.next_u64();
        let [a, b, c, kind, nth, ..] = dice.to_le_bytes();
        let [to, from] = [u16::from_le_bytes([a, b]), u16::from_le_bytes([b, c])];
        let me = inside(FLOODER);
        let got = match kind % 8 {
            0 | 1 => {
                let asked = tuple(Proto::Tcp, me, from, remote(to), 443);
                world.send(client(FLOODER), asked, &segment(SYN, 1, 0, 0))
            }
            2 => world.udp(FLOODER, from, remote(to)),
            // One socket, the whole world.
            3 => world.udp(FLOODER, 1, remote(to)),
            4 => {
                let asked = tuple(Proto::Icmp, me, from, remote(to), 0);
                world.send(client(FLOODER), asked, &echo(false))
            }
            // What belongs to nothing.
            5 => {
                let asked = tuple(Proto::Tcp, me, from, remote(to), 443);
                world.send(client(FLOODER), asked, &segment(ACK, 1, 1, 0))
            }
            // The accomplice answers, so that not all is half-open, or knocks at any port.
            _ => {
                let sent = self.sent[usize::from(nth)];
                let _ = match sent.proto {
                    Proto::Tcp => world.receive(sent.reversed(), &segment(SYN_ACK, 1, 2, 0)),
                    Proto::Udp => world.receive(sent.reversed(), &udp()),
                    Proto::Icmp | Proto::Icmpv6 => world.receive(sent.reversed(), &echo(true)),
                };
                return;
            }
        };
        if let Ok(passage) = got {
            self.sent[usize::from(nth)] = passage.tuple;
        }
    }
}

/// What the neighbours noted.
fn lived_through(flood: Flood) -> (Vec<Page>, nat::Stats) {
    let mut world = World::sized(8 << 20);
    let mut neighbours = Neighbours { diary: Vec::new(), ports: BTreeMap::new() };
    let nobody = tuple(Proto::Udp, remote(9), 9, remote(9), 9);
    let mut flooder = Flooder { rng: Pcg64Mcg::from_seed([5; 16]), sent: vec![nobody; 256] };
    // All are there from the start: who comes later makes everybody's share smaller.
    for slot in 0..CLIENTS {
        world.udp(slot, 1, remote(0)).unwrap();
    }
    for millisecond in 0..flood.seconds * 1000 {
        world.now = world.now + Duration::from_millis(1);
        for _ in 0..flood.packets_per_millisecond {
            flooder.send(&mut world);
        }
        // Neighbours come one after the other, each with a time of its own.
        let (second, slot) = (millisecond / 1000, millisecond % 1000 / 15);
        if millisecond % 15 == 0 && slot < u64::from(FLOODER) {
            let second = u16::try_from(second).unwrap();
            neighbours.live(&mut world, u16::try_from(slot).unwrap(), second);
        }
        if millisecond.is_multiple_of(10) {
            world.nat.tick(world.now, 1024);
        }
        if flood.packets_per_millisecond > 0 && millisecond.is_multiple_of(1000) {
            stays_within_its_share(&world);
        }
    }
    (neighbours.diary, world.nat.stats())
}

fn stays_within_its_share(world: &World) {
    let (share, held) = (world.nat.share(), world.nat.holding(client(FLOODER)).unwrap());
    assert!(held.flows <= share.flows, "{held:?} of {share:?}");
    for proto in Proto::ALL {
        assert!(held.ports.of(proto) <= share.ports.of(proto), "{held:?} of {share:?}");
    }
}

#[test]
fn n24_n32_a_flood_costs_no_neighbour_anything_and_tells_it_nothing() {
    let flood = Flood::asked();
    let (quiet, _) = lived_through(flood.none());
    let (flooded, stats) = lived_through(flood);
    let refused = quiet.iter().find(|(.., noted)| noted.is_err());
    assert_eq!(refused, None, "what is within a share is never refused");
    let moved = quiet.iter().find(|(.., noted)| noted.is_ok_and(|(_, same)| !same));
    assert_eq!(moved, None, "a socket keeps its port");
    assert_eq!(quiet.len(), flooded.len());
    for (quiet, flooded) in quiet.iter().zip(&flooded) {
        assert_eq!(quiet, flooded);
    }
    assert!(stats.lost_half_open > 100_000 && stats.flushes == 0, "there was a flood: {stats:?}");
}
