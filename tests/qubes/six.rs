//! IPv6, where dom0 gives it: as a Linux firewall VM treats it.

use crate::machine::flow;
use crate::machine::frames::{Kind, Spec, packet};
use crate::machine::{CLIENT_MAC, Client, UPLINK_MAC};
use crate::world::{ENTRIES, World, tuple};
use std::net::IpAddr;
use wire::{IcmpErrorKind, Mac, Offload, TcpFlags, Transport};

const ANY: &str = "action=accept";
const OURS: &str = "fd09:24ef:4179::a89:7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn server() -> IpAddr {
    ip("2606:2800::1")
}

/// A firewall with IPv6, and a client that has it, too, and may what this says.
fn world(seed: u64, rule: &str) -> (World, Client) {
    let ours = [("/qubes-ip6", OURS), ("/connected-ips6", "fd09::10 fd09::77")];
    let world = World::with(seed, "", None, &[ENTRIES, &ours].concat());
    let client = flow::client(&world.machine, 10, Default::default());
    for addr in ["10.137.0.10", "fd09::10"] {
        world.dom0.database(|db| db.set_rules(addr, "drop", &[(0, rule)]));
    }
    world.machine.settle();
    (world, client)
}

/// What the world and the client get when the client sends this.
fn send(world: &World, client: &Client, spec: Spec) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let _before = (world.machine.uplink().received(), client.peer.take_received());
    client.send(spec.macs(Mac::BACKEND, CLIENT_MAC).frame());
    world.machine.settle();
    let sent = world.machine.uplink().received().into_iter().map(|frame| frame.bytes).collect();
    (sent, client.peer.take_received().into_iter().map(|frame| frame.bytes).collect())
}

#[test]
fn flows_leave_from_the_address_dom0_gave_and_come_back() {
    let (world, client) = world(1, ANY);
    for n in 0..3 {
        let (sent, _) = send(&world, &client, Spec::udp((ip("fd09::10"), 4000), (server(), 7)));
        let seen = tuple(&sent[0], Offload::NONE);
        assert_eq!((seen.src, seen.dst, seen.dport), (ip(OURS), server(), 7), "packet {n}");
        let answer = Spec::udp((server(), 7), (seen.src, seen.sport));
        let answer = answer.macs(UPLINK_MAC, Mac::BACKEND).frame();
        world.machine.uplink().send(&answer, Offload::NONE);
        world.machine.settle();
        let got = client.peer.take_received();
        assert_eq!(tuple(&got[0].bytes, got[0].offload).dst, ip("fd09::10"));
    }
}

#[test]
fn a_client_that_was_given_none_has_none() {
    let (world, _dual) = world(2, ANY);
    let client = world.client(11, &[ANY]);
    world.dom0.database(|db| db.set_rules("fd09::11", "drop", &[(0, ANY)]));
    world.machine.settle();
    let solicit = Kind::Icmp { kind: 135, code: 0, rest: 0 };
    let target = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for src in ["fd09::11", "fd09::10", "fe80::11"].map(ip) {
        for spec in [
            Spec::udp((src, 4000), (server(), 7)),
            Spec::ping(src, ip(OURS), 5),
            Spec::new(src, ip("fe80::1"), solicit.clone()).payload(&target).ttl(255),
        ] {
            assert_eq!(send(&world, &client, spec), (vec![], vec![]), "{src}");
        }
    }
    assert!(world.passes(&client, 4000), "IPv4 is as it was");
}

#[test]
fn we_answer_pings_and_refuse_the_rest_and_routers_are_not_believed() {
    let (world, client) = world(3, ANY);
    let own = ip("fd09::10");
    let (sent, told) = send(&world, &client, Spec::ping(own, ip(OURS), 5));
    assert_eq!((sent.len(), told.len()), (0, 1));
    assert_eq!((packet(&told[0]).src, packet(&told[0]).dst), (ip(OURS), own));
    let knocks =
        [Spec::udp((own, 1), (ip(OURS), 53)), Spec::tcp((own, 1), (ip(OURS), 22), TcpFlags::SYN)];
    for knock in knocks {
        let (sent, told) = send(&world, &client, knock);
        assert_eq!((sent.len(), told.len()), (0, 1));
        let Transport::IcmpError(error) = packet(&told[0]).transport else { panic!() };
        assert_eq!(error.kind, IcmpErrorKind::Unreachable { code: 1 }, "admin-prohibited");
    }
    // Router advertisements and redirects (RFC 4861).
    for kind in [134, 137] {
        for dst in [ip(OURS), server(), ip("ff02::1")] {
            let said = Kind::Icmp { kind, code: 0, rest: 0 };
            let (sent, _) = send(&world, &client, Spec::new(own, dst, said).ttl(255));
            assert!(sent.is_empty(), "type {kind} to {dst}");
        }
    }
}

#[test]
fn addresses_of_clients_are_fenced_off_whether_they_run_or_not() {
    let (world, client) = world(4, ANY);
    for dst in ["fd09::77", "fd09::10"].map(ip) {
        let (sent, _) = send(&world, &client, Spec::udp((ip("fd09::10"), 4000), (dst, 7)));
        assert!(sent.is_empty(), "{dst}");
    }
    let (sent, _) = send(&world, &client, Spec::udp((ip("fd09::10"), 4001), (server(), 7)));
    let seen = tuple(&sent[0], Offload::NONE);
    let _none = client.peer.take_received();
    for src in ["fd09::77", "fd09::10", OURS, "2606:2800::2"].map(ip) {
        for dport in [seen.sport, seen.sport ^ 1] {
            let forged = Spec::udp((src, 7), (ip(OURS), dport)).macs(UPLINK_MAC, Mac::BACKEND);
            world.machine.uplink().send(&forged.frame(), Offload::NONE);
        }
        let direct = Spec::udp((src, 7), (ip("fd09::10"), 4001)).macs(UPLINK_MAC, Mac::BACKEND);
        world.machine.uplink().send(&direct.frame(), Offload::NONE);
        world.machine.settle();
        assert!(client.peer.take_received().is_empty(), "{src}");
    }
}

#[test]
fn rules_of_one_family_say_nothing_of_the_other() {
    let (world, client) = world(5, "action=drop");
    let leaves = |world: &World| {
        let six = Spec::udp((ip("fd09::10"), 4000), (server(), 7));
        (world.passes(&client, 4000), !send(world, &client, six).0.is_empty())
    };
    let set = |addr: &str, rule: &str| {
        world.dom0.database(|db| db.set_rules(addr, "drop", &[(0, rule)]));
        world.machine.settle();
    };
    assert_eq!(leaves(&world), (false, false));
    set("10.137.0.10", ANY);
    assert_eq!(leaves(&world), (true, false));
    set("fd09::10", ANY);
    assert_eq!(leaves(&world), (true, true));
    set("10.137.0.10", "action=accept dst6=::/0");
    assert_eq!(leaves(&world), (false, true), "what is not understood blocks its family");
    set("fd09::10", "action=drop");
    assert_eq!(leaves(&world), (false, false));
}

#[test]
fn ipv6_that_comes_and_goes_in_dom0_comes_and_goes_here() {
    let world = World::new(6);
    let client = flow::client(&world.machine, 10, Default::default());
    world.dom0.database(|db| db.set_rules("fd09::10", "drop", &[(0, ANY)]));
    world.set_rules(&client, &[ANY]);
    let six = || Spec::udp((ip("fd09::10"), 4000), (server(), 7));
    for _ in 0..3 {
        assert!(send(&world, &client, six()).0.is_empty());
        world.dom0.database(|db| db.write("/qubes-ip6", OURS));
        world.machine.settle();
        let (sent, _) = send(&world, &client, six());
        assert_eq!(tuple(&sent[0], Offload::NONE).src, ip(OURS));
        assert!(world.passes(&client, 4000));
        world.dom0.database(|db| db.remove("/qubes-ip6"));
        world.machine.settle();
    }
}
