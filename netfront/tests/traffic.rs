//! Frames both ways: byte for byte, slot for slot, and at what cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod rig;

use rig::{Frame, GUEST, Rig, frame, pages};
use wire::{Csum, DropReason, Gso, GsoKind, Offload};
use xen::hypervisor::{DomId, GrantStatus, PAGE_SIZE};
use xen::io::Pulled;
use xen::netif::{RxFlags, Status};
use xen::sim::peer_back::{Offers, RxSlot, Tricks};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const BLANK: Offload = Offload { csum: Csum::Blank, gso: None };
const GSO: Offload = gso(GsoKind::TcpV4);

const fn gso(kind: GsoKind) -> Offload {
    Offload { csum: Csum::Blank, gso: Some(Gso { kind, size: 1448 }) }
}

#[test]
fn a_frame_arrives_as_it_was_sent_with_its_offload() {
    let (mut rig, uplink) = Rig::connected();
    for (ether_type, how) in [
        (IPV4, Offload::NONE),
        (IPV4, BLANK),
        (IPV6, BLANK),
        (IPV4, GSO),
        (IPV6, gso(GsoKind::TcpV6)),
    ] {
        let bytes = frame(ether_type, 1514);
        assert_eq!(rig.send(&bytes[..54], &[&bytes[54..]], how), Ok(()));
        rig.settle();
        let received = uplink.peer.received();
        assert_eq!(received.len(), 1, "{:?}", uplink.peer.complaint());
        assert_eq!((&received[0].bytes, received[0].offload), (&bytes, how));
        assert_eq!(received[0].slots, [1514]);
    }
}

#[test]
fn the_slots_of_a_large_frame_stay_as_they_came() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 65_226);
    let cases: [(Vec<usize>, Vec<u16>); 4] = [
        // Headers in front of full pages.
        ([vec![66, 66], vec![4096; 15], vec![65_226 - 66 * 2 - 15 * 4096]].concat(), vec![]),
        // As a bouncing client sends it: no room for the head before the first page.
        ([vec![20, 4096], vec![4096; 14], vec![65_226 - 20 - 15 * 4096]].concat(), vec![]),
        // Eighteen slots are the limit, as they are.
        ([vec![100; 2], vec![3900; 16], vec![65_226 - 200 - 16 * 3900]].concat(), vec![]),
        // One more is not: packed into sixteen.
        (
            [vec![54], vec![100; 3], vec![4096; 14], vec![3764; 2]].concat(),
            [vec![4096; 15], vec![65_226 - 15 * 4096]].concat(),
        ),
    ];
    for (cut, packed) in cases {
        assert_eq!(cut.iter().sum::<usize>(), bytes.len(), "the case itself");
        let mut rest = &bytes[..];
        let parts: Vec<&[u8]> = cut.iter().map(|len| rest.split_off(..*len).unwrap()).collect();
        assert_eq!(rig.send(parts[0], &parts[1..], GSO), Ok(()));
        rig.settle();
        let received = uplink.peer.received();
        assert_eq!(received.len(), 1, "{:?}", uplink.peer.complaint());
        assert_eq!((&received[0].bytes, received[0].offload), (&bytes, GSO));
        let mut kept: Vec<u16> = cut[1..].iter().map(|len| *len as u16).collect();
        match kept[0] + cut[0] as u16 {
            over if over > 4096 => kept.insert(0, cut[0] as u16),
            first => kept[0] = first,
        }
        let expected = if packed.is_empty() { kept } else { packed };
        assert_eq!(received[0].slots, expected);
    }
}

#[test]
fn what_the_backend_cannot_take_is_refused_and_takes_nothing() {
    let none = Offers { sg: false, gso: false, ipv6_csum: false, ..Offers::default() };
    let (mut rig, uplink) = Rig::connected_to(none);
    let v4 = frame(IPV4, 3000);
    let v6 = frame(IPV6, 3000);
    for (bytes, how) in [(&v4, GSO), (&v6, gso(GsoKind::TcpV6)), (&v6, BLANK)] {
        let (head, rest) = pages(bytes, 54);
        assert_eq!(rig.send(head, &rest, how), Err(DropReason::EgressOffload));
    }
    let long = frame(IPV4, 4097);
    let (head, rest) = pages(&long, 54);
    assert_eq!(rig.send(head, &rest, Offload::NONE), Err(DropReason::EgressOffload));
    assert_eq!(rig.room(), 256);
    // Without scatter-gather, pieces are put together.
    assert_eq!(rig.send(&v4[..54], &[&v4[54..100], &v4[100..]], BLANK), Ok(()));
    rig.settle();
    let received = uplink.peer.received();
    assert_eq!((received[0].bytes.as_slice(), &received[0].slots[..]), (&v4[..], &[3000][..]));
}

#[test]
fn frames_that_are_none_are_refused() {
    let (mut rig, _uplink) = Rig::connected();
    let bytes = frame(IPV4, 65_536);
    assert_eq!(rig.send(&bytes[..13], &[], Offload::NONE), Err(DropReason::Truncated));
    let (head, rest) = pages(&bytes, 54);
    assert_eq!(rig.send(head, &rest, GSO), Err(DropReason::TooBig));
    assert_eq!(rig.room(), 256);
}

#[test]
fn a_failed_copy_costs_that_frame_only() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 5000);
    let mut copies = 0;
    rig.sim.on_copy(move |by, _| {
        copies += u32::from(by == GUEST);
        (by == GUEST && copies == 2).then_some(GrantStatus::GENERAL_ERROR)
    });
    let (head, rest) = pages(&bytes, 54);
    assert_eq!(rig.commit(head, &rest, Offload::NONE), Err(DropReason::CopyFailed));
    assert_eq!(rig.commit(head, &rest, Offload::NONE), Ok(()));
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    rig.settle();
    assert_eq!(uplink.peer.received().len(), 1);
    // What was answered is taken with the next frame.
    rig.front.publish(&mut rig.h);
    assert_eq!((rig.room(), rig.held().0.grants), (256, 258));
}

#[test]
fn a_full_ring_is_known_before_anything_is_taken_and_opens_again() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.set_tricks(Tricks { hold_tx: true, ..Tricks::default() });
    let bytes = frame(IPV4, 100);
    for n in 0..256 {
        assert_eq!(rig.room(), 256 - n);
        assert_eq!(rig.send(&bytes, &[], Offload::NONE), Ok(()));
        rig.settle();
    }
    assert_eq!(rig.send(&bytes, &[], Offload::NONE), Err(DropReason::EgressFull));
    assert_eq!(rig.held().0.grants, 258 + 256);
    uplink.peer.set_tricks(Tricks::default());
    rig.settle();
    assert_eq!((rig.room(), rig.held().0.grants), (256, 258));
    // An extra slot takes room in the ring, not a page.
    uplink.peer.set_tricks(Tricks { hold_tx: true, ..Tricks::default() });
    for n in 0..128 {
        assert_eq!(rig.room(), 256 - 2 * n);
        assert_eq!(rig.send(&bytes, &[], GSO), Ok(()));
    }
    assert_eq!(rig.send(&bytes, &[], GSO), Err(DropReason::EgressFull));
    assert_eq!(uplink.peer.complaint(), None);
}

#[test]
fn without_grants_a_frame_is_not_sent_and_nothing_is_lost() {
    let (mut rig, uplink) = Rig::connected();
    rig.sim.limit_grants(GUEST, 259);
    let bytes = frame(IPV4, 5000);
    let (head, rest) = pages(&bytes, 54);
    assert_eq!(rig.send(head, &rest, Offload::NONE), Err(DropReason::EgressFull));
    assert_eq!((rig.room(), rig.held().0.grants), (256, 258));
    assert_eq!(rig.send(&bytes[..1000], &[], Offload::NONE), Ok(()));
    rig.settle();
    assert_eq!(uplink.peer.received().len(), 1);
}

#[test]
fn frames_of_all_sizes_arrive_in_order_through_every_buffer_many_times() {
    let (mut rig, uplink) = Rig::connected();
    let mut sent = Vec::new();
    for n in 0..600usize {
        let len = 14 + (n * 911) % 65_522;
        let (ether_type, offload) = match n % 5 {
            0 => (IPV4, GSO),
            1 => (IPV6, gso(GsoKind::TcpV6)),
            2 => (IPV4, BLANK),
            3 => (IPV4, Offload { csum: Csum::Valid, gso: None }),
            _ => (IPV4, Offload::NONE),
        };
        let bytes = frame(ether_type, len);
        uplink.peer.send(&bytes, offload);
        sent.push(Ok(Frame { bytes, offload }));
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        rig.settle();
        let new = rig.receive();
        assert!(!new.is_empty(), "{} of {}", got.len(), sent.len());
        got.extend(new);
    }
    assert!(got == sent);
    rig.settle();
    assert_eq!((rig.posted(), rig.room()), (256, 256));
    assert_eq!((uplink.peer.complaint(), uplink.peer.waiting()), (None, 0));
}

#[test]
fn only_the_bytes_wanted_are_brought() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 9000);
    uplink.peer.send(&bytes, GSO);
    rig.settle();
    let Pulled::Frame(incoming) = rig.pull() else { panic!("a frame") };
    use xen::io::Device;
    for want in [256, 2048, 4096, 5000, 9000, 20_000] {
        let private = rig.private_bytes();
        private.fill(0);
        let private = private_of(&mut rig.private);
        let copied = rig.front.heads(&incoming, &rig.pieces, want, 300, private, &mut vec![]);
        assert_eq!(copied, want.min(9000));
        let private = rig.private_bytes();
        assert_eq!(private[300..300 + copied], bytes[..copied]);
        assert!(private[300 + copied..].iter().all(|byte| *byte == 0));
    }
    rig.front.done(&mut rig.h, incoming);
}

#[test]
fn what_is_wrong_with_a_frame_costs_that_frame_only() {
    let (mut rig, uplink) = Rig::connected();
    let good = frame(IPV4, 500);
    let more = RxFlags::MORE_DATA;
    let none = RxFlags(0);
    let with = |offset, status, id| {
        let (bytes, flags) = (vec![1; 500], none);
        RxSlot::Data { bytes, offset, flags, status, id }
    };
    let raw_gso = |size: u16, kind| {
        let [a, b] = size.to_le_bytes();
        RxSlot::Raw([1, 0, a, b, kind, 0, 0, 0])
    };
    let full = [1; PAGE_SIZE];
    let blank = RxFlags::CSUM_BLANK.with(RxFlags::EXTRA_INFO);
    let cases: Vec<(&str, Vec<RxSlot>, DropReason)> = vec![
        ("beyond the page", vec![with(3597, None, None)], DropReason::BadSlot),
        ("far beyond", vec![with(0xffff, Some(Status(0x7fff)), None)], DropReason::BadSlot),
        ("another id", vec![with(0, None, Some(9999))], DropReason::BadSlot),
        ("an error", vec![with(0, Some(Status::ERROR), None)], DropReason::CopyFailed),
        (
            "an error in the middle",
            vec![
                RxSlot::data(&full, more),
                RxSlot::Data {
                    bytes: vec![],
                    offset: 0,
                    flags: more,
                    status: Some(Status::ERROR),
                    id: None,
                },
                RxSlot::data(&[1; 10], none),
            ],
            DropReason::CopyFailed,
        ),
        ("nothing", vec![RxSlot::data(&[], none)], DropReason::Truncated),
        ("thirteen bytes", vec![RxSlot::data(&[1; 13], none)], DropReason::Truncated),
        ("cut short", vec![RxSlot::data(&full, more)], DropReason::BadSlot),
        (
            "nineteen slots",
            [vec![RxSlot::data(&[1; 400], more); 18], vec![RxSlot::data(&[1; 400], none)]].concat(),
            DropReason::TooManySlots,
        ),
        (
            "two hundred slots",
            [vec![RxSlot::data(&[1; 4], more); 199], vec![RxSlot::data(&[1; 4], none)]].concat(),
            DropReason::TooManySlots,
        ),
        (
            "more than 65535 bytes",
            [vec![RxSlot::data(&full, more); 16], vec![RxSlot::data(&[1], none)]].concat(),
            DropReason::TooBig,
        ),
        (
            "an extra that is none",
            vec![RxSlot::data(&full, blank), RxSlot::Raw([77; 8])],
            DropReason::BadSlot,
        ),
        ("GSO of size 0", vec![RxSlot::data(&full, blank), raw_gso(0, 1)], DropReason::BadSlot),
        ("GSO of no type", vec![RxSlot::data(&full, blank), raw_gso(1448, 9)], DropReason::BadSlot),
        (
            "GSO with a checksum",
            vec![RxSlot::data(&full, RxFlags::EXTRA_INFO), raw_gso(1448, 1)],
            DropReason::BadSlot,
        ),
    ];
    for (what, slots, reason) in cases {
        uplink.peer.send_slots(slots);
        rig.settle();
        assert_eq!(rig.receive(), [Err(reason)], "{what}");
        rig.settle();
        assert_eq!((rig.posted(), rig.held().0.grants), (256, 258), "{what}");
        uplink.peer.send(&good, Offload::NONE);
        rig.settle();
        let frame = Frame { bytes: good.clone(), offload: Offload::NONE };
        assert_eq!(rig.receive(), [Ok(frame)], "after {what}");
    }
    assert_eq!(rig.ups().len(), 1);
}

#[test]
fn frames_that_are_held_keep_their_pages_until_they_are_done() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 8000);
    for _ in 0..110 {
        uplink.peer.send(&bytes, Offload::NONE);
    }
    rig.settle();
    let mut held = Vec::new();
    while let Pulled::Frame(incoming) = rig.pull() {
        held.push(incoming);
    }
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    assert_eq!((held.len(), rig.posted()), (110, 36));
    // As long as they are ours, nobody else can write them.
    assert_eq!(rig.held().0.grants, 2 + 36);
    for incoming in held.into_iter().rev() {
        let frame = rig.take(incoming);
        assert!(frame.bytes == bytes);
    }
    rig.front.publish(&mut rig.h);
    assert_eq!((rig.posted(), rig.held().0.grants), (256, 258));
}

#[test]
fn a_large_frame_costs_exactly_this() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 65_226);
    let (head, rest) = pages(&bytes, 66);
    let before = rig.sim.counters(GUEST);
    assert_eq!(rig.send(head, &rest, GSO), Ok(()));
    let after = rig.sim.counters(GUEST);
    // 15 full pages and what is left, one copy each; the head does not fit before the first page and
    // has one for itself.
    assert_eq!(rest.len(), 16);
    assert_eq!(after.copy_ops - before.copy_ops, 16);
    assert_eq!(after.copied_bytes - before.copied_bytes, 65_226 - 66);
    assert_eq!(after.grants - before.grants, 17);
    assert_eq!((after.copies - before.copies, after.notifies - before.notifies), (1, 1));
    assert_eq!(after.hypercalls - before.hypercalls, 2);
    rig.settle();
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    assert_eq!(rig.sim.counters(GUEST).ends - before.ends, 17);

    let before = rig.sim.counters(GUEST);
    uplink.peer.send(&bytes, GSO);
    let Pulled::Frame(incoming) = rig.pull() else { panic!("a frame") };
    assert_eq!(incoming.pieces.len(), 16);
    rig.take(incoming);
    rig.front.publish(&mut rig.h);
    let after = rig.sim.counters(GUEST);
    assert_eq!((after.grants - before.grants, after.ends - before.ends), (17, 17));
    assert_eq!(after.copies - before.copies, 0);
    // The backend has buffers enough and asked for no signal.
    assert_eq!(after.hypercalls - before.hypercalls, 0);
}

#[test]
fn a_batch_is_one_signal_and_its_answers_are_none() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 200);
    rig.settle();
    let (ours, theirs) = (rig.sim.counters(GUEST), rig.sim.counters(DomId(1)));
    for _ in 0..64 {
        assert_eq!(rig.commit(&bytes, &[], Offload::NONE), Ok(()));
    }
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    rig.settle();
    assert_eq!(rig.sim.counters(GUEST).notifies - ours.notifies, 1);
    // There is room for more; the next frame finds the answers.
    assert_eq!(rig.sim.counters(DomId(1)).notifies - theirs.notifies, 0);
    assert_eq!((uplink.peer.received().len(), rig.room()), (64, 192));
    rig.front.publish(&mut rig.h);
    assert_eq!(rig.room(), 256);
}

#[test]
fn answers_are_signalled_at_half_of_what_is_outstanding_until_half_of_the_pages_are_free() {
    let (mut rig, uplink) = Rig::connected();
    uplink.peer.set_tricks(Tricks { slow_tx: true, ..Tricks::default() });
    rig.settle();
    let bytes = frame(IPV4, 200);
    for _ in 0..256 {
        assert_eq!(rig.commit(&bytes, &[], Offload::NONE), Ok(()));
    }
    let before = rig.sim.counters(DomId(1)).notifies;
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    rig.run_for(core::time::Duration::from_millis(500));
    assert_eq!((rig.sim.counters(DomId(1)).notifies - before, rig.room()), (1, 128));
    rig.front.publish(&mut rig.h);
    assert_eq!(rig.room(), 256);
}

#[test]
fn nothing_is_visible_before_publish() {
    let (mut rig, uplink) = Rig::connected();
    let bytes = frame(IPV4, 200);
    assert_eq!(rig.commit(&bytes, &[], Offload::NONE), Ok(()));
    rig.settle();
    assert_eq!(uplink.peer.received().len(), 0);
    use xen::io::Device;
    rig.front.publish(&mut rig.h);
    rig.settle();
    assert_eq!(uplink.peer.received().len(), 1);
}

fn private_of(private: &mut xen::sim::SimPrivate) -> &mut [u8] {
    private.as_mut()
}
