//! What the uplink sends.
//!
//! In: a frame from the world. Out: the way to the client whose flow it belongs to, or why there is
//! none. Never: a word to the world about a packet that belongs to no flow.

use super::outbound::check_control;
use super::{Firewall, Outcome, Reach, emit_to_client, is_martian};
use core::net::IpAddr;
use nat::{Direction, FlowId};
use wire::{
    Arp, ArpOperation, DropReason, IcmpError, IcmpErrorKind, Instant, Ndp, Outbox, Packet,
    Translation, Transport, Verdict, reply,
};

impl Firewall {
    /// Answers for our own address, and listens to the next hop.
    pub(super) fn uplink_arp(
        &mut self,
        now: Instant,
        uplink: Reach,
        arp: &Arp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let for_us = Some(arp.target) == self.addr4;
        if !for_us || arp.eth_src.is_group() {
            return Err(DropReason::NotForUs.into());
        }
        self.told(now, arp.sender.into(), arp.sender_mac);
        if arp.operation == ArpOperation::Request {
            self.answer(now, uplink.port, out, |place| reply::arp_reply(arp, uplink.mac, place));
        }
        Err(DropReason::Answered.into())
    }

    /// Decides an IP packet of the world.
    pub(super) fn uplink_packet(
        &mut self,
        now: Instant,
        uplink: Reach,
        packet: &Packet<'_>,
        flow: Option<FlowId>,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if let Transport::Ndp(ndp) = packet.transport {
            return self.uplink_ndp(now, uplink, packet, ndp, out);
        }
        if packet.eth_dst != uplink.mac {
            return Err(DropReason::NotForUs.into());
        }
        if self.links.is_a_client(packet.src) || self.own_addr(packet.src) == Some(packet.src) {
            self.log_drop(now, uplink.port, packet, DropReason::SpoofedSource);
            return Err(DropReason::SpoofedSource.into());
        }
        if is_martian(packet.src) || is_martian(packet.dst) {
            return Err(DropReason::MartianAddress.into());
        }
        if let Transport::Fragment(_) = packet.transport {
            return Err(DropReason::Fragment.into());
        }
        if let Transport::IcmpError(error) = packet.transport {
            return self.error_from_world(now, packet, &error, out);
        }
        let Some(flow) = flow else {
            self.log_drop(now, uplink.port, packet, DropReason::Unsolicited);
            return Err(DropReason::Unsolicited.into());
        };
        self.back(now, uplink, packet, flow, out)
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
        let client = self.nat.facts(flow).ok_or(DropReason::Unsolicited)?.client;
        let client = self.links.client(client).ok_or(DropReason::EgressDown)?;
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded.into());
        }
        if packet.wire_len() > u32::from(client.mtu) {
            self.too_big(now, uplink, packet, client.mtu, out);
            return Err(DropReason::TooBig.into());
        }
        if let Err(ruling) = self.renew(now, flow, packet) {
            return Err(ruling.refused.unwrap_or(DropReason::RuleDrop).into());
        }
        let passage = self.nat.pass(now, flow, Direction::In, &packet.transport)?;
        emit_to_client(packet, client, passage.change, Translation::NONE, out)
    }

    /// An error about a packet that a client sent.
    fn error_from_world(
        &self,
        now: Instant,
        packet: &Packet<'_>,
        error: &IcmpError,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let passage = self.nat.icmp_error(now, Direction::In, packet.src, &error.quote)?;
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
        emit_to_client(packet, client, passage.outer, passage.quoted, out)
    }

    /// The link to the client is narrower than the one to us: whoever may not be fragmented has to
    /// know, or the flow stalls. It is known to have a flow, so this tells nobody about ports.
    fn too_big(
        &mut self,
        now: Instant,
        uplink: Reach,
        packet: &Packet<'_>,
        mtu: u16,
        out: &mut Outbox<'_>,
    ) {
        let kind = IcmpErrorKind::TooBig { mtu: u32::from(mtu) };
        if packet.dont_fragment {
            self.answer(now, uplink.port, out, |place| {
                reply::icmp_error(packet, kind, packet.dst, uplink.mac, place)
            });
        }
    }

    /// Answers for our own address, and listens to the next hop.
    fn uplink_ndp(
        &mut self,
        now: Instant,
        uplink: Reach,
        packet: &Packet<'_>,
        ndp: Ndp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        match ndp {
            Ndp::Solicit { target } if Some(target) == self.addr6 => {
                self.answer(now, uplink.port, out, |place| {
                    reply::neighbour_advert(packet, uplink.mac, place)
                });
            }
            Ndp::Advert { target, mac: Some(mac) } if packet.eth_dst == uplink.mac => {
                self.told(now, IpAddr::V6(target), mac);
            }
            Ndp::Solicit { .. } | Ndp::Advert { .. } => return Err(DropReason::NotForUs.into()),
        }
        Err(Verdict::from(DropReason::Answered))
    }
}
