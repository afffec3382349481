//! What users say about single connections through the firewall.

use crate::common::{Spec, packet};
use crate::engine::{OPEN, UPLINK, WORK, World, config, from_work, from_world, ip, us, web, work};
use tidegate::firewall::Budget;
use wire::{DropReason, Tuple};

fn tuple(frame: &[u8]) -> Tuple {
    packet(frame).tuple().unwrap()
}

/// Two peers behind NAT learn from STUN servers where they are seen, tell each other, and begin to send.
#[test]
fn webrtc_peers_find_no_way_to_each_other() {
    let mut world = World::new(config(OPEN));
    let stun = [(ip("198.51.100.1"), 3478), (ip("198.51.100.2"), 3478)];
    let seen = stun.map(|server| {
        let asked = from_work(Spec::udp((work(), 5000), server));
        let seen = tuple(&world.send(WORK, &asked).emitted(UPLINK));
        (seen.src, seen.sport)
    });
    assert_eq!(seen[0], seen[1], "what one server saw is where anybody finds the socket");
    let peer = (ip("203.0.113.7"), 50_000);
    let of_peer = from_world(Spec::udp(peer, seen[0]));
    world.send(UPLINK, &of_peer).silent(DropReason::Unsolicited);
    let to_peer = from_work(Spec::udp((work(), 5000), peer));
    let left = tuple(&world.send(WORK, &to_peer).emitted(UPLINK));
    assert_eq!((left.src, left.sport), seen[0]);
    let came = tuple(&world.send(UPLINK, &of_peer).emitted(WORK));
    assert_eq!((came.dst, came.dport), (work(), 5000));
}

/// Routers may quote no more than the header and eight bytes (RFC 792).
#[test]
fn icmp_errors_that_quote_little_are_lost() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 33434), (web(), 33435)));
    let sent = world.send(WORK, &asked).emitted(UPLINK);
    let router = ip("192.0.2.1");
    let error = from_world(Spec::error(router, us(), (11, 0), 0, &sent[14..14 + 28]));
    let told = world.send(UPLINK, &error).emitted(WORK);
    assert_eq!((packet(&told).src, packet(&told).dst), (router, work()));
}

/// One side talks, and what it wakes is its half of the connection alone; then many others come.
#[test]
fn a_connection_that_is_busy_one_way_is_forgotten_the_other_way() {
    let mut world = World::isolated_with(config(OPEN), Budget { bytes: 1 << 20 });
    world.uplink_up(1500);
    let upload = from_work(Spec::udp((work(), 5000), (web(), 9000)));
    let seen = tuple(&world.send(WORK, &upload).emitted(UPLINK));
    let answer = from_world(Spec::udp((web(), 9000), (us(), seen.sport)));
    world.send(UPLINK, &answer).emitted(WORK);
    let most = world.firewall.flows_max();
    for n in 0..3 * most {
        let (host, port) = (n / 50_000, u16::try_from(n % 50_000).unwrap());
        let other = Spec::udp((work(), 10_000 + port), (ip(&format!("198.51.100.{host}")), 53));
        world.send(WORK, &from_work(other)).emitted(UPLINK);
        if n % 64 == 0 {
            assert_eq!(tuple(&world.send(WORK, &upload).emitted(UPLINK)), seen);
        }
    }
    assert!(
        world.firewall.flows() < most,
        "three times as many as there is room for came and went"
    );
    world.send(UPLINK, &answer).emitted(WORK);
}
