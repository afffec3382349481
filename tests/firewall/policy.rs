//! What rules do to flows, and what is logged of it.

use crate::common::{Spec, packet};
use crate::world::{
    OPEN, PERSONAL, UPLINK, WORK, World, config, from_work, from_world, personal, us, web, web6,
    work, work6,
};
use rules::{Parts, Policy};
use tidegate::firewall::{Config, LogLevel};
use wire::{DropReason, IcmpErrorKind, TcpFlags, Transport};

fn syn(dport: u16) -> Vec<u8> {
    from_work(Spec::tcp((work(), 40000), (web(), dport), TcpFlags::SYN))
}

#[test]
fn without_a_policy_nothing_flows() {
    let mut world = World::new(Config { policy: None, ..config(OPEN) });
    world.send(WORK, &syn(443)).silent(DropReason::NoPolicy);
    let want = "drop clients -> uplink: tcp 10.137.0.10:40000 -> 93.184.216.34:443, no-policy";
    assert_eq!(world.log(), [want]);
}

#[test]
fn a_policy_without_masquerading_has_no_way_back_and_refuses() {
    let open = config(OPEN);
    let parts = open.policy.as_ref().unwrap().parts().clone();
    let policy = Policy::new(Parts { masquerade: vec![], ..parts }).ok();
    let mut world = World::new(Config { policy, ..open });
    world.send(WORK, &syn(443)).answered(DropReason::Untranslatable, WORK);
}

#[test]
fn drop_says_nothing_and_the_log_names_the_line() {
    let mut world = World::new(config("accept tcp 80\ndrop"));
    world.send(WORK, &syn(443)).silent(DropReason::RuleDrop);
    let want = "drop clients -> uplink: tcp 10.137.0.10:40000 -> 93.184.216.34:443, test.tide:5";
    assert_eq!(world.log(), [want]);
    world.send(WORK, &syn(80)).emitted(UPLINK);
    assert_eq!(world.log(), [""; 0]);
}

#[test]
fn each_kind_of_reject_is_told_in_its_own_way() {
    for (kind, code4, code6) in [
        ("admin-prohibited", 13, 1),
        ("host-unreachable", 1, 3),
        ("net-unreachable", 0, 0),
        ("port-unreachable", 3, 4),
    ] {
        let mut world = World::new(config(&format!("reject {kind}")));
        for (client, target, code) in [(work(), web(), code4), (work6(), web6(), code6)] {
            let frame = from_work(Spec::udp((client, 1), (target, 2)));
            let told = world.send(WORK, &frame).answered(DropReason::RuleReject, WORK);
            let Transport::IcmpError(error) = packet(&told).transport else { panic!() };
            assert_eq!(error.kind, IcmpErrorKind::Unreachable { code }, "{kind}");
            assert_eq!(Some(error.quote.tuple), packet(&frame).tuple());
        }
        assert!(world.log()[0].starts_with("reject clients -> uplink: udp"));
    }
}

#[test]
fn tcp_reset_is_a_reset_from_whom_was_called() {
    let mut world = World::new(config("reject tcp-reset tcp 25\naccept"));
    let told = world.send(WORK, &syn(25)).answered(DropReason::RuleReject, WORK);
    let Transport::Tcp(tcp) = packet(&told).transport else { panic!() };
    assert_eq!((tcp.flags, tcp.ack), (TcpFlags::RST.with(TcpFlags::ACK), 1001));
    assert_eq!(packet(&told).src, web());
}

#[test]
fn clients_do_not_reach_each_other() {
    let mut world = World::new(config(OPEN));
    let frame = from_work(Spec::tcp((work(), 1), (personal(), 22), TcpFlags::SYN));
    world.send(WORK, &frame).silent(DropReason::ClientToClient);
    assert!(world.log()[0].contains("client-to-client"));
    let own = from_work(Spec::tcp((work(), 1), (work(), 22), TcpFlags::SYN));
    world.send(WORK, &own).silent(DropReason::ClientToClient);
}

#[test]
fn new_rules_end_the_flows_they_refuse_and_no_other() {
    let mut world = World::new(config(OPEN));
    let (ntp, dns) =
        [123, 53].map(|port| from_work(Spec::udp((work(), 5000), (web(), port)))).into();
    let ports = [&ntp, &dns]
        .map(|frame| packet(&world.send(WORK, frame).emitted(UPLINK)).tuple().unwrap().sport);
    let answers = [(123, ports[0]), (53, ports[1])]
        .map(|(from, to)| from_world(Spec::udp((web(), from), (us(), to))));
    world.firewall.set_policy(config("accept udp 53\nreject admin-prohibited").policy);
    world.send(UPLINK, &answers[0]).silent(DropReason::RuleReject);
    world.send(UPLINK, &answers[0]).silent(DropReason::Unsolicited);
    world.send(UPLINK, &answers[1]).emitted(WORK);
    world.send(WORK, &dns).emitted(UPLINK);
    let rule = world.firewall.policy().unwrap().rule_ids().nth(1).unwrap();
    assert_eq!(world.firewall.counters().rules.of(rule), 1, "each flow is asked about once");
    world.send(WORK, &ntp).answered(DropReason::RuleReject, WORK);
}

#[test]
fn the_log_tells_as_much_as_is_wanted() {
    let lines = |log, rules: &str| {
        let mut world = World::new(Config { log, ..config(rules) });
        world.send(WORK, &syn(443));
        world.send(WORK, &syn(443));
        world.log().len()
    };
    assert_eq!(lines(LogLevel::None, "drop"), 0);
    assert_eq!(lines(LogLevel::None, "accept log"), 0);
    assert_eq!(lines(LogLevel::Drops, "drop"), 2);
    assert_eq!(lines(LogLevel::Drops, "accept"), 0);
    assert_eq!(lines(LogLevel::Drops, "accept log"), 1);
    assert_eq!(lines(LogLevel::All, "accept"), 1, "once a flow");
}

#[test]
fn a_noisy_client_does_not_fill_the_log() {
    let mut world = World::new(config("drop"));
    for port in 0..1000 {
        world.send(WORK, &syn(port)).silent(DropReason::RuleDrop);
    }
    let frame = from_work(Spec::udp((personal(), 1), (web(), 2)));
    world.send(PERSONAL, &frame).silent(DropReason::RuleDrop);
    let log = world.log();
    assert_eq!(log.len(), 22);
    assert!(log[20].contains("udp 10.137.0.11:1"));
    assert_eq!(log[21], "980 lines left out");
    assert_eq!(world.log(), [""; 0]);
    assert_eq!(world.firewall.counters().drops[DropReason::RuleDrop], 1001);
}
