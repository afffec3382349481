//! What the rules say about a flow.
//!
//! In: the first packet of a flow, or one of a flow that older rules accepted. Out: whether it may
//! pass, and a line for the log. Never: asked for each packet.

use super::{Author, Event, Firewall, LogLevel};
use core::net::IpAddr;
use nat::{Direction, FlowId};
use rules::{Action, Policy, Query, RejectKind, Zone};
use wire::{DropReason, Instant, Packet, Port, Proto, QueryKind, Transport, Tuple};

/// Rules looked at in one turn of the loop to prepare the index of rules that have just come: some
/// 40 µs, until it is ready.
const SETTLING: usize = 2000;

/// What the rules say about a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling {
    /// Why it is refused; `None` if it may pass.
    pub(super) refused: Option<DropReason>,
    /// How its sender is told, if so.
    pub(super) reject: Option<RejectKind>,
    author: Option<Author>,
    /// Whether the rule wants a line in the log.
    log: bool,
}

impl Firewall {
    /// Puts new rules in place of the old. Each flow is asked about again when its next packet
    /// comes, and lives or dies alone.
    pub fn set_policy(&mut self, policy: Option<Policy>) {
        self.counters.rules = policy.as_ref().map(rules::Counters::new).unwrap_or_default();
        self.policy = policy;
        self.epochs.change_all();
    }

    /// The rules as they are.
    #[must_use]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Goes on preparing the index of rules that have just come; `now` if that is not done yet.
    pub(super) fn settle(&mut self, now: Instant) -> Option<Instant> {
        let own = self.own.settle(SETTLING);
        let policy = self.policy.as_mut().is_none_or(|policy| policy.settle(SETTLING));
        (!own || !policy).then_some(now)
    }

    /// Asks the rules about a flow from a client to the world.
    pub(super) fn rule(&mut self, query: &Query) -> Ruling {
        let Some(policy) = &self.policy else {
            let refused = Some(DropReason::NoPolicy);
            return Ruling { refused, reject: None, author: None, log: false };
        };
        let decision = policy.decide(query, &self.own);
        self.counters.rules.count(decision.rule);
        let line = policy.rule(decision.rule).map(|(_, rule)| rule.line);
        let (refused, reject) = match decision.action {
            // The world knows no way back to a client's own address.
            Action::Accept
                if query.to == Zone::Uplink && !policy.masquerades(query.from, query.to) =>
            {
                (Some(DropReason::Untranslatable), Some(RejectKind::AdminProhibited))
            }
            Action::Accept => (None, None),
            Action::Drop => (Some(DropReason::RuleDrop), None),
            Action::Reject(kind) => (Some(DropReason::RuleReject), Some(kind)),
        };
        let author = Some(Author { line, own: decision.own });
        Ruling { refused, reject, author, log: decision.log }
    }

    /// Asks about a flow from the world to a client, of which `lets_in` is known
    /// ([`nat::Nat::still_lets_in`]).
    pub(super) fn rule_inbound(&mut self, lets_in: Option<bool>, query: &Query) -> Ruling {
        let silent = |refused| Ruling { refused, reject: None, author: None, log: false };
        match lets_in {
            None => silent(Some(DropReason::Unsolicited)),
            Some(true) => silent(None),
            Some(false) => Ruling { reject: None, ..self.rule(query) },
        }
    }

    /// Whether the rules as they are now let `flow`, which is of `client`, go on; if not, it is over.
    ///
    /// # Errors
    /// What the rules say instead.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        client: Port,
        flow: FlowId,
        packet: &Packet<'_>,
    ) -> Result<(), Ruling> {
        let epoch = self.epochs.of(client);
        if self.nat.epoch(flow) == Some(epoch) {
            return Ok(());
        }
        // A flow that is gone is found out by whoever passes it.
        let Some(facts) = self.nat.facts(flow) else { return Ok(()) };
        let (query, ruling) = match facts.opened {
            Direction::Out => {
                let tuple = Tuple { dst: facts.sent.dst, dport: facts.sent.dport, ..facts.asked };
                let query = query(&tuple, &packet.transport);
                (query, self.rule(&query))
            }
            Direction::In => {
                let query = inbound_query(&facts.asked.reversed(), &packet.transport);
                let lets_in = self.nat.still_lets_in(&facts);
                (query, self.rule_inbound(lets_in, &query))
            }
        };
        if ruling.refused.is_none() {
            self.nat.approve(flow, epoch);
            return Ok(());
        }
        self.nat.close(now, flow);
        self.log_flow(now, facts.client, &query, &ruling, ruling.refused);
        Err(ruling)
    }

    /// The real resolver that a packet asks for when it asks `tuple.dst`, which is one that clients are
    /// to ask. It may be where they think it is: its queries have ports and ids of their own all the
    /// same.
    pub(super) fn redirected(&self, tuple: Option<&Tuple>) -> Option<IpAddr> {
        let asks = |t: &&Tuple| t.dport == 53 && matches!(t.proto, Proto::Tcp | Proto::Udp);
        let asked = tuple.filter(asks)?.dst;
        match (&self.dns, &self.policy) {
            (Some(dns), _) => dns.target(asked),
            (None, Some(policy)) => policy.dns_target(asked),
            (None, None) => None,
        }
    }

    /// Logs what became of a new flow, if that is wanted. Accepted by the rules, it may still have
    /// been `refused` by the translator.
    pub(super) fn log_flow(
        &mut self,
        now: Instant,
        from: Port,
        query: &Query,
        ruling: &Ruling,
        refused: Option<DropReason>,
    ) {
        let wanted = match self.level {
            LogLevel::None => false,
            LogLevel::Drops => refused.is_some() || ruling.log,
            LogLevel::All => true,
        };
        if wanted {
            self.log(now, from, Event::Flow { from, query: *query, refused, rule: ruling.author });
        }
    }

    /// Logs that a packet was dropped before any rule was asked, if that is wanted.
    pub(super) fn log_drop(
        &mut self,
        now: Instant,
        from: Port,
        packet: &Packet<'_>,
        reason: DropReason,
    ) {
        if self.level != LogLevel::None {
            let uplink = self.links.uplink().is_some_and(|reach| reach.port == from);
            let zone = if uplink { Zone::Uplink } else { Zone::Clients };
            let event = Event::Dropped { from: zone, src: packet.src, dst: packet.dst, reason };
            self.log(now, from, event);
        }
    }

    fn log(&mut self, now: Instant, from: Port, event: Event) {
        if self.links.may_log(now, from) {
            self.journal.push(now, event);
        } else {
            self.journal.lose(now);
        }
    }
}

/// The question to the rules about a flow from the world to a client.
pub(super) fn inbound_query(tuple: &Tuple, carried: &Transport) -> Query {
    Query { from: Zone::Uplink, to: Zone::Clients, ..query(tuple, carried) }
}

/// The question to the rules about a flow from a client to the world.
pub(super) fn query(tuple: &Tuple, carried: &Transport) -> Query {
    let (sport, dport) = (tuple.sport, tuple.dport);
    let icmp = |echo| match carried {
        Transport::IcmpQuery(query) if query.kind == QueryKind::Timestamp => 13,
        _ => echo,
    };
    let transport = match tuple.proto {
        Proto::Tcp => rules::Transport::Tcp { sport, dport },
        Proto::Udp => rules::Transport::Udp { sport, dport },
        Proto::Icmp => rules::Transport::Icmp { kind: icmp(8), code: 0 },
        Proto::Icmpv6 => rules::Transport::Icmp { kind: 128, code: 0 },
    };
    let (src, dst) = (tuple.src, tuple.dst);
    Query { from: Zone::Clients, to: Zone::Uplink, src, dst, transport }
}
