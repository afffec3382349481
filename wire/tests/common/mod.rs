//! Frames made and read by smoltcp, so that what is tested is not its own judge.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire as smol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{Frame, Mac, Offload, Packet, Parsed, Port, TcpFlags, parse};

pub const CLIENT_MAC: Mac = Mac([0x00, 0x16, 0x3e, 0x5e, 0x6c, 0x00]);

pub fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

pub fn v6(text: &str) -> IpAddr {
    text.parse::<Ipv6Addr>().unwrap().into()
}

/// What a test wants in a frame.
#[derive(Clone, Debug)]
pub struct Spec {
    pub eth_dst: Mac,
    pub eth_src: Mac,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub kind: Kind,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Tcp {
        sport: u16,
        dport: u16,
        flags: TcpFlags,
        seq: u32,
        ack: u32,
    },
    Udp {
        sport: u16,
        dport: u16,
    },
    Echo {
        id: u16,
        seq: u16,
        reply: bool,
    },
    /// Type, code, and the four bytes after the checksum.
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
    /// Another protocol.
    Raw(u8),
}

impl Spec {
    pub fn new(src: IpAddr, dst: IpAddr, kind: Kind) -> Self {
        let payload = b"the quick brown fox".to_vec();
        Self { eth_dst: Mac::BACKEND, eth_src: CLIENT_MAC, src, dst, ttl: 64, kind, payload }
    }

    pub fn tcp(src: (IpAddr, u16), dst: (IpAddr, u16), flags: TcpFlags) -> Self {
        let kind = Kind::Tcp { sport: src.1, dport: dst.1, flags, seq: 1000, ack: 0 };
        Self { payload: vec![], ..Self::new(src.0, dst.0, kind) }
    }

    pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        Self::new(src.0, dst.0, Kind::Udp { sport: src.1, dport: dst.1 })
    }

    pub fn ping(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Kind::Echo { id, seq: 1, reply: false })
    }

    pub fn pong(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Kind::Echo { id, seq: 1, reply: true })
    }

    /// An ICMP error of the family of `src` that quotes `packet`, an IP packet.
    pub fn error(
        src: IpAddr,
        dst: IpAddr,
        (kind, code): (u8, u8),
        rest: u32,
        packet: &[u8],
    ) -> Self {
        Self { payload: packet.to_vec(), ..Self::new(src, dst, Kind::Icmp { kind, code, rest }) }
    }

    pub fn macs(self, eth_dst: Mac, eth_src: Mac) -> Self {
        Self { eth_dst, eth_src, ..self }
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp { .. } => 6,
            Kind::Udp { .. } => 17,
            Kind::Echo { .. } | Kind::Icmp { .. } if self.src.is_ipv6() => 58,
            Kind::Echo { .. } | Kind::Icmp { .. } => 1,
            Kind::Raw(protocol) => protocol,
        }
    }

    /// The frame, with complete checksums.
    pub fn frame(&self) -> Vec<u8> {
        let l4 = self.transport();
        let caps = ChecksumCapabilities::default();
        let (ethertype, header) = match (self.src, self.dst) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let repr = smol::Ipv4Repr {
                    src_addr,
                    dst_addr,
                    next_header: self.protocol().into(),
                    payload_len: l4.len(),
                    hop_limit: self.ttl,
                };
                let mut bytes = vec![0; 20];
                // smoltcp writes DF and an id of zero.
                let mut buffer = vec![0; 20 + l4.len()];
                repr.emit(&mut smol::Ipv4Packet::new_unchecked(&mut buffer), &caps);
                bytes.copy_from_slice(&buffer[..20]);
                (0x0800u16, bytes)
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let repr = smol::Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: self.protocol().into(),
                    payload_len: l4.len(),
                    hop_limit: self.ttl,
                };
                let mut bytes = vec![0; 40];
                repr.emit(&mut smol::Ipv6Packet::new_unchecked(&mut bytes));
                (0x86dd, bytes)
            }
            other => panic!("mixed families: {other:?}"),
        };
        let mut frame = Vec::new();
        frame.extend(self.eth_dst.0);
        frame.extend(self.eth_src.0);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(header);
        frame.extend(l4);
        frame
    }

    /// The IP packet alone.
    pub fn packet(&self) -> Vec<u8> {
        self.frame()[14..].to_vec()
    }

    fn transport(&self) -> Vec<u8> {
        let (src, dst) = (self.src.into(), self.dst.into());
        let caps = ChecksumCapabilities::default();
        match self.kind {
            Kind::Tcp { sport, dport, flags, seq, ack } => {
                let mut bytes = vec![0; 20];
                let mut tcp = smol::TcpPacket::new_unchecked(&mut bytes);
                tcp.set_src_port(sport);
                tcp.set_dst_port(dport);
                tcp.set_seq_number(smol::TcpSeqNumber(seq.cast_signed()));
                tcp.set_ack_number(smol::TcpSeqNumber(ack.cast_signed()));
                tcp.set_header_len(20);
                tcp.set_window_len(4096);
                bytes[13] = flags.0;
                bytes.extend(&self.payload);
                smol::TcpPacket::new_unchecked(&mut bytes).fill_checksum(&src, &dst);
                bytes
            }
            Kind::Udp { sport, dport } => {
                let repr = smol::UdpRepr { src_port: sport, dst_port: dport };
                let mut bytes = vec![0; 8 + self.payload.len()];
                let mut udp = smol::UdpPacket::new_unchecked(&mut bytes);
                let fill = |to: &mut [u8]| to.copy_from_slice(&self.payload);
                repr.emit(&mut udp, &src, &dst, self.payload.len(), fill, &caps);
                bytes
            }
            Kind::Echo { id, seq, reply } => {
                let kind = match (self.src.is_ipv6(), reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                self.icmp(kind, 0, u32::from(id) << 16 | u32::from(seq))
            }
            Kind::Icmp { kind, code, rest } => self.icmp(kind, code, rest),
            Kind::Raw(_) => self.payload.clone(),
        }
    }

    fn icmp(&self, kind: u8, code: u8, rest: u32) -> Vec<u8> {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest.to_be_bytes());
        bytes.extend(&self.payload);
        match (self.src, self.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                smol::Icmpv6Packet::new_unchecked(&mut bytes).fill_checksum(&src, &dst);
            }
            _ => smol::Icmpv4Packet::new_unchecked(&mut bytes).fill_checksum(),
        }
        bytes
    }
}

/// A frame that is whole in its head.
pub fn whole(bytes: &[u8]) -> Frame<'_> {
    let len = u32::try_from(bytes.len()).unwrap();
    Frame { from: Port::new(1, 0), head: bytes, len, offload: Offload::NONE }
}

/// The packet in `bytes`.
pub fn packet(bytes: &[u8]) -> Packet<'_> {
    match parse(&whole(bytes)) {
        Ok(Parsed::Ip(packet)) => packet,
        other => panic!("no packet: {other:?}"),
    }
}

/// Sums the way RFC 1071 explains it: the words one by one, carries folded at the end.
pub fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap()
}

/// The sum of a pseudo header, written out as bytes.
pub fn plain_pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u16 {
    let mut bytes = Vec::new();
    for ip in [src, dst] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, protocol]);
    plain_sum(&bytes)
}

/// Asserts with smoltcp that every checksum of a frame of ours is right and every length agrees.
pub fn assert_sound(frame: &[u8]) {
    let eth = smol::EthernetFrame::new_checked(frame).unwrap();
    let (protocol, src, dst, l4) = match eth.ethertype() {
        smol::EthernetProtocol::Arp => {
            smol::ArpRepr::parse(&smol::ArpPacket::new_checked(eth.payload()).unwrap()).unwrap();
            return;
        }
        smol::EthernetProtocol::Ipv4 => {
            let ip = smol::Ipv4Packet::new_checked(eth.payload()).unwrap();
            assert!(ip.verify_checksum());
            // The sum above it is that of all fragments together.
            if ip.more_frags() || ip.frag_offset() > 0 {
                return;
            }
            (ip.next_header(), ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
        smol::EthernetProtocol::Ipv6 => {
            let ip = smol::Ipv6Packet::new_checked(eth.payload()).unwrap();
            (ip.next_header(), ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
        other => panic!("{other}"),
    };
    match protocol {
        smol::IpProtocol::Tcp => {
            assert!(smol::TcpPacket::new_checked(&l4).unwrap().verify_checksum(&src, &dst));
        }
        smol::IpProtocol::Udp => {
            assert!(smol::UdpPacket::new_checked(&l4).unwrap().verify_checksum(&src, &dst));
        }
        smol::IpProtocol::Icmp => {
            assert!(smol::Icmpv4Packet::new_checked(&l4).unwrap().verify_checksum());
        }
        smol::IpProtocol::Icmpv6 => {
            let (smol::IpAddress::Ipv6(src), smol::IpAddress::Ipv6(dst)) = (src, dst) else {
                panic!("ICMPv6 over IPv4");
            };
            assert!(smol::Icmpv6Packet::new_checked(&l4).unwrap().verify_checksum(&src, &dst));
        }
        other => panic!("{other}"),
    }
}
