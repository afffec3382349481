//! What a frame costs, as exact integers that hold on every machine: hypercalls, grant operations,
//! signals, bytes copied. `cargo xtask bench counts` prints them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::flow::{BOTH, Flow};
use machine::frames::{Kind, Spec};
use machine::{CLIENT_MAC, Client, Machine, OWN, SERVER, TIDEGATE, UPLINK_MAC};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Csum, Frame, Gso, GsoKind, Mac, Offload, Parsed, Port, TcpFlags, Tuple, parse};
use xen::hypervisor::DomId;
use xen::sim::Counters;
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::{Manners, Outgoing};

/// One row of the table: what `frames` frames cost together.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    frames: u64,
    hypercalls: u64,
    copy_ops: u64,
    copied_bytes: u64,
    grants: u64,
    notifies: u64,
}

impl Cost {
    fn between(frames: u64, before: Counters, after: Counters) -> Self {
        Self {
            frames,
            hypercalls: after.hypercalls - before.hypercalls,
            copy_ops: after.copy_ops - before.copy_ops,
            copied_bytes: after.copied_bytes - before.copied_bytes,
            grants: after.grants - before.grants,
            notifies: after.notifies - before.notifies,
        }
    }

    /// One line of JSON, for the bench command.
    fn print(&self, what: &str, frame_bytes: usize) {
        let Self { frames, hypercalls, copy_ops, copied_bytes, grants, notifies } = self;
        println!(
            "COUNT {{\"what\":\"{what}\",\"frame_bytes\":{frame_bytes},\"frames\":{frames},\
             \"hypercalls\":{hypercalls},\"copy_ops\":{copy_ops},\
             \"copied_bytes\":{copied_bytes},\"grants\":{grants},\"notifies\":{notifies}}}"
        );
    }
}

fn tuple(bytes: &[u8], offload: Offload) -> Tuple {
    let len = u32::try_from(bytes.len()).unwrap();
    let Ok(Parsed::Ip(packet)) =
        parse(&Frame { from: Port::new(0, 0), head: &bytes[..bytes.len().min(256)], len, offload })
    else {
        panic!("no packet")
    };
    packet.tuple().unwrap()
}

fn cost(machine: &Machine, frames: u64, act: impl FnOnce()) -> Cost {
    machine.settle();
    let before = machine.sim.counters(TIDEGATE);
    act();
    machine.settle();
    Cost::between(frames, before, machine.sim.counters(TIDEGATE))
}

fn tcp(client: &Client, flags: TcpFlags, payload: &[u8]) -> Spec {
    Spec::tcp((client.addr, 4000), (SERVER, 80), flags)
        .payload(payload)
        .macs(Mac::BACKEND, CLIENT_MAC)
}

const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

const GSO: Offload =
    Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448 }) };

/// An established TCP connection; returns how the server sees it.
fn connect(machine: &Machine, client: &Client) -> Tuple {
    client.send(tcp(client, TcpFlags::SYN, &[]).frame());
    machine.settle();
    let seen = machine.uplink().received();
    let seen = tuple(&seen[0].bytes, seen[0].offload);
    machine.uplink().send(&reply(&seen, SYN_ACK, 5000, 1001, &[]), Offload::NONE);
    machine.settle();
    assert_eq!(client.peer.take_received().len(), 1);
    let mut ack = tcp(client, TcpFlags::ACK, &[]);
    ack.kind = Kind::Tcp { sport: 4000, dport: 80, flags: TcpFlags::ACK, seq: 1001, ack: 5001 };
    client.send(ack.frame());
    machine.settle();
    assert_eq!(machine.uplink().received().len(), 1);
    seen
}

fn reply(seen: &Tuple, flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut spec = Spec::tcp((seen.dst, seen.dport), (seen.src, seen.sport), flags);
    spec.kind = Kind::Tcp { sport: seen.dport, dport: seen.sport, flags, seq, ack };
    spec.payload(payload).macs(UPLINK_MAC, Mac::BACKEND).frame()
}

#[test]
fn a_64_kib_frame_out_is_two_copy_hypercalls_and_its_bytes_are_copied_once() {
    let machine = Machine::open(1);
    let client = machine.client(10);
    connect(&machine, &client);
    let mut data = tcp(&client, TcpFlags::ACK, &[0x5a; 65160]);
    data.kind = Kind::Tcp { sport: 4000, dport: 80, flags: TcpFlags::ACK, seq: 1001, ack: 5001 };
    let frame = data.frame();
    let bytes = frame.len();
    let cost = cost(&machine, 1, || {
        assert!(client.peer.send(&Outgoing { offload: GSO, ..Outgoing::plain(frame) }));
    });
    cost.print("64 KiB out", bytes);
    let sent = machine.uplink().received();
    assert_eq!((sent.len(), sent[0].bytes.len(), sent[0].offload), (1, bytes, GSO));
    assert!(cost.copied_bytes <= bytes as u64 + 256, "{cost:?}");
    assert!(cost.copy_ops <= 20, "{cost:?}");
    assert!(cost.notifies <= 2, "{cost:?}");
}

#[test]
fn a_64_kib_frame_in_is_one_copy_hypercall() {
    let machine = Machine::open(2);
    let client = machine.client(10);
    let seen = connect(&machine, &client);
    let frame = reply(&seen, TcpFlags::ACK, 5001, 1001, &[0x5a; 65160]);
    let bytes = frame.len();
    let cost = cost(&machine, 1, || machine.uplink().send(&frame, GSO));
    cost.print("64 KiB in", bytes);
    let came = client.peer.take_received();
    assert_eq!((came.len(), came[0].bytes.len(), came[0].offload), (1, bytes, GSO));
    assert!(cost.copied_bytes <= bytes as u64, "{cost:?}");
    assert!(cost.copy_ops <= 20, "{cost:?}");
    assert!(cost.notifies <= 2, "{cost:?}");
}

#[test]
fn a_batch_of_small_datagrams_shares_its_hypercalls() {
    let machine = Machine::open(3);
    let client = machine.client(10);
    let datagram = Spec::udp((client.addr, 4000), (SERVER, 7))
        .payload(&[1; 22])
        .macs(Mac::BACKEND, CLIENT_MAC)
        .frame();
    client.send(datagram.clone());
    machine.settle();
    let _first = machine.uplink().received();
    let frames = 48;
    let cost = cost(&machine, frames, || {
        for _ in 0..frames {
            client.send(datagram.clone());
        }
    });
    cost.print("48 datagrams out", datagram.len());
    assert_eq!(machine.uplink().received().len() as u64, frames);
    assert!(cost.copy_ops <= 2 * frames, "{cost:?}");
}

#[test]
fn with_two_uplinks_a_frame_costs_what_it_costs_with_one() {
    let lab_server = IpAddr::from([198, 18, 0, 7]);
    let text = machine::OPEN.to_owned()
        + "zone lab = netfront 1 route 198.18.0.0/15 on lab policy clients -> lab { accept }
           nat clients -> lab masquerade";
    let blob = lang::compile("test.tide", &text).unwrap().blob;
    let datagrams = |cmdline: &str, server| {
        let mut machine = Machine::bare_in(5, cmdline, Some(&blob), 2 * machine::FREE);
        machine.plug(machine::SYS_NET, 0);
        let lab = machine.plug_further(DomId(3), 1);
        machine.wait("the uplink", || machine.uplink().is_connected());
        machine.run(Duration::from_secs(1));
        let client = machine.client(10);
        let spec = Spec::udp((client.addr, 4000), (server, 7)).macs(Mac::BACKEND, CLIENT_MAC);
        client.send(spec.frame());
        machine.settle();
        let by = if server == SERVER { machine.uplink() } else { &lab.peer };
        assert_eq!(by.received().len(), 1);
        cost(&machine, 48, || (0..48).for_each(|_| client.send(spec.frame())))
    };
    let (one, two) = ("ip=10.137.255.2", "ip=10.137.255.2 ip.1=10.20.0.2");
    let alone = datagrams(one, SERVER);
    assert_eq!(datagrams(two, SERVER), alone);
    assert_eq!(datagrams(two, lab_server), alone);
}

#[test]
fn a_refused_64_kib_frame_costs_its_head() {
    let machine = Machine::new(4, machine::CMDLINE, None);
    let client = machine.client(10);
    let frame = tcp(&client, TcpFlags::ACK, &[0x5a; 65160]).frame();
    let bytes = frame.len();
    let cost = cost(&machine, 1, || {
        assert!(client.peer.send(&Outgoing { offload: GSO, ..Outgoing::plain(frame) }));
    });
    cost.print("64 KiB refused", bytes);
    // The rest is the reset that tells the client.
    assert!(cost.copied_bytes <= 256 + 54, "{cost:?}");
    assert_eq!(machine.uplink().received(), []);
}

/// A machine with a connection in IPv4, whose uplink and client take as much as these say.
fn flow(seed: u64, offers: Offers, manners: Manners) -> (Machine, Client, Flow) {
    let blob = lang::compile("test.tide", machine::OPEN).unwrap().blob;
    let mut machine = Machine::bare(seed, BOTH, Some(&blob));
    machine.plug_offering(machine::SYS_NET, 0, offers);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    let client = machine::flow::client(&machine, 10, manners);
    let flow = Flow::connect(&machine, &client, false);
    (machine, client, flow)
}

const SEGMENT: Offload = Offload { csum: Csum::Blank, gso: None };

#[test]
fn bursts_of_large_frames_share_their_hypercalls() {
    let (machine, client, flow) = flow(5, Offers::default(), Manners::default());
    let frames = 10;
    let large = flow.upload(&[0x5a; 65160], GSO);
    let bytes = large.bytes.len();
    let out = cost(&machine, frames, || {
        (0..frames).for_each(|_| assert!(client.peer.send(&large)));
    });
    out.print("10 of 64 KiB out", bytes);
    assert_eq!(machine.uplink().received().len() as u64, frames);
    assert!(out.hypercalls <= 4, "{out:?}");
    assert!(out.copy_ops <= 20 * frames, "{out:?}");
    let large = flow.download(&[0x5a; 65160], GSO);
    let back = cost(&machine, frames, || {
        (0..frames).for_each(|_| machine.uplink().send(&large, GSO));
    });
    back.print("10 of 64 KiB in", large.len());
    assert_eq!(client.peer.take_received().len() as u64, frames);
    assert!(back.hypercalls <= 2 * frames, "{back:?}");
    assert!(back.copied_bytes <= frames * large.len() as u64, "{back:?}");
}

#[test]
fn a_segment_of_1448_bytes_is_copied_once_and_its_head_read_once() {
    let (machine, client, flow) = flow(6, Offers::default(), Manners::default());
    let segment = flow.upload(&[0x5a; 1448], SEGMENT);
    let bytes = segment.bytes.len() as u64;
    let out = cost(&machine, 1, || assert!(client.peer.send(&segment)));
    out.print("1448 bytes out", segment.bytes.len());
    assert_eq!(machine.uplink().received().len(), 1);
    assert_eq!((out.copy_ops, out.grants), (2, 1), "{out:?}");
    assert!(out.hypercalls <= 4 && out.copied_bytes <= bytes + 256, "{out:?}");
    let segment = flow.download(&[0x5a; 1448], SEGMENT);
    let back = cost(&machine, 1, || machine.uplink().send(&segment, SEGMENT));
    back.print("1448 bytes in", segment.len());
    assert_eq!(client.peer.take_received().len(), 1);
    // The new head and the body behind it; one buffer is posted again.
    assert_eq!((back.copy_ops, back.grants), (2, 1), "{back:?}");
    assert!(back.hypercalls <= 3 && back.copied_bytes <= bytes, "{back:?}");
}

#[test]
fn segments_cut_for_who_sums_them_are_copied_once() {
    let offers = Offers { ipv4_csum: true, ..Offers::PLAIN };
    let (machine, client, flow) = flow(7, offers, Manners::default());
    let large = flow.upload(&[0x5a; 65160], GSO);
    let bytes = large.bytes.len();
    let cost = cost(&machine, 1, || assert!(client.peer.send(&large)));
    cost.print("64 KiB out, cut", bytes);
    assert_eq!(machine.uplink().received().len(), 45);
    assert!(cost.hypercalls <= 4, "{cost:?}");
    assert!(cost.copied_bytes <= bytes as u64 + 256, "{cost:?}");
    // One for each segment, and one more where a page of the sender ends.
    assert!(cost.copy_ops <= 45 + 18 + 2, "{cost:?}");
}

#[test]
fn segments_cut_and_summed_are_copied_twice() {
    let (machine, client, flow) = flow(8, Offers::PLAIN, Manners::default().plain());
    let large = flow.upload(&[0x5a; 65160], GSO);
    let bytes = large.bytes.len() as u64;
    let out = cost(&machine, 1, || assert!(client.peer.send(&large)));
    out.print("64 KiB out, cut and summed", large.bytes.len());
    assert_eq!(machine.uplink().received().len(), 45);
    assert!(out.hypercalls <= 5 && out.copied_bytes <= 2 * bytes + 256, "{out:?}");
    let large = flow.download(&[0x5a; 65160], GSO);
    let back = cost(&machine, 1, || machine.uplink().send(&large, GSO));
    back.print("64 KiB in, cut and summed", large.len());
    assert_eq!(client.peer.take_received().len(), 45);
    // From our own pages it is brought without Xen.
    assert!(back.hypercalls <= 3 && back.copied_bytes <= bytes + 45 * 54, "{back:?}");
}

#[test]
fn a_turn_both_ways_signals_once_over_a_shared_event_channel_and_twice_over_split_ones() {
    let signals = |split| {
        let machine = Machine::open(9);
        let client = machine.boot(10, Manners { split, ..Manners::default() });
        machine.wait("the client to be up", || client.peer.is_up());
        // Longer than those whose sender is told of them later.
        let ping = Spec::ping(client.addr, OWN.into(), 7).payload(&[7; 100]);
        let ping = ping.macs(Mac::BACKEND, CLIENT_MAC);
        let cost = cost(&machine, 1, || client.send(ping.frame()));
        assert_eq!(client.peer.take_received().len(), 1);
        cost.notifies
    };
    assert_eq!((signals(false), signals(true)), (1, 2));
}
