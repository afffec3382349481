//! Frames nobody should send.

use crate::common::{Spec, packet, v4, v6};
use crate::world::{
    OPEN, PERSONAL, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, from_work, from_world, ip,
    personal, us, web, web6, work, work6,
};
use proptest::prelude::*;
use tidegate::firewall::{Budget, ConfigError, Firewall};
use wire::{
    BATCH, Csum, DropReason, Frame, HEAD_MAX, IcmpErrorKind, Mac, Offload, Outbox, Port, REPLY_MAX,
    TcpFlags, Transport, Verdict,
};

#[test]
fn a_client_speaks_only_for_its_own_addresses() {
    let mut world = World::new(config(OPEN));
    for src in [personal(), us(), web(), v4(0, 0, 0, 0)] {
        let frame = from_work(Spec::udp((src, 1), (web(), 2)));
        world.send(WORK, &frame).silent(DropReason::SpoofedSource);
    }
    assert!(world.log()[0].contains("10.137.0.11 -> 93.184.216.34, spoofed-source"));
}

#[test]
fn a_client_without_ipv6_sends_none() {
    let mut world = World::new(config(OPEN));
    for src in [work6(), v6("fd09::2"), v6("fe80::1")] {
        let frame = from_work(Spec::udp((src, 1), (web6(), 2)));
        world.send(PERSONAL, &frame).silent(DropReason::SpoofedSource);
    }
}

#[test]
fn the_uplink_does_not_speak_for_clients_or_for_us() {
    let mut world = World::new(config(OPEN));
    for src in [work(), personal(), us()] {
        let frame = from_world(Spec::udp((src, 53), (us(), 5000)));
        world.send(UPLINK, &frame).silent(DropReason::SpoofedSource);
    }
}

#[test]
fn addresses_that_nobody_has_lead_nowhere() {
    let mut world = World::new(config(OPEN));
    for dst in [v4(127, 0, 0, 1), v4(224, 0, 0, 251), v4(255, 255, 255, 255), v4(169, 254, 1, 1)] {
        let frame = from_work(Spec::udp((work(), 1), (dst, 2)));
        world.send(WORK, &frame).silent(DropReason::MartianAddress);
    }
    for dst in [v6("::1"), v6("ff02::fb"), v6("fe80::1"), v6("::ffff:10.0.0.1")] {
        let frame = from_work(Spec::udp((work6(), 1), (dst, 2)));
        world.send(WORK, &frame).silent(DropReason::MartianAddress);
    }
    let frame = from_world(Spec::udp((v4(127, 0, 0, 1), 1), (us(), 2)));
    world.send(UPLINK, &frame).silent(DropReason::MartianAddress);
}

#[test]
fn frames_to_other_macs_are_not_for_us() {
    let mut world = World::new(config(OPEN));
    let spec = Spec::udp((work(), 1), (web(), 2));
    world.send(WORK, &spec.clone().macs(UPLINK_MAC, WORK_MAC).frame()).silent(DropReason::NotForUs);
    world.send(WORK, &spec.macs(Mac::BROADCAST, WORK_MAC).frame()).silent(DropReason::NotForUs);
    let frame = Spec::udp((web(), 1), (us(), 2)).macs(WORK_MAC, Mac::BACKEND).frame();
    world.send(UPLINK, &frame).silent(DropReason::NotForUs);
}

#[test]
fn a_port_that_is_not_up_owns_nothing() {
    let mut world = World::new(config(OPEN));
    let frame = from_work(Spec::udp((work(), 1), (web(), 2)));
    for port in [Port::new(1, 1), Port::new(77, 0), Port::new(u16::MAX, 0)] {
        world.send(port, &frame).silent(DropReason::SpoofedSource);
    }
    // News of one that had the slot before, or will have it later, is not about this one.
    world.firewall.port_down(world.now, Port::new(1, 1));
    world.send(WORK, &frame).emitted(UPLINK);
}

#[test]
fn who_is_refused_for_want_of_room_is_told_so_and_nobody_else_notices() {
    let Err(ConfigError::Budget { least }) =
        Firewall::new(config(OPEN), Budget { bytes: 0 }, [7; 32])
    else {
        panic!("a budget of nothing")
    };
    let mut world = World::isolated_with(config(OPEN), Budget { bytes: least });
    world.uplink_up(1500);
    let other = from_work(Spec::udp((personal(), 1), (web(), 2)));
    world.send(PERSONAL, &other).emitted(UPLINK);
    // Flows that have been answered are not given up for others.
    let refused = (1..=u16::MAX).find_map(|sport| {
        let fate = world.send(WORK, &from_work(Spec::udp((work(), sport), (web(), 2))));
        if let Verdict::Drop(_) = fate.verdict {
            return Some(fate);
        }
        let port = packet(&fate.emitted(UPLINK)).tuple().unwrap().sport;
        world.send(UPLINK, &from_world(Spec::udp((web(), 2), (us(), port)))).emitted(WORK);
        None
    });
    let error = refused.unwrap().answered(DropReason::QuotaExceeded, WORK);
    let Transport::IcmpError(error) = packet(&error).transport else { panic!() };
    assert_eq!(error.kind, IcmpErrorKind::Unreachable { code: 13 });
    world.send(PERSONAL, &other).emitted(UPLINK);
    let new = from_work(Spec::udp((personal(), 2), (web(), 2)));
    world.send(PERSONAL, &new).emitted(UPLINK);
}

fn anything() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let addrs = [work(), work6(), personal(), us(), web(), web6(), ip("fd09::1"), ip("10.139.1.1")];
    let spec = (0..8usize, 0..8usize, any::<[u16; 2]>(), any::<u8>(), any::<u8>(), 0..400usize);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (0..4u8, spec, damage, any::<bool>()).prop_map(
        move |(port, (a, b, [sport, dport], flags, ttl, len), damage, back)| {
            let (src, dst) = (addrs[a], addrs[b]);
            let dst = if dst.is_ipv6() == src.is_ipv6() { dst } else { src };
            let spec = match flags % 5 {
                0 => Spec::udp((src, sport % 8), (dst, 53)),
                1 => Spec::ping(src, dst, sport % 8),
                2 => Spec::error(src, dst, (3, 4), 1000, &Spec::udp((dst, 53), (src, 1)).packet()),
                3 => Spec::tcp((src, sport % 8), (dst, dport), TcpFlags::SYN),
                _ => Spec::tcp((src, sport % 8), (dst, dport), TcpFlags(flags))
                    .payload(&vec![1; len]),
            };
            let to = if port == 0 { UPLINK_MAC } else { Mac::BACKEND };
            let mut bytes =
                spec.ttl(ttl).macs(to, if back { Mac::BACKEND } else { WORK_MAC }).frame();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            (port, bytes)
        },
    )
}

proptest! {
    #[test]
    fn no_batch_makes_it_panic_or_send_to_where_it_must_not(
        frames in prop::collection::vec(anything(), 1..=BATCH),
        blank in any::<bool>(),
    ) {
        let mut world = World::new(config(OPEN));
        let (mut heads, mut places) = (vec![[0; HEAD_MAX]; BATCH], vec![[0; REPLY_MAX]; BATCH]);
        let mut out = Outbox::new(&mut heads, &mut places);
        let csum = if blank { Csum::Blank } else { Csum::Unknown };
        let ports = [UPLINK, WORK, PERSONAL, Port::new(9, 9)];
        let batch: Vec<Frame<'_>> = frames
            .iter()
            .map(|(port, bytes)| Frame {
                from: ports[usize::from(*port)],
                head: &bytes[..bytes.len().min(HEAD_MAX)],
                len: bytes.len() as u32,
                offload: Offload { csum, gso: None },
            })
            .collect();
        world.firewall.batch(world.now, &batch, &mut out);
        prop_assert_eq!(out.verdicts().len(), batch.len());
        for (frame, verdict) in batch.iter().zip(out.verdicts()) {
            if let Verdict::Emit(emit) = verdict {
                prop_assert_ne!(frame.from == UPLINK, emit.to == UPLINK);
                prop_assert!(u32::from(emit.head) <= emit.end && emit.skip <= emit.end);
                prop_assert!(emit.end <= frame.len);
            }
        }
    }
}
