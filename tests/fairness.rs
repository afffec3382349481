//! Who gets how much: floods beside neighbours, and clients that take nothing. Exact counts of frames,
//! and virtual time: what is shared is an uplink that takes one frame a millisecond. The figures are
//! printed, and stand in docs/SPECIFICATION.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;
mod tree;

use machine::flow::{Flow, gso, tuple};
use machine::frames::Spec;
use machine::{CLIENT_MAC, Client, Machine, SERVER, UPLINK_MAC};
use std::time::Duration;
use wire::{DropReason, Mac, Offload};
use xen::sim::peer_back::Tricks;
use xen::sim::peer_front::{Manners, Outgoing};

const MS: Duration = Duration::from_millis(1);
/// Frames take so long at most, when both rings are full and the uplink is slow.
const DRAIN: Duration = Duration::from_secs(2);

/// The row of docs/SPECIFICATION.md about `what` has these figures: of a client without others beside
/// it, and with them.
#[track_caller]
fn is_specified(what: &str, alone: impl ToString, beside: impl ToString) {
    let figures = [alone.to_string(), beside.to_string()];
    println!("FAIRNESS {what}: {} alone, {} beside them", figures[0], figures[1]);
    let rows = tree::rows("docs/SPECIFICATION.md");
    let row = rows.iter().find(|row| row[0] == what);
    let row = row.unwrap_or_else(|| panic!("docs/SPECIFICATION.md has no row {what:?}"));
    assert_eq!(row[1..3], figures, "docs/SPECIFICATION.md: {what}");
}

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
    is_specified("a flood: frames out in a second", alone, beside);
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
    is_specified("five floods: frames out in a second", alone, beside);
}

#[test]
fn a_neighbour_that_sends_a_tenth_of_its_rate_loses_nothing_beside_a_flood() {
    let delivered = |flooded: bool| {
        let machine = Machine::open(3);
        let (neighbour, other) = (machine.client(10), machine.client(11));
        slow(&machine);
        let mut count = 0;
        for n in 0..1000 {
            if flooded {
                flood(&other);
            }
            if n % 10 == 0 {
                // Its ring has room each time.
                neighbour.send(small(&neighbour));
            }
            machine.run(MS);
            count += got(&machine, &neighbour);
        }
        machine.run(DRAIN);
        count + got(&machine, &neighbour)
    };
    let (alone, beside) = (delivered(false), delivered(true));
    assert_eq!((alone, beside), (100, 100));
    is_specified("a flood: frames out of 100 sent in a second", alone, beside);
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

/// What a client gets while others post no buffers.
#[derive(Debug)]
struct Service {
    /// Frames in, and out, in what time there was.
    frames: [usize; 2],
    /// From each ping to its answer.
    longest: Duration,
    /// Frames for the others that were lost.
    lost: u64,
}

/// One that never posts any, one that posts no more after the first, and one that posts a ring full
/// again and again only to stop again: as many holds of the uplink as can be had.
fn mutes(machine: &Machine) -> [Client; 3] {
    let never = machine.boot(11, Manners { rx_buffers: 0, ..Manners::default() });
    machine.wait("the silent client to be up", || never.peer.is_up());
    let mutes = [never, machine.client(12), machine.client(13)];
    mutes[1].peer.keep_posted(0);
    mutes
}

/// For as many rounds of two milliseconds as there are, everybody is sent 20 frames, and the client
/// sends as many and a ping.
fn served(beside_mutes: bool) -> Service {
    const FRAMES: usize = 20;
    const ROUNDS: u32 = 500;
    let machine = Machine::open(6);
    let client = machine.client(10);
    let mutes = if beside_mutes { mutes(&machine).into() } else { Vec::new() };
    let answer = |to: &Client| {
        to.send(small(to));
        machine.settle();
        let sent = machine.uplink().received().remove(0);
        let seen = tuple(&sent.bytes, sent.offload);
        let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
        spec.payload(&[0; 1400]).macs(UPLINK_MAC, Mac::BACKEND).frame()
    };
    let answers: Vec<_> = mutes.iter().chain([&client]).map(answer).collect();
    let mut service = Service { frames: [0, 0], longest: Duration::ZERO, lost: 0 };
    for round in 0..ROUNDS {
        if let Some(stutters) = mutes.last() {
            stutters.peer.keep_posted(if round % 10 == 0 { 256 } else { 0 });
        }
        let start = machine.sim.now();
        for frame in &answers {
            (0..FRAMES).for_each(|_| machine.uplink().send(frame, Offload::NONE));
        }
        (0..FRAMES).for_each(|_| client.send(small(&client)));
        client.send(Spec::ping(client.addr, SERVER, 7).macs(Mac::BACKEND, CLIENT_MAC).frame());
        let mut answered = None;
        while machine.sim.now().since(start) < 2 * MS {
            machine.settle();
            for sent in machine.uplink().received() {
                let is_ping = sent.bytes[23] == 1;
                service.frames[1] += usize::from(!is_ping);
                if is_ping {
                    let seen = tuple(&sent.bytes, sent.offload);
                    let pong = Spec::pong(seen.dst, seen.src, seen.sport);
                    let pong = pong.macs(UPLINK_MAC, Mac::BACKEND).frame();
                    machine.uplink().send(&pong, Offload::NONE);
                }
            }
            machine.settle();
            for came in client.peer.take_received() {
                let is_pong = came.bytes[23] == 1;
                service.frames[0] += usize::from(!is_pong);
                if is_pong {
                    answered = Some(machine.sim.now().since(start));
                }
            }
            let rest = start + 2 * MS;
            let look = machine.sim.now() + MS / 20;
            machine.sim.run_until(if answered.is_some() { rest } else { look });
        }
        let took =
            answered.unwrap_or_else(|| panic!("round {round}: no answer in two milliseconds"));
        service.longest = service.longest.max(took);
    }
    service.lost = machine.counters().drops[DropReason::EgressFull];
    service
}

#[test]
fn clients_that_post_no_buffers_change_neither_throughput_nor_ping() {
    let (alone, beside) = (served(false), served(true));
    assert_eq!((alone.lost, alone.frames), (0, [10_000, 10_000]));
    assert!(beside.lost > 1000, "buffers never ran out: {beside:?}");
    assert_eq!(beside.frames, alone.frames);
    let [alone_in, alone_out] = alone.frames;
    let [beside_in, beside_out] = beside.frames;
    is_specified("three mute clients: frames in during a second", alone_in, beside_in);
    is_specified("three mute clients: frames out during a second", alone_out, beside_out);
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1000.0);
    let longest = "three mute clients: the longest of 500 pings, ms";
    is_specified(longest, ms(alone.longest), ms(beside.longest));
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
