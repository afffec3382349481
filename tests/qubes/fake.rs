//! Clients whose address is faked (`net.fake-ip`): what dom0 says of them in `/mapped-ip/`.

use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, SERVER};
use crate::world::{ENTRIES, World, tuple};
use std::net::IpAddr;
use wire::{Mac, Offload};

const ANY: &str = "action=accept";
const FAKE: &str = "192.168.7.20";
const GATEWAY: &str = "192.168.7.1";
const VISIBLE: &str = "/mapped-ip/10.137.0.10/visible-ip";
const VISIBLE_GATEWAY: &str = "/mapped-ip/10.137.0.10/visible-gateway";

/// What dom0 keeps when domain 10 has a fake address and domain 11, as most have, the same twice.
fn entries() -> Vec<(&'static str, &'static str)> {
    let mut entries = ENTRIES.to_vec();
    entries.retain(|(path, _)| *path != "/connected-ips");
    entries.extend([
        ("/connected-ips", "192.168.7.20 10.137.0.11"),
        (VISIBLE, FAKE),
        (VISIBLE_GATEWAY, GATEWAY),
        ("/mapped-ip/10.137.0.11/visible-ip", "10.137.0.11"),
        ("/mapped-ip/10.137.0.11/visible-gateway", "10.137.255.2"),
    ]);
    entries
}

/// Whether a datagram of `client` from `src` reaches the world, and its answer the client.
fn exchanges(world: &World, client: &Client, src: &str) -> bool {
    let src: IpAddr = src.parse().unwrap();
    let _told = client.peer.take_received();
    client.send(Spec::udp((src, 4000), (SERVER, 7)).macs(Mac::BACKEND, CLIENT_MAC).frame());
    world.machine.settle();
    let sent = world.machine.uplink().received();
    let Some(seen) = sent.first().map(|frame| tuple(&frame.bytes, frame.offload)) else {
        return false;
    };
    assert_eq!(seen.src.to_string(), "10.137.255.2");
    let answer = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
    let answer = answer.macs(crate::machine::UPLINK_MAC, Mac::BACKEND).frame();
    world.machine.uplink().send(&answer, Offload::NONE);
    world.machine.settle();
    let got = client.peer.take_received();
    assert_eq!(got.len(), 1);
    assert_eq!(tuple(&got[0].bytes, got[0].offload).dst, src);
    true
}

fn write(world: &World, path: &str, value: &str) {
    world.dom0.database(|db| db.write(path, value));
    world.machine.settle();
}

#[test]
fn a_client_with_a_fake_address_has_a_network_by_that_address_alone() {
    let world = World::with(1, "", None, &entries());
    let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    for _ in 0..3 {
        assert!(exchanges(&world, &client, FAKE));
        assert!(!exchanges(&world, &client, "10.137.0.10"), "its real address is not its own");
        assert!(exchanges(&world, &other, "10.137.0.11"));
        assert!(!exchanges(&world, &other, FAKE));
    }
    let (status, _) = world.call("tidegate.Status", b"");
    assert!(status.contains("client 10.137.0.10 rules 1\n"), "{status}");
    let said = "fake 10.137.0.10 is 192.168.7.20 to itself, behind 192.168.7.1\n";
    assert!(status.contains(said), "{status}");
    assert_eq!(status.matches("fake ").count(), 1, "{status}");
}

#[test]
fn its_rules_stand_under_its_real_address() {
    let world = World::with(2, "", None, &entries());
    let client = world.machine.client(10);
    world.dom0.database(|db| db.set_rules(FAKE, "drop", &[(0, ANY)]));
    world.machine.settle();
    assert!(!exchanges(&world, &client, FAKE));
    world.set_rules(&client, &[ANY]);
    assert!(exchanges(&world, &client, FAKE));
    world.set_rules(&client, &["action=drop"]);
    assert!(!exchanges(&world, &client, FAKE));
}

#[test]
fn what_dom0_changes_while_it_runs_counts_at_once() {
    let world = World::new(3);
    let client = world.client(10, &[ANY]);
    assert!(exchanges(&world, &client, "10.137.0.10"));
    // One key alone says nothing yet.
    for (path, value) in [(VISIBLE, FAKE), (VISIBLE_GATEWAY, GATEWAY)] {
        assert!(!exchanges(&world, &client, FAKE));
        write(&world, path, value);
    }
    assert!(exchanges(&world, &client, FAKE));
    assert!(!exchanges(&world, &client, "10.137.0.10"));
    write(&world, VISIBLE, "192.168.7.21");
    assert!(exchanges(&world, &client, "192.168.7.21"));
    assert!(!exchanges(&world, &client, FAKE));
    world.dom0.database(|db| db.remove(VISIBLE));
    world.machine.settle();
    assert!(exchanges(&world, &client, "10.137.0.10"));
    assert!(!exchanges(&world, &client, "192.168.7.21"));
}

#[test]
fn what_is_no_address_fakes_none() {
    for (visible, gateway) in [("nonsense", GATEWAY), (FAKE, ""), ("fd09::20", "fd09::1")] {
        let world = World::new(4);
        let client = world.client(10, &[ANY]);
        write(&world, VISIBLE, visible);
        write(&world, VISIBLE_GATEWAY, gateway);
        assert!(exchanges(&world, &client, "10.137.0.10"), "{visible} {gateway}");
        assert!(!exchanges(&world, &client, FAKE));
    }
}

/// dom0 lists the fake one in `/connected-ips`; the real one is a client's all the same.
#[test]
fn both_its_addresses_are_fenced_off_while_it_is_away() {
    let world = World::with(5, "", None, &entries());
    let other = world.client(11, &[ANY]);
    for addr in [FAKE, "10.137.0.10"] {
        let addr: IpAddr = addr.parse().unwrap();
        assert!(world.out(&other, 4000, (addr, 7)).is_none(), "{addr}");
    }
    assert!(world.passes(&other, 4001));
}

#[test]
fn a_daemon_that_comes_back_with_another_fake_address_is_obeyed() {
    let world = World::with(6, "", None, &entries());
    let client = world.client(10, &[ANY]);
    world.dom0.stop_database();
    world.dom0.database(|db| db.write(VISIBLE, "192.168.7.21"));
    world.machine.settle();
    assert!(exchanges(&world, &client, FAKE), "nobody has said otherwise yet");
    world.dom0.restart();
    world.machine.wait("the database to be read", || world.dom0.database(|db| db.is_live()));
    world.machine.settle();
    assert!(!exchanges(&world, &client, FAKE));
    assert!(exchanges(&world, &client, "192.168.7.21"));
}
