//! What the rules say about a flow.
//!
//! In: the first packet of a flow, or one of a flow that older rules accepted. Out: whether it may
//! pass, and a line for the log. Never: asked for each packet.

use super::admit::Ruling;
use super::limit::Rates;
use super::{Event, Firewall, LogLevel, Side};
use core::net::IpAddr;
use nat::{Direction, FlowId};
use rules::{Header, Policy, Query, State, Uplink, Zone};
use wire::{DropReason, Instant, Packet, Port, Proto, QueryKind, Transport, Tuple};

/// Rules looked at in one turn of the loop to prepare the index of rules that have just come: some
/// 40 µs, until it is ready.
const SETTLING: usize = 2000;

impl Firewall {
    /// Puts new rules in place of the old. Each flow is asked about again when its next packet
    /// comes, and lives or dies alone.
    pub fn set_policy(&mut self, policy: Option<Policy>) {
        self.counters.rules = policy.as_ref().map(rules::Counters::new).unwrap_or_default();
        self.rates = Rates::new(policy.as_ref());
        self.policy = policy;
        self.take_services(self.last);
        self.epochs.change_all();
        self.take_resolvers(self.last);
        self.take_hosts(self.last);
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
        let approved = self.nat.epoch(flow);
        if approved.is_some_and(|epoch| self.epochs.still(client, epoch)) {
            return Ok(());
        }
        // A flow that is gone is found out by whoever passes it.
        let Some(facts) = self.nat.facts(flow) else { return Ok(()) };
        let (query, ruling) = match facts.opened {
            Direction::Out => {
                let tuple = Tuple { dst: facts.sent.dst, dport: facts.sent.dport, ..facts.asked };
                let query = query(facts.uplink, &tuple, &packet.transport);
                (query, self.rule(now, packet, State::Established, facts.client, &query))
            }
            Direction::In => {
                let query = inbound_query(facts.uplink, &facts.asked.reversed(), &packet.transport);
                let lets_in = self.nat.still_lets_in(&facts);
                (
                    query,
                    self.rule_inbound(
                        now,
                        packet,
                        (State::Established, lets_in),
                        facts.client,
                        &query,
                    ),
                )
            }
        };
        if ruling.refused.is_none() {
            self.nat.approve(flow, self.epochs.last());
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
        let asked = ruling.note.is_some();
        let wanted = match self.level {
            LogLevel::None => false,
            LogLevel::Drops => refused.is_some() || asked,
            LogLevel::All => true,
        };
        let severity = ruling.note.map(|note| note.severity);
        let rule = ruling.author;
        let event = Event::Flow { from, query: *query, refused, rule, severity };
        let may = self.rates.may_write(now, ruling.rule);
        self.syslog.note(now, event, refused.is_some(), asked && may);
        match (wanted, may) {
            (true, true) => self.log(now, from, event),
            (true, false) => self.journal.lose(now),
            (false, _) => {}
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
        let zone = match self.links.side(from) {
            Some(Side::Uplink(uplink, _)) => Zone::Uplink(uplink),
            Some(Side::Client(_)) | None => Zone::Clients,
        };
        let event = Event::Dropped { from: zone, src: packet.src, dst: packet.dst, reason };
        self.syslog.note(now, event, true, false);
        if self.level != LogLevel::None {
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

/// The question to the rules about a flow from behind `uplink` to a client.
pub(super) fn inbound_query(uplink: Uplink, tuple: &Tuple, carried: &Transport) -> Query {
    Query { from: Zone::Uplink(uplink), to: Zone::Clients, ..query(uplink, tuple, carried) }
}

/// The question to the rules about a flow from a client to the world behind `uplink`.
pub(super) fn query(uplink: Uplink, tuple: &Tuple, carried: &Transport) -> Query {
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
    let (from, to, header) = (Zone::Clients, Zone::Uplink(uplink), Header::PLAIN);
    Query { from, to, src, dst, transport, header }
}
