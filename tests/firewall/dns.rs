//! Resolvers that are really somewhere else.

use crate::common::{Kind, Spec, packet};
use crate::world::{
    UPLINK, WORK, World, config, config_of, from_work, from_world, ip, us, web, work,
};
use std::net::IpAddr;
use tidegate::firewall::{Config, DnsRedirect};
use wire::{DropReason, TcpFlags};

fn asked() -> IpAddr {
    ip("10.139.1.1")
}

fn real() -> IpAddr {
    ip("9.9.9.9")
}

fn redirecting(rules: &str) -> Config {
    let virtuals = vec![asked(), ip("10.139.1.2")];
    let dns = Some(DnsRedirect { virtuals, reals: vec![real()] });
    Config { dns, ..config(rules) }
}

/// A DNS message with a header and a little more.
fn message(id: u16, is_answer: bool) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let flags = if is_answer { 0x81 } else { 0x01 };
    vec![a, b, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
}

fn query(from: u16, resolver: IpAddr, id: u16) -> Vec<u8> {
    from_work(Spec::udp((work(), from), (resolver, 53)).payload(&message(id, false)))
}

fn answer(resolver: IpAddr, port: u16, id: u16) -> Vec<u8> {
    from_world(Spec::udp((resolver, 53), (us(), port)).payload(&message(id, true)))
}

/// The id of a DNS message in a frame.
fn id_of(frame: &[u8]) -> u16 {
    packet(frame).dns().unwrap().id
}

/// Where a query left from, and the id it has in the world.
fn asked_as(world: &mut World, query: &[u8]) -> (u16, u16) {
    let sent = world.send(WORK, query).emitted(UPLINK);
    let tuple = packet(&sent).tuple().unwrap();
    assert_eq!((tuple.src, tuple.dst, tuple.dport), (us(), real(), 53));
    (tuple.sport, id_of(&sent))
}

#[test]
fn n38_each_query_is_answered_once_by_the_resolver_asked_and_then_its_port_is_closed() {
    let mut world = World::new(redirecting("accept"));
    for resolver in [asked(), ip("10.139.1.2")] {
        let ask = query(5000, resolver, 7);
        let (port, seven) = asked_as(&mut world, &ask);
        // A and AAAA share a socket: both answers arrive, once each.
        let (_, eight) = asked_as(&mut world, &query(5000, resolver, 8));
        let neither = (0..).find(|id| ![seven, eight].contains(id)).unwrap();
        world.send(UPLINK, &answer(real(), port, neither)).silent(DropReason::Unsolicited);
        for (id, inside) in [(eight, 8), (seven, 7)] {
            let got = world.send(UPLINK, &answer(real(), port, id)).emitted(WORK);
            assert_eq!(packet(&got).tuple(), packet(&ask).tuple().map(wire::Tuple::reversed));
            assert_eq!(id_of(&got), inside);
            world.send(UPLINK, &answer(real(), port, id)).silent(DropReason::Unsolicited);
        }
        assert_eq!(world.firewall.flows(), 0, "closed with the last answer");
        let (again, id) = asked_as(&mut world, &ask);
        assert_ne!(again, port, "another query, another port");
        world.send(UPLINK, &answer(real(), again, id)).emitted(WORK);
    }
}

#[test]
fn n38_the_id_of_a_query_is_drawn_anew_and_the_client_is_never_told() {
    let mut world = World::new(redirecting("accept"));
    let mut ids = std::collections::BTreeSet::new();
    for sport in 5000..5064 {
        let (port, id) = asked_as(&mut world, &query(sport, asked(), 7));
        ids.insert(id);
        assert_eq!(asked_as(&mut world, &query(sport, asked(), 7)), (port, id), "sent again");
        if id != 7 {
            world.send(UPLINK, &answer(real(), port, 7)).silent(DropReason::Unsolicited);
        }
        let got = world.send(UPLINK, &answer(real(), port, id)).emitted(WORK);
        assert_eq!(id_of(&got), 7);
    }
    assert!(ids.len() > 60, "{ids:?}");
}

#[test]
fn n38_no_error_about_a_query_tells_the_client_its_id() {
    let mut world = World::new(redirecting("accept"));
    let sent = world.send(WORK, &query(5000, asked(), 7)).emitted(UPLINK);
    let quoted = &sent[14..];
    for (kind, code) in [(11, 0), (3, 3), (3, 1)] {
        let error = Spec::error(real(), us(), (kind, code), 0, quoted);
        world.send(UPLINK, &from_world(error)).silent(DropReason::UnrelatedIcmp);
    }
    world
        .send(UPLINK, &answer(real(), packet(&sent).tuple().unwrap().sport, id_of(&sent)))
        .emitted(WORK);
}

#[test]
fn n38_resolvers_that_are_where_clients_think_they_are_hear_of_each_query_by_its_own_port() {
    let dns = Some(DnsRedirect { virtuals: vec![real()], reals: vec![real()] });
    let mut world = World::new(Config { dns, ..config("accept") });
    let (port, id) = asked_as(&mut world, &query(5000, real(), 7));
    let got = world.send(UPLINK, &answer(real(), port, id)).emitted(WORK);
    assert_eq!(packet(&got).src, real());
    assert_eq!(world.firewall.flows(), 0, "closed with its answer");
}

#[test]
fn n38_what_is_no_query_goes_to_no_resolver_and_what_is_no_answer_comes_from_none() {
    let mut world = World::new(redirecting("accept"));
    for payload in [&b""[..], b"too short", &message(7, true)] {
        let bad = from_work(Spec::udp((work(), 5000), (asked(), 53)).payload(payload));
        world.send(WORK, &bad).silent(DropReason::BadHeader);
    }
    let (port, id) = asked_as(&mut world, &query(5000, asked(), 7));
    for payload in [&id.to_be_bytes()[..], &message(id, false)] {
        let bad = from_world(Spec::udp((real(), 53), (us(), port)).payload(payload));
        world.send(UPLINK, &bad).silent(DropReason::Unsolicited);
    }
    world.send(UPLINK, &answer(real(), port, id)).emitted(WORK);
}

#[test]
fn tcp_queries_are_redirected_too() {
    let mut world = World::new(redirecting("accept"));
    let syn = from_work(Spec::tcp((work(), 5000), (asked(), 53), TcpFlags::SYN));
    let sent = packet(&world.send(WORK, &syn).emitted(UPLINK)).tuple().unwrap();
    assert_eq!((sent.dst, sent.dport), (real(), 53));
    let flags = TcpFlags::SYN.with(TcpFlags::ACK);
    let kind = Kind::Tcp { sport: 53, dport: sent.sport, flags, seq: 1, ack: 1001 };
    let got =
        world.send(UPLINK, &from_world(Spec::new(real(), us(), kind).payload(b""))).emitted(WORK);
    assert_eq!(packet(&got).src, asked());
}

#[test]
fn only_the_real_resolver_may_answer() {
    let mut world = World::new(redirecting("accept"));
    let query = query(5000, asked(), 7);
    let sent = packet(&world.send(WORK, &query).emitted(UPLINK)).tuple().unwrap();
    for from in [asked(), web()] {
        let answer = from_world(Spec::udp((from, 53), (us(), sent.sport)));
        world.send(UPLINK, &answer).silent(DropReason::Unsolicited);
    }
}

#[test]
fn other_ports_of_a_resolver_are_not_redirected() {
    let mut world = World::new(redirecting("accept"));
    let other = from_work(Spec::udp((work(), 5000), (asked(), 853)));
    assert_eq!(packet(&world.send(WORK, &other).emitted(UPLINK)).dst, asked());
}

#[test]
fn rules_see_the_real_resolver() {
    let mut world = World::new(redirecting("accept udp 53 to 9.9.9.9\ndrop"));
    let query = query(5000, asked(), 7);
    world.send(WORK, &query).emitted(UPLINK);
    let direct = from_work(Spec::udp((work(), 5000), (ip("8.8.8.8"), 53)));
    world.send(WORK, &direct).silent(DropReason::RuleDrop);
}

#[test]
fn our_own_address_may_be_the_one_asked() {
    let dns = Some(DnsRedirect { virtuals: vec![us()], reals: vec![real()] });
    let mut world = World::new(Config { dns, ..config("accept") });
    let query = query(5000, us(), 7);
    assert_eq!(packet(&world.send(WORK, &query).emitted(UPLINK)).dst, real());
}

#[test]
fn the_policy_may_redirect_and_the_command_line_comes_before_it() {
    let text = "redirect dns 10.139.1.1 to 1.1.1.1\npolicy clients -> uplink {\naccept\n}\n\
                nat clients -> uplink masquerade";
    let query = query(5000, asked(), 7);
    let target = |config| packet(&World::new(config).send(WORK, &query).emitted(UPLINK)).dst;
    assert_eq!(target(config_of(text)), ip("1.1.1.1"));
    let dns = redirecting("accept").dns;
    assert_eq!(target(Config { dns, ..config_of(text) }), real());
}
