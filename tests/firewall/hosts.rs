//! Host names in the policy: what they stand for, for whom, and for how long.

use crate::common::{Spec, packet};
use crate::names::{answer, datagram, next_query};
use crate::own::commit;
use crate::resolver::{
    A, AAAA, ASKING, Ask, HOST, Message, Record, address, asking, evil, good, resolver, spelled,
    world_of,
};
use crate::world::{
    PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config, from_work, from_world, ip, personal, us,
    web6, work, work6,
};
use rules::nameless;
use std::net::IpAddr;
use tidegate::firewall::Link;
use wire::{DropReason, Mac, Verdict};

/// A world in which both clients reach [`HOST`] by HTTPS because the policy says so, and nothing else.
fn world() -> World {
    world_of(&format!("{ASKING}\n{}\nreject", allowed("tcp 443")), &[])
}

fn allowed(what: &str) -> String {
    format!("accept {what} to host {HOST}")
}

/// Whether `personal` begins a connection to port 443 of `addr`.
fn reach(world: &mut World, addr: IpAddr) -> [bool; 2] {
    [world.reaches(addr), world.personal_reaches(addr)]
}

/// Answers all queries for addresses of this kind that are sent now.
fn answer_all(world: &mut World, kind: u16, addrs: &[IpAddr]) {
    for ask in world.own_queries().into_iter().filter(|ask| ask.kind == kind) {
        let message = answer(&ask, 300, addrs);
        world.send(UPLINK, &message).silent(DropReason::Answered);
    }
}

#[test]
fn a_host_is_asked_for_ahead_and_reached_where_it_is() {
    let mut world = world_of(
        &format!("{ASKING}\naccept tcp 443 to [host WWW.Example.org, 198.51.100.0/24]\nreject"),
        &[],
    );
    assert_eq!(reach(&mut world, good()), [false; 2], "what is not known is nowhere");
    assert_eq!(reach(&mut world, ip("198.51.100.7")), [true; 2], "beside it there are addresses");
    let asks = world.own_queries();
    let kinds: Vec<u16> = asks.iter().map(|ask| ask.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == A).count(), 2, "each client for itself");
    assert_eq!(kinds.iter().filter(|kind| **kind == AAAA).count(), 1);
    for ask in asks {
        assert_eq!((ask.to, &ask.name), (resolver(), &spelled(HOST)));
        let addr = if ask.kind == A { good() } else { web6() };
        world.send(UPLINK, &answer(&ask, 300, &[addr])).silent(DropReason::Answered);
    }
    assert_eq!(reach(&mut world, good()), [true; 2]);
    assert!(world.reaches(web6()));
    assert_eq!(reach(&mut world, evil()), [false; 2]);
    let other = from_work(Spec::tcp((work(), 1), (good(), 80), wire::TcpFlags::SYN));
    world.send(WORK, &other).answered(DropReason::RuleReject, WORK);
}

#[test]
fn what_a_client_is_told_is_known_before_it_hears_of_it_and_to_nobody_else() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    assert_eq!(reach(&mut world, good()), [false; 2]);
    let heard = world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    assert_eq!(packet(&heard).dns().unwrap().id, 7);
    assert_eq!(reach(&mut world, good()), [true, false]);
    // What our own resolver tells later is added, for each client by itself.
    let asks: Vec<_> = world.own_queries().into_iter().filter(|ask| ask.kind == A).collect();
    let [first, second] = &asks[..] else { panic!("{asks:?}") };
    world.send(UPLINK, &answer(first, 300, &[evil()])).silent(DropReason::Answered);
    let one = reach(&mut world, evil());
    assert!(one == [true, false] || one == [false, true], "{one:?}");
    world.send(UPLINK, &answer(second, 300, &[evil()])).silent(DropReason::Answered);
    assert_eq!(reach(&mut world, evil()), [true; 2]);
    assert_eq!(reach(&mut world, good()), [true, false]);
}

#[test]
fn a_name_is_resolved_for_those_whose_flows_its_rules_are_about() {
    let policy = format!("{ASKING}\naccept tcp 443 from 10.137.0.11 to host {HOST}\nreject");
    let mut world = world_of(&policy, &[]);
    let asks = world.own_queries();
    assert_eq!(asks.len(), 1, "personal alone: {asks:?}");
    world.send(UPLINK, &answer(&asks[0], 300, &[good()])).silent(DropReason::Answered);
    assert_eq!(reach(&mut world, good()), [false, true]);
    // The answer to who has no such rule is not looked at.
    let (port, id) = world.asks(5000, 7, A);
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    assert_eq!(reach(&mut world, evil()), [false; 2]);
}

/// How many flows the rule on the third line of the block, which says the name, has decided.
fn decided(world: &World) -> u64 {
    let policy = world.firewall.policy().unwrap();
    let rule = policy.rule_ids().nth(2).unwrap();
    world.firewall.counters().rules.of(rule)
}

#[test]
fn flows_live_as_long_as_their_address_and_no_other_flow_is_asked_again() {
    let mut world =
        world_of(&format!("{ASKING}\n{}\naccept udp 9\nreject", allowed("udp 443")), &[]);
    let asks: Vec<_> = world.own_queries().into_iter().filter(|ask| ask.kind == A).collect();
    for ask in &asks {
        world.send(UPLINK, &answer(ask, 60, &[good()])).silent(DropReason::Answered);
    }
    let others = |dport| {
        Spec::udp((personal(), 5000), (good(), dport)).macs(Mac::BACKEND, PERSONAL_MAC).frame()
    };
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    world.send(PERSONAL, &others(9)).emitted(UPLINK);
    let before = decided(&world);
    // What one client is told asks only its own flows again, and this one may go on.
    let (port, id) = world.asks(6000, 7, A);
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    world.send(PERSONAL, &others(9)).emitted(UPLINK);
    assert_eq!(decided(&world), before);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    assert_eq!(decided(&world), before + 1);
    // Told again, it asks nobody.
    let (port, id) = world.asks(6001, 8, A);
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    assert_eq!(decided(&world), before + 1);
    world.wait(61);
    world.send(WORK, &datagram(good())).answered(DropReason::RuleReject, WORK);
    world.send(PERSONAL, &others(9)).emitted(UPLINK);
}

#[test]
fn an_address_that_is_in_use_stays_though_the_name_moves_on() {
    let mut world = world_of(&format!("{ASKING}\n{}\nreject", allowed("udp")), &[]);
    answer_all(&mut world, A, &[good()]);
    let sent = world.send(WORK, &datagram(good())).emitted(UPLINK);
    let port = packet(&sent).tuple().unwrap().sport;
    let back = from_world(Spec::udp((good(), 443), (us(), port)));
    world.send(UPLINK, &back).emitted(WORK);
    for _ in 0..59 {
        world.wait(60);
        world.send(WORK, &datagram(good())).emitted(UPLINK);
    }
    world.wait(300);
    world.send(WORK, &datagram(good())).answered(DropReason::RuleReject, WORK);
}

/// A drop by name leaves alone what the name is not known to stand for.
#[test]
fn a_refusal_by_name_is_about_what_is_known_and_nothing_else() {
    let mut world =
        world_of(&format!("{ASKING}\nreject tcp to host {HOST}\naccept tcp\nreject"), &[]);
    assert_eq!(reach(&mut world, good()), [true; 2]);
    answer_all(&mut world, A, &[good()]);
    assert_eq!(reach(&mut world, good()), [false; 2]);
    assert_eq!(reach(&mut world, evil()), [true; 2]);
}

#[test]
fn no_name_has_an_address_that_nobody_in_the_world_can_have() {
    let set = nameless();
    let mut told = vec![us(), work(), personal()];
    for (first, last) in set.ranges() {
        let step = |addr: IpAddr, up: bool| match addr {
            IpAddr::V4(addr) => {
                let bits = addr.to_bits();
                let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
                next.map(|bits| IpAddr::from(bits.to_be_bytes()))
            }
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
                next.map(|bits| IpAddr::from(bits.to_be_bytes()))
            }
        };
        told.extend([first, last]);
        told.extend(step(first, false).into_iter().chain(step(last, true)));
    }
    assert!(told.len() > 30);
    let mut usable = 0;
    for addr in told {
        let mut world = world();
        for ask in world.own_queries() {
            let told = match (addr.is_ipv4(), ask.kind == A) {
                (true, true) | (false, false) => addr,
                (_, is_a) => {
                    if is_a {
                        good()
                    } else {
                        web6()
                    }
                }
            };
            world.send(UPLINK, &answer(&ask, 300, &[told])).silent(DropReason::Answered);
        }
        let known = !nameless().contains(addr) && ![us(), work(), personal()].contains(&addr);
        // The firewall itself drops what is sent to some of them, so the next query tells: soon, if
        // there was no usable address.
        let (after, _) = next_query(&mut world, 400).unwrap();
        assert_eq!(after > 10, known, "{addr}: {after}");
        usable += u32::from(known);
    }
    assert!(usable > 10);
}

#[test]
fn a_policy_that_is_loaded_has_its_names_resolved_at_once_and_those_before_no_more() {
    let mut world = World::new(asking(&format!("{ASKING}\nreject")));
    assert_eq!(world.own_queries(), []);
    let named = |other: &str| {
        asking(&format!("{ASKING}\naccept tcp 443 to [host {HOST}{other}]\nreject")).policy
    };
    world.firewall.set_policy(named(""));
    let asks = world.own_queries();
    assert_eq!(asks.len(), 3, "{asks:?}");
    for ask in asks.iter().filter(|ask| ask.kind == A) {
        world.send(UPLINK, &answer(ask, 600, &[good()])).silent(DropReason::Answered);
    }
    assert_eq!(reach(&mut world, good()), [true; 2]);
    // A name that stays is known, one that comes is asked for.
    world.firewall.set_policy(named(", host other.example.org"));
    assert_eq!(reach(&mut world, good()), [true; 2]);
    let asks: Vec<_> = [world.own_queries(), world.own_queries()].concat();
    assert!(asks.iter().any(|ask| ask.name == spelled("other.example.org")));
    world.firewall.set_policy(asking(&format!("{ASKING}\nreject")).policy);
    assert_eq!(reach(&mut world, good()), [false; 2]);
    assert_eq!(next_query(&mut world, 700), None);
    world.firewall.set_policy(named(""));
    assert_eq!(reach(&mut world, good()), [false; 2], "forgotten meanwhile");
}

#[test]
fn a_name_of_the_policy_and_of_a_vms_own_rules_is_asked_for_once_and_known_to_both() {
    let own = format!("action=accept dsthost={HOST} proto=udp");
    let named = format!("{ASKING}\naccept tcp 443 to host {HOST}\nqubes");
    let mut world = world_of(&named, &[&own]);
    let asks = world.own_queries();
    assert_eq!(asks.iter().filter(|ask| ask.kind == A).count(), 2, "one for each client");
    for ask in asks.iter().filter(|ask| ask.kind == A) {
        world.send(UPLINK, &answer(ask, 600, &[good()])).silent(DropReason::Answered);
    }
    assert_eq!(reach(&mut world, good()), [true; 2]);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    // Either goes, and the other still knows it; and whoever comes to say it knows it at once.
    world.firewall.set_policy(asking(&format!("{ASKING}\nqubes")).policy);
    assert_eq!(reach(&mut world, good()), [false; 2]);
    world.send(WORK, &datagram(good())).emitted(UPLINK);
    world.firewall.set_policy(asking(&named).policy);
    assert_eq!(reach(&mut world, good()), [true; 2]);
    assert!(commit(&mut world, work(), &["action=drop"]));
    world.send(WORK, &datagram(good())).answered(DropReason::RuleReject, WORK);
    assert_eq!(reach(&mut world, good()), [true; 2]);
    assert!(commit(&mut world, work(), &[&own]));
    world.send(WORK, &datagram(good())).emitted(UPLINK);
}

#[test]
fn a_client_that_comes_back_finds_its_names_unknown_and_asked_for() {
    let mut world = world();
    answer_all(&mut world, A, &[good()]);
    world.firewall.port_down(world.now, WORK);
    let link =
        Link::Client { mac: crate::world::WORK_MAC, addrs: vec![work(), work6()], mtu: 1500 };
    world.firewall.port_up(world.now, WORK, link);
    assert_eq!(reach(&mut world, good()), [false, true]);
    assert_eq!(world.own_queries().len(), 2, "of both its addresses");
}

#[test]
fn names_for_which_there_is_no_memory_are_said_to_stand_for_nothing() {
    let mut config = asking(&format!("{ASKING}\nreject"));
    config.log = tidegate::firewall::LogLevel::None;
    let mut world = World::new(config);
    world.firewall.port_down(world.now, WORK);
    world.firewall.port_down(world.now, PERSONAL);
    world.firewall.limit_hosts(3);
    let rules = format!("{ASKING}\naccept to [host a.example, host b.example]\nreject");
    world.firewall.set_policy(asking(&rules).policy);
    let up = |world: &mut World, port, mac, addrs: &[IpAddr]| {
        let link = Link::Client { mac, addrs: addrs.to_vec(), mtu: 1500 };
        world.firewall.port_up(world.now, port, link);
    };
    up(&mut world, PERSONAL, PERSONAL_MAC, &[personal()]);
    assert_eq!(world.log(), <[String; 0]>::default());
    up(&mut world, WORK, crate::world::WORK_MAC, &[work()]);
    assert_eq!(
        world.log(),
        [
            "WARNING: no memory for 1 host names of test.tide for 10.137.0.10: for it they stand for nothing"
        ]
    );
    let mut names: Vec<_> = world.own_queries().into_iter().map(|ask| ask.name).collect();
    names.sort();
    let [a, b] = ["a.example", "b.example"].map(spelled);
    assert_eq!(names, [a.clone(), a, b]);
    // Who goes leaves room.
    world.firewall.port_down(world.now, PERSONAL);
    up(&mut world, WORK, crate::world::WORK_MAC, &[work()]);
    assert_eq!(world.log(), <[String; 0]>::default());
}

/// Those of a VM's own rules are bounded by themselves, and take nothing from the policy's.
#[test]
fn a_vm_with_many_names_keeps_no_room_from_those_of_the_policy() {
    let names: Vec<String> = (0..300).map(|n| format!("n{n:03}.example.org")).collect();
    let own: Vec<String> =
        names.iter().map(|name| format!("action=accept dsthost={name} proto=udp")).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let named = format!("{ASKING}\n{}\nqubes", allowed("tcp 443"));
    let mut world = world_of(&named, &[]);
    assert!(commit(&mut world, work(), &own));
    let (port, id) = world.asks(5000, 7, A);
    world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    assert!(world.reaches(good()));
    for (n, known) in [(0, true), (255, true), (256, false), (299, false)] {
        let name = &names[n];
        let asked = Message::query(9, name, A);
        let (port, id) = world.asks_of(resolver(), 6000 + n as u16, &asked);
        let addr = IpAddr::from([203, 0, 113, (n % 250) as u8]);
        let answers = vec![Record { owner: spelled(name), ..address(name, addr) }];
        world.is_told(port, &Message { flags: 0x8180, id, answers, ..asked }).emitted(WORK);
        let sent = world.send(WORK, &datagram(addr)).verdict;
        assert_eq!(matches!(sent, Verdict::Emit(_)), known, "{name}");
    }
}

#[test]
fn with_nobody_to_ask_the_console_says_that_names_stand_for_nothing() {
    let mut named = config(&format!("{}\nreject", allowed("tcp 443")));
    named.log = tidegate::firewall::LogLevel::None;
    let mut world = World::new(named);
    world.wait(8);
    assert_eq!(world.log(), <[String; 0]>::default(), "dom0 may still say who is to be asked");
    world.wait(8);
    assert_eq!(
        world.log(),
        [
            "WARNING: host names of test.tide stand for nothing: no resolver is known (`redirect dns`, or \
          dnsto= on the command line)"
        ]
    );
    world.wait(100);
    assert_eq!(world.log(), <[String; 0]>::default(), "once");
    world.firewall.set_policy(asking(&format!("{ASKING}\nreject")).policy);
    world.wait(100);
    assert_eq!(world.log(), <[String; 0]>::default(), "without names nobody is missing");
    let mut world = self::world();
    world.wait(100);
    assert_eq!(world.log(), <[String; 0]>::default());
}

/// A query of one client for a name that only another's rules say teaches nobody.
#[test]
fn only_the_resolvers_that_clients_are_told_to_ask_teach() {
    let policy = format!("accept udp 53\n{}\nreject", allowed("tcp 443"));
    let mut world = world_of(&policy, &[]);
    let asked = Message::query(7, HOST, A);
    let (port, id) = world.asks_of(ip("9.9.9.9"), 5000, &asked);
    let told =
        crate::resolver::told((ip("9.9.9.9"), 53), port, &Message::answer(id, evil()).bytes());
    world.send(UPLINK, &told).emitted(WORK);
    assert_eq!(reach(&mut world, evil()), [false; 2]);
    let Ask { to, .. } = world.own_queries().remove(0);
    assert_eq!(to, resolver());
}
