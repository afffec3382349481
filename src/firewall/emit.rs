//! The new head of a packet that goes on.
//!
//! In: a packet that may pass, its new names, where it goes. Out: the head in the outbox, or that the
//! packet has to be cut for its way. Never: a word of whether it may pass.

use super::links::Reach;
use super::{Firewall, Outcome, fragments};
use wire::{DropReason, Emit, Mac, Outbox, Packet, Rewrite, Translation, Uplink, Verdict};

impl Firewall {
    /// Writes the new head of a packet that leaves by an uplink.
    pub(super) fn emit_to_world(
        &self,
        packet: &Packet<'_>,
        (uplink, reach): (Uplink, Reach),
        outer: Translation,
        quoted: Translation,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let dst = outer.dst.map_or(packet.dst, |(dst, _)| dst);
        let macs = (self.ways.hop(uplink, dst), reach.mac);
        emit(packet, reach, macs, outer, quoted, out)
    }

    /// Writes the new head of a packet that goes to a client.
    pub(super) fn emit_to_client(
        &self,
        packet: &Packet<'_>,
        client: Reach,
        outer: Translation,
        quoted: Translation,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let (outer, quoted) = match self.door(client.port) {
            None => (outer, quoted),
            Some(_) if packet.is_ipv6() => return Err(DropReason::NoRoute.into()),
            Some(door) => (door.translation(outer), door.translation(quoted)),
        };
        emit(packet, client, (client.mac, Mac::BACKEND), outer, quoted, out)
    }
}

fn emit(
    packet: &Packet<'_>,
    to: Reach,
    (eth_dst, eth_src): (Mac, Mac),
    outer: Translation,
    quoted: Translation,
    out: &mut Outbox<'_>,
) -> Outcome {
    let change = Rewrite { eth_dst, eth_src, outer, quoted, decrement_ttl: true };
    if packet.wire_len() > u32::from(to.mtu) {
        return fragments::cut(packet, &change, to, out);
    }
    let place = out.head().ok_or(DropReason::EgressFull)?;
    let head = packet.rewrite(&change, place)?;
    let (skip, end) = (head.skip, packet.end());
    Ok(Emit { to: to.port, head: head.len, skip, end, offload: packet.offload })
}

/// Whether a packet fits a link, or may be cut for it (RFC 4787 REQ-13). One that does not and may not be
/// is too big whether it has DF or not, and its sender is to be told of the link's MTU (RFC 1812 section
/// 5.2.7.1, RFC 4443 section 3.2). What is still to be segmented is among these: its segments get their
/// length from its sender, who makes them shorter when it is told, DF or no DF (RFC 1191 section 3), and
/// fragments of each would cost the next router, and TCP, more than that.
pub(super) fn fits(packet: &Packet<'_>, mtu: u16) -> Result<(), Verdict> {
    if packet.wire_len() <= u32::from(mtu) {
        return Ok(());
    }
    if !packet.may_be_cut() {
        return Err(DropReason::TooBig.into());
    }
    Ok(packet.need_whole()?)
}
