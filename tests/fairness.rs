//! Who gets how much: floods beside neighbours, and clients that take nothing. Exact counts of frames,
//! no clock: what is shared is an uplink that takes one frame a millisecond.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::flow::{Flow, gso, tuple};
use machine::frames::Spec;
use machine::{CLIENT_MAC, Client, Machine, SERVER, UPLINK_MAC};
use std::time::Duration;
use wire::{DropReason, Mac, Offload};
use xen::sim::peer_back::Tricks;
use xen::sim::peer_front::Outgoing;

const MS: Duration = Duration::from_millis(1);
/// Frames take so long at most, when both rings are full and the uplink is slow.
const DRAIN: Duration = Duration::from_secs(2);

/// A frame of 64 bytes that tells whose it is.
fn small(client: &Client) -> Vec<u8> {
    let mark = [client.spec.front.0 as u8; 22];
    let spec = Spec::udp((client.addr, 4000), (SERVER, 7)).payload(&mark);
    spec.macs(Mac::BACKEND, CLIENT_MAC).frame()
}

/// Sends as many frames as the ring has room for.
fn flood(client: &Client) {
    let frame = Outgoing::plain(small(client));
    while client.peer.send(&frame) {}
}

/// How many frames of `client` the uplink has got since it was asked last.
fn got(machine: &Machine, client: &Client) -> usize {
    let mark = client.spec.front.0 as u8;
    machine.uplink().received().iter().filter(|frame| frame.bytes[60] == mark).count()
}

fn slow(machine: &Machine) {
    machine.uplink().set_tricks(Tricks { slow_tx: true, ..Tricks::default() });
}

/// Frames of `client` that leave in a second in which it always has some, beside `floods`.
fn rate(machine: &Machine, client: &Client, floods: &[&Client]) -> usize {
    // Until what was there before is gone, and the rings are full.
    for second in 0..2 {
        for _ in 0..1000 {
            floods.iter().for_each(|other| flood(other));
            flood(client);
            machine.run(MS);
        }
        if second == 0 {
            let _before = machine.uplink().received();
        }
    }
    got(machine, client)
}

#[test]
fn a_flood_leaves_its_neighbour_half() {
    let machine = Machine::open(1);
    let (neighbour, other) = (machine.client(10), machine.client(11));
    slow(&machine);
    let alone = rate(&machine, &neighbour, &[]);
    let beside = rate(&machine, &neighbour, &[&other]);
    assert!(alone >= 900, "the uplink was idle: {alone}");
    assert!(beside * 100 >= alone * 45, "{beside} of {alone}");
    assert!(beside * 100 <= alone * 55, "{beside} of {alone}: the flood gets less than its share");
}

#[test]
fn five_floods_leave_their_neighbour_a_sixth() {
    let machine = Machine::open(2);
    let neighbour = machine.client(10);
    let floods: Vec<_> = (11..16).map(|dom| machine.client(dom)).collect();
    slow(&machine);
    let alone = rate(&machine, &neighbour, &[]);
    let beside = rate(&machine, &neighbour, &floods.iter().collect::<Vec<_>>());
    assert!(beside * 100 >= alone * 15, "{beside} of {alone}");
}

#[test]
fn a_neighbour_that_sends_a_tenth_of_its_rate_loses_nothing_beside_a_flood() {
    let machine = Machine::open(3);
    let (neighbour, other) = (machine.client(10), machine.client(11));
    slow(&machine);
    let mut count = 0;
    for n in 0..1000 {
        flood(&other);
        if n % 10 == 0 {
            // Its ring has room each time.
            neighbour.send(small(&neighbour));
        }
        machine.run(MS);
        count += got(&machine, &neighbour);
    }
    machine.run(DRAIN);
    count += got(&machine, &neighbour);
    assert_eq!(count, 100);
}

#[test]
fn a_client_that_posts_no_buffers_costs_nobody_else_a_frame() {
    let delivered = |mute: bool| {
        let machine = Machine::open(4);
        let (client, other) = (machine.client(10), machine.client(11));
        let answer = |client: &Client| {
            client.send(small(client));
            machine.settle();
            let sent = machine.uplink().received().remove(0);
            let seen = tuple(&sent.bytes, sent.offload);
            let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
            spec.macs(UPLINK_MAC, Mac::BACKEND).frame()
        };
        let answers = [answer(&client), answer(&other)];
        if mute {
            other.peer.keep_posted(0);
        }
        let mut counts = [0, 0];
        for _ in 0..400 {
            answers.iter().for_each(|frame| machine.uplink().send(frame, Offload::NONE));
            machine.run(MS);
            counts[0] += client.peer.take_received().len();
            counts[1] += other.peer.take_received().len();
        }
        (counts, machine.counters().drops[DropReason::EgressFull])
    };
    assert_eq!(delivered(false), ([400, 400], 0));
    let ([client, other], lost) = delivered(true);
    assert_eq!(client, 400);
    assert_eq!(other as u64 + lost, 400);
    assert!(lost > 0, "its buffers never ran out");
}

#[test]
fn a_burst_waits_for_a_client_that_makes_room_as_it_goes() {
    let machine = Machine::open(5);
    let client = machine.client(10);
    let flow = Flow::connect(&machine, &client, false);
    // Room for two such frames at a time.
    client.peer.keep_posted(40);
    let offload = gso(false, 1448);
    let large = flow.download(&[0x5a; 65160], offload);
    machine.uplink().send(&large, offload);
    machine.settle();
    assert_eq!(client.peer.take_received().len(), 1);
    for _ in 0..40 {
        machine.uplink().send(&large, offload);
    }
    machine.run(100 * MS);
    assert_eq!(client.peer.take_received().len(), 40);
    assert_eq!(machine.counters().drops[DropReason::EgressFull], 0);
}
