//! The one reading of a frame.
//!
//! In: a frame whose head is in private memory. Out: what it says, or why it says nothing. Never:
//! trusts a length before it was compared with what is there, or reads a byte of the body.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{array, be16};
use crate::extensions::{Carried, walk};
use crate::sums::Sum;
use crate::{
    Arp, ArpOperation, Csum, DropReason, Fragment, Frame, GsoKind, HEAD_MAX, Mac, Packet, Parsed,
    Tcp, TcpFlags, Transport, Udp, WHOLE_MAX, icmp,
};
use core::net::IpAddr;
use etherparse::err::{ipv4, ipv6, tcp};
use etherparse::{
    ArpHardwareId, ArpPacketSlice, EtherType, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice,
    TcpHeaderSlice, TcpOptionElement, UdpHeaderSlice,
};

/// Length of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// Why a frame could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// More of it than its head is needed: parse again with all of it. ICMP errors and neighbour
    /// discovery are believed only with their checksum. Never asked of a frame that is whole, or
    /// longer than [`WHOLE_MAX`].
    NeedWhole,
    /// It cannot be handled.
    Drop(DropReason),
}

/// Reads the headers of a frame, in one pass.
///
/// # Errors
/// [`Unparsed::NeedWhole`] if the head is not enough, otherwise the reason to drop it.
pub fn parse<'a>(frame: &Frame<'a>) -> Result<Parsed<'a>, Unparsed> {
    ethernet(frame).map_err(|fault| match fault {
        Fault::Bad(reason) => Unparsed::Drop(reason),
        Fault::Short if frame.is_whole() => Unparsed::Drop(DropReason::Truncated),
        Fault::Short if frame.len as usize <= WHOLE_MAX => Unparsed::NeedWhole,
        Fault::Short => Unparsed::Drop(DropReason::TooLongToInspect),
    })
}

/// Why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There are fewer bytes than are needed.
    Short,
    /// What is there is wrong.
    Bad(DropReason),
}

impl From<DropReason> for Unparsed {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl From<DropReason> for Fault {
    fn from(reason: DropReason) -> Self {
        Self::Bad(reason)
    }
}

#[inline(always)]
fn ethernet<'a>(frame: &Frame<'a>) -> Result<Parsed<'a>, Fault> {
    let eth_dst = Mac(array(frame.head, 0).ok_or(Fault::Short)?);
    let eth_src = Mac(array(frame.head, 6).ok_or(Fault::Short)?);
    let l3 = frame.head.get(ETHERNET_HEADER..).ok_or(Fault::Short)?;
    match EtherType(be16(frame.head, 12).ok_or(Fault::Short)?) {
        EtherType::IPV4 => ipv4(frame, l3).map(Parsed::Ip),
        EtherType::IPV6 => ipv6(frame, l3).map(Parsed::Ip),
        EtherType::ARP => arp(eth_dst, eth_src, l3).map(Parsed::Arp),
        _ => Err(DropReason::UnknownProtocol.into()),
    }
}

fn arp(eth_dst: Mac, eth_src: Mac, bytes: &[u8]) -> Result<Arp, Fault> {
    let arp = ArpPacketSlice::from_slice(bytes).map_err(|_| Fault::Short)?;
    if arp.hw_addr_type() != ArpHardwareId::ETHERNET || arp.proto_addr_type() != EtherType::IPV4 {
        return Err(DropReason::UnknownProtocol.into());
    }
    let operation = match arp.operation().0 {
        1 => ArpOperation::Request,
        2 => ArpOperation::Reply,
        _ => return Err(DropReason::UnknownProtocol.into()),
    };
    if arp.hw_addr_size() != 6 || arp.proto_addr_size() != 4 {
        return Err(DropReason::BadHeader.into());
    }
    let ipv4 = |bytes| array::<4>(bytes, 0).map(Into::into).ok_or(Fault::Short);
    Ok(Arp {
        eth_dst,
        eth_src,
        operation,
        sender_mac: Mac(array(arp.sender_hw_addr(), 0).ok_or(Fault::Short)?),
        sender: ipv4(arp.sender_protocol_addr())?,
        target: ipv4(arp.target_protocol_addr())?,
    })
}

#[inline(always)]
fn ipv4<'a>(frame: &Frame<'a>, bytes: &'a [u8]) -> Result<Packet<'a>, Fault> {
    let ip = ipv4_header(bytes)?;
    if has_forbidden_option(ip.options()) {
        return Err(DropReason::SourceRoute.into());
    }
    let fragment = ip.is_fragmenting_payload().then(|| Fragment {
        id: u32::from(ip.identification()),
        offset: ip.fragments_offset().value().saturating_mul(8),
        more: ip.more_fragments(),
        protocol: ip.protocol().0,
        len: 0,
    });
    let l4 = ETHERNET_HEADER.saturating_add(ip.slice().len());
    let net = Net {
        src: ip.source_addr().into(),
        dst: ip.destination_addr().into(),
        ip_len: u32::from(ip.total_len()),
        ttl: ip.ttl(),
        dont_fragment: ip.dont_fragment(),
    };
    packet(frame, &net, &Carried { l4, protocol: ip.protocol(), fragment, cut_at: l4 })
}

/// An IPv4 header whose sum is right.
pub(crate) fn ipv4_header(bytes: &[u8]) -> Result<Ipv4HeaderSlice<'_>, Fault> {
    let ip = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| match error {
        ipv4::HeaderSliceError::Len(_) => Fault::Short,
        ipv4::HeaderSliceError::Content(_) => Fault::Bad(DropReason::BadHeader),
    })?;
    match Sum::ZERO.bytes(ip.slice()).checksum() {
        0 => Ok(ip),
        _ => Err(DropReason::BadIpChecksum.into()),
    }
}

#[inline(always)]
fn ipv6<'a>(frame: &Frame<'a>, bytes: &'a [u8]) -> Result<Packet<'a>, Fault> {
    let ip = ipv6_header(bytes)?;
    let carried = walk(frame.head, ETHERNET_HEADER.saturating_add(40), ip.next_header())?;
    let net = Net {
        src: ip.source_addr().into(),
        dst: ip.destination_addr().into(),
        ip_len: u32::from(ip.payload_length()).saturating_add(40),
        ttl: ip.hop_limit(),
        dont_fragment: true,
    };
    packet(frame, &net, &carried)
}

/// An IPv6 header without its extensions.
pub(crate) fn ipv6_header(bytes: &[u8]) -> Result<Ipv6HeaderSlice<'_>, Fault> {
    Ipv6HeaderSlice::from_slice(bytes).map_err(|error| match error {
        ipv6::HeaderSliceError::Len(_) => Fault::Short,
        ipv6::HeaderSliceError::Content(_) => Fault::Bad(DropReason::BadHeader),
    })
}

/// What both families say of a packet.
struct Net {
    src: IpAddr,
    dst: IpAddr,
    ip_len: u32,
    ttl: u8,
    dont_fragment: bool,
}

#[inline(always)] // Else the packet is moved once more on each level.
fn packet<'a>(frame: &Frame<'a>, net: &Net, carried: &Carried) -> Result<Packet<'a>, Fault> {
    let end = net.ip_len.saturating_add(ETHERNET_HEADER as u32);
    if end > frame.len {
        return Err(DropReason::Truncated.into());
    }
    let mut packet = Packet {
        head: frame.head,
        frame_len: frame.len,
        eth_dst: Mac(array(frame.head, 0).ok_or(Fault::Short)?),
        eth_src: Mac(array(frame.head, 6).ok_or(Fault::Short)?),
        l3: offset(ETHERNET_HEADER)?,
        l4: offset(carried.l4)?,
        payload: offset(carried.l4)?,
        ip_len: net.ip_len,
        src: net.src,
        dst: net.dst,
        ttl: net.ttl,
        dont_fragment: net.dont_fragment,
        transport: Transport::Other(carried.protocol.0),
        fragment: None,
        offload: frame.offload,
    };
    let l4_len = end.checked_sub(u32::from(packet.l4)).ok_or(DropReason::BadHeader)?;
    // Nothing behind the end of the packet (Ethernet padding) is ever looked at.
    let l4 = frame.head.get(carried.l4..).ok_or(Fault::Short)?;
    let l4 = l4.get(..l4_len as usize).unwrap_or(l4);
    let v6 = packet.is_ipv6();
    let len = end.saturating_sub(u32::try_from(carried.cut_at).unwrap_or(u32::MAX));
    let fragment = carried.fragment.map(|fragment| Fragment { len, ..fragment });
    let (transport, header) = match carried {
        Carried { protocol, .. } if fragment.is_some_and(|f| f.offset == 0) => {
            first_fragment(*protocol, l4, l4_len, v6)?
        }
        Carried { fragment: Some(fragment), .. } => {
            (Transport::Fragment(Fragment { len, ..*fragment }), 0)
        }
        Carried { protocol: IpNumber::TCP, .. } => tcp(l4, l4_len)?,
        Carried { protocol: IpNumber::UDP, .. } => udp(l4, l4_len, frame.offload.gso.is_some())?,
        Carried { protocol: IpNumber::ICMP, .. } if !v6 => icmp::v4(&packet, l4, l4_len)?,
        Carried { protocol: IpNumber::IPV6_ICMP, .. } if v6 => icmp::v6(&packet, l4, l4_len)?,
        Carried { protocol, .. } => (Transport::Other(protocol.0), 0),
    };
    check_offload(frame, &transport, fragment.is_some(), v6)?;
    packet.transport = transport;
    packet.fragment = fragment.filter(|fragment| fragment.offset == 0);
    packet.payload = offset(carried.l4.saturating_add(header))?;
    Ok(packet)
}

/// The first fragment of a packet has to hold all of the transport header, or nobody could say what
/// the packet is (RFC 1858 section 3, RFC 7112). Messages that are believed only with their checksum
/// do not come in fragments (RFC 6980).
fn first_fragment(
    protocol: IpNumber,
    bytes: &[u8],
    l4_len: u32,
    v6: bool,
) -> Result<(Transport, usize), Fault> {
    let tiny = |fault| match fault {
        Fault::Bad(_) => Fault::Bad(DropReason::Fragment),
        Fault::Short => Fault::Short,
    };
    match protocol {
        IpNumber::TCP => tcp(bytes, l4_len).map_err(tiny),
        IpNumber::UDP => {
            let udp = UdpHeaderSlice::from_slice(bytes).map_err(|_| match l4_len {
                ..8 => Fault::Bad(DropReason::Fragment),
                _ => Fault::Short,
            })?;
            if u32::from(udp.length()) <= l4_len {
                return Err(DropReason::Fragment.into());
            }
            let (sport, dport) = (udp.source_port(), udp.destination_port());
            Ok((Transport::Udp(Udp { sport, dport, data: l4_len.saturating_sub(8) }), 8))
        }
        IpNumber::ICMP if !v6 => icmp::first_fragment(bytes, l4_len, v6).map_err(tiny),
        IpNumber::IPV6_ICMP if v6 => icmp::first_fragment(bytes, l4_len, v6).map_err(tiny),
        IpNumber(other) => Ok((Transport::Other(other), 0)),
    }
}

fn tcp(bytes: &[u8], l4_len: u32) -> Result<(Transport, usize), Fault> {
    if l4_len < 20 {
        return Err(DropReason::BadHeader.into());
    }
    let tcp = TcpHeaderSlice::from_slice(bytes).map_err(|error| match error {
        tcp::HeaderSliceError::Len(_) if bytes.len() == l4_len as usize => {
            Fault::Bad(DropReason::BadHeader)
        }
        tcp::HeaderSliceError::Len(_) => Fault::Short,
        tcp::HeaderSliceError::Content(_) => Fault::Bad(DropReason::BadHeader),
    })?;
    let header = tcp.slice().len();
    let data = l4_len.checked_sub(header as u32).ok_or(DropReason::BadHeader)?;
    let flags = TcpFlags(bytes.get(13).copied().ok_or(Fault::Short)?);
    let transport = Transport::Tcp(Tcp {
        sport: tcp.source_port(),
        dport: tcp.destination_port(),
        flags,
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        window: tcp.window_size(),
        window_scale: flags.contains(TcpFlags::SYN).then(|| window_scale(&tcp)).flatten(),
        data,
    });
    Ok((transport, header))
}

/// The window scale option of a SYN; a shift above 14 counts as 14 (RFC 7323 section 2.3).
fn window_scale(tcp: &TcpHeaderSlice<'_>) -> Option<u8> {
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::WindowScale(shift)) => Some(shift.min(14)),
        _ => None,
    })
}

fn udp(bytes: &[u8], l4_len: u32, gso: bool) -> Result<(Transport, usize), Fault> {
    if l4_len < 8 {
        return Err(DropReason::BadHeader.into());
    }
    let udp = UdpHeaderSlice::from_slice(bytes).map_err(|_| Fault::Short)?;
    // RFC 768 lets the datagram end before the IP packet does, but nobody's stack sends such, and
    // the bytes in between would be covered by no checksum.
    if u32::from(udp.length()) != l4_len || gso {
        return Err(DropReason::BadHeader.into());
    }
    let data = l4_len.saturating_sub(8);
    let transport =
        Transport::Udp(Udp { sport: udp.source_port(), dport: udp.destination_port(), data });
    Ok((transport, 8))
}

/// A blank checksum is one of TCP or UDP; only TCP of the right family is to be segmented, and always
/// with a blank checksum, since each segment gets its own.
fn check_offload(
    frame: &Frame<'_>,
    transport: &Transport,
    part: bool,
    v6: bool,
) -> Result<(), Fault> {
    let tcp = matches!(transport, Transport::Tcp(_));
    let udp = matches!(transport, Transport::Udp(_));
    // The sum of a part is that of the whole, which nobody here could make.
    let blank_ok = frame.offload.csum != Csum::Blank || (tcp || udp) && !part;
    let gso_ok = frame.offload.gso.is_none_or(|gso| {
        tcp && frame.offload.csum == Csum::Blank
            && gso.size > 0
            && (gso.kind == if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 })
    });
    if blank_ok && gso_ok { Ok(()) } else { Err(DropReason::BadHeader.into()) }
}

/// An offset within the new head, which has to hold all headers.
fn offset(at: usize) -> Result<u16, Fault> {
    match u16::try_from(at) {
        Ok(short) if at <= HEAD_MAX => Ok(short),
        _ => Err(DropReason::TooLongToInspect.into()),
    }
}

/// Options that make a router choose another way or write down its address: loose and strict
/// source route, record route, timestamp (RFC 7126 section 4).
fn has_forbidden_option(mut options: &[u8]) -> bool {
    const FORBIDDEN: [u8; 4] = [131, 137, 7, 68];
    loop {
        let skip = match options {
            [] | [0, ..] => return false,
            [1, ..] => 1,
            [kind, ..] if FORBIDDEN.contains(kind) => return true,
            [_, len, ..] if *len >= 2 => usize::from(*len),
            // A length that leads nowhere: nobody can say what comes after.
            _ => return true,
        };
        options = options.get(skip..).unwrap_or_default();
    }
}
