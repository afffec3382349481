//! Names in rules: asked for ahead, for as long as they are needed, and never waited for.

use crate::common::Spec;
use crate::own::commit;
use crate::resolver::{
    A, AAAA, Ask, HOST, Message, Record, address, evil, good, resolver, second, spelled, told,
    world, world_with,
};
use crate::world::{
    PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, from_work, ip, personal, us, web6, work, work6,
};
use std::net::IpAddr;
use std::time::Duration;
use tidegate::firewall::Link;
use wire::{DropReason, Verdict};

/// The right answer to `ask`, with these addresses.
pub fn answer(ask: &Ask, ttl: u32, addrs: &[IpAddr]) -> Vec<u8> {
    let mut message = Message { flags: 0x8180, ..Message::query(ask.id, HOST, ask.kind) };
    message.questions[0].0.clone_from(&ask.name);
    for addr in addrs {
        // The name is spelled by a pointer to the question, as resolvers do.
        let owner = b"\xc0\x0c".to_vec();
        message.answers.push(Record { ttl, owner, ..address(HOST, *addr) });
    }
    told((ask.to, 53), ask.port, &message.bytes())
}

/// One client with one name, and the first query for it.
fn asked() -> (World, Ask) {
    let mut world = world_with(&[]);
    let rule = format!("action=accept dsthost={HOST} proto=tcp dstports=443-443");
    commit(&mut world, work(), &[&rule]);
    let asks = world.own_queries();
    let [ask] = &asks[..] else { panic!("{asks:?}") };
    let ask = ask.clone();
    (world, ask)
}

/// Lets time pass until the next query, which is returned with the seconds it took.
pub fn next_query(world: &mut World, most: u64) -> Option<(u64, Ask)> {
    for second in 1..=most {
        world.now = world.now + Duration::from_secs(1);
        if let Some(ask) = world.own_queries().into_iter().next() {
            return Some((second, ask));
        }
    }
    None
}

#[test]
fn names_are_asked_for_before_any_packet_needs_them() {
    let mut world = world();
    let asks = world.own_queries();
    // Two IPv4 trees and one of IPv6; each for itself.
    let kinds: Vec<u16> = asks.iter().map(|ask| ask.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == A).count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == AAAA).count(), 1);
    for ask in &asks {
        assert_eq!((ask.to, &ask.name, ask.edns), (resolver(), &spelled(HOST), true));
        let addr = if ask.kind == A { good() } else { web6() };
        let fate = world.send(UPLINK, &answer(ask, 300, &[addr]));
        fate.silent(DropReason::Answered);
    }
    assert!(world.reaches(good()) && world.reaches(web6()) && world.personal_reaches(good()));
    assert!(!world.reaches(evil()));
}

#[test]
fn each_query_has_a_port_and_an_id_of_its_own_that_no_flow_gets() {
    let (mut world, first) = asked();
    let mut ports = vec![first.port];
    let mut ids = vec![first.id];
    while let Some((_, ask)) = next_query(&mut world, 20) {
        ports.push(ask.port);
        ids.push(ask.id);
        if ports.len() == 20 {
            break;
        }
    }
    let count = ports.len();
    assert!(count > 10 && ports.iter().all(|port| *port >= 1024));
    for list in [&mut ports, &mut ids] {
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), count);
    }
}

#[test]
fn both_resolvers_are_asked_and_silence_is_met_with_patience() {
    let (mut world, first) = asked();
    let mut heard = vec![(0, first)];
    while heard.len() < 9 {
        heard.push(next_query(&mut world, 60).unwrap());
    }
    let heard: Vec<_> = heard.iter().map(|(after, ask)| (*after, ask.to, ask.edns)).collect();
    let round = |rest| {
        [
            (rest, resolver(), true),
            (2, second(), true),
            (2, resolver(), false),
            (2, second(), false),
        ]
    };
    let mut want: Vec<_> = [round(0), round(7)].concat();
    want.push((12, resolver(), true));
    assert_eq!(heard, want, "five seconds of rest behind the last two, then ten");
}

#[test]
fn only_whom_we_asked_may_answer_us() {
    let (mut world, ask) = asked();
    let right = answer(&ask, 300, &[evil()]);
    let message = &right[42..];
    let wrong = |from, port| told(from, port, message);
    for frame in [
        wrong((second(), 53), ask.port),
        wrong((ip("198.51.100.1"), 53), ask.port),
        wrong((resolver(), 5353), ask.port),
        wrong((resolver(), 53), ask.port ^ 1),
        answer(&Ask { id: ask.id ^ 1, ..ask.clone() }, 300, &[evil()]),
        answer(&Ask { name: spelled("www.evil.org"), ..ask.clone() }, 300, &[evil()]),
        answer(&Ask { kind: AAAA, ..ask.clone() }, 300, &[evil()]),
    ] {
        world.send(UPLINK, &frame).silent(DropReason::Unsolicited);
    }
    assert!(!world.reaches(evil()));
    world.send(UPLINK, &answer(&ask, 300, &[good()])).silent(DropReason::Answered);
    assert!(world.reaches(good()) && !world.reaches(evil()));
    world.send(UPLINK, &right).silent(DropReason::Unsolicited);
    assert!(!world.reaches(evil()), "one answer, and then none");
}

#[test]
fn our_own_queries_are_no_way_to_ourselves_or_to_clients_either() {
    let (mut world, ask) = asked();
    let never = [us(), work(), personal(), ip("127.0.0.1"), ip("10.139.1.1"), ip("10.137.9.9")];
    world.send(UPLINK, &answer(&ask, 300, &never)).silent(DropReason::Answered);
    let (after, _) = next_query(&mut world, 60).unwrap();
    assert_eq!(after, 5, "as if it had no addresses");
}

#[test]
fn a_refusal_and_a_truncated_answer_are_taken_to_the_other_resolver_at_once() {
    for flags in [0x8182, 0x8185, 0x8380] {
        let (mut world, ask) = asked();
        let mut bytes = answer(&ask, 300, &[evil()]);
        let message = Message {
            flags,
            answers: vec![address(HOST, evil())],
            ..Message::query(ask.id, HOST, A)
        };
        bytes.splice(.., told((ask.to, 53), ask.port, &message.bytes()));
        world.send(UPLINK, &bytes).silent(DropReason::Answered);
        let asks = world.own_queries();
        assert_eq!(asks.len(), 1, "{flags:x}");
        assert_eq!(asks[0].to, second());
        assert!(!world.reaches(evil()));
    }
}

#[test]
fn a_name_is_asked_for_again_ahead_of_the_end_of_its_addresses() {
    for (ttl, again) in [(0, 45), (60, 45), (400, 300), (3600, 2700), (u32::MAX >> 1, 2700)] {
        let (mut world, ask) = asked();
        world.send(UPLINK, &answer(&ask, ttl, &[good()])).silent(DropReason::Answered);
        let (after, next) = next_query(&mut world, 4000).unwrap();
        assert_eq!((after, next.to), (again, resolver()), "ttl {ttl}");
        world.send(UPLINK, &answer(&next, ttl, &[good()])).silent(DropReason::Answered);
        world.wait(ttl.clamp(60, 3600).into());
        // As long as somebody answers, the name never stops to work.
        assert!(ttl > 0 || !world.reaches(good()), "nobody answered the third time");
    }
}

#[test]
fn addresses_end_a_minute_after_they_were_told_at_least_and_an_hour_after_at_most() {
    for (ttl, end) in [(0, 60), (61, 61), (100_000, 3600)] {
        let (mut world, ask) = asked();
        world.send(UPLINK, &answer(&ask, ttl, &[good()])).silent(DropReason::Answered);
        world.wait(end - 1);
        assert!(world.reaches(good()), "ttl {ttl}");
        world.wait(1);
        assert!(!world.reaches(good()), "ttl {ttl}");
    }
}

/// A datagram of `work` to `addr`.
pub fn datagram(addr: IpAddr) -> Vec<u8> {
    from_work(Spec::udp((work(), 5000), (addr, 443)))
}

fn udp_world() -> (World, Ask) {
    let (mut world, _) = asked();
    commit(&mut world, work(), &[&format!("action=accept dsthost={HOST} proto=udp")]);
    let (_, ask) = next_query(&mut world, 20).unwrap();
    (world, ask)
}

#[test]
fn a_flow_ends_with_the_address_it_goes_to_and_no_other_is_asked_again() {
    let (mut world, ask) = udp_world();
    let personal_rule = ["action=accept"];
    commit(&mut world, personal(), &personal_rule);
    let others =
        Spec::udp((personal(), 5000), (evil(), 1)).macs(wire::Mac::BACKEND, PERSONAL_MAC).frame();
    world.send(PERSONAL, &others).emitted(UPLINK);
    world.send(UPLINK, &answer(&ask, 60, &[good()])).silent(DropReason::Answered);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    let rule = world.firewall.policy().unwrap().rule_ids().nth(2).unwrap();
    let before = world.firewall.counters().rules.of(rule);
    // The address goes, and with it the flow: its remote never answered.
    world.wait(61);
    world.send(PERSONAL, &others).emitted(UPLINK);
    assert_eq!(world.firewall.counters().rules.of(rule), before);
    let fate = world.send(WORK, &datagram(good()));
    assert_eq!(fate.verdict, Verdict::Drop(DropReason::RuleReject));
}

#[test]
fn an_address_that_a_flow_talks_to_stays_for_an_hour_though_the_name_moves_on() {
    let (mut world, ask) = udp_world();
    world.send(UPLINK, &answer(&ask, 0, &[good()])).silent(DropReason::Answered);
    let sent = world.send(WORK, &datagram(good())).emitted(UPLINK);
    let port = crate::common::packet(&sent).tuple().unwrap().sport;
    let back = crate::world::from_world(Spec::udp((good(), 443), (us(), port)));
    world.send(UPLINK, &back).emitted(WORK);
    for _ in 0..59 {
        world.wait(60);
        world.send(WORK, &datagram(good())).emitted(UPLINK);
    }
    world.wait(61);
    let fate = world.send(WORK, &datagram(good()));
    assert_eq!(fate.verdict, Verdict::Drop(DropReason::RuleReject));
}

#[test]
fn what_is_told_again_asks_no_flow_again() {
    let (mut world, ask) = udp_world();
    world.send(UPLINK, &answer(&ask, 60, &[good(), evil()])).silent(DropReason::Answered);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    let rule = world.firewall.policy().unwrap().rule_ids().nth(2).unwrap();
    let before = world.firewall.counters().rules.of(rule);
    let (_, again) = next_query(&mut world, 60).unwrap();
    world.send(UPLINK, &answer(&again, 60, &[evil(), good()])).silent(DropReason::Answered);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    assert_eq!(world.firewall.counters().rules.of(rule), before, "the same, in another order");
    let (_, again) = next_query(&mut world, 60).unwrap();
    let more = [evil(), good(), ip("203.0.113.1")];
    world.send(UPLINK, &answer(&again, 60, &more)).silent(DropReason::Answered);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    assert_eq!(world.firewall.counters().rules.of(rule), before + 1, "one more address");
}

#[test]
fn a_name_to_be_dropped_that_is_not_known_drops_all_of_its_protocol_and_ports() {
    let drop = format!("action=drop dsthost={HOST} proto=tcp dstports=443-443");
    let mut world = world_with(&[&drop, "action=accept"]);
    assert!(!world.reaches(good()) && !world.reaches(evil()), "any of them may be meant");
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    let ask = world.own_queries().into_iter().find(|ask| ask.kind == A).unwrap();
    world.send(UPLINK, &answer(&ask, 60, &[evil()])).silent(DropReason::Answered);
    // Whichever of the two clients asked first.
    let free = (world.reaches(good()), world.personal_reaches(good()));
    assert!(free == (true, false) || free == (false, true), "only whose name it is: {free:?}");
    assert!(!world.reaches(evil()) && !world.personal_reaches(evil()));
    world.wait(61);
    assert!(!world.reaches(good()) && !world.personal_reaches(good()), "unknown again");
}

#[test]
fn more_addresses_than_there_is_room_for_leave_a_drop_closed_and_an_accept_bounded() {
    let many: Vec<IpAddr> = (0..70).map(|n| IpAddr::from([203, 0, 113, n])).collect();
    let drop = format!("action=drop dsthost={HOST} proto=tcp dstports=443-443");
    for (rules, bounded) in [(vec![&*drop, "action=accept"], false), (vec![], true)] {
        let (mut world, ask) = asked();
        let mut ask = ask;
        if !bounded {
            commit(&mut world, work(), &rules);
            // The name stays, and so does the query.
            assert_eq!(world.own_queries(), []);
        }
        ask.name = spelled(HOST);
        world.send(UPLINK, &answer(&ask, 60, &many)).silent(DropReason::Answered);
        let reached = many.iter().filter(|addr| world.reaches(**addr)).count();
        assert_eq!(reached, if bounded { 64 } else { 0 });
        assert!(!world.reaches(good()), "it may be one of those left out");
        world.wait(60);
        assert!(!world.reaches(many[0]));
    }
}

#[test]
fn a_client_has_256_addresses_and_no_more() {
    let names: Vec<String> = (0..5).map(|n| format!("n{n}.example.org")).collect();
    let rules: Vec<String> =
        names.iter().map(|name| format!("action=accept dsthost={name}")).collect();
    let mut world = world_with(&[]);
    commit(&mut world, work(), &rules.iter().map(String::as_str).collect::<Vec<_>>());
    let asks = [world.own_queries(), world.own_queries()].concat();
    assert_eq!(asks.len(), 5);
    let mut all = Vec::new();
    for (nth, ask) in asks.iter().enumerate() {
        let addrs: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([203, nth as u8, 113, n])).collect();
        let mut message = Message { flags: 0x8180, ..Message::query(ask.id, HOST, A) };
        message.questions[0].0.clone_from(&ask.name);
        for addr in &addrs {
            let record = address(HOST, *addr);
            message.answers.push(Record { owner: ask.name.clone(), ..record });
        }
        world.send(UPLINK, &told((ask.to, 53), ask.port, &message.bytes()));
        all.extend(addrs);
    }
    assert_eq!(all.iter().filter(|addr| world.reaches(**addr)).count(), 256);
}

#[test]
fn nothing_is_held_up_while_a_name_is_not_known() {
    let (mut world, _) = asked();
    commit(
        &mut world,
        work(),
        &[&format!("action=accept dsthost={HOST}"), "action=accept proto=udp"],
    );
    // Decided at once, by the rules as they are known: the next one that matches.
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    let syn = Spec::tcp((work(), 1), (good(), 443), wire::TcpFlags::SYN);
    world.send(WORK, &from_work(syn)).answered(DropReason::RuleReject, WORK);
}

#[test]
fn a_client_that_is_not_there_has_nobody_asked_and_comes_back_to_unknown_names() {
    let (mut world, ask) = asked();
    world.send(UPLINK, &answer(&ask, 60, &[good()])).silent(DropReason::Answered);
    assert!(world.reaches(good()));
    world.firewall.port_down(world.now, WORK);
    assert_eq!(next_query(&mut world, 500), None);
    let link =
        Link::Client { mac: crate::world::WORK_MAC, addrs: vec![work(), work6()], mtu: 1500 };
    world.firewall.port_up(world.now, WORK, link);
    assert!(!world.reaches(good()));
    assert_eq!(world.own_queries().len(), 1, "asked for before its first packet");
}

#[test]
fn a_new_uplink_is_asked_at_once_and_without_one_nobody_is() {
    let (mut world, ask) = asked();
    world.send(UPLINK, &answer(&ask, 3600, &[good()])).silent(DropReason::Answered);
    world.firewall.port_down(world.now, UPLINK);
    assert_eq!(next_query(&mut world, 300), None);
    world.uplink_up(1500);
    assert_eq!(world.own_queries().len(), 1);
    assert!(world.reaches(good()), "what was known is known until its time is over");
}

#[test]
fn hours_of_pause_age_no_address() {
    let (mut world, ask) = asked();
    world.send(UPLINK, &answer(&ask, 600, &[good()])).silent(DropReason::Answered);
    world.now = world.now + Duration::from_secs(7200);
    assert_eq!(world.own_queries().len(), 1, "asked again when it wakes");
    assert!(world.reaches(good()));
    world.wait(601);
    assert!(!world.reaches(good()));
}

#[test]
fn names_stay_known_when_dom0_writes_the_rules_again() {
    let (mut world, ask) = asked();
    world.send(UPLINK, &answer(&ask, 600, &[good()])).silent(DropReason::Answered);
    let rule = format!("action=accept dsthost={HOST} proto=tcp");
    assert!(commit(&mut world, work(), &["action=drop proto=icmp", &rule]));
    assert!(world.reaches(good()));
    assert_eq!(world.own_queries(), []);
    assert!(commit(&mut world, work(), &["action=accept dsthost=other.example.org"]));
    assert!(!world.reaches(good()));
    assert!(commit(&mut world, work(), &[&rule]));
    assert!(!world.reaches(good()), "it was forgotten meanwhile");
}

#[test]
fn a_name_that_no_message_can_spell_is_never_known_and_harms_nobody() {
    let mut world = world_with(&["action=accept dsthost=a..b", "action=accept dsthost=."]);
    assert_eq!(world.own_queries(), []);
    assert!(!world.reaches(good()));
    let mut world = world_with(&["action=drop dsthost=a..b proto=tcp", "action=accept"]);
    assert!(!world.reaches(good()));
}

#[test]
fn a_client_with_dead_names_does_not_hold_up_those_of_others() {
    let mut world = world_with(&[]);
    let rules: Vec<String> =
        (0..200).map(|n| format!("action=accept dsthost=n{n}.example.org")).collect();
    commit(&mut world, work(), &rules.iter().map(String::as_str).collect::<Vec<_>>());
    let dead: usize = (0..100).map(|_| world.own_queries().len()).sum();
    assert_eq!(dead, 8, "so many at once for one client");
    commit(&mut world, personal(), &[&format!("action=accept dsthost={HOST}")]);
    let asks = [world.own_queries(), world.own_queries()].concat();
    assert!(asks.iter().any(|ask| ask.name == spelled(HOST)), "{asks:?}");
}
