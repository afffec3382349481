//! What a client sends.
//!
//! In: a frame from a vif. Out: the way it leaves by an uplink, or why it does not, and an answer if
//! its sender deserves one. Never: belief in an address that is not the client's own, a frame to
//! another client, or anything learnt from ARP.

use super::admit::Ruling;
use super::fragments::{Course, First};
use super::policy::query;
use super::{Firewall, Outcome, Reach, fits, is_martian};
use core::net::IpAddr;
use nat::{Direction, FlowId, NewFlow, Passage, Sender};
use rules::{RejectKind, State};
use wire::{
    Arp, ArpOperation, Dns, DropReason, IcmpError, IcmpErrorKind, IcmpQuery, Instant, Mac, Ndp,
    Outbox, Packet, Port, Tcp, TcpFlags, Translation, Transport, Tuple, Uplink, Verdict, reply,
};

/// The ends of a flow that is to be opened.
pub(super) struct Ends {
    /// As the client sent it.
    pub(super) tuple: Tuple,
    /// The real destination, if it is not the one asked.
    pub(super) redirected: Option<IpAddr>,
    /// The uplink it leaves by, and our address there.
    pub(super) by: Uplink,
    pub(super) external: IpAddr,
}

impl Firewall {
    /// Every address but the client's own is behind us (proxy ARP). One that asks for its own wants
    /// to know whether it is alone with it (RFC 5227), which it is.
    pub(super) fn client_arp(
        &mut self,
        now: Instant,
        from: Reach,
        arp: &Arp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if arp.eth_src.is_group() || arp.sender_mac.is_group() {
            return Err(DropReason::BadHeader.into());
        }
        let door = self.door(from.port);
        let owns = |addr| match door {
            Some(door) => door.is_visible(addr),
            None => self.links.owns(from.port, IpAddr::V4(addr)),
        };
        if arp.operation != ArpOperation::Request || owns(arp.target) {
            return Err(DropReason::NotForUs.into());
        }
        if !arp.sender.is_unspecified() && !owns(arp.sender) {
            return Err(DropReason::SpoofedSource.into());
        }
        self.answer(now, from.port, out, |place| reply::arp_reply(arp, Mac::BACKEND, place));
        Err(DropReason::Answered.into())
    }

    /// Decides an IP packet of a client.
    pub(super) fn client_packet(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        flow: Option<FlowId>,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if packet.eth_src.is_group() {
            return Err(DropReason::BadHeader.into());
        }
        if let Transport::Ndp(ndp) = packet.transport {
            return self.client_ndp(now, from, packet, ndp, out);
        }
        if packet.eth_dst != Mac::BACKEND {
            return Err(DropReason::NotForUs.into());
        }
        if !self.links.owns(from.port, packet.src) {
            return self.dropped(now, from, packet, DropReason::SpoofedSource);
        }
        let tuple = packet.tuple();
        let redirected = self.redirected(tuple.as_ref());
        let dst = redirected.unwrap_or(packet.dst);
        let asks = match (redirected, packet.transport) {
            (Some(_), Transport::Udp(_)) => Some(dns_query(packet)?),
            _ => None,
        };
        if is_martian(dst) {
            return Err(DropReason::MartianAddress.into());
        }
        if let Some(by) = self.ours_on(dst) {
            return match (self.nat.statics().hairpin, self.ways.own(by, dst)) {
                (true, Some(external)) => {
                    self.hairpin(now, from, packet, flow, (by, external), out)
                }
                _ => self.knocked(now, from, packet, out),
            };
        }
        if self.links.is_a_clients(dst) {
            return self.dropped(now, from, packet, DropReason::ClientToClient);
        }
        let came_by = match self.ways.are_several() {
            true => self.came_by(now, from.port, packet, flow),
            false => None,
        };
        let by = came_by.unwrap_or_else(|| self.ways.to(dst));
        let (Some(uplink), Some(external)) = (self.links.uplink(by), self.ways.own(by, dst)) else {
            self.reject(now, from, packet, RejectKind::NetUnreachable, out);
            return Err(DropReason::NoRoute.into());
        };
        self.check_hop(now, from, packet, uplink.mtu, out)?;
        if asks.is_some() {
            self.look_at_query(from.port, packet)?;
        }
        match (packet.transport, tuple) {
            (Transport::IcmpError(error), _) => {
                self.error_from_client(now, from, (by, uplink), packet, &error, out)
            }
            (Transport::Fragment(fragment), _) => {
                self.later_from_client(now, from, (by, uplink), packet, &fragment, out)
            }
            (_, None) => Err(DropReason::Untranslatable.into()),
            (_, Some(tuple)) => {
                check_control(packet)?;
                let datagram = self.may_begin(now, from.port, packet)?;
                let (flow, passage) = match self.pass(now, from, by, packet, flow, out)? {
                    Some(passed) => passed,
                    None => {
                        let ends = Ends { tuple, redirected, by, external };
                        self.open(now, from, packet, &ends, out)?
                    }
                };
                let dns_id = asks.map(|id| self.nat.ask(flow, id));
                if let Some(id) = dns_id {
                    self.note_query(now, from.port, (passage.tuple.sport, id), packet);
                }
                if let Some(datagram) = datagram {
                    let course = Course::Out(by);
                    let first = First { flow, owner: from.port, course, to: uplink };
                    self.begin(now, &datagram, &first, packet, out);
                }
                self.shorten(flow, Direction::Out, from.port);
                let change = Translation { dns_id, ..passage.change };
                self.emit_to_world(packet, (by, uplink), change, Translation::NONE, out)
            }
        }
    }

    /// Where the flow of a packet of a client came in, if the world opened it: it leaves there, whatever
    /// routes say.
    fn came_by(
        &self,
        now: Instant,
        from: Port,
        packet: &Packet<'_>,
        flow: Option<FlowId>,
    ) -> Option<Uplink> {
        let flow = flow.or_else(|| match packet.transport {
            Transport::IcmpError(error) => self.nat.quoted(now, Sender::Client, &error.quote),
            Transport::Fragment(fragment) => self.flow_of_later(now, from, packet, &fragment),
            _ => None,
        });
        self.nat.came_by(flow?)
    }

    /// Takes a packet through its flow, if it has one and the rules still allow it. One that leaves by
    /// another uplink than packets do now is over: who is behind that does not know it.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        from: Reach,
        by: Uplink,
        packet: &Packet<'_>,
        flow: Option<FlowId>,
        out: &mut Outbox<'_>,
    ) -> Result<Option<(FlowId, Passage)>, Verdict> {
        let Some(flow) = flow else { return Ok(None) };
        if self.ways.are_several() && self.nat.uplink(flow) != Some(by) {
            self.nat.close(now, flow);
            return Ok(None);
        }
        if let Err(ruling) = self.renew(now, from.port, flow, packet) {
            return self.refused(now, from, packet, &ruling, out);
        }
        match self.nat.pass(now, flow, Direction::Out, &packet.transport) {
            Ok(passage) if passage.client == from.port => Ok(Some((flow, passage))),
            Ok(_) => Err(DropReason::SpoofedSource.into()),
            // It ended just now; the packet may begin another.
            Err(DropReason::Unsolicited) => Ok(None),
            Err(reason) => Err(reason.into()),
        }
    }

    /// Opens a flow for a packet and takes it through, if the rules allow.
    pub(super) fn open(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        ends: &Ends,
        out: &mut Outbox<'_>,
    ) -> Result<(FlowId, Passage), Verdict> {
        let Ends { tuple, redirected, by, external } = *ends;
        self.check_opener(now, from, packet, out)?;
        let real = Tuple { dst: redirected.unwrap_or(tuple.dst), ..tuple };
        let query = query(by, &real, &packet.transport);
        let ruling = self.rule(now, packet, State::New, from.port, &query);
        if ruling.refused.is_some() {
            self.log_flow(now, from.port, &query, &ruling, ruling.refused);
            return self.refused(now, from, packet, &ruling, out);
        }
        let new = NewFlow {
            client: from.port,
            tuple,
            transport: &packet.transport,
            uplink: by,
            external,
            redirected: redirected.map(|real| (real, tuple.dport)),
            epoch: self.epochs.of(from.port),
        };
        let opened = self.nat.open(now, &new);
        self.log_flow(now, from.port, &query, &ruling, opened.err());
        match opened {
            Ok(opened) => Ok(opened),
            Err(reason) => {
                // RFC 5508 REQ-8: who is refused for want of room is told so.
                self.reject(now, from, packet, RejectKind::AdminProhibited, out);
                Err(reason.into())
            }
        }
    }

    /// Whether a packet that belongs to no flow may begin one. A TCP segment in the middle of
    /// nowhere is answered with a reset, so that a connection we have forgotten fails at once.
    fn check_opener(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        out: &mut Outbox<'_>,
    ) -> Result<(), Verdict> {
        match packet.transport {
            Transport::Tcp(tcp) if !opens_connection(&tcp) => {
                self.reject(now, from, packet, RejectKind::TcpReset, out);
                Err(DropReason::InvalidTcp.into())
            }
            Transport::IcmpQuery(IcmpQuery { is_reply: true, .. }) => {
                Err(DropReason::Unsolicited.into())
            }
            _ => Ok(()),
        }
    }

    /// What every router does before it sends a packet on (RFC 1812 section 5.3.1, RFC 1191).
    pub(super) fn check_hop(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        mtu: u16,
        out: &mut Outbox<'_>,
    ) -> Result<(), Verdict> {
        if packet.ttl <= 1 {
            let kind = IcmpErrorKind::TimeExceeded { code: 0 };
            self.error_to_client(now, from, packet, kind, out);
            return Err(DropReason::TtlExceeded.into());
        }
        self.check_mtu(now, from, packet, mtu, out)
    }

    /// Tells the sender of what is too big for a link of `mtu` bytes.
    pub(super) fn check_mtu(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        mtu: u16,
        out: &mut Outbox<'_>,
    ) -> Result<(), Verdict> {
        let fits = fits(packet, mtu);
        if fits == Err(DropReason::TooBig.into()) {
            let kind = IcmpErrorKind::TooBig { mtu: u32::from(mtu) };
            self.error_to_client(now, from, packet, kind, out);
        }
        fits
    }

    /// A packet to the firewall itself: it answers pings, and refuses everything else.
    pub(super) fn knocked(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if !matches!(packet.transport, Transport::IcmpQuery(_)) {
            self.reject(now, from, packet, RejectKind::AdminProhibited, out);
            return Err(DropReason::ToFirewall.into());
        }
        packet.need_whole()?;
        self.answer(now, from.port, out, |place| reply::echo_reply(packet, Mac::BACKEND, place));
        Err(DropReason::Answered.into())
    }

    /// An error of a client about a packet that came in by one of its flows.
    fn error_from_client(
        &self,
        now: Instant,
        from: Reach,
        (by, uplink): (Uplink, Reach),
        packet: &Packet<'_>,
        error: &IcmpError,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        self.believe(now, Sender::Client, packet, error)?;
        let passage = self.nat.icmp_error(now, Sender::Client, packet.src, &error.quote)?;
        // Only about its own flows, and only to whom it got the quoted packet from.
        let is_its = passage.client == from.port && passage.uplink == by;
        if !is_its || error.quote.tuple.src != packet.dst {
            return Err(DropReason::UnrelatedIcmp.into());
        }
        self.emit_to_world(packet, (by, uplink), passage.outer, passage.quoted, out)
    }

    /// Every address but the client's own is behind us, as with ARP. What asks from the unspecified
    /// address wants to hear nothing (RFC 4862 section 5.4).
    fn client_ndp(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        ndp: Ndp,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let IpAddr::V6(src) = packet.src else { return Err(DropReason::BadHeader.into()) };
        let own = src.is_unicast_link_local() || self.links.owns(from.port, packet.src);
        match ndp {
            _ if !self.links.speaks_ipv6(from.port) => Err(DropReason::SpoofedSource.into()),
            Ndp::Solicit { target } if own && !self.links.owns(from.port, target.into()) => {
                self.answer(now, from.port, out, |place| {
                    reply::neighbour_advert(packet, Mac::BACKEND, place)
                });
                Err(DropReason::Answered.into())
            }
            Ndp::Solicit { .. } | Ndp::Advert { .. } => Err(DropReason::NotForUs.into()),
        }
    }

    /// Tells the client as the rules want it.
    fn refused<T>(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        ruling: &Ruling,
        out: &mut Outbox<'_>,
    ) -> Result<T, Verdict> {
        if let Some(kind) = ruling.reject {
            self.reject(now, from, packet, kind, out);
        }
        Err(ruling.refused.unwrap_or(DropReason::RuleDrop).into())
    }

    pub(super) fn dropped(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        reason: DropReason,
    ) -> Outcome {
        self.log_drop(now, from.port, packet, reason);
        Err(reason.into())
    }
}

/// The id of a DNS query. What else is sent to a resolver that is really somewhere else goes nowhere.
fn dns_query(packet: &Packet<'_>) -> Result<u16, DropReason> {
    match packet.dns() {
        Some(Dns { id, is_answer: false }) => Ok(id),
        _ => Err(DropReason::BadHeader),
    }
}

/// A first segment: SYN, and none of the flags that only make sense later.
pub(super) fn opens_connection(tcp: &Tcp) -> bool {
    let later = TcpFlags::ACK.with(TcpFlags::RST).with(TcpFlags::FIN);
    tcp.flags.contains(TcpFlags::SYN) && tcp.flags.0 & later.0 == 0
}

/// A segment that may begin or end a connection must be what its sender sent.
pub(super) fn check_control(packet: &Packet<'_>) -> Result<(), Verdict> {
    let control = TcpFlags::SYN.with(TcpFlags::FIN).with(TcpFlags::RST);
    match packet.transport {
        Transport::Tcp(tcp) if tcp.flags.0 & control.0 != 0 => Ok(packet.trust_checksum()?),
        _ => Ok(()),
    }
}
