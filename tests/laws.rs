//! The two laws, with a label on every byte: no client payload enters a page that any domain can read
//! before its verdict, and a page lent to a peer only ever holds bytes meant for that peer. Under
//! failing copies, uplinks that go and come, and clients that do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::flow::{gso, tuple};
use machine::frames::{Spec, plain_pseudo};
use machine::{CLIENT_MAC, CMDLINE, Client, Machine, SERVER, TIDEGATE, UPLINK_MAC};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::slice;
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

/// Whose byte it is, for whom, and whether it may pass; and which uplink's time it is from.
#[derive(Clone, Copy, Debug)]
enum Byte {
    /// Of this client, to the uplink.
    Sent { by: DomId, allowed: bool },
    /// Of the uplink, to this client.
    Answer { to: DomId },
}

/// The first domain behind the uplink; others follow it.
const UPLINKS: DomId = DomId(100);

/// Labels of one uplink's time are fewer than this, and those of answers the upper half of them.
const ERA: u16 = 1 << 11;
const ANSWERS: u16 = ERA / 2;

fn label(uplink: DomId, byte: Byte) -> Label {
    let within = match byte {
        Byte::Sent { by, allowed } => by.0 * 2 + u16::from(allowed),
        Byte::Answer { to } => ANSWERS + to.0,
    };
    Label((uplink.0 - UPLINKS.0) * ERA + within)
}

/// The uplink that a byte is to or from, and what it is.
fn read(label: Label) -> (DomId, Byte) {
    let (era, within) = (label.0 / ERA, label.0 % ERA);
    let byte = match within.checked_sub(ANSWERS) {
        Some(client) => Byte::Answer { to: DomId(client) },
        None => Byte::Sent { by: DomId(within / 2), allowed: within % 2 == 1 },
    };
    (DomId(UPLINKS.0 + era), byte)
}

/// Watches every byte that anybody can read; keeps what broke a law, and counts what was allowed out, and
/// what came back to whom it was for.
#[allow(clippy::type_complexity, reason = "for one caller")]
fn watch(machine: &Machine) -> (Rc<RefCell<Vec<String>>>, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let broken = Rc::new(RefCell::new(Vec::new()));
    let (out, came) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (list, count, back) = (Rc::clone(&broken), Rc::clone(&out), Rc::clone(&came));
    machine.sim.on_exposure(move |e| {
        for label in e.labels.iter().filter(|label| **label != Label::OURS) {
            let (uplink, byte) = read(*label);
            let is_shown_to_uplink = e.owner == TIDEGATE && e.to == uplink;
            let is_right = match byte {
                // In pages of ours that only the uplink can write, or in those of whom they are for.
                Byte::Answer { to } => e.owner == to || is_shown_to_uplink,
                Byte::Sent { by, allowed } => e.owner == by || (allowed && is_shown_to_uplink),
            };
            let (leaves, comes) = match byte {
                Byte::Answer { to } => (false, e.owner == to),
                Byte::Sent { .. } => (is_shown_to_uplink, false),
            };
            count.set(count.get() + usize::from(leaves));
            back.set(back.get() + usize::from(comes));
            if !is_right {
                let text =
                    format!("{byte:?} of {uplink}'s time in a page of {} for {}", e.owner, e.to);
                list.borrow_mut().push(text);
            }
        }
    });
    (broken, out, came)
}

fn send(uplink: DomId, client: &Client, port: u16, sport: u16, payload: usize) {
    let bytes = Spec::udp((client.addr, sport), (SERVER, port))
        .payload(&vec![client.spec.front.0 as u8; payload])
        .macs(Mac::BACKEND, CLIENT_MAC)
        .frame();
    let byte = Byte::Sent { by: client.spec.front, allowed: port == ALLOWED_PORT };
    let label = label(uplink, byte);
    // A full ring is fine: the sender would wait.
    let _full = client.peer.send(&Outgoing { label, ..Outgoing::plain(bytes) });
}

/// Sends what the uplink takes only cut and summed: a large segment with the blank checksum of a
/// first packet, or a datagram with one.
fn send_with_offload(uplink: DomId, client: &Client, port: u16, sport: u16, payload: usize) {
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
    let byte = Byte::Sent { by: client.spec.front, allowed: port == ALLOWED_PORT };
    let label = label(uplink, byte);
    let _full = client.peer.send(&Outgoing { label, offload, ..Outgoing::plain(bytes) });
}

/// The server answers each datagram that came to it; the last byte of one says whose it is.
fn answer_all(machine: &Machine) {
    if !machine.uplink().is_connected() {
        return;
    }
    for sent in machine.uplink().received().iter().filter(|sent| sent.bytes[23] == 17) {
        let seen = tuple(&sent.bytes, sent.offload);
        let to = DomId(u16::from(*sent.bytes.last().unwrap()));
        let label = label(machine.uplink_domain(), Byte::Answer { to });
        machine.uplink().set_tricks(Tricks { label, ..Tricks::default() });
        let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
        let bytes = spec.payload(&[0x5a; 1400]).macs(UPLINK_MAC, Mac::BACKEND).frame();
        machine.uplink().send(&bytes, Offload::NONE);
        // Before the next label is on.
        machine.settle();
        assert_eq!(machine.uplink().waiting(), 0);
    }
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// One in so many copies fails, if not 0.
    copies: u64,
    /// Clients die with frames under way, and others come.
    clients: bool,
    /// The domain behind the uplink dies, and another takes its place.
    uplinks: bool,
}

fn fail_copies(machine: &Machine, seed: u64, one_in: u64) {
    let dice = Cell::new(seed);
    machine.sim.on_copy(move |dom, _| {
        let next = dice.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        dice.set(next);
        (dom == TIDEGATE && (next >> 33).is_multiple_of(one_in)).then_some(GrantStatus::BAD_GNTREF)
    });
}

/// A run of random traffic. If the uplink offers nothing, what is sent has to be cut and summed.
fn run(seed: u64, faults: Faults, offers: Offers) -> (Machine, Vec<String>, usize) {
    let blob = lang::compile("test.tide", POLICY).unwrap().blob;
    let mut machine = Machine::bare(seed, CMDLINE, Some(&blob));
    machine.plug_offering(UPLINKS, 0, offers);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    let send = if offers == Offers::PLAIN { send_with_offload } else { send };
    let mut clients = [machine.client(10), machine.client(11), machine.client(12)];
    let (broken, out, came) = watch(&machine);
    if faults.copies != 0 {
        fail_copies(&machine, seed, faults.copies);
    }
    let mut next = 13;
    for round in 0..40u16 {
        for client in &clients {
            let port = if machine.sim.random(2) == 0 { ALLOWED_PORT } else { REFUSED_PORT };
            let payload = [1, 60, 1400, 9000, 40_000][machine.sim.random(5) as usize];
            send(machine.uplink_domain(), client, port, 4000 + round, payload);
        }
        if machine.sim.random(3) == 0 {
            machine.settle();
            answer_all(&machine);
        }
        if machine.sim.random(12) == 0 {
            machine.uplink().restart(offers);
        }
        if faults.clients && machine.sim.random(6) == 0 {
            let dies = &mut clients[machine.sim.random(3) as usize];
            machine.finish(machine.tools.destroy(dies.spec.front, slice::from_ref(&dies.spec)));
            *dies = machine.client(next);
            next += 1;
        }
        if faults.uplinks && machine.sim.random(8) == 0 {
            // What the clients sent so far is the old one's, if it was up.
            machine.settle();
            let back = DomId(machine.uplink_domain().0 + 1);
            machine.kill_uplink();
            machine.plug_offering(back, 0, offers);
            machine.wait("the next uplink", || machine.uplink().is_connected());
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

/// Runs with each of these seeds, in each of which more than so many bytes leave.
fn hold(seeds: Range<u64>, faults: Faults, offers: Offers, least: usize) {
    for seed in seeds {
        let (_, broken, out) = run(seed, faults, offers);
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}");
        assert!(out > least, "seed {seed}: only {out} bytes were seen to leave");
    }
}

#[test]
fn both_laws_hold_for_random_traffic() {
    hold(0..12, Faults::default(), Offers::default(), 10_000);
}

#[test]
fn both_laws_hold_when_copies_fail() {
    hold(100..112, Faults { copies: 20, ..Faults::default() }, Offers::default(), 1_000);
}

#[test]
fn both_laws_hold_when_frames_are_cut_and_summed() {
    hold(200..208, Faults::default(), Offers::PLAIN, 10_000);
}

#[test]
fn both_laws_hold_when_copies_fail_of_frames_that_are_cut_and_summed() {
    hold(300..308, Faults { copies: 20, ..Faults::default() }, Offers::PLAIN, 1_000);
}

#[test]
fn both_laws_hold_when_clients_die_and_others_come() {
    let faults = Faults { clients: true, ..Faults::default() };
    hold(400..408, faults, Offers::default(), 10_000);
    hold(410..414, faults, Offers::PLAIN, 10_000);
}

#[test]
fn both_laws_hold_when_another_domain_becomes_the_uplink() {
    let faults = Faults { uplinks: true, ..Faults::default() };
    hold(500..508, faults, Offers::default(), 10_000);
    hold(510..514, faults, Offers::PLAIN, 10_000);
}

#[test]
fn both_laws_hold_when_all_of_it_happens_at_once() {
    let faults = Faults { copies: 20, clients: true, uplinks: true };
    hold(600..608, faults, Offers::default(), 1_000);
    hold(610..614, faults, Offers::PLAIN, 1_000);
}
