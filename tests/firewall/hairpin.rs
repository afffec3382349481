//! Clients that meet at our own address (RFC 4787 REQ-9).

use crate::common::{Spec, assert_sound, packet};
use crate::fragments::{cut, join};
use crate::world::{
    OPEN, PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config, from_work, personal, us, web, work,
};
use nat::{Forward, Statics};
use rules::{Policy, Zone};
use tidegate::firewall::{Config, Link};
use wire::{DropReason, IcmpErrorKind, Mac, Proto, TcpFlags, Transport, Uplink, Verdict};

fn from_personal(spec: Spec) -> Vec<u8> {
    spec.macs(Mac::BACKEND, PERSONAL_MAC).frame()
}

/// Clients may go out; whether they may go to each other is said.
fn meeting(between: bool) -> World {
    meeting_by(OPEN, between)
}

/// The same by other rules, which count for both.
fn meeting_by(rules: &str, between: bool) -> World {
    let config = config(rules);
    let mut parts = config.policy.as_ref().unwrap().parts().clone();
    if between {
        let block =
            rules::Block { from: Zone::Clients, to: Zone::Clients, ..parts.blocks[0].clone() };
        parts.blocks.push(block);
    }
    let policy = Some(Policy::new(parts).unwrap());
    let mut world = World::new(Config { policy, ..config });
    world.firewall.set_statics(Statics { hairpin: true, ..Statics::default() }).unwrap();
    world
}

/// The external ports of a socket of each client.
fn ports(world: &mut World) -> (u16, u16) {
    let out = from_work(Spec::udp((work(), 5000), (web(), 3478)));
    let a = packet(&world.send(WORK, &out).emitted(UPLINK)).tuple().unwrap().sport;
    let out = from_personal(Spec::udp((personal(), 6000), (web(), 3478)));
    let b = packet(&world.send(PERSONAL, &out).emitted(UPLINK)).tuple().unwrap().sport;
    (a, b)
}

#[test]
fn n08_two_clients_meet_at_the_external_address_and_see_nothing_else() {
    let mut world = meeting(true);
    let (a, b) = ports(&mut world);
    let to_b = from_work(Spec::udp((work(), 5000), (us(), b)));
    let to_a = from_personal(Spec::udp((personal(), 6000), (us(), a)));
    // The filter is as strict as towards the world: who has not spoken yet hears nothing.
    world.send(WORK, &to_b).silent(DropReason::Unsolicited);
    let got = world.send(PERSONAL, &to_a).emitted(WORK);
    let tuple = packet(&got).tuple().unwrap();
    assert_eq!((tuple.src, tuple.sport, tuple.dst, tuple.dport), (us(), b, work(), 5000));
    let got = world.send(WORK, &to_b).emitted(PERSONAL);
    let tuple = packet(&got).tuple().unwrap();
    assert_eq!((tuple.src, tuple.sport, tuple.dst, tuple.dport), (us(), a, personal(), 6000));
    assert_eq!(packet(&got).ttl, 63, "one hop");
    // An error about it takes the same way back.
    let error = from_personal(Spec::error(personal(), us(), (3, 3), 0, &got[14..]));
    let told = world.send(PERSONAL, &error).emitted(WORK);
    let told = packet(&told);
    assert_eq!((told.src, told.dst), (us(), work()));
    let Transport::IcmpError(error) = told.transport else { panic!() };
    assert_eq!(Some(error.quote.tuple), packet(&to_b).tuple());
}

#[test]
fn a_client_whose_packets_are_too_long_for_another_is_told_its_mtu() {
    let mut world = meeting(true);
    let mtu = 1280;
    let link = Link::Client { mac: PERSONAL_MAC, addrs: vec![personal()], mtu };
    world.firewall.port_up(world.now, PERSONAL, link);
    let (a, b) = ports(&mut world);
    let to_b = from_work(Spec::udp((work(), 5000), (us(), b)));
    world.send(WORK, &to_b).silent(DropReason::Unsolicited);
    let to_a = from_personal(Spec::udp((personal(), 6000), (us(), a)));
    world.send(PERSONAL, &to_a).emitted(WORK);
    let long = from_work(Spec::udp((work(), 5000), (us(), b)).payload(&[0; 1300]));
    let told = world.send(WORK, &long).answered(DropReason::TooBig, WORK);
    let told = packet(&told);
    assert_eq!((told.src, told.dst), (us(), work()));
    let Transport::IcmpError(error) = told.transport else { panic!() };
    assert_eq!(error.kind, IcmpErrorKind::TooBig { mtu: mtu.into() });
    // Who may not meet it learns nothing of its link.
    let mut world = meeting(false);
    let link = Link::Client { mac: PERSONAL_MAC, addrs: vec![personal()], mtu };
    world.firewall.port_up(world.now, PERSONAL, link);
    let (_, b) = ports(&mut world);
    let long = from_work(Spec::udp((work(), 5000), (us(), b)).payload(&[0; 1300]));
    world.send(WORK, &long).silent(DropReason::Unsolicited);
}

#[test]
fn a_packet_that_is_cut_for_another_client_counts_once() {
    let mut world = meeting_by("accept limit 4/h burst 4", true);
    let link = Link::Client { mac: PERSONAL_MAC, addrs: vec![personal()], mtu: 1280 };
    world.firewall.port_up(world.now, PERSONAL, link);
    let (a, b) = ports(&mut world);
    let to_b = from_work(Spec::udp((work(), 5000), (us(), b)));
    world.send(WORK, &to_b).silent(DropReason::Unsolicited);
    let to_a = from_personal(Spec::udp((personal(), 6000), (us(), a)));
    for _ in 0..3 {
        world.send(PERSONAL, &to_a).emitted(WORK);
    }
    // The last that the limit allows. More than a head, and without DF.
    let mut long = from_work(Spec::udp((work(), 5000), (us(), b)).payload(&[0; 1300]));
    assert_eq!(long[20], 0x40);
    long[20] = 0;
    let sum = u32::from(u16::from_be_bytes([long[24], long[25]])) + 0x4000;
    let sum = (sum & 0xffff) + (sum >> 16);
    long[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
    let fate = world.send(WORK, &long);
    assert_eq!(fate.verdict, Verdict::Kept, "sent in fragments");
    assert!(fate.replies.iter().all(|(to, _)| *to == PERSONAL));
    assert_eq!(fate.replies.len(), 2);
}

#[test]
fn n08_n13_fragments_between_clients_arrive_in_whatever_order_they_come() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut world = meeting(true);
        let (a, b) = ports(&mut world);
        let to_a = from_personal(Spec::udp((personal(), 6000), (us(), a)));
        world.send(PERSONAL, &to_a).silent(DropReason::Unsolicited);
        let payload: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
        let long = from_work(Spec::udp((work(), 5000), (us(), b)).payload(&payload));
        let pieces = cut(&long, 7, &[0, 1480, 2960]);
        let mut got = Vec::new();
        for n in order {
            let fate = world.send(WORK, &pieces[n]);
            match fate.verdict {
                Verdict::Emit(emit) => {
                    assert_eq!(emit.to, PERSONAL);
                    got.push(fate.frame);
                }
                other => assert_eq!((other, n != 0), (Verdict::Kept, true)),
            }
            got.extend(fate.replies.into_iter().map(|(to, frame)| {
                assert_eq!(to, PERSONAL);
                frame
            }));
        }
        let whole = join(&got);
        assert_sound(&whole);
        let tuple = packet(&whole).tuple().unwrap();
        assert_eq!((tuple.src, tuple.sport, tuple.dst, tuple.dport), (us(), a, personal(), 6000));
        assert_eq!(whole[42..], payload, "{order:?}");
    }
}

#[test]
fn n08_fragments_tell_nobody_whether_a_port_is_mapped() {
    for (between, mapped) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = meeting(between);
        let (_, b) = ports(&mut world);
        let port = if mapped { b } else { b ^ 1 };
        let long = from_work(Spec::udp((work(), 5000), (us(), port)).payload(&[7; 3000]));
        let pieces = cut(&long, 7, &[0, 1480, 2960]);
        world.send(WORK, &pieces[0]).silent(DropReason::Unsolicited);
        for later in &pieces[1..] {
            let fate = world.send(WORK, later);
            assert_eq!((fate.verdict, fate.replies), (Verdict::Kept, vec![]));
        }
    }
}

#[test]
fn n08_nobody_learns_whether_a_port_is_mapped() {
    let mut world = meeting(false);
    let (_, b) = ports(&mut world);
    for port in [b, b ^ 1] {
        let probe = from_work(Spec::udp((work(), 5000), (us(), port)));
        world.send(WORK, &probe).silent(DropReason::Unsolicited);
        let probe = from_work(Spec::tcp((work(), 5000), (us(), port), TcpFlags::SYN));
        world.send(WORK, &probe).silent(DropReason::Unsolicited);
    }
    // Nor, with leave to meet, whether one is that has not spoken to us.
    let mut world = meeting(true);
    let (_, b) = ports(&mut world);
    for port in [b, b ^ 1] {
        let probe = from_work(Spec::udp((work(), 5000), (us(), port)));
        world.send(WORK, &probe).silent(DropReason::Unsolicited);
    }
}

#[test]
fn n08_without_hairpin_every_port_of_ours_answers_alike() {
    let mut world = World::new(config(OPEN));
    let (_, b) = ports(&mut world);
    for port in [b, b ^ 1] {
        let probe = from_work(Spec::udp((work(), 5000), (us(), port)));
        world.send(WORK, &probe).answered(DropReason::ToFirewall, WORK);
    }
}

#[test]
fn n08_a_client_reaches_a_forward_of_another_if_rules_let_them_meet() {
    for between in [true, false] {
        let mut world = meeting(between);
        let forward = Forward {
            uplink: Uplink::FIRST,
            proto: Proto::Tcp,
            external: us(),
            port: 8022,
            from: vec![],
            to: vec![(personal(), 22)],
            balance: nat::Balance::RoundRobin,
        };
        let statics = Statics { hairpin: true, forwards: vec![forward], ..Statics::default() };
        world.firewall.set_statics(statics).unwrap();
        let syn = from_work(Spec::tcp((work(), 5000), (us(), 8022), TcpFlags::SYN));
        let fate = world.send(WORK, &syn);
        if !between {
            fate.silent(DropReason::Unsolicited);
            continue;
        }
        let got = packet(&fate.emitted(PERSONAL)).tuple().unwrap();
        assert_eq!((got.src, got.dst, got.dport), (us(), personal(), 22));
        let flags = TcpFlags::SYN.with(TcpFlags::ACK);
        let kind =
            crate::common::Kind::Tcp { sport: 22, dport: got.sport, flags, seq: 1, ack: 1001 };
        let back = from_personal(Spec::new(personal(), us(), kind).payload(b""));
        let back = packet(&world.send(PERSONAL, &back).emitted(WORK)).tuple().unwrap();
        assert_eq!(Some(back.reversed()), packet(&syn).tuple());
    }
}
