//! Frames of our own.
//!
//! In: the packet that is answered, and who we are. Out: a whole frame, checksums complete, in memory
//! of the caller. Never: an answer that RFC 1122 section 3.2.2 forbids (to an ICMP error, a group
//! address, a later fragment, ...), a reset for a reset, or a byte that the packet's sender did not
//! send. Each function says how many bytes it wrote, or `None` if there is nothing to answer.

use crate::sums::{Sum, pseudo_header};
use crate::{
    Arp, ArpOperation, IcmpErrorKind, Mac, Ndp, Packet, QueryKind, REPLY_MAX, Tcp, TcpFlags,
    Transport,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation as ArpCode, EtherType, Ethernet2Header, IpNumber, Ipv4Header,
    Ipv6Header, TcpHeader,
};

/// Most bytes of an IP packet that carries an ICMP error (RFC 1812 section 4.3.2.3).
const ERROR_MAX: usize = 576;

/// Hop limit of what starts here.
const TTL: u8 = 64;

/// Both Ethernet addresses of a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination.
    pub dst: Mac,
    /// Source: ours.
    pub src: Mac,
}

/// Tells the sender of `request` that its target is at `mac`. `None` unless it asks.
pub fn arp_reply(request: &Arp, mac: Mac, out: &mut [u8; REPLY_MAX]) -> Option<usize> {
    if request.operation != ArpOperation::Request {
        return None;
    }
    let link = Link { dst: request.eth_src, src: mac };
    let (sender, target) = (request.target, request.sender);
    arp(link, ArpCode::REPLY, (mac, sender), (request.sender_mac, target), out)
}

/// Asks everybody who has `target`.
pub fn arp_request(
    mac: Mac,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    let link = Link { dst: Mac::BROADCAST, src: mac };
    arp(link, ArpCode::REQUEST, (mac, sender), (Mac([0; 6]), target), out)
}

/// Answers an echo request to us. The request has to be whole; `None` if it is no echo request, has a
/// wrong checksum, or is too long for a frame of our own.
pub fn echo_reply(request: &Packet<'_>, mac: Mac, out: &mut [u8; REPLY_MAX]) -> Option<usize> {
    let Transport::IcmpQuery(query) = request.transport else { return None };
    let asks = query.kind == QueryKind::Echo && !query.is_reply;
    if !asks || request.checksum_is_right() != Some(true) {
        return None;
    }
    let message = request.l4_bytes();
    let (protocol, kind) =
        if request.is_ipv6() { (IpNumber::IPV6_ICMP, 129) } else { (IpNumber::ICMP, 0) };
    let mut writer = Writer::ip(request.back(mac), protocol, message.len(), TTL, out)?;
    writer.parts(&[kind, 0], &[message.get(4..)?])
}

/// Tells the sender of `packet`, in the name of `from`, what went wrong. Quotes as much as is in
/// the head and makes no more than 576 bytes, exactly as it was sent. A blank checksum is quoted
/// blank: nobody else has seen it either.
pub fn icmp_error(
    packet: &Packet<'_>,
    kind: IcmpErrorKind,
    from: IpAddr,
    mac: Mac,
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    if !deserves_error(packet) || from.is_ipv6() != packet.is_ipv6() {
        return None;
    }
    let (protocol, headers) =
        if packet.is_ipv6() { (IpNumber::IPV6_ICMP, 48) } else { (IpNumber::ICMP, 28) };
    let quote = packet.ip_bytes();
    let quote = quote.get(..ERROR_MAX.saturating_sub(headers)).unwrap_or(quote);
    let back = Back { src: from, ..packet.back(mac) };
    let mut writer = Writer::ip(back, protocol, quote.len().saturating_add(8), TTL, out)?;
    let (kind, code, rest) = if packet.is_ipv6() { on_wire_v6(kind) } else { on_wire_v4(kind) };
    writer.parts(&[kind, code], &[&rest.to_be_bytes(), quote])
}

/// Refuses a TCP segment in the name of whom it was sent to (RFC 9293 section 3.10.7.1).
pub fn tcp_reset(
    packet: &Packet<'_>,
    segment: &Tcp,
    mac: Mac,
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    if segment.flags.contains(TcpFlags::RST) {
        return None;
    }
    let acknowledged = segment.flags.contains(TcpFlags::ACK);
    let seq = if acknowledged { segment.ack } else { 0 };
    let mut tcp = TcpHeader::new(segment.dport, segment.sport, seq, 0);
    tcp.rst = true;
    if !acknowledged {
        tcp.ack = true;
        tcp.acknowledgment_number = segment.seq.wrapping_add(segment.seg_len());
    }
    let sum = pseudo_header(packet.dst, packet.src, IpNumber::TCP.0, 20);
    tcp.checksum = sum.bytes(&tcp.to_bytes()).checksum();
    let mut writer = Writer::ip(packet.back(mac), IpNumber::TCP, 20, TTL, out)?;
    writer.push(&tcp.to_bytes())?;
    Some(writer.len)
}

/// Tells the sender of the neighbour solicitation `packet` that its target is at `mac` (RFC 4861
/// section 4.4). `None` if it is no solicitation.
pub fn neighbour_advert(packet: &Packet<'_>, mac: Mac, out: &mut [u8; REPLY_MAX]) -> Option<usize> {
    let Transport::Ndp(Ndp::Solicit { target }) = packet.transport else { return None };
    // Duplicate address detection asks from the unspecified address; all nodes are told.
    let asked_by_nobody = packet.src.is_unspecified();
    let dst = if asked_by_nobody {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()
    } else {
        packet.src
    };
    let back = Back { src: target.into(), dst, ..packet.back(mac) };
    let mut writer = Writer::ip(back, IpNumber::IPV6_ICMP, 32, 255, out)?;
    // Router, solicited, override.
    let flags: u32 = if asked_by_nobody { 0xa000_0000 } else { 0xe000_0000 };
    let [a, b, c, d, e, f] = mac.0;
    let option = [2, 1, a, b, c, d, e, f];
    writer.parts(&[136, 0], &[&flags.to_be_bytes(), &target.octets(), &option])
}

/// Asks who has `target`, by its solicited-node group (RFC 4861 section 4.3, RFC 2464 section 7).
pub fn neighbour_solicit(
    mac: Mac,
    sender: Ipv6Addr,
    target: Ipv6Addr,
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    let [.., x, y, z] = target.octets();
    let [high, low] = [u16::from(x) | 0xff00, u16::from_be_bytes([y, z])];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low);
    let link = Link { dst: Mac([0x33, 0x33, 0xff, x, y, z]), src: mac };
    let back = Back { link, src: sender.into(), dst: group.into() };
    let mut writer = Writer::ip(back, IpNumber::IPV6_ICMP, 32, 255, out)?;
    let [a, b, c, d, e, f] = mac.0;
    writer.parts(&[135, 0], &[&[0; 4], &target.octets(), &[1, 1, a, b, c, d, e, f]])
}

/// A UDP datagram of our own from one address and port to another (RFC 768).
pub fn datagram(
    link: Link,
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
    payload: &[u8],
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    let len = u16::try_from(payload.len().checked_add(8)?).ok()?;
    let back = Back { link, src: src.0, dst: dst.0 };
    let mut writer = Writer::ip(back, IpNumber::UDP, len.into(), TTL, out)?;
    let [ports, rest] = [[src.1, dst.1], [len, 0]].map(|[a, b]| {
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        [a, b, c, d]
    });
    let pseudo = pseudo_header(src.0, dst.0, IpNumber::UDP.0, len.into());
    // 0 would say that there is none.
    let sum = match pseudo.bytes(&ports).bytes(&rest).bytes(payload).checksum() {
        0 => 0xffff,
        sum => sum,
    };
    let [a, b, ..] = rest;
    let [c, d] = sum.to_be_bytes();
    for bytes in [&ports[..], &[a, b, c, d], payload] {
        writer.push(bytes)?;
    }
    Some(writer.len)
}

fn arp(
    link: Link,
    operation: ArpCode,
    (sender_mac, sender): (Mac, Ipv4Addr),
    (target_mac, target): (Mac, Ipv4Addr),
    out: &mut [u8; REPLY_MAX],
) -> Option<usize> {
    let arp = ArpEthIpv4Packet {
        operation,
        sender_mac: sender_mac.0,
        sender_ipv4: sender.octets(),
        target_mac: target_mac.0,
        target_ipv4: target.octets(),
    };
    let mut writer = Writer::ethernet(link, EtherType::ARP, out)?;
    writer.push(&arp.to_bytes())?;
    Some(writer.len)
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e).
fn deserves_error(packet: &Packet<'_>) -> bool {
    let about = match packet.transport {
        Transport::IcmpError(_) | Transport::Ndp(_) => false,
        // Unknown messages: ICMPv6 marks errors by the top bit, ICMP does not.
        Transport::Icmp { kind, .. } => packet.is_ipv6() && kind >= 128,
        Transport::Fragment(fragment) => fragment.offset == 0,
        Transport::Tcp(_) | Transport::Udp(_) | Transport::IcmpQuery(_) | Transport::Other(_) => {
            true
        }
    };
    let one = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
    };
    about && !packet.eth_dst.is_group() && one(packet.src) && one(packet.dst)
}

/// Type, code and the 32 bits after the checksum.
fn on_wire_v4(kind: IcmpErrorKind) -> (u8, u8, u32) {
    match kind {
        IcmpErrorKind::Unreachable { code } => (3, code, 0),
        IcmpErrorKind::TooBig { mtu } => (3, 4, mtu.min(0xffff)),
        IcmpErrorKind::TimeExceeded { code } => (11, code, 0),
        IcmpErrorKind::ParameterProblem { code } => (12, code, 0),
    }
}

fn on_wire_v6(kind: IcmpErrorKind) -> (u8, u8, u32) {
    match kind {
        IcmpErrorKind::Unreachable { code } => (1, code, 0),
        IcmpErrorKind::TooBig { mtu } => (2, 0, mtu),
        IcmpErrorKind::TimeExceeded { code } => (3, code, 0),
        IcmpErrorKind::ParameterProblem { code } => (4, code, 0),
    }
}

/// The way back to the sender of a packet.
#[derive(Clone, Copy)]
struct Back {
    link: Link,
    src: IpAddr,
    dst: IpAddr,
}

impl Packet<'_> {
    fn back(&self, mac: Mac) -> Back {
        Back { link: Link { dst: self.eth_src, src: mac }, src: self.dst, dst: self.src }
    }
}

/// Appends headers and data.
struct Writer<'o> {
    out: &'o mut [u8; REPLY_MAX],
    len: usize,
    pseudo: Sum,
}

impl<'o> Writer<'o> {
    fn ethernet(link: Link, ether_type: EtherType, out: &'o mut [u8; REPLY_MAX]) -> Option<Self> {
        let header = Ethernet2Header { source: link.src.0, destination: link.dst.0, ether_type };
        let mut writer = Self { out, len: 0, pseudo: Sum::ZERO };
        writer.push(&header.to_bytes())?;
        Some(writer)
    }

    /// Starts an IP packet with `len` bytes of payload.
    fn ip(
        Back { link, src, dst }: Back,
        protocol: IpNumber,
        len: usize,
        ttl: u8,
        out: &'o mut [u8; REPLY_MAX],
    ) -> Option<Self> {
        let len = u16::try_from(len).ok()?;
        let writer = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header =
                    Ipv4Header::new(len, ttl, protocol, src.octets(), dst.octets()).ok()?;
                header.header_checksum = Sum::ZERO.bytes(&header.to_bytes()).checksum();
                let mut writer = Self::ethernet(link, EtherType::IPV4, out)?;
                writer.push(&header.to_bytes())?;
                writer
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    payload_length: len,
                    next_header: protocol,
                    hop_limit: ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                };
                let mut writer = Self::ethernet(link, EtherType::IPV6, out)?;
                writer.push(&header.to_bytes())?;
                writer.pseudo = pseudo_header(src.into(), dst.into(), protocol.0, len.into());
                writer
            }
            _ => return None,
        };
        Some(writer)
    }

    /// Appends an ICMP message: type and code, the checksum, and the rest in parts of even length
    /// (the last may be odd).
    fn parts(&mut self, start: &[u8; 2], parts: &[&[u8]]) -> Option<usize> {
        let sum = parts.iter().fold(self.pseudo.bytes(start), |sum, part| sum.bytes(part));
        self.push(start)?;
        self.push(&sum.checksum().to_be_bytes())?;
        parts.iter().try_for_each(|part| self.push(part))?;
        Some(self.len)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        crate::bytes::put(self.out, self.len, bytes)?;
        self.len = self.len.checked_add(bytes.len())?;
        Some(())
    }
}
