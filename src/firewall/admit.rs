//! The question to the rules about one flow, and their answer.
//!
//! In: the packet that asks for admission. Out: whether its flow may pass, how its sender is told
//! otherwise, and the line for the log. Never: a look at header fields no rule asks for, or at
//! anything for a packet of a flow that is admitted.

use super::services::may_use;
use super::{Author, Firewall};
use rules::{Action, Header, Note, Policy, Query, RejectKind, RuleId, State, Transport, Zone};
use wire::{DropReason, Instant, Packet, Port};

/// What the rules say about a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling {
    /// Why it is refused; `None` if it may pass.
    pub(super) refused: Option<DropReason>,
    /// How its sender is told, if so.
    pub(super) reject: Option<RejectKind>,
    pub(super) author: Option<Author>,
    /// The rule that decided.
    pub(super) rule: RuleId,
    /// The line it wants in the log, if it does.
    pub(super) note: Option<Note>,
}

impl Ruling {
    /// One that no rule has made.
    pub(super) const fn unasked(refused: Option<DropReason>) -> Self {
        Self { refused, reject: None, author: None, rule: RuleId::DEFAULT, note: None }
    }
}

impl Firewall {
    /// Asks the rules about the flow of `packet`, which is one of `client`.
    pub(super) fn rule(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        state: State,
        client: Port,
        query: &Query,
    ) -> Ruling {
        let Some(policy) = &self.policy else {
            return Ruling::unasked(Some(DropReason::NoPolicy));
        };
        let inside = if query.from == Zone::Clients { query.src } else { query.dst };
        let mac = self.links.client(client).map(|reach| reach.mac.0);
        if mac.is_some_and(|mac| !may_use(policy, inside, mac)) {
            return Ruling::unasked(Some(DropReason::SpoofedSource));
        }
        let hosts = &self.hosts.table;
        let decision = match policy.looks_at_headers() || is_icmp(query) {
            true => policy.decide(&looked_at(packet, state, query), &self.own, hosts),
            false => policy.decide(query, &self.own, hosts),
        };
        self.counters.rules.count(decision.rule);
        let line = policy.rule(decision.rule).map(|(_, rule)| rule.line).filter(|line| *line != 0);
        let (refused, reject) = match decision.action {
            // The world knows no way back to a client's own address.
            Action::Accept if is_untranslatable(policy, query) => {
                (Some(DropReason::Untranslatable), Some(RejectKind::AdminProhibited))
            }
            Action::Accept => (None, None),
            Action::Drop => (Some(DropReason::RuleDrop), None),
            Action::Reject(kind) => (Some(DropReason::RuleReject), Some(kind)),
        };
        let author = Some(Author { line, own: decision.own });
        let (rule, note) = (decision.rule, decision.log);
        // Only what begins is counted: a flow that goes on has been.
        let counted = state == State::New && decision.limit.is_some();
        if counted && !self.rates.may_decide(now, rule) {
            let refused = Some(DropReason::RateLimited);
            return Ruling { refused, reject: None, author, rule, note };
        }
        Ruling { refused, reject, author, rule, note }
    }

    /// Asks about a flow from the world to a client, of which `lets_in` is known
    /// ([`nat::Nat::still_lets_in`]).
    pub(super) fn rule_inbound(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        (state, lets_in): (State, Option<bool>),
        client: Port,
        query: &Query,
    ) -> Ruling {
        match lets_in {
            None => Ruling::unasked(Some(DropReason::Unsolicited)),
            Some(true) if !self.asks_about_forwards => Ruling::unasked(None),
            Some(_) => Ruling { reject: None, ..self.rule(now, packet, state, client, query) },
        }
    }
}

/// Whether the world would know no way back.
fn is_untranslatable(policy: &Policy, query: &Query) -> bool {
    query.to.uplink().is_some_and(|uplink| !policy.translates(query.src, uplink))
}

const fn is_icmp(query: &Query) -> bool {
    matches!(query.transport, Transport::Icmp { .. })
}

/// The question with all that rules may look at.
fn looked_at(packet: &Packet<'_>, state: State, query: &Query) -> Query {
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let byte = |at: usize| packet.head().get(at).copied().unwrap_or(0);
    let traffic_class = match packet.is_ipv6() {
        false => byte(l3.saturating_add(1)),
        true => byte(l3) << 4 | byte(l3.saturating_add(1)) >> 4,
    };
    let flags = match packet.transport {
        wire::Transport::Tcp(tcp) => tcp.flags.0,
        _ => 0,
    };
    let header = Header {
        state,
        ttl: packet.ttl,
        dscp: traffic_class >> 2,
        length: u16::try_from(packet.ip_len).unwrap_or(u16::MAX),
        flags,
    };
    let transport = match query.transport {
        // Of a flow that goes on, this may be the answer.
        Transport::Icmp { kind, .. } if state == State::New => {
            Transport::Icmp { kind, code: byte(l4.saturating_add(1)) }
        }
        other => other,
    };
    Query { header, transport, ..*query }
}
