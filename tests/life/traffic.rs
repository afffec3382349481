//! Frames to be sent and looked at, and all that the firewall holds at a time.

use crate::ledger;
use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, Machine, OWN, SERVER, TIDEGATE, UPLINK_MAC};
use std::net::{IpAddr, Ipv4Addr};
use wire::{Mac, Offload, Parsed, Tuple, parse};
use xen::sim::Holdings;
use xen::sim::xenstored::Caller;

pub(crate) fn query(client: &Client, sport: u16) -> Vec<u8> {
    Spec::udp((client.addr, sport), (SERVER, 7)).macs(Mac::BACKEND, CLIENT_MAC).frame()
}

/// What the server answers to a datagram that came to it as `seen`.
pub(crate) fn answer(seen: &Tuple) -> Vec<u8> {
    let ends = ((seen.dst, seen.dport), (seen.src, seen.sport));
    Spec::udp(ends.0, ends.1).macs(UPLINK_MAC, Mac::BACKEND).frame()
}

pub(crate) fn tuple(bytes: &[u8], offload: Offload) -> Tuple {
    let frame = wire::Frame { offload, ..crate::machine::frames::whole(bytes) };
    let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!("no packet: {bytes:02x?}") };
    packet.tuple().expect("a packet with ports")
}

/// A datagram out and its answer back. Returns how it was seen outside.
pub(crate) fn exchange(machine: &Machine, client: &Client, sport: u16) -> Tuple {
    client.send(query(client, sport));
    machine.settle();
    let sent = machine.uplink().received();
    assert_eq!(sent.len(), 1, "of {}; console:\n{}", client.addr, machine.console());
    let seen = tuple(&sent[0].bytes, sent[0].offload);
    machine.uplink().send(&answer(&seen), Offload::NONE);
    machine.settle();
    let back = client.peer.take_received();
    assert_eq!(back.len(), 1, "to {}; console:\n{}", client.addr, machine.console());
    let back = tuple(&back[0].bytes, back[0].offload);
    assert_eq!((back.src, back.dst, back.dport), (SERVER, client.addr, sport));
    seen
}

/// The firewall answers for the gateway's address, and answers a ping of its own.
pub(crate) fn assert_gateway_answers(machine: &Machine, client: &Client) {
    let _ = client.peer.take_received();
    client.send(who_has(client, Ipv4Addr::new(10, 137, 0, 1)));
    client.send(Spec::ping(client.addr, OWN.into(), 7).macs(Mac::BACKEND, CLIENT_MAC).frame());
    machine.settle();
    let frames = client.peer.take_received();
    let console = machine.console();
    assert_eq!(frames.len(), 2, "to {}; console:\n{console}", client.addr);
    assert_eq!(frames[0].bytes[20..28], [0, 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(tuple(&frames[1].bytes, frames[1].offload).dst, client.addr);
}

fn who_has(client: &Client, target: Ipv4Addr) -> Vec<u8> {
    let IpAddr::V4(own) = client.addr else { panic!("no IPv4 address") };
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT_MAC.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC.0);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// All that could leak.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) of_xen: Holdings,
    pub(crate) heap: usize,
    pub(crate) watches: usize,
    pub(crate) transactions: usize,
    pub(crate) nodes: usize,
}

pub(crate) fn held(machine: &Machine) -> Held {
    let who = Caller::Domain(TIDEGATE);
    machine.xs.with(|store| Held {
        of_xen: machine.sim.holdings(TIDEGATE),
        heap: ledger::held(),
        watches: store.watches_of(who),
        transactions: store.transactions_of(who),
        nodes: store.nodes_of(TIDEGATE),
    })
}

/// Counts the heap of this machine's firewall from now on.
pub(crate) fn count_heap(machine: &Machine) {
    machine.sim.on_bracket(TIDEGATE, ledger::bracket);
}
