//! A world small enough to be walked through entirely: two clients, two remotes, four ports for each
//! protocol, twenty-four things that can happen. Breadth first over what a model remembers, as deep
//! as eight events; two worlds that differ only in which client is which count as one.
//!
//! The model is written from the tables of RFC 4787, RFC 6146 section 3.5.2 and RFC 7857 section 2,
//! and shares no code with the translator. After each event it says what must have happened.
//! `TIDEGATE_WORLD=DEPTH` goes deeper.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "world/model.rs"]
mod model;

use common::{ACK, FIN_ACK, RST, SYN, SYN_ACK, World, client, inside, remote, segment, tuple, udp};
use core::time::Duration;
use model::{Client, Expected, Model, Tcp};
use std::collections::HashSet;
use wire::{DropReason, Proto, Transport, Tuple};

const DEPTH: usize = 8;
const PORTS: std::ops::Range<u16> = 2000..2004;

/// What can happen; the number is that of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Its socket sends a datagram to a remote.
    Datagram(u16, usize),
    /// A remote sends one to that socket's external port.
    Answer(u16, usize),
    /// Another socket of it sends one, for which it has no port in its share.
    OtherSocket(u16),
    Syn(u16),
    SynAck(u16),
    Ack(u16),
    Fin(u16),
    FinFromRemote(u16),
    RstFromRemote(u16),
    /// So many seconds pass.
    Pass(u64),
}

fn events() -> Vec<Event> {
    use Event::{
        Ack, Answer, Datagram, Fin, FinFromRemote, OtherSocket, Pass, RstFromRemote, Syn, SynAck,
    };
    let of = |c| {
        [
            Datagram(c, 0),
            Datagram(c, 1),
            Answer(c, 0),
            Answer(c, 1),
            OtherSocket(c),
            Syn(c),
            SynAck(c),
            Ack(c),
            Fin(c),
            FinFromRemote(c),
            RstFromRemote(c),
        ]
    };
    [of(0), of(1)].concat().into_iter().chain([Pass(11), Pass(241)]).collect()
}

/// The translator with four ports of each protocol, and the model beside it.
struct Pair {
    world: World,
    model: Model,
    /// External ports of each client's UDP socket and TCP socket, as last seen.
    ports: [[u16; 2]; 2],
    /// Whether all is looked at after an event, or that has been done when it happened before.
    looking: bool,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::sized(300 << 10);
        for proto in [Proto::Udp, Proto::Tcp] {
            for port in (1024..=u16::MAX).filter(|port| !PORTS.contains(port)) {
                assert!(world.nat.reserve(proto, port));
            }
        }
        Self { world, model: Model::default(), ports: [[0; 2]; 2], looking: true }
    }

    /// Back to the start, with nothing left of what was: not even a port in quarantine.
    fn reset(&mut self) {
        for slot in 0..2 {
            self.world.nat.client_gone(self.world.now, client(slot));
        }
        self.world.now = self.world.now + Duration::from_secs(64);
        self.world.nat.tick(self.world.now, usize::MAX);
        // Both are known from here on, so that neither's share depends on the other's coming.
        for slot in 0..2 {
            let hello = tuple(Proto::Icmp, inside(slot), 1, remote(9), 0);
            self.world.send(client(slot), hello, &common::echo(false)).unwrap();
            let id = self.world.flow_out(&hello).unwrap();
            self.world.nat.close(self.world.now, id);
        }
        let stats = self.world.nat.stats();
        assert_eq!((stats.flows, stats.mappings), (0, 0));
        assert_eq!((stats.ports_free.udp, stats.ports_free.tcp), (4, 4));
        self.model = Model::default();
        self.ports = [[0; 2]; 2];
    }

    fn out(&mut self, slot: u16, asked: Tuple, transport: &Transport) -> Result<u16, DropReason> {
        let sent = self.world.send(client(slot), asked, transport)?.tuple;
        assert_eq!((sent.src, sent.dst, sent.dport), (self.world.external, asked.dst, asked.dport));
        assert!(PORTS.contains(&sent.sport));
        Ok(sent.sport)
    }

    fn back(&mut self, asked: Tuple, port: u16, transport: &Transport) -> Result<(), DropReason> {
        let sent = Tuple { src: self.world.external, sport: port, ..asked };
        let got = self.world.receive(sent.reversed(), transport)?;
        assert_eq!(got.tuple, asked.reversed(), "it reaches who asked, and nobody else");
        Ok(())
    }

    /// One more event. False if it cannot happen now: an end that was never there says nothing.
    fn play(&mut self, event: Event) -> bool {
        let before = self.model;
        match event {
            Event::Pass(seconds) => {
                self.world.now = self.world.now + Duration::from_secs(seconds);
                // The sweep comes round, or does not: nobody can tell.
                if seconds > 100 {
                    self.world.nat.tick(self.world.now, usize::MAX);
                }
                self.model.pass(seconds);
            }
            Event::Datagram(c, to) => {
                let port = self.out(c, datagram(c, to), &udp());
                let who = self.model.client(c);
                if who.other.is_some() && who.udp == [None; 2] {
                    // The other socket has the only port.
                    self.crowded(c, port, before);
                } else {
                    if who.udp != [None; 2] {
                        assert_eq!(port, Ok(self.ports[usize::from(c)][0]), "one for all remotes");
                    }
                    self.ports[usize::from(c)][0] = port.unwrap();
                    self.model.client_mut(c).datagram(to);
                }
            }
            Event::Answer(c, from) => {
                let port = self.ports[usize::from(c)][0];
                if port == 0 {
                    return false;
                }
                let got = self.back(datagram(c, from), port, &udp());
                // The port may be another's by now, but the remote was asked by its owner only.
                assert_eq!(got.is_ok(), self.model.client_mut(c).answer(from));
            }
            Event::OtherSocket(c) => {
                let port = self.out(c, other(c), &udp());
                let who = self.model.client(c);
                if who.other.is_none() && who.udp != [None; 2] {
                    self.crowded(c, port, before);
                } else {
                    port.unwrap();
                    self.model.client_mut(c).other_datagram();
                }
            }
            _ => return self.tcp(event),
        }
        self.agrees();
        true
    }

    /// A client's second socket while its share of ports is one: it takes the place of what nobody
    /// answered or used for a minute, or is refused.
    fn crowded(&mut self, c: u16, got: Result<u16, DropReason>, before: Model) {
        let flows = before.client(c).udp.into_iter().chain([before.client(c).other]).flatten();
        let may_go = |flow: &model::Udp| !flow.answered || flow.age >= 60;
        let all_may_go = flows.clone().all(|flow| may_go(&flow));
        assert_eq!(got.is_ok(), all_may_go, "{got:?} of {before:?}");
        if got.is_err() {
            assert_eq!(got, Err(DropReason::QuotaExceeded));
        }
        // What may go may be gone; the rest must be there, which is looked at next.
        let there = |pair: &Self, asked: Tuple| pair.world.flow_out(&asked).is_some();
        let seen = [datagram(c, 0), datagram(c, 1), other(c)].map(|asked| there(self, asked));
        let who = self.model.client_mut(c);
        for (flow, seen) in who.udp.iter_mut().chain([&mut who.other]).zip(seen) {
            match flow {
                Some(lost) if !seen => {
                    assert!(may_go(lost), "{lost:?} was lost");
                    *flow = None;
                }
                None if seen => *flow = Some(model::Udp { answered: false, age: 0 }),
                _ => {}
            }
        }
        if let (Ok(port), None) = (got, self.model.client(c).other) {
            self.ports[usize::from(c)][0] = port;
        }
    }

    /// Segments with the numbers that honest ends would give them.
    fn tcp(&mut self, event: Event) -> bool {
        let (Event::Syn(c)
        | Event::SynAck(c)
        | Event::Ack(c)
        | Event::Fin(c)
        | Event::FinFromRemote(c)
        | Event::RstFromRemote(c)) = event
        else {
            return false;
        };
        let asked = tuple(Proto::Tcp, inside(c), 7000, remote(0), 443);
        let port = self.ports[usize::from(c)][1];
        let Tcp { fin: [ours, theirs], .. } = self.model.client(c).tcp.unwrap_or_default();
        let (end, far_end) = (101 + u32::from(ours), 901 + u32::from(theirs));
        let (got, expected) = match event {
            Event::Syn(_) => {
                // A client that forgot a connection is another story (see tcp.rs).
                let Some(expected) = self.model.client_mut(c).syn() else { return false };
                let got = self.out(c, asked, &segment(SYN, 100, 0, 0));
                self.ports[usize::from(c)][1] = got.unwrap();
                (got.map(|_| ()), expected)
            }
            Event::Ack(_) | Event::Fin(_) => {
                let (flags, seq) = if event == Event::Fin(c) { (FIN_ACK, 101) } else { (ACK, end) };
                let fin = event == Event::Fin(c);
                let got = self.out(c, asked, &segment(flags, seq, far_end, 0)).map(|_| ());
                (got, self.model.client_mut(c).says(0, fin))
            }
            _ if port == 0 => return false,
            Event::SynAck(_) => {
                let got = self.back(asked, port, &segment(SYN_ACK, 900, 101, 0));
                (got, self.model.client_mut(c).syn_ack())
            }
            Event::FinFromRemote(_) => {
                let got = self.back(asked, port, &segment(FIN_ACK, 901, end, 0));
                (got, self.model.client_mut(c).says(1, true))
            }
            _ => {
                let got = self.back(asked, port, &segment(RST.with(ACK), far_end, end, 0));
                (got, self.model.client_mut(c).reset())
            }
        };
        match expected {
            Expected::Passes => assert_eq!(got, Ok(()), "{event:?}"),
            Expected::Dropped => assert!(got.is_err(), "{event:?}"),
        }
        self.agrees();
        true
    }

    /// The translator knows the flows that the model knows, from both sides, and no others.
    fn agrees(&self) {
        if !self.looking {
            return;
        }
        let mut ports = [HashSet::new(), HashSet::new()];
        let mut flows = 0;
        for c in 0..2 {
            let Client { udp: known, other: second, tcp } = self.model.client(c);
            let connection = tuple(Proto::Tcp, inside(c), 7000, remote(0), 443);
            let all = [
                (datagram(c, 0), known[0].is_some()),
                (datagram(c, 1), known[1].is_some()),
                (other(c), second.is_some()),
                (connection, tcp.is_some()),
            ];
            for (asked, expected) in all {
                let out = self.world.flow_out(&asked);
                assert_eq!(out.is_some(), expected, "{asked} of {:?}", self.model);
                let Some(id) = out else { continue };
                let sent = self.world.nat.facts(id).unwrap().sent;
                assert_eq!(self.world.flow_in(&sent.reversed()), out, "both ways are one flow");
                let socket = (sent.sport, c, asked.sport);
                ports[usize::from(asked.proto == Proto::Tcp)].insert(socket);
                flows += 1;
            }
        }
        for of_proto in &ports {
            let numbers: HashSet<u16> = of_proto.iter().map(|(port, ..)| *port).collect();
            assert_eq!(numbers.len(), of_proto.len(), "two sockets share a port: {of_proto:?}");
        }
        let stats = self.world.nat.stats();
        assert!(flows <= stats.flows);
        let taken = 8 - stats.ports_free.udp - stats.ports_free.tcp;
        assert_eq!(taken, stats.mappings, "a port was lost");
    }
}

fn datagram(c: u16, to: usize) -> Tuple {
    tuple(Proto::Udp, inside(c), 5000, remote(u16::try_from(to).unwrap()), 4000)
}

fn other(c: u16) -> Tuple {
    tuple(Proto::Udp, inside(c), 6000, remote(0), 4000)
}

/// Says how a world came to be in which something went wrong.
struct Told<'a>(&'a [Event]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("after {:?}", self.0);
    }
}

/// The worlds one event further than each of these.
fn further(pair: &mut Pair, paths: &[Vec<Event>], events: &[Event]) -> Vec<(Model, Vec<Event>)> {
    let mut found = Vec::new();
    for path in paths {
        for event in events {
            pair.reset();
            pair.looking = false;
            for before in path {
                assert!(pair.play(*before));
            }
            pair.looking = true;
            let mut path = path.clone();
            path.push(*event);
            // Told if the event that follows fails.
            let told = Told(&path);
            let possible = pair.play(*event);
            core::mem::forget(told);
            if possible {
                found.push((pair.model.canonical(), path));
            }
        }
    }
    found
}

#[test]
fn everything_that_can_happen_in_a_small_world_happens_as_the_tables_say() {
    let depth = std::env::var("TIDEGATE_WORLD").map_or(DEPTH, |depth| depth.parse().unwrap());
    let events = events();
    assert!(events.len() <= 24);
    let mut known = HashSet::from([Model::default()]);
    let mut frontier = vec![Vec::new()];
    let mut transitions = 0;
    let mut pairs = [Pair::new(), Pair::new()];
    for level in 1..=depth {
        let half = frontier.len().div_ceil(2).max(1);
        let found: Vec<_> = std::thread::scope(|scope| {
            let halves: Vec<_> = frontier
                .chunks(half)
                .zip(&mut pairs)
                .map(|(paths, pair)| scope.spawn(|| further(pair, paths, &events)))
                .collect();
            halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
        });
        transitions += found.len();
        frontier = found
            .into_iter()
            .filter_map(|(model, path)| known.insert(model).then_some(path))
            .collect();
        println!("depth {level}: {} states, {transitions} transitions", known.len());
        if frontier.is_empty() {
            break;
        }
    }
    assert!(known.len() > 1000, "the world is smaller than it should be");
}
