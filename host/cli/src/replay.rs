//! `tidegate explain` by the firewall itself: for a described packet, and for a capture.

use crate::capture::{self, Capture};
use crate::engine::{Client, Engine, Fate, Kind, own};
use crate::{Unusable, packet, read, refuse, unusable};
use lang::Explanation;
use rules::{Policy, RuleId, Then, Zone};
use serde_json::{Value, json};
use std::io::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use wire::{DropReason, Mac};

/// How many packets came to what.
#[derive(Default)]
struct Sums {
    opened: usize,
    passed: usize,
    answered: usize,
    refused: usize,
    foreign: usize,
    cut: usize,
}

/// Plays `capture` to a firewall with the policy in `file`. Clients are the VMs of the policy, and
/// `clients`. Whether nothing was refused.
pub(crate) fn run(
    file: &Path,
    capture: &Path,
    clients: &[IpAddr],
    json: bool,
) -> Result<bool, Unusable> {
    let (name, text) = (file.to_string_lossy(), read(file)?);
    let policy = match lang::compile(&name, &text) {
        Ok(compiled) => compiled.policy,
        Err(mistakes) => return Ok(refuse(&mistakes, json)),
    };
    let Capture { packets, others } =
        capture::read(capture).map_err(|why| unusable(capture, "read", why))?;
    let vms = policy.parts().vms.iter().map(|vm| client(&policy, vm.addrs.clone()));
    let clients: Vec<_> = vms.chain(clients.iter().map(|addr| Client::new(vec![*addr]))).collect();
    let mut engine = Engine::new(&policy, &clients)
        .map_err(|why| unusable(file, "run", Error::other(why.to_string())))?;
    let mut sums = Sums { foreign: others, ..Sums::default() };
    let mut told = Vec::new();
    for (number, packet) in (1..).zip(&packets) {
        let fate = engine.offer(&policy, (packet.at, None), &packet.bytes, packet.len);
        sums.add(fate.kind);
        if matches!(fate.kind, Kind::Opened | Kind::Refused(_)) {
            if json {
                told.push(value(number, packet.at, &fate, (&policy, &text)));
            } else {
                print(number, packet.at, &fate, (&policy, &text));
            }
        }
    }
    let all_good = sums.refused == 0;
    if json {
        let sums = sums.value();
        println!(
            "{:#}",
            json!({ "ok": true, "accepted": all_good, "packets": told, "sums": sums })
        );
    } else {
        println!("{sums}");
    }
    Ok(all_good)
}

/// What the firewall does with a packet that opens a flow, in words; `None` if it cannot be sent.
pub(crate) fn described(policy: &Policy, one: &Explanation) -> Option<String> {
    let (asked, sent) = (&one.packet, one.sent);
    let by = asked.from.uplink();
    let own = own(by.unwrap_or_default(), asked.dst);
    let bytes = packet::written(asked, sent.to.unwrap_or(own), sent.port)?;
    let ends = [(asked.from, asked.src), (asked.to, asked.dst)];
    let inside = ends.into_iter().filter(|(zone, _)| *zone == Zone::Clients);
    let clients: Vec<_> = inside.map(|(_, addr)| client(policy, vec![addr])).collect();
    let mut engine = Engine::new(policy, &clients).ok()?;
    if let Some(host) = &one.host {
        engine.suppose(asked.src, host, asked.dst);
    }
    let fate = engine.offer(policy, (Duration::ZERO, by), &bytes, bytes.len());
    Some(outcome(policy, &fate))
}

/// The client with these addresses, by the interface that alone may use them.
fn client(policy: &Policy, addrs: Vec<IpAddr>) -> Client {
    let vm = policy.parts().vms.iter().find(|vm| vm.addrs.iter().any(|addr| addrs.contains(addr)));
    let plain = Client::new(addrs);
    Client { mac: vm.and_then(|vm| vm.mac).map_or(plain.mac, Mac), ..plain }
}

fn print(number: usize, at: Duration, fate: &Fate, (policy, text): (&Policy, &str)) {
    let tuple = fate.tuple.map_or_else(|| "a packet without ports".to_owned(), |t| t.to_string());
    println!("#{number} {:.6} s: {tuple}", at.as_secs_f64());
    let name = policy.name();
    match fate.rule.map(|id| line(policy, id)) {
        Some(None) => println!("  {name}: no block for this direction"),
        Some(Some(line)) => println!("  {name}:{line}: {}", written_on(text, line)),
        None => println!("  no rule is asked"),
    }
    println!("      {}", outcome(policy, fate));
}

/// The line a rule was written on; `None` for the one that nobody wrote.
fn line(policy: &Policy, id: RuleId) -> Option<u32> {
    policy.rule(id).map(|(_, rule)| rule.line).filter(|line| *line != 0)
}

fn outcome(policy: &Policy, fate: &Fate) -> String {
    let asked = fate.rule.and_then(|id| policy.rule(id));
    match (fate.kind, fate.left) {
        _ if asked.is_some_and(|(_, rule)| rule.then == Then::Qubes) => {
            "the VM's own rules decide; without any, it is refused".to_owned()
        }
        (Kind::Opened | Kind::Passed, Some(left)) => format!("passes, leaves as {left}"),
        (Kind::Opened | Kind::Passed, None) => "passes".to_owned(),
        (Kind::Kept, _) => "waits for the rest of it".to_owned(),
        (Kind::Answered, _) => "the firewall answers it".to_owned(),
        (Kind::Refused(DropReason::RuleReject), _) => "refused, and its sender is told".to_owned(),
        (Kind::Refused(DropReason::RuleDrop), _) => "refused without a word".to_owned(),
        (Kind::Refused(reason), _) => format!("refused: {reason}"),
        (Kind::Foreign, _) => "neither from nor to a client".to_owned(),
        (Kind::Cut, _) => "not all of it was captured".to_owned(),
    }
}

fn written_on(text: &str, line: u32) -> &str {
    let line = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    text.lines().nth(line).unwrap_or_default().trim()
}

fn value(number: usize, at: Duration, fate: &Fate, (policy, text): (&Policy, &str)) -> Value {
    let line = fate.rule.and_then(|id| line(policy, id));
    json!({
        "number": number,
        "seconds": at.as_secs_f64(),
        "packet": fate.tuple.map(|tuple| tuple.to_string()),
        "line": line,
        "rule": line.map(|line| written_on(text, line)),
        "accepted": fate.kind == Kind::Opened,
        "outcome": outcome(policy, fate),
        "left": fate.left.map(|left| left.to_string()),
    })
}

impl Sums {
    fn add(&mut self, kind: Kind) {
        let sum = match kind {
            Kind::Opened => &mut self.opened,
            Kind::Passed | Kind::Kept => &mut self.passed,
            Kind::Answered => &mut self.answered,
            Kind::Refused(_) => &mut self.refused,
            Kind::Foreign => &mut self.foreign,
            Kind::Cut => &mut self.cut,
        };
        *sum += 1;
    }

    fn value(&self) -> Value {
        let Self { opened, passed, answered, refused, foreign, cut } = self;
        json!({
            "opened": opened, "passed": passed, "answered": answered,
            "refused": refused, "foreign": foreign, "cut": cut,
        })
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { opened, passed, answered, refused, foreign, cut } = self;
        write!(f, "{opened} opened a flow, {passed} passed with one, {answered} were answered, ")?;
        write!(f, "{refused} refused; {foreign} of nobody here, {cut} cut off")
    }
}
