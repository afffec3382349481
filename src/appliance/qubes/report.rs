//! Answers for who looks after this firewall, one thing a line.
//!
//! In: the firewall as it is. Out: text of printable characters. Never: a secret, or a name from
//! outside as it came.

use super::View;
use crate::firewall::Alias;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::net::IpAddr;
use rules::{Header, Policy, Query, Transport, Uplink, Zone};
use wire::DropReason;

/// What there is: policy, uplink, each client and its rules.
pub(super) fn status(view: &View<'_>) -> String {
    let firewall = view.firewall;
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(match firewall.policy() {
        Some(policy) => format!("policy {} {}", policy.name().escape_debug(), policy.digest()),
        None => String::from("policy none: everything is dropped"),
    });
    line(format!("uplink {}", if firewall.has_uplink() { "up" } else { "down" }));
    line(format!("flows {} of {}", firewall.flows(), firewall.flows_max()));
    for addr in firewall.clients() {
        line(format!("client {addr} rules {}", rules_of(view, addr)));
    }
    for addr in firewall.own_rules().clients().filter(|addr| !firewall.is_up(*addr)) {
        line(format!("absent {addr} rules {}", rules_of(view, addr)));
    }
    for Alias { addr, visible, gateway } in firewall.aliases() {
        line(format!("fake {addr} is {visible} to itself, behind {gateway}"));
    }
    text
}

fn rules_of(view: &View<'_>, client: IpAddr) -> String {
    match view.firewall.own_rules().state(client) {
        None => String::from("blocked: dom0 has committed none"),
        Some(Err(why)) => format!("blocked: {why}"),
        Some(Ok(rules)) => format!("{rules}"),
    }
}

/// What was counted: `name number`.
pub(super) fn stats(view: &View<'_>) -> String {
    let (path, counted) = (view.path, view.firewall.counters());
    let mut text = String::new();
    let numbers = [
        ("frames-in", path.pulled),
        ("frames-out", path.sent),
        ("bytes-out", path.sent_bytes),
        ("passed", counted.emitted),
        ("passed-bytes", counted.emitted_bytes),
        ("kept", counted.kept),
        ("own-answers", counted.answers),
        ("own-answers-withheld", counted.answers_withheld),
        ("flows", u64::from(view.firewall.flows())),
    ];
    for (name, number) in numbers {
        let _endless = writeln!(text, "{name} {number}");
    }
    for reason in DropReason::ALL {
        let number = path.drops[*reason].saturating_add(counted.drops[*reason]);
        if number > 0 {
            let _endless = writeln!(text, "drop-{} {number}", reason.name());
        }
    }
    text
}

/// What the rules say about each line `SOURCE DESTINATION tcp|udp PORT` or
/// `SOURCE DESTINATION icmp [TYPE]`.
pub(super) fn explain(view: &View<'_>, asked: &[u8]) -> String {
    let mut text = String::new();
    for line in asked.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let shown = line.escape_ascii();
        let asked = core::str::from_utf8(line).ok();
        let _endless = match asked.and_then(|line| question(line, view.firewall.policy())) {
            Some(query) => writeln!(text, "{}", view.firewall.explain(&query)),
            None => writeln!(text, "{shown}: not SOURCE DESTINATION tcp|udp PORT, or icmp [TYPE]"),
        };
    }
    text
}

/// The question a line asks: by which uplink it would leave, the routes of the policy say.
fn question(line: &str, policy: Option<&Policy>) -> Option<Query> {
    let mut words = line.split_ascii_whitespace();
    let (src, dst): (_, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (proto, rest) = (words.next()?, words.next());
    // Any port a client may send from.
    let (sport, port) = (49152, rest.and_then(|word| word.parse().ok()));
    let transport = match proto {
        "tcp" => Transport::Tcp { sport, dport: port? },
        "udp" => Transport::Udp { sport, dport: port? },
        "icmp" => {
            let kind = rest.map_or(Some(8), |word| word.parse().ok())?;
            Transport::Icmp { kind, code: 0 }
        }
        _ => return None,
    };
    let services = policy.map(|policy| &policy.parts().services);
    let uplink = services.map_or(Uplink::FIRST, |services| services.uplink_to(dst));
    let (from, to) = (Zone::Clients, Zone::Uplink(uplink));
    words.next().is_none().then_some(Query { from, to, src, dst, transport, header: Header::PLAIN })
}
