//! A small world around a translator: clients, remotes, a clock, and packets between them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use nat::{Budget, Config, Direction, FlowId, Nat, NewFlow, Passage};
use wire::{
    DropReason, IcmpQuery, Instant, Port, Proto, QueryKind, Tcp, TcpFlags, Transport, Tuple, Udp,
    Uplink,
};

pub(crate) const EXTERNAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const SYN: TcpFlags = TcpFlags::SYN;
pub(crate) const ACK: TcpFlags = TcpFlags::ACK;
pub(crate) const RST: TcpFlags = TcpFlags::RST;
pub(crate) const SYN_ACK: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK);
pub(crate) const FIN_ACK: TcpFlags = TcpFlags::FIN.with(TcpFlags::ACK);

/// The client in a slot.
pub(crate) fn client(slot: u16) -> Port {
    Port::new(slot, 0)
}

/// The address of the client in a slot.
pub(crate) fn inside(slot: u16) -> IpAddr {
    let [a, b] = slot.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 137, a, b))
}

/// A host in the world.
pub(crate) fn remote(n: u16) -> IpAddr {
    let [a, b] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 51, a, b))
}

pub(crate) fn udp() -> Transport {
    Transport::Udp(Udp { sport: 0, dport: 0, data: 10 })
}

pub(crate) fn echo(is_reply: bool) -> Transport {
    Transport::IcmpQuery(IcmpQuery { kind: QueryKind::Echo, is_reply, id: 0, seq: 1 })
}

pub(crate) fn segment(flags: TcpFlags, seq: u32, ack: u32, data: u32) -> Transport {
    let window_scale = None;
    Transport::Tcp(Tcp { sport: 0, dport: 0, flags, seq, ack, window: 60_000, window_scale, data })
}

/// Endpoints and what goes between them.
pub(crate) fn tuple(proto: Proto, src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> Tuple {
    Tuple { proto, src, dst, sport, dport }
}

pub(crate) struct World {
    pub(crate) nat: Nat,
    pub(crate) now: Instant,
    pub(crate) uplink: Uplink,
    pub(crate) external: IpAddr,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::sized(4 << 20)
    }

    pub(crate) fn sized(bytes: usize) -> Self {
        Self::keyed(bytes, [42; 32])
    }

    pub(crate) fn keyed(bytes: usize, secret: [u8; 32]) -> Self {
        let nat = Nat::new(Config::default(), Budget { bytes }, secret).unwrap();
        Self { nat, now: Instant::from_secs(1000), uplink: Uplink::FIRST, external: EXTERNAL }
    }

    /// Lets time pass, with a tick each second of it.
    pub(crate) fn wait(&mut self, secs: u64) {
        for _ in 0..secs {
            self.now = self.now + Duration::from_secs(1);
            self.nat.tick(self.now, usize::MAX);
        }
    }

    pub(crate) fn flow_out(&self, tuple: &Tuple) -> Option<FlowId> {
        self.nat.find_out(self.now, self.nat.hash(tuple), tuple)
    }

    pub(crate) fn flow_in(&self, tuple: &Tuple) -> Option<FlowId> {
        self.nat.find_in(self.now, self.nat.hash(tuple), self.uplink, tuple)
    }

    /// A client sends a packet; it opens a flow if there is none.
    pub(crate) fn send(
        &mut self,
        from: Port,
        tuple: Tuple,
        transport: &Transport,
    ) -> Result<Passage, DropReason> {
        self.send_to(from, tuple, transport, None)
    }

    /// The same, redirected if it opens a flow.
    pub(crate) fn send_to(
        &mut self,
        from: Port,
        tuple: Tuple,
        transport: &Transport,
        redirected: Option<(IpAddr, u16)>,
    ) -> Result<Passage, DropReason> {
        if let Some(id) = self.flow_out(&tuple) {
            return self.nat.pass(self.now, id, Direction::Out, transport);
        }
        let Self { uplink, external, .. } = *self;
        let new =
            NewFlow { client: from, tuple, transport, uplink, external, redirected, epoch: 1 };
        self.nat.open(self.now, &new).map(|(_, passage)| passage)
    }

    /// The world sends a packet.
    pub(crate) fn receive(
        &mut self,
        tuple: Tuple,
        transport: &Transport,
    ) -> Result<Passage, DropReason> {
        let id = self.flow_in(&tuple).ok_or(DropReason::Unsolicited)?;
        self.nat.pass(self.now, id, Direction::In, transport)
    }

    /// A client sends a datagram from its `port` to a remote.
    pub(crate) fn udp(&mut self, slot: u16, port: u16, to: IpAddr) -> Result<Passage, DropReason> {
        let tuple = tuple(Proto::Udp, inside(slot), port, to, 4000);
        self.send(client(slot), tuple, &udp())
    }

    /// The answer to what went out as `sent`.
    pub(crate) fn answer(&mut self, sent: Tuple) -> Result<Passage, DropReason> {
        self.receive(sent.reversed(), &udp())
    }

    /// A new TCP connection, as far as its first SYN.
    pub(crate) fn syn(&mut self, slot: u16, port: u16, to: IpAddr) -> Result<Passage, DropReason> {
        let tuple = tuple(Proto::Tcp, inside(slot), port, to, 443);
        self.send(client(slot), tuple, &segment(SYN, 100, 0, 0))
    }
}

/// An address of the documentation prefix of IPv6.
pub(crate) fn v6(n: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n))
}
