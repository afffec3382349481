//! What a NAT must do (RFC 4787, 5382, 5508, 6888, 7857), each requirement under its number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{ACK, EXTERNAL, RST, SYN};
use common::{World, client, echo, inside, remote, segment, tuple, udp, v6};
use core::net::IpAddr;
use core::time::Duration;
use nat::{Budget, Config, ConfigError, Direction, Nat, NewFlow, Sender, Timeouts};
use std::collections::BTreeSet;
use wire::{DropReason, Instant, Port, Proto, Quote, Tuple, Uplink};

#[test]
fn n01_a_socket_has_one_external_port_for_all_remotes() {
    let mut world = World::new();
    let ports: BTreeSet<u16> =
        (0..50).map(|n| world.udp(1, 5000, remote(n)).unwrap().tuple.sport).collect();
    assert_eq!(ports.len(), 1);
    assert_ne!(ports, BTreeSet::from([world.udp(1, 5001, remote(0)).unwrap().tuple.sport]));
    assert_eq!(world.nat.stats().mappings, 2);
}

#[test]
fn n02_a_socket_keeps_its_external_address_and_has_a_port_at_each() {
    let mut world = World::new();
    let first = world.udp(1, 5000, remote(1)).unwrap().tuple;
    world.external = IpAddr::from([192, 0, 2, 2]);
    assert_eq!(world.udp(1, 5000, remote(1)).unwrap().tuple, first, "the flow stays");
    let second = world.udp(1, 5000, remote(2)).unwrap().tuple;
    assert_eq!((first.src, second.src), (EXTERNAL, world.external));
    assert_ne!(first.sport, second.sport);
}

#[test]
fn n03_no_two_sockets_share_an_external_port() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for slot in 0..4 {
        for port in 0..1000 {
            assert!(seen.insert(world.udp(slot, 5000 + port, remote(1)).unwrap().tuple.sport));
        }
    }
}

#[test]
fn n04_n30_external_ports_are_at_least_1024_and_say_nothing_of_the_inside() {
    let mut world = World::new();
    let mut preserved = 0;
    for port in 1..=2000 {
        let external = world.udp(1, port, remote(1)).unwrap().tuple.sport;
        assert!(external >= 1024);
        preserved += u32::from(external == port);
    }
    assert!(preserved <= 2, "kept {preserved} of 2000");
}

#[test]
fn n05_udp_lives_five_minutes_and_dns_thirty_seconds() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    let dns = tuple(Proto::Udp, inside(1), 5000, remote(1), 53);
    let asked = world.send(client(1), dns, &udp()).unwrap().tuple;
    world.wait(30);
    assert!(world.answer(asked).is_ok());
    world.wait(1);
    assert_eq!(world.answer(asked), Err(DropReason::Unsolicited));
    world.wait(269);
    assert!(world.answer(sent).is_ok());
    world.wait(1);
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
    assert_eq!(world.nat.stats().mappings, 0);
}

#[test]
fn n05_n16_n18_shorter_times_than_the_rfcs_allow_are_refused() {
    let least = |set: fn(&mut Timeouts)| {
        let mut config = Config::default();
        set(&mut config.timeouts);
        Nat::new(config, Budget { bytes: 1 << 20 }, [0; 32]).err()
    };
    let error = |name, secs| Some(ConfigError::Timeout { name, least: Duration::from_secs(secs) });
    assert_eq!(least(|t| t.udp = Duration::from_secs(119)), error("udp", 120));
    assert_eq!(least(|t| t.icmp = Duration::from_secs(59)), error("icmp", 60));
    let established = |t: &mut Timeouts| t.tcp_established = Duration::from_secs(7439);
    assert_eq!(least(established), error("tcp-established", 7440));
    let transitory = |t: &mut Timeouts| t.tcp_transitory = Duration::from_secs(239);
    assert_eq!(least(transitory), error("tcp-transitory", 240));
    assert_eq!(least(|t| t.udp = Duration::from_secs(120)), None);
}

#[test]
fn n06_only_the_inside_keeps_a_flow_alive() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    for _ in 0..3 {
        world.wait(299);
        world.udp(1, 5000, remote(1)).unwrap();
    }
    for _ in 0..30 {
        world.wait(10);
        assert!(world.answer(sent).is_ok());
    }
    world.wait(1);
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
}

#[test]
fn n07_only_the_very_remote_gets_in() {
    let mut world = World::new();
    let back = world.udp(1, 5000, remote(1)).unwrap().tuple.reversed();
    for stranger in [
        Tuple { src: remote(2), ..back },
        Tuple { sport: 4001, ..back },
        Tuple { dport: back.dport ^ 1, ..back },
        Tuple { proto: Proto::Tcp, ..back },
        Tuple { dst: IpAddr::from([192, 0, 2, 9]), ..back },
    ] {
        assert_eq!(world.receive(stranger, &udp()), Err(DropReason::Unsolicited), "{stranger}");
    }
    let passage = world.receive(back, &udp()).unwrap();
    assert_eq!(passage.tuple, tuple(Proto::Udp, remote(1), 4000, inside(1), 5000));
    assert_eq!((passage.client, passage.change.dst), (client(1), Some((inside(1), 5000))));
    assert_eq!(passage.change.src, None);
}

#[test]
fn n35_a_packet_of_the_inside_never_counts_as_one_of_the_world_nor_the_other_way_round() {
    let mut world = World::new();
    let inner = tuple(Proto::Udp, inside(1), 5000, remote(1), 4000);
    let outer = world.send(client(1), inner, &udp()).unwrap().tuple;
    assert!(world.flow_out(&inner).is_some() && world.flow_in(&outer.reversed()).is_some());
    assert_eq!(world.flow_in(&inner), None);
    assert_eq!(world.flow_out(&outer.reversed()), None);
}

#[test]
fn n10_a_limit_refuses_and_never_changes_the_mapping() {
    let mut world = World::sized(300 << 10);
    let first = world.udp(1, 5000, remote(0)).unwrap().tuple;
    world.answer(first).unwrap();
    let mapped = first.sport;
    let share = world.nat.share().flows;
    for n in 1..3 * u16::try_from(share).unwrap() {
        if let Ok(passage) = world.udp(1, 5000, remote(n)) {
            assert_eq!(passage.tuple.sport, mapped);
            world.answer(passage.tuple).unwrap();
        }
    }
    assert_eq!(world.nat.holding(client(1)).unwrap().flows, share);
    assert_eq!(world.udp(1, 5000, remote(9999)), Err(DropReason::QuotaExceeded));
    assert_eq!(world.udp(1, 5000, remote(0)).unwrap().tuple.sport, mapped);
}

#[test]
fn n11_n20_icmp_errors_are_translated_and_change_nothing() {
    let mut world = World::new();
    let inner = tuple(Proto::Udp, inside(1), 5000, remote(1), 4000);
    let sent = world.send(client(1), inner, &udp()).unwrap().tuple;
    let before = world.nat.stats();
    let quote = Quote { tuple: sent, l3: 42, l4: 62, tcp_seq: None };
    let router = IpAddr::from([203, 0, 113, 7]);
    let error =
        world.nat.icmp_error(world.now, Sender::World(Uplink::FIRST), router, &quote).unwrap();
    assert_eq!((error.client, error.to), (client(1), inside(1)));
    assert_eq!(error.outer.src, None, "a router keeps its name");
    assert_eq!(error.outer.dst.unwrap().0, inside(1));
    assert_eq!((error.quoted.src, error.quoted.dst), (Some((inside(1), 5000)), None));
    assert_eq!(world.nat.stats(), before);
    // Outward: about the answer, as the client saw it.
    let quote = Quote { tuple: inner.reversed(), ..quote };
    let error = world.nat.icmp_error(world.now, Sender::Client, inside(1), &quote).unwrap();
    assert_eq!((error.to, error.outer.src.unwrap().0), (remote(1), EXTERNAL));
    assert_eq!((error.quoted.src, error.quoted.dst), (None, Some((EXTERNAL, sent.sport))));
    world.wait(300);
    assert!(world.answer(sent).is_ok());
    world.wait(1);
    assert!(world.answer(sent).is_err(), "no error kept it alive");
}

#[test]
fn n19_icmp_errors_about_nothing_are_dropped() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    let quote = |tuple| Quote { tuple, l3: 42, l4: 62, tcp_seq: None };
    let now = world.now;
    let unrelated = Err(DropReason::UnrelatedIcmp);
    for tuple in [
        Tuple { dport: 4001, ..sent },
        Tuple { sport: sent.sport ^ 1, ..sent },
        Tuple { src: inside(1), ..sent },
        sent.reversed(),
    ] {
        let error =
            world.nat.icmp_error(now, Sender::World(Uplink::FIRST), remote(1), &quote(tuple));
        assert_eq!(error, unrelated, "{tuple}");
    }
    let late = now + Duration::from_secs(301);
    assert_eq!(
        world.nat.icmp_error(late, Sender::World(Uplink::FIRST), remote(1), &quote(sent)),
        unrelated
    );
}

#[test]
fn n18_icmp_ids_are_ports_and_live_a_minute() {
    for (proto, here, there, external) in
        [(Proto::Icmp, inside(1), remote(1), EXTERNAL), (Proto::Icmpv6, v6(1), v6(2), v6(3))]
    {
        let mut world = World::new();
        world.external = external;
        let ask = tuple(proto, here, 7, there, 0);
        let sent = world.send(client(1), ask, &echo(false)).unwrap().tuple;
        let other = tuple(proto, here, 7, external, 0);
        let same = world.send(client(1), Tuple { dst: other.dst, ..ask }, &echo(false)).unwrap();
        assert_eq!(same.tuple.sport, sent.sport, "endpoint-independent");
        let got = world.receive(sent.reversed(), &echo(true)).unwrap();
        assert_eq!(got.tuple, ask.reversed());
        let asked_back = world.receive(sent.reversed(), &echo(false));
        assert_eq!(asked_back, Err(DropReason::Unsolicited), "a request is no answer");
        world.wait(60);
        assert!(world.receive(sent.reversed(), &echo(true)).is_ok());
        world.wait(1);
        assert!(world.receive(sent.reversed(), &echo(true)).is_err());
    }
}

#[test]
fn an_answer_to_nothing_opens_nothing() {
    let mut world = World::new();
    let reply = tuple(Proto::Icmp, inside(1), 0, remote(1), 7);
    assert_eq!(world.send(client(1), reply, &echo(true)), Err(DropReason::Untranslatable));
    let tcp = tuple(Proto::Tcp, inside(1), 5000, remote(1), 443);
    for flags in
        [ACK, RST, common::SYN_ACK, common::FIN_ACK, SYN.with(RST), SYN.with(wire::TcpFlags::FIN)]
    {
        let sent = world.send(client(1), tcp, &segment(flags, 5, 5, 0));
        assert_eq!(sent, Err(DropReason::InvalidTcp), "{flags:?}");
    }
    assert_eq!(world.nat.stats().flows, 0);
    assert_eq!(world.nat.stats().mappings, 0);
}

#[test]
fn n27_ipv6_is_translated_by_the_same_rules() {
    let mut world = World::new();
    world.external = v6(100);
    let inner = tuple(Proto::Udp, v6(1), 5000, v6(2), 4000);
    let sent = world.send(client(1), inner, &udp()).unwrap().tuple;
    assert_eq!((sent.src, sent.dst), (v6(100), v6(2)));
    assert_eq!(world.receive(sent.reversed(), &udp()).unwrap().tuple, inner.reversed());
    let mixed = tuple(Proto::Udp, inside(1), 5000, v6(2), 4000);
    assert_eq!(world.send(client(1), mixed, &udp()), Err(DropReason::Untranslatable));
    world.external = EXTERNAL;
    let other = tuple(Proto::Udp, v6(1), 5001, v6(2), 4000);
    assert_eq!(world.send(client(1), other, &udp()), Err(DropReason::Untranslatable));
}

#[test]
fn n24_a_share_is_a_hard_limit_and_half_open_flows_go_first() {
    let mut world = World::sized(300 << 10);
    let share = world.nat.share().flows;
    let settled = world.udp(1, 1, remote(1)).unwrap().tuple;
    world.answer(settled).unwrap();
    for port in 2..4 * u16::try_from(share).unwrap() {
        world.udp(1, port, remote(1)).expect("gives up one of its own");
    }
    let stats = world.nat.stats();
    assert_eq!(world.nat.holding(client(1)).unwrap().flows, share);
    assert!(stats.lost_half_open > 0 && stats.lost_idle == 0 && stats.flushes == 0);
    assert!(world.answer(settled).is_ok(), "what is in use stays");
}

#[test]
fn n24_a_flow_gives_way_to_one_of_another_protocol() {
    let mut world = World::sized(300 << 10);
    for port in 0..world.nat.share().flows {
        world.syn(1, 1024 + u16::try_from(port).unwrap(), remote(1)).unwrap();
    }
    assert_eq!(world.nat.stats().lost_half_open, 0);
    assert!(world.udp(1, 5000, remote(1)).is_ok());
    assert_eq!(world.nat.stats().lost_half_open, 1);
}

#[test]
fn n24_n32_a_flood_costs_nobody_else_a_flow_new_or_old() {
    let mut world = World::sized(400 << 10);
    let old: Vec<Tuple> =
        (1..4).map(|slot| world.udp(slot, 5000, remote(1)).unwrap().tuple).collect();
    old.iter().for_each(|sent| assert!(world.answer(*sent).is_ok()));
    for n in 0..20_000u16 {
        let _ = world.udp(9, 1024 + n, remote(n));
        let _ = world.syn(9, 1024 + n, remote(n));
        if n % 100 == 0 {
            world.udp(2, n, remote(2)).expect("a new flow within the share");
        }
    }
    old.iter().for_each(|sent| assert!(world.answer(*sent).is_ok()));
    assert_eq!(world.nat.stats().flushes, 0);
}

#[test]
fn n24_who_comes_late_gets_the_share_that_others_took_before() {
    let mut world = World::sized(300 << 10);
    let capacity = world.nat.stats().capacity;
    for slot in 0..4 {
        for port in 0..u16::try_from(capacity).unwrap() {
            let Ok(passage) = world.udp(slot, 1024 + port, remote(1)) else { break };
            world.answer(passage.tuple).unwrap();
        }
    }
    assert!(world.nat.stats().flows > capacity - 4);
    // Eight shares now, where there were four.
    for port in 0..capacity / 8 {
        world.udp(5, 1024 + u16::try_from(port).unwrap(), remote(1)).expect("its share");
    }
    let stats = world.nat.stats();
    assert!(stats.lost_idle > 0 && stats.flushes == 0);
}

#[test]
fn all_flows_go_only_if_every_client_is_within_its_share() {
    let config = Config { slots: 300, ..Config::default() };
    let nat = Nat::new(config, Budget { bytes: 1 }, [0; 32]);
    let Err(ConfigError::Budget { least }) = nat else { panic!("one byte is enough?") };
    let nat = Nat::new(config, Budget { bytes: least }, [0; 32]).unwrap();
    let mut world =
        World { nat, now: Instant::from_secs(5), uplink: Uplink::FIRST, external: EXTERNAL };
    let capacity = u16::try_from(world.nat.stats().capacity).unwrap();
    for slot in 0..capacity {
        world.udp(slot, 5000, remote(1)).unwrap();
    }
    assert_eq!(world.nat.stats().flushes, 0);
    world.udp(capacity, 5000, remote(1)).unwrap();
    let stats = world.nat.stats();
    assert_eq!((stats.flushes, stats.flows, stats.mappings), (1, 1, 1));
}

#[test]
fn n10_ports_of_one_protocol_run_out_at_once_and_come_back() {
    let mut world = World::sized(40 << 20);
    let share = world.nat.share().ports.udp;
    let mut sent = Vec::new();
    for n in 0..share {
        let port = u16::try_from(n + 1).unwrap();
        let passage = world.udp(1, port, remote(1)).unwrap();
        world.answer(passage.tuple).unwrap();
        sent.push(passage.tuple);
    }
    assert_eq!(world.udp(1, 65_000, remote(1)), Err(DropReason::QuotaExceeded));
    assert!(world.udp(1, 1, remote(2)).is_ok(), "a socket that has a port needs none");
    assert!(world.udp(2, 1, remote(1)).is_ok(), "another client does not notice");
    assert!(world.syn(1, 65_000, remote(1)).is_ok(), "nor another protocol");
    world.wait(301);
    assert!(world.udp(1, 65_000, remote(1)).is_ok());
}

#[test]
fn n31_a_reserved_port_is_never_given_to_a_client() {
    let mut world = World::sized(40 << 20);
    for port in 1024..65_000 {
        assert!(world.nat.reserve(Proto::Udp, port));
    }
    assert!(!world.nat.reserve(Proto::Udp, 2000));
    assert_eq!(world.nat.share().ports.udp, 536 / 4, "what is left is shared");
    for n in 0..536 {
        assert!(world.udp(1, 1 + n, remote(1)).unwrap().tuple.sport >= 65_000);
    }
    let stats = world.nat.stats();
    assert_eq!((stats.ports_free.udp, stats.flushes), (536 - 536 / 4, 0));
    world.nat.flush(world.now);
    assert_eq!(world.nat.stats().ports_free.udp, 536);
}

#[test]
fn n31_a_port_that_the_firewall_takes_is_nobody_elses_until_it_is_given_back() {
    let mut world = World::sized(40 << 20);
    for port in 1024..65_000 {
        assert!(world.nat.reserve(Proto::Udp, port));
    }
    let own: BTreeSet<u16> = (0..36).filter_map(|_| world.nat.take_port(Proto::Udp)).collect();
    assert_eq!(own.len(), 36, "each another one");
    let share = world.nat.share().ports.udp;
    assert_eq!(share, 500 / 4);
    let mut ports = BTreeSet::new();
    for slot in 0..4 {
        let sent = (0..share as u16).map(|n| world.udp(slot, 1 + n, remote(1)).unwrap().tuple);
        ports.extend(sent.map(|tuple| tuple.sport));
    }
    assert_eq!((ports.len(), ports.is_disjoint(&own)), (500, true));
    assert_eq!(world.nat.take_port(Proto::Udp), None);
    own.iter().for_each(|port| world.nat.give_port_back(Proto::Udp, *port));
    assert_eq!(world.nat.stats().ports_free.udp, 36);
}

#[test]
fn n38_each_redirected_query_has_a_port_of_its_own_and_hears_whom_it_asked() {
    let mut world = World::new();
    let [virtual_1, virtual_2] = [[10, 139, 1, 1], [10, 139, 1, 2]].map(IpAddr::from);
    let real = (remote(53), 53);
    let ask = tuple(Proto::Udp, inside(1), 5000, virtual_1, 53);
    let first = world.send_to(client(1), ask, &udp(), Some(real)).unwrap();
    assert_eq!((first.tuple.dst, first.change.dst), (real.0, Some(real)));
    let ask_2 = Tuple { dst: virtual_2, ..ask };
    let second = world.send_to(client(1), ask_2, &udp(), Some(real)).unwrap();
    let direct = world.udp(1, 5000, remote(9)).unwrap();
    let ports = BTreeSet::from([first, second, direct].map(|p| p.tuple.sport));
    assert_eq!(ports.len(), 3);
    // A and AAAA share a socket: both answers arrive, from the address asked.
    for _ in 0..2 {
        let got = world.receive(first.tuple.reversed(), &udp()).unwrap();
        assert_eq!((got.tuple, got.change.src), (ask.reversed(), Some((virtual_1, 53))));
    }
    assert_eq!(world.receive(second.tuple.reversed(), &udp()).unwrap().tuple, ask_2.reversed());
    // Nobody but the real resolver.
    let forged = Tuple { src: virtual_1, ..first.tuple.reversed() };
    assert_eq!(world.receive(forged, &udp()), Err(DropReason::Unsolicited));
    // No ICMP error about it: what it quotes is not for the client.
    let quote = Quote { tuple: first.tuple, l3: 42, l4: 62, tcp_seq: None };
    let error = world.nat.icmp_error(world.now, Sender::World(Uplink::FIRST), real.0, &quote);
    assert_eq!(error, Err(DropReason::UnrelatedIcmp));
    // About TCP they come from the address asked, too, but those of routers do not.
    let ask = Tuple { proto: Proto::Tcp, ..ask };
    let sent = world.send_to(client(1), ask, &segment(SYN, 1, 0, 0), Some(real)).unwrap();
    let quote = Quote { tuple: sent.tuple, l3: 42, l4: 62, tcp_seq: Some(1) };
    let error =
        world.nat.icmp_error(world.now, Sender::World(Uplink::FIRST), real.0, &quote).unwrap();
    assert_eq!(error.outer.src, Some((virtual_1, 53)));
    assert_eq!(error.quoted.dst, Some((virtual_1, 53)));
    let error =
        world.nat.icmp_error(world.now, Sender::World(Uplink::FIRST), remote(7), &quote).unwrap();
    assert_eq!(error.outer.src, None);
}

#[test]
fn n40_a_full_table_refuses_and_serves_those_who_are_in() {
    let mut world = World::sized(300 << 10);
    let capacity = world.nat.stats().capacity;
    let mut sent = Vec::new();
    'all: for slot in 0..4 {
        for port in 0..capacity {
            let port = 1024 + u16::try_from(port).unwrap();
            let Ok(passage) = world.udp(slot, port, remote(1)) else { continue 'all };
            world.answer(passage.tuple).unwrap();
            sent.push(passage.tuple);
        }
    }
    assert!(sent.len() > capacity as usize - 4);
    for slot in 0..4 {
        assert_eq!(world.udp(slot, 60_000, remote(2)), Err(DropReason::QuotaExceeded));
    }
    sent.iter().for_each(|sent| assert!(world.answer(*sent).is_ok()));
}

#[test]
fn a_client_takes_its_flows_along_and_its_successor_starts_anew() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    let kept = world.udp(2, 5000, remote(1)).unwrap().tuple;
    let tuple = tuple(Proto::Udp, inside(1), 5000, remote(1), 4000);
    let id = world.flow_out(&tuple).unwrap();
    world.nat.client_gone(world.now, Port::new(1, 1));
    assert!(world.answer(sent).is_ok(), "another generation is another client");
    world.nat.client_gone(world.now, client(1));
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
    assert_eq!(world.nat.pass(world.now, id, Direction::Out, &udp()), Err(DropReason::Unsolicited));
    assert_eq!((world.nat.facts(id), world.nat.epoch(id)), (None, None));
    assert!(world.answer(kept).is_ok());
    let passage = world.send(Port::new(1, 1), tuple, &udp()).unwrap();
    assert_eq!(passage.client, Port::new(1, 1));
    assert_eq!(world.nat.pass(world.now, id, Direction::Out, &udp()), Err(DropReason::Unsolicited));
}

#[test]
fn n31_a_tuple_that_another_client_uses_is_refused() {
    let mut world = World::new();
    let tuple = tuple(Proto::Udp, inside(1), 5000, remote(1), 4000);
    let sent = world.send(client(1), tuple, &udp()).unwrap().tuple;
    let transport = &udp();
    let thief = NewFlow {
        uplink: Uplink::FIRST,
        client: client(2),
        tuple,
        transport,
        external: EXTERNAL,
        redirected: None,
        epoch: 1,
    };
    assert_eq!(world.nat.open(world.now, &thief), Err(DropReason::SpoofedSource));
    assert_eq!(world.answer(sent).unwrap().client, client(1));
}

#[test]
fn rules_find_each_flow_with_its_epoch_and_can_end_it_alone() {
    let mut world = World::new();
    let inner = tuple(Proto::Udp, inside(1), 5000, remote(1), 4000);
    let sent = world.send(client(1), inner, &udp()).unwrap().tuple;
    let other = world.udp(1, 5000, remote(2)).unwrap().tuple;
    let id = world.flow_out(&inner).unwrap();
    let facts = world.nat.facts(id).unwrap();
    assert_eq!((facts.client, facts.asked, facts.sent, facts.epoch), (client(1), inner, sent, 1));
    world.nat.approve(id, 2);
    assert_eq!(world.nat.epoch(id), Some(2));
    world.nat.close(world.now, id);
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
    assert!(world.answer(other).is_ok());
    assert_eq!(world.nat.stats().mappings, 1, "the other flow still uses the port");
}

#[test]
fn a_flow_that_is_over_is_gone_even_if_nobody_has_swept_yet() {
    let mut world = World::new();
    let sent = world.udp(1, 5000, remote(1)).unwrap().tuple;
    let id = world.flow_in(&sent.reversed()).unwrap();
    world.now = world.now + Duration::from_secs(301);
    assert_eq!(world.answer(sent), Err(DropReason::Unsolicited));
    let late = world.nat.pass(world.now, id, Direction::In, &udp());
    assert_eq!(late, Err(DropReason::Unsolicited), "found before, over since");
    assert!(world.udp(1, 5000, remote(1)).is_ok(), "and makes way for a new one");
    assert_eq!(world.nat.stats().flows, 1);
}

#[test]
fn sweeping_says_when_it_wants_to_go_on() {
    let mut world = World::new();
    assert_eq!(world.nat.tick(world.now, 10), None, "nothing to do, ever");
    for port in 0..20 {
        world.udp(1, 5000 + port, remote(1)).unwrap();
    }
    let next = world.nat.tick(world.now, 10).unwrap();
    assert_eq!(next, world.now + Duration::from_secs(301));
    world.now = next;
    assert_eq!(world.nat.tick(world.now, 10), Some(world.now), "no more than asked at once");
    assert_eq!(world.nat.stats().flows, 10);
    assert_eq!(world.nat.tick(world.now, 11), None);
    assert_eq!(world.nat.stats().expired, 20);
}

#[test]
fn sweeping_is_announced_wherever_the_clock_stands() {
    for start in 0..512 {
        for secs in [120, 300, 510] {
            let mut config = Config { slots: 2, ..Config::default() };
            config.timeouts.udp = Duration::from_secs(secs);
            let nat = Nat::new(config, Budget { bytes: 300 << 10 }, [5; 32]).unwrap();
            let now = Instant::from_secs(5000 + start);
            let mut world = World { nat, now, uplink: Uplink::FIRST, external: EXTERNAL };
            world.nat.tick(now, 1);
            world.udp(1, 5000, remote(1)).unwrap();
            let due = now + Duration::from_secs(secs + 1);
            assert_eq!(world.nat.tick(now, 1), Some(due), "{start} {secs}");
            assert_eq!(world.nat.tick(due, 2), None);
            assert_eq!(world.nat.stats().flows, 0);
        }
    }
}
