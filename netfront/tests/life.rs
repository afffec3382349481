//! The uplink comes, goes, and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod rig;

use core::time::Duration;
use netfront::{Config, Devices, Notice};
use rig::{GUEST, MAC, Rig, frame};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use wire::{Offload, Port, PortSlot};
use xen::hypervisor::DomId;
use xen::sim::peer_back::{Offers, Tricks};
use xen::store::Tag;
use xen::xenbus::XenbusState as State;

#[test]
fn a_linux_backend_is_connected_and_finds_all_it_needs() {
    let (rig, uplink) = Rig::connected();
    let port = Port::new(0, 0);
    assert_eq!(rig.notices, [Notice::Up { port, mac: MAC, mtu: 1500, backend: DomId(1) }]);
    assert_eq!(uplink.peer.complaint(), None);
    assert_eq!(rig.posted(), 256);
    assert_eq!(rig.room(), 256);
    let dir = uplink.spec.frontend();
    for (name, value) in [
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("state", "4"),
    ] {
        assert_eq!(rig.xs.value(&format!("{dir}/{name}")).as_deref(), Some(value), "{name}");
    }
    assert_eq!(rig.xs.value(&format!("{dir}/feature-no-csum-offload")), None);
}

#[test]
fn a_detach_ends_well_and_another_index_and_domain_is_another_uplink() {
    let (mut rig, uplink) = Rig::connected();
    let before = rig.sim.now();
    rig.unplug(&uplink);
    assert!(rig.sim.now().since(before) < Duration::from_secs(1));
    rig.settle();
    assert_eq!(rig.notices.pop(), Some(Notice::Down { port: Port::new(0, 0) }));
    assert_eq!(rig.front.port(), None);

    let _other = rig.plug(2, 3, Offers::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    let port = Port::new(0, 1);
    let up = Notice::Up { port, mac: MAC, mtu: 1500, backend: DomId(2) };
    assert_eq!(rig.notices.pop(), Some(up));
}

#[test]
fn a_vif_that_is_there_before_us_and_one_that_comes_later_are_the_same() {
    let mut rig = Rig::new();
    rig.run_for(Duration::from_secs(5));
    assert_eq!(rig.notices, []);
    let _uplink = rig.plug(1, 0, Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
}

#[test]
fn a_backend_that_closes_comes_back_without_having_vanished() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.say(State::Closing);
    rig.until("down", |rig| rig.front.port().is_none());
    rig.until("up again", |rig| rig.front.port().is_some());
    assert_eq!(rig.ups(), [Port::new(0, 0), Port::new(0, 1)]);
    assert_eq!(uplink.peer.complaint(), None);
    exchange(&mut rig, &uplink);
}

#[test]
fn a_backend_that_was_restarted_is_connected_again() {
    // Seen at its start: the rings it knew nothing of are made anew.
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.set_tricks(Tricks { deaf: true, ..Tricks::default() });
    uplink.peer.restart(Offers::default());
    rig.until("down", |rig| rig.front.port().is_none());
    uplink.peer.set_tricks(Tricks::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    exchange(&mut rig, &uplink);
    assert_eq!((rig.ups().len(), rig.held().3), (2, 0));

    // Restarted so fast that nobody saw it: it goes on where the old one was.
    uplink.peer.restart(Offers::default());
    exchange(&mut rig, &uplink);
    assert_eq!(rig.ups().len(), 2);
}

#[test]
fn a_backend_domain_that_dies_is_replaced_within_a_second() {
    let (mut rig, uplink) = Rig::connected();
    rig.sim.destroy(DomId(1));
    rig.xs.release(DomId(1));
    rig.xs.remove(&uplink.spec.backend());
    rig.until("down", |rig| rig.front.port().is_none());
    rig.xs.remove(&uplink.spec.frontend());
    let before = rig.sim.now();
    let other = rig.plug(2, 0, Offers::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    assert!(rig.sim.now().since(before) < Duration::from_secs(1));
    exchange(&mut rig, &other);
}

#[test]
fn a_device_made_anew_before_anybody_looked_is_a_new_one() {
    let (mut rig, uplink) = Rig::connected();
    rig.settle();
    let before = rig.held();
    uplink.peer.stop();
    rig.xs.remove(&uplink.spec.backend());
    rig.xs.remove(&uplink.spec.frontend());
    let other = rig.plug(2, 0, Offers::default());
    rig.until("up again", |rig| rig.ups().len() == 2 && rig.front.port().is_some());
    exchange(&mut rig, &other);
    assert_eq!(rig.held(), before);
}

#[test]
fn a_backend_that_cannot_copy_is_named_and_given_up_until_it_can() {
    let mut rig = Rig::new();
    let uplink = rig.plug(1, 0, Offers { rx_copy: false, ..Offers::default() });
    rig.run_for(Duration::from_secs(5));
    let path = format!("{}/feature-rx-copy", uplink.spec.backend());
    assert_eq!(rig.problems(), [format!("{path} is \"0\", should be 1: the backend cannot copy")]);
    assert_eq!(rig.front.port(), None);
    uplink.peer.restart(Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
}

#[test]
fn nodes_of_the_wrong_form_are_named_with_their_value_and_cost_their_device_only() {
    let back = "/local/domain/1/backend/vif/7/0";
    let long = "x".repeat(2000);
    let cases = [
        (
            "mac",
            "nonsense",
            "device/vif/0/mac is \"nonsense\", should be the MAC address of one interface",
        ),
        (
            "mac",
            "ff:ff:ff:ff:ff:ff",
            "device/vif/0/mac is \"ff:ff:ff:ff:ff:ff\", should be the MAC address of one interface",
        ),
        ("mtu", "67", "device/vif/0/mtu is \"67\", should be from 68 to 65521 bytes"),
        (
            "backend-id",
            "32752",
            "device/vif/0/backend-id is \"32752\", should be the number of a domain",
        ),
        ("backend-id", "-1", "device/vif/0/backend-id is \"-1\", should be the number of a domain"),
        (
            "backend",
            "up//there",
            "device/vif/0/backend is \"up//there\", should be the path of a backend",
        ),
        (
            "backend",
            &long,
            "device/vif/0/backend is \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"..., should be the path of a backend",
        ),
        ("state", "four\n", "device/vif/0/state is \"four\\n\", should be a state from 1 to 8"),
    ];
    for (node, value, text) in cases {
        let mut rig = Rig::new();
        let first = rig.plug(1, 0, Offers::default());
        rig.xs.set(&format!("{}/{node}", first.spec.frontend()), value);
        let _second = rig.plug(2, 1, Offers::default());
        rig.until("up on the second", |rig| rig.front.port().is_some());
        assert_eq!(rig.problems(), [text]);
        assert!(matches!(rig.notices.last(), Some(Notice::Up { backend: DomId(2), .. })));
    }
    let mut rig = Rig::new();
    let first = rig.plug(1, 0, Offers::default());
    first.peer.stop();
    rig.xs.set(&format!("{back}/state"), "\u{1b}[2J");
    let _second = rig.plug(2, 1, Offers::default());
    rig.until("up on the second", |rig| rig.front.port().is_some());
    let text = format!("{back}/state is \"\\x1b[2J\", should be a state from 1 to 8");
    assert_eq!(rig.problems(), [text]);
}

#[test]
fn a_missing_node_and_a_name_that_is_no_number_are_told() {
    let mut rig = Rig::new();
    let uplink = rig.plug(1, 0, Offers::default());
    rig.xs.remove(&format!("{}/mac", uplink.spec.frontend()));
    rig.xs.set("/local/domain/7/device/vif/zero/state", "1");
    rig.run_for(Duration::from_secs(1));
    assert_eq!(
        rig.problems(),
        [
            "device/vif/zero is not the number of a device",
            "device/vif/0/mac is missing, should be the MAC address of one interface",
        ]
    );
}

#[test]
fn a_feature_of_the_wrong_form_is_off_and_told() {
    let mut rig = Rig::new();
    let uplink = rig.plug(1, 0, Offers::default());
    let path = format!("{}/feature-gso-tcpv4", uplink.spec.backend());
    rig.xs.set(&path, "yes");
    rig.until("up", |rig| rig.front.port().is_some());
    assert_eq!(rig.problems(), [format!("{path} is \"yes\", should be 0 or 1")]);
}

#[test]
fn the_lowest_device_is_the_uplink_and_the_next_takes_over() {
    let mut rig = Rig::new();
    let second = rig.plug(2, 10, Offers::default());
    let first = rig.plug(1, 9, Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
    rig.run_for(Duration::from_secs(10));
    assert!(first.peer.is_connected() && !second.peer.is_connected());
    assert_eq!(rig.problems(), ["device/vif/10 is not used: the uplink is device/vif/9"]);
    rig.unplug(&first);
    rig.until("up again", |rig| rig.front.port().is_some());
    assert!(second.peer.is_connected());
    assert_eq!(rig.ups(), [Port::new(0, 0), Port::new(0, 1)]);
}

#[test]
fn a_device_that_is_anothers_is_neither_used_nor_spoken_of() {
    for (devices, own) in
        [(Devices::only(1), 1u16), (Devices::but([0, 2]), 1), (Devices::only(2), 2)]
    {
        let config = Config { devices, ..Config::new(PortSlot(0), Tag(9)) };
        let mut rig = Rig::with(1, config);
        let all = [0, 1, 2].map(|index| rig.plug(10 + index, index.into(), Offers::default()));
        rig.until("up", |rig| rig.front.port().is_some());
        rig.run_for(Duration::from_secs(10));
        assert_eq!(all.each_ref().map(|one| one.peer.is_connected()), [0, 1, 2].map(|n| n == own));
        assert!(rig.problems().is_empty(), "{:?}", rig.problems());
        rig.unplug(&all[usize::from(own)]);
        rig.run_for(Duration::from_secs(10));
        assert!(all.iter().all(|one| !one.peer.is_connected()) && rig.front.port().is_none());
        rig.plug(20, own.into(), Offers::default());
        rig.until("up again", |rig| rig.front.port().is_some());
    }
}

#[test]
fn while_xenstore_is_silent_frames_go_on() {
    let (mut rig, uplink) = Rig::connected();
    rig.xs.stall(true);
    rig.xs.set(&format!("{}/hotplug-status", uplink.spec.backend()), "connected");
    rig.run_for(Duration::from_secs(100));
    exchange(&mut rig, &uplink);
    rig.xs.stall(false);
    uplink.peer.say(State::Closing);
    rig.until("down", |rig| rig.front.port().is_none());
}

#[test]
fn collisions_and_quotas_of_xenstore_are_told_and_outlived() {
    let mut rig = Rig::new();
    rig.xs.collide(40);
    let _uplink = rig.plug(1, 0, Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
    assert_eq!(
        rig.problems(),
        ["device/vif/0 cannot be written to: others change the same nodes all the time"]
    );

    let mut rig = Rig::new();
    let home = format!("/local/domain/{}/data", GUEST.0);
    rig.turn();
    let who = xen::sim::xenstored::Caller::Domain(GUEST);
    for n in 0..985 {
        rig.xs.with(|s| s.write(who, None, &format!("{home}/{n}"), b"")).unwrap();
    }
    let _uplink = rig.plug(1, 0, Offers::default());
    rig.run_for(Duration::from_secs(1));
    assert_eq!(
        rig.problems(),
        ["device/vif/0 cannot be written to: XenStore's quota is used up (ENOSPC)"]
    );
    rig.xs.remove(&home);
    rig.until("up", |rig| rig.front.port().is_some());
}

#[test]
fn without_memory_or_grants_nothing_stays_taken_and_the_uplink_comes_later() {
    for pages in [false, true] {
        let mut rig = Rig::new();
        rig.turn();
        let before = rig.held().0;
        if pages {
            rig.sim.limit_pages(GUEST, before.pages + 300);
        } else {
            rig.sim.limit_grants(GUEST, 1);
        }
        let uplink = rig.plug(1, 0, Offers::default());
        rig.run_for(Duration::from_secs(1));
        let why =
            if pages { "no memory for its rings and buffers" } else { "the grant table is full" };
        assert_eq!(rig.problems(), [format!("device/vif/0 cannot be connected: {why}")]);
        let after = rig.held().0;
        assert_eq!((after.grants, after.ports), (before.grants, before.ports));
        rig.sim.limit_pages(GUEST, usize::MAX);
        rig.sim.limit_grants(GUEST, 10_000);
        rig.until("up", |rig| rig.front.port().is_some());
        exchange(&mut rig, &uplink);
    }
}

#[test]
fn reconnecting_leaks_nothing() {
    let (mut rig, uplink) = Rig::connected();
    exchange(&mut rig, &uplink);
    rig.run_for(Duration::from_secs(60));
    let up = rig.held();
    for n in 0..15 {
        match n % 3 {
            0 => uplink.peer.say(State::Closing),
            1 => uplink.peer.say(State::InitWait),
            _ => uplink.peer.overrun(true, 300),
        }
        rig.until("down", |rig| rig.front.port().is_none());
        rig.until("up again", |rig| rig.front.port().is_some());
        exchange(&mut rig, &uplink);
        rig.run_for(Duration::from_secs(60));
        assert_eq!(rig.held(), up, "cycle {n}");
    }
    rig.unplug(&uplink);
    rig.run_for(Duration::from_secs(60));
    let down = rig.held();
    assert_eq!((down.0.grants, down.0.ports, down.1), (0, 1, 1));
    for n in 0..6 {
        let uplink = rig.plug(20 + n, u32::from(n), Offers::default());
        rig.until("up again", |rig| rig.front.port().is_some());
        rig.unplug(&uplink);
        rig.run_for(Duration::from_secs(60));
        assert_eq!(rig.held(), down, "attach {n}");
    }
}

#[test]
fn a_backend_that_flaps_costs_a_bounded_number_of_links_and_leaks_nothing() {
    let (mut rig, uplink) = Rig::connected();
    rig.run_for(Duration::from_secs(60));
    let before = rig.held();
    // Ten thousand states that mean nothing.
    for n in 0..10_000u32 {
        uplink.peer.say(if n % 2 == 0 { State::Closing } else { State::Connected });
        rig.run_for(Duration::from_micros(500));
    }
    uplink.peer.restart(Offers::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    // A real close as soon as it is up, over and over.
    let (start, ups) = (rig.sim.now(), rig.ups().len());
    while rig.sim.now().since(start) < Duration::from_secs(10) {
        if rig.front.port().is_some() {
            uplink.peer.say(State::Closing);
        }
        rig.run_for(Duration::from_millis(1));
    }
    let links = rig.ups().len() - ups;
    assert!((15..=4 + 20).contains(&links), "{links} in ten seconds");
    rig.run_for(Duration::from_secs(60));
    exchange(&mut rig, &uplink);
    assert_eq!(rig.held(), before);
}

#[test]
fn a_new_backend_domain_finds_nothing_of_the_old_ones() {
    let seen: Rc<RefCell<BTreeSet<_>>> = Rc::default();
    let mut rig = Rig::with(3, Config { tx_pages: 64, rx_pages: 64, ..config() });
    let collect = Rc::clone(&seen);
    rig.sim.on_exposure(move |exposure| {
        if exposure.to == DomId(2) {
            collect.borrow_mut().insert(exposure.frame);
        }
    });
    let kept = Tricks { keep_tx: true, keep_rings: true, ..Tricks::default() };
    let first = rig.plug(1, 0, Offers::default());
    rig.until("up", |rig| rig.front.port().is_some());
    // All pages of both directions, and those sent it does not let go of for a while.
    let secret = [0xa5; 3000];
    first.peer.set_tricks(kept);
    for _ in 0..64 {
        first.peer.send(&secret, Offload::NONE);
        rig.settle();
        rig.receive();
        assert_eq!(rig.send(&secret, &[], Offload::NONE), Ok(()));
    }
    rig.settle();
    rig.unplug(&first);
    assert_eq!(rig.front.quarantined(), 64 + 2);

    let second = rig.plug(2, 0, Offers::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    second.peer.set_tricks(kept);
    fill(&mut rig);
    let clean = |rig: &Rig| {
        for frame in seen.borrow().iter() {
            let bytes = rig.sim.peek(*frame);
            assert!(!bytes.windows(8).any(|w| w == [0xa5; 8]), "{frame:?} is the old one's");
        }
    };
    clean(&rig);
    // Now the first lets go, and what it had serves the second in the place of what that one keeps.
    second.peer.say(State::Closing);
    rig.until("down", |rig| rig.front.port().is_none());
    first.peer.set_tricks(Tricks::default());
    rig.until("up again", |rig| rig.front.port().is_some());
    second.peer.set_tricks(Tricks { hold_tx: true, ..Tricks::default() });
    fill(&mut rig);
    rig.run_for(Duration::from_secs(20));
    assert_eq!(rig.front.quarantined(), 0);

    clean(&rig);
    assert!(seen.borrow().len() >= 130 + 64, "{}", seen.borrow().len());
}

/// A short frame in each page there is, so that what stands behind it shows.
fn fill(rig: &mut Rig) {
    for _ in 0..64 {
        assert_eq!(rig.send(&frame(0x0800, 20), &[], Offload::NONE), Ok(()));
        rig.settle();
    }
}

fn config() -> Config {
    Config::new(PortSlot(0), Tag(9))
}

/// A frame each way.
fn exchange(rig: &mut Rig, uplink: &rig::Uplink) {
    let bytes = frame(0x0800, 300);
    assert_eq!(rig.send(&bytes, &[], Offload::NONE), Ok(()));
    rig.settle();
    let received = uplink.peer.received();
    assert_eq!(received.len(), 1, "{:?}", uplink.peer.complaint());
    assert_eq!(received[0].bytes, bytes);
    uplink.peer.send(&bytes, Offload::NONE);
    rig.settle();
    let frames = rig.receive();
    assert_eq!(frames, [Ok(rig::Frame { bytes, offload: Offload::NONE })]);
    rig.settle();
    assert_eq!((rig.room(), rig.posted()), (256, 256));
    assert_eq!(uplink.peer.complaint(), None);
}
