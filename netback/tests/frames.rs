//! Frames both ways between netback and a frontend as strict as Linux'.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::{BACK, Machine, frame};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wire::{Csum, DropReason, Gso, GsoKind, Offload};
use xen::hypervisor::{DomId, GrantStatus};
use xen::sim::Label;
use xen::sim::peer_front::{Manners, Outgoing, Slots};

const BLANK: Offload = Offload { csum: Csum::Blank, gso: None };
const GSO4: Offload =
    Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448 }) };
const GSO6: Offload =
    Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV6, size: 1428 }) };

/// When a client knows at the latest that a frame of its is sent.
const LATEST: Duration = Duration::from_millis(10);

fn outgoing(len: usize, seed: u8, offload: Offload, slots: Slots) -> Outgoing {
    Outgoing { offload, slots, ..Outgoing::plain(frame(len, seed)) }
}

#[test]
fn frames_of_every_size_and_layout_come_through_whole_and_are_answered() {
    let m = Machine::new(1);
    let (peer, port) = m.connected(10, Manners::default());
    let split = Slots::Exactly(vec![(7, 14), (4095, 1), (100, 40), (0, 4096), (2000, 2000)]);
    let cases = [
        outgoing(14, 1, Offload::NONE, Slots::Linux),
        outgoing(60, 2, BLANK, Slots::Linux),
        outgoing(256, 3, Offload::NONE, Slots::Bounced),
        outgoing(1514, 4, BLANK, Slots::Linux),
        outgoing(4096, 5, Offload::NONE, Slots::Bounced),
        outgoing(6151, 6, BLANK, split),
        outgoing(65535, 7, GSO4, Slots::Linux),
        outgoing(65535, 8, GSO6, Slots::Bounced),
    ];
    for round in 0..30 {
        for sent in &cases {
            assert!(peer.send(sent), "round {round}");
            m.sim.settle();
            let (frames, bad) = m.back().pull_all();
            assert_eq!((frames.len(), bad), (1, vec![]));
            assert_eq!(frames[0].from, port);
            assert!(frames[0].bytes == sent.bytes, "bytes of a frame of {}", sent.bytes.len());
            assert_eq!(frames[0].offload, sent.offload);
            // Wakes netback, which tells then when it wants to be woken next.
            peer.signal();
            let soon = m.sim.now() + LATEST;
            assert!(m.sim.run_until_done(soon, || peer.in_flight() == 0), "never answered");
            assert_eq!(peer.fault(), None);
        }
    }
    assert_eq!(peer.take_refused(), []);
}

#[test]
fn what_a_client_vouches_for_is_not_believed() {
    let m = Machine::new(2);
    let (peer, _) = m.connected(10, Manners::default());
    let valid = Offload { csum: Csum::Valid, gso: None };
    assert!(peer.send(&outgoing(60, 1, valid, Slots::Linux)));
    m.sim.settle();
    assert_eq!(m.back().pull_all().0[0].offload, Offload::NONE);
}

#[test]
fn heads_bring_the_first_bytes_over_slots_and_no_more() {
    use xen::hypervisor::Hypervisor;
    use xen::io::{Device, Pulled};
    let m = Machine::new(3);
    let (peer, port) = m.connected(10, Manners::default());
    let slots = Slots::Exactly(vec![(0, 14), (50, 100), (0, 4096)]);
    let sent = outgoing(4210, 9, Offload::NONE, slots);
    assert!(peer.send(&sent));
    m.sim.settle();
    let back = &mut *m.back();
    let vif = back.netback.vif(port).unwrap();
    let mut pieces = Vec::new();
    let Pulled::Frame(incoming) = vif.pull(&mut back.h, &mut pieces) else { panic!("no frame") };
    let mut ops = Vec::new();
    let at = 2 * 4096 - 20;
    assert_eq!(vif.heads(&incoming, &pieces, 256, at, back.private.as_mut(), &mut ops), 256);
    back.h.copy(&mut back.private, &mut ops).unwrap();
    let got = &back.private.as_ref()[at as usize..];
    assert!(got[..256] == sent.bytes[..256]);
    assert!(got[256..512].iter().all(|b| *b == 0), "more than the head was brought");
    // One for each slot, and one more where private memory goes on in another page.
    assert_eq!(ops.len(), 4);
    vif.done(&mut back.h, incoming);
    vif.publish(&mut back.h);
}

#[test]
fn no_response_is_visible_before_the_frame_is_done_and_published() {
    use xen::io::{Device, Pulled};
    let m = Machine::new(4);
    let (peer, port) = m.connected(10, Manners::default());
    assert!(peer.send(&Outgoing::plain(frame(5000, 1))));
    m.sim.settle();
    let frames = peer.in_flight();
    let incoming = {
        let back = &mut *m.back();
        let vif = back.netback.vif(port).unwrap();
        let pulled = vif.pull(&mut back.h, &mut Vec::new());
        let Pulled::Frame(incoming) = pulled else { panic!("no frame") };
        vif.publish(&mut back.h);
        incoming
    };
    m.sim.settle();
    assert_eq!(peer.in_flight(), frames, "answered while copies may still come");
    let notifies = m.sim.counters(BACK).notifies;
    {
        let back = &mut *m.back();
        let vif = back.netback.vif(port).unwrap();
        vif.done(&mut back.h, incoming);
        vif.publish(&mut back.h);
        vif.publish(&mut back.h);
    }
    m.sim.settle();
    assert_eq!((peer.in_flight(), peer.fault()), (0, None));
    assert_eq!(m.sim.counters(BACK).notifies, notifies + 1, "one signal for all that was asked");
}

#[test]
fn a_vif_is_hot_until_its_ring_was_found_empty() {
    let m = Machine::new(5);
    let (peer, port) = m.connected(10, Manners::default());
    m.back().pull_all();
    assert_eq!(m.back().hot(), []);
    assert!(peer.send(&Outgoing::plain(frame(60, 1))));
    m.sim.settle();
    assert_eq!(m.back().hot(), [port]);
    // While it is hot the client need not signal again.
    let before = m.sim.counters(DomId(10)).notifies;
    assert!(peer.send(&Outgoing::plain(frame(60, 2))));
    assert_eq!(m.sim.counters(DomId(10)).notifies, before);
    assert_eq!(m.back().pull_all().0.len(), 2);
    assert_eq!(m.back().hot(), []);
}

#[test]
fn frames_to_a_client_arrive_whole_in_the_slots_they_came_in() {
    let m = Machine::new(6);
    let (peer, port) = m.connected(10, Manners::default());
    let cases: [(usize, &[u16], Offload, usize); 8] = [
        (60, &[], Offload::NONE, 1),
        (54, &[1460], BLANK, 1),
        (54, &[4042, 4096, 100], BLANK, 3),
        (54, &[4096, 10], Offload::NONE, 3),
        (66, &[4030, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096], GSO4, 10),
        (86, &[3000; 17], GSO6, 17),
        // 18 pieces are more than Linux takes: packed.
        (54, &[3600; 18], GSO4, 16),
        (54, &[100; 18], BLANK, 1),
    ];
    for round in 0..20 {
        for (head, pieces, offload, slots) in cases {
            let mut bytes =
                frame(head + pieces.iter().map(|p| usize::from(*p)).sum::<usize>(), round);
            if offload == GSO6 {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
            }
            assert_eq!(m.back().send(port, &bytes, head, pieces, offload), Ok(()));
            m.sim.settle();
            assert_eq!(peer.fault(), None, "{pieces:?}");
            let got = peer.take_received();
            assert_eq!((got.len(), got[0].slots), (1, slots), "{pieces:?}");
            assert!(got[0].bytes == bytes, "bytes of a frame of {pieces:?}");
            assert_eq!(got[0].offload, offload);
        }
    }
}

#[test]
fn validated_checksums_are_vouched_for() {
    let m = Machine::new(7);
    let (peer, port) = m.connected(10, Manners::default());
    for csum in [Csum::Valid, Csum::Blank, Csum::Unknown] {
        let offload = Offload { csum, gso: None };
        assert_eq!(m.back().send(port, &frame(60, 1), 60, &[], offload), Ok(()));
        m.sim.settle();
        assert_eq!(peer.take_received()[0].offload, offload);
    }
}

#[test]
fn what_a_frontend_cannot_take_is_refused_for_the_egress_to_finish() {
    let m = Machine::new(8);
    let plain = Manners::default()
        .with("feature-sg", None)
        .with("feature-gso-tcpv4", Some("0"))
        .with("feature-gso-tcpv6", Some("nonsense"))
        .with("feature-no-csum-offload", Some("1"))
        .with("feature-ipv6-csum-offload", None);
    let (peer, port) = m.connected(10, plain);
    let v4 = frame(60, 1);
    let mut v6 = frame(60, 2);
    v6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let refused = Err(DropReason::EgressOffload);
    assert_eq!(m.back().send(port, &v4, 60, &[], GSO4), refused);
    assert_eq!(m.back().send(port, &v6, 60, &[], GSO6), refused);
    assert_eq!(m.back().send(port, &v4, 60, &[], BLANK), refused);
    assert_eq!(m.back().send(port, &v6, 60, &[], BLANK), refused);
    assert_eq!(
        m.back().send(port, &frame(5000, 3), 54, &[4042, 904], Offload::NONE),
        Err(DropReason::TooBig)
    );
    // One page is enough however many pieces it comes in.
    let short = frame(1514, 4);
    assert_eq!(m.back().send(port, &short, 54, &[60, 1400], Offload::NONE), Ok(()));
    m.sim.settle();
    assert!(peer.take_received()[0].bytes == short);
    let (_, v6_only) = m.connected(11, Manners::default().with("feature-gso-tcpv4", None));
    assert_eq!(m.back().send(v6_only, &v4, 60, &[], GSO4), refused);
    assert_eq!(m.back().send(v6_only, &v6, 60, &[], GSO6), Ok(()));
    assert_eq!(m.back().send(v6_only, &v6, 60, &[], BLANK), Ok(()));
}

#[test]
fn a_client_that_posts_no_buffers_loses_its_own_frames_only() {
    let m = Machine::new(9);
    let (slow, to_slow) = m.connected(10, Manners { rx_buffers: 3, ..Manners::default() });
    let (quick, to_quick) = m.connected(11, Manners::default());
    let three = frame(54 + 4042 + 4096 + 10, 1);
    slow.keep_posted(0);
    assert_eq!(m.back().send(to_slow, &three, 54, &[4042, 4096, 10], Offload::NONE), Ok(()));
    let full = Err(DropReason::EgressFull);
    assert_eq!(m.back().send(to_slow, &frame(60, 2), 60, &[], Offload::NONE), full);
    assert_eq!(m.back().send(to_quick, &frame(60, 3), 60, &[], Offload::NONE), Ok(()));
    m.sim.settle();
    assert_eq!((slow.take_received().len(), quick.take_received().len()), (1, 1));
    // Buffers posted later are used at once; nothing waits for a signal.
    slow.keep_posted(2);
    assert_eq!(m.back().send(to_slow, &three, 54, &[4042, 4096, 10], Offload::NONE), full);
    assert_eq!(m.back().send(to_slow, &frame(60, 4), 60, &[], Offload::NONE), Ok(()));
    m.sim.settle();
    assert!(slow.take_received()[0].bytes == frame(60, 4));
    assert_eq!(slow.fault(), None);
}

#[test]
fn a_failed_copy_costs_that_frame_and_keeps_the_chain_of_slots() {
    let m = Machine::new(10);
    let (peer, port) = m.connected(10, Manners::default());
    let fail = Rc::new(RefCell::new(3));
    let counter = Rc::clone(&fail);
    m.sim.on_copy(move |_, _| {
        *counter.borrow_mut() -= 1;
        (*counter.borrow() == 0).then_some(GrantStatus::BAD_PAGE)
    });
    let bytes = frame(54 + 4042 + 4096 + 10, 1);
    let failed = m.back().send(port, &bytes, 54, &[4042, 4096, 10], GSO4);
    assert_eq!(failed, Err(DropReason::CopyFailed));
    assert_eq!(m.back().send(port, &frame(60, 2), 60, &[], Offload::NONE), Ok(()));
    m.sim.settle();
    assert_eq!(peer.fault().as_deref(), Some("rx->status -1"));
    let got = peer.take_received();
    assert_eq!(got.len(), 1);
    assert!(got[0].bytes == frame(60, 2));
}

#[test]
fn a_frame_goes_from_client_to_client_without_its_payload_being_held() {
    let m = Machine::new(11);
    let (sender, from) = m.connected(10, Manners::default());
    let (receiver, to) = m.connected(11, Manners::default());
    let secret = Label(7);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    m.sim.on_exposure(move |exposure| {
        if exposure.labels.contains(&secret) {
            log.borrow_mut().push((exposure.owner, exposure.to));
        }
    });
    let sent = Outgoing { label: secret, ..outgoing(65535, 5, GSO4, Slots::Bounced) };
    assert!(sender.send(&sent));
    m.sim.settle();
    let copied = m.sim.counters(BACK);
    let head = [0xee; 66];
    assert_eq!(m.back().forward(from, to, &head), Ok(()));
    let after = m.sim.counters(BACK);
    assert_eq!(after.copies - copied.copies, 1);
    assert_eq!(after.copied_bytes - copied.copied_bytes, 65535);
    assert_eq!(after.copy_ops - copied.copy_ops, 17);
    m.sim.settle();
    let got = receiver.take_received();
    assert!(got[0].bytes[66..] == sent.bytes[66..] && got[0].bytes[..66] == head);
    assert_eq!((got[0].slots, got[0].offload), (16, GSO4));
    assert_eq!((sender.fault(), receiver.fault(), sender.in_flight()), (None, None, 0));
    let allowed = [(DomId(10), BACK), (DomId(11), BACK)];
    assert!(seen.borrow().iter().all(|way| allowed.contains(way)), "{:?}", seen.borrow());
}

#[test]
fn frames_of_one_turn_to_several_clients_make_one_signal_each() {
    let m = Machine::new(12);
    let clients: Vec<_> = (10..14).map(|dom| m.connected(dom, Manners::default())).collect();
    m.sim.settle();
    let before = m.sim.counters(BACK).notifies;
    for (_, port) in &clients {
        assert_eq!(m.back().send(*port, &frame(60, 1), 60, &[], Offload::NONE), Ok(()));
    }
    // The clients have not run: they asked for one signal only.
    for (_, port) in &clients {
        assert_eq!(m.back().send(*port, &frame(60, 2), 60, &[], Offload::NONE), Ok(()));
    }
    assert_eq!(m.sim.counters(BACK).notifies - before, 4);
    m.sim.settle();
    assert!(clients.iter().all(|(peer, _)| peer.take_received().len() == 2));
}

#[test]
fn a_vif_that_is_gone_takes_and_gives_nothing() {
    let m = Machine::new(13);
    let (peer, port) = m.connected(10, Manners::default());
    peer.write_state(xen::xenbus::XenbusState::Closing);
    m.wait("state 6", || m.state(10, 0) == "6");
    let down = Err(DropReason::EgressDown);
    assert_eq!(m.back().send(port, &frame(60, 1), 60, &[], Offload::NONE), down);
    assert_eq!(m.detach(10, 0), Ok(()));
    assert_eq!(m.back().send(port, &frame(60, 1), 60, &[], Offload::NONE), down);
    assert_eq!(m.back().hot(), []);
}
