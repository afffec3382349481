//! Clients that meet at one of our own addresses (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7).
//!
//! In: a packet of a client to an external address. Out: the same, out through the sender's flow and
//! back in through another client's, so that each sees the other's external name only. Never: an
//! answer that depends on whether a port is mapped, unless the rules between clients let it pass.

use super::emit::fits;
use super::fragments::{Course, First};
use super::inbound::may_open;
use super::outbound::{Ends, check_control};
use super::policy::query;
use super::{Firewall, Outcome, Reach};
use core::net::IpAddr;
use nat::{Direction, FlowId, Sender};
use rules::{Query, State, Zone};
use wire::{
    DropReason, IcmpError, IcmpErrorKind, Instant, Outbox, Packet, Port, Translation, Transport,
    Tuple, Uplink, Verdict,
};

/// What everything is dropped for that goes out and does not come in again.
const NOBODY: Verdict = Verdict::Drop(DropReason::Unsolicited);

impl Firewall {
    /// A packet to an address of ours on the uplink `by`, on which the firewall itself is `external`.
    pub(super) fn hairpin(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        flow: Option<FlowId>,
        (by, external): (Uplink, IpAddr),
        out: &mut Outbox<'_>,
    ) -> Outcome {
        match packet.transport {
            Transport::Tcp(_) | Transport::Udp(_) => {}
            Transport::IcmpQuery(_) if packet.dst != external => {}
            Transport::IcmpError(error) => {
                return self.hairpin_error(now, from, packet, &error, out);
            }
            Transport::Fragment(fragment) => {
                self.check_hop_between(now, from, by, packet, out)?;
                return self.later_between_clients(now, from, packet, &fragment, out);
            }
            _ => return self.knocked(now, from, packet, out),
        }
        let tuple = packet.tuple().ok_or(DropReason::Untranslatable)?;
        self.check_hop_between(now, from, by, packet, out)?;
        // Whom it goes to is known when its flows have been passed and its rule has counted it, which is
        // not to be done again for all of it.
        if fits(packet, self.links.narrowest_client()) == Err(Verdict::NeedWhole) {
            return Err(Verdict::NeedWhole);
        }
        check_control(packet)?;
        let datagram = self.may_begin(now, from.port, packet)?;
        let (flow, sent) = match self.pass(now, from, by, packet, flow, out)? {
            Some(passed) => passed,
            None => {
                let ends = Ends { tuple, redirected: None, by, external };
                self.open(now, from, packet, &ends, out)?
            }
        };
        let back = self.flow_back(now, from.port, by, packet, &tuple, &sent.tuple)?;
        let client = self.nat.facts(back).ok_or(NOBODY)?.client;
        let client = self.links.client(client).ok_or(NOBODY)?;
        self.check_mtu(now, from, packet, client.mtu, out)?;
        if self.renew(now, client.port, back, packet).is_err() {
            return Err(NOBODY);
        }
        let got = self.nat.pass(now, back, Direction::In, &packet.transport).map_err(|_| NOBODY)?;
        if let Some(datagram) = datagram {
            let first = First { flow, owner: from.port, course: Course::Between, to: client };
            self.begin(now, &datagram, &first, packet, out);
        }
        let change = Translation { src: sent.change.src, dst: got.change.dst, dns_id: None };
        self.emit_to_client(packet, client, change, Translation::NONE, out)
    }

    /// A packet may be as long as what the uplink carries, wherever it goes.
    fn check_hop_between(
        &mut self,
        now: Instant,
        from: Reach,
        by: Uplink,
        packet: &Packet<'_>,
        out: &mut Outbox<'_>,
    ) -> Result<(), Verdict> {
        let mtu = self.links.uplink(by).map_or(u16::MAX, |uplink| uplink.mtu);
        self.check_hop(now, from, packet, mtu, out)
    }

    /// The flow that what left as `sent` comes back in by, if rules between clients let it.
    fn flow_back(
        &mut self,
        now: Instant,
        from: Port,
        by: Uplink,
        packet: &Packet<'_>,
        asked: &Tuple,
        sent: &Tuple,
    ) -> Result<FlowId, Verdict> {
        if let Some(flow) = self.nat.find_in(now, self.nat.hash(sent), by, sent) {
            let there = self.nat.facts(flow).ok_or(NOBODY)?.asked;
            let allowed = self.may_meet(now, from, by, packet, asked, (there.src, there.sport));
            return if allowed { Ok(flow) } else { Err(NOBODY) };
        }
        let inbound = self.nat.inbound(sent, |addr| self.links.is_a_client(addr)).ok_or(NOBODY)?;
        if !may_open(packet) || !self.may_meet(now, from, by, packet, asked, inbound.to) {
            return Err(NOBODY);
        }
        self.open_inbound(now, by, packet, *sent, &inbound).map_err(|_| NOBODY)
    }

    /// Whether the rules between clients let the sender of a packet reach the client at `to`. They
    /// are asked for every packet: none of the two flows is between clients.
    fn may_meet(
        &mut self,
        now: Instant,
        from: Port,
        by: Uplink,
        packet: &Packet<'_>,
        asked: &Tuple,
        to: (IpAddr, u16),
    ) -> bool {
        let tuple = Tuple { dst: to.0, dport: to.1, ..*asked };
        let query = query(by, &tuple, &packet.transport);
        let query = Query { from: Zone::Clients, to: Zone::Clients, ..query };
        self.rule(now, packet, State::New, from, &query).refused.is_none()
    }

    /// An error of a client about a packet that came to it this way.
    fn hairpin_error(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        error: &IcmpError,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if packet.ttl <= 1 {
            let kind = IcmpErrorKind::TimeExceeded { code: 0 };
            self.error_to_client(now, from, packet, kind, out);
            return Err(DropReason::TtlExceeded.into());
        }
        self.believe(now, Sender::Client, packet, error)?;
        let left = self.nat.icmp_error(now, Sender::Client, packet.src, &error.quote)?;
        if left.client != from.port || error.quote.tuple.src != packet.dst {
            return Err(DropReason::UnrelatedIcmp.into());
        }
        // The packet it quotes, as it stood between the two flows.
        let (dst, dport) = left.quoted.dst.ok_or(DropReason::UnrelatedIcmp)?;
        let mut quote = error.quote;
        quote.tuple = Tuple { dst, dport, ..quote.tuple };
        let got = self.nat.icmp_error(now, Sender::World(left.uplink), dst, &quote)?;
        let client = self.links.client(got.client).ok_or(DropReason::EgressDown)?;
        let outer = Translation { src: left.outer.src, dst: got.outer.dst, dns_id: None };
        let quoted = Translation { src: got.quoted.src, dst: left.quoted.dst, dns_id: None };
        self.emit_to_client(packet, client, outer, quoted, out)
    }
}
