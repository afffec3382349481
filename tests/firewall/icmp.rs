//! ICMP errors, in both directions and of our own.

use crate::common::{Spec, packet};
use crate::world::{
    OPEN, PERSONAL, UPLINK, WORK, WORK_MAC, World, config, from_work, from_world, ip, us, us6, web,
    web6, work, work6,
};
use wire::{DropReason, IcmpErrorKind, Mac, TcpFlags, Transport};

#[test]
fn a_router_on_the_way_is_heard_by_whoever_sent_the_packet() {
    let mut world = World::new(config(OPEN));
    let (router, router6) = (ip("192.0.2.1"), ip("2001:db8::99"));
    for (client, us, target, router, kind) in
        [(work(), us(), web(), router, (11, 0)), (work6(), us6(), web6(), router6, (3, 0))]
    {
        for spec in [
            Spec::udp((client, 33434), (target, 33435)),
            Spec::tcp((client, 5), (target, 443), TcpFlags::SYN),
            Spec::ping(client, target, 88),
        ] {
            let asked = from_work(spec.clone());
            let sent = world.send(WORK, &asked).emitted(UPLINK);
            let error = from_world(Spec::error(router, us, kind, 0, &sent[14..]));
            let told = world.send(UPLINK, &error).emitted(WORK);
            let got = packet(&told);
            assert_eq!((got.src, got.dst, got.eth_dst), (router, client, WORK_MAC));
            let Transport::IcmpError(error) = got.transport else { panic!() };
            assert_eq!(Some(error.quote.tuple), packet(&asked).tuple());
            // The packet it quotes is the client's own, but for the hop it had taken.
            let quote = Spec::error(router, client, kind, 0, &spec.ttl(63).packet()).ttl(63);
            assert_eq!(told, quote.macs(WORK_MAC, Mac::BACKEND).frame());
        }
    }
}

#[test]
fn an_error_about_nothing_we_sent_is_dropped() {
    let mut world = World::new(config(OPEN));
    let stranger = Spec::udp((us(), 4000), (web(), 53)).packet();
    let error = from_world(Spec::error(web(), us(), (3, 3), 0, &stranger));
    world.send(UPLINK, &error).silent(DropReason::UnrelatedIcmp);
    let asked = from_work(Spec::udp((work(), 1), (web(), 2)));
    let sent = world.send(WORK, &asked).emitted(UPLINK);
    let mut error = from_world(Spec::error(web(), us(), (3, 3), 0, &sent[14..]));
    *error.last_mut().unwrap() ^= 1;
    world.send(UPLINK, &error).silent(DropReason::BadChecksum);
    // Nor is one about our packet, told to somebody else.
    let error = from_world(Spec::error(web(), ip("192.0.2.9"), (3, 3), 0, &sent[14..]));
    world.send(UPLINK, &error).silent(DropReason::UnrelatedIcmp);
}

#[test]
fn a_client_that_refuses_an_answer_is_heard_by_whoever_gave_it() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = packet(&world.send(WORK, &asked).emitted(UPLINK)).tuple().unwrap().sport;
    let answer = from_world(Spec::udp((web(), 123), (us(), port)));
    let delivered = world.send(UPLINK, &answer).emitted(WORK);
    let refusal = from_work(Spec::error(work(), web(), (3, 3), 0, &delivered[14..]));
    let got = world.send(WORK, &refusal).emitted(UPLINK);
    let got = packet(&got);
    assert_eq!((got.src, got.dst), (us(), web()));
    let Transport::IcmpError(error) = got.transport else { panic!() };
    assert_eq!(Some(error.quote.tuple), packet(&answer).tuple());
    // To somebody else, or from somebody else, it says nothing.
    let refusal = from_work(Spec::error(work(), ip("192.0.2.7"), (3, 3), 0, &delivered[14..]));
    world.send(WORK, &refusal).silent(DropReason::UnrelatedIcmp);
    let personal = crate::world::personal();
    let refusal = from_work(Spec::error(personal, web(), (3, 3), 0, &delivered[14..]));
    world.send(PERSONAL, &refusal).silent(DropReason::UnrelatedIcmp);
}

#[test]
fn a_packet_that_has_used_up_its_hops_ends_here_and_says_so() {
    let mut world = World::new(config("drop"));
    for (client, us, target) in [(work(), us(), web()), (work6(), us6(), web6())] {
        let last = from_work(Spec::udp((client, 1), (target, 33434)).ttl(1));
        let told = world.send(WORK, &last).answered(DropReason::TtlExceeded, WORK);
        let got = packet(&told);
        assert_eq!((got.src, got.dst), (us, client));
        let Transport::IcmpError(error) = got.transport else { panic!() };
        assert_eq!(error.kind, IcmpErrorKind::TimeExceeded { code: 0 });
        let headers = if client.is_ipv6() { 48 } else { 28 };
        assert_eq!(told[14 + headers..], last[14..], "quoted as it was sent");
    }
}

#[test]
fn the_world_is_not_told_of_used_up_hops() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = packet(&world.send(WORK, &asked).emitted(UPLINK)).tuple().unwrap().sport;
    let answer = from_world(Spec::udp((web(), 123), (us(), port)).ttl(1));
    world.send(UPLINK, &answer).silent(DropReason::TtlExceeded);
}
