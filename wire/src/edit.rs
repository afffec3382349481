//! New headers for old: addresses, ports, TTL, and every checksum that covers them.
//!
//! In: a parsed packet and what to change. Out: a new head in memory of the caller. Never: a write
//! into the packet that came in, or a change of a bit that was not asked for.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{array, be16, put};
use crate::sums::{Delta, Field, Sum};
use crate::{Csum, DropReason, HEAD_MAX, IcmpError, Mac, Packet, Proto, Quote, Transport, Tuple};
use core::net::IpAddr;

/// Bytes of the id at the start of a DNS message.
const DNS_ID: usize = 2;

/// New endpoints of a packet; what is `None` stays.
///
/// The port of an ICMP query is its id, and only counts at the end that asked (see
/// [`crate::Tuple`]). Protocols without ports ignore the ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// New source address and port.
    pub src: Option<(IpAddr, u16)>,
    /// New destination address and port.
    pub dst: Option<(IpAddr, u16)>,
    /// New id of the DNS message in a UDP datagram ([`Packet::dns`] has to be there). Of what an ICMP
    /// error quotes it is not changed.
    pub dns_id: Option<u16>,
}

impl Translation {
    /// Everything stays.
    pub const NONE: Self = Self { src: None, dst: None, dns_id: None };
}

/// What a new head differs in from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// New destination of the Ethernet frame.
    pub eth_dst: Mac,
    /// New source of the Ethernet frame.
    pub eth_src: Mac,
    /// New endpoints. Of an ICMP error: its own addresses; the ports are ignored.
    pub outer: Translation,
    /// New endpoints of the packet that an ICMP error quotes, in the direction of that packet.
    pub quoted: Translation,
    /// Whether this hop counts. A TTL of 0 or 1 must have been refused before.
    pub decrement_ttl: bool,
}

/// A head that has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewHead {
    /// Bytes written.
    pub len: u16,
    /// Bytes of the old frame it stands for.
    pub skip: u32,
}

impl Packet<'_> {
    /// Writes the new head to `out`. A packet that is whole and fits is written whole.
    ///
    /// # Errors
    /// [`DropReason::BadHeader`] if a new address is of the other family,
    /// [`DropReason::TtlExceeded`] if there is no TTL left to take.
    pub fn rewrite(
        &self,
        change: &Rewrite,
        out: &mut [u8; HEAD_MAX],
    ) -> Result<NewHead, DropReason> {
        let end = self.end() as usize;
        let touched = usize::from(self.payload).saturating_add(if change.outer.dns_id.is_some() {
            DNS_ID
        } else {
            0
        });
        let len = if end <= HEAD_MAX && end <= self.head.len() { end } else { touched };
        let old = self.head.get(..len).ok_or(DropReason::Truncated)?;
        let out = out.get_mut(..len).ok_or(DropReason::Truncated)?;
        out.copy_from_slice(old);
        if change.decrement_ttl && self.ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        if !change.fits(self) {
            return Err(DropReason::BadHeader);
        }
        // Parsing has shown that all fields are there, so this reason is never seen.
        edit(self, change, out).ok_or(DropReason::BadHeader)?;
        let len = u16::try_from(len).map_err(|_| DropReason::Truncated)?;
        Ok(NewHead { len, skip: u32::from(len) })
    }

    /// Copies the head to `out`, each address in it by the name that `name` has for it: those of the
    /// packet, and those of a packet that it quotes. Nothing else changes but sums. Says how many bytes
    /// the head has.
    ///
    /// # Errors
    /// [`DropReason::Untranslatable`] if it is not known which sums cover the addresses, or a name is of
    /// the other family; [`DropReason::TooLongToInspect`] if there is no room for the head.
    pub fn renamed(
        &self,
        name: impl Fn(IpAddr) -> IpAddr,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let renamed = |addr, port| Some((name(addr), port)).filter(|(new, _)| *new != addr);
        let ends = |src, dst, sport, dport| Translation {
            src: renamed(src, sport),
            dst: renamed(dst, dport),
            dns_id: None,
        };
        let quoted = match self.transport {
            Transport::IcmpError(IcmpError { quote: Quote { tuple, .. }, .. }) => {
                ends(tuple.src, tuple.dst, tuple.sport, tuple.dport)
            }
            _ => Translation::NONE,
        };
        let (sport, dport) = self.tuple().map_or((0, 0), |tuple| (tuple.sport, tuple.dport));
        let outer = ends(self.src, self.dst, sport, dport);
        let (eth_dst, eth_src) = (self.eth_dst, self.eth_src);
        let change = Rewrite { eth_dst, eth_src, outer, quoted, decrement_ttl: false };
        if !change.fits(self) {
            return Err(DropReason::Untranslatable);
        }
        put(out, 0, self.head).ok_or(DropReason::TooLongToInspect)?;
        let head = out.get_mut(..self.head.len()).ok_or(DropReason::TooLongToInspect)?;
        edit(self, &change, head).ok_or(DropReason::BadHeader)?;
        Ok(self.head.len())
    }
}

impl Rewrite {
    /// Whether every new address is of the packet's family, and its checksums can follow: that of a
    /// fragment stands in the first one.
    fn fits(&self, packet: &Packet<'_>) -> bool {
        let ends = [self.outer.src, self.outer.dst, self.quoted.src, self.quoted.dst];
        let same_family = ends.iter().flatten().all(|(ip, _)| ip.is_ipv6() == packet.is_ipv6());
        let opaque = matches!(packet.transport, Transport::Other(_));
        same_family && (!opaque || self.outer == Translation::NONE)
    }
}

/// An IP packet that stands somewhere in the head.
struct Place {
    l3: usize,
    l4: usize,
    /// Where the part of it that may be touched ends.
    end: usize,
    src: IpAddr,
    dst: IpAddr,
}

/// Applies `change` to `out`, a copy of the head of `packet`. `None` if a field is not there.
fn edit(packet: &Packet<'_>, change: &Rewrite, out: &mut [u8]) -> Option<()> {
    put(out, 0, &change.eth_dst.0)?;
    put(out, 6, &change.eth_src.0)?;
    let place = Place {
        l3: packet.l3.into(),
        l4: packet.l4.into(),
        end: packet.payload.into(),
        src: packet.src,
        dst: packet.dst,
    };
    let delta = network(&place, change.outer, change.decrement_ttl, out)?;
    let blank = packet.offload.csum == Csum::Blank;
    match packet.transport {
        Transport::Tcp(_) => transport(&place, Proto::Tcp, change.outer, delta, blank, out),
        Transport::Udp(_) => {
            let delta = delta.plus(dns_id(&place, change.outer.dns_id, out)?);
            transport(&place, Proto::Udp, change.outer, delta, blank, out)
        }
        Transport::IcmpQuery(_) | Transport::Icmp { .. } | Transport::Ndp(_) => {
            let proto = if packet.is_ipv6() { Proto::Icmpv6 } else { Proto::Icmp };
            transport(&place, proto, change.outer, delta, false, out)
        }
        Transport::IcmpError(error) => {
            let inside = quoted(&error.quote, place.end, change.quoted, out)?;
            let proto = if packet.is_ipv6() { Proto::Icmpv6 } else { Proto::Icmp };
            sum(&place, proto, delta.plus(inside), false, out)
        }
        Transport::Fragment(_) | Transport::Other(_) => Some(()),
    }
}

/// Changes the id of a DNS message and gives the difference it makes.
fn dns_id(place: &Place, to: Option<u16>, out: &mut [u8]) -> Option<Delta> {
    let Some(to) = to else { return Some(Delta::NONE) };
    let old = be16(out, place.end)?;
    put(out, place.end, &to.to_be_bytes())?;
    Some(Delta::NONE.word(old, to))
}

/// Changes the quoted packet and gives the difference it makes to the sum of the error around it.
fn quoted(quote: &Quote, end: usize, to: Translation, out: &mut [u8]) -> Option<Delta> {
    if to == Translation::NONE {
        return Some(Delta::NONE);
    }
    let Tuple { proto, src, dst, .. } = quote.tuple;
    let place = Place { l3: quote.l3.into(), l4: quote.l4.into(), end, src, dst };
    let before = Sum::ZERO.bytes(out.get(place.l3..end)?);
    let delta = network(&place, to, false, out)?;
    transport(&place, proto, to, delta, false, out)?;
    let after = Sum::ZERO.bytes(out.get(place.l3..end)?);
    Some(Delta::NONE.sums(before, after))
}

/// Changes the IP header, its sum included; gives the difference that sums above it see.
fn network(place: &Place, to: Translation, decrement_ttl: bool, out: &mut [u8]) -> Option<Delta> {
    let v6 = place.src.is_ipv6();
    let l3 = place.l3;
    let mut header = Delta::NONE;
    if decrement_ttl {
        let at = l3.checked_add(if v6 { 7 } else { 8 })?;
        let [ttl] = array(out, at)?;
        put(out, at, &[ttl.checked_sub(1)?])?;
        header = header.word(u16::from(ttl) << 8, u16::from(ttl.checked_sub(1)?) << 8);
    }
    let mut above = Delta::NONE;
    let (src_at, dst_at) = if v6 { (8, 24) } else { (12, 16) };
    for (at, old, new) in [(src_at, place.src, to.src), (dst_at, place.dst, to.dst)] {
        let Some((new, _)) = new else { continue };
        put_address(out, l3.checked_add(at)?, new)?;
        above = above.address(old, new);
    }
    if !v6 {
        let at = l3.checked_add(10)?;
        let field = header.plus(above).apply(Field::Complete, be16(out, at)?);
        put(out, at, &field.to_be_bytes())?;
    }
    Some(above)
}

fn put_address(out: &mut [u8], at: usize, address: IpAddr) -> Option<()> {
    match address {
        IpAddr::V4(a) => put(out, at, &a.octets()),
        IpAddr::V6(a) => put(out, at, &a.octets()),
    }
}

/// Changes the ports, and the sum that covers them.
fn transport(
    place: &Place,
    proto: Proto,
    to: Translation,
    mut delta: Delta,
    blank: bool,
    out: &mut [u8],
) -> Option<()> {
    let l4 = place.l4;
    for (at, new) in ports(proto, to, *out.get(l4)?).into_iter().flatten() {
        let at = l4.checked_add(at)?;
        delta = delta.word(be16(out, at)?, new);
        put(out, at, &new.to_be_bytes())?;
    }
    sum(place, proto, delta, blank, out)
}

/// Where new ports go, in bytes from the transport header. `kind` is the ICMP type.
fn ports(proto: Proto, to: Translation, kind: u8) -> [Option<(usize, u16)>; 2] {
    let [src, dst] = [to.src, to.dst].map(|end| end.map(|(_, port)| port));
    match (proto, kind) {
        (Proto::Tcp | Proto::Udp, _) => [src.map(|p| (0, p)), dst.map(|p| (2, p))],
        (Proto::Icmp, 8 | 13) | (Proto::Icmpv6, 128) => [src.map(|id| (4, id)), None],
        (Proto::Icmp, 0 | 14) | (Proto::Icmpv6, 129) => [dst.map(|id| (4, id)), None],
        (Proto::Icmp | Proto::Icmpv6, _) => [None, None],
    }
}

/// Changes the checksum in the transport header. That of a quoted TCP segment may not be there.
fn sum(place: &Place, proto: Proto, delta: Delta, blank: bool, out: &mut [u8]) -> Option<()> {
    let (at, field) = match proto {
        Proto::Tcp => (16, Field::Complete),
        Proto::Udp => (6, Field::Udp),
        Proto::Icmp | Proto::Icmpv6 => (2, Field::Complete),
    };
    let at = place.l4.checked_add(at)?;
    if at.checked_add(2)? > place.end {
        return Some(());
    }
    let delta = if proto == Proto::Icmp { delta.without_pseudo_header() } else { delta };
    let field = if blank { Field::Blank } else { field };
    let new = delta.apply(field, be16(out, at)?);
    put(out, at, &new.to_be_bytes())
}
