//! What policies say of several uplinks, as packets feel it.

use crate::answers::arp_request;
use crate::common::{Spec, packet};
use crate::world::{
    Fate, PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config_of, from_work, from_world, ip,
    personal, us, us6, web, web6, work, work6,
};
use std::net::IpAddr;
use tidegate::firewall::{Link, LogLevel, NextHop, Site};
use wire::{DropReason, Mac, Port, TcpFlags, Uplink, Verdict};

pub const LAB: Port = Port::new(9, 0);
pub const LAB_MAC: Mac = Mac([0, 0x16, 0x3e, 9, 9, 9]);
const VMS: &str = "zone lab = netfront 2
vm work = 10.137.0.10, fd09::a89:a
vm personal = 10.137.0.11
nat clients -> uplink masquerade
nat clients -> lab masquerade
";

/// Our own address on the second uplink.
pub fn lab() -> IpAddr {
    ip("10.9.0.1")
}

/// Somebody behind it.
pub fn bench() -> IpAddr {
    ip("10.9.7.7")
}

pub fn two_uplinks(text: &str) -> World {
    let mut config = config_of(&format!("{VMS}{text}"));
    let (IpAddr::V4(addr4), IpAddr::V6(addr6)) = (lab(), ip("fd0a::1")) else { panic!() };
    let next_hop4 = NextHop::Ask(ip("10.9.0.254"));
    let addr6 = Some(addr6);
    config.sites[Uplink::ALL[2]] = Site { addr4: Some(addr4), addr6, next_hop4, ..Site::default() };
    config.log = LogLevel::All;
    let mut world = World::new(config);
    let link = Link::Uplink { uplink: Uplink::ALL[2], mac: LAB_MAC, mtu: 1500, network: 2 };
    world.firewall.port_up(world.now, LAB, link);
    world
}

fn udp(dst: IpAddr, port: u16) -> Vec<u8> {
    let src = if dst.is_ipv4() { work() } else { work6() };
    from_work(Spec::udp((src, port), (dst, port)))
}

pub fn from_lab(spec: Spec) -> Vec<u8> {
    spec.macs(LAB_MAC, Mac::BACKEND).frame()
}

fn knock(src: IpAddr, dst: (IpAddr, u16)) -> Spec {
    Spec::tcp((src, 999), dst, TcpFlags::SYN)
}

/// Where a packet left, and under which source.
pub fn left(fate: Fate, by: Port) -> IpAddr {
    packet(&fate.emitted(by)).tuple().unwrap().src
}

#[test]
fn routes_say_on_which_uplink_a_network_lies() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         route 10.9.5.0/24 on uplink
         route fd0a::/64 on lab
         policy clients -> uplink { accept }
         policy clients -> lab { accept }",
    );
    for (dst, by, src) in [
        (bench(), LAB, lab()),
        (ip("fd0a::7"), LAB, ip("fd0a::1")),
        (ip("10.9.5.7"), UPLINK, us()),
        (web(), UPLINK, us()),
        (web6(), UPLINK, us6()),
    ] {
        assert_eq!(left(world.send(WORK, &udp(dst, 9)), by), src, "{dst}");
    }
}

#[test]
fn answers_come_by_the_uplink_of_their_flow() {
    let mut world = two_uplinks("route 10.9.0.0/16 on lab policy clients -> lab { accept }");
    let sent = packet(&world.send(WORK, &udp(bench(), 9)).emitted(LAB)).tuple().unwrap();
    let answer = Spec::udp((bench(), 9), (lab(), sent.sport));
    world.send(LAB, &from_lab(answer.clone())).emitted(WORK);
    let astray = world.send(UPLINK, &from_world(answer)).verdict;
    assert!(matches!(astray, Verdict::Drop(_)), "{astray:?}");
}

#[test]
fn a_flow_is_asked_about_in_the_block_of_its_uplink() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         policy clients -> uplink { accept udp 1; drop }
         policy personal -> lab { accept udp 2; reject }
         policy clients -> lab { accept udp 3; drop }",
    );
    let accepted = |world: &mut World, dst, port| {
        matches!(world.send(WORK, &udp(dst, port)).verdict, Verdict::Emit(_))
    };
    let mut ports =
        |dst| (1..4).filter(|port| accepted(&mut world, dst, *port)).collect::<Vec<_>>();
    assert_eq!((ports(web()), ports(bench())), (vec![1], vec![3]));
    world.log();
    let other = |port| {
        let spec = Spec::udp((personal(), port), (bench(), port));
        spec.macs(Mac::BACKEND, PERSONAL_MAC).frame()
    };
    world.send(PERSONAL, &other(2)).emitted(LAB);
    world.send(PERSONAL, &other(3)).answered(DropReason::RuleReject, PERSONAL);
    let log = world.log();
    assert!(log[1].contains("clients -> uplink 2: udp 10.137.0.11:3 -> 10.9.7.7:3"), "{log:?}");
}

#[test]
fn next_hops_and_gateways_are_asked_for_on_their_uplink() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         route 10.8.0.0/16 via 10.9.0.8 on lab
         route 10.7.0.0/16 via 10.138.1.7 on uplink",
    );
    let asked = world.tick();
    let mut asked: Vec<_> = asked.iter().map(|(port, arp)| (*port, &arp[38..42])).collect();
    asked.sort();
    assert_eq!(
        asked,
        [(UPLINK, &[10, 138, 1, 7][..]), (LAB, &[10, 9, 0, 8]), (LAB, &[10, 9, 0, 254])]
    );
}

#[test]
fn a_forward_is_for_who_comes_by_its_uplink() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         policy lab -> clients {
             forward tcp 8022 to work:22
             forward tcp 80 at 10.9.0.80 to personal
             drop
         }
         policy uplink -> clients { forward tcp 8022 to personal:2222; drop }",
    );
    let to = |fate: Fate, by| {
        let tuple = packet(&fate.emitted(by)).tuple().unwrap();
        (tuple.dst, tuple.dport)
    };
    let inward = world.send(LAB, &from_lab(knock(bench(), (lab(), 8022))));
    assert_eq!(to(inward, WORK), (work(), 22));
    let inward = world.send(LAB, &from_lab(knock(web(), (ip("10.9.0.80"), 80))));
    assert_eq!(to(inward, PERSONAL), (personal(), 80), "whatever its source says");
    let inward = world.send(UPLINK, &from_world(knock(web(), (us(), 8022))));
    assert_eq!(to(inward, PERSONAL), (personal(), 2222));
    for dst in [(lab(), 8022), (ip("10.9.0.80"), 80)] {
        let astray = world.send(UPLINK, &from_world(knock(bench(), dst))).verdict;
        assert!(matches!(astray, Verdict::Drop(_)), "{astray:?}");
    }
}

#[test]
fn a_vm_has_a_name_on_each_uplink() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         nat clients -> uplink one-to-one work to 192.0.2.10
         nat clients -> lab one-to-one work to 10.9.0.10
         nat clients -> lab snat from personal to 10.9.0.11
         policy clients -> uplink { accept }
         policy clients -> lab { accept }
         policy lab -> clients { accept udp 53; drop }
         policy uplink -> clients { drop }",
    );
    assert_eq!(left(world.send(WORK, &udp(bench(), 9)), LAB), ip("10.9.0.10"));
    assert_eq!(left(world.send(WORK, &udp(web(), 9)), UPLINK), ip("192.0.2.10"));
    let other = |dst| Spec::udp((personal(), 9), (dst, 9)).macs(Mac::BACKEND, PERSONAL_MAC).frame();
    assert_eq!(left(world.send(PERSONAL, &other(bench())), LAB), ip("10.9.0.11"));
    assert_eq!(left(world.send(PERSONAL, &other(web())), UPLINK), us());
    world.send(LAB, &from_lab(Spec::udp((bench(), 7), (ip("10.9.0.10"), 53)))).emitted(WORK);
    world
        .send(UPLINK, &from_world(Spec::udp((web(), 7), (ip("192.0.2.10"), 53))))
        .silent(DropReason::RuleDrop);
    // Each is answered for where it is a name, and nowhere else.
    let gateways = [(UPLINK, ip("10.138.1.2")), (LAB, ip("10.9.0.254"))];
    for (name, home) in [("192.0.2.10", UPLINK), ("10.9.0.10", LAB)] {
        for (port, gateway) in gateways {
            let asked = arp_request(Mac::BACKEND, gateway, ip(name));
            let answers = world.send(port, &asked).replies.len();
            assert_eq!(answers, usize::from(port == home), "{name} {port:?}");
        }
    }
}

#[test]
fn a_redirected_query_goes_where_the_real_resolver_is() {
    let mut world = two_uplinks(
        "redirect dns 10.139.1.1 to 10.9.0.53
         route 10.9.0.0/16 on lab
         policy clients -> lab { accept udp 53; drop }",
    );
    let query = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let asked = from_work(Spec::udp((work(), 1), (ip("10.139.1.1"), 53)).payload(&query));
    let sent = packet(&world.send(WORK, &asked).emitted(LAB)).tuple().unwrap();
    assert_eq!((sent.src, sent.dst), (lab(), ip("10.9.0.53")));
}

#[test]
fn no_uplink_stands_in_for_another() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         policy clients -> uplink { accept }
         policy clients -> lab { accept }",
    );
    world.send(WORK, &udp(bench(), 9)).emitted(LAB);
    world.firewall.port_down(world.now, LAB);
    for port in [9, 10] {
        let fate = world.send(WORK, &udp(bench(), port)).verdict;
        assert!(matches!(fate, Verdict::Drop(_)), "{fate:?}");
    }
    world.send(WORK, &udp(web(), 9)).emitted(UPLINK);
}

#[test]
fn nothing_passes_from_one_uplink_to_another() {
    let mut world = two_uplinks(
        "route 10.9.0.0/16 on lab
         policy clients -> uplink { accept }
         policy clients -> lab { accept }",
    );
    for (from, frame) in [
        (LAB, from_lab(knock(bench(), (web(), 80)))),
        (LAB, from_lab(knock(bench(), (us(), 80)))),
        (UPLINK, from_world(knock(web(), (bench(), 80)))),
        (UPLINK, from_world(knock(web(), (lab(), 80)))),
    ] {
        let fate = world.send(from, &frame);
        assert!(matches!(fate.verdict, Verdict::Drop(_)), "{fate:?}");
        assert_eq!(fate.replies, []);
    }
}
