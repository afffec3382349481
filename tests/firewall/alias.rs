//! Clients that know themselves by a fake address (Qubes' `net.fake-ip`).

use crate::common::{Kind, Spec, packet};
use crate::fragments::{cut, join};
use crate::own::commit;
use crate::world::{
    OPEN, PERSONAL, PERSONAL_MAC, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, from_work,
    from_world, ip, personal, us, us6, web, web6, work, work6,
};
use std::net::{IpAddr, Ipv4Addr};
use tidegate::firewall::{Alias, DnsRedirect, Network, Site};
use wire::{
    Arp, ArpOperation, DropReason, IcmpErrorKind, Mac, Parsed, TcpFlags, Transport, Verdict, parse,
};

/// What the client believes its address to be, and ours.
fn fake() -> IpAddr {
    ip("192.168.7.20")
}

fn gateway() -> IpAddr {
    ip("192.168.7.1")
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(addr) = addr else { panic!() };
    addr
}

fn alias(addr: IpAddr, visible: IpAddr) -> Alias {
    Alias { addr: v4(addr), visible: v4(visible), gateway: v4(gateway()) }
}

fn network(aliases: &[Alias]) -> Network {
    let IpAddr::V6(addr6) = us6() else { panic!() };
    Network {
        site: Site { addr4: Some(v4(us())), addr6: Some(addr6), ..Site::default() },
        dns: None,
        resolvers: vec![],
        clients: vec![],
        aliases: aliases.to_vec(),
    }
}

/// `work` has a fake address; `personal` has not.
fn world(rules: &str) -> World {
    let mut world = World::new(config(rules));
    world.firewall.set_network(world.now, network(&[alias(work(), fake())]));
    world
}

fn tuple(frame: &[u8]) -> wire::Tuple {
    packet(frame).tuple().unwrap()
}

/// One of each kind that has a flow, from `src` to `web`.
fn openers(src: IpAddr) -> [Spec; 3] {
    [
        Spec::udp((src, 5000), (web(), 123)),
        Spec::tcp((src, 5001), (web(), 443), TcpFlags::SYN),
        Spec::ping(src, web(), 77),
    ]
}

fn answer(seen: &Spec, sent: &[u8]) -> Spec {
    let sent = tuple(sent);
    match seen.kind {
        Kind::Udp { .. } => Spec::udp((web(), sent.dport), (us(), sent.sport)),
        Kind::Tcp { .. } => {
            let flags = TcpFlags::SYN.with(TcpFlags::ACK);
            let (sport, dport) = (sent.dport, sent.sport);
            let kind = Kind::Tcp { sport, dport, flags, seq: 9, ack: 1001 };
            Spec::new(web(), us(), kind).payload(b"")
        }
        _ => Spec::pong(web(), us(), sent.sport),
    }
}

#[test]
fn it_sends_and_is_answered_under_its_fake_address_and_the_world_sees_ours() {
    let mut world = world(OPEN);
    for spec in openers(fake()) {
        // The second of each is like others that have passed.
        for _ in 0..3 {
            let sent = world.send(WORK, &from_work(spec.clone())).emitted(UPLINK);
            assert_eq!((tuple(&sent).src, tuple(&sent).dst), (us(), web()));
            let back = from_world(answer(&spec, &sent));
            let got = world.send(UPLINK, &back).emitted(WORK);
            let asked = tuple(&from_work(spec.clone()));
            assert_eq!(tuple(&got), asked.reversed());
            assert_eq!((packet(&got).eth_dst, packet(&got).ttl), (WORK_MAC, 63));
        }
    }
}

#[test]
fn it_may_send_from_no_address_but_the_fake_one() {
    let mut world = world(OPEN);
    for spec in openers(fake()) {
        world.send(WORK, &from_work(spec)).emitted(UPLINK);
    }
    for src in [work(), personal(), gateway(), us(), ip("192.168.7.21")] {
        for spec in openers(src) {
            world.send(WORK, &from_work(spec)).silent(DropReason::SpoofedSource);
        }
    }
    assert!(world.log().iter().all(|line| line.contains("spoofed-source")));
}

#[test]
fn nobody_else_may_use_the_fake_address() {
    let mut world = world(OPEN);
    let from_personal = |spec: Spec| spec.macs(Mac::BACKEND, PERSONAL_MAC).frame();
    for spec in openers(fake()) {
        world.send(PERSONAL, &from_personal(spec)).silent(DropReason::SpoofedSource);
    }
    for spec in openers(personal()) {
        world.send(PERSONAL, &from_personal(spec)).emitted(UPLINK);
    }
}

#[test]
fn two_clients_with_the_same_fake_address_have_nothing_to_do_with_each_other() {
    let mut world = World::new(config(OPEN));
    let both = [alias(work(), fake()), alias(personal(), fake())];
    world.firewall.set_network(world.now, network(&both));
    for spec in openers(fake()) {
        let mine = world.send(WORK, &from_work(spec.clone())).emitted(UPLINK);
        let theirs = spec.clone().macs(Mac::BACKEND, PERSONAL_MAC).frame();
        let theirs = world.send(PERSONAL, &theirs).emitted(UPLINK);
        assert_ne!(tuple(&mine), tuple(&theirs));
        for (sent, to) in [(&mine, WORK), (&theirs, PERSONAL)] {
            let got = world.send(UPLINK, &from_world(answer(&spec, sent))).emitted(to);
            assert_eq!(packet(&got).dst, fake());
        }
    }
}

/// A fake address may be the real one of a neighbour, whose flows have the same names then.
#[test]
fn a_fake_address_that_is_a_neighbours_real_one_opens_none_of_its_flows() {
    let mut world = World::new(config(OPEN));
    world.firewall.set_network(world.now, network(&[alias(work(), personal())]));
    for spec in openers(personal()) {
        let theirs = spec.clone().macs(Mac::BACKEND, PERSONAL_MAC).frame();
        let theirs = world.send(PERSONAL, &theirs).emitted(UPLINK);
        let mine = world.send(WORK, &from_work(spec.clone())).emitted(UPLINK);
        assert_ne!(tuple(&mine), tuple(&theirs));
        world.send(UPLINK, &from_world(answer(&spec, &theirs))).emitted(PERSONAL);
        let got = world.send(UPLINK, &from_world(answer(&spec, &mine))).emitted(WORK);
        assert_eq!(packet(&got).dst, personal());
    }
}

#[test]
fn arp_is_answered_for_the_fake_gateway_and_probes_of_the_fake_address_are_not() {
    let mut world = world(OPEN);
    let ask = |sender: IpAddr, target: IpAddr| {
        let mut frame = Vec::new();
        frame.extend(Mac::BROADCAST.0);
        frame.extend(WORK_MAC.0);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(WORK_MAC.0);
        frame.extend(v4(sender).octets());
        frame.extend([0; 6]);
        frame.extend(v4(target).octets());
        frame
    };
    let told = world.send(WORK, &ask(fake(), gateway())).answered(DropReason::Answered, WORK);
    let Ok(Parsed::Arp(told)) = parse(&crate::common::whole(&told)) else { panic!() };
    let expected = Arp {
        eth_dst: WORK_MAC,
        eth_src: Mac::BACKEND,
        operation: ArpOperation::Reply,
        sender_mac: Mac::BACKEND,
        sender: v4(gateway()),
        target: v4(fake()),
    };
    assert_eq!(told, expected);
    let probe = ask(ip("0.0.0.0"), fake());
    world.send(WORK, &probe).silent(DropReason::NotForUs);
    world.send(WORK, &ask(work(), gateway())).silent(DropReason::SpoofedSource);
}

#[test]
fn the_fake_gateway_answers_pings_and_the_real_addresses_are_not_there() {
    let mut world = world(OPEN);
    let ping = from_work(Spec::ping(fake(), gateway(), 7));
    let pong = world.send(WORK, &ping).answered(DropReason::Answered, WORK);
    assert_eq!(tuple(&pong), tuple(&ping).reversed());
    for real in [us(), work()] {
        for spec in [Spec::ping(fake(), real, 7), Spec::udp((fake(), 1), (real, 53))] {
            world.send(WORK, &from_work(spec)).silent(DropReason::ToFirewall);
        }
    }
    // Nor does it reach itself, or its neighbour.
    for other in [fake(), personal()] {
        let knock = from_work(Spec::udp((fake(), 1), (other, 53)));
        world.send(WORK, &knock).silent(DropReason::ClientToClient);
    }
}

#[test]
fn with_a_fake_address_alone_the_gateway_is_where_we_are() {
    let mut world = World::new(config(OPEN));
    let alias = Alias { gateway: v4(us()), ..alias(work(), fake()) };
    world.firewall.set_network(world.now, network(&[alias]));
    let ping = from_work(Spec::ping(fake(), us(), 7));
    let pong = world.send(WORK, &ping).answered(DropReason::Answered, WORK);
    assert_eq!(tuple(&pong), tuple(&ping).reversed());
    let sent = world.send(WORK, &from_work(openers(fake())[0].clone())).emitted(UPLINK);
    assert_eq!(tuple(&sent).src, us());
}

#[test]
fn refusals_come_from_the_fake_gateway_and_quote_the_packet_as_it_was_sent() {
    let mut world = world("reject admin-prohibited");
    for (target, reason) in [(web(), DropReason::RuleReject), (gateway(), DropReason::ToFirewall)] {
        let asked = from_work(Spec::udp((fake(), 5000), (target, 123)));
        let told = world.send(WORK, &asked).answered(reason, WORK);
        let got = packet(&told);
        assert_eq!((got.src, got.dst), (gateway(), fake()));
        let Transport::IcmpError(error) = got.transport else { panic!() };
        assert_eq!(error.kind, IcmpErrorKind::Unreachable { code: 13 });
        assert_eq!(told[14 + 28..], asked[14..], "quoted as it was sent");
    }
    let last = from_work(Spec::udp((fake(), 1), (web(), 33434)).ttl(1));
    let told = world.send(WORK, &last).answered(DropReason::TtlExceeded, WORK);
    assert_eq!((packet(&told).src, packet(&told).dst), (gateway(), fake()));
    assert_eq!(told[14 + 28..], last[14..]);
}

#[test]
fn a_reset_comes_from_whom_it_was_sent_to() {
    let mut world = world("reject tcp-reset tcp\ndrop");
    let syn = from_work(Spec::tcp((fake(), 5000), (web(), 443), TcpFlags::SYN));
    let reset = world.send(WORK, &syn).answered(DropReason::RuleReject, WORK);
    assert_eq!(tuple(&reset), tuple(&syn).reversed());
}

#[test]
fn errors_of_routers_quote_the_fake_address() {
    let mut world = world(OPEN);
    let router = ip("192.0.2.1");
    for spec in openers(fake()) {
        let asked = from_work(spec.clone());
        let sent = world.send(WORK, &asked).emitted(UPLINK);
        let error = from_world(Spec::error(router, us(), (11, 0), 0, &sent[14..]));
        let told = world.send(UPLINK, &error).emitted(WORK);
        // As if nobody had touched the packet but to take a hop.
        let quote = Spec::error(router, fake(), (11, 0), 0, &spec.ttl(63).packet()).ttl(63);
        assert_eq!(told, quote.macs(WORK_MAC, Mac::BACKEND).frame());
    }
}

#[test]
fn what_it_says_about_an_answer_reaches_who_gave_it() {
    let mut world = world(OPEN);
    let spec = Spec::udp((fake(), 5000), (web(), 123));
    let sent = world.send(WORK, &from_work(spec.clone())).emitted(UPLINK);
    let back = answer(&spec, &sent);
    let got = world.send(UPLINK, &from_world(back.clone())).emitted(WORK);
    let refusal = from_work(Spec::error(fake(), web(), (3, 3), 0, &got[14..]));
    let told = world.send(WORK, &refusal).emitted(UPLINK);
    let quote = Spec::error(us(), web(), (3, 3), 0, &back.ttl(63).packet()).ttl(63);
    assert_eq!(told, quote.macs(Mac::BACKEND, UPLINK_MAC).frame());
}

#[test]
fn fragments_pass_both_ways_in_any_order() {
    let payload: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut world = world(OPEN);
        let spec = Spec::udp((fake(), 5000), (web(), 123)).payload(&payload);
        let mut pass = |from, to, frame: &[u8]| {
            let pieces = cut(frame, 77, &[0, 1480, 2960]);
            let mut left = Vec::new();
            for n in order {
                let fate = world.send(from, &pieces[n]);
                if matches!(fate.verdict, Verdict::Emit(_)) {
                    left.push(fate.frame);
                }
                left.extend(fate.replies.into_iter().map(|(port, frame)| {
                    assert_eq!(port, to);
                    frame
                }));
            }
            assert_eq!(left.len(), 3, "{order:?}");
            let addresses = left[0][26..34].to_vec();
            assert!(left.iter().all(|piece| piece[26..34] == addresses), "{order:?}");
            let whole = join(&left);
            crate::common::assert_sound(&whole);
            assert_eq!(whole[42..], payload[..]);
            whole
        };
        let sent = pass(WORK, UPLINK, &from_work(spec.clone()));
        assert_eq!((tuple(&sent).src, tuple(&sent).dst), (us(), web()));
        let back = from_world(answer(&spec, &sent).payload(&payload));
        let got = pass(UPLINK, WORK, &back);
        assert_eq!(tuple(&got), tuple(&from_work(spec)).reversed());
    }
}

#[test]
fn what_is_too_long_for_its_link_is_cut_under_its_fake_address() {
    let mut world = world(OPEN);
    let link = tidegate::firewall::Link::Client { mac: WORK_MAC, addrs: vec![work()], mtu: 576 };
    world.firewall.port_up(world.now, WORK, link);
    let spec = Spec::udp((fake(), 5000), (web(), 123));
    let sent = world.send(WORK, &from_work(spec.clone())).emitted(UPLINK);
    let mut back = from_world(answer(&spec, &sent).payload(&[0x5a; 1200]));
    // May be cut.
    back[20] = 0;
    back[24..26].fill(0);
    let sum = !crate::common::plain_sum(&back[14..34]);
    back[24..26].copy_from_slice(&sum.to_be_bytes());
    let fate = world.send(UPLINK, &back);
    assert_eq!(fate.verdict, Verdict::Kept);
    let pieces: Vec<_> = fate.replies.into_iter().map(|(_, frame)| frame).collect();
    let whole = join(&pieces);
    crate::common::assert_sound(&whole);
    assert_eq!(tuple(&whole), tuple(&from_work(spec)).reversed());
}

#[test]
fn its_rules_are_those_of_its_real_address() {
    let mut world = world("qubes");
    let ask = |world: &mut World| world.send(WORK, &from_work(openers(fake())[0].clone()));
    commit(&mut world, fake(), &["action=accept"]);
    ask(&mut world).answered(DropReason::RuleReject, WORK);
    commit(&mut world, work(), &["action=accept proto=udp dstports=123-123"]);
    ask(&mut world).emitted(UPLINK);
    let said: Vec<_> = world.log();
    assert!(said.iter().any(|line| line.contains("10.137.0.10")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("192.168.7.20")), "{said:?}");
    commit(&mut world, work(), &["action=drop"]);
    ask(&mut world).answered(DropReason::RuleReject, WORK);
}

#[test]
fn its_queries_reach_the_real_resolver() {
    let mut world = World::new(config(OPEN));
    let dns = Some(DnsRedirect { virtuals: vec![ip("10.139.1.1")], reals: vec![ip("9.9.9.9")] });
    let network = Network { dns, ..network(&[alias(work(), fake())]) };
    world.firewall.set_network(world.now, network);
    let question = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let query = Spec::udp((fake(), 5000), (ip("10.139.1.1"), 53)).payload(&question);
    let query = from_work(query);
    let sent = world.send(WORK, &query).emitted(UPLINK);
    assert_eq!((tuple(&sent).src, tuple(&sent).dst), (us(), ip("9.9.9.9")));
    let mut payload = sent[42..].to_vec();
    payload[2] = 0x81;
    let back = Spec::udp((ip("9.9.9.9"), 53), (us(), tuple(&sent).sport)).payload(&payload);
    let got = world.send(UPLINK, &from_world(back)).emitted(WORK);
    assert_eq!(tuple(&got), tuple(&query).reversed());
    assert_eq!(got[42..44], query[42..44]);
}

#[test]
fn it_has_no_ipv6() {
    let mut world = World::new(config(OPEN));
    let ask = from_work(Spec::udp((work6(), 5000), (web6(), 123)));
    let sent = world.send(WORK, &ask).emitted(UPLINK);
    world.firewall.set_network(world.now, network(&[alias(work(), fake())]));
    world.send(WORK, &ask).silent(DropReason::SpoofedSource);
    let back = Spec::udp((web6(), 123), (us6(), tuple(&sent).sport));
    world.send(UPLINK, &from_world(back)).silent(DropReason::NoRoute);
    world.firewall.set_network(world.now, network(&[]));
    world.send(WORK, &ask).emitted(UPLINK);
}

#[test]
fn what_is_changed_while_it_runs_counts_from_the_next_packet_on() {
    let mut world = World::new(config(OPEN));
    let [real, faked] = [work(), fake()].map(|src| from_work(openers(src)[0].clone()));
    let (old, new) = (network(&[]), network(&[alias(work(), fake())]));
    for _ in 0..3 {
        world.send(WORK, &faked).silent(DropReason::SpoofedSource);
        world.send(WORK, &real).emitted(UPLINK);
        world.firewall.set_network(world.now, new.clone());
        world.send(WORK, &real).silent(DropReason::SpoofedSource);
        world.send(WORK, &faked).emitted(UPLINK);
        world.firewall.set_network(world.now, old.clone());
    }
}

/// Sums that nobody has made yet, and frames of which only the head is looked at.
#[test]
fn large_frames_with_blank_sums_pass() {
    use wire::{Csum, Gso, GsoKind, Offload};
    let offload =
        Offload { csum: Csum::Blank, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448 }) };
    let mut world = world(OPEN);
    let open = Spec::tcp((fake(), 5001), (web(), 443), TcpFlags::SYN);
    let sent = world.send(WORK, &from_work(open.clone())).emitted(UPLINK);
    world.send(UPLINK, &from_world(answer(&open, &sent))).emitted(WORK);
    let data = |seq, len| {
        let kind = Kind::Tcp { sport: 5001, dport: 443, flags: TcpFlags::ACK, seq, ack: 10 };
        let mut frame = from_work(Spec::new(fake(), web(), kind).payload(&vec![0x5a; len]));
        let len = u32::try_from(frame.len() - 34).unwrap();
        let pseudo = crate::common::plain_pseudo(fake(), web(), 6, len);
        frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
        frame
    };
    let large = data(1001, 2000);
    let sent = world.send_with(WORK, &large, offload).emitted(UPLINK);
    let len = u32::try_from(sent.len() - 34).unwrap();
    assert_eq!(sent[50..52], crate::common::plain_pseudo(us(), web(), 6, len).to_be_bytes());
    assert_eq!(sent[54..], large[54..]);
}

/// Frames of all kinds, some of them broken, both ways: on its link the client sees itself and its gateway
/// by no other name, and on the uplink there is only ours.
mod whatever {
    use super::*;
    use proptest::prelude::*;

    /// One frame: whence, of what kind, between which addresses, how far it may go, what is broken.
    type Act = (bool, usize, usize, usize, bool, Option<(usize, u8)>);

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let broken = prop::option::weighted(0.2, (12..90usize, 1..=255u8));
        let act =
            (any::<bool>(), 0..6usize, 0..4usize, 0..6usize, prop::bool::weighted(0.1), broken);
        prop::collection::vec(act, 1..60)
    }

    /// A frame of this act; the last that left is what it answers or quotes.
    fn frame((out, kind, src, dst, dying, broken): Act, last: &[u8]) -> Vec<u8> {
        let inside = [fake(), fake(), work(), personal()][src];
        let outside = [web(), gateway(), us(), web(), work(), fake()][dst];
        let (src, dst) = if out { (inside, outside) } else { ([web(), fake()][src / 3], us()) };
        let asked = packet(last).tuple();
        let (near, far) = asked.map_or((5000, 123), |tuple| (tuple.sport, tuple.dport));
        let ports = if out { (5000, 123) } else { (far, near) };
        let spec = match kind {
            0 | 1 => Spec::udp((src, ports.0), (dst, ports.1)),
            2 => Spec::tcp((src, ports.0), (dst, ports.1), TcpFlags::SYN),
            3 => Spec::ping(src, dst, 77),
            4 => Spec::pong(src, dst, near),
            _ => Spec::error(src, dst, (3, 3), 0, &last[14..]),
        };
        let spec = if dying { spec.ttl(1) } else { spec };
        let mut bytes = if out { from_work(spec) } else { from_world(spec) };
        if let Some((at, bits)) = broken
            && let Some(byte) = bytes.get_mut(at)
        {
            *byte ^= bits;
        }
        bytes
    }

    /// Both addresses of an IPv4 packet, and those it quotes.
    fn addresses(frame: &[u8]) -> Vec<IpAddr> {
        let Ok(Parsed::Ip(packet)) = parse(&crate::common::whole(frame)) else { return vec![] };
        let quoted = match packet.transport {
            Transport::IcmpError(error) => vec![error.quote.tuple.src, error.quote.tuple.dst],
            _ => vec![],
        };
        [vec![packet.src, packet.dst], quoted].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn is_sent_no_name_is_seen_where_it_does_not_belong(acts in acts()) {
            let mut world = world("accept udp\nreject admin-prohibited tcp\naccept");
            world.sound = false;
            let mut last = from_work(Spec::udp((fake(), 5000), (web(), 123)));
            for act in acts {
                let bytes = frame(act, &last);
                let fate = world.send(if act.0 { WORK } else { UPLINK }, &bytes);
                let mut left = fate.replies;
                if let Verdict::Emit(emit) = fate.verdict {
                    left.push((emit.to, fate.frame));
                }
                for (to, frame) in left {
                    let seen = addresses(&frame);
                    let hidden = if to == WORK { [work(), us()] } else { [work(), fake()] };
                    // A client may say of the world what it likes, in what it quotes.
                    let own = if to == WORK { &seen[..] } else { &seen[..seen.len().min(2)] };
                    prop_assert!(!own.iter().any(|addr| hidden.contains(addr)), "{to:?}: {seen:?}");
                    if to == UPLINK && !seen.is_empty() {
                        last = frame;
                    }
                }
            }
        }
    }
}
