//! Clients that break the protocol: each loses its own vif and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::{BACK, Machine, frame, front_dir};
use netback::Notice;
use std::cell::RefCell;
use std::rc::Rc;
use wire::{Csum, DropReason, Gso, GsoKind, Offload, Port};
use xen::hypervisor::DomId;
use xen::netif::{Extra, Status, TxFlags, TxRequest};
use xen::sim::peer_front::{Manners, Outgoing, PeerFront, Slots};
use xen::sim::{TouchKind, Witness};
use xen::xenbus::XenbusState as State;

const REQ_PROD: usize = 0;

struct Scene {
    m: Machine,
    bad: PeerFront,
    bad_port: Port,
    good: PeerFront,
    good_port: Port,
}

fn scene(seed: u64) -> Scene {
    let m = Machine::new(seed);
    let (good, good_port) = m.connected(9, Manners::default());
    let (bad, bad_port) = m.connected(10, Manners::default());
    m.back().pull_all();
    Scene { m, bad, bad_port, good, good_port }
}

impl Scene {
    /// The good client's frames pass both ways.
    fn good_goes_on(&self) {
        assert!(self.good.send(&Outgoing::plain(frame(1000, 1))));
        self.m.sim.settle();
        let (frames, _) = self.m.back().pull_all();
        assert!(frames.iter().any(|f| f.from == self.good_port && f.bytes == frame(1000, 1)));
        let port = self.good_port;
        let sent = self.m.back().send(port, &frame(1000, 2), 54, &[946], Offload::NONE);
        assert_eq!(sent, Ok(()));
        self.m.sim.settle();
        assert!(self.good.take_received().iter().any(|f| f.bytes == frame(1000, 2)));
        assert_eq!((self.good.fault(), self.good.in_flight()), (None, 0));
    }

    /// What the bad client did ends its vif, by 5 and 6, with a message that says `why`; nothing of
    /// it is left mapped or bound, and after starting over it is served again.
    fn ends_the_vif(self, why: &str) {
        self.bad.signal();
        self.m.sim.settle();
        let (frames, bad) = self.m.back().pull_all();
        assert!(frames.is_empty(), "frames of a broken ring");
        assert_eq!(bad, [DropReason::BadSlot]);
        self.ended(why);
    }

    fn ended(self, why: &str) {
        // The appliance runs on: its next turn ticks.
        self.m.wait("the end of the link", || {
            self.m.sim.raise(BACK, xen::hypervisor::EvtPort(1));
            !self.m.back.borrow_mut().netback.vif(self.bad_port).unwrap().is_linked()
        });
        let problems = self.m.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("backend/vif/10/0: "), "{problems:?}");
        assert!(problems[0].contains(why), "{problems:?}");
        assert_eq!(self.m.back().notices.last(), Some(&Notice::Down { port: self.bad_port }));
        self.m.wait("state 6", || self.m.state(10, 0) == "6");
        let held = self.m.sim.holdings(BACK);
        assert_eq!(
            (held.mapped, held.ports),
            (2, 2),
            "rings of one client, its port and XenStore's"
        );
        self.good_goes_on();
        self.bad.write_state(State::Initialising);
        self.m.wait("connection of a client that starts over", || self.bad.is_up());
        assert!(self.bad.send(&Outgoing::plain(frame(60, 3))));
        self.m.sim.settle();
        assert_eq!(self.m.back().pull_all().0.len(), 1);
    }

    fn inject(self, slots: &[[u8; 12]]) -> Self {
        self.bad.inject(slots);
        self
    }
}

fn request(flags: TxFlags, offset: u16, size: u16) -> [u8; 12] {
    TxRequest { gref: 4711, offset, flags, id: 3, size }.encode()
}

#[test]
fn a_producer_out_of_range() {
    for claim in [257, 1000, u32::MAX, 1 << 31] {
        let s = scene(1);
        s.bad.scribble(0, REQ_PROD, claim);
        s.ends_the_vif("impossible request producer");
    }
}

#[test]
fn a_producer_that_goes_back() {
    let s = scene(2);
    assert!(s.bad.send(&Outgoing::plain(frame(60, 1))));
    assert!(s.bad.send(&Outgoing::plain(frame(60, 1))));
    s.m.sim.settle();
    assert_eq!(s.m.back().pull_all().0.len(), 2);
    s.bad.scribble(0, REQ_PROD, 1);
    s.ends_the_vif("impossible request producer 1, 2 is the next to be read");
}

#[test]
fn a_producer_out_of_range_in_the_rx_ring() {
    let s = scene(3);
    s.bad.scribble(1, REQ_PROD, 300);
    let sent = s.m.back().send(s.bad_port, &frame(60, 1), 60, &[], Offload::NONE);
    assert_eq!(sent, Err(DropReason::EgressDown));
    s.ended("impossible request producer 300");
}

#[test]
fn data_over_the_end_of_a_page() {
    scene(4)
        .inject(&[request(TxFlags(0), 4000, 97)])
        .ends_the_vif("97 bytes at offset 4000 cross the end of a page");
    let more = request(TxFlags::MORE_DATA, 0, 200);
    scene(5)
        .inject(&[more, request(TxFlags(0), u16::MAX, 100)])
        .ends_the_vif("100 bytes at offset 65535 cross the end of a page");
}

#[test]
fn twenty_two_slots() {
    let mut slots = vec![request(TxFlags::MORE_DATA, 0, 4000); 21];
    slots.push(request(TxFlags(0), 0, 100));
    scene(6).inject(&slots).ends_the_vif("more slots than Xen allows");
}

#[test]
fn a_lone_slot_that_promises_more() {
    scene(7)
        .inject(&[request(TxFlags::MORE_DATA, 0, 100)])
        .ends_the_vif("the published requests end inside a frame");
    scene(8)
        .inject(&[request(TxFlags::EXTRA_INFO, 0, 100)])
        .ends_the_vif("the published requests end inside a frame");
}

#[test]
fn bad_extra_slots() {
    let first = request(TxFlags::EXTRA_INFO, 0, 100);
    let mut no_size = Extra::gso(Gso { kind: GsoKind::TcpV4, size: 1 }).encode_tx();
    no_size[2..4].fill(0);
    let mut kind = Extra::gso(Gso { kind: GsoKind::TcpV4, size: 1448 }).encode_tx();
    kind[4] = 9;
    let mut unknown = kind;
    unknown[0] = 200;
    scene(9).inject(&[first, no_size]).ends_the_vif("bad extra-info slot: GsoSize");
    scene(10).inject(&[first, kind]).ends_the_vif("bad extra-info slot: GsoType(9)");
    scene(11).inject(&[first, unknown]).ends_the_vif("bad extra-info slot: Type(200)");
}

#[test]
fn frames_that_are_merely_wrong_cost_themselves_only() {
    let s = scene(12);
    // 19 slots; shorter than an Ethernet header; sizes that do not add up.
    let mut many = vec![request(TxFlags::MORE_DATA, 0, 1900); 18];
    many.push(request(TxFlags(0), 0, 100));
    let short = [request(TxFlags(0), 0, 13)];
    let uneven = [request(TxFlags::MORE_DATA, 0, 100), request(TxFlags(0), 0, 101)];
    for (slots, reason) in [
        (many.as_slice(), DropReason::TooManySlots),
        (&short, DropReason::Truncated),
        (&uneven, DropReason::BadSlot),
    ] {
        s.bad.inject(slots);
        s.bad.signal();
        s.m.sim.settle();
        assert_eq!(s.m.back().pull_all(), (vec![], vec![reason]));
    }
    assert_eq!(s.m.problems(), Vec::<String>::new());
    s.good_goes_on();
}

#[test]
fn references_that_were_never_granted_cost_the_frame_only() {
    let s = scene(13);
    s.bad.inject(&[request(TxFlags(0), 0, 100)]);
    s.bad.signal();
    s.m.sim.settle();
    assert_eq!(s.m.back().pull_all(), (vec![], vec![DropReason::CopyFailed]));
    assert_eq!(s.m.problems(), Vec::<String>::new());
    s.good_goes_on();
}

#[test]
fn buffers_taken_back_cost_the_frame_only() {
    let s = scene(14);
    s.bad.revoke_posted();
    let sent = s.m.back().send(s.bad_port, &frame(60, 1), 60, &[], Offload::NONE);
    assert_eq!(sent, Err(DropReason::CopyFailed));
    assert_eq!(s.m.problems(), Vec::<String>::new());
    s.good_goes_on();
}

#[test]
fn two_hundred_frames_with_one_id_are_answered_slot_by_slot() {
    let s = scene(15);
    s.bad.inject(&vec![request(TxFlags(0), 0, 60); 200]);
    s.bad.signal();
    s.m.sim.settle();
    assert_eq!(s.m.back().pull_all().1.len(), 200);
    s.m.sim.settle();
    assert!(s.bad.fault().is_some(), "the client only wronged itself");
    s.good_goes_on();
}

#[test]
fn a_storm_of_events_brings_no_frames_and_no_trouble() {
    let s = scene(16);
    for _ in 0..1000 {
        s.bad.signal();
        s.m.sim.settle();
        assert_eq!(s.m.back().pull_all(), (vec![], vec![]));
    }
    s.good_goes_on();
}

#[test]
fn a_client_that_dies_with_frames_in_flight() {
    use xen::io::{Device, Pulled};
    let s = scene(17);
    assert!(s.bad.send(&Outgoing::plain(frame(9000, 1))));
    s.m.sim.settle();
    {
        let back = &mut *s.m.back();
        let vif = back.netback.vif(s.bad_port).unwrap();
        let pulled = vif.pull(&mut back.h, &mut Vec::new());
        assert!(matches!(pulled, Pulled::Frame(_)));
    }
    // Nobody is there whom the frame could be given back to.
    assert_eq!(s.m.destroy(10), Ok(()));
    assert!(s.m.back().netback.vif(s.bad_port).is_none());
}

#[test]
fn rings_that_were_garbage_from_the_start() {
    let m = Machine::new(18);
    let peer =
        m.boot(10, 0, Manners { follows_backend: true, rx_buffers: 0, ..Manners::default() });
    m.attach(10, 0);
    m.wait("the client's terms", || {
        m.xs.value(&format!("{}/state", front_dir(10, 0))).as_deref() == Some("4")
    });
    peer.scribble(1, REQ_PROD, 257);
    m.wait("a problem", || !m.problems().is_empty());
    assert!(
        m.problems()[0].contains("rx ring: impossible request producer 257"),
        "{:?}",
        m.problems()
    );
    m.wait("state 6", || m.state(10, 0) == "6");
    assert_eq!(m.sim.holdings(BACK).mapped, 0);
}

/// The client changes its rings and pages at every single access, by a seed. Nothing is looked at a
/// second time, and no slot is answered twice.
#[test]
fn a_client_that_rewrites_everything_we_touch() {
    for seed in 0..20 {
        let s = scene(100 + seed);
        let sim = s.m.sim.clone();
        let witness = Rc::new(RefCell::new(Witness::new(BACK)));
        let seen = Rc::clone(&witness);
        s.m.sim.on_touch(move |touch, bytes| {
            seen.borrow_mut().see(touch);
            let theirs = touch.owner == DomId(10) && touch.by == BACK;
            if theirs && touch.kind != TouchKind::Write && sim.random(4) == 0 {
                let at = sim.random(512) as usize;
                bytes[at] = sim.random(256) as u8;
            }
        });
        for n in 0..200u16 {
            let offload = if n % 3 == 0 {
                Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1000 }) }
            } else {
                Offload::NONE
            };
            let sent =
                Outgoing { offload, slots: Slots::Bounced, ..Outgoing::plain(frame(9000, 1)) };
            let _ = s.bad.send(&sent);
            s.bad.signal();
            s.m.sim.settle();
            let _ = s.m.back().pull_all();
            let _ = s.m.back().send(s.bad_port, &frame(5000, 2), 54, &[4042, 904], Offload::NONE);
            s.m.sim.settle();
            if !s.bad.is_up() {
                s.bad.write_state(State::Initialising);
                s.m.run(std::time::Duration::from_millis(500));
            }
        }
        s.good_goes_on();
        assert_eq!(witness.borrow().careless(), &[] as &[String], "seed {seed}");
        assert!(witness.borrow().reads() > 100, "seed {seed}");
    }
}

#[test]
fn errors_are_answered_as_such() {
    let s = scene(19);
    let tiny = Outgoing { slots: Slots::Exactly(vec![(0, 13)]), ..Outgoing::plain(frame(14, 1)) };
    let tiny = Outgoing { bytes: tiny.bytes[..13].to_vec(), ..tiny };
    assert!(s.bad.send(&tiny));
    s.m.sim.settle();
    assert_eq!(s.m.back().pull_all().1, [DropReason::Truncated]);
    s.m.sim.settle();
    assert_eq!(s.bad.take_refused(), [Status::ERROR]);
    assert_eq!((s.bad.in_flight(), s.bad.fault()), (0, None));
}
