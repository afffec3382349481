//! TCP through the translator: which segments pass, what they change, and how long it lasts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{ACK, FIN_ACK, RST, SYN, SYN_ACK, World, client, inside, remote, segment, tuple};
use core::time::Duration;
use nat::Sender;
use proptest::prelude::*;
use wire::{DropReason, Proto, Quote, Tcp, TcpFlags, Transport, Tuple, Uplink};

const CLIENT_ISS: u32 = 1_000;
const REMOTE_ISS: u32 = 0xffff_ff00;
const INVALID: Result<(), DropReason> = Err(DropReason::InvalidTcp);

/// A connection of client 1, seen from both ends.
struct Connection {
    world: World,
    inner: Tuple,
    outer: Tuple,
    /// What the client sends next, and what the remote does.
    ours: u32,
    theirs: u32,
}

impl Connection {
    /// After the client's SYN.
    fn syn_sent() -> Self {
        let mut world = World::new();
        let inner = tuple(Proto::Tcp, inside(1), 5000, remote(1), 443);
        let outer = world.send(client(1), inner, &segment(SYN, CLIENT_ISS, 0, 0)).unwrap().tuple;
        Self { world, inner, outer, ours: CLIENT_ISS + 1, theirs: REMOTE_ISS.wrapping_add(1) }
    }

    fn established() -> Self {
        let mut it = Self::syn_sent();
        assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
        assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
        it
    }

    fn send(&mut self, flags: TcpFlags, seq: u32, ack: u32, data: u32) -> Result<(), DropReason> {
        self.world.send(client(1), self.inner, &segment(flags, seq, ack, data)).map(|_| ())
    }

    fn receive(
        &mut self,
        flags: TcpFlags,
        seq: u32,
        ack: u32,
        data: u32,
    ) -> Result<(), DropReason> {
        self.world.receive(self.outer.reversed(), &segment(flags, seq, ack, data)).map(|_| ())
    }

    /// Data one way and its acknowledgement back.
    fn exchange(&mut self, data: u32) {
        assert_eq!(self.send(ACK, self.ours, self.theirs, data), Ok(()));
        self.ours = self.ours.wrapping_add(data);
        assert_eq!(self.receive(ACK, self.theirs, self.ours, data), Ok(()));
        self.theirs = self.theirs.wrapping_add(data);
        assert_eq!(self.send(ACK, self.ours, self.theirs, 0), Ok(()));
    }

    /// Both FINs and their acknowledgements.
    fn close(&mut self) {
        assert_eq!(self.send(FIN_ACK, self.ours, self.theirs, 0), Ok(()));
        self.ours += 1;
        assert_eq!(self.receive(FIN_ACK, self.theirs, self.ours, 0), Ok(()));
        self.theirs = self.theirs.wrapping_add(1);
        assert_eq!(self.send(ACK, self.ours, self.theirs, 0), Ok(()));
    }

    /// The flow lives for exactly `secs` more, if nothing more is sent.
    fn lives_for(&mut self, secs: u64) {
        self.world.wait(secs);
        assert!(self.world.flow_in(&self.outer.reversed()).is_some(), "gone before {secs} s");
        self.world.wait(1);
        assert!(self.world.flow_in(&self.outer.reversed()).is_none(), "lives beyond {secs} s");
        assert_eq!(self.world.nat.stats().flows, 0);
    }
}

#[test]
fn n16_established_connections_live_two_hours_and_four_minutes() {
    Connection::established().lives_for(7440);
}

#[test]
fn n16_half_open_closing_and_reset_connections_live_four_minutes() {
    Connection::syn_sent().lives_for(240);
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
    it.lives_for(240);
    let mut it = Connection::established();
    assert_eq!(it.send(FIN_ACK, it.ours, it.theirs, 0), Ok(()));
    assert_eq!(it.receive(FIN_ACK, it.theirs, it.ours, 0), Ok(()), "our FIN not acknowledged");
    it.lives_for(240);
    let mut it = Connection::established();
    assert_eq!(it.receive(RST, it.theirs, 0, 0), Ok(()));
    it.lives_for(240);
}

#[test]
fn a_half_closed_connection_lives_on() {
    let mut it = Connection::established();
    assert_eq!(it.send(FIN_ACK, it.ours, it.theirs, 0), Ok(()));
    it.ours += 1;
    it.world.wait(3600);
    assert_eq!(it.receive(ACK, it.theirs, it.ours, 5000), Ok(()));
    assert_eq!(it.send(ACK, it.ours, it.theirs.wrapping_add(5000), 0), Ok(()));
    it.lives_for(7440);
}

#[test]
fn n25_a_closed_or_refused_connection_gives_its_port_back_soon() {
    let mut it = Connection::established();
    it.exchange(100);
    it.close();
    assert_eq!(it.receive(FIN_ACK, it.theirs.wrapping_sub(1), it.ours, 0), Ok(()), "repeated");
    assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
    it.lives_for(10);
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(RST.with(ACK), 0, it.ours, 0), Ok(()));
    it.lives_for(10);
}

#[test]
fn n25_a_port_given_back_is_not_used_again_to_the_same_remote_at_once() {
    let mut world = World::sized(40 << 20);
    for port in 1024..65_500 {
        assert!(world.nat.reserve(Proto::Tcp, port));
    }
    let ports = |world: &mut World, to| {
        let sent: Vec<u16> =
            (0..9).map(|n| world.syn(1, 5000 + n, to).unwrap().tuple.sport).collect();
        world.nat.flush(world.now);
        sent
    };
    let before = ports(&mut world, remote(1));
    let after = ports(&mut world, remote(1));
    assert!(after.iter().all(|port| !before.contains(port)), "{before:?} then {after:?}");
    world.wait(30);
    let mut again = false;
    for _ in 0..20 {
        again |= ports(&mut world, remote(2)).iter().any(|port| before.contains(port));
    }
    assert!(again, "not for ever, and not to other remotes");
}

#[test]
fn n14_simultaneous_open_is_followed() {
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(SYN, REMOTE_ISS, 0, 0), Ok(()));
    assert_eq!(it.send(SYN_ACK, CLIENT_ISS, it.theirs, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
    assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
    it.exchange(1000);
    it.lives_for(7440);
}

#[test]
fn n14_lost_segments_of_the_opening_are_repeated() {
    let mut it = Connection::syn_sent();
    assert_eq!(it.send(SYN, CLIENT_ISS, 0, 0), Ok(()));
    for _ in 0..2 {
        assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
        assert_eq!(it.send(SYN, CLIENT_ISS, 0, 0), Ok(()));
    }
    assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
    it.exchange(1000);
}

#[test]
fn n15_a_syn_from_the_world_to_an_established_connection_is_dropped() {
    let mut it = Connection::established();
    for seq in [0, it.theirs, REMOTE_ISS] {
        assert_eq!(it.receive(SYN, seq, 0, 0), INVALID);
    }
    it.exchange(10);
}

#[test]
fn n17_a_reset_connection_lives_again_when_data_flows() {
    let mut it = Connection::established();
    assert_eq!(it.receive(RST, it.theirs, 0, 0), Ok(()));
    it.world.wait(200);
    it.exchange(100);
    it.lives_for(7440);
}

#[test]
fn n33_segments_outside_the_window_neither_pass_nor_count() {
    let mut it = Connection::established();
    it.exchange(1000);
    it.world.wait(7000);
    let (ours, theirs) = (it.ours, it.theirs);
    for (seq, ack, data) in [
        (theirs.wrapping_add(60_001), ours, 1),
        (theirs.wrapping_sub(70_000), ours, 1),
        (theirs, ours + 1, 0),
        (theirs, ours.wrapping_sub(70_000), 0),
        (theirs ^ 1 << 31, ours, 0),
    ] {
        assert_eq!(it.receive(ACK, seq, ack, data), INVALID, "{seq} {ack}");
        assert_eq!(it.receive(FIN_ACK, seq, ack, data), INVALID, "{seq} {ack}");
    }
    assert_eq!(it.send(ACK, ours.wrapping_add(60_001), theirs, 0), INVALID);
    assert_eq!(it.send(ACK, ours, theirs.wrapping_add(1), 0), INVALID);
    it.lives_for(440);
}

#[test]
fn n33_the_window_is_scaled_if_both_sides_offered_it() {
    for (offered, answered, scaled) in
        [(Some(7), Some(7), true), (Some(7), None, false), (None, Some(7), false)]
    {
        let mut it = Connection::syn_sent();
        it.world.nat.flush(it.world.now);
        let with = |transport, scale| match transport {
            Transport::Tcp(tcp) => Transport::Tcp(Tcp { window_scale: scale, ..tcp }),
            other => other,
        };
        let syn = with(segment(SYN, CLIENT_ISS, 0, 0), offered);
        it.outer = it.world.send(client(1), it.inner, &syn).unwrap().tuple;
        let syn_ack = with(segment(SYN_ACK, REMOTE_ISS, it.ours, 0), answered);
        assert!(it.world.receive(it.outer.reversed(), &syn_ack).is_ok());
        assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
        let far = it.theirs.wrapping_add(1_000_000);
        let got = it.receive(ACK, far, it.ours, 1000);
        assert_eq!(got.is_ok(), scaled, "{offered:?} {answered:?}");
        assert_eq!(it.receive(ACK, it.theirs.wrapping_add(8_000_000), it.ours, 1000), INVALID);
    }
}

#[test]
fn n33_sixty_five_thousand_blind_resets_change_nothing() {
    let mut it = Connection::established();
    it.exchange(1000);
    let step = 1 << 16;
    for n in 0..1u32 << 16 {
        let seq = n.wrapping_mul(step).wrapping_add(12_345);
        assert_ne!(seq, it.theirs);
        let _ = it.receive(RST, seq, 0, 0);
        let _ = it.receive(RST.with(ACK), seq, it.ours, 0);
        let _ = it.receive(SYN, seq, 0, 0);
    }
    it.exchange(1000);
    it.lives_for(7440);
}

#[test]
fn n33_a_reset_in_the_window_but_not_exact_only_passes() {
    let mut it = Connection::established();
    assert_eq!(it.receive(RST, it.theirs.wrapping_add(10), 0, 0), Ok(()), "to be challenged");
    assert_eq!(it.receive(RST, it.theirs.wrapping_add(70_000), 0, 0), INVALID);
    it.world.wait(300);
    // The challenge, and the exact answer.
    assert_eq!(it.send(ACK, it.ours, it.theirs, 0), Ok(()));
    assert_eq!(it.receive(RST, it.theirs, 0, 0), Ok(()));
    it.lives_for(240);
}

#[test]
fn n33_a_refusal_must_acknowledge_the_syn() {
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(RST, 0, 0, 0), INVALID);
    assert_eq!(it.receive(RST.with(ACK), 0, it.ours + 1, 0), INVALID);
    assert_eq!(it.receive(RST.with(ACK), 0, CLIENT_ISS, 0), INVALID);
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
}

#[test]
fn n33_a_rebooted_client_connects_with_the_same_ports() {
    // The remote still has the old connection: it challenges, the client resets it, and tries anew.
    let mut it = Connection::established();
    it.exchange(5000);
    let iss = 0x8000_0000;
    assert_eq!(it.send(SYN, iss, 0, 0), Ok(()));
    assert_eq!(it.receive(ACK, it.theirs, it.ours, 0), Ok(()), "the challenge");
    assert_eq!(it.send(RST, it.ours, 0, 0), Ok(()));
    assert_eq!(it.send(SYN, iss, 0, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, 77, iss + 1, 0), Ok(()));
    assert_eq!(it.send(ACK, iss + 1, 78, 0), Ok(()));
    (it.ours, it.theirs) = (iss + 1, 78);
    it.exchange(5000);
    it.lives_for(7440);
}

#[test]
fn n33_a_client_and_a_remote_that_both_rebooted_connect_at_once() {
    let mut it = Connection::established();
    it.exchange(5000);
    let iss = 0x8000_0000;
    assert_eq!(it.send(SYN, iss, 0, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, 77, iss, 0), INVALID, "proves nothing");
    assert_eq!(it.receive(SYN_ACK, 77, iss + 1, 0), Ok(()));
    assert_eq!(it.send(ACK, iss + 1, 78, 0), Ok(()));
    (it.ours, it.theirs) = (iss + 1, 78);
    it.exchange(5000);
}

#[test]
fn n33_a_syn_that_proves_nothing_leaves_the_connection_as_it_was() {
    let mut it = Connection::established();
    it.world.wait(7000);
    assert_eq!(it.send(SYN, 0x8000_0000, 0, 0), Ok(()));
    it.lives_for(440);
}

#[test]
fn a_remote_with_an_older_connection_is_reset_by_the_client() {
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(ACK, 5_000_000, 6_000_000, 0), Ok(()), "what it knows");
    assert_eq!(it.send(RST, 6_000_000, 0, 0), Ok(()));
    assert_eq!(it.send(SYN, CLIENT_ISS, 0, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
}

#[test]
fn a_closed_connection_makes_way_for_the_next_of_its_name() {
    let mut it = Connection::established();
    it.close();
    assert_eq!(it.receive(SYN, 5, 0, 0), INVALID, "but not from the other side");
    assert_eq!(it.send(SYN, 9_000_000, 0, 0), Ok(()));
    assert_eq!(it.receive(SYN_ACK, 44, 9_000_001, 0), Ok(()));
    assert_eq!(it.send(ACK, 9_000_001, 45, 0), Ok(()));
    it.lives_for(7440);
}

#[test]
fn n33_flags_that_no_tcp_sends_are_dropped() {
    let mut it = Connection::established();
    let fin = TcpFlags::FIN;
    for flags in [TcpFlags(0), fin, SYN.with(fin), SYN.with(RST), TcpFlags(0xff), fin.with(RST)] {
        assert_eq!(it.send(flags, it.ours, it.theirs, 0), INVALID, "{flags:?}");
        assert_eq!(it.receive(flags, it.theirs, it.ours, 0), INVALID, "{flags:?}");
    }
}

#[test]
fn n34_no_connection_is_picked_up_in_midstream() {
    let mut it = Connection::established();
    it.world.nat.flush(it.world.now);
    assert_eq!(it.send(ACK, it.ours, it.theirs, 100), INVALID);
    assert_eq!(it.receive(ACK, it.theirs, it.ours, 100), Err(DropReason::Unsolicited));
}

#[test]
fn n36_icmp_errors_are_believed_only_about_segments_in_flight() {
    let mut it = Connection::established();
    it.exchange(5000);
    assert_eq!(it.send(ACK, it.ours, it.theirs, 3000), Ok(()));
    let error = |it: &Connection, seq: u32| {
        let quote = Quote { tuple: it.outer, l3: 42, l4: 62, tcp_seq: Some(seq) };
        it.world
            .nat
            .icmp_error(it.world.now, Sender::World(Uplink::FIRST), remote(9), &quote)
            .map(|_| ())
    };
    for (offset, believed) in
        [(0, true), (1000, true), (3000, true), (3001, false), (u32::MAX, false), (1 << 31, false)]
    {
        let expected = if believed { Ok(()) } else { Err(DropReason::UnrelatedIcmp) };
        assert_eq!(error(&it, it.ours.wrapping_add(offset)), expected, "{offset}");
    }
    let syn = Connection::syn_sent();
    assert_eq!(error(&syn, CLIENT_ISS), Ok(()));
    assert_eq!(error(&syn, CLIENT_ISS - 1), Err(DropReason::UnrelatedIcmp));
}

#[test]
fn n36_an_mtu_is_believed_only_for_data_in_flight_and_above_its_floor() {
    let mut it = Connection::established();
    it.exchange(5000);
    assert_eq!(it.send(ACK, it.ours, it.theirs, 3000), Ok(()));
    let world = Sender::World(Uplink::FIRST);
    let says = |it: &Connection, offset: u32, mtu, len| {
        let tcp_seq = Some(it.ours.wrapping_add(offset));
        let quote = Quote { tuple: it.outer, l3: 42, l4: 62, tcp_seq };
        let believed = it.world.nat.check_too_big(it.world.now, world, &quote, mtu, len);
        assert!(matches!(believed, Ok(()) | Err(DropReason::UnrelatedIcmp)));
        believed.is_ok()
    };
    assert!(says(&it, 0, 1400, 1500) && says(&it, 2999, 1400, 1500) && says(&it, 0, 576, 577));
    assert!(!says(&it, 3000, 1400, 1500), "no data");
    assert!(!says(&it, u32::MAX, 1400, 1500), "acknowledged");
    assert!(!says(&it, 0, 575, 1500) && !says(&it, 0, 0, 1500), "below the floor");
    assert!(!says(&it, 0, 1500, 1500) && !says(&it, 0, 9000, 1500), "it passed");
    let six = tuple(Proto::Udp, common::v6(1), 5000, common::v6(2), 443);
    let quote = Quote { tuple: six, l3: 62, l4: 102, tcp_seq: None };
    let says = |mtu| it.world.nat.check_too_big(it.world.now, world, &quote, mtu, 1500);
    assert_eq!((says(1280).is_ok(), says(1279).is_ok()), (true, false));
}

#[test]
fn data_along_with_syn_need_not_be_accepted() {
    for accepted in [0, 40, 100] {
        let mut it = Connection::syn_sent();
        it.world.nat.flush(it.world.now);
        let syn = segment(SYN, CLIENT_ISS, 0, 100);
        it.outer = it.world.send(client(1), it.inner, &syn).unwrap().tuple;
        it.ours += accepted;
        assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours, 0), Ok(()));
        it.exchange(100 - accepted + 1);
        it.lives_for(7440);
    }
    let mut it = Connection::syn_sent();
    assert_eq!(it.receive(SYN_ACK, REMOTE_ISS, it.ours + 1, 0), Ok(()), "the client resets it");
    it.lives_for(240);
}

#[test]
fn large_frames_to_be_segmented_pass_as_one() {
    let mut it = Connection::established();
    for _ in 0..100 {
        it.exchange(59_000);
    }
}

/// Four clients open and close a thousand connections a second to one server, for ten minutes.
#[test]
fn turnover_of_a_thousand_connections_a_second_never_fails() {
    let mut world = World::sized(8 << 20);
    for second in 0..600u32 {
        for n in 0..250u32 {
            for slot in 1..=4 {
                // Ports as Linux hands them out: 28,232 of them, again and again.
                let port = u16::try_from(32_768 + (second * 250 + n) % 28_232).unwrap();
                let sent = world.syn(slot, port, remote(1)).expect("a new connection").tuple;
                let inner = tuple(Proto::Tcp, inside(slot), port, remote(1), 443);
                for (out, flags, seq, ack) in [
                    (false, SYN_ACK, 500, 101),
                    (true, ACK, 101, 501),
                    (true, FIN_ACK, 101, 501),
                    (false, FIN_ACK, 501, 102),
                    (true, ACK, 102, 502),
                ] {
                    let transport = segment(flags, seq, ack, 0);
                    let passed = if out {
                        world.send(client(slot), inner, &transport)
                    } else {
                        world.receive(sent.reversed(), &transport)
                    };
                    assert!(passed.is_ok(), "{second} s, {n}: {flags:?} {passed:?}");
                }
            }
        }
        world.now = world.now + Duration::from_secs(1);
        world.nat.tick(world.now, 2000);
    }
    let stats = world.nat.stats();
    assert_eq!((stats.opened, stats.flushes), (600_000, 0));
    assert_eq!(stats.lost_half_open + stats.lost_idle, 0, "the sweep keeps up");
}

/// Anything, but mostly near the numbers that count.
fn any_segment() -> impl Strategy<Value = (bool, u8, u32, u32, u32, u16, Option<u8>)> {
    let near = |base: u32| {
        prop_oneof![
            4 => (0..5u32).prop_map(move |n| base.wrapping_add(n).wrapping_sub(1)),
            1 => any::<u32>(),
        ]
    };
    let flags = prop_oneof![
        6 => prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x11, 0x04, 0x14]),
        1 => any::<u8>(),
    ];
    let data = prop_oneof![Just(0u32), 0..3u32, Just(65_000u32), Just(u32::MAX)];
    (
        any::<bool>(),
        flags,
        near(CLIENT_ISS),
        near(REMOTE_ISS),
        data,
        any::<u16>(),
        prop::option::of(any::<u8>()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever both sides send: nothing panics, a flow is whole or not there, and when its time is
    /// over nothing is left of it.
    #[test]
    fn no_segments_break_the_books(segments in prop::collection::vec(any_segment(), 1..60)) {
        let mut it = Connection::syn_sent();
        for (out, flags, ours, theirs, data, window, window_scale) in segments {
            let (seq, ack) = if out { (ours, theirs) } else { (theirs, ours) };
            let flags = TcpFlags(flags);
            let tcp = Tcp { sport: 0, dport: 0, flags, seq, ack, window, window_scale, data };
            let transport = Transport::Tcp(tcp);
            if out {
                if let Ok(passage) = it.world.send(client(1), it.inner, &transport) {
                    prop_assert_eq!(passage.tuple, it.outer);
                }
            } else if let Ok(passage) = it.world.receive(it.outer.reversed(), &transport) {
                prop_assert_eq!(passage.tuple, it.inner.reversed());
            }
            let ids = (it.world.flow_out(&it.inner), it.world.flow_in(&it.outer.reversed()));
            prop_assert!(ids.0.is_some() && ids.0 == ids.1);
        }
        it.world.wait(7441);
        let stats = it.world.nat.stats();
        prop_assert_eq!((stats.flows, stats.mappings, stats.ports_free.tcp), (0, 0, 64_512));
    }
}
