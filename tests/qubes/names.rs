//! Names in the rules of dom0: asked for through sys-net, and learnt from what it tells a client.

use crate::machine::frames::{Spec, packet};
use crate::machine::{CLIENT_MAC, Client, SERVER, UPLINK_MAC};
use crate::world::{DNS, World};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Mac, Offload, Tuple};

const ALLOW: &str = "action=accept dsthost=www.example.org proto=udp";
const QUESTION: &[u8] = b"\x03www\x07example\x03org\x00\x00\x01\x00\x01";

/// A query for www.example.org, and the answer that it is at `addr`.
fn query(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], QUESTION].concat()
}

pub(crate) fn answer(id: u16, addr: IpAddr) -> Vec<u8> {
    let IpAddr::V4(addr) = addr else { panic!() };
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
    let header = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    [&id.to_be_bytes()[..], &header, QUESTION, &record, &addr.octets()].concat()
}

/// The queries that sys-net has got: from where, and with which id.
pub(crate) fn queries(world: &World) -> Vec<(Tuple, u16)> {
    let frames = world.machine.uplink().received();
    let read = |bytes: &[u8]| {
        let packet = packet(bytes);
        Some((packet.tuple().filter(|tuple| tuple.dport == 53)?, packet.dns()?.id))
    };
    frames.iter().filter_map(|frame| read(&frame.bytes)).collect()
}

/// sys-net answers that the name is at the server.
fn tell(world: &World, (asked, id): (Tuple, u16)) {
    let spec = Spec::udp((asked.dst, 53), (asked.src, asked.sport)).payload(&answer(id, SERVER));
    world.machine.uplink().send(&spec.macs(UPLINK_MAC, Mac::BACKEND).frame(), Offload::NONE);
    world.machine.settle();
}

pub(crate) fn ask(world: &World, client: &Client) {
    let spec = Spec::udp((client.addr, 5000), (DNS, 53)).payload(&query(7));
    client.send(spec.macs(Mac::BACKEND, CLIENT_MAC).frame());
    world.machine.settle();
}

#[test]
fn a_name_is_resolved_before_its_client_has_sent_anything() {
    let world = World::new(1);
    queries(&world);
    let client = world.client(10, &[ALLOW]);
    let asked = queries(&world);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].0.dst, DNS);
    assert!(!world.passes(&client, 4000) && world.was_told(&client));
    tell(&world, asked[0]);
    assert!(world.passes(&client, 4001));
    let other = world.client(11, &[]);
    assert!(!world.passes(&other, 4000));
}

#[test]
fn what_sys_net_tells_a_client_counts_before_the_client_has_it() {
    let world = World::new(2);
    let client = world.client(10, &[ALLOW, "action=accept specialtarget=dns"]);
    queries(&world);
    ask(&world, &client);
    let asked = queries(&world);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(!world.passes(&client, 4000));
    let _ = client.peer.take_received();
    tell(&world, asked[0]);
    let heard = client.peer.take_received();
    assert_eq!(packet(&heard[0].bytes).dns().unwrap().id, 7);
    assert!(world.passes(&client, 4001));
}

#[test]
fn an_idle_firewall_wakes_up_to_ask_again_and_to_forget() {
    let world = World::new(3);
    let client = world.client(10, &[ALLOW]);
    let asked = queries(&world);
    tell(&world, asked[0]);
    assert!(world.passes(&client, 4000));
    world.run(Duration::from_secs(50));
    assert!(!queries(&world).is_empty(), "ahead of the end");
    world.run(Duration::from_secs(20));
    assert!(queries(&world).len() > 1, "again and again");
    assert!(!world.passes(&client, 4001), "a minute, and nobody answered");
}
