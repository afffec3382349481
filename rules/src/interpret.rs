//! What a policy means. This interpreter is the definition: it looks at one rule after the other
//! and at every range of every set, and whatever is faster is tested against it.
//!
//! In: a policy, the VMs' own rules, what names stand for, and the first packet of a flow. Out: a [`Decision`], or the
//! condition for which one rule does not speak of the packet. Never: asked by the firewall itself,
//! which uses [`Policy::decide`].

use crate::qubes::Trees;
use crate::{
    Action, AddrSet, Decision, HostTable, OwnRule, Point, Policy, Query, RangeSet, RejectKind,
    Rule, RuleId, Then, Traffic, Transport, What,
};
use core::net::IpAddr;

/// A condition of a rule, in the order in which a person reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Protocol, ports and ICMP types.
    Traffic,
    /// `from`
    Source,
    /// `to`
    Destination,
    /// `state`
    State,
    /// `ttl`
    Ttl,
    /// `dscp`
    Dscp,
    /// `length`
    Length,
    /// `flags`
    Flags,
}

/// Decides a new flow.
///
/// 1. The block for the direction of the packet is looked up. Without one, the flow is dropped.
/// 2. Its rules are asked in the order they were written; the first of which all conditions hold
///    decides. The last rule of a block has none, so there always is one.
/// 3. Where that rule says `qubes`, the VM's own rules are asked in the same way.
#[must_use]
pub fn interpret(policy: &Policy, own: &Trees, hosts: &HostTable, query: &Query) -> Decision {
    for (id, rule) in policy.block(query.from, query.to) {
        if failing(rule, hosts, query).is_some() {
            continue;
        }
        let (action, own) = match rule.then {
            Then::Do(action) => (action, None),
            Then::Qubes => {
                let (action, by) = interpret_own(own, query);
                (action, Some(by))
            }
        };
        return Decision { action, rule: id, log: rule.log, limit: rule.limit, own };
    }
    let (action, rule) = (Action::Drop, RuleId::DEFAULT);
    Decision { action, rule, log: None, limit: None, own: None }
}

/// What the VM that owns the source address of `query` says of itself: first match, then its
/// `policy` key. Without rules that were understood, it is refused.
#[must_use]
pub fn interpret_own(own: &Trees, query: &Query) -> (Action, OwnRule) {
    let refuse = Action::Reject(RejectKind::AdminProhibited);
    let Some((rules, otherwise)) = own.of(query.src) else { return (refuse, OwnRule::Blocked) };
    for rule in rules {
        let failing = failing(rule, &HostTable::new(), query);
        if let (None, Then::Do(action)) = (failing, rule.then) {
            return (action, OwnRule::Number(u16::try_from(rule.line).unwrap_or(u16::MAX)));
        }
    }
    (otherwise, OwnRule::Fallback)
}

/// The first condition of `rule` that does not hold for `query`; `None` if it matches.
///
/// `to` holds for the addresses the rule says, and for those that one of its names stands for at this
/// moment in the eyes of the sender. A name that stands for nothing adds nothing.
#[must_use]
pub fn failing(rule: &Rule, hosts: &HostTable, query: &Query) -> Option<Condition> {
    let traffic = match &rule.what {
        What::Any => true,
        What::Of(kinds) => kinds.iter().any(|kind| is_of(kind, query)),
    };
    if !traffic {
        return Some(Condition::Traffic);
    }
    if !holds(&rule.src, query.src) {
        return Some(Condition::Source);
    }
    let known = hosts.of(query.src, query.dst);
    let named = rule.hosts.iter().flat_map(|hosts| hosts.names()).any(|name| known.contains(name));
    if !named && !holds(&rule.dst, query.dst) {
        return Some(Condition::Destination);
    }
    let (when, header) = (rule.when.as_ref()?, &query.header);
    let conditions = [
        (Condition::State, when.state.is_none() || when.state == Some(header.state)),
        (Condition::Ttl, has(&when.ttl, header.ttl)),
        (Condition::Dscp, has(&when.dscp, header.dscp)),
        (Condition::Length, has(&when.length, header.length)),
        (Condition::Flags, has(&when.flags, header.flags)),
    ];
    conditions.into_iter().find(|(_, holds)| !holds).map(|(condition, _)| condition)
}

/// An ICMP type is a number of one family: type 8 is a ping in IPv4 and nothing in IPv6.
fn is_of(kind: &Traffic, query: &Query) -> bool {
    match (kind, query.transport) {
        (Traffic::Tcp { sport: s, dport: d }, Transport::Tcp { sport, dport })
        | (Traffic::Udp { sport: s, dport: d }, Transport::Udp { sport, dport }) => {
            has(s, sport) && has(d, dport)
        }
        (Traffic::Icmp, Transport::Icmp { .. }) => true,
        (Traffic::IcmpType { family, kind: k, code: c }, Transport::Icmp { kind, code }) => {
            *family == query.family() && *k == kind && (c.is_none() || *c == Some(code))
        }
        _ => false,
    }
}

fn holds(set: &AddrSet, addr: IpAddr) -> bool {
    set.ranges()
        .any(|(first, last)| first.is_ipv4() == addr.is_ipv4() && first <= addr && addr <= last)
}

fn has<T: Point>(set: &RangeSet<T>, value: T) -> bool {
    set.ranges().iter().any(|&(first, last)| first <= value && value <= last)
}
