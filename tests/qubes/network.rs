//! What dom0 says about the network of the firewall.

use crate::machine::frames::Spec;
use crate::machine::{Machine, SERVER, TIDEGATE, UPLINK_MAC};
use crate::world::{ENTRIES, World, tuple};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Mac, Offload};
use xen::hypervisor::Shutdown;

const ANY: &str = "action=accept";

#[test]
fn address_and_policy_come_from_dom0_alone() {
    let world = World::new(1);
    let client = world.client(10, &[ANY]);
    let seen = world.out(&client, 4000, (SERVER, 7)).unwrap();
    assert_eq!(seen.src.to_string(), "10.137.255.2");
    assert!(world.back(&client, &seen));
    let console = world.console();
    assert!(console.contains("QubesDB of sys-tidegate read"), "{console}");
    assert!(console.contains("no policy given: what qvm-firewall says counts"), "{console}");
}

#[test]
fn what_the_command_line_says_is_not_changed_by_dom0() {
    let world = World::with(2, "ip=10.137.255.9", None, ENTRIES);
    let client = world.client(10, &[ANY]);
    let seen = world.out(&client, 4000, (SERVER, 7)).unwrap();
    assert_eq!(seen.src.to_string(), "10.137.255.9");
}

#[test]
fn a_policy_of_the_owner_stays_and_hands_over_where_it_says_so() {
    let policy = "zone uplink = netfront 0\nzone clients = netback\n\
        policy clients -> uplink { drop udp 9; qubes }\n\
        nat clients -> uplink masquerade\n";
    let blob = lang::compile("own.tide", policy);
    let blob = blob.expect("a policy").blob;
    let world = World::with(3, "", Some(&blob), ENTRIES);
    let client = world.client(10, &[ANY]);
    assert!(world.passes(&client, 4000));
    assert!(world.out(&client, 4000, (SERVER, 9)).is_none());
}

#[test]
fn a_policy_that_is_broken_is_not_replaced_by_what_dom0_says() {
    let mut blob = lang::compile("test.tide", crate::machine::OPEN).unwrap().blob;
    *blob.last_mut().unwrap() ^= 1;
    let world = World::with(4, "", Some(&blob), ENTRIES);
    let client = world.client(10, &[ANY]);
    assert!(!world.passes(&client, 4000));
}

#[test]
fn another_address_ends_flows_and_serves_new_ones() {
    let world = World::new(5);
    let client = world.client(10, &[ANY]);
    let old = world.out(&client, 4000, (SERVER, 7)).unwrap();
    world.dom0.database(|db| db.write("/qubes-ip", "10.137.255.3"));
    world.machine.settle();
    assert!(!world.back(&client, &old));
    let new = world.out(&client, 4000, (SERVER, 7)).unwrap();
    assert_eq!(new.src.to_string(), "10.137.255.3");
    assert!(world.back(&client, &new));
    // The same once more is nothing new.
    world.dom0.database(|db| db.write("/qubes-ip", "10.137.255.3"));
    world.machine.settle();
    assert!(world.back(&client, &new));
}

#[test]
fn addresses_of_clients_that_are_not_there_are_fenced_off_both_ways() {
    let world = World::new(6);
    let client = world.client(10, &[ANY]);
    let absent: IpAddr = "10.137.0.77".parse().unwrap();
    assert!(world.out(&client, 4000, (absent, 7)).is_none());
    let seen = world.out(&client, 4000, (SERVER, 7)).unwrap();
    let forged =
        Spec::udp((absent, 7), (seen.src, seen.sport)).macs(UPLINK_MAC, Mac::BACKEND).frame();
    world.machine.uplink().send(&forged, Offload::NONE);
    world.machine.settle();
    assert!(client.peer.take_received().is_empty());
    world.dom0.database(|db| db.write("/connected-ips", "10.137.0.10"));
    world.machine.settle();
    assert!(world.out(&client, 4001, (absent, 7)).is_some(), "it is nobody's any more");
}

#[test]
fn queries_to_resolvers_that_are_really_others_go_to_those() {
    let entries: Vec<_> = ENTRIES
        .iter()
        .map(|(path, value)| match *path {
            "/qubes-primary-dns" => ("/qubes-primary-dns", "10.8.0.1"),
            "/qubes-secondary-dns" => ("/qubes-secondary-dns", "10.8.0.2"),
            _ => (*path, *value),
        })
        .collect();
    let world = World::with(7, "", None, &entries);
    let client = world.client(10, &["action=accept specialtarget=dns"]);
    // A question of one name, so that it is one.
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
    for (asked, real) in [("10.139.1.1", "10.8.0.1"), ("10.139.1.2", "10.8.0.2")] {
        let asked: IpAddr = asked.parse().unwrap();
        let frame = Spec::udp((client.addr, 4000), (asked, 53)).payload(question);
        client.send(frame.macs(Mac::BACKEND, crate::machine::CLIENT_MAC).frame());
        world.machine.settle();
        let sent = world.machine.uplink().received();
        let seen = tuple(&sent[0].bytes, sent[0].offload);
        assert_eq!(seen.dst.to_string(), real);
    }
}

#[test]
fn dom0s_seed_changes_which_ports_are_drawn() {
    let ports = |seed: &str| {
        let mut entries = ENTRIES.to_vec();
        entries.retain(|(path, _)| *path != "/qubes-random-seed");
        entries.push(("/qubes-random-seed", seed));
        let world = World::with(8, "", None, &entries);
        let client = world.client(10, &[ANY]);
        (0..8).map(|n| world.out(&client, 4000 + n, (SERVER, 7)).unwrap().sport).collect::<Vec<_>>()
    };
    let (one, two) = (ports("aGVsbG8gd29ybGQ="), ports("aGVsbG8gd29ybGR="));
    assert_eq!(one, ports("aGVsbG8gd29ybGQ="));
    assert_ne!(one, two);
}

#[test]
fn without_qubesdb_one_watch_is_all_there_is_of_it() {
    let machine = Machine::open(9);
    machine.run(Duration::from_secs(600));
    assert!(machine.xs.value("/local/domain/2/data/vchan/0/512/ring-ref").is_none());
    assert!(!machine.console().contains("Qubes"));
    let sim = &machine.sim;
    let before = sim.counters(TIDEGATE).hypercalls;
    machine.run(Duration::from_secs(600));
    let after = sim.counters(TIDEGATE).hypercalls - before;
    assert!(after < 100, "{after} hypercalls in ten idle minutes");
}

#[test]
fn shutdown_is_acknowledged_and_hours_of_pause_harm_nothing() {
    let world = World::new(10);
    let client = world.client(10, &[ANY]);
    let seen = world.out(&client, 4000, (SERVER, 7)).unwrap();
    let sim = &world.machine.sim;
    sim.pause(TIDEGATE, true);
    world.dom0.database(|db| db.set_rules("10.137.0.99", "drop", &[]));
    world.run(Duration::from_secs(5 * 3600));
    sim.pause(TIDEGATE, false);
    world.machine.settle();
    assert!(world.back(&client, &seen), "its flow is as old as it was");
    assert_eq!(world.out(&client, 4000, (SERVER, 7)), Some(seen));
    assert_eq!(world.call("qubes.SuspendPostAll", b"").1, Some(0));
    let xs = &world.machine.xs;
    assert_eq!(xs.value("/local/domain/2/memory/meminfo"), None);
    assert_eq!(xs.value("/local/domain/2/control/feature-suspend"), None);
    xs.set("/local/domain/2/control/shutdown", "poweroff");
    world.run(Duration::from_secs(1));
    assert_eq!(xs.value("/local/domain/2/control/shutdown").as_deref(), Some(""));
    assert_eq!(world.machine.ended(), Some(Shutdown::Poweroff));
}
