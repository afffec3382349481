//! The translator against a naive one: a list of flows, searched from end to end, written from the
//! requirements and sharing nothing with the real one but the words of its interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{EXTERNAL, World, client, echo, inside, remote, tuple, udp};
use core::net::IpAddr;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use wire::{DropReason, Proto, Transport, Tuple};

/// What happens.
#[derive(Clone, Debug)]
enum Act {
    /// A client sends: slot, protocol, port, remote, remote port, redirected.
    Send(u16, Proto, u16, u16, u16, bool),
    /// The world answers the n-th packet that was ever sent out, spoilt in some way or not.
    Answer(usize, Spoilt),
    /// Time passes, and perhaps the sweep comes round.
    Wait(u64, usize),
    /// A client leaves.
    Gone(u16),
    /// The n-th flow that was ever opened is closed.
    Close(usize),
    /// Everything goes.
    Flush,
}

#[derive(Clone, Copy, Debug)]
enum Spoilt {
    Not,
    Remote,
    RemotePort,
    ExternalPort,
    Proto,
}

/// A flow as a human would write it down.
#[derive(Clone, Debug)]
struct Flow {
    slot: u16,
    asked: Tuple,
    sent: Tuple,
    redirected: bool,
    last_outbound: u64,
}

impl Flow {
    fn is_over(&self, now: u64) -> bool {
        let timeout = match (self.asked.proto, self.sent.dport) {
            (Proto::Icmp, _) => 60,
            (_, 53) => 30,
            _ => 300,
        };
        now > self.last_outbound + timeout
    }
}

/// Everything the naive translator knows.
#[derive(Default)]
struct Naive {
    flows: Vec<Flow>,
}

impl Naive {
    fn live(&self, now: u64) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| !flow.is_over(now))
    }

    /// The port that a packet of this socket must get, if one is bound to it.
    fn bound(&self, now: u64, asked: &Tuple) -> Option<u16> {
        let of_socket = |f: &&Flow| {
            !f.redirected
                && (f.asked.proto, f.asked.src, f.asked.sport)
                    == (asked.proto, asked.src, asked.sport)
        };
        self.live(now).find(of_socket).map(|flow| flow.sent.sport)
    }
}

fn act() -> impl Strategy<Value = Act> {
    let proto = prop_oneof![Just(Proto::Udp), Just(Proto::Icmp)];
    let spoilt = prop_oneof![
        6 => Just(Spoilt::Not),
        1 => Just(Spoilt::Remote),
        1 => Just(Spoilt::RemotePort),
        1 => Just(Spoilt::ExternalPort),
        1 => Just(Spoilt::Proto),
    ];
    prop_oneof![
        20 => (0..4u16, proto, 0..4u16, 0..3u16, prop_oneof![Just(53u16), Just(4000u16)], any::<bool>())
            .prop_map(|(slot, proto, port, to, dport, redirected)| {
                Act::Send(slot, proto, port, to, dport, redirected && proto == Proto::Udp)
            }),
        10 => (0..64usize, spoilt).prop_map(|(n, spoilt)| Act::Answer(n, spoilt)),
        6 => (0..200u64, 0..8usize).prop_map(|(secs, most)| Act::Wait(secs, most)),
        1 => (0..4u16).prop_map(Act::Gone),
        1 => (0..64usize).prop_map(Act::Close),
        1 => Just(Act::Flush),
    ]
}

/// The answer to `sent`, spoilt.
fn answer(sent: Tuple, spoilt: Spoilt) -> Tuple {
    let back = sent.reversed();
    match spoilt {
        Spoilt::Not => back,
        Spoilt::Remote => Tuple { src: remote(77), ..back },
        Spoilt::RemotePort => Tuple { sport: back.sport ^ 1, ..back },
        Spoilt::ExternalPort => Tuple { dport: back.dport ^ 1, ..back },
        Spoilt::Proto if back.proto == Proto::Udp => Tuple { proto: Proto::Icmp, ..back },
        Spoilt::Proto => Tuple { proto: Proto::Udp, ..back },
    }
}

fn transport(proto: Proto, is_reply: bool) -> Transport {
    if proto == Proto::Udp { udp() } else { echo(is_reply) }
}

/// Runs both, and compares what they say after each act.
fn run(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut world = World::sized(1 << 20);
    let mut naive = Naive::default();
    let mut ever_sent: Vec<(Tuple, Tuple)> = Vec::new();
    for act in acts {
        let now = world.now.as_secs();
        match act.clone() {
            Act::Send(slot, proto, port, to, dport, redirected) => {
                let dport = if proto == Proto::Icmp { 0 } else { dport };
                let asked = tuple(proto, inside(slot), port, remote(to), dport);
                let real = redirected.then_some((IpAddr::from([203, 0, 113, 5]), 53));
                let got = world.send_to(client(slot), asked, &transport(proto, false), real);
                let got = got.unwrap();
                let known = naive.live(now).find(|f| f.asked == asked).cloned();
                let (dst, dport) = match (&known, real) {
                    (Some(flow), _) => (flow.sent.dst, flow.sent.dport),
                    (None, Some(real)) => real,
                    (None, None) => (asked.dst, asked.dport),
                };
                prop_assert_eq!(got.client, client(slot));
                prop_assert_eq!(
                    (got.tuple.src, got.tuple.dst, got.tuple.dport),
                    (EXTERNAL, dst, dport)
                );
                prop_assert_eq!(got.change.src, Some((EXTERNAL, got.tuple.sport)));
                prop_assert_eq!(got.change.dst.is_some(), (dst, dport) != (asked.dst, asked.dport));
                prop_assert!(got.tuple.sport >= 1024);
                if let Some(flow) = known {
                    prop_assert_eq!(got.tuple, flow.sent);
                } else {
                    let bound = naive.bound(now, &asked).filter(|_| !redirected);
                    let others: BTreeSet<u16> = naive
                        .live(now)
                        .filter(|f| f.asked.proto == proto)
                        .map(|f| f.sent.sport)
                        .collect();
                    match bound {
                        Some(port) => prop_assert_eq!(got.tuple.sport, port),
                        None => prop_assert!(!others.contains(&got.tuple.sport)),
                    }
                    naive.flows.retain(|f| f.asked != asked);
                    naive.flows.push(Flow {
                        slot,
                        asked,
                        sent: got.tuple,
                        redirected,
                        last_outbound: now,
                    });
                }
                let flow = naive.flows.iter_mut().find(|f| f.asked == asked).unwrap();
                flow.last_outbound = now;
                ever_sent.push((asked, got.tuple));
            }
            Act::Answer(n, spoilt) if !ever_sent.is_empty() => {
                let packet = answer(ever_sent[n % ever_sent.len()].1, spoilt);
                let got = world.receive(packet, &transport(packet.proto, true));
                let expected = naive.live(now).find(|f| f.sent.reversed() == packet);
                match expected {
                    None => prop_assert_eq!(got, Err(DropReason::Unsolicited)),
                    Some(flow) => {
                        let got = got.unwrap();
                        prop_assert_eq!(got.client, client(flow.slot));
                        prop_assert_eq!(got.tuple, flow.asked.reversed());
                    }
                }
            }
            Act::Wait(secs, most) => {
                world.now = world.now + Duration::from_secs(secs);
                world.nat.tick(world.now, most);
            }
            Act::Gone(slot) => {
                world.nat.client_gone(world.now, client(slot));
                naive.flows.retain(|flow| flow.slot != slot);
            }
            Act::Close(n) if !ever_sent.is_empty() => {
                let asked = ever_sent[n % ever_sent.len()].0;
                if let Some(id) = world.flow_out(&asked) {
                    world.nat.close(world.now, id);
                }
                naive.flows.retain(|flow| flow.asked != asked);
            }
            Act::Flush => {
                world.nat.flush(world.now);
                naive.flows.clear();
            }
            Act::Answer(..) | Act::Close(_) => {}
        }
        same_state(&world, &naive)?;
    }
    nothing_leaks(world)
}

/// Both know the same flows, each found from both sides, and counts agree with what there is.
fn same_state(world: &World, naive: &Naive) -> Result<(), TestCaseError> {
    let now = world.now.as_secs();
    for flow in &naive.flows {
        let ids = (world.flow_out(&flow.asked), world.flow_in(&flow.sent.reversed()));
        if flow.is_over(now) {
            prop_assert_eq!(ids, (None, None), "{:?} is over", flow);
        } else {
            prop_assert!(ids.0.is_some() && ids.0 == ids.1, "{:?} is whole", flow);
            let facts = world.nat.facts(ids.0.unwrap()).unwrap();
            prop_assert_eq!((facts.asked, facts.sent), (flow.asked, flow.sent));
        }
    }
    // Injective: an external port and remote belong to one socket.
    let mut owners = BTreeMap::new();
    for flow in naive.live(now) {
        let outside = (flow.sent.proto, flow.sent.sport);
        let socket = (flow.asked.src, flow.asked.sport, flow.redirected.then_some(flow.asked.dst));
        prop_assert_eq!(*owners.entry(outside).or_insert(socket), socket);
    }
    let stats = world.nat.stats();
    let live = u32::try_from(naive.live(now).count()).unwrap();
    prop_assert!(live <= stats.flows && stats.flows <= stats.capacity);
    prop_assert!(stats.mappings <= stats.flows);
    let held: u32 =
        (0..4).filter_map(|slot| world.nat.holding(client(slot))).map(|h| h.flows).sum();
    prop_assert_eq!(held, stats.flows);
    let free = stats.ports_free;
    let taken = 4 * 64_512 - (free.tcp + free.udp + free.icmp + free.icmpv6);
    prop_assert_eq!(taken, stats.mappings);
    Ok(())
}

/// When all flows are over, nothing is left of them.
fn nothing_leaks(mut world: World) -> Result<(), TestCaseError> {
    world.wait(301);
    let stats = world.nat.stats();
    prop_assert_eq!((stats.flows, stats.mappings), (0, 0));
    prop_assert_eq!((stats.ports_free.udp, stats.ports_free.icmp), (64_512, 64_512));
    for slot in 0..4 {
        if let Some(holding) = world.nat.holding(client(slot)) {
            prop_assert_eq!((holding.flows, holding.ports), (0, nat::PerProto::default()));
        }
    }
    prop_assert_eq!(world.nat.tick(world.now, usize::MAX), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same(acts in prop::collection::vec(act(), 1..200)) {
        run(&acts)?;
    }
}
