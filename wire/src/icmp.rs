//! ICMP, ICMPv6 and neighbour discovery, and the packets that errors quote.
//!
//! In: the bytes from the ICMP header on. Out: what they say and how many of them are headers that a
//! rewrite may touch. Never: believes an error or a neighbour whose checksum is not right.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{array, be16, be32};
use crate::extensions::{Carried, walk};
use crate::parse::{Fault, ipv4_header, ipv6_header};
use crate::sums::{Sum, pseudo_header};
use crate::{
    DropReason, IcmpError, IcmpErrorKind, IcmpQuery, Mac, Ndp, Packet, Proto, QueryKind, Quote,
    Transport, Tuple,
};
use core::net::IpAddr;
use etherparse::IpNumber;

/// Bytes of an ICMP header: type, code, checksum, and four that depend on the type.
const ICMP_HEADER: usize = 8;

/// The parts all ICMP messages have.
struct Header {
    kind: u8,
    code: u8,
    id: u16,
    seq: u16,
    word: u32,
}

impl Header {
    fn read(bytes: &[u8], l4_len: u32) -> Result<Self, Fault> {
        if (l4_len as usize) < ICMP_HEADER {
            return Err(DropReason::BadHeader.into());
        }
        let [kind, code] = be16(bytes, 0).ok_or(Fault::Short)?.to_be_bytes();
        Ok(Self {
            kind,
            code,
            id: be16(bytes, 4).ok_or(Fault::Short)?,
            seq: be16(bytes, 6).ok_or(Fault::Short)?,
            word: be32(bytes, 4).ok_or(Fault::Short)?,
        })
    }

    fn query(&self, kind: QueryKind, is_reply: bool) -> (Transport, usize) {
        let query = IcmpQuery { kind, is_reply, id: self.id, seq: self.seq };
        (Transport::IcmpQuery(query), ICMP_HEADER)
    }

    fn other(&self) -> (Transport, usize) {
        (Transport::Icmp { kind: self.kind, code: self.code }, ICMP_HEADER)
    }
}

/// Reads an ICMP message (RFC 792). Redirects and source quench are of the other kind: both are
/// instructions that no router in between should pass on (RFC 6633).
pub(crate) fn v4(
    packet: &Packet<'_>,
    bytes: &[u8],
    l4_len: u32,
) -> Result<(Transport, usize), Fault> {
    let header = Header::read(bytes, l4_len)?;
    let code = header.code;
    let kind = match header.kind {
        8 | 0 => return Ok(header.query(QueryKind::Echo, header.kind == 0)),
        13 | 14 => return Ok(header.query(QueryKind::Timestamp, header.kind == 14)),
        3 if code == 4 => IcmpErrorKind::TooBig { mtu: u32::from(header.seq) },
        3 => IcmpErrorKind::Unreachable { code },
        11 => IcmpErrorKind::TimeExceeded { code },
        12 => IcmpErrorKind::ParameterProblem { code },
        _ => return Ok(header.other()),
    };
    error(packet, kind, Sum::ZERO, bytes, l4_len)
}

/// Reads an ICMPv6 message (RFC 4443) or neighbour discovery (RFC 4861).
pub(crate) fn v6(
    packet: &Packet<'_>,
    bytes: &[u8],
    l4_len: u32,
) -> Result<(Transport, usize), Fault> {
    let header = Header::read(bytes, l4_len)?;
    let code = header.code;
    let pseudo = pseudo_header(packet.src, packet.dst, IpNumber::IPV6_ICMP.0, l4_len);
    let kind = match header.kind {
        128 | 129 => return Ok(header.query(QueryKind::Echo, header.kind == 129)),
        135 | 136 => return ndp(packet, &header, pseudo, bytes, l4_len),
        1 => IcmpErrorKind::Unreachable { code },
        2 => IcmpErrorKind::TooBig { mtu: header.word },
        3 => IcmpErrorKind::TimeExceeded { code },
        4 => IcmpErrorKind::ParameterProblem { code },
        _ => return Ok(header.other()),
    };
    error(packet, kind, pseudo, bytes, l4_len)
}

/// Reads a message that goes on in other fragments, which only a query may.
pub(crate) fn first_fragment(
    bytes: &[u8],
    l4_len: u32,
    v6: bool,
) -> Result<(Transport, usize), Fault> {
    let header = Header::read(bytes, l4_len)?;
    match (header.kind, v6) {
        (8 | 0, false) => Ok(header.query(QueryKind::Echo, header.kind == 0)),
        (13 | 14, false) => Ok(header.query(QueryKind::Timestamp, header.kind == 14)),
        (128 | 129, true) => Ok(header.query(QueryKind::Echo, header.kind == 129)),
        _ => Err(DropReason::Fragment.into()),
    }
}

/// All of the message, if its checksum is right.
fn believed(bytes: &[u8], l4_len: u32, pseudo: Sum) -> Result<&[u8], Fault> {
    let whole = bytes.get(..l4_len as usize).ok_or(Fault::Short)?;
    match pseudo.bytes(whole).checksum() {
        0 => Ok(whole),
        _ => Err(DropReason::BadChecksum.into()),
    }
}

fn error(
    packet: &Packet<'_>,
    kind: IcmpErrorKind,
    pseudo: Sum,
    bytes: &[u8],
    l4_len: u32,
) -> Result<(Transport, usize), Fault> {
    let message = believed(bytes, l4_len, pseudo)?;
    let l4 = usize::from(packet.l4);
    let end = l4.saturating_add(message.len());
    let whole = packet.head.get(..end).ok_or(Fault::Short)?;
    let inner_l3 = l4.saturating_add(ICMP_HEADER);
    // A quote too short to tell whose it is cannot be related to any flow.
    let (quote, quote_end) =
        quote(whole, inner_l3, packet.is_ipv6()).map_err(|fault| match fault {
            Fault::Short => Fault::Bad(DropReason::UnrelatedIcmp),
            bad @ Fault::Bad(_) => bad,
        })?;
    Ok((Transport::IcmpError(IcmpError { kind, quote }), quote_end.saturating_sub(l4)))
}

/// Reads the packet that is quoted at `l3`, and where the part of it that a rewrite may touch ends.
fn quote(whole: &[u8], l3: usize, v6: bool) -> Result<(Quote, usize), Fault> {
    let bytes = whole.get(l3..).ok_or(Fault::Short)?;
    let (src, dst, carried): (IpAddr, IpAddr, Carried) = if v6 {
        let ip = ipv6_header(bytes)?;
        let carried = walk(whole, l3.saturating_add(40), ip.next_header())?;
        (ip.source_addr().into(), ip.destination_addr().into(), carried)
    } else {
        let ip = ipv4_header(bytes)?;
        let l4 = l3.saturating_add(ip.slice().len());
        // Of a fragment, the first one has the ports.
        if ip.fragments_offset().value() > 0 {
            return Err(DropReason::UnrelatedIcmp.into());
        }
        let carried = Carried { l4, protocol: ip.protocol(), fragment: None, cut_at: l4 };
        (ip.source_addr().into(), ip.destination_addr().into(), carried)
    };
    if carried.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Err(DropReason::UnrelatedIcmp.into());
    }
    let l4 = whole.get(carried.l4..).ok_or(Fault::Short)?;
    let (proto, sport, dport, touched) = ports(l4, carried.protocol, v6)?;
    let quote = Quote {
        tuple: Tuple { proto, src, dst, sport, dport },
        l3: short(l3)?,
        l4: short(carried.l4)?,
        tcp_seq: if proto == Proto::Tcp { be32(l4, 4) } else { None },
    };
    Ok((quote, carried.l4.saturating_add(touched.min(l4.len()))))
}

/// Protocol and ports of a quoted packet, and how many of its bytes a rewrite may touch: to the end
/// of the checksum field, of which eight are always quoted (RFC 792) and TCP's is not among them.
fn ports(l4: &[u8], protocol: IpNumber, v6: bool) -> Result<(Proto, u16, u16, usize), Fault> {
    if l4.len() < 8 {
        return Err(Fault::Short);
    }
    let word = |at| be16(l4, at).ok_or(Fault::Short);
    match protocol {
        IpNumber::TCP => Ok((Proto::Tcp, word(0)?, word(2)?, 18)),
        IpNumber::UDP => Ok((Proto::Udp, word(0)?, word(2)?, 8)),
        IpNumber::ICMP if !v6 => match l4.first() {
            Some(8 | 13) => Ok((Proto::Icmp, word(4)?, 0, 8)),
            Some(0 | 14) => Ok((Proto::Icmp, 0, word(4)?, 8)),
            _ => Err(DropReason::UnrelatedIcmp.into()),
        },
        IpNumber::IPV6_ICMP if v6 => match l4.first() {
            Some(128) => Ok((Proto::Icmpv6, word(4)?, 0, 8)),
            Some(129) => Ok((Proto::Icmpv6, 0, word(4)?, 8)),
            _ => Err(DropReason::UnrelatedIcmp.into()),
        },
        _ => Err(DropReason::UnrelatedIcmp.into()),
    }
}

fn ndp(
    packet: &Packet<'_>,
    header: &Header,
    pseudo: Sum,
    bytes: &[u8],
    l4_len: u32,
) -> Result<(Transport, usize), Fault> {
    let message = believed(bytes, l4_len, pseudo)?;
    // RFC 4861 section 7.1: a hop limit of 255 proves that the sender is on the link.
    if packet.ttl != 255 || header.code != 0 || message.len() < 24 {
        return Err(DropReason::BadHeader.into());
    }
    let target = array::<16>(message, 8).ok_or(Fault::Short)?.into();
    let ndp = match header.kind {
        135 => Ndp::Solicit { target },
        // Only the first option is looked at: a neighbour tells nothing else in an advertisement.
        _ => Ndp::Advert {
            target,
            mac: be16(message, 24)
                .filter(|o| *o == 0x0201)
                .and_then(|_| array(message, 26))
                .map(Mac),
        },
    };
    Ok((Transport::Ndp(ndp), 24))
}

impl Packet<'_> {
    /// Length in bytes of the packet that an ICMP error quotes, as its header says; `None` of
    /// anything else.
    #[must_use]
    pub fn quoted_len(&self) -> Option<u32> {
        let Transport::IcmpError(error) = self.transport else { return None };
        let (l3, v6) = (usize::from(error.quote.l3), self.is_ipv6());
        let len = u32::from(be16(self.head, l3.checked_add(if v6 { 4 } else { 2 })?)?);
        Some(if v6 { len.saturating_add(40) } else { len })
    }
}

fn short(at: usize) -> Result<u16, Fault> {
    u16::try_from(at).map_err(|_| Fault::Bad(DropReason::TooLongToInspect))
}
