//! Frames out of slots: what is taken, what is dropped, and what ends a vif.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use wire::{Csum, DropReason, Gso, GsoKind, Offload};
use xen::hypervisor::CopyEnd;
use xen::io::Piece;
use xen::netif::{
    BadExtra, Extra, ExtraKind, RxAnswer, RxFlags, RxFrame, RxResponse, Status, TxData, TxFault,
    TxFlags, TxPacket, TxRequest, read_rx, read_tx,
};
use xen::ring::RingIndex;

const FIRST: u32 = u32::MAX - 2;

fn numbered<S: Copy>(slots: &[S]) -> impl FnMut() -> Option<(RingIndex, S)> {
    let mut left = Vec::from(slots).into_iter().enumerate();
    move || left.next().map(|(i, slot)| (RingIndex(FIRST).plus(i as u32), slot))
}

fn tx(slots: &[[u8; 12]]) -> Result<Option<TxPacket>, TxFault> {
    read_tx(numbered(slots))
}

/// What these responses are, those for the requests with these ids, and the pieces of it. Behind what
/// was there before, which stays.
fn rx_for(ids: &[u16], slots: &[[u8; 8]]) -> (Option<Result<RxFrame, DropReason>>, Vec<Piece>) {
    let before = Piece { at: CopyEnd::Private(u16::MAX), offset: 1, len: 2 };
    let mut pieces = vec![before];
    let mut left = (0..).zip(ids).zip(slots);
    let next = || {
        left.next().map(|((n, id), response)| RxAnswer {
            response: *response,
            page: CopyEnd::Private(n),
            id: *id,
        })
    };
    let frame = read_rx(next, &mut pieces);
    let none_left = frame.is_none() || left.next().is_none();
    assert!(none_left || matches!(frame, Some(Ok(_))), "every page comes back");
    assert_eq!(pieces.remove(0), before);
    (frame, pieces)
}

/// As that, with the ids that the responses have.
fn rx(slots: &[[u8; 8]]) -> (Option<Result<RxFrame, DropReason>>, Vec<Piece>) {
    let ids: Vec<_> = slots.iter().map(|slot| RxResponse::decode(slot).id).collect();
    rx_for(&ids, slots)
}

fn request(id: u16, offset: u16, size: u16, flags: u16) -> [u8; 12] {
    TxRequest { gref: 100 + u32::from(id), offset, flags: TxFlags(flags), id, size }.encode()
}

fn dropped(slots: &[[u8; 12]]) -> DropReason {
    let packet = tx(slots).unwrap().unwrap();
    assert_eq!(packet.answer.slots(), slots.len(), "every slot is answered");
    packet.frame.unwrap_err()
}

const GSO: Gso = Gso { kind: GsoKind::TcpV4, size: 1448 };

#[test]
fn no_slot_is_no_frame() {
    assert_eq!(tx(&[]), Ok(None));
    assert_eq!(rx(&[]), (None, vec![]));
}

#[test]
fn the_first_slot_has_what_the_others_leave_of_the_total() {
    let slots = [request(1, 50, 6000, 4 | 1), request(2, 0, 4096, 4), request(3, 4000, 96, 0)];
    let packet = tx(&slots).unwrap().unwrap();
    let frame = packet.frame.unwrap();
    let data = |gref, offset, len| TxData { gref, offset, len };
    assert_eq!(
        frame.data.as_slice(),
        [data(101, 50, 1808), data(102, 0, 4096), data(103, 4000, 96)]
    );
    assert_eq!(frame.len, 6000);
    assert_eq!(frame.offload, Offload { csum: Csum::Blank, gso: None });
}

#[test]
fn a_client_that_vouches_for_its_data_is_not_believed() {
    let frame = tx(&[request(1, 0, 60, 2)]).unwrap().unwrap().frame.unwrap();
    assert_eq!(frame.offload.csum, Csum::Unknown);
}

#[test]
fn extras_stand_behind_the_first_slot_and_are_answered_with_null() {
    let hint = Extra { kind: ExtraKind::Hint(4), more: true };
    let slots = [
        request(7, 0, 200, 8 | 4),
        hint.encode_tx(),
        Extra::gso(GSO).encode_tx(),
        request(9, 0, 100, 0),
    ];
    let packet = tx(&slots).unwrap().unwrap();
    assert_eq!(packet.frame.unwrap().offload.gso, Some(GSO));
    let answers: Vec<_> =
        packet.answer.responses(Status::OKAY).map(|(i, r)| (i.0, r.id, r.status)).collect();
    assert_eq!(
        answers,
        [
            (u32::MAX - 2, 7, Status::OKAY),
            (u32::MAX - 1, 0, Status::NULL),
            (u32::MAX, 0, Status::NULL),
            (0, 9, Status::OKAY),
        ]
    );
}

#[test]
fn sizes_that_contradict_each_other_cost_the_frame_only() {
    assert_eq!(dropped(&[request(1, 0, 13, 0)]), DropReason::Truncated);
    assert_eq!(dropped(&[request(1, 0, 100, 4), request(2, 0, 87, 0)]), DropReason::Truncated);
    assert_eq!(dropped(&[request(1, 0, 100, 4), request(2, 0, 101, 0)]), DropReason::BadSlot);
    let mcast = Extra { kind: ExtraKind::Mcast, more: false }.encode_tx();
    assert_eq!(dropped(&[request(1, 0, 60, 8), mcast]), DropReason::BadSlot);
}

fn chain(data_slots: u16) -> Vec<[u8; 12]> {
    let mut slots = vec![request(0, 0, 100 + 10 * (data_slots - 1), 4)];
    slots.extend((1..data_slots).map(|id| request(id, 0, 10, 4)));
    let last = slots.len() - 1;
    slots[last] = request(data_slots - 1, 0, 10, 0);
    slots
}

#[test]
fn up_to_18_slots_are_a_frame_up_to_21_are_dropped_and_22_end_the_vif() {
    assert_eq!(tx(&chain(18)).unwrap().unwrap().frame.unwrap().data.len(), 18);
    for slots in 19..=21 {
        assert_eq!(dropped(&chain(slots)), DropReason::TooManySlots, "{slots}");
    }
    assert_eq!(tx(&chain(22)), Err(TxFault::TooManySlots));
    assert_eq!(tx(&vec![request(0, 0, 60, 4); 256]), Err(TxFault::TooManySlots));
}

#[test]
fn broken_slots_end_the_vif() {
    let crossing = |offset, size| Err(TxFault::CrossesPage { offset, size });
    assert_eq!(tx(&[request(1, 4096 - 59, 60, 0)]), crossing(4096 - 59, 60));
    assert_eq!(tx(&[request(1, 0, 200, 4), request(2, 4000, 97, 0)]), crossing(4000, 97));
    assert_eq!(tx(&[request(1, u16::MAX, u16::MAX, 0)]), crossing(u16::MAX, u16::MAX));
    assert_eq!(tx(&[request(1, 0, 60, 4)]), Err(TxFault::CutShort));
    assert_eq!(tx(&[request(1, 0, 60, 8)]), Err(TxFault::CutShort));
    let bad = [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(tx(&[request(1, 0, 60, 8), bad]), Err(TxFault::BadExtra(BadExtra::Type(9))));
    let more = Extra { kind: ExtraKind::Gso(GSO), more: true }.encode_tx();
    let endless: Vec<_> = std::iter::once(request(1, 0, 60, 8)).chain([more; 255]).collect();
    assert_eq!(tx(&endless), Err(TxFault::TooManySlots));
}

fn response(id: u16, offset: u16, status: i16, flags: u16) -> [u8; 8] {
    RxResponse { id, offset, flags: RxFlags(flags), status: Status(status) }.encode()
}

#[test]
fn an_rx_frame_is_the_sum_of_its_slots() {
    let slots = [
        response(1, 2, 1000, 8 | 4 | 2),
        Extra::gso(GSO).encode_rx(),
        response(3, 0, 4096, 4),
        response(4, 0, 0, 4),
        response(5, 96, 4000, 0),
    ];
    let (frame, pieces) = rx(&slots);
    let frame = frame.unwrap().unwrap();
    let data = |n, offset, len| Piece { at: CopyEnd::Private(n), offset, len };
    assert_eq!(pieces, [data(0, 2, 1000), data(2, 0, 4096), data(4, 96, 4000)]);
    assert_eq!(frame.len, 9096);
    assert_eq!(frame.offload, Offload { csum: Csum::Blank, gso: Some(GSO) });
}

#[test]
fn whatever_a_backend_writes_costs_the_frame_at_most() {
    let why = |slots: &[[u8; 8]]| {
        let (frame, pieces) = rx(slots);
        assert_eq!(pieces, []);
        frame.unwrap().unwrap_err()
    };
    assert_eq!(why(&[response(1, 0, -1, 0)]), DropReason::CopyFailed);
    assert_eq!(why(&[response(1, 0, -1, 4), response(2, 0, 50, 0)]), DropReason::CopyFailed);
    assert_eq!(why(&[response(1, 0, 13, 0)]), DropReason::Truncated);
    assert_eq!(why(&[response(1, 4000, 97, 0)]), DropReason::BadSlot);
    assert_eq!(why(&[response(1, 0, 60, 4)]), DropReason::BadSlot);
    assert_eq!(why(&[response(1, 0, 60, 8)]), DropReason::BadSlot);
    assert_eq!(why(&[response(1, 0, 60, 8), [9, 0, 0, 0, 0, 0, 0, 0]]), DropReason::BadSlot);
    let chain = |n: usize| {
        let mut slots = vec![response(1, 0, 60, 4); n];
        slots[n - 1] = response(1, 0, 60, 0);
        slots
    };
    assert!(rx(&chain(18)).0.unwrap().is_ok());
    assert_eq!(why(&chain(19)), DropReason::TooManySlots);
    assert_eq!(why(&chain(256)), DropReason::TooManySlots);
    let mut huge = vec![response(1, 0, 4096, 4); 17];
    huge[16] = response(1, 0, 4096, 0);
    assert_eq!(why(&huge), DropReason::TooBig);
}

#[test]
fn a_response_with_the_id_of_another_request_costs_the_frame() {
    let slots = [response(1, 0, 60, 4), response(2, 0, 60, 4), response(3, 0, 0, 0)];
    assert!(rx_for(&[1, 2, 3], &slots).0.unwrap().is_ok());
    for wrong in [[0, 2, 3], [1, 3, 3], [1, 2, 4]] {
        assert_eq!(rx_for(&wrong, &slots), (Some(Err(DropReason::BadSlot)), vec![]));
    }
    // What stands in an extra is no id.
    let slots = [response(1, 0, 60, 8), Extra::gso(GSO).encode_rx()];
    assert!(rx_for(&[1, 77], &slots).0.unwrap().is_ok());
}

proptest! {
    /// Whatever stands in the slots: every slot taken is answered or its page comes back, and what is
    /// called a frame stays within its pages and adds up.
    #[test]
    fn no_slots_can_break_the_readers(
        slots in prop::collection::vec(any::<[u8; 12]>(), 1..30),
        flags in prop::collection::vec(0u8..16, 30),
    ) {
        // Sensible flags now and then, or nearly all chains would be cut short.
        let tx_slots: Vec<_> = slots.iter().zip(&flags).map(|(s, f)| {
            let mut s = *s;
            s[6] = *f;
            s[5] &= 0x0f;
            s[11] &= 0x0f;
            s
        }).collect();
        let mut left = numbered(&tx_slots);
        let mut taken = 0;
        let packet = read_tx(|| left().inspect(|_| taken += 1));
        if let Ok(Some(packet)) = packet {
            prop_assert_eq!(packet.answer.slots(), taken);
            if let Ok(frame) = packet.frame {
                let sum: u32 = frame.data.iter().map(|d| u32::from(d.len)).sum();
                prop_assert_eq!(sum, frame.len);
                prop_assert!(frame.len >= 14);
                prop_assert!(frame.data.iter().all(|d| d.len > 0 && d.offset + d.len <= 4096));
            }
        }
        let rx_slots: Vec<[u8; 8]> = slots.iter().zip(&flags).map(|(s, f)| {
            let mut s: [u8; 8] = s[..8].try_into().unwrap();
            s[4] = *f;
            s[3] &= 0x0f;
            s[7] &= 0x8f;
            s
        }).collect();
        let mut left = (0..).zip(&rx_slots);
        let mut pieces = Vec::new();
        let next = || left.next().map(|(n, slot)| RxAnswer {
            response: *slot,
            page: CopyEnd::Private(n),
            id: RxResponse::decode(slot).id,
        });
        match read_rx(next, &mut pieces).unwrap() {
            Ok(frame) => {
                let sum: u32 = pieces.iter().map(|d| u32::from(d.len)).sum();
                prop_assert_eq!(sum, frame.len);
                prop_assert!(pieces.iter().all(|d| d.len > 0 && d.offset + d.len <= 4096));
            }
            Err(_) => prop_assert!(pieces.is_empty()),
        }
    }
}
