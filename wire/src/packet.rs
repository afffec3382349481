//! What a head says, once it has been read.
//!
//! Only [`crate::parse`] makes a [`Packet`]: holding one proves that every length agrees with the
//! frame, that the IPv4 header sum is right, and that all headers lie inside the head.

use crate::bytes::be16;
use crate::sums::{Sum, pseudo_header};
use crate::{Csum, DropReason, Mac, Offload, Proto, Tuple, Unparsed, WHOLE_MAX};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame that could be read.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp(Arp),
    /// An IPv4 or IPv6 packet.
    Ip(Packet<'a>),
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Destination of the Ethernet frame.
    pub eth_dst: Mac,
    /// Source of the Ethernet frame.
    pub eth_src: Mac,
    /// Whether it asks or tells.
    pub operation: ArpOperation,
    /// Claimed Ethernet address of the sender.
    pub sender_mac: Mac,
    /// Claimed IPv4 address of the sender; unspecified in an address probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Who is asked for.
    pub target: Ipv4Addr,
}

/// What an ARP message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Asks who has the target address.
    Request,
    /// Tells the sender's Ethernet address.
    Reply,
}

/// An IP packet with the places of its headers, in bytes from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The head it was read from.
    pub(crate) head: &'a [u8],
    /// Length of the whole frame.
    pub(crate) frame_len: u32,
    /// Destination of the Ethernet frame.
    pub eth_dst: Mac,
    /// Source of the Ethernet frame.
    pub eth_src: Mac,
    /// Where the IP header starts.
    pub l3: u16,
    /// Where the transport header starts: past IPv4 options and IPv6 extension headers.
    pub l4: u16,
    /// Where the transport payload starts: past all headers that a rewrite may touch, hence past
    /// the quoted headers of an ICMP error.
    pub payload: u16,
    /// Length of the IP packet, its header included.
    pub ip_len: u32,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether routers must not fragment it: the IPv4 flag, and every IPv6 packet.
    pub dont_fragment: bool,
    /// What it carries.
    pub transport: Transport,
    /// Set iff it is the first fragment of a packet, which goes on in others.
    pub fragment: Option<Fragment>,
    /// What its sender left to be done. A blank checksum or a segmentation request only ever
    /// stands on the transport and family it is meant for.
    pub offload: Offload,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp(Tcp),
    /// UDP (RFC 768).
    Udp(Udp),
    /// An ICMP request or response with an id.
    IcmpQuery(IcmpQuery),
    /// An ICMP error whose own checksum and quoted header are right. Its frame is whole.
    IcmpError(IcmpError),
    /// IPv6 neighbour discovery whose checksum is right. Its frame is whole.
    Ndp(Ndp),
    /// Any other ICMP or ICMPv6 message.
    Icmp {
        /// Message type.
        kind: u8,
        /// Message code.
        code: u8,
    },
    /// Part of a packet, but not the first: only that one says what the packet carries, and where
    /// to ([`Packet::fragment`]).
    Fragment(Fragment),
    /// Another protocol, by its IANA number.
    Other(u8),
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Control bits.
    pub flags: TcpFlags,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number; without meaning unless ACK is set.
    pub ack: u32,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// Shift count offered (RFC 7323); only looked for on SYN.
    pub window_scale: Option<u8>,
    /// Payload bytes, of the whole frame and not only of its head.
    pub data: u32,
}

impl Tcp {
    /// SEG.LEN of RFC 9293: payload bytes, and one each for SYN and FIN.
    #[must_use]
    pub const fn seg_len(&self) -> u32 {
        let syn = self.flags.contains(TcpFlags::SYN) as u32;
        let fin = self.flags.contains(TcpFlags::FIN) as u32;
        self.data.saturating_add(syn).saturating_add(fin)
    }
}

/// The control bits of a TCP header.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut first = true;
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                if !first {
                    f.write_str("|")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("-") } else { Ok(()) }
    }
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Payload bytes.
    pub data: u32,
}

/// An ICMP message that asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpQuery {
    /// What is asked.
    pub kind: QueryKind,
    /// Whether this is the answer.
    pub is_reply: bool,
    /// Identifier, which NAT treats as a port.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
}

/// What an ICMP query asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// Echo, of ICMP (types 8 and 0) or ICMPv6 (types 128 and 129).
    Echo,
    /// Timestamp (types 13 and 14, IPv4 only).
    Timestamp,
}

/// An ICMP error and what it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What went wrong.
    pub kind: IcmpErrorKind,
    /// The packet that caused it.
    pub quote: Quote,
}

/// What an ICMP error reports. Codes are those of its own family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// Destination unreachable (ICMP type 3 but for code 4, ICMPv6 type 1).
    Unreachable {
        /// Why.
        code: u8,
    },
    /// Fragmentation needed (ICMP 3/4, RFC 1191) or packet too big (ICMPv6 type 2).
    TooBig {
        /// MTU of the next hop in bytes; 0 from routers older than RFC 1191.
        mtu: u32,
    },
    /// Time exceeded (ICMP type 11, ICMPv6 type 3).
    TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
    },
    /// Parameter problem (ICMP type 12, ICMPv6 type 4).
    ParameterProblem {
        /// Which.
        code: u8,
    },
}

/// The packet quoted by an ICMP error, as far as it is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its tuple, in the direction it was sent.
    pub tuple: Tuple,
    /// Where its IP header starts, in bytes from the start of the outer frame.
    pub l3: u16,
    /// Where its transport header starts.
    pub l4: u16,
    /// Sequence number, if TCP.
    pub tcp_seq: Option<u32>,
}

/// A neighbour discovery message (RFC 4861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Who has the target?
    Solicit {
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// The target is at this address.
    Advert {
        /// The address told about.
        target: Ipv6Addr,
        /// Its Ethernet address, if told.
        mac: Option<Mac>,
    },
}

/// A fragment of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, the same in all fragments of a packet.
    pub id: u32,
    /// Offset of its data in bytes.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// IANA number of the protocol (IPv6: of the header) that was cut.
    pub protocol: u8,
    /// Bytes of its data.
    pub len: u32,
}

impl<'a> Packet<'a> {
    /// The head it was read from.
    #[must_use]
    pub const fn head(&self) -> &'a [u8] {
        self.head
    }

    /// Whether the head is the whole frame.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.head.len() == self.frame_len as usize
    }

    /// Where the IP packet ends, in bytes from the start of the frame.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.ip_len.saturating_add(self.l3.into())
    }

    /// The IP packet, as far as it lies in the head.
    #[must_use]
    pub fn ip_bytes(&self) -> &'a [u8] {
        let from = self.head.get(usize::from(self.l3)..).unwrap_or_default();
        from.get(..self.ip_len as usize).unwrap_or(from)
    }

    /// The transport header and payload, as far as they lie in the head.
    #[must_use]
    pub fn l4_bytes(&self) -> &'a [u8] {
        let header = self.l4.saturating_sub(self.l3);
        self.ip_bytes().get(usize::from(header)..).unwrap_or_default()
    }

    /// Whether the transport checksum is right. `None` if the packet is not whole, is a fragment, or
    /// carries nothing whose checksum is known. A blank one is right: it will be made from what is there.
    #[must_use]
    pub fn checksum_is_right(&self) -> Option<bool> {
        if self.fragment.is_some() {
            return None;
        }
        let bytes = self.l4_bytes();
        let l4_len = u32::try_from(bytes.len()).ok()?;
        if l4_len.saturating_add(u32::from(self.l4.saturating_sub(self.l3))) != self.ip_len {
            return None;
        }
        let protocol = match self.transport {
            Transport::Tcp(_) => Proto::Tcp,
            Transport::Udp(_) if !self.is_ipv6() && be16(bytes, 6) == Some(0) => return Some(true),
            Transport::Udp(_) => Proto::Udp,
            Transport::Fragment(_) | Transport::Other(_) => return None,
            _ if self.is_ipv6() => Proto::Icmpv6,
            _ => Proto::Icmp,
        };
        let pseudo = match protocol {
            Proto::Icmp => Sum::ZERO,
            _ => pseudo_header(self.src, self.dst, protocol.number(), l4_len),
        };
        Some(self.offload.csum == Csum::Blank || pseudo.bytes(bytes).checksum() == 0)
    }

    /// Makes sure that the transport checksum is right, or that somebody vouches for it. To be asked
    /// before a packet may do more than pass.
    ///
    /// # Errors
    /// [`DropReason::BadChecksum`], or [`Unparsed::NeedWhole`] if that cannot be told from the head;
    /// [`DropReason::Fragment`] if it cannot be told from all of it.
    pub fn trust_checksum(&self) -> Result<(), Unparsed> {
        if self.fragment.is_some() {
            return Err(DropReason::Fragment.into());
        }
        if self.offload.csum != Csum::Unknown {
            return Ok(());
        }
        match self.checksum_is_right() {
            Some(true) => Ok(()),
            Some(false) => Err(DropReason::BadChecksum.into()),
            None => self.need_whole(),
        }
    }

    /// Makes sure that the head is the whole frame.
    ///
    /// # Errors
    /// [`Unparsed::NeedWhole`] if it may be brought, otherwise [`DropReason::TooLongToInspect`].
    pub fn need_whole(&self) -> Result<(), Unparsed> {
        if self.is_whole() {
            Ok(())
        } else if self.frame_len as usize <= WHOLE_MAX {
            Err(Unparsed::NeedWhole)
        } else {
            Err(DropReason::TooLongToInspect.into())
        }
    }

    /// Whether it is IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// The tuple, if it has one: TCP, UDP and ICMP queries do.
    #[must_use]
    pub fn tuple(&self) -> Option<Tuple> {
        let (proto, sport, dport) = match self.transport {
            Transport::Tcp(tcp) => (Proto::Tcp, tcp.sport, tcp.dport),
            Transport::Udp(udp) => (Proto::Udp, udp.sport, udp.dport),
            Transport::IcmpQuery(query) => {
                let proto = if self.is_ipv6() { Proto::Icmpv6 } else { Proto::Icmp };
                if query.is_reply { (proto, 0, query.id) } else { (proto, query.id, 0) }
            }
            _ => return None,
        };
        Some(Tuple { proto, src: self.src, dst: self.dst, sport, dport })
    }

    /// Length in bytes of the longest IP packet it will be on a link: its own, or that of one
    /// segment if it is to be segmented.
    #[must_use]
    pub fn wire_len(&self) -> u32 {
        match self.offload.gso {
            Some(gso) => {
                let headers = u32::from(self.payload.saturating_sub(self.l3));
                self.ip_len.min(headers.saturating_add(u32::from(gso.size)))
            }
            None => self.ip_len,
        }
    }
}
