//! Packets in fragments: the first finds the way, the others follow it.
//!
//! In: fragments in any order. Out: each on its way under the names its first one got, or kept until
//! that has come. Never: a fragment before its first has passed rules and translation.

use super::alias::Door;
use super::{Firewall, Outcome, Reach, fits};
use nat::{DatagramId, Direction, FlowId, Later, Nat, Passage, Piece};
use wire::{
    DropReason, Fragment, Frame, Instant, Mac, Offload, Outbox, Packet, Parsed, Port, Rewrite,
    Translation, Transport, Uplink, Verdict, WHOLE_MAX, cut, parse,
};

/// A datagram whose first fragment is on its way.
pub(super) struct Begun {
    id: DatagramId,
    piece: Piece,
    tcp_base: Option<u32>,
}

/// Which flows the fragments of a datagram go through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Their client's, to the world behind this uplink.
    Out(Uplink),
    /// Their client's, from the world.
    In,
    /// Their client's, and back in through another's.
    Between,
}

/// How the first fragment of a datagram passed.
pub(super) struct First {
    pub(super) flow: FlowId,
    /// The client that the flow belongs to.
    pub(super) owner: Port,
    pub(super) course: Course,
    pub(super) to: Reach,
}

/// Between which Ethernet addresses fragments go on, and where.
#[derive(Clone, Copy)]
struct Way {
    to: Reach,
    dst: Mac,
    src: Mac,
    door: Option<Door>,
}

impl Firewall {
    /// What is to be remembered of a first fragment if it passes; `None` of a whole packet.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] if its datagram has another one.
    pub(super) fn may_begin(
        &mut self,
        now: Instant,
        from: Port,
        packet: &Packet<'_>,
    ) -> Result<Option<Begun>, DropReason> {
        let Some(fragment) = packet.fragment else { return Ok(None) };
        let (id, piece) = place(from, packet, &fragment)?;
        self.fragments.may_begin(now, &id)?;
        let tcp_base = match packet.transport {
            Transport::Tcp(tcp) => {
                Some(tcp.seq.wrapping_sub(fragment.len.saturating_sub(tcp.data)))
            }
            _ => None,
        };
        Ok(Some(Begun { id, piece, tcp_base }))
    }

    /// The first fragment has passed: what waited for it goes after it.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        begun: &Begun,
        first: &First,
        packet: &Packet<'_>,
        out: &mut Outbox<'_>,
    ) {
        let Begun { id, piece, tcp_base } = *begun;
        let First { flow, owner, course, to } = *first;
        self.fragments.begin(now, id, piece, flow, owner, tcp_base);
        let way = self.way(course, to, packet);
        let Self { nat, fragments, early_out, early_in, counters, .. } = self;
        let early = if course == Course::In { early_in } else { early_out };
        while let Some(bytes) = early.next(now, &id) {
            let mut send = |packet: &Packet<'_>, piece| match fragments.later(now, &id, piece)? {
                Later::Follows(flow, end) => {
                    let passage = follow(nat, now, flow, course, end)?;
                    write(packet, &passage, way, out)
                }
                Later::Early => Err(DropReason::Fragment),
            };
            match reread(id.from, bytes).and_then(|(packet, piece)| send(&packet, piece)) {
                Ok(()) => counters.released(bytes.len()),
                Err(reason) => counters.dropped(reason),
            }
        }
    }

    /// A later fragment of a client.
    pub(super) fn later_from_client(
        &mut self,
        now: Instant,
        from: Reach,
        (by, uplink): (Uplink, Reach),
        packet: &Packet<'_>,
        fragment: &Fragment,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let passage = self.later(now, from.port, Course::Out(by), packet, fragment)?;
        if passage.client != from.port {
            return Err(DropReason::SpoofedSource.into());
        }
        if passage.uplink != by {
            return Err(DropReason::NoRoute.into());
        }
        self.emit_to_world(packet, (by, uplink), passage.change, Translation::NONE, out)
    }

    /// A later fragment of a client to another one.
    pub(super) fn later_between_clients(
        &mut self,
        now: Instant,
        from: Reach,
        packet: &Packet<'_>,
        fragment: &Fragment,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let passage = self.later(now, from.port, Course::Between, packet, fragment)?;
        let client = self.links.client(passage.client).ok_or(DropReason::Unsolicited)?;
        fits(packet, client.mtu)?;
        self.emit_to_client(packet, client, passage.change, Translation::NONE, out)
    }

    /// A later fragment of the world.
    pub(super) fn later_from_world(
        &mut self,
        now: Instant,
        (by, uplink): (Uplink, Reach),
        packet: &Packet<'_>,
        fragment: &Fragment,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if self.ours_on(packet.dst) != Some(by) {
            return Err(DropReason::Unsolicited.into());
        }
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded.into());
        }
        let passage = self.later(now, uplink.port, Course::In, packet, fragment)?;
        let client = self.links.client(passage.client).ok_or(DropReason::EgressDown)?;
        fits(packet, client.mtu)?;
        self.emit_to_client(packet, client, passage.change, Translation::NONE, out)
    }

    /// The flow that the first fragment of this later one's datagram passed by.
    pub(super) fn flow_of_later(
        &self,
        now: Instant,
        from: Port,
        packet: &Packet<'_>,
        fragment: &Fragment,
    ) -> Option<FlowId> {
        self.fragments.flow(now, &place(from, packet, fragment).ok()?.0)
    }

    /// The way of a later fragment, if its first one has passed. Otherwise it is kept.
    fn later(
        &mut self,
        now: Instant,
        from: Port,
        course: Course,
        packet: &Packet<'_>,
        fragment: &Fragment,
    ) -> Result<Passage, Verdict> {
        let (id, piece) = place(from, packet, fragment)?;
        match self.fragments.later(now, &id, piece)? {
            Later::Follows(flow, end) => Ok(follow(&mut self.nat, now, flow, course, end)?),
            Later::Early => {
                packet.need_whole()?;
                let from_world = course == Course::In;
                let early = if from_world { &mut self.early_in } else { &mut self.early_out };
                if early.keep(now, id, packet.head()) {
                    self.counters.dropped(DropReason::Fragment);
                }
                Err(Verdict::Kept)
            }
        }
    }

    fn way(&self, course: Course, to: Reach, packet: &Packet<'_>) -> Way {
        match course {
            Course::Out(by) => {
                Way { to, dst: self.ways.hop(by, packet.dst), src: to.mac, door: None }
            }
            Course::In | Course::Between => {
                Way { to, dst: to.mac, src: Mac::BACKEND, door: self.door(to.port) }
            }
        }
    }
}

/// Takes a later fragment, which with TCP reaches up to `end`, where its first one went. What went
/// between clients is found again by the name under which it left the first flow.
fn follow(
    nat: &mut Nat,
    now: Instant,
    flow: FlowId,
    course: Course,
    end: Option<u32>,
) -> Result<Passage, DropReason> {
    match course {
        Course::Out(_) => nat.follow(now, flow, Direction::Out, end),
        Course::In => nat.follow(now, flow, Direction::In, end),
        Course::Between => {
            let left = nat.follow(now, flow, Direction::Out, end)?;
            let back = nat.find_in(now, nat.hash(&left.tuple), left.uplink, &left.tuple);
            let got = nat.follow(now, back.ok_or(DropReason::Unsolicited)?, Direction::In, end)?;
            let change = Translation { src: left.change.src, ..got.change };
            Ok(Passage { change, ..got })
        }
    }
}

/// Which datagram a fragment belongs to, and where it stands in it.
fn place(
    from: Port,
    packet: &Packet<'_>,
    fragment: &Fragment,
) -> Result<(DatagramId, Piece), DropReason> {
    // In IPv6 the fragments of one packet may differ in what they say follows (RFC 8200 section 4.5).
    let protocol = if packet.is_ipv6() { 0 } else { fragment.protocol };
    let (src, dst, id) = (packet.src, packet.dst, fragment.id);
    Ok((DatagramId { from, src, dst, id, protocol }, Piece::new(fragment, fragment.len)?))
}

/// Reads a frame that was kept.
fn reread(from: Port, bytes: &[u8]) -> Result<(Packet<'_>, Piece), DropReason> {
    let len = u32::try_from(bytes.len()).map_err(|_| DropReason::Fragment)?;
    match parse(&Frame { from, head: bytes, len, offload: Offload::NONE }) {
        Ok(Parsed::Ip(packet)) => match packet.transport {
            Transport::Fragment(fragment) => Ok((packet, place(from, &packet, &fragment)?.1)),
            _ => Err(DropReason::Fragment),
        },
        _ => Err(DropReason::Fragment),
    }
}

/// Writes a frame that was kept, under its new names.
fn write(
    packet: &Packet<'_>,
    passage: &Passage,
    way: Way,
    out: &mut Outbox<'_>,
) -> Result<(), DropReason> {
    if packet.wire_len() > u32::from(way.to.mtu) {
        return Err(DropReason::TooBig);
    }
    let change = Rewrite {
        eth_dst: way.dst,
        eth_src: way.src,
        outer: way.door.map_or(passage.change, |door| door.translation(passage.change)),
        quoted: Translation::NONE,
        decrement_ttl: true,
    };
    let mut result = Ok(());
    let sent = out.reply(way.to.port, |place| {
        let written = packet.rewrite_whole(&change, place);
        written.map_err(|reason| result = Err(reason)).ok()
    });
    sent.map_err(|_| DropReason::EgressFull).and(result)
}

/// Sends a packet in fragments that its link carries.
#[inline(never)] // Seldom used, and its buffers would stand on the stack of every packet.
pub(super) fn cut(
    packet: &Packet<'_>,
    change: &Rewrite,
    to: Reach,
    out: &mut Outbox<'_>,
) -> Outcome {
    let mut whole = [0; WHOLE_MAX];
    let len = packet.rewrite_whole(change, &mut whole)?;
    let whole = whole.get(..len).unwrap_or_default();
    for nth in 0..cut::count(len, to.mtu) {
        let sent = out.reply(to.port, |place| cut::fragment(whole, nth, to.mtu, place));
        sent.map_err(|_| DropReason::EgressFull)?;
    }
    Err(Verdict::Kept)
}
