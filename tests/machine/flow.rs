//! An established TCP connection through the machine, in either family, and frames along it.

use super::frames::{Kind, Spec, plain_pseudo, plain_sum};
use super::{CLIENT_MAC, Client, Machine, SERVER, TIDEGATE, UPLINK_MAC};
use std::net::{IpAddr, Ipv6Addr};
use wire::{Csum, Frame, Gso, GsoKind, Mac, Offload, Parsed, Port, TcpFlags, Tuple, parse};
use xen::hypervisor::DomId;
use xen::sim::peer_front::{Manners, Outgoing, PeerFront};
use xen::sim::toolstack::VifSpec;

/// A command line with an address of each family.
pub const BOTH: &str = "ip=10.137.255.2 ip6=fd09::ffff:2";
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2606, 0x2800, 0, 0, 0, 0, 0, 1));
const SYN_ACK: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK);
/// Bytes of Ethernet, IP and TCP headers without options.
pub const HEADERS: [usize; 2] = [54, 74];

/// A connection from port 4000 of the client to port 80 of the server.
pub struct Flow {
    client: IpAddr,
    /// As the server sees it.
    seen: Tuple,
}

/// A connected client with an address of each family: 10.137.0.`dom` and fd09::`dom`.
pub fn client(machine: &Machine, dom: u16, manners: Manners) -> Client {
    let start = machine.xs.introduce(DomId(dom));
    let peer = PeerFront::start(&machine.sim, DomId(dom), start, TIDEGATE, 0, manners);
    let addr = format!("10.137.0.{dom}");
    let both = format!("{addr} fd09::{dom}");
    let spec = VifSpec::new(DomId(dom), TIDEGATE, 0, CLIENT_MAC).with_ip(&both);
    let job = machine.tools.attach(spec.clone());
    machine.finish(job);
    let client = Client { spec, peer, addr: addr.parse().unwrap() };
    machine.wait("the client to be up", || client.peer.is_up());
    client
}

/// One large frame to be cut into segments of `size` bytes of payload.
pub fn gso(ipv6: bool, size: u16) -> Offload {
    let kind = if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    Offload { csum: Csum::Blank, gso: Some(Gso { kind, size }) }
}

/// The tuple of a frame that must be a packet with one.
pub fn tuple(bytes: &[u8], offload: Offload) -> Tuple {
    let len = u32::try_from(bytes.len()).unwrap();
    let head = &bytes[..bytes.len().min(256)];
    let Ok(Parsed::Ip(packet)) = parse(&Frame { from: Port::new(0, 0), head, len, offload }) else {
        panic!("no packet: {head:02x?}")
    };
    packet.tuple().expect("a packet with ports")
}

impl Flow {
    /// Three segments, and everybody has seen them.
    pub fn connect(machine: &Machine, client: &Client, ipv6: bool) -> Self {
        let own = format!("fd09::{}", client.spec.front.0).parse().unwrap();
        let (own, server) = if ipv6 { (own, SERVER6) } else { (client.addr, SERVER) };
        let ends = Tuple { proto: wire::Proto::Tcp, src: server, dst: own, sport: 80, dport: 4000 };
        let mut flow = Self {
            client: own,
            seen: Tuple { src: own, dst: server, sport: 4000, dport: 80, ..ends },
        };
        client.send(flow.out(TcpFlags::SYN, 1000, 0, &[]));
        machine.settle();
        let syn = machine.uplink().received().remove(0);
        flow.seen = tuple(&syn.bytes, syn.offload);
        machine.uplink().send(&flow.back(SYN_ACK, 5000, 1001, &[]), Offload::NONE);
        machine.settle();
        assert_eq!(client.peer.take_received().len(), 1, "console:\n{}", machine.console());
        client.send(flow.out(TcpFlags::ACK, 1001, 5001, &[]));
        machine.settle();
        assert_eq!(machine.uplink().received().len(), 1);
        flow
    }

    /// A segment of the client, its checksum complete.
    fn out(&self, flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let Tuple { dst, dport, .. } = self.seen;
        let mut spec = Spec::tcp((self.client, 4000), (dst, dport), flags);
        spec.kind = Kind::Tcp { sport: 4000, dport, flags, seq, ack };
        widened(spec.payload(payload).macs(Mac::BACKEND, CLIENT_MAC).frame())
    }

    fn back(&self, flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let Tuple { src, dst, sport, dport, .. } = self.seen;
        let mut spec = Spec::tcp((dst, dport), (src, sport), flags);
        spec.kind = Kind::Tcp { sport: dport, dport: sport, flags, seq, ack };
        widened(spec.payload(payload).macs(UPLINK_MAC, Mac::BACKEND).frame())
    }

    /// The first data of the client, as its stack hands it over: with a blank checksum.
    pub fn upload(&self, payload: &[u8], offload: Offload) -> Outgoing {
        let bytes = self.out(TcpFlags::ACK.with(TcpFlags::PSH), 1001, 5001, payload);
        Outgoing { offload, ..Outgoing::plain(blank(bytes, offload)) }
    }

    /// The first data of the server.
    pub fn download(&self, payload: &[u8], offload: Offload) -> Vec<u8> {
        blank(self.back(TcpFlags::ACK.with(TcpFlags::PSH), 5001, 1001, payload), offload)
    }
}

/// With the largest window there is without scaling.
fn widened(mut bytes: Vec<u8>) -> Vec<u8> {
    let Tuple { src, dst, .. } = tuple(&bytes, Offload::NONE);
    let l4 = if src.is_ipv6() { 54 } else { 34 };
    let len = u32::try_from(bytes.len() - l4).unwrap();
    bytes[l4 + 14..l4 + 18].copy_from_slice(&[0xff, 0xff, 0, 0]);
    let sums = [plain_pseudo(src, dst, 6, len), plain_sum(&bytes[l4..])];
    let both: Vec<u8> = sums.iter().flat_map(|sum| sum.to_be_bytes()).collect();
    bytes[l4 + 16..l4 + 18].copy_from_slice(&(!plain_sum(&both)).to_be_bytes());
    bytes
}

/// With the sum of the pseudo header where the checksum stands, if `offload` says so.
fn blank(mut bytes: Vec<u8>, offload: Offload) -> Vec<u8> {
    if offload.csum == Csum::Blank {
        let Tuple { src, dst, .. } = tuple(&bytes, Offload::NONE);
        let l4 = if src.is_ipv6() { 54 } else { 34 };
        let len = u32::try_from(bytes.len() - l4).unwrap();
        let sum = plain_pseudo(src, dst, 6, len).to_be_bytes();
        bytes[l4 + 16..l4 + 18].copy_from_slice(&sum);
    }
    bytes
}
