//! What users say about rules with names.

use crate::common::{Spec, packet};
use crate::machine::{OWN, SERVER, TIDEGATE, UPLINK_MAC};
use crate::qubes::{DNS, World};
use std::time::Duration;
use wire::{Mac, Offload};

const ANY: &str = "action=accept";

/// Queries for names that sys-net has got since last asked.
fn queries(world: &World) -> usize {
    let frames = world.machine.uplink().received();
    let is_query = |bytes: &[u8]| packet(bytes).tuple().is_some_and(|tuple| tuple.dport == 53);
    frames.iter().filter(|frame| is_query(&frame.bytes)).count()
}

#[test]
fn rules_with_names_take_all_of_a_processor() {
    let world = World::new(1);
    let rules: Vec<String> =
        (0..30).map(|n| format!("action=accept dsthost=host{n}.example.org proto=tcp")).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let client = world.client(10, &rules);
    world.machine.sleep_between_turns();
    world.run(Duration::from_secs(60));
    queries(&world);
    // Nobody answers, and the qube goes on sending what only a name could allow.
    for n in 0..2000 {
        client.send(world.datagram(&client, 4000 + n % 100, (SERVER, 443)));
        world.run(Duration::from_millis(1));
    }
    let asked = queries(&world);
    assert!(asked <= 60, "{asked} queries for 30 names in two seconds of 2000 packets");
    let before = world.machine.sim.counters(TIDEGATE).hypercalls;
    world.run(Duration::from_secs(600));
    let spent = world.machine.sim.counters(TIDEGATE).hypercalls - before;
    let asked = queries(&world);
    assert!(asked > 300 && asked < 900, "{asked} queries in ten minutes");
    assert!(spent < 1500, "{spent} hypercalls in ten minutes");
}

#[test]
fn a_flood_of_dns_replies_stops_the_firewall() {
    let world = World::new(2);
    let client =
        world.client(10, &["action=accept dsthost=www.example.org", "action=accept proto=udp"]);
    world.console();
    for n in 0..200 {
        for port in 0..20 {
            let to = (OWN.into(), 1024 + n * 300 + port);
            let reply = Spec::udp((DNS, 53), to).payload(&[0x80; 40]);
            world
                .machine
                .uplink()
                .send(&reply.macs(UPLINK_MAC, Mac::BACKEND).frame(), Offload::NONE);
        }
        assert!(world.passes(&client, 4000 + n), "round {n}");
    }
    assert!(client.peer.take_received().is_empty());
    assert_eq!(world.machine.ended(), None);
}

#[test]
fn a_name_with_an_underscore_blocks_all_of_a_qube() {
    let world = World::new(3);
    let client = world.client(10, &["action=accept dsthost=_dns.re_solver.arpa proto=tcp", ANY]);
    assert!(world.passes(&client, 4000));
    let (status, _) = world.call("tidegate.Status", b"");
    assert!(status.contains("client 10.137.0.10 rules 2\n"), "{status}");
}
