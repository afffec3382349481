//! What the firewall says of itself: ARP, neighbour discovery, pings, the next hop.

use crate::common::{Kind, Spec, packet, whole};
use crate::world::{
    OPEN, PERSONAL, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, from_work, from_world, ip,
    personal, us, us6, web, work, work6,
};
use std::net::IpAddr;
use tidegate::firewall::NextHop;
use wire::{
    Arp, DropReason, IcmpErrorKind, Instant, Mac, Ndp, Parsed, REPLY_MAX, TcpFlags, Transport,
    Uplink, parse, reply,
};

const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

pub fn arp_request(mac: Mac, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { panic!() };
    let mut out = [0; REPLY_MAX];
    let len = reply::arp_request(mac, sender, target, &mut out).unwrap();
    out[..len].to_vec()
}

fn arp_reply(mac: Mac, request: &[u8]) -> Vec<u8> {
    let mut out = [0; REPLY_MAX];
    let len = reply::arp_reply(&arp(request), mac, &mut out).unwrap();
    out[..len].to_vec()
}

fn arp(frame: &[u8]) -> Arp {
    let Ok(Parsed::Arp(arp)) = parse(&whole(frame)) else { panic!() };
    arp
}

fn solicit(src: IpAddr, target: IpAddr, mac: Mac) -> Vec<u8> {
    let IpAddr::V6(octets) = target else { panic!() };
    let kind = Kind::Icmp { kind: 135, code: 0, rest: 0 };
    let group = Mac([0x33, 0x33, 0xff, 0, 0, 1]);
    Spec::new(src, ip("ff02::1:ff00:1"), kind)
        .payload(&octets.octets())
        .ttl(255)
        .macs(group, mac)
        .frame()
}

#[test]
fn a_client_that_asks_for_any_address_is_told_the_backend() {
    let mut world = World::new(config(OPEN));
    for target in [us(), web(), personal(), ip("10.137.0.1")] {
        let asked = arp_request(WORK_MAC, work(), target);
        let told = arp(&world.send(WORK, &asked).answered(DropReason::Answered, WORK));
        assert_eq!((IpAddr::V4(told.sender), told.sender_mac), (target, Mac::BACKEND));
        assert_eq!(told.eth_dst, WORK_MAC);
    }
}

#[test]
fn a_client_that_asks_for_its_own_address_hears_nothing() {
    let mut world = World::new(config(OPEN));
    for sender in [work(), ip("0.0.0.0")] {
        world.send(WORK, &arp_request(WORK_MAC, sender, work())).silent(DropReason::NotForUs);
    }
    let probe = arp_request(WORK_MAC, ip("0.0.0.0"), us());
    world.send(WORK, &probe).answered(DropReason::Answered, WORK);
}

#[test]
fn a_client_that_asks_in_the_name_of_another_hears_nothing() {
    let mut world = World::new(config(OPEN));
    let asked = arp_request(WORK_MAC, personal(), us());
    world.send(WORK, &asked).silent(DropReason::SpoofedSource);
}

#[test]
fn the_uplink_is_told_our_own_address_and_no_other() {
    let mut world = World::new(config(OPEN));
    let asked = arp_request(GATEWAY_MAC, ip("10.138.0.1"), us());
    let told = arp(&world.send(UPLINK, &asked).answered(DropReason::Answered, UPLINK));
    assert_eq!((IpAddr::V4(told.sender), told.sender_mac), (us(), UPLINK_MAC));
    let asked = arp_request(GATEWAY_MAC, ip("10.138.0.1"), work());
    world.send(UPLINK, &asked).silent(DropReason::NotForUs);
}

#[test]
fn neighbours_are_told_like_arp_and_duplicate_detection_hears_nothing() {
    let mut world = World::new(config(OPEN));
    let link_local = ip("fe80::216:3eff:fe5e:6c00");
    for src in [work6(), link_local] {
        let told =
            world.send(WORK, &solicit(src, us6(), WORK_MAC)).answered(DropReason::Answered, WORK);
        let IpAddr::V6(target) = us6() else { panic!() };
        let mac = Some(Mac::BACKEND);
        assert_eq!(packet(&told).transport, Transport::Ndp(Ndp::Advert { target, mac }));
    }
    world.send(WORK, &solicit(ip("::"), link_local, WORK_MAC)).silent(DropReason::NotForUs);
    world.send(WORK, &solicit(link_local, work6(), WORK_MAC)).silent(DropReason::NotForUs);
    world.send(PERSONAL, &solicit(link_local, us6(), WORK_MAC)).silent(DropReason::SpoofedSource);
    let told = world.send(UPLINK, &solicit(ip("fd09::ffff"), us6(), GATEWAY_MAC));
    let told = told.answered(DropReason::Answered, UPLINK);
    assert_eq!(packet(&told).eth_src, UPLINK_MAC);
    world
        .send(UPLINK, &solicit(ip("fd09::ffff"), work6(), GATEWAY_MAC))
        .silent(DropReason::NotForUs);
}

#[test]
fn clients_can_ping_the_gateway() {
    let mut world = World::new(config("drop"));
    for (client, us) in [(work(), us()), (work6(), us6())] {
        for len in [0, 56, 900] {
            let asked = from_work(Spec::ping(client, us, 7).payload(&vec![3; len]));
            let pong = world.send(WORK, &asked).answered(DropReason::Answered, WORK);
            let want =
                Spec::pong(us, client, 7).payload(&vec![3; len]).macs(WORK_MAC, Mac::BACKEND);
            assert_eq!(pong, want.frame());
        }
    }
}

#[test]
fn anything_else_to_the_gateway_is_refused() {
    let mut world = World::new(config(OPEN));
    for spec in
        [Spec::tcp((work(), 1), (us(), 22), TcpFlags::SYN), Spec::udp((work(), 68), (us(), 67))]
    {
        let error = world.send(WORK, &from_work(spec)).answered(DropReason::ToFirewall, WORK);
        let Transport::IcmpError(error) = packet(&error).transport else { panic!() };
        assert_eq!(error.kind, IcmpErrorKind::Unreachable { code: 13 });
    }
}

#[test]
fn without_an_uplink_clients_are_answered_and_told_that_there_is_no_way() {
    let mut world = World::isolated(config(OPEN));
    world.send(WORK, &arp_request(WORK_MAC, work(), us())).answered(DropReason::Answered, WORK);
    let ping = from_work(Spec::ping(work(), us(), 7));
    world.send(WORK, &ping).answered(DropReason::Answered, WORK);
    let out = from_work(Spec::udp((work(), 1), (web(), 2)));
    let error = world.send(WORK, &out).answered(DropReason::NoRoute, WORK);
    let Transport::IcmpError(error) = packet(&error).transport else { panic!() };
    assert_eq!(error.kind, IcmpErrorKind::Unreachable { code: 0 });
}

#[test]
fn a_client_that_asks_too_much_is_answered_no_more() {
    let mut world = World::new(config(OPEN));
    let asked = arp_request(WORK_MAC, work(), us());
    let answers = (0..1000).filter(|_| !world.send(WORK, &asked).replies.is_empty()).count();
    assert_eq!(answers, 250);
    assert_eq!(world.firewall.counters().answers_withheld, 750);
    // Its neighbour does not notice.
    let asked = arp_request(crate::world::PERSONAL_MAC, personal(), us());
    world.send(PERSONAL, &asked).answered(DropReason::Answered, PERSONAL);
}

#[test]
fn the_gateway_is_asked_for_and_until_it_answers_the_backend_is_the_next_hop() {
    let gateway = ip("10.138.0.1");
    let next_hop4 = NextHop::Ask(gateway);
    let mut config = config(OPEN);
    config.sites[Uplink::FIRST].next_hop4 = next_hop4;
    let mut world = World::new(config);
    let out = from_work(Spec::udp((work(), 1), (web(), 2)));
    let next_hop = |world: &mut World| packet(&world.send(WORK, &out).emitted(UPLINK)).eth_dst;
    let [(UPLINK, asked)] = &world.tick()[..] else { panic!() };
    let request = arp(asked);
    assert_eq!((IpAddr::V4(request.target), request.sender_mac), (gateway, UPLINK_MAC));
    assert_eq!(world.tick(), [], "not before its time");
    world.now = Instant::from_secs(2);
    assert_eq!(world.tick().len(), 1, "asked again");
    assert_eq!(next_hop(&mut world), Mac::BACKEND);
    world.send(UPLINK, &arp_reply(GATEWAY_MAC, asked)).silent(DropReason::Answered);
    assert_eq!(next_hop(&mut world), GATEWAY_MAC);
    assert_eq!(world.log(), ["next hop on the uplink is at 02:00:00:00:00:99"]);
    // Somebody else on the link changes nothing.
    let other = arp_request(WORK_MAC, ip("10.138.0.77"), us());
    world.send(UPLINK, &other).answered(DropReason::Answered, UPLINK);
    assert_eq!(next_hop(&mut world), GATEWAY_MAC);
}

#[test]
fn an_ipv6_gateway_is_asked_for_too() {
    let gateway = ip("fe80::1");
    let next_hop6 = NextHop::Ask(gateway);
    let mut config = config(OPEN);
    config.sites[Uplink::FIRST].next_hop6 = next_hop6;
    let mut world = World::new(config);
    let [(UPLINK, asked)] = &world.tick()[..] else { panic!() };
    let IpAddr::V6(target) = gateway else { panic!() };
    assert_eq!(packet(asked).transport, Transport::Ndp(Ndp::Solicit { target }));
    let kind = Kind::Icmp { kind: 136, code: 0, rest: 0x6000_0000 };
    let payload = [&target.octets()[..], &[2, 1], &GATEWAY_MAC.0].concat();
    let told = from_world(Spec::new(gateway, us6(), kind).payload(&payload).ttl(255));
    world.send(UPLINK, &told).silent(DropReason::Answered);
    let out = from_work(Spec::udp((work6(), 1), (ip("2001:db8::1"), 2)));
    assert_eq!(packet(&world.send(WORK, &out).emitted(UPLINK)).eth_dst, GATEWAY_MAC);
}
