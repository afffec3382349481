//! Packets in fragments (RFC 4787 REQ-14), in and out of order.

use crate::common::{Kind, Spec, packet, plain_sum};
use crate::world::{
    OPEN, PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config, from_work, from_world, personal, us,
    us6, web, web6, work, work6,
};
use std::time::Duration;
use wire::{DropReason, Mac, TcpFlags, Verdict};

/// Cuts an IPv4 frame at these offsets of its payload.
pub fn cut(frame: &[u8], id: u16, at: &[usize]) -> Vec<Vec<u8>> {
    let data = &frame[34..];
    let ends = at.iter().copied().chain([data.len()]).skip(1);
    let piece = |(start, end): (usize, usize)| {
        let mut piece = frame[..34].to_vec();
        piece.extend(&data[start..end]);
        let more = if end == data.len() { 0 } else { 0x2000 };
        let field = u16::try_from(start / 8).unwrap() | more;
        piece[16..18].copy_from_slice(&u16::try_from(20 + end - start).unwrap().to_be_bytes());
        piece[18..20].copy_from_slice(&id.to_be_bytes());
        piece[20..22].copy_from_slice(&field.to_be_bytes());
        fix(&mut piece);
        piece
    };
    at.iter().copied().zip(ends).map(piece).collect()
}

fn fix(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = !plain_sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The same for IPv6.
fn cut6(frame: &[u8], id: u32, at: &[usize]) -> Vec<Vec<u8>> {
    let data = &frame[54..];
    let ends = at.iter().copied().chain([data.len()]).skip(1);
    let piece = |(start, end): (usize, usize)| {
        let mut piece = frame[..54].to_vec();
        piece[18..20].copy_from_slice(&u16::try_from(8 + end - start).unwrap().to_be_bytes());
        let next = std::mem::replace(&mut piece[20], 44);
        let field = u16::try_from(start).unwrap() | u16::from(end != data.len());
        piece.extend([next, 0]);
        piece.extend(field.to_be_bytes());
        piece.extend(id.to_be_bytes());
        piece.extend(&data[start..end]);
        piece
    };
    at.iter().copied().zip(ends).map(piece).collect()
}

/// Puts the payloads of IPv4 fragments together, in any order, and gives a whole frame.
pub fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut sorted = pieces.to_vec();
    sorted.sort_by_key(|p| u16::from_be_bytes([p[20], p[21]]) & 0x1fff);
    whole.extend(&sorted[0][..34]);
    for piece in &sorted {
        let at = usize::from(u16::from_be_bytes([piece[20], piece[21]]) & 0x1fff) * 8;
        assert_eq!(whole.len() - 34, at);
        whole.extend(&piece[34..]);
    }
    let len = u16::try_from(whole.len() - 14).unwrap();
    whole[16..18].copy_from_slice(&len.to_be_bytes());
    whole[20..22].fill(0);
    fix(&mut whole);
    whole
}

fn payload() -> Vec<u8> {
    (0..3000u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect()
}

fn datagram() -> Vec<u8> {
    from_work(Spec::udp((work(), 5000), (web(), 123)).payload(&payload()))
}

/// Sends fragments in this order and gives what left, with the kept ones where they were released.
fn sent(world: &mut World, pieces: &[Vec<u8>], order: &[usize]) -> Vec<Vec<u8>> {
    let mut left = Vec::new();
    for n in order {
        let fate = world.send(WORK, &pieces[*n]);
        match fate.verdict {
            Verdict::Kept => assert_eq!(fate.replies, []),
            Verdict::Emit(_) => {
                left.push(fate.frame);
                left.extend(fate.replies.into_iter().map(|(to, frame)| {
                    assert_eq!(to, UPLINK);
                    frame
                }));
            }
            other => panic!("{other:?}"),
        }
    }
    left
}

#[test]
fn n13_fragments_leave_under_one_name_in_whatever_order_they_come() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [2, 0, 1], [1, 2, 0]] {
        let mut world = World::new(config(OPEN));
        let pieces = cut(&datagram(), 77, &[0, 1480, 2960]);
        let left = sent(&mut world, &pieces, &order);
        assert_eq!(left.len(), 3, "{order:?}");
        let whole = join(&left);
        crate::common::assert_sound(&whole);
        let tuple = packet(&whole).tuple().unwrap();
        assert_eq!((tuple.src, tuple.dst, tuple.dport), (us(), web(), 123));
        assert_eq!(whole[42..], payload());
        let counters = world.firewall.counters();
        let kept = order.iter().take_while(|n| **n != 0).count() as u64;
        assert_eq!((counters.emitted, counters.kept), (3, kept), "{order:?}");
    }
}

#[test]
fn n13_fragments_of_an_answer_find_the_client_in_whatever_order_they_come() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut world = World::new(config(OPEN));
        let ask = world.send(WORK, &from_work(Spec::udp((work(), 5000), (web(), 123))));
        let port = packet(&ask.emitted(UPLINK)).tuple().unwrap().sport;
        let answer = from_world(Spec::udp((web(), 123), (us(), port)).payload(&payload()));
        let pieces = cut(&answer, 9, &[0, 1480, 2960]);
        let mut got = Vec::new();
        for n in order {
            let fate = world.send(UPLINK, &pieces[n]);
            if let Verdict::Emit(_) = fate.verdict {
                got.push(fate.frame);
            }
            got.extend(fate.replies.into_iter().map(|(_, frame)| frame));
        }
        let whole = join(&got);
        crate::common::assert_sound(&whole);
        assert_eq!((packet(&whole).dst, &whole[42..]), (work(), &payload()[..]), "{order:?}");
    }
}

#[test]
fn n13_n27_fragments_of_ipv6_too() {
    let mut world = World::new(config(OPEN));
    let frame = from_work(Spec::ping(work6(), web6(), 4711).payload(&payload()));
    let pieces = cut6(&frame, 0x0102_0304, &[0, 1400, 2800]);
    for piece in &pieces {
        let out = world.send_unsound(WORK, piece).emitted(UPLINK);
        assert_eq!((packet(&out).src, packet(&out).dst), (us6(), web6()));
        assert_eq!(
            out[62..],
            if piece == &pieces[0] { out[62..].to_vec() } else { piece[62..].to_vec() }
        );
    }
}

#[test]
fn n13_a_datagram_that_no_rule_allows_leaves_in_no_part() {
    let mut world = World::new(config("drop"));
    let pieces = cut(&datagram(), 77, &[0, 1480, 2960]);
    assert_eq!(world.send(WORK, &pieces[1]).verdict, Verdict::Kept);
    world.send(WORK, &pieces[0]).silent(DropReason::RuleDrop);
    assert_eq!(world.send(WORK, &pieces[2]).verdict, Verdict::Kept);
    assert_eq!(world.firewall.counters().emitted, 0);
}

#[test]
fn n13_overlaps_are_refused_and_spoil_their_datagram() {
    let mut world = World::new(config(OPEN));
    let frame = datagram();
    let pieces = cut(&frame, 77, &[0, 1480, 2960]);
    world.send(WORK, &pieces[0]).emitted(UPLINK);
    world.send(WORK, &cut(&frame, 77, &[0, 1472, 2960])[1]).silent(DropReason::Fragment);
    world.send(WORK, &pieces[2]).silent(DropReason::Fragment);
    // Another first one would give what follows another way.
    let other = from_work(Spec::udp((work(), 5001), (web(), 53)).payload(&payload()));
    let second = cut(&other, 78, &[0, 1480, 2960]);
    world.send(WORK, &second[0]).emitted(UPLINK);
    world.send(WORK, &second[0]).silent(DropReason::Fragment);
    world.send(WORK, &second[1]).silent(DropReason::Fragment);
}

#[test]
fn n13_tiny_first_fragments_and_those_over_a_tcp_header_are_refused() {
    let mut world = World::new(config(OPEN));
    let kind = Kind::Tcp { sport: 40000, dport: 443, flags: TcpFlags::ACK, seq: 1, ack: 1 };
    let tcp = from_work(Spec::new(work(), web(), kind).payload(&payload()));
    world.send(WORK, &cut(&tcp, 1, &[0, 8])[0]).silent(DropReason::Fragment);
    world.send(WORK, &cut(&tcp, 2, &[0, 16])[0]).silent(DropReason::Fragment);
    world.send(WORK, &cut(&tcp, 3, &[0, 8, 1000])[1]).silent(DropReason::Fragment);
    let empty = cut(&datagram(), 4, &[0, 0, 1480]);
    world.send(WORK, &empty[0]).silent(DropReason::Fragment);
    // A segment that changes a connection has to show its sum.
    let syn =
        from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::SYN).payload(&payload()));
    world.send(WORK, &cut(&syn, 5, &[0, 1480])[0]).silent(DropReason::Fragment);
    // And so has an ICMP error.
    let error = from_work(Spec::error(work(), web(), (3, 4), 1000, &payload()));
    world.send(WORK, &cut(&error, 6, &[0, 1480])[0]).silent(DropReason::Fragment);
}

#[test]
fn n13_n33_a_segment_in_fragments_counts_with_all_its_data() {
    let mut world = World::new(config(OPEN));
    let tcp = |flags, seq, ack| Kind::Tcp { sport: 40000, dport: 443, flags, seq, ack };
    let out = |world: &mut World, flags, seq, ack| {
        let frame = from_work(Spec::new(work(), web(), tcp(flags, seq, ack)).payload(b""));
        packet(&world.send(WORK, &frame).emitted(UPLINK)).tuple().unwrap().sport
    };
    let port = out(&mut world, TcpFlags::SYN, 1000, 0);
    let back = |flags, seq, ack| {
        let kind = Kind::Tcp { sport: 443, dport: port, flags, seq, ack };
        from_world(Spec::new(web(), us(), kind).payload(b""))
    };
    world.send(UPLINK, &back(TcpFlags::SYN.with(TcpFlags::ACK), 5000, 1001)).emitted(WORK);
    out(&mut world, TcpFlags::ACK, 1001, 5001);
    let data =
        from_work(Spec::new(work(), web(), tcp(TcpFlags::ACK, 1001, 5001)).payload(&payload()));
    let pieces = cut(&data, 7, &[0, 1480, 2960]);
    world.send(WORK, &pieces[0]).emitted(UPLINK);
    world.send(UPLINK, &back(TcpFlags::ACK, 5001, 1001 + 3000)).silent(DropReason::InvalidTcp);
    world.send(WORK, &pieces[1]).emitted(UPLINK);
    world.send(WORK, &pieces[2]).emitted(UPLINK);
    world.send(UPLINK, &back(TcpFlags::ACK, 5001, 1001 + 3000)).emitted(WORK);
    world.send(UPLINK, &back(TcpFlags::ACK, 5001, 1001 + 3001)).silent(DropReason::InvalidTcp);
}

#[test]
fn n13_fragments_of_the_world_to_nobody_are_not_kept() {
    let mut world = World::new(config(OPEN));
    let stray = from_world(Spec::udp((web(), 53), (work(), 5000)).payload(&payload()));
    world.send(UPLINK, &cut(&stray, 1, &[0, 1480])[1]).silent(DropReason::Unsolicited);
    let unasked = from_world(Spec::udp((web(), 53), (us(), 5000)).payload(&payload()));
    let pieces = cut(&unasked, 1, &[0, 1480]);
    assert_eq!(world.send(UPLINK, &pieces[1]).verdict, Verdict::Kept);
    world.send(UPLINK, &pieces[0]).silent(DropReason::Unsolicited);
}

#[test]
fn n13_packets_with_a_source_route_are_dropped() {
    let mut world = World::new(config(OPEN));
    for option in [131, 137, 7, 68] {
        let plain = from_work(Spec::udp((work(), 1), (web(), 2)));
        let mut routed = plain[..34].to_vec();
        routed[14] = 0x46;
        routed[17] += 4;
        routed.extend([option, 3, 4, 0]);
        routed.extend(&plain[34..]);
        routed[24..26].fill(0);
        let sum = !plain_sum(&routed[14..38]);
        routed[24..26].copy_from_slice(&sum.to_be_bytes());
        world.send(WORK, &routed).silent(DropReason::SourceRoute);
    }
}

/// What one client does to the stores of fragments costs another nothing: its datagrams pass whole,
/// in order and out of it, and those that wait for their first are not lost.
#[test]
fn n13_n32_a_client_that_floods_with_fragments_costs_nobody_else_one() {
    let mut world = World::new(config(OPEN));
    let pieces = cut(&datagram(), 9, &[0, 1480, 2960]);
    let mut ids = 0..u16::MAX;
    let mut flood = |world: &mut World| {
        for id in ids.by_ref().take(30) {
            let spec = Spec::udp((personal(), id), (web(), 4000 + id % 7)).payload(&payload());
            let frame = spec.macs(Mac::BACKEND, PERSONAL_MAC).frame();
            let [first, middle, last] = &cut(&frame, id, &[0, 1480, 2960])[..] else { panic!() };
            // Begun and never ended, never begun, begun twice, and with a hole.
            let some = match id % 4 {
                0 => vec![first],
                1 => vec![last, middle],
                2 => vec![first, first, middle],
                _ => vec![first, last],
            };
            for piece in some {
                world.send(PERSONAL, piece);
            }
        }
    };
    flood(&mut world);
    for round in 0..20u16 {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut pieces = pieces.clone();
            for piece in &mut pieces {
                piece[18..20].copy_from_slice(&(1000 + round * 3).to_be_bytes());
                piece[19] ^= order[0] as u8 + 1;
                fix(piece);
            }
            let mut left = Vec::new();
            for n in order {
                left.extend(sent(&mut world, &pieces, &[n]));
                flood(&mut world);
            }
            assert_eq!(join(&left)[42..], payload(), "round {round}, {order:?}");
        }
        world.now = world.now + Duration::from_millis(500);
    }
    let refused = world.firewall.counters().drops[DropReason::Fragment];
    assert!(refused > 500, "only {refused} of the flood were refused");
}
