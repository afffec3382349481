//! Translations that are written down: forwards, one address for one client, fixed sources.

use crate::common::{Kind, Spec, packet};
use crate::world::{
    OPEN, PERSONAL, PERSONAL_MAC, UPLINK, UPLINK_MAC, WORK, World, config, from_work, from_world,
    ip, personal, us, us6, web, web6, work, work6,
};
use nat::{Balance, Forward, OneToOne, Prefix, Source, Statics};
use rules::{Block, Policy, Uplink, Zone};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tidegate::firewall::Config;
use wire::{DropReason, Mac, Port, Proto, TcpFlags, Verdict};

fn forward(port: u16, to: &[(IpAddr, u16)]) -> Forward {
    let (proto, external, balance) = (Proto::Tcp, us(), Balance::RoundRobin);
    Forward { uplink: Uplink::FIRST, proto, external, port, from: vec![], to: to.to_vec(), balance }
}

fn with(statics: Statics) -> World {
    let mut world = World::new(config(OPEN));
    world.firewall.set_statics(statics).unwrap();
    world
}

fn syn(from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    from_world(Spec::tcp(from, to, TcpFlags::SYN))
}

#[test]
fn n07_a_forward_lets_in_whom_its_filter_names() {
    let from = vec![Prefix { addr: ip("93.184.216.0"), len: 24 }];
    let open = Forward { from, ..forward(8022, &[(work(), 22)]) };
    let mut world = with(Statics { forwards: vec![open], ..Statics::default() });
    let got = world.send(UPLINK, &syn((web(), 999), (us(), 8022))).emitted(WORK);
    let tuple = packet(&got).tuple().unwrap();
    assert_eq!((tuple.src, tuple.sport, tuple.dst, tuple.dport), (web(), 999, work(), 22));
    // Its answer leaves under the name that was asked.
    let flags = TcpFlags::SYN.with(TcpFlags::ACK);
    let kind = Kind::Tcp { sport: 22, dport: 999, flags, seq: 1, ack: 1001 };
    let answer = from_work(Spec::new(work(), web(), kind).payload(b""));
    let sent = packet(&world.send(WORK, &answer).emitted(UPLINK)).tuple().unwrap();
    assert_eq!((sent.src, sent.sport, sent.dst, sent.dport), (us(), 8022, web(), 999));
    for (src, port) in [(ip("93.184.217.1"), 8022), (web(), 8023)] {
        world.send(UPLINK, &syn((src, 999), (us(), port))).silent(DropReason::Unsolicited);
    }
    let data = Kind::Tcp { sport: 998, dport: 8022, flags: TcpFlags::ACK, seq: 1, ack: 1 };
    let stray = from_world(Spec::new(web(), us(), data));
    world.send(UPLINK, &stray).silent(DropReason::Unsolicited);
    let mut bad = syn((web(), 997), (us(), 8022));
    bad[48] ^= 1;
    world.send(UPLINK, &bad).silent(DropReason::BadChecksum);
    world.firewall.port_down(world.now, WORK);
    world.send(UPLINK, &syn((web(), 996), (us(), 8022))).silent(DropReason::Unsolicited);
}

#[test]
fn n31_a_forwarded_port_is_never_a_clients() {
    let forwards: Vec<Forward> = (2000..2500)
        .map(|port| Forward { proto: Proto::Udp, ..forward(port, &[(personal(), 9)]) })
        .collect();
    let mut world = with(Statics { forwards, ..Statics::default() });
    for sport in 2000..2500 {
        let out = from_work(Spec::udp((work(), sport), (web(), 9)));
        let port = packet(&world.send(WORK, &out).emitted(UPLINK)).tuple().unwrap().sport;
        assert!(!(2000..2500).contains(&port));
    }
}

#[test]
fn a_forward_that_is_taken_away_ends_its_flows_alone() {
    let mut world = with(Statics {
        forwards: vec![forward(80, &[(work(), 8080)]), forward(81, &[(work(), 8081)])],
        ..Statics::default()
    });
    for port in [80, 81] {
        world.send(UPLINK, &syn((web(), 999), (us(), port))).emitted(WORK);
    }
    let forwards = vec![forward(81, &[(work(), 8081)])];
    world.firewall.set_statics(Statics { forwards, ..Statics::default() }).unwrap();
    world.send(UPLINK, &syn((web(), 999), (us(), 80))).silent(DropReason::Unsolicited);
    world.send(UPLINK, &syn((web(), 999), (us(), 81))).emitted(WORK);
}

/// How often each client is chosen for so many remotes.
fn chosen(world: &mut World, remotes: u8) -> BTreeMap<u8, Port> {
    let remote = |n| IpAddr::from([93, 184, 1, n]);
    let to = |fate: crate::world::Fate| match fate.verdict {
        Verdict::Emit(emit) => emit.to,
        other => panic!("{other:?}"),
    };
    (0..remotes).map(|n| (n, to(world.send(UPLINK, &syn((remote(n), 999), (us(), 80)))))).collect()
}

#[test]
fn a_balancer_takes_each_in_turn_and_leaves_out_who_is_not_there() {
    let to = [(work(), 80), (personal(), 80), (ip("10.137.0.99"), 80)];
    let mut world = with(Statics { forwards: vec![forward(80, &to)], ..Statics::default() });
    let count = |chosen: &BTreeMap<u8, Port>, port| chosen.values().filter(|p| **p == port).count();
    let all = chosen(&mut world, 100);
    assert_eq!((count(&all, WORK), count(&all, PERSONAL)), (50, 50));
    assert_eq!(chosen(&mut world, 100), all, "a flow stays where it is");
    world.firewall.port_down(world.now, WORK);
    let mut other = with(Statics { forwards: vec![forward(80, &to)], ..Statics::default() });
    other.firewall.port_down(other.now, WORK);
    assert_eq!(count(&chosen(&mut other, 10), PERSONAL), 10);
}

#[test]
fn a_balancer_by_hash_sends_a_remote_always_to_the_same() {
    let to = [(work(), 80), (personal(), 80)];
    let hashed = Forward { balance: Balance::Hash, ..forward(80, &to) };
    let statics = Statics { forwards: vec![hashed], ..Statics::default() };
    let mut world = with(statics.clone());
    let first = chosen(&mut world, 100);
    let works = first.values().filter(|port| **port == WORK).count();
    assert!((25..75).contains(&works), "{works} of 100");
    // Who comes back later, by another port, too; and nobody moves but whose target is gone.
    let mut later = with(statics);
    assert_eq!(chosen(&mut later, 100), first);
    later.firewall.port_down(later.now, WORK);
    later.wait(300);
    assert!(chosen(&mut later, 100).values().all(|port| *port == PERSONAL));
}

#[test]
fn n02_an_address_for_one_client_keeps_all_ports_both_ways() {
    let inward = config("accept tcp 22\ndrop").policy.unwrap().parts().blocks[0].clone();
    let outward = config(OPEN);
    let mut parts = outward.policy.as_ref().unwrap().parts().clone();
    parts.blocks.push(Block { from: Zone::Uplink(Uplink::FIRST), to: Zone::Clients, ..inward });
    let mut world = World::new(Config { policy: Some(Policy::new(parts).unwrap()), ..outward });
    let (visible, visible6) = (ip("10.138.1.77"), ip("fd09::77"));
    let one_to_one = vec![
        OneToOne { uplink: Uplink::FIRST, inside: work(), external: visible },
        OneToOne { uplink: Uplink::FIRST, inside: work6(), external: visible6 },
    ];
    world.firewall.set_statics(Statics { one_to_one, ..Statics::default() }).unwrap();
    for (client, name, remote) in [(work(), visible, web()), (work6(), visible6, web6())] {
        let out = from_work(Spec::udp((client, 53), (remote, 7)));
        let sent = packet(&world.send(WORK, &out).emitted(UPLINK)).tuple().unwrap();
        assert_eq!((sent.src, sent.sport), (name, 53));
        let back = from_world(Spec::udp((remote, 7), (name, 53)));
        assert_eq!(packet(&world.send(UPLINK, &back).emitted(WORK)).dst, client);
        let got = world.send(UPLINK, &syn((remote, 999), (name, 22))).emitted(WORK);
        assert_eq!((packet(&got).dst, packet(&got).tuple().unwrap().dport), (client, 22));
        // What the rules do not let in stays out, without a word.
        world.send(UPLINK, &syn((remote, 999), (name, 23))).silent(DropReason::RuleDrop);
    }
    let other = Spec::udp((personal(), 53), (web(), 7)).macs(Mac::BACKEND, PERSONAL_MAC).frame();
    assert_eq!(packet(&world.send(PERSONAL, &other).emitted(UPLINK)).src, us());
    // The address is ours to answer for.
    let ask = crate::answers::arp_request(UPLINK_MAC, ip("10.138.1.254"), visible);
    world.send(UPLINK, &ask).answered(DropReason::Answered, UPLINK);
}

#[test]
fn n02_a_socket_leaves_under_the_name_that_is_written() {
    let sources = vec![
        Source {
            uplink: Uplink::FIRST,
            inside: work(),
            socket: Some((Proto::Udp, 5060)),
            external: us(),
            port: Some(5060),
        },
        Source {
            uplink: Uplink::FIRST,
            inside: work(),
            socket: None,
            external: ip("10.138.1.78"),
            port: None,
        },
        Source {
            uplink: Uplink::FIRST,
            inside: work6(),
            socket: None,
            external: us6(),
            port: None,
        },
    ];
    let mut world = with(Statics { sources, ..Statics::default() });
    let sent = |world: &mut World, from, to| {
        packet(&world.send(WORK, &from_work(Spec::udp(from, to))).emitted(UPLINK)).tuple().unwrap()
    };
    for n in 1..4 {
        let got = sent(&mut world, (work(), 5060), (web(), n));
        assert_eq!((got.src, got.sport), (us(), 5060), "one name for all remotes");
    }
    let got = sent(&mut world, (work(), 5061), (web(), 1));
    assert_eq!(got.src, ip("10.138.1.78"));
    assert_ne!(got.sport, 5061);
    assert_eq!(sent(&mut world, (work6(), 1), (web6(), 1)).src, us6());
    let back = from_world(Spec::udp((web(), 3), (us(), 5060)));
    assert_eq!(packet(&world.send(UPLINK, &back).emitted(WORK)).tuple().unwrap().dport, 5060);
    world
        .send(UPLINK, &from_world(Spec::udp((web(), 4), (us(), 5060))))
        .silent(DropReason::Unsolicited);
}

#[test]
fn two_forwards_of_one_port_are_refused_by_name_and_the_old_ones_stay() {
    let old = Statics { forwards: vec![forward(80, &[(work(), 1)])], ..Statics::default() };
    let mut world = with(old);
    let to = |client, port| forward(port, &[(client, 22)]);
    let forwards = vec![to(work(), 8022), to(personal(), 8023), to(personal(), 8022)];
    let refused = world.firewall.set_statics(Statics { forwards, ..Statics::default() });
    let why = refused.unwrap_err().to_string();
    assert_eq!(why, "port 8022 of 10.138.1.1 is translated twice");
    world.send(UPLINK, &syn((web(), 9), (us(), 8023))).silent(DropReason::Unsolicited);
    world.send(UPLINK, &syn((web(), 9), (us(), 80))).emitted(WORK);
    // A port of each protocol is one of its own.
    let udp = Forward { proto: Proto::Udp, ..to(personal(), 8022) };
    let forwards = vec![to(work(), 8022), udp];
    world.firewall.set_statics(Statics { forwards, ..Statics::default() }).unwrap();
}

#[test]
fn lists_that_contradict_themselves_change_nothing() {
    let mut world = World::new(config(OPEN));
    let twice = vec![forward(80, &[(work(), 1)]), forward(80, &[(work(), 2)])];
    let pair = |inside, external| OneToOne { uplink: Uplink::FIRST, inside, external };
    let fixed = Source {
        uplink: Uplink::FIRST,
        inside: work(),
        socket: None,
        external: us(),
        port: Some(9),
    };
    for bad in [
        Statics { forwards: twice, ..Statics::default() },
        Statics { forwards: vec![forward(80, &[])], ..Statics::default() },
        Statics { forwards: vec![forward(0, &[(work(), 1)])], ..Statics::default() },
        Statics { forwards: vec![forward(80, &[(work6(), 1)])], ..Statics::default() },
        Statics {
            forwards: vec![Forward { proto: Proto::Icmp, ..forward(80, &[(work(), 1)]) }],
            ..Statics::default()
        },
        Statics {
            one_to_one: vec![pair(work(), us()), pair(personal(), us())],
            ..Statics::default()
        },
        Statics { sources: vec![fixed], ..Statics::default() },
    ] {
        let error = world.firewall.set_statics(bad).unwrap_err();
        assert!(!error.to_string().is_empty());
        world.send(UPLINK, &syn((web(), 9), (us(), 80))).silent(DropReason::Unsolicited);
    }
}
