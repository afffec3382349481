//! Backends that want us to crash, to leak, or to send what we should not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod rig;

use core::time::Duration;
use netfront::{Config, Notice};
use rig::{GUEST, Rig, frame};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wire::{DropReason, Offload, Port, PortSlot};
use xen::io::{Device, Head, Pulled};
use xen::netif::{Status, TxResponse};
use xen::sim::Witness;
use xen::sim::peer_back::{Offers, Tricks};
use xen::store::Tag;
use xen::xenbus::XenbusState as State;

const IPV4: u16 = 0x0800;

#[test]
fn a_broken_ring_is_told_taken_down_and_made_anew() {
    let response = |id, status| TxResponse { id, status }.encode();
    type Break = fn(&xen::sim::peer_back::PeerBack, [u8; 12]);
    let answer: Break = |peer, raw| peer.answer_tx(raw);
    let cases: [(&str, Break, [u8; 12]); 6] = [
        ("TX response for id 9999, which is not in flight", answer, response(9999, Status::OKAY)),
        ("TX response for id 3, which is not in flight", answer, response(3, Status::ERROR)),
        ("TX response for an extra slot that was not sent", answer, response(255, Status::NULL)),
        (
            "TX ring claims responses up to 301, consumed are 0",
            |peer, _| peer.overrun(true, 301),
            [0; 12],
        ),
        (
            "RX ring claims responses up to 257, consumed are 0",
            |peer, _| peer.overrun(false, 257),
            [0; 12],
        ),
        (
            "RX ring claims responses up to 4294967295, consumed are 0",
            |peer, _| peer.overrun(false, u32::MAX),
            [0; 12],
        ),
    ];
    for (text, break_it, raw) in cases {
        let (mut rig, uplink) = Rig::connected();
        uplink.peer.set_tricks(Tricks { hold_tx: true, ..Tricks::default() });
        // Something is in flight, the last page first.
        assert_eq!(rig.send(&frame(IPV4, 100), &[], Offload::NONE), Ok(()));
        rig.settle();
        break_it(&uplink.peer, raw);
        rig.turn();
        rig.receive();
        rig.until("down", |rig| rig.front.port().is_none());
        let expected = format!("device/vif/0: broken backend: {text}; connecting again");
        assert_eq!(rig.problems(), [expected]);
        assert_eq!(rig.receive(), []);
        assert_eq!(rig.send(&frame(IPV4, 100), &[], Offload::NONE), Err(DropReason::EgressDown));
        uplink.peer.set_tricks(Tricks::default());
        rig.until("up again", |rig| rig.front.port().is_some());
        assert_eq!(rig.ups(), [Port::new(0, 0), Port::new(0, 1)]);
        rig.run_for(Duration::from_secs(20));
        assert_eq!((rig.room(), rig.posted(), rig.held().3), (256, 256, 0));
    }
}

#[test]
fn after_a_fault_nothing_goes_through_before_the_link_is_anew() {
    for tx in [true, false] {
        let (mut rig, uplink) = Rig::connected();
        rig.settle();
        uplink.peer.send(&frame(IPV4, 100), Offload::NONE);
        uplink.peer.overrun(tx, 300);
        let mut ports = xen::hypervisor::PortSet::default();
        ports.add(rig.front.event().unwrap());
        rig.front.on_event(&mut rig.h, &ports);
        assert_eq!(rig.receive(), []);
        let sent = rig.send(&frame(IPV4, 100), &[], Offload::NONE);
        assert_eq!(sent, Err(DropReason::EgressDown));
        rig.until("up again", |rig| rig.ups().len() == 2 && rig.front.port().is_some());
    }
}

#[test]
fn what_was_on_its_way_on_an_earlier_link_is_nothing_to_the_new_one() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.send(&frame(IPV4, 100), Offload::NONE);
    rig.settle();
    let Pulled::Frame(incoming) = rig.pull() else { panic!("a frame") };
    let bytes = frame(IPV4, 100);
    let head = Head { bytes: &bytes, private_offset: 0 };
    let stage = |rig: &mut Rig| {
        rig.front.stage(&mut rig.h, head, &[], Offload::NONE, &mut Vec::new()).unwrap()
    };
    let staged = stage(&mut rig);
    uplink.peer.say(State::Closing);
    rig.until("up again", |rig| rig.ups().len() == 2 && rig.front.port().is_some());
    uplink.peer.send(&frame(IPV4, 100), Offload::NONE);
    rig.settle();
    let Pulled::Frame(same_buffer) = rig.pull() else { panic!("a frame") };
    let _same_page = stage(&mut rig);
    assert_eq!(rig.front.commit(&mut rig.h, staged, &[]), Err(DropReason::EgressDown));
    rig.front.done(&mut rig.h, incoming);
    rig.front.publish(&mut rig.h);
    assert_eq!((rig.room(), rig.posted()), (255, 255));
    rig.front.done(&mut rig.h, same_buffer);
    rig.front.publish(&mut rig.h);
    rig.settle();
    assert_eq!((rig.posted(), uplink.peer.received().len()), (256, 0));
}

#[test]
fn a_page_the_backend_keeps_mapped_is_not_read_and_not_posted_again_until_it_lets_go() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.set_tricks(Tricks { keep_rx: true, ..Tricks::default() });
    for _ in 0..10 {
        uplink.peer.send(&frame(IPV4, 5000), Offload::NONE);
    }
    rig.settle();
    assert_eq!(rig.receive(), [const { Err(DropReason::StillMapped) }; 10]);
    rig.run_for(Duration::from_secs(5));
    assert_eq!((rig.posted(), rig.held().0.grants), (236, 258));
    uplink.peer.set_tricks(Tricks::default());
    rig.run_for(Duration::from_secs(10));
    assert_eq!((rig.posted(), rig.held().0.grants), (256, 258));
}

#[test]
fn a_sent_page_the_backend_keeps_mapped_is_not_written_again_until_it_lets_go() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.set_tricks(Tricks { keep_tx: true, ..Tricks::default() });
    for n in 0..256 {
        assert_eq!(rig.room(), 256 - n);
        assert_eq!(rig.send(&frame(IPV4, 100), &[], Offload::NONE), Ok(()));
        rig.settle();
    }
    assert_eq!(rig.send(&frame(IPV4, 100), &[], Offload::NONE), Err(DropReason::EgressFull));
    uplink.peer.set_tricks(Tricks::default());
    rig.run_for(Duration::from_secs(10));
    assert_eq!((rig.room(), rig.held().0.grants), (256, 258));
    assert_eq!(rig.ups().len(), 1);
}

#[test]
fn a_backend_that_never_unmaps_costs_a_bounded_number_of_pages() {
    let mut rig = Rig::with(5, Config { tx_pages: 64, rx_pages: 64, ..config() });
    let mut uplinks = Vec::new();
    // Each goes and keeps its 64 sent pages and both rings.
    for back in 11..=20 {
        let uplink = rig.plug(back, u32::from(back), Offers::default());
        uplink.peer.set_tricks(Tricks { keep_tx: true, keep_rings: true, ..Tricks::default() });
        rig.run_for(Duration::from_secs(4));
        for _ in 0..64 {
            let _ = rig.send(&frame(IPV4, 100), &[], Offload::NONE);
            rig.settle();
        }
        rig.unplug(&uplink);
        uplinks.push(uplink);
        assert!(rig.held().0.pages <= 1 + 3 * 130, "{:?}", rig.held());
    }
    let text = "device/vif/13 cannot be connected: 132 pages are still mapped by former backends";
    assert_eq!(rig.problems().first(), Some(&text));
    let all: Vec<_> = uplinks.iter().map(|uplink| uplink.peer.clone()).collect();
    all.iter().for_each(|peer| peer.set_tricks(Tricks::default()));
    rig.run_for(Duration::from_secs(30));
    assert_eq!((rig.held().0.grants, rig.held().3), (0, 0));
    assert_eq!(rig.held().0.pages, 1 + 130);
    let _last = rig.plug(30, 30, Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
}

#[test]
fn any_change_of_shared_memory_at_any_access_costs_the_link_at_most() {
    let (mut faults, mut reads) = (0, 0);
    for seed in 0..16 {
        let mut rig = Rig::with(seed, Config { tx_pages: 64, rx_pages: 64, ..config() });
        let uplink = rig.plug(1, 0, Offers::default());
        rig.until("up", |rig| rig.front.port().is_some());
        let on = Rc::new(Cell::new(true));
        let witness = corrupt(&rig, seed, Rc::clone(&on));
        for n in 0..200usize {
            if uplink.peer.is_connected() && rig.front.port().is_some() {
                uplink.peer.send(&frame(IPV4, 14 + n * 97 % 20_000), Offload::NONE);
            }
            let bytes = frame(IPV4, 14 + n * 131 % 9000);
            let (head, rest) = rig::pages(&bytes, 14);
            let _ = rig.send(head, &rest, Offload::NONE);
            rig.receive();
            rig.settle();
        }
        on.set(false);
        assert_eq!(witness.borrow().careless(), &[] as &[String], "seed {seed}");
        reads += witness.borrow().reads();
        rig.unplug(&uplink);
        rig.run_for(Duration::from_secs(60));
        let (holdings, watches, transactions, quarantined) = rig.held();
        assert_eq!((holdings.grants, holdings.ports), (0, 1), "seed {seed}");
        assert_eq!((watches, transactions, quarantined), (1, 0, 0), "seed {seed}");
        assert_eq!(holdings.pages, 1 + 130, "seed {seed}");
        let _again = rig.plug(2, 0, Offers::default());
        rig.until("up again", |rig| rig.front.port().is_some());
        faults += rig.problems().len();
    }
    assert!(faults > 32 && reads > 1000, "{faults}, {reads}");
}

/// Before one in 256 accesses of ours to a page of the data path, the backend changes a byte: half of
/// the time of the response index, if it is a ring.
fn corrupt(rig: &Rig, seed: u64, on: Rc<Cell<bool>>) -> Rc<RefCell<Witness>> {
    let witness = Rc::new(RefCell::new(Witness::new(GUEST)));
    let seen = Rc::clone(&witness);
    let (sim, store_page) = (rig.sim.clone(), rig.store_page);
    rig.sim.on_touch(move |touch, bytes| {
        seen.borrow_mut().see(touch);
        // XenStore's page is not the backend's to change.
        if !on.get() || touch.by != GUEST || touch.frame == store_page || sim.random(256) != 0 {
            return;
        }
        let at = if sim.random(2) == 0 {
            8 + sim.random(4) as usize
        } else {
            touch.offset + sim.random(touch.len.max(1) as u64) as usize
        };
        bytes[at] = (sim.random(256) ^ seed) as u8;
    });
    witness
}

#[test]
fn messages_about_one_device_do_not_flood() {
    let (mut rig, uplink) = Rig::connected();
    for n in 0..5000 {
        rig.xs.set(&format!("{}/mac", uplink.spec.frontend()), &format!("bad {n}"));
        rig.run_for(Duration::from_millis(1));
    }
    let told = rig.problems().len();
    assert!((1..=8 + 3).contains(&told), "{told}");
    let up = |notice: &Notice| matches!(notice, Notice::Up { .. });
    assert_eq!(rig.notices.iter().filter(|notice| up(notice)).count(), 1);
}

fn config() -> Config {
    Config::new(PortSlot(0), Tag(9))
}

#[test]
fn buffers_that_found_no_grant_are_posted_when_there_is_one() {
    let (mut rig, uplink) = Rig::connected();
    for _ in 0..256 {
        uplink.peer.send(&frame(IPV4, 100), Offload::NONE);
    }
    rig.settle();
    rig.sim.limit_grants(GUEST, 2);
    assert_eq!(rig.receive().len(), 256);
    assert_eq!(rig.posted(), 0);
    rig.run_for(Duration::from_secs(5));
    rig.sim.limit_grants(GUEST, 1000);
    rig.run_for(Duration::from_secs(10));
    assert_eq!(rig.posted(), 256);
}
