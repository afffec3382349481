//! `tidegate explain`: what becomes of a packet, and why. Never guesses what a VM's own rules say.

use crate::{Unusable, at, read, refuse, replay, rule};
use lang::Explanation;
use rules::{Action, Condition};
use serde_json::{Value, json};
use std::path::Path;

/// Explains what `file` does with `packet`; whether it is accepted.
pub(crate) fn run(file: &Path, packet: &str, json: bool) -> Result<bool, Unusable> {
    let (name, text) = (file.to_string_lossy(), read(file)?);
    let explained = match lang::explain((&name, &text), packet) {
        Ok(explained) => explained,
        Err(mistakes) => return Ok(refuse(&mistakes, json)),
    };
    // What was explained can be compiled.
    let policy = lang::compile(&name, &text).map(|compiled| compiled.policy).ok();
    let engine = |one: &Explanation| replay::described(policy.as_ref()?, one);
    let accepted = explained.iter().all(|one| one.decision.action == Action::Accept);
    if json {
        let packets: Vec<_> = explained.iter().map(|one| value(one, engine(one))).collect();
        println!("{:#}", json!({ "ok": true, "accepted": accepted, "packets": packets }));
        return Ok(accepted);
    }
    for (number, one) in explained.iter().enumerate() {
        if number > 0 {
            println!();
        }
        print(file, one);
        if let Some(outcome) = engine(one) {
            println!("  the firewall: {outcome}");
        }
    }
    Ok(accepted)
}

fn print(file: &Path, one: &Explanation) {
    let vm = one.vm.as_ref().map(|vm| format!(" (vm {vm})")).unwrap_or_default();
    let (from, to) = (one.packet.from, one.packet.to);
    println!("{from} -> {to}: {}{vm}", one.example());
    if one.is_led_on() {
        println!("  nat: it was sent to {}", one.sent);
    }
    for (rule, condition) in &one.passed {
        println!("  {}", at(file, rule));
        println!("      does not match: {}", why(*condition));
    }
    println!("  {}", at(file, &one.rule));
    println!("      {}", outcome(one));
    if one.decision.action == Action::Accept && one.masqueraded {
        println!("  nat: it leaves under the address of the firewall, from a random port");
    }
}

fn outcome(one: &Explanation) -> String {
    if one.stranded {
        return "nothing leads on from this address of the firewall: dropped".to_owned();
    }
    if one.decision.own.is_some() {
        return "decides: the VM's own rules are asked; without any, it is rejected".to_owned();
    }
    let limit = if one.decision.limit.is_some() { ", as often as its limit allows" } else { "" };
    let log = if one.decision.log.is_some() { ", and logs" } else { "" };
    format!("decides: {}{limit}{log}", one.decision.action)
}

const fn why(condition: Condition) -> &'static str {
    match condition {
        Condition::Traffic => "another protocol, port or type",
        Condition::Source => "another source",
        Condition::Destination => "another destination",
        Condition::State => "another state",
        Condition::Ttl => "another TTL",
        Condition::Dscp => "another DSCP",
        Condition::Length => "another length",
        Condition::Flags => "other flags",
    }
}

fn value(one: &Explanation, outcome: Option<String>) -> Value {
    let passed = one
        .passed
        .iter()
        .map(|(passed, condition)| json!({ "rule": rule(passed), "because": why(*condition) }));
    json!({
        "packet": crate::packet_text(&one.packet),
        "from": one.packet.from.to_string(),
        "to": one.packet.to.to_string(),
        "sent_to": one.is_led_on().then(|| one.sent.to_string()),
        "vm": one.vm,
        "hosts": crate::hosts(&one.example()),
        "passed": passed.collect::<Vec<_>>(),
        "rule": rule(&one.rule),
        "action": one.decision.action.to_string(),
        "own_rules": one.decision.own.is_some(),
        "log": one.decision.log.is_some(),
        "limited": one.decision.limit.is_some(),
        "masqueraded": one.masqueraded,
        "firewall": outcome,
        "stranded": one.stranded,
    })
}
