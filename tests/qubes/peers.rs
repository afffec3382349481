//! Clients that are firewalls themselves: a VPN qube or a proxy, and Tidegate behind Tidegate.

use crate::machine::frames::{Spec, packet};
use crate::machine::{CLIENT_MAC, Client, SERVER, TIDEGATE, UPLINK_MAC};
use crate::names;
use crate::world::{ENTRIES, World, tuple};
use std::net::IpAddr;
use wire::{Mac, Transport};
use xen::hypervisor::DomId;
use xen::sim::peer_front::{Manners, Outgoing, PeerFront};
use xen::sim::toolstack::VifSpec;

const ANY: &str = "action=accept";

/// Its clients are its own affair: dom0 tells us of none, and their addresses do not come.
#[test]
fn of_a_proxy_only_its_own_address_comes() {
    let world = World::new(1);
    let proxy = world.client(10, &[ANY]);
    let behind: IpAddr = "10.137.0.30".parse().unwrap();
    world.dom0.database(|db| db.set_rules("10.137.0.30", "drop", &[(0, ANY)]));
    world.machine.settle();
    for n in 0..3 {
        proxy.send(Spec::udp((behind, 4000), (SERVER, 7)).macs(Mac::BACKEND, CLIENT_MAC).frame());
        world.machine.settle();
        assert!(world.machine.uplink().received().is_empty());
        assert!(world.passes(&proxy, 4000 + n));
    }
    let (status, _) = world.call("tidegate.Status", b"");
    assert!(status.contains("absent 10.137.0.30 rules 1\n"), "{status}");
}

/// A Tidegate whose uplink is a client of another one.
struct Chain {
    outer: World,
    inner: World,
    /// The outer one's end.
    between: Client,
}

impl Chain {
    /// The inner one may what `rules` of the outer one say.
    fn new(seed: u64, rules: &[&str]) -> Self {
        let outer = World::new(seed);
        let spec = VifSpec::new(DomId(10), TIDEGATE, 0, UPLINK_MAC).with_ip("10.137.0.10");
        let start = outer.machine.xs.introduce(spec.front);
        let manners = Manners::default();
        let peer = PeerFront::start(&outer.machine.sim, spec.front, start, TIDEGATE, 0, manners);
        outer.machine.finish(outer.machine.tools.attach(spec.clone()));
        outer.machine.wait("the connection", || peer.is_up());
        let between = Client { addr: spec.ip.parse().unwrap(), spec, peer };
        outer.set_rules(&between, rules);
        let own = |(key, value): &(&'static str, &'static str)| match *key {
            "/qubes-ip" | "/qubes-netvm-gateway" => (*key, "10.137.0.10"),
            "/connected-ips" => (*key, "10.137.0.20"),
            _ => (*key, *value),
        };
        let entries: Vec<_> = ENTRIES.iter().map(own).collect();
        Self { outer, inner: World::with(seed + 1, "", None, &entries), between }
    }

    /// Carries frames between the two until there are none.
    fn settle(&self) {
        loop {
            self.inner.machine.settle();
            let up = self.inner.machine.uplink().received();
            for frame in &up {
                let offload = frame.offload;
                let frame = Outgoing { offload, ..Outgoing::plain(frame.bytes.clone()) };
                assert!(self.between.peer.send(&frame));
            }
            self.outer.machine.settle();
            let down = self.between.peer.take_received();
            for frame in &down {
                self.inner.machine.uplink().send(&frame.bytes, frame.offload);
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    /// What the world gets when this client of the inner one sends a datagram.
    fn out(&self, client: &Client, sport: u16, dst: (IpAddr, u16)) -> Option<Vec<u8>> {
        client.send(self.inner.datagram(client, sport, dst));
        self.settle();
        self.outer.machine.uplink().received().pop().map(|frame| frame.bytes)
    }

    /// What a client of the inner one gets when the world sends this.
    fn back(&self, client: &Client, spec: Spec) -> Vec<Vec<u8>> {
        let _before = client.peer.take_received();
        let frame = spec.macs(UPLINK_MAC, Mac::BACKEND).frame();
        self.outer.machine.uplink().send(&frame, wire::Offload::NONE);
        self.settle();
        client.peer.take_received().into_iter().map(|frame| frame.bytes).collect()
    }
}

#[test]
fn behind_another_tidegate_what_both_allow_passes_and_comes_back() {
    let chain = Chain::new(2, &["action=accept proto=udp dstports=7-8"]);
    let client = chain.inner.client(20, &["action=accept proto=udp dstports=8-9"]);
    for n in 0..3 {
        let sent = chain.out(&client, 4000, (SERVER, 8)).expect("allowed by both");
        let seen = tuple(&sent, wire::Offload::NONE);
        assert_eq!(seen.src.to_string(), "10.137.255.2");
        let got = chain.back(&client, Spec::udp((SERVER, 8), (seen.src, seen.sport)));
        assert_eq!(got.len(), 1, "packet {n}");
        assert_eq!(tuple(&got[0], wire::Offload::NONE).dst, client.addr);
        // A router on the way says that it does not get there.
        let router = "192.0.2.1".parse().unwrap();
        let got = chain.back(&client, Spec::error(router, seen.src, (11, 0), 0, &sent[14..]));
        let Transport::IcmpError(error) = packet(&got[0]).transport else { panic!() };
        assert_eq!((error.quote.tuple.src, error.quote.tuple.sport), (client.addr, 4000));
    }
}

#[test]
fn behind_another_tidegate_either_refuses_by_itself_and_the_qube_is_told() {
    let chain = Chain::new(4, &["action=accept proto=udp dstports=7-8"]);
    let client = chain.inner.client(20, &["action=accept proto=udp dstports=8-9"]);
    for (port, by) in [(7, "10.137.0.10"), (9, "10.137.255.2")] {
        let _before = client.peer.take_received();
        assert_eq!(chain.out(&client, 4000, (SERVER, port)), None);
        let told = client.peer.take_received();
        let told = packet(&told[0].bytes);
        let Transport::IcmpError(error) = told.transport else { panic!() };
        assert_eq!(told.src.to_string(), by);
        let quoted = error.quote.tuple;
        assert_eq!((quoted.src, quoted.sport, quoted.dport), (client.addr, 4000, port));
    }
}

#[test]
fn behind_another_tidegate_names_are_learnt_by_both() {
    let dns = "action=accept specialtarget=dns";
    let named = "action=accept dsthost=www.example.org proto=udp";
    let chain = Chain::new(6, &[dns, named]);
    let client = chain.inner.client(20, &[dns, named]);
    // Both ask; whoever is answered first, both know when both are.
    for _ in 0..4 {
        chain.settle();
        for (asked, id) in names::queries(&chain.outer) {
            let answer = names::answer(id, SERVER);
            let spec = Spec::udp((asked.dst, 53), (asked.src, asked.sport)).payload(&answer);
            chain.back(&client, spec);
        }
        chain.inner.run(std::time::Duration::from_secs(3));
        chain.outer.run(std::time::Duration::from_secs(3));
    }
    assert!(chain.out(&client, 4000, (SERVER, 7)).is_some());
    assert!(chain.out(&client, 4000, ("93.184.216.35".parse().unwrap(), 7)).is_none());
}
