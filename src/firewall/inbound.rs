//! What uplinks send.
//!
//! In: a frame from the world. Out: the way to the client whose flow it belongs to, or why there is
//! none. Never: a word to the world about a packet that belongs to no flow, or a flow of one uplink for
//! what comes by another.

use super::fragments::{Course, First};
use super::names::Left;
use super::outbound::{check_control, opens_connection};
use super::policy::inbound_query;
use super::{Firewall, Outcome, Reach, fits, is_martian};
use core::net::IpAddr;
use nat::{Answered, Direction, FlowId, Inbound, NewInflow, Sender};
use rules::State;
use wire::{
    Arp, ArpOperation, Dns, DropReason, IcmpError, IcmpErrorKind, Instant, Ndp, Outbox, Packet,
    Port, Translation, Transport, Tuple, Uplink, Verdict, reply,
};

impl Firewall {
    /// Answers for our own addresses, and listens to the next hop.
    pub(super) fn uplink_arp(
        &mut self,
        now: Instant,
        (by, uplink): (Uplink, Reach),
        arp: &Arp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let for_us = self.ours_on(arp.target.into()) == Some(by);
        if !for_us || arp.eth_src.is_group() {
            return Err(DropReason::NotForUs.into());
        }
        self.told(now, by, arp.sender.into(), arp.sender_mac);
        if arp.operation == ArpOperation::Request {
            self.answer(now, uplink.port, out, |place| reply::arp_reply(arp, uplink.mac, place));
        }
        Err(DropReason::Answered.into())
    }

    /// Decides an IP packet of the world.
    pub(super) fn uplink_packet(
        &mut self,
        now: Instant,
        (by, uplink): (Uplink, Reach),
        packet: &Packet<'_>,
        flow: Option<FlowId>,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if let Transport::Ndp(ndp) = packet.transport {
            return self.uplink_ndp(now, (by, uplink), packet, ndp, out);
        }
        if packet.eth_dst != uplink.mac {
            return Err(DropReason::NotForUs.into());
        }
        if self.links.is_a_clients(packet.src) || self.is_ours(packet.src) {
            self.log_drop(now, uplink.port, packet, DropReason::SpoofedSource);
            return Err(DropReason::SpoofedSource.into());
        }
        if is_martian(packet.src) || is_martian(packet.dst) {
            return Err(DropReason::MartianAddress.into());
        }
        if let Transport::Fragment(fragment) = packet.transport {
            return self.later_from_world(now, (by, uplink), packet, &fragment, out);
        }
        if let Transport::IcmpError(error) = packet.transport {
            return self.error_from_world(now, by, packet, &error, out);
        }
        if flow.is_none() && self.is_for_names(by, packet) {
            return Err(self.take_answer(now, packet));
        }
        let flow = match flow.map_or_else(|| self.let_in(now, by, packet), Ok) {
            Ok(flow) => flow,
            Err(verdict) => {
                if verdict == Verdict::Drop(DropReason::Unsolicited) {
                    self.log_drop(now, uplink.port, packet, DropReason::Unsolicited);
                }
                return Err(verdict);
            }
        };
        self.back(now, uplink, packet, flow, out)
    }

    /// Opens a flow for a packet that nobody asked for, if a static translation has a place for it
    /// and it may go there.
    fn let_in(&mut self, now: Instant, by: Uplink, packet: &Packet<'_>) -> Result<FlowId, Verdict> {
        let unasked = Verdict::from(DropReason::Unsolicited);
        let tuple = packet.tuple().ok_or(unasked)?;
        let inbound = self.nat.inbound(&tuple, |addr| self.links.is_a_client(addr));
        let may_open = || may_open(packet) && self.ours_on(packet.dst) == Some(by);
        let inbound = inbound.filter(|_| may_open()).ok_or(unasked)?;
        check_control(packet)?;
        let query = inbound_query(by, &inbound.tuple(&tuple), &packet.transport);
        let client = self.links.owner(inbound.to.0).ok_or(unasked)?;
        let asked = (State::New, Some(inbound.forwarded));
        let ruling = self.rule_inbound(now, packet, asked, client, &query);
        let opened = match ruling.refused {
            Some(reason) => Err(reason),
            None => self.open_inbound(now, by, packet, tuple, &inbound),
        };
        self.log_flow(now, client, &query, &ruling, opened.err());
        Ok(opened?)
    }

    /// Opens a flow from the world, or from another client that takes the same way.
    pub(super) fn open_inbound(
        &mut self,
        now: Instant,
        uplink: Uplink,
        packet: &Packet<'_>,
        tuple: Tuple,
        inbound: &Inbound,
    ) -> Result<FlowId, DropReason> {
        let client = self.links.owner(inbound.to.0).ok_or(DropReason::Unsolicited)?;
        let (transport, to) = (&packet.transport, inbound.to);
        let epoch = self.epochs.of(client);
        let new = NewInflow { client, uplink, tuple, transport, to, epoch };
        self.nat.open_inbound(now, &new).map(|(flow, _)| flow)
    }

    /// Takes a packet back through its flow.
    fn back(
        &mut self,
        now: Instant,
        uplink: Reach,
        packet: &Packet<'_>,
        flow: FlowId,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        check_control(packet)?;
        let facts = self.nat.facts(flow).ok_or(DropReason::Unsolicited)?;
        let elsewhere = || self.ways.to(facts.sent.dst) != facts.uplink;
        if self.ways.are_several() && facts.opened == Direction::Out && elsewhere() {
            // Its client reaches that remote by another uplink by now.
            self.nat.close(now, flow);
            return Err(DropReason::Unsolicited.into());
        }
        let client = facts.client;
        let client = self.links.client(client).ok_or(DropReason::EgressDown)?;
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded.into());
        }
        if let Err(verdict) = fits(packet, client.mtu) {
            if verdict == DropReason::TooBig.into() {
                self.too_big(now, uplink, packet, client.mtu, out);
            }
            return Err(verdict);
        }
        if let Err(ruling) = self.renew(now, client.port, flow, packet) {
            return Err(ruling.refused.unwrap_or(DropReason::RuleDrop).into());
        }
        let datagram = self.may_begin(now, uplink.port, packet)?;
        let answered = self.answered(client.port, packet, flow)?;
        let passage = self.nat.pass(now, flow, Direction::In, &packet.transport)?;
        if let Some(datagram) = datagram {
            let first = First { flow, owner: client.port, course: Course::In, to: client };
            self.begin(now, &datagram, &first, packet, out);
        } else if answered.is_some_and(|(_, answered)| answered.last) {
            self.nat.close(now, flow);
        }
        self.shorten(flow, Direction::In, client.port);
        if let Some((left, _)) = answered {
            self.learn(now, client.port, left, packet);
        }
        let dns_id = answered.map(|(_, answered)| answered.id);
        let change = Translation { dns_id, ..passage.change };
        self.emit_to_client(packet, client, change, Translation::NONE, out)
    }

    /// What a packet answers, if its flow is a redirected DNS flow: the port and id under which that
    /// left, and those it had before. An answer that nobody waits for goes nowhere.
    fn answered(
        &mut self,
        client: Port,
        packet: &Packet<'_>,
        flow: FlowId,
    ) -> Result<Option<(Left, Answered)>, Verdict> {
        let Transport::Udp(udp) = packet.transport else { return Ok(None) };
        if !self.nat.is_dns(flow) {
            return Ok(None);
        }
        let Some(Dns { id, is_answer: true }) = packet.dns() else {
            return Err(DropReason::Unsolicited.into());
        };
        let left = (udp.dport, id);
        self.look_at_answer(client, left, packet)?;
        Ok(Some((left, self.nat.answer(flow, id)?)))
    }

    /// Whether an error may be believed as far as it goes beyond being one about a flow's packet.
    pub(super) fn believe(
        &self,
        now: Instant,
        sender: Sender,
        packet: &Packet<'_>,
        error: &IcmpError,
    ) -> Result<(), DropReason> {
        let IcmpErrorKind::TooBig { mtu } = error.kind else { return Ok(()) };
        let len = packet.quoted_len().ok_or(DropReason::UnrelatedIcmp)?;
        self.nat.check_too_big(now, sender, &error.quote, mtu, len)
    }

    /// An error about a packet that a client sent.
    fn error_from_world(
        &self,
        now: Instant,
        by: Uplink,
        packet: &Packet<'_>,
        error: &IcmpError,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let sender = Sender::World(by);
        self.believe(now, sender, packet, error)?;
        let passage = self.nat.icmp_error(now, sender, packet.src, &error.quote)?;
        // The packet it quotes left from one of our addresses, so that is where the error goes.
        if packet.dst != error.quote.tuple.src {
            return Err(DropReason::UnrelatedIcmp.into());
        }
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded.into());
        }
        let client = self.links.client(passage.client).ok_or(DropReason::EgressDown)?;
        if packet.wire_len() > u32::from(client.mtu) {
            return Err(DropReason::TooBig.into());
        }
        self.emit_to_client(packet, client, passage.outer, passage.quoted, out)
    }

    /// The link to the client is narrower than the one to us: whose packets are not cut ([`fits`]) has
    /// to know, or the flow stalls. It is known to have a flow, so this tells nobody about ports.
    fn too_big(
        &mut self,
        now: Instant,
        uplink: Reach,
        packet: &Packet<'_>,
        mtu: u16,
        out: &mut Outbox<'_>,
    ) {
        let kind = IcmpErrorKind::TooBig { mtu: u32::from(mtu) };
        self.answer(now, uplink.port, out, |place| {
            reply::icmp_error(packet, kind, packet.dst, uplink.mac, place)
        });
    }

    /// Answers for our own addresses, and listens to the next hop.
    fn uplink_ndp(
        &mut self,
        now: Instant,
        (by, uplink): (Uplink, Reach),
        packet: &Packet<'_>,
        ndp: Ndp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        match ndp {
            Ndp::Solicit { target } if self.ours_on(target.into()) == Some(by) => {
                self.answer(now, uplink.port, out, |place| {
                    reply::neighbour_advert(packet, uplink.mac, place)
                });
            }
            Ndp::Advert { target, mac: Some(mac) } if packet.eth_dst == uplink.mac => {
                self.told(now, by, IpAddr::V6(target), mac);
            }
            Ndp::Solicit { .. } | Ndp::Advert { .. } => return Err(DropReason::NotForUs.into()),
        }
        Err(Verdict::from(DropReason::Answered))
    }
}

/// Whether a packet is the first of a flow: an answer to nothing opens none.
pub(super) fn may_open(packet: &Packet<'_>) -> bool {
    match packet.transport {
        Transport::Tcp(tcp) => opens_connection(&tcp),
        Transport::IcmpQuery(query) => !query.is_reply,
        Transport::Udp(_) => true,
        _ => false,
    }
}
