//! A firewall with many clients and many flows, and the next batch for it.
//!
//! In: how many flows, of which family. Out: batches whose fate is known beforehand. Never: more
//! than one kind of packet in a batch, or time that passes by itself.

use crate::frames::{self, Family, LONGEST};
use crate::{clock, memory};
use arrayvec::ArrayVec;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;
use tidegate::firewall::{Budget, Config, Firewall, Link, Site};
use wire::{
    BATCH, Frame, HEAD_MAX, Instant, Mac, Offload, Outbox, Port, Proto, REPLY_MAX, Reply, Uplink,
    Verdict,
};

const UPLINK: Port = Port::new(0, 0);
const UPLINK_MAC: Mac = Mac([0, 0x16, 0x3e, 1, 1, 1]);
const CLIENT_MAC: Mac = Mac([0, 0x16, 0x3e, 2, 2, 2]);

/// Sockets of a client, each with many remotes.
const SOCKETS: u32 = 16;

const POLICY: &str = "zone uplink = netfront 0\nzone clients = netback\n\
    policy clients -> uplink {\naccept udp\naccept icmp echo-request\ndrop\n}\nnat clients -> uplink masquerade\n";

pub(crate) struct Town {
    firewall: Firewall,
    now: Instant,
    family: Family,
    clients: u32,
    flows: u32,
    /// The external port of each flow.
    ports: Vec<u16>,
    /// The external id of each flow of [`Town::pings`].
    ids: Vec<u16>,
    newcomers: u32,
    dice: u64,
    places: Box<[[u8; LONGEST]; BATCH]>,
    filled: ArrayVec<(Port, usize), BATCH>,
    heads: Vec<[u8; HEAD_MAX]>,
    replies: Vec<[u8; REPLY_MAX]>,
    pub(crate) verdicts: ArrayVec<Verdict, BATCH>,
    bytes_per_flow: usize,
}

impl Town {
    /// Newcomers of each second: clients that ping a host each.
    pub(crate) const NEWCOMERS: usize = 512;

    /// Seconds after which a newcomer's flow is over.
    pub(crate) const NEWCOMERS_LIVE: u32 = 61;

    pub(crate) fn new(flows: u32, family: Family) -> Self {
        let compiled = lang::compile("bench.tide", POLICY).unwrap_or_else(|why| panic!("{why:?}"));
        let (IpAddr::V4(addr4), IpAddr::V6(addr6)) =
            (Family::V4.addr(192, 1), Family::V6.addr(192, 1))
        else {
            panic!()
        };
        let config = Config {
            sites: Site { addr4: Some(addr4), addr6: Some(addr6), ..Site::default() }.into(),
            policy: Some(compiled.policy),
            nat: nat::Config { slots: 512, ..nat::Config::default() },
            ..Config::default()
        };
        let clients = if flows < 1024 { 4 } else { 256 };
        let budget = budget(flows + 65_536);
        let mut firewall = Firewall::new(config, budget, [7; 32]).unwrap();
        let now = Instant::from_secs(1);
        let uplink = Link::Uplink { uplink: Uplink::FIRST, mac: UPLINK_MAC, mtu: 1500, network: 1 };
        firewall.port_up(now, UPLINK, uplink);
        for client in 0..clients {
            let addrs = vec![family.addr(10, client)];
            let link = Link::Client { mac: CLIENT_MAC, addrs, mtu: 1500 };
            firewall.port_up(now, port_of(client), link);
        }
        let mut town = Self {
            firewall,
            now,
            family,
            clients,
            flows,
            ports: Vec::with_capacity(flows as usize),
            ids: Vec::with_capacity(BATCH),
            newcomers: 0,
            dice: 1,
            places: Box::new([[0; LONGEST]; BATCH]),
            filled: ArrayVec::new(),
            heads: vec![[0; HEAD_MAX]; BATCH],
            replies: vec![[0; REPLY_MAX]; BATCH],
            verdicts: ArrayVec::new(),
            bytes_per_flow: bytes_per_flow(flows + 65_536),
        };
        town.settle();
        town
    }

    /// Opens the flows that will stay.
    fn settle(&mut self) {
        let sport_at = if self.family == Family::V4 { 34 } else { 54 };
        for first in (0..self.flows).step_by(BATCH) {
            self.filled.clear();
            for nth in first..self.flows.min(first + BATCH as u32) {
                self.outward(nth);
            }
            self.decide(clock::passed);
            for (verdict, head) in self.verdicts.iter().zip(&self.heads) {
                assert!(matches!(verdict, Verdict::Emit(_)), "{verdict:?}");
                self.ports.push(u16::from_be_bytes([head[sport_at], head[sport_at + 1]]));
            }
        }
    }

    /// The client of a flow, its socket, and the remote: which flow it is says all.
    fn ends(&self, nth: u32) -> (u32, (IpAddr, u16), (IpAddr, u16)) {
        let client = nth % self.clients;
        let socket = 5000 + (nth / self.clients % SOCKETS) as u16;
        let remote = self.family.addr(1, nth / self.clients / SOCKETS);
        (client, (self.family.addr(10, client), socket), (remote, 4000))
    }

    fn outward(&mut self, nth: u32) {
        let (client, inside, remote) = self.ends(nth);
        self.put(Proto::Udp, port_of(client), inside, remote);
    }

    fn inward(&mut self, nth: u32) {
        let (_, _, remote) = self.ends(nth);
        let external = (self.family.addr(192, 1), self.ports[nth as usize]);
        self.put(Proto::Udp, UPLINK, remote, external);
    }

    fn put(&mut self, proto: Proto, from: Port, src: (IpAddr, u16), dst: (IpAddr, u16)) {
        let macs =
            if from == UPLINK { (UPLINK_MAC, Mac::BACKEND) } else { (Mac::BACKEND, CLIENT_MAC) };
        let place = &mut self.places[self.filled.len()];
        let len = frames::write(place, (proto, from == UPLINK), macs, src, dst);
        self.filled.push((from, len));
    }

    fn random(&mut self, below: u32) -> u32 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 32) as u32 % below
    }

    /// Packets of flows anywhere in the table, every other one inward.
    pub(crate) fn hits(&mut self) {
        self.filled.clear();
        for n in 0..BATCH {
            let nth = self.random(self.flows);
            if n % 2 == 0 { self.outward(nth) } else { self.inward(nth) }
        }
    }

    /// The same of pings.
    pub(crate) fn pings(&mut self) {
        if self.ids.is_empty() {
            self.filled.clear();
            (0..BATCH as u32).for_each(|nth| self.ping(nth));
            self.decide(clock::passed);
            let id_at = if self.family == Family::V4 { 38 } else { 58 };
            let id = |head: &[u8; HEAD_MAX]| u16::from_be_bytes([head[id_at], head[id_at + 1]]);
            self.ids.extend(self.heads.iter().map(id));
        }
        self.filled.clear();
        for n in 0..BATCH {
            let nth = self.random(BATCH as u32);
            if n % 2 == 0 { self.ping(nth) } else { self.pong(nth) }
        }
    }

    fn ping(&mut self, nth: u32) {
        let client = nth % self.clients;
        let inside = (self.family.addr(10, client), 60_000 + nth as u16);
        let host = (self.family.addr(4, nth), 0);
        self.put(self.family.ping(), port_of(client), inside, host);
    }

    fn pong(&mut self, nth: u32) {
        let host = (self.family.addr(4, nth), self.ids[nth as usize]);
        self.put(self.family.ping(), UPLINK, host, (self.family.addr(192, 1), 0));
    }

    /// Packets of the world to ports that may have flows, but not with this remote.
    pub(crate) fn misses(&mut self) {
        self.filled.clear();
        for _ in 0..BATCH {
            let remote = (self.family.addr(2, self.random(1 << 24)), 4000);
            let port = 1024 + self.random(60_000) as u16;
            self.put(Proto::Udp, UPLINK, remote, (self.family.addr(192, 1), port));
        }
    }

    /// A batch of newcomers.
    pub(crate) fn newcomers_batch(&mut self) {
        self.filled.clear();
        for _ in 0..BATCH {
            self.put_newcomer();
        }
    }

    /// One of them alone.
    pub(crate) fn newcomer(&mut self) {
        self.filled.clear();
        self.put_newcomer();
    }

    fn put_newcomer(&mut self) {
        let nth = self.newcomers;
        self.newcomers += 1;
        let client = nth % self.clients;
        let socket = (nth / self.clients) as u16;
        let inside = (self.family.addr(10, client), socket);
        let host = (self.family.addr(3, nth), 0);
        self.put(self.family.ping(), port_of(client), inside, host);
    }

    /// Decides the batch; says how much of the time that `clock` shows it took.
    pub(crate) fn decide(&mut self, clock: fn() -> Duration) -> Duration {
        let frames: ArrayVec<Frame<'_>, BATCH> = self
            .filled
            .iter()
            .zip(self.places.iter())
            .map(|((from, len), bytes)| Frame {
                from: *from,
                head: &bytes[..*len],
                len: *len as u32,
                offload: Offload::NONE,
            })
            .collect();
        let mut out = Outbox::new(&mut self.heads, &mut self.replies);
        let before = clock();
        batch(&mut self.firewall, self.now, &frames, &mut out);
        let took = clock() - before;
        let (verdicts, replies): (_, ArrayVec<Reply, BATCH>) = out.into_parts();
        assert!(replies.is_empty());
        self.verdicts = verdicts;
        took
    }

    /// A second passes.
    pub(crate) fn second_passes(&mut self) {
        self.now = self.now + Duration::from_secs(1);
    }

    pub(crate) fn tick(&mut self) {
        let mut out = Outbox::new(&mut self.heads, &mut self.replies);
        while self.firewall.tick(self.now, &mut out).is_some_and(|next| next <= self.now) {}
    }

    pub(crate) const fn bytes_per_flow(&self) -> usize {
        self.bytes_per_flow
    }
}

/// What is measured; by its name callgrind knows where to count.
#[inline(never)]
fn batch(firewall: &mut Firewall, now: Instant, frames: &[Frame<'_>], out: &mut Outbox<'_>) {
    black_box(firewall).batch(now, frames, out);
}

fn port_of(client: u32) -> Port {
    Port::new(u16::try_from(client + 1).unwrap(), 0)
}

fn budget(flows: u32) -> Budget {
    Budget { bytes: (1 << 20) + flows as usize * 400 }
}

/// What a translator with at least so many flows takes, by flow.
fn bytes_per_flow(flows: u32) -> usize {
    let before = memory::held();
    let nat = nat::Nat::new(nat::Config::default(), budget(flows), [7; 32]).unwrap();
    (memory::held() - before) / nat.stats().capacity as usize
}
