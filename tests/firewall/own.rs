//! Rules that dom0 keeps for each VM.

use crate::common::Spec;
use crate::world::{
    PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config, from_work, personal, web, work,
};
use rules::Family;
use rules::qubes::Tree;
use std::net::IpAddr;
use wire::{DropReason, Mac};

const QUBES: &str = "qubes";

/// Commits rules, numbered from 0, with the policy `drop`.
pub fn commit(world: &mut World, client: IpAddr, rules: &[&str]) -> bool {
    let numbered = (0..).zip(rules).map(|(n, rule)| (format!("{n:04}"), rule.as_bytes()));
    let entries: Vec<_> = numbered.chain([("policy".to_owned(), &b"drop"[..])]).collect();
    let entries = entries.iter().map(|(key, value)| (key.as_str(), *value));
    world.firewall.set_rules(client, Tree::parse(Family::of(client), entries))
}

fn datagram(from: IpAddr, dport: u16) -> Vec<u8> {
    let spec = Spec::udp((from, 5000), (web(), dport));
    if from == work() { from_work(spec) } else { spec.macs(Mac::BACKEND, PERSONAL_MAC).frame() }
}

#[test]
fn a_vm_without_rules_is_refused_and_one_with_rules_may_what_they_say() {
    let mut world = World::new(config(QUBES));
    world.send(WORK, &datagram(work(), 123)).answered(DropReason::RuleReject, WORK);
    assert!(commit(&mut world, work(), &["action=accept proto=udp dstports=123-123"]));
    world.send(WORK, &datagram(work(), 123)).emitted(UPLINK);
    world.send(WORK, &datagram(work(), 124)).answered(DropReason::RuleReject, WORK);
    world.send(PERSONAL, &datagram(personal(), 123)).answered(DropReason::RuleReject, PERSONAL);
}

#[test]
fn a_change_ends_the_flows_it_refuses_and_asks_nobody_elses() {
    let mut world = World::new(config(QUBES));
    let open = ["action=accept"];
    for client in [work(), personal()] {
        commit(&mut world, client, &open);
    }
    let send = |world: &mut World, from, client| world.send(from, &datagram(client, 123));
    send(&mut world, WORK, work()).emitted(UPLINK);
    send(&mut world, PERSONAL, personal()).emitted(UPLINK);
    let rule = world.firewall.policy().unwrap().rule_ids().nth(1).unwrap();
    let asked = |world: &World| world.firewall.counters().rules.of(rule);
    let before = asked(&world);
    assert!(!commit(&mut world, work(), &open), "dom0 often writes what already stands there");
    send(&mut world, WORK, work()).emitted(UPLINK);
    assert_eq!(asked(&world), before, "untouched when nothing changed");
    assert!(commit(&mut world, work(), &["action=accept proto=tcp"]));
    send(&mut world, PERSONAL, personal()).emitted(UPLINK);
    assert_eq!(asked(&world), before, "another client's flow is not asked about");
    send(&mut world, WORK, work()).answered(DropReason::RuleReject, WORK);
}
