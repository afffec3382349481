//! A described packet as bytes.
//!
//! In: a packet as rules see it, and where it was sent to. Out: the packet its sender would send. Never:
//! one that cannot be, such as TCP in 30 bytes, or one of a flow that older rules accepted.

use etherparse::{IpDscp, IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, ip_number};
use rules::{Header, Query, State, Transport};
use std::net::IpAddr;

const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
const ICMP: usize = 8;
/// The bytes of a TCP header that options can have (RFC 9293 section 3.1).
const OPTIONS: usize = 40;
/// An option that says nothing.
const NOP: u8 = 1;
/// Identifier and number of a query.
const ECHO: [u8; 4] = [0, 1, 0, 1];

/// The packet from `packet.src` to `dst` and `dport`, which is as long as its header says.
pub(crate) fn written(packet: &Query, dst: IpAddr, dport: u16) -> Option<Vec<u8>> {
    let Header { state: State::New, length, flags, .. } = packet.header else { return None };
    let v6 = dst.is_ipv6();
    let rest = usize::from(length).checked_sub(if v6 { IPV6 } else { IPV4 })?;
    let builder = PacketBuilder::ip(ip(packet, dst)?);
    let mut bytes = vec![0; length.into()];
    let zeros = |header| Some(vec![0; rest.checked_sub(header)?]);
    match packet.transport {
        Transport::Tcp { sport, .. } => {
            // What a kernel that opens a connection fills with options, as far as they reach.
            let options = rest.checked_sub(TCP)?.min(OPTIONS) / 4 * 4;
            let payload = zeros(TCP + options)?;
            let header = tcp((sport, dport), flags, options)?;
            builder.tcp_header(header).write_to_slice(&mut bytes, &payload).ok()?
        }
        Transport::Udp { sport, .. } => {
            builder.udp(sport, dport).write_to_slice(&mut bytes, &zeros(UDP)?).ok()?
        }
        Transport::Icmp { kind, code } if v6 => {
            let builder = builder.icmpv6_raw(kind, code, ECHO);
            builder.write_to_slice(&mut bytes, &zeros(ICMP)?).ok()?
        }
        Transport::Icmp { kind, code } => {
            let builder = builder.icmpv4_raw(kind, code, ECHO);
            builder.write_to_slice(&mut bytes, &zeros(ICMP)?).ok()?
        }
        Transport::Other(_) => return None,
    };
    Some(bytes)
}

fn ip(packet: &Query, dst: IpAddr) -> Option<IpHeaders> {
    let Header { ttl, dscp, .. } = packet.header;
    Some(match (packet.src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header =
                Ipv4Header::new(0, ttl, ip_number::TCP, src.octets(), dst.octets()).ok()?;
            IpHeaders::Ipv4(
                Ipv4Header { dscp: IpDscp::try_new(dscp).ok()?, ..header },
                Default::default(),
            )
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Ipv6Header {
                traffic_class: dscp << 2,
                hop_limit: ttl,
                source: src.octets(),
                destination: dst.octets(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => return None,
    })
}

fn tcp((sport, dport): (u16, u16), flags: u8, options: usize) -> Option<TcpHeader> {
    let set = |bit: u8| flags >> bit & 1 == 1;
    let mut header = TcpHeader {
        fin: set(0),
        syn: set(1),
        rst: set(2),
        psh: set(3),
        ack: set(4),
        urg: set(5),
        ece: set(6),
        cwr: set(7),
        ..TcpHeader::new(sport, dport, 1000, 64_000)
    };
    header.set_options_raw(vec![NOP; options].as_slice()).ok()?;
    Some(header)
}
