//! Clients that know themselves, and us, by other addresses than those they have (Qubes' `net.fake-ip`).
//!
//! In: frames as such a client writes them, and as it is to read them. Out: the same with the addresses
//! they have here, and back: one for one, sums included. Never: a name of one client seen by another, a
//! rule, a flow or a line of the log that knows of them, or the real addresses on such a client's link.
//!
//! The names are changed at the door. Behind it all is as with other clients, so nothing there has to
//! think of them; only the way of frames to such a client is told which addresses to write
//! ([`Firewall::emit_to_client`]), and goes the long way.

use super::{Firewall, Outcome, Seen, Side};
use core::net::{IpAddr, Ipv4Addr};
use wire::{
    DropReason, Frame, Instant, Offload, Outbox, Packet, Parsed, Port, REPLY_MAX, Translation,
    WHOLE_MAX, parse,
};

/// The other names that one client goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// The address it has: rules, flows and everybody else know this one.
    pub addr: Ipv4Addr,
    /// The address it believes to have. It can send from no other, and has no IPv6.
    pub visible: Ipv4Addr,
    /// What it believes our address to be.
    pub gateway: Ipv4Addr,
}

/// The door to such a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    alias: Alias,
    ours: Option<Ipv4Addr>,
}

impl Door {
    /// Whether the client has `addr`, as it sees itself.
    pub(super) fn is_visible(&self, addr: Ipv4Addr) -> bool {
        addr == self.alias.visible
    }

    /// Whether a packet may come in. What is real is not known on that side: nothing goes there by it.
    fn admits(&self, packet: &Packet<'_>) -> Result<(), DropReason> {
        if packet.src != IpAddr::V4(self.alias.visible) {
            return Err(DropReason::SpoofedSource);
        }
        let hidden = [Some(self.alias.addr), self.ours].map(|addr| addr.map(IpAddr::V4));
        // One that is the same on both sides is not hidden.
        if hidden.contains(&Some(packet.dst)) && packet.dst != IpAddr::V4(self.alias.gateway) {
            return Err(DropReason::ToFirewall);
        }
        Ok(())
    }

    /// What the client calls `addr` is here.
    fn inward(&self, addr: IpAddr) -> IpAddr {
        match (addr, self.ours) {
            (IpAddr::V4(addr), _) if addr == self.alias.visible => self.alias.addr.into(),
            (IpAddr::V4(addr), Some(ours)) if addr == self.alias.gateway => ours.into(),
            _ => addr,
        }
    }

    /// What is `addr` here is called by the client.
    fn outward(&self, addr: IpAddr) -> IpAddr {
        match addr {
            IpAddr::V4(addr) if addr == self.alias.addr => self.alias.visible.into(),
            IpAddr::V4(addr) if Some(addr) == self.ours => self.alias.gateway.into(),
            _ => addr,
        }
    }

    /// The new names of a packet, as the client is to read them.
    pub(super) fn translation(&self, to: Translation) -> Translation {
        let end = |end: Option<(IpAddr, u16)>| end.map(|(addr, port)| (self.outward(addr), port));
        Translation { src: end(to.src), dst: end(to.dst), dns_id: to.dns_id }
    }

    /// Changes a whole frame of our own; its length, or `None` if it cannot be told to this client.
    #[inline(never)] // Its buffer would stand on the stack of every answer.
    pub(super) fn readdress(&self, frame: &mut [u8; REPLY_MAX], len: usize) -> Option<usize> {
        let own = *frame;
        let head = own.get(..len)?;
        let whole = u32::try_from(len).ok()?;
        let from = Port::new(0, 0);
        match parse(&Frame { from, head, len: whole, offload: Offload::NONE }) {
            Ok(Parsed::Arp(_)) => Some(len),
            Ok(Parsed::Ip(packet)) => packet.renamed(|addr| self.outward(addr), frame).ok(),
            Err(_) => None,
        }
    }
}

impl Firewall {
    /// The door to the client at `port`, if it goes by other names.
    pub(super) fn door(&self, port: Port) -> Option<Door> {
        Some(Door { alias: self.links.alias(port)?, ours: self.ways.first().addr4 })
    }

    /// Decides a packet of a client that goes by other names, as if it had used the real ones.
    #[inline(never)] // Its buffer would stand on the stack of every packet.
    pub(super) fn through_door(
        &mut self,
        now: Instant,
        door: Door,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        seen: &Seen,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        if let (Err(reason), Some(Side::Client(from))) = (door.admits(packet), seen.side) {
            return self.dropped(now, from, packet, reason);
        }
        let mut head = [0; WHOLE_MAX];
        let len = packet.renamed(|addr| door.inward(addr), &mut head)?;
        let frame = Frame { head: head.get(..len).unwrap_or_default(), ..*frame };
        // What was found for it was found under names that may be another client's.
        let seen = Seen { plain: None, flow: None, ..*seen };
        self.decide(now, &frame, &parse(&frame)?, &seen, out)
    }
}
