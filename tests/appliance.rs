//! The whole appliance on a simulated machine: what a user would see of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::frames::Spec;
use machine::{CLIENT_MAC, CMDLINE, Client, Machine, OWN, SERVER, SYS_NET, UPLINK_MAC};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Csum, DropReason, Frame, Mac, Offload, Packet, Parsed, Port, Tuple, parse};
use xen::hypervisor::{DomId, Shutdown};
use xen::sim::peer_front::Outgoing;

const GATEWAY: Mac = Mac::BACKEND;

/// The packet in a frame, which must be a valid one.
fn tuple(bytes: &[u8], offload: Offload) -> Tuple {
    let frame = Frame {
        from: Port::new(0, 0),
        head: bytes,
        len: u32::try_from(bytes.len()).unwrap(),
        offload,
    };
    let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!("no packet: {bytes:02x?}") };
    let packet: Packet<'_> = packet;
    packet.tuple().expect("a packet with ports")
}

/// A datagram of `client` to the server.
fn query(client: &Client, sport: u16) -> Vec<u8> {
    Spec::udp((client.addr, sport), (SERVER, 7)).macs(GATEWAY, CLIENT_MAC).frame()
}

/// What the server answers to a datagram that came to it as `seen`.
fn answer(seen: &Tuple) -> Vec<u8> {
    Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport)).macs(UPLINK_MAC, GATEWAY).frame()
}

/// Sends a datagram out and an answer back; returns the translated tuple.
fn round_trip(machine: &Machine, client: &Client, sport: u16) -> Tuple {
    client.send(query(client, sport));
    machine.settle();
    let sent = machine.uplink().received();
    assert_eq!(sent.len(), 1, "console:\n{}", machine.console());
    let seen = tuple(&sent[0].bytes, sent[0].offload);
    machine.uplink().send(&answer(&seen), Offload::NONE);
    machine.settle();
    let back = client.peer.take_received();
    assert_eq!(back.len(), 1, "console:\n{}", machine.console());
    let back = tuple(&back[0].bytes, back[0].offload);
    assert_eq!((back.src, back.sport), (SERVER, 7));
    assert_eq!((back.dst, back.dport), (client.addr, sport));
    seen
}

fn assert_honest(machine: &Machine, clients: &[&Client]) {
    assert_eq!(machine.uplink().complaint(), None);
    for client in clients {
        assert_eq!(client.peer.fault(), None, "of {}", client.addr);
    }
}

#[test]
fn a_datagram_leaves_from_our_address_and_its_answer_comes_back() {
    let machine = Machine::open(1);
    let client = machine.client(10);
    let seen = round_trip(&machine, &client, 4000);
    assert_eq!(seen.src, IpAddr::V4(OWN));
    assert!(seen.sport >= 1024 && seen.sport != 4000);
    assert_honest(&machine, &[&client]);
}

#[test]
fn what_stands_behind_a_packet_is_not_sent_on() {
    let machine = Machine::open(21);
    let client = machine.client(10);
    let seen = round_trip(&machine, &client, 4000);
    // In the head, in the same slot behind it, and in slots of its own.
    for (data, behind) in [(20, 100), (1000, 400), (1300, 9000)] {
        let datagram = |from: (IpAddr, u16), to, macs: (Mac, Mac)| {
            Spec::udp(from, to).payload(&vec![0x5a; data]).macs(macs.0, macs.1).frame()
        };
        let padded = |frame: &[u8]| [frame, &vec![0xa5; behind]].concat();
        let out = datagram((client.addr, 4000), (SERVER, 7), (GATEWAY, CLIENT_MAC));
        client.send(padded(&out));
        machine.settle();
        let left = machine.uplink().received();
        assert_eq!(left.len(), 1, "console:\n{}", machine.console());
        assert_eq!(left[0].bytes.len(), out.len());
        let back = datagram((SERVER, 7), (seen.src, seen.sport), (UPLINK_MAC, GATEWAY));
        machine.uplink().send(&padded(&back), Offload::NONE);
        machine.settle();
        let came = client.peer.take_received();
        assert_eq!(came.len(), 1, "console:\n{}", machine.console());
        assert_eq!(came[0].bytes.len(), back.len());
    }
    assert_honest(&machine, &[&client]);
}

#[test]
fn what_nobody_asked_for_reaches_no_client() {
    let machine = Machine::open(2);
    let client = machine.client(10);
    let seen = round_trip(&machine, &client, 4000);
    let other = Tuple { sport: seen.sport ^ 1, ..seen };
    machine.uplink().send(&answer(&other), Offload::NONE);
    let to_client = Spec::udp((SERVER, 7), (client.addr, 4000)).macs(UPLINK_MAC, GATEWAY).frame();
    machine.uplink().send(&to_client, Offload::NONE);
    machine.settle();
    assert_eq!(client.peer.take_received(), []);
    assert_eq!(machine.uplink().received(), []);
}

#[test]
fn without_a_policy_everything_is_dropped_and_the_console_says_so() {
    let machine = Machine::new(3, CMDLINE, None);
    let client = machine.client(10);
    client.send(query(&client, 4000));
    machine.settle();
    assert_eq!(machine.uplink().received(), []);
    assert!(machine.console().contains("no policy: everything is dropped"));
}

#[test]
fn a_client_may_not_speak_in_the_name_of_another() {
    let machine = Machine::open(4);
    let (a, b) = (machine.client(10), machine.client(11));
    let forged = Spec::udp((b.addr, 4000), (SERVER, 7)).macs(GATEWAY, CLIENT_MAC).frame();
    a.send(forged);
    machine.settle();
    assert_eq!(machine.uplink().received(), []);
}

#[test]
fn clients_do_not_reach_each_other() {
    let machine = Machine::open(5);
    let (a, b) = (machine.client(10), machine.client(11));
    let knock = Spec::udp((a.addr, 4000), (b.addr, 7)).macs(GATEWAY, CLIENT_MAC).frame();
    a.send(knock);
    machine.settle();
    assert_eq!(b.peer.take_received(), []);
    assert_eq!(machine.uplink().received(), []);
}

#[test]
fn the_gateway_answers_ping_without_an_uplink() {
    let mut machine = Machine::open(6);
    let client = machine.client(10);
    machine.unplug();
    let ping = Spec::ping(client.addr, IpAddr::V4(OWN), 77).macs(GATEWAY, CLIENT_MAC).frame();
    client.send(ping);
    machine.settle();
    let back = client.peer.take_received();
    assert_eq!(back.len(), 1, "console:\n{}", machine.console());
    assert_eq!(tuple(&back[0].bytes, back[0].offload).dst, client.addr);
}

#[test]
fn a_blank_checksum_passes_blank_and_is_the_sum_of_the_new_pseudo_header() {
    let machine = Machine::open(7);
    let client = machine.client(10);
    let mut frame = query(&client, 4000);
    let blank = Offload { csum: Csum::Blank, gso: None };
    let sum = pseudo_sum(&frame).to_be_bytes();
    frame[40..42].copy_from_slice(&sum);
    assert!(client.peer.send(&Outgoing { offload: blank, ..Outgoing::plain(frame) }));
    machine.settle();
    let sent = machine.uplink().received();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].offload.csum, Csum::Blank);
    let field = u16::from_be_bytes([sent[0].bytes[40], sent[0].bytes[41]]);
    assert_eq!(field, pseudo_sum(&sent[0].bytes));
}

/// The folded sum of the pseudo header of a UDP frame without IP options, not complemented.
fn pseudo_sum(frame: &[u8]) -> u16 {
    let words = frame[26..34].chunks(2).chain([&[0, 17][..], &frame[38..40]]);
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

#[test]
fn a_client_that_is_destroyed_leaves_nothing_behind_and_its_neighbour_goes_on() {
    let machine = Machine::open(8);
    let stays = machine.client(10);
    round_trip(&machine, &stays, 4000);
    machine.run(Duration::from_secs(1));
    let before = machine.sim.holdings(machine::TIDEGATE);
    for n in 0..20 {
        let goes = machine.client(20 + n);
        round_trip(&machine, &goes, 4000);
        let job = machine.tools.destroy(goes.spec.front, std::slice::from_ref(&goes.spec));
        machine.finish(job);
        round_trip(&machine, &stays, 4001 + n);
    }
    machine.run(Duration::from_secs(1));
    assert_eq!(machine.sim.holdings(machine::TIDEGATE), before);
    assert_honest(&machine, &[&stays]);
}

#[test]
fn the_uplink_is_detached_and_another_attached_while_clients_stay() {
    let mut machine = Machine::open(9);
    let client = machine.client(10);
    round_trip(&machine, &client, 4000);
    for (n, dom) in [(1, 101), (2, 102), (0, 103)] {
        machine.unplug();
        machine.plug(DomId(dom), n);
        machine.wait("the new uplink", || machine.uplink().is_connected());
        machine.run(Duration::from_millis(10));
        round_trip(&machine, &client, 4000 + dom);
    }
    assert_honest(&machine, &[&client]);
}

#[test]
fn the_backend_driver_restarts_and_the_uplink_comes_back_by_itself() {
    let machine = Machine::open(10);
    let client = machine.client(10);
    for n in 0..5 {
        round_trip(&machine, &client, 4000 + n);
        machine.uplink().restart(xen::sim::peer_back::Offers::default());
        machine.wait("the uplink again", || machine.uplink().is_connected());
        machine.run(Duration::from_millis(10));
    }
    round_trip(&machine, &client, 5000);
    assert_honest(&machine, &[&client]);
}

#[test]
fn requests_to_end_are_acknowledged_and_obeyed() {
    let table = [
        ("poweroff", Some(Shutdown::Poweroff)),
        ("halt", Some(Shutdown::Poweroff)),
        ("reboot", Some(Shutdown::Reboot)),
        ("suspend", None),
        ("nonsense", None),
    ];
    for (request, end) in table {
        let machine = Machine::open(11);
        let path = "/local/domain/2/control/shutdown";
        machine.xs.set(path, request);
        machine.wait("the acknowledgement", || machine.xs.value(path).as_deref() == Some(""));
        machine.settle();
        assert_eq!(machine.ended(), end, "{request}");
        assert_eq!(machine.xs.value("/local/domain/2/control/feature-poweroff").unwrap(), "1");
    }
}

#[test]
fn a_malformed_mac_costs_that_vif_only_and_is_named() {
    let machine = Machine::open(12);
    let good = machine.client(10);
    let dom = DomId(11);
    let _ring = machine.xs.introduce(dom);
    let mut spec = xen::sim::toolstack::VifSpec::new(dom, machine::TIDEGATE, 0, CLIENT_MAC);
    spec.ip = "10.137.0.300".into();
    machine.tools.attach(spec);
    machine.run(Duration::from_secs(1));
    let console = machine.console();
    assert!(console.contains("backend/vif/11/0") && console.contains("10.137.0.300"), "{console}");
    round_trip(&machine, &good, 4000);
}

#[test]
fn a_stalled_xenstore_delays_no_packet() {
    let machine = Machine::open(13);
    let client = machine.client(10);
    machine.xs.stall(true);
    for n in 0..100 {
        round_trip(&machine, &client, 4000 + n);
    }
    assert_honest(&machine, &[&client]);
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_and_halts_the_domain() {
    for (line, told) in [
        ("ip=10.137.255.2 gateway=10.137.255.1", "column 17: `gateway=10.137.255.1`: unknown word"),
        ("ip=10.137.255", "column 1: `ip=10.137.255`: not an IPv4 address"),
        ("gw=10.137.255.1", "needs ip= beside it"),
    ] {
        let machine = Machine::bare(14, line, None);
        assert_eq!(machine.ended(), Some(Shutdown::Poweroff));
        let console = machine.console();
        assert!(console.contains(told) && console.contains("halting"), "{console}");
    }
}

#[test]
fn a_missing_uplink_is_told_once() {
    let machine = Machine::bare(15, CMDLINE, None);
    machine.run(Duration::from_secs(60));
    let console = machine.console();
    assert_eq!(console.matches("no uplink: no vif under device/vif").count(), 1, "{console}");
    assert_eq!(machine.ended(), None);
}

#[test]
fn a_broken_policy_drops_everything_and_the_console_says_so() {
    let mut blob = lang::compile("test.tide", machine::OPEN).unwrap().blob;
    *blob.last_mut().unwrap() ^= 1;
    let mut machine = Machine::bare(16, CMDLINE, Some(&blob));
    machine.plug(SYS_NET, 0);
    let client = machine.client(10);
    client.send(query(&client, 4000));
    machine.run(Duration::from_secs(1));
    assert_eq!(machine.uplink().received(), []);
    let console = machine.console();
    assert!(console.contains("WARNING: policy (built in): damaged"), "{console}");
}

#[test]
fn a_client_is_detached_within_a_second_of_what_the_hold_demands() {
    let machine = Machine::open(17);
    let client = machine.client(10);
    let before = machine.sim.now();
    let job = machine.tools.detach(&client.spec);
    machine.finish(job);
    assert!(machine.sim.now().since(before) < Duration::from_millis(2150));
}

#[test]
fn a_client_that_posts_no_buffers_loses_its_own_answers_and_they_are_counted() {
    let machine = Machine::open(18);
    let (mute, other) = (machine.client(10), machine.client(11));
    let seen = round_trip(&machine, &mute, 4000);
    mute.peer.keep_posted(0);
    for _ in 0..600 {
        machine.uplink().send(&answer(&seen), Offload::NONE);
        machine.settle();
    }
    // It is waited for once, for a moment.
    machine.run(Duration::from_millis(2));
    let came = mute.peer.take_received().len() as u64;
    let lost = machine.counters().drops[DropReason::EgressFull];
    assert!(lost > 0, "its buffers never ran out");
    assert_eq!(came + lost, 600);
    round_trip(&machine, &other, 4000);
}
