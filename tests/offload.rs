//! Large frames and blank checksums for peers that take neither: cut and summed in software, judged by
//! smoltcp, with nothing allocated for a frame. What a peer takes goes as it came.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::flow::{BOTH, Flow, HEADERS, client, gso};
use machine::frames::{Spec, assert_sound, packet, plain_pseudo};
use machine::{CLIENT_MAC, Client, Machine, OPEN, SERVER, SYS_NET, TIDEGATE};
use wire::{Csum, DropReason, Mac, Offload, TcpFlags, Transport};
use xen::hypervisor::{CopyEnd, GrantStatus};
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::{Manners, Outgoing, Slots};

const BLANK: Offload = Offload { csum: Csum::Blank, gso: None };
/// Payload of as many segments as make the largest frame.
const LARGE: usize = 45 * 1428;
const MSS: u16 = 1428;

/// A machine whose uplink's backend offers this.
fn machine(seed: u64, offers: Offers) -> Machine {
    let blob = lang::compile("test.tide", OPEN).unwrap().blob;
    let mut machine = Machine::bare(seed, BOTH, Some(&blob));
    machine.plug_offering(SYS_NET, 0, offers);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    machine
}

/// Bytes that differ from their neighbours and from those a segment further.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 ^ (n / 1428) as u8).collect()
}

/// A frame somebody has received.
struct Came {
    bytes: Vec<u8>,
    offload: Offload,
    slots: usize,
}

fn at_uplink(machine: &Machine) -> Vec<Came> {
    assert_eq!(machine.uplink().complaint(), None);
    let frames = machine.uplink().received();
    let came = |f: xen::sim::peer_back::Received| Came {
        bytes: f.bytes,
        offload: f.offload,
        slots: f.slots.len(),
    };
    frames.into_iter().map(came).collect()
}

fn at_client(client: &Client) -> Vec<Came> {
    assert_eq!(client.peer.fault(), None);
    let came: Vec<_> = client
        .peer
        .take_received()
        .into_iter()
        .map(|f| Came { bytes: f.bytes, offload: f.offload, slots: f.slots })
        .collect();
    // Whether it was summed here or is vouched for by its sender, it is right.
    assert!(came.iter().all(|f| f.offload.csum != Csum::Unknown));
    came
}

/// Holds `came` to be `sent` in segments of `mss` bytes that need nothing done to them, or if `blank`
/// nothing but their sums.
fn assert_segments(came: &[Came], sent: &[u8], ipv6: bool, mss: usize, blank: bool) {
    let headers = HEADERS[usize::from(ipv6)];
    assert_eq!(came.len(), sent.len().div_ceil(mss));
    let first = tcp(&came[0].bytes);
    let mut data = Vec::new();
    for (n, frame) in came.iter().enumerate() {
        if blank {
            assert_eq!(frame.offload, BLANK);
            assert_blank(&frame.bytes);
        } else {
            assert_ne!(frame.offload.csum, Csum::Blank);
            assert_eq!(frame.offload.gso, None);
            assert_sound(&frame.bytes);
        }
        assert!(frame.bytes.len() <= headers + mss && frame.slots == 1, "segment {n}");
        let segment = tcp(&frame.bytes);
        assert_eq!(segment.seq, first.seq.wrapping_add(data.len() as u32), "segment {n}");
        assert_eq!(segment.flags.contains(TcpFlags::PSH), n + 1 == came.len(), "segment {n}");
        data.extend_from_slice(&frame.bytes[headers..]);
    }
    assert!(data == sent, "the payload is another");
}

fn tcp(frame: &[u8]) -> wire::Tcp {
    match packet(frame).transport {
        Transport::Tcp(tcp) => tcp,
        other => panic!("{other:?}"),
    }
}

fn assert_blank(frame: &[u8]) {
    let packet = packet(frame);
    let l4 = usize::from(packet.l4);
    let at = l4 + if matches!(packet.transport, Transport::Tcp(_)) { 16 } else { 6 };
    let protocol = if matches!(packet.transport, Transport::Tcp(_)) { 6 } else { 17 };
    let len = u32::try_from(frame.len() - l4).unwrap();
    let sum = plain_pseudo(packet.src, packet.dst, protocol, len);
    assert_eq!(u16::from_be_bytes([frame[at], frame[at + 1]]), sum);
}

/// Every way in which a peer can take less, with whether it takes blank checksums of IPv4 and IPv6.
const LESS: [(Offers, [bool; 2]); 4] = [
    (Offers::PLAIN, [false, false]),
    (Offers { ipv4_csum: true, ..Offers::PLAIN }, [true, false]),
    (Offers { sg: true, ipv4_csum: true, ipv6_csum: true, ..Offers::PLAIN }, [true, true]),
    // GSO without checksums or without scatter-gather is no GSO.
    (Offers { gso: true, ipv6_csum: true, ..Offers::PLAIN }, [false, true]),
];

/// A frontend that takes the same.
fn manners(offers: Offers) -> Manners {
    let flag = |on: bool| Some(if on { "1" } else { "0" });
    Manners::default()
        .with("feature-sg", flag(offers.sg))
        .with("feature-gso-tcpv4", flag(offers.gso))
        .with("feature-gso-tcpv6", flag(offers.gso))
        .with("feature-no-csum-offload", flag(!offers.ipv4_csum))
        .with("feature-ipv6-csum-offload", flag(offers.ipv6_csum))
}

#[test]
fn large_frames_reach_an_uplink_that_takes_less_in_segments() {
    for (n, (offers, blank)) in LESS.into_iter().enumerate() {
        let machine = machine(n as u64, offers);
        let client = client(&machine, 10, Manners::default());
        for ipv6 in [false, true] {
            let flow = Flow::connect(&machine, &client, ipv6);
            let sent = payload(LARGE - 100);
            for slots in [Slots::Linux, Slots::Bounced] {
                let frame = flow.upload(&sent, gso(ipv6, MSS));
                assert!(client.peer.send(&Outgoing { slots, ..frame }));
                machine.settle();
                let came = at_uplink(&machine);
                assert_segments(&came, &sent, ipv6, MSS.into(), blank[usize::from(ipv6)]);
            }
        }
        assert_eq!(client.peer.in_flight(), 0);
    }
}

#[test]
fn large_frames_reach_a_client_that_takes_less_in_segments() {
    for (n, (offers, blank)) in LESS.into_iter().enumerate() {
        let machine = machine(10 + n as u64, Offers::default());
        let client = client(&machine, 10, manners(offers));
        for ipv6 in [false, true] {
            let flow = Flow::connect(&machine, &client, ipv6);
            let sent = payload(LARGE - 100);
            machine.uplink().send(&flow.download(&sent, gso(ipv6, MSS)), gso(ipv6, MSS));
            machine.settle();
            let came = at_client(&client);
            assert_segments(&came, &sent, ipv6, MSS.into(), blank[usize::from(ipv6)]);
        }
    }
}

#[test]
fn large_frames_too_small_to_leave_their_head_are_cut_as_well() {
    let machine = machine(20, Offers { sg: true, ipv4_csum: true, ..Offers::PLAIN });
    let client = client(&machine, 10, Manners::default());
    for ipv6 in [false, true] {
        let flow = Flow::connect(&machine, &client, ipv6);
        for len in [0, 1, 99, 100, 150, 182, 183] {
            assert!(client.peer.send(&flow.upload(&payload(len), gso(ipv6, 50))));
            machine.settle();
            let came = at_uplink(&machine);
            if len == 0 {
                assert_eq!(came.len(), 1);
            } else {
                assert_segments(&came, &payload(len), ipv6, 50, !ipv6);
            }
        }
    }
}

#[test]
fn blank_checksums_are_completed_both_ways_for_who_takes_none() {
    let machine = machine(21, Offers::PLAIN);
    let client = client(&machine, 10, Manners::default().plain());
    for ipv6 in [false, true] {
        let flow = Flow::connect(&machine, &client, ipv6);
        for len in [1, 100, 300, 1428] {
            let sent = payload(len);
            assert!(client.peer.send(&flow.upload(&sent, BLANK)));
            machine.uplink().send(&flow.download(&sent, BLANK), BLANK);
            machine.settle();
            assert_segments(&at_uplink(&machine), &sent, ipv6, len, false);
            assert_segments(&at_client(&client), &sent, ipv6, len, false);
        }
    }
    let datagram = Spec::udp((client.addr, 9), (SERVER, 9)).payload(&payload(700));
    let mut frame = datagram.macs(Mac::BACKEND, CLIENT_MAC).frame();
    let sum = plain_pseudo(client.addr, SERVER, 17, 708).to_be_bytes();
    frame[40..42].copy_from_slice(&sum);
    assert!(client.peer.send(&Outgoing { offload: BLANK, ..Outgoing::plain(frame) }));
    machine.settle();
    let came = at_uplink(&machine);
    assert_eq!((came.len(), came[0].offload), (1, Offload::NONE));
    assert_sound(&came[0].bytes);
}

#[test]
fn what_a_peer_takes_goes_as_it_came() {
    let machine = machine(22, Offers::default());
    let client = client(&machine, 10, Manners::default());
    for ipv6 in [false, true] {
        let flow = Flow::connect(&machine, &client, ipv6);
        let sent = payload(LARGE);
        assert!(client.peer.send(&flow.upload(&sent, gso(ipv6, MSS))));
        machine.uplink().send(&flow.download(&sent, gso(ipv6, MSS)), gso(ipv6, MSS));
        machine.settle();
        let (up, down) = (at_uplink(&machine), at_client(&client));
        for came in [up, down] {
            assert_eq!((came.len(), came[0].offload), (1, gso(ipv6, MSS)));
            assert_blank(&came[0].bytes);
            assert!(came[0].bytes[HEADERS[usize::from(ipv6)]..] == sent);
        }
    }
}

/// As Linux sends them: its timestamps behind the TCP header, which is said to be 32 bytes long.
fn with_timestamps(mut frame: Outgoing, ipv6: bool) -> Outgoing {
    let tcp = HEADERS[usize::from(ipv6)] - 20;
    frame.bytes[tcp + 12] = 8 << 4;
    frame.bytes[tcp + 20..tcp + 32].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame
}

#[test]
fn a_large_frame_goes_on_wherever_its_first_slot_ends_and_headers_alone_are_one_copy() {
    for ipv6 in [false, true] {
        let headers = HEADERS[usize::from(ipv6)] + 12;
        let machine = machine(12, Offers::default());
        let client = client(&machine, 10, Manners::default());
        let flow = Flow::connect(&machine, &client, ipv6);
        for first in (14..=300).chain([4000]) {
            let mut frame = flow.upload(&payload(8000), gso(ipv6, MSS));
            let rest = frame.bytes.len() as u16 - first;
            frame.slots = match rest {
                ..=4096 => Slots::Exactly(vec![(0, first), (0, rest)]),
                _ => Slots::Exactly(vec![(0, first), (0, 4096), (0, rest - 4096)]),
            };
            let frame = with_timestamps(frame, ipv6);
            let before = machine.sim.counters(TIDEGATE);
            assert!(client.peer.send(&frame));
            machine.settle();
            let sent = at_uplink(&machine);
            assert_eq!(sent.len(), 1, "first slot of {first}: {}", machine.console());
            let whole = |bytes: &[u8]| (bytes.len(), bytes[headers - 12..].to_vec());
            assert!(whole(&sent[0].bytes) == whole(&frame.bytes), "first slot of {first}");
            assert_eq!(sent[0].offload, frame.offload);
            let after = machine.sim.counters(TIDEGATE);
            if usize::from(first) == headers {
                assert_eq!(
                    (after.copies - before.copies, after.copy_ops - before.copy_ops),
                    (2, 3)
                );
            }
        }
    }
}

#[test]
fn a_flow_keeps_its_order_whether_its_frames_are_cut_or_not() {
    let machine = machine(23, Offers::PLAIN);
    let client = client(&machine, 10, Manners::default());
    let flow = Flow::connect(&machine, &client, false);
    let mut expected = Vec::new();
    // More bytes than can be summed at a time, cut and uncut by turns.
    for n in 0..8u8 {
        let large = vec![n; 20 * 1428];
        assert!(client.peer.send(&flow.upload(&large, gso(false, MSS))));
        expected.extend([n; 20]);
        assert!(client.peer.send(&flow.upload(&[n | 0x80; 500], Offload::NONE)));
        expected.push(n | 0x80);
    }
    machine.settle();
    let came: Vec<_> = at_uplink(&machine).iter().map(|f| f.bytes[60]).collect();
    assert_eq!(came, expected);
    assert_eq!(machine.counters().drops[DropReason::EgressFull], 0);
}

#[test]
fn segments_that_find_no_buffer_are_counted_one_by_one() {
    let machine = machine(24, Offers::default());
    let client = client(&machine, 10, Manners { rx_buffers: 30, ..Manners::default().plain() });
    let flow = Flow::connect(&machine, &client, false);
    machine.uplink().send(&flow.download(&payload(LARGE), gso(false, MSS)), gso(false, MSS));
    machine.settle();
    assert_segments_began(&at_client(&client), 30);
    assert_eq!(machine.counters().drops[DropReason::EgressFull], 15);
}

fn assert_segments_began(came: &[Came], count: usize) {
    assert_eq!(came.len(), count);
    came.iter().for_each(|frame| assert_sound(&frame.bytes));
}

#[test]
fn more_segments_than_anybody_needs_are_refused() {
    let machine = machine(25, Offers::PLAIN);
    let client = client(&machine, 10, Manners::default());
    let flow = Flow::connect(&machine, &client, false);
    assert!(client.peer.send(&flow.upload(&payload(1000), gso(false, 1))));
    machine.settle();
    assert!(at_uplink(&machine).is_empty());
    assert_eq!(machine.counters().drops[DropReason::EgressOffload], 1);
}

#[test]
fn a_client_without_scatter_gather_gets_no_packet_longer_than_its_slot() {
    let machine = machine(26, Offers::default());
    let manners = Manners::default().plain().with("mtu", Some("9000"));
    let client = client(&machine, 10, manners);
    assert!(machine.console().contains("mtu 1500"), "{}", machine.console());
    let flow = Flow::connect(&machine, &client, false);
    machine.uplink().send(&flow.download(&payload(6000), gso(false, 3000)), gso(false, 3000));
    machine.settle();
    assert!(at_client(&client).is_empty());
    let told = machine.uplink().received().remove(0).bytes;
    assert_sound(&told);
    // Fragmentation needed, and the MTU (RFC 1191).
    assert_eq!((&told[34..36], &told[40..42]), (&[3, 4][..], &1500u16.to_be_bytes()[..]));
}

#[test]
fn a_body_that_cannot_be_read_to_be_summed_is_never_sent() {
    let machine = machine(27, Offers::PLAIN);
    let client = client(&machine, 10, Manners::default());
    let flow = Flow::connect(&machine, &client, false);
    assert!(client.peer.send(&flow.upload(&[1; 5000], gso(false, MSS))));
    machine.settle();
    assert_eq!(at_uplink(&machine).len(), 4);
    // Heads are read, bodies are not: where the body should be stands the one before.
    machine.sim.on_copy(|dom, op| {
        let body = matches!(op.dst(), CopyEnd::Private(_)) && op.len() > 256;
        (dom == TIDEGATE && body).then_some(GrantStatus::BAD_GNTREF)
    });
    assert!(client.peer.send(&flow.upload(&[2; 5000], gso(false, MSS))));
    machine.settle();
    assert!(at_uplink(&machine).is_empty());
    assert_eq!(machine.counters().drops[DropReason::CopyFailed], 1);
    assert_eq!(client.peer.in_flight(), 0);
}
