//! What a frame costs, as exact integers that hold on every machine: hypercalls, grant operations,
//! signals, bytes copied. `cargo xtask bench counts` prints them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;
mod tree;

use machine::flow::{BOTH, Flow};
use machine::frames::Spec;
use machine::{CLIENT_MAC, Client, Machine, OWN, SERVER, SYS_NET, TIDEGATE};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Csum, Gso, GsoKind, Mac, Offload, TcpFlags};
use xen::hypervisor::DomId;
use xen::sim::Counters;
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::{Manners, Outgoing};

/// What is promised: frames, bytes of each, and what they cost together: hypercalls, of these grant
/// copies and signals, operations in the copies, grants, bytes that Xen copied, and bytes that we moved
/// ourselves between private memory and pages.
const COSTS: [(&str, [u64; 9]); 13] = [
    ("10 of 64 KiB in", [10, 65_214, 2, 1, 1, 170, 170, 652_140, 2560]),
    ("10 of 64 KiB out", [10, 65_214, 4, 2, 2, 180, 170, 652_140, 540]),
    ("1448 bytes in", [1, 1502, 2, 1, 1, 1, 1, 1502, 1502]),
    ("1448 bytes out", [1, 1502, 3, 1, 2, 1, 1, 1502, 1502]),
    ("1448 bytes out, of each of 20 clients", [20, 1502, 22, 1, 21, 20, 20, 30_040, 30_040]),
    ("48 datagrams out", [48, 64, 3, 1, 2, 48, 48, 3072, 3072]),
    ("64 KiB in", [1, 65_214, 2, 1, 1, 17, 17, 65_214, 256]),
    ("64 KiB in, cut and summed", [1, 65_214, 2, 1, 1, 105, 17, 67_590, 65_470]),
    ("64 KiB out", [1, 65_214, 4, 2, 2, 18, 17, 65_214, 54]),
    ("64 KiB out, cut", [1, 65_214, 4, 2, 2, 62, 45, 65_214, 2430]),
    ("64 KiB out, cut and summed", [1, 65_214, 5, 3, 2, 94, 45, 130_428, 2430]),
    ("64 KiB refused", [1, 65_214, 3, 2, 1, 2, 0, 108, 0]),
    ("a datagram out, of each of 20 clients", [20, 64, 2, 1, 1, 20, 20, 1280, 1280]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    hypercalls: u64,
    copies: u64,
    notifies: u64,
    copy_ops: u64,
    grants: u64,
    copied_bytes: u64,
    moved_bytes: u64,
}

impl Cost {
    fn between(before: Counters, after: Counters) -> Self {
        Self {
            hypercalls: after.hypercalls - before.hypercalls,
            copies: after.copies - before.copies,
            notifies: after.notifies - before.notifies,
            copy_ops: after.copy_ops - before.copy_ops,
            grants: after.grants - before.grants,
            copied_bytes: after.copied_bytes - before.copied_bytes,
            moved_bytes: after.moved_bytes - before.moved_bytes,
        }
    }

    /// Prints it as a line of JSON, for the bench command, and holds it to what is promised.
    #[track_caller]
    fn is_as_promised(self, what: &str, frames: u64, bytes: usize) {
        let Self { hypercalls, copies, notifies, copy_ops, grants, copied_bytes, moved_bytes } =
            self;
        println!(
            "COUNT {{\"what\":\"{what}\",\"frame_bytes\":{bytes},\"frames\":{frames},\
             \"hypercalls\":{hypercalls},\"copy_ops\":{copy_ops},\
             \"copied_bytes\":{copied_bytes},\"moved_bytes\":{moved_bytes},\
             \"grants\":{grants},\"notifies\":{notifies}}}"
        );
        let bytes = bytes as u64;
        let cost = [hypercalls, copies, notifies, copy_ops, grants, copied_bytes, moved_bytes];
        let all = [&[frames, bytes][..], &cost].concat();
        assert_eq!(all, promised(what), "{what}: {self:?}");
    }
}

fn promised(what: &str) -> [u64; 9] {
    COSTS.into_iter().find(|(name, _)| *name == what).expect("a row of the table").1
}

fn cost(machine: &Machine, act: impl FnOnce()) -> Cost {
    machine.settle();
    let before = machine.sim.counters(TIDEGATE);
    act();
    machine.settle();
    Cost::between(before, machine.sim.counters(TIDEGATE))
}

const SEGMENT: Offload = Offload { csum: Csum::Blank, gso: None };

const GSO: Offload =
    Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448 }) };

/// A machine with a connection in IPv4, whose uplink and client take as much as these say.
fn flow(seed: u64, offers: Offers, manners: Manners) -> (Machine, Client, Flow) {
    let blob = lang::compile("test.tide", machine::OPEN).unwrap().blob;
    let mut machine = Machine::bare(seed, BOTH, Some(&blob));
    machine.plug_offering(SYS_NET, 0, offers);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    let client = machine::flow::client(&machine, 10, manners);
    let flow = Flow::connect(&machine, &client, false);
    (machine, client, flow)
}

/// Frames of a client that the uplink takes as they are.
fn out(what: &str, seed: u64, frames: u64, payload: usize, offload: Offload) {
    let (machine, client, flow) = flow(seed, Offers::default(), Manners::default());
    let frame = flow.upload(&vec![0x5a; payload], offload);
    let cost = cost(&machine, || (0..frames).for_each(|_| assert!(client.peer.send(&frame))));
    let sent = machine.uplink().received();
    assert_eq!(sent.len() as u64, frames);
    for sent in sent {
        assert_eq!((sent.bytes.len(), sent.offload), (frame.bytes.len(), offload));
    }
    cost.is_as_promised(what, frames, frame.bytes.len());
}

/// Frames of the world that the client takes as they are.
fn back(what: &str, seed: u64, frames: u64, payload: usize, offload: Offload) {
    let (machine, client, flow) = flow(seed, Offers::default(), Manners::default());
    let frame = flow.download(&vec![0x5a; payload], offload);
    let cost = cost(&machine, || (0..frames).for_each(|_| machine.uplink().send(&frame, offload)));
    let came = client.peer.take_received();
    assert_eq!(came.len() as u64, frames);
    for came in came {
        assert_eq!((came.bytes.len(), came.offload), (frame.len(), offload));
    }
    cost.is_as_promised(what, frames, frame.len());
}

#[test]
fn a_64_kib_frame_out_is_two_copy_hypercalls_and_two_signals_and_its_bytes_are_copied_once() {
    out("64 KiB out", 1, 1, 65_160, GSO);
}

#[test]
fn a_64_kib_frame_in_is_one_copy_hypercall_and_one_signal_and_its_bytes_are_copied_once() {
    back("64 KiB in", 2, 1, 65_160, GSO);
}

#[test]
fn bursts_of_large_frames_share_their_hypercalls() {
    out("10 of 64 KiB out", 5, 10, 65_160, GSO);
    back("10 of 64 KiB in", 5, 10, 65_160, GSO);
}

#[test]
fn a_segment_of_1448_bytes_is_copied_once_and_moved_once() {
    out("1448 bytes out", 6, 1, 1448, SEGMENT);
    // One buffer is posted again.
    back("1448 bytes in", 6, 1, 1448, SEGMENT);
}

fn datagram(client: &Client, payload: usize) -> Vec<u8> {
    let spec = Spec::udp((client.addr, 4000), (SERVER, 7)).payload(&vec![1; payload]);
    spec.macs(Mac::BACKEND, CLIENT_MAC).frame()
}

/// A client's flow is open, and nothing waits to be told to anybody.
fn open_flow(machine: &Machine, client: &Client) {
    client.send(datagram(client, 22));
    machine.run(Duration::from_millis(20));
    assert_eq!(machine.uplink().received().len(), 1);
}

#[test]
fn a_batch_of_small_datagrams_shares_its_hypercalls() {
    let machine = Machine::open(3);
    let client = machine.client(10);
    open_flow(&machine, &client);
    let (frame, frames) = (datagram(&client, 22), 48);
    let cost = cost(&machine, || (0..frames).for_each(|_| client.send(frame.clone())));
    assert_eq!(machine.uplink().received().len() as u64, frames);
    cost.is_as_promised("48 datagrams out", frames, frame.len());
}

#[test]
fn twenty_clients_share_the_copies_of_a_turn_and_its_signal_to_the_uplink() {
    for (what, payload) in [
        ("a datagram out, of each of 20 clients", 22),
        ("1448 bytes out, of each of 20 clients", 1460),
    ] {
        let machine = Machine::open(10);
        let clients: Vec<_> = (10..30).map(|dom| machine.client(dom)).collect();
        clients.iter().for_each(|client| open_flow(&machine, client));
        let signalled = || {
            let to = |dom| machine.sim.counters(dom).signalled;
            let clients: Vec<u64> = clients.iter().map(|client| to(client.spec.front)).collect();
            (to(SYS_NET), clients)
        };
        let before = signalled();
        let cost = cost(&machine, || {
            clients.iter().for_each(|client| client.send(datagram(client, payload)));
        });
        assert_eq!(machine.uplink().received().len(), 20);
        cost.is_as_promised(what, 20, datagram(&clients[0], payload).len());
        // That a small frame is sent its sender is told later, if it did not see that by itself.
        machine.run(Duration::from_millis(20));
        let after = signalled();
        assert_eq!(after.0 - before.0, 1, "signals to the uplink");
        let each: Vec<u64> = after.1.iter().zip(&before.1).map(|(a, b)| a - b).collect();
        assert_eq!(each, [1; 20], "signals to each client");
    }
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
        machine.plug(SYS_NET, 0);
        let lab = machine.plug_further(DomId(3), 1);
        machine.wait("the uplink", || machine.uplink().is_connected());
        machine.run(Duration::from_secs(1));
        let client = machine.client(10);
        let spec = Spec::udp((client.addr, 4000), (server, 7)).macs(Mac::BACKEND, CLIENT_MAC);
        client.send(spec.frame());
        machine.settle();
        let by = if server == SERVER { machine.uplink() } else { &lab.peer };
        assert_eq!(by.received().len(), 1);
        let cost = cost(&machine, || (0..48).for_each(|_| client.send(spec.frame())));
        assert_eq!(by.received().len(), 48);
        cost
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
    let spec = Spec::tcp((client.addr, 4000), (SERVER, 80), TcpFlags::ACK);
    let frame = spec.payload(&[0x5a; 65_160]).macs(Mac::BACKEND, CLIENT_MAC).frame();
    let bytes = frame.len();
    let cost = cost(&machine, || {
        assert!(client.peer.send(&Outgoing { offload: GSO, ..Outgoing::plain(frame) }));
    });
    assert_eq!(machine.uplink().received(), []);
    // The second copy is the reset that tells the client.
    assert_eq!(client.peer.take_received().len(), 1);
    cost.is_as_promised("64 KiB refused", 1, bytes);
}

#[test]
fn segments_cut_for_who_sums_them_are_copied_once() {
    let offers = Offers { ipv4_csum: true, ..Offers::PLAIN };
    let (machine, client, flow) = flow(7, offers, Manners::default());
    let large = flow.upload(&[0x5a; 65_160], GSO);
    let cost = cost(&machine, || assert!(client.peer.send(&large)));
    assert_eq!(machine.uplink().received().len(), 45);
    // One operation for each segment, and one more where a page of the sender ends.
    cost.is_as_promised("64 KiB out, cut", 1, large.bytes.len());
}

#[test]
fn segments_cut_and_summed_are_copied_twice() {
    let (machine, client, flow) = flow(8, Offers::PLAIN, Manners::default().plain());
    let large = flow.upload(&[0x5a; 65_160], GSO);
    let out = cost(&machine, || assert!(client.peer.send(&large)));
    assert_eq!(machine.uplink().received().len(), 45);
    out.is_as_promised("64 KiB out, cut and summed", 1, large.bytes.len());
    let large = flow.download(&[0x5a; 65_160], GSO);
    let back = cost(&machine, || machine.uplink().send(&large, GSO));
    assert_eq!(client.peer.take_received().len(), 45);
    // From our own pages it is brought without Xen.
    back.is_as_promised("64 KiB in, cut and summed", 1, large.len());
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
        let cost = cost(&machine, || client.send(ping.frame()));
        assert_eq!(client.peer.take_received().len(), 1);
        cost.notifies
    };
    assert_eq!((signals(false), signals(true)), (1, 2));
}

/// Both tables of docs/SPECIFICATION.md: what frames cost, and the aims for one of 64 KiB. `cargo xtask
/// bench counts --write` passes this test over, since it is to mend what this finds.
#[test]
fn the_specification_says_what_is_counted_here() {
    let rows = tree::rows("docs/SPECIFICATION.md");
    let row = |name: &str| {
        let row = rows.iter().find(|row| row[0] == name);
        row.unwrap_or_else(|| panic!("no row {name:?}"))[1..].to_vec()
    };
    for (what, [frames, bytes, hypercalls, _, notifies, copy_ops, grants, copied, moved]) in COSTS {
        let figures = [bytes, hypercalls, notifies, copy_ops, grants, copied, moved];
        assert_eq!(row(&format!("{what} ({frames})")), figures.map(|n| n.to_string()), "{what}");
    }
    let kinds = ["64 KiB out", "64 KiB in", "10 of 64 KiB out", "10 of 64 KiB in"].map(promised);
    let of_each = |at: usize| kinds.map(|kind| kind[at] as f64 / kind[0] as f64);
    let bytes = kinds.map(|kind| (kind[7] + kind[8]) as f64 / (kind[0] * kind[1]) as f64);
    for (what, figures, places) in [
        ("hypercalls for a frame", of_each(2), 1),
        ("signals for a frame", of_each(4), 1),
        ("grant-copy operations for a frame", of_each(5), 1),
        ("bytes copied or moved for a byte", bytes, 3),
    ] {
        assert_eq!(row(what)[1..5], figures.map(|n| format!("{n:.places$}")), "{what}");
    }
}
