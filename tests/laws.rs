//! The two laws, with a label on every byte: no client payload enters a page that any domain can read
//! before its verdict, and a page lent to a peer only ever holds bytes meant for that peer. Under
//! failing copies, uplinks that go and come, and clients that do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::flow::{gso, tuple};
use machine::frames::{Spec, plain_pseudo};
use machine::{CLIENT_MAC, CMDLINE, Client, Machine, SERVER, SYS_NET, TIDEGATE, UPLINK_MAC};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use wire::{Csum, Mac, Offload, TcpFlags};
use xen::hypervisor::{DomId, GrantStatus};
use xen::sim::Label;
use xen::sim::peer_back::{Offers, Tricks};
use xen::sim::peer_front::Outgoing;

const POLICY: &str = "
zone uplink  = netfront 0
zone clients = netback
policy clients -> uplink {
    accept udp 7
    accept tcp 7
    drop
}
nat clients -> uplink masquerade
";

const ALLOWED_PORT: u16 = 7;
const REFUSED_PORT: u16 = 9;

/// Labels tell whose byte it is and whether it may leave.
fn label(dom: u16, allowed: bool) -> Label {
    Label(dom * 2 + u16::from(allowed))
}

/// Labels from here on are of bytes that the uplink sends: they tell which client they are for.
const ANSWERS: u16 = 1000;

/// Watches every byte that anybody can read; keeps what broke a law, and counts what was allowed out, and
/// what came back to whom it was for.
#[allow(clippy::type_complexity, reason = "for one caller")]
fn watch(machine: &Machine) -> (Rc<RefCell<Vec<String>>>, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let broken = Rc::new(RefCell::new(Vec::new()));
    let (out, came) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (list, count, back) = (Rc::clone(&broken), Rc::clone(&out), Rc::clone(&came));
    machine.sim.on_exposure(move |e| {
        for label in e.labels.iter().filter(|label| **label != Label::OURS) {
            if let Some(client) = label.0.checked_sub(ANSWERS).map(DomId) {
                // In pages of ours that only the uplink can write, or in those of whom they are for.
                let is_right = e.owner == client || (e.owner == TIDEGATE && e.to == SYS_NET);
                back.set(back.get() + usize::from(e.owner == client));
                if !is_right {
                    let text = format!("a byte for {client} in a page of {} for {}", e.owner, e.to);
                    list.borrow_mut().push(text);
                }
                continue;
            }
            let (sender, allowed) = (DomId(label.0 / 2), label.0 % 2 == 1);
            let leaves = e.owner == TIDEGATE && e.to == SYS_NET && allowed;
            count.set(count.get() + usize::from(leaves));
            if e.owner != sender && !leaves {
                let text = format!(
                    "a byte of {sender}, allowed: {allowed}, in a page of {} for {}",
                    e.owner, e.to
                );
                list.borrow_mut().push(text);
            }
        }
    });
    (broken, out, came)
}

fn send(client: &Client, port: u16, sport: u16, payload: usize) {
    let bytes = Spec::udp((client.addr, sport), (SERVER, port))
        .payload(&vec![client.spec.front.0 as u8; payload])
        .macs(Mac::BACKEND, CLIENT_MAC)
        .frame();
    let label = label(client.spec.front.0, port == ALLOWED_PORT);
    // A full ring is fine: the sender would wait.
    let _full = client.peer.send(&Outgoing { label, ..Outgoing::plain(bytes) });
}

/// Sends what the uplink takes only cut and summed: a large segment with the blank checksum of a
/// first packet, or a datagram with one.
fn send_with_offload(client: &Client, port: u16, sport: u16, payload: usize) {
    let (from, to) = ((client.addr, sport), (SERVER, port));
    let large = payload > 1400;
    let offload = if large { gso(false, 1400) } else { Offload { csum: Csum::Blank, gso: None } };
    let spec = if large { Spec::tcp(from, to, TcpFlags::SYN) } else { Spec::udp(from, to) };
    let payload_of_it = vec![client.spec.front.0 as u8; payload];
    let mut bytes = spec.payload(&payload_of_it).macs(Mac::BACKEND, CLIENT_MAC).frame();
    let (at, protocol) = if large { (50, 6) } else { (40, 17) };
    let len = u32::try_from(bytes.len() - 34).unwrap();
    let sum = plain_pseudo(client.addr, SERVER, protocol, len);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let label = label(client.spec.front.0, port == ALLOWED_PORT);
    let _full = client.peer.send(&Outgoing { label, offload, ..Outgoing::plain(bytes) });
}

/// The server answers each datagram that came to it; the last byte of one says whose it is.
fn answer_all(machine: &Machine) {
    if !machine.uplink().is_connected() {
        return;
    }
    for sent in machine.uplink().received().iter().filter(|sent| sent.bytes[23] == 17) {
        let seen = tuple(&sent.bytes, sent.offload);
        let client = u16::from(*sent.bytes.last().unwrap());
        let label = Label(ANSWERS + client);
        machine.uplink().set_tricks(Tricks { label, ..Tricks::default() });
        let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
        let bytes = spec.payload(&[0x5a; 1400]).macs(UPLINK_MAC, Mac::BACKEND).frame();
        machine.uplink().send(&bytes, Offload::NONE);
        // Before the next label is on.
        machine.settle();
        assert_eq!(machine.uplink().waiting(), 0);
    }
}

/// A run of random traffic; `fault` in so many copies fails, if it is not 0. If the uplink offers
/// nothing, what is sent has to be cut and summed.
fn run(seed: u64, fault: u64, offers: Offers) -> (Machine, Vec<String>, usize) {
    let blob = lang::compile("test.tide", POLICY).unwrap().blob;
    let mut machine = Machine::bare(seed, CMDLINE, Some(&blob));
    machine.plug_offering(SYS_NET, 0, offers);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    let send = if offers == Offers::PLAIN { send_with_offload } else { send };
    let clients = [machine.client(10), machine.client(11), machine.client(12)];
    let (broken, out, came) = watch(&machine);
    if fault != 0 {
        let dice = Cell::new(seed);
        machine.sim.on_copy(move |dom, _| {
            let next = dice.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            dice.set(next);
            (dom == TIDEGATE && (next >> 33).is_multiple_of(fault))
                .then_some(GrantStatus::BAD_GNTREF)
        });
    }
    for round in 0..40u16 {
        for client in &clients {
            let port = if machine.sim.random(2) == 0 { ALLOWED_PORT } else { REFUSED_PORT };
            let payload = [1, 60, 1400, 9000, 40_000][machine.sim.random(5) as usize];
            send(client, port, 4000 + round, payload);
        }
        if machine.sim.random(3) == 0 {
            machine.settle();
            answer_all(&machine);
        }
        if machine.sim.random(12) == 0 {
            machine.uplink().restart(offers);
        }
        if machine.sim.random(4) == 0 {
            machine.run(Duration::from_millis(50));
        }
    }
    machine.run(Duration::from_secs(1));
    answer_all(&machine);
    assert!(came.get() > 10_000, "seed {seed}: only {} bytes came back", came.get());
    let broken = broken.borrow().clone();
    let out = out.get();
    (machine, broken, out)
}

#[test]
fn both_laws_hold_for_random_traffic() {
    for seed in 0..12 {
        let (_, broken, out) = run(seed, 0, Offers::default());
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}");
        assert!(out > 10_000, "seed {seed}: only {out} bytes were seen to leave");
    }
}

#[test]
fn both_laws_hold_when_copies_fail() {
    for seed in 100..112 {
        let (_, broken, out) = run(seed, 20, Offers::default());
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}");
        assert!(out > 1_000, "seed {seed}: only {out} bytes were seen to leave");
    }
}

#[test]
fn both_laws_hold_when_frames_are_cut_and_summed() {
    for seed in 200..208 {
        let (_, broken, out) = run(seed, 0, Offers::PLAIN);
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}");
        assert!(out > 10_000, "seed {seed}: only {out} bytes were seen to leave");
    }
}

#[test]
fn both_laws_hold_when_copies_fail_of_frames_that_are_cut_and_summed() {
    for seed in 300..308 {
        let (_, broken, out) = run(seed, 20, Offers::PLAIN);
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}");
        assert!(out > 1_000, "seed {seed}: only {out} bytes were seen to leave");
    }
}
