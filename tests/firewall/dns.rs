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

#[test]
fn queries_go_to_the_real_resolver_and_answers_come_from_the_one_asked() {
    let mut world = World::new(redirecting("accept"));
    for resolver in [asked(), ip("10.139.1.2")] {
        let query = from_work(Spec::udp((work(), 5000), (resolver, 53)));
        let sent = packet(&world.send(WORK, &query).emitted(UPLINK)).tuple().unwrap();
        assert_eq!((sent.src, sent.dst, sent.dport), (us(), real(), 53));
        // A and AAAA share a socket: both answers arrive.
        for answer in [b"A", b"B"] {
            let answer = from_world(Spec::udp((real(), 53), (us(), sent.sport)).payload(answer));
            let got = world.send(UPLINK, &answer).emitted(WORK);
            assert_eq!(packet(&got).tuple(), packet(&query).tuple().map(wire::Tuple::reversed));
        }
    }
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
    let query = from_work(Spec::udp((work(), 5000), (asked(), 53)));
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
    let query = from_work(Spec::udp((work(), 5000), (asked(), 53)));
    world.send(WORK, &query).emitted(UPLINK);
    let direct = from_work(Spec::udp((work(), 5000), (ip("8.8.8.8"), 53)));
    world.send(WORK, &direct).silent(DropReason::RuleDrop);
}

#[test]
fn our_own_address_may_be_the_one_asked() {
    let dns = Some(DnsRedirect { virtuals: vec![us()], reals: vec![real()] });
    let mut world = World::new(Config { dns, ..config("accept") });
    let query = from_work(Spec::udp((work(), 5000), (us(), 53)));
    assert_eq!(packet(&world.send(WORK, &query).emitted(UPLINK)).dst, real());
}

#[test]
fn the_policy_may_redirect_and_the_command_line_comes_before_it() {
    let text = "redirect dns 10.139.1.1 to 1.1.1.1\npolicy clients -> uplink {\naccept\n}\n\
                nat clients -> uplink masquerade";
    let query = from_work(Spec::udp((work(), 5000), (asked(), 53)));
    let target = |config| packet(&World::new(config).send(WORK, &query).emitted(UPLINK)).dst;
    assert_eq!(target(config_of(text)), ip("1.1.1.1"));
    let dns = redirecting("accept").dns;
    assert_eq!(target(Config { dns, ..config_of(text) }), real());
}
