//! What fragments may and may not be.

use super::*;
use crate::Early;
use std::vec::Vec;

fn id(client: u16, id: u32) -> DatagramId {
    let from = Port::new(client, 0);
    DatagramId { from, src: [10, 0, 0, 1].into(), dst: [192, 0, 2, 1].into(), id, protocol: 17 }
}

fn piece(start: u16, len: u32, more: bool) -> Piece {
    let fragment = Fragment { id: 0, offset: start, more, protocol: 17, len };
    Piece::new(&fragment, len).unwrap()
}

const FLOW: FlowId = FlowId { index: 7, generation: 0 };
const REFUSED: Result<Later, DropReason> = Err(DropReason::Fragment);
const FOLLOWS: Result<Later, DropReason> = Ok(Later::Follows(FLOW, None));

fn begun() -> Fragments {
    let mut fragments = Fragments::new(4, [1; 16]);
    let (now, client) = (Instant::ZERO, Port::new(1, 0));
    assert_eq!(fragments.may_begin(now, &id(1, 5)), Ok(()));
    fragments.begin(now, id(1, 5), piece(0, 800, true), FLOW, client, None);
    fragments
}

#[test]
fn n13_later_fragments_follow_the_first_in_any_order_until_all_are_there() {
    let orders = [[800, 1600, 2400], [800, 2400, 1600], [1600, 800, 2400], [2400, 1600, 800]];
    for order in orders {
        let mut fragments = begun();
        for start in order {
            let last = start == 2400;
            let got = fragments.later(Instant::ZERO, &id(1, 5), piece(start, 800, !last));
            assert_eq!(got, FOLLOWS, "{order:?} {start}");
        }
        let again = fragments.later(Instant::ZERO, &id(1, 5), piece(800, 800, true));
        assert_eq!(again, Ok(Later::Early), "{order:?}: forgotten when whole");
        assert_eq!(fragments.held[1], 0);
    }
}

#[test]
fn n13_overlaps_spoil_their_datagram() {
    for (start, len, more) in
        [(0, 8, true), (792, 800, true), (1592, 800, true), (800, 800, true), (880, 8, false)]
    {
        let mut fragments = begun();
        assert_eq!(fragments.later(Instant::ZERO, &id(1, 5), piece(800, 800, true)), FOLLOWS);
        let now = Instant::ZERO;
        assert_eq!(fragments.later(now, &id(1, 5), piece(start, len, more)), REFUSED, "{start}");
        assert_eq!(fragments.later(now, &id(1, 5), piece(4000, 8, true)), REFUSED, "{start}");
    }
    let mut fragments = begun();
    assert_eq!(fragments.may_begin(Instant::ZERO, &id(1, 5)), Err(DropReason::Fragment));
    assert_eq!(fragments.later(Instant::ZERO, &id(1, 5), piece(800, 8, true)), REFUSED);
}

#[test]
fn n13_a_datagram_has_one_end() {
    let mut fragments = begun();
    let now = Instant::ZERO;
    assert_eq!(fragments.later(now, &id(1, 5), piece(2400, 100, false)), FOLLOWS);
    assert_eq!(fragments.later(now, &id(1, 5), piece(2504, 8, true)), REFUSED);
    let mut fragments = begun();
    assert_eq!(fragments.later(now, &id(1, 5), piece(2400, 104, true)), FOLLOWS);
    assert_eq!(fragments.later(now, &id(1, 5), piece(1600, 100, false)), REFUSED);
}

#[test]
fn n13_pieces_that_no_sender_makes_are_refused() {
    let made = |protocol, offset, len, more| {
        Piece::new(&Fragment { id: 0, offset, more, protocol, len }, len).is_ok()
    };
    assert!(made(17, 0, 8, true) && made(17, 8, 1, false) && made(6, 24, 8, true));
    assert!(!made(17, 8, 0, true) && !made(17, 8, 0, false), "empty");
    assert!(!made(17, 0, 12, true), "ragged");
    assert!(!made(6, 8, 80, true) && !made(6, 16, 80, false), "over a TCP header");
    assert!(!made(17, 65_528, 8, false) && made(17, 65_528, 7, false), "the ping of death");
}

#[test]
fn n13_fragments_are_forgotten_in_time_and_a_few_pieces_too_many_refused() {
    let mut fragments = begun();
    let late = Instant::ZERO + LIFETIME;
    assert_eq!(fragments.later(late, &id(1, 5), piece(800, 8, true)), Ok(Later::Early));
    let mut fragments = begun();
    let refused = (0..200).filter(|n| {
        let got = fragments.later(Instant::ZERO, &id(1, 5), piece(800 + 8 * n, 8, true));
        got == REFUSED
    });
    assert_eq!(refused.count(), 200 - usize::from(PIECES - 1));
    let mut fragments = begun();
    let scattered = (0..STRETCHES as u16)
        .map(|n| fragments.later(Instant::ZERO, &id(1, 5), piece(1600 + 16 * n, 8, true)).is_ok());
    assert_eq!(scattered.filter(|ok| !ok).count(), 1);
}

#[test]
fn n13_n24_a_client_that_floods_loses_its_own_datagrams() {
    let mut fragments = begun();
    let flooder = Port::new(2, 0);
    for n in 0..10_000 {
        let now = Instant::from_millis(n.into());
        fragments.begin(now, id(2, n), piece(0, 800, true), FLOW, flooder, None);
    }
    assert_eq!(fragments.held[2], PER_CLIENT);
    let now = Instant::from_millis(10_000);
    assert_eq!(fragments.later(now, &id(2, 9_999), piece(800, 8, true)), FOLLOWS);
    assert_eq!(fragments.later(now, &id(2, 9_967), piece(800, 8, true)), Ok(Later::Early));
    assert_eq!(fragments.later(now, &id(1, 5), piece(800, 8, true)), FOLLOWS);
    fragments.client_gone(flooder);
    assert_eq!(fragments.later(now, &id(2, 9_999), piece(808, 8, true)), Ok(Later::Early));
}

#[test]
fn n13_when_all_places_are_taken_whoever_has_most_gives_way() {
    let mut fragments = Fragments::new(64, [1; 16]);
    for slot in 0..16 {
        for n in 0..14 {
            let client = Port::new(slot, 0);
            let now = Instant::from_millis(u64::from(slot) * 16 + u64::from(n));
            fragments.begin(now, id(slot, n), piece(0, 8, true), FLOW, client, None);
        }
    }
    let now = Instant::from_millis(500);
    fragments.begin(now, id(20, 0), piece(0, 8, true), FLOW, Port::new(20, 0), None);
    let held: Vec<u16> = fragments.held.to_vec();
    assert_eq!((held[0], held[1], held[20]), (13, 14, 1));
    assert_eq!(held.iter().map(|n| u32::from(*n)).sum::<u32>(), DATAGRAMS as u32);
}

#[test]
fn n13_n40_the_table_never_takes_more_memory_than_at_the_start() {
    let mut fragments = Fragments::new(64, [1; 16]);
    let start = fragments.datagrams.allocation_size();
    assert!(start <= Fragments::bytes(0), "{start}");
    for n in 0..20_000 {
        let (now, slot) = (Instant::from_millis(u64::from(n) * 11), (n % 61) as u16);
        fragments.begin(now, id(slot, n), piece(0, 8, true), FLOW, Port::new(slot, 0), None);
        // Many end in the order they did not begin in, and leave their marks behind.
        let other = n.saturating_sub(n.wrapping_mul(0x9e37_79b9) % 200);
        let end = id((other % 61) as u16, other);
        let _ = fragments.later(now, &end, piece(8, 8, false));
        assert!(fragments.datagrams.len() <= DATAGRAMS);
    }
    assert_eq!(fragments.datagrams.allocation_size(), start);
    let held: usize = fragments.held.iter().map(|held| usize::from(*held)).sum();
    assert_eq!(held, fragments.datagrams.len());
}

#[test]
fn n13_a_datagram_whose_time_is_over_makes_way_for_another_of_its_name() {
    let mut fragments = begun();
    let late = Instant::ZERO + LIFETIME;
    assert_eq!(fragments.may_begin(late, &id(1, 5)), Ok(()));
    fragments.begin(late, id(1, 5), piece(0, 8, true), FLOW, Port::new(2, 0), None);
    assert_eq!((fragments.held[1], fragments.held[2]), (0, 1));
    assert_eq!(fragments.later(late, &id(1, 5), piece(8, 8, false)), FOLLOWS);
}

#[test]
fn n13_early_fragments_wait_in_order_and_bounded_for_each_sender() {
    let mut early = Early::default();
    let from = |n: u8, id: u32| {
        let (from, dst) = (Port::new(0, 0), [192, 0, 2, 1].into());
        DatagramId { from, src: [198, 51, 100, n].into(), dst, id, protocol: 17 }
    };
    let at = Instant::from_millis;
    assert!(!early.keep(at(0), from(1, 5), b"later") && !early.keep(at(1), from(1, 5), b"last"));
    for n in 0..100 {
        early.keep(at(2 + n), from(2, 5), b"flood");
    }
    for n in 3..200 {
        early.keep(at(200), from(n, 5), b"from everywhere");
    }
    assert_eq!(early.next(at(300), &from(1, 6)), None);
    let flood = core::iter::from_fn(|| early.next(at(300), &from(2, 5)).map(|_| ())).count();
    assert!(flood <= 8);
    let mut early = Early::default();
    early.keep(at(0), from(1, 5), b"later");
    early.keep(at(1), from(1, 5), b"last");
    assert_eq!(early.next(at(2), &from(1, 5)), Some(&b"later"[..]));
    assert_eq!(early.next(at(2) + LIFETIME, &from(1, 5)), None, "too late");
    assert_eq!(early.forget(Port::new(0, 0)), 1);
}
