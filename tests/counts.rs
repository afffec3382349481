//! What a frame costs, as exact integers that hold on every machine: hypercalls, grant operations,
//! signals, bytes copied, allocations. `cargo xtask bench counts` prints them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::frames::{Kind, Spec};
use machine::{CLIENT_MAC, Client, Machine, SERVER, TIDEGATE, UPLINK_MAC};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::{Csum, Frame, Gso, GsoKind, Mac, Offload, Parsed, Port, TcpFlags, Tuple, parse};
use xen::sim::Counters;
use xen::sim::peer_front::Outgoing;

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

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _gone = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
