//! The translator, taken through any steps in any order.

use core::net::IpAddr;
use core::time::Duration;
use nat::{Budget, Config, Direction, Nat, NewFlow};
use std::collections::BTreeMap;
use wire::{
    IcmpQuery, Instant, Port, Proto, QueryKind, Quote, Tcp, TcpFlags, Transport, Tuple, Udp,
};

/// Steps of four bytes each: what, who, with whom, and how. Whatever happens, no two sockets have one
/// external port, both ways of a flow lead to the same flow, and no port is lost.
pub fn nat_step(data: &[u8]) {
    let config = Config { slots: 4, ..Config::default() };
    let mut world = World {
        nat: Nat::new(config, Budget { bytes: 300 << 10 }, [3; 32]).unwrap(),
        now: Instant::from_secs(1),
        known: BTreeMap::new(),
    };
    let ports = world.ports();
    for step in data.as_chunks::<4>().0.iter().take(4096) {
        world.step(*step);
        let stats = world.nat.stats();
        assert!(stats.mappings <= stats.flows && stats.flows <= stats.capacity);
        assert_eq!(world.ports() + stats.mappings, ports, "a port was lost");
    }
    world.whole();
    world.nat.flush(world.now);
    while world.nat.tick(world.now, usize::MAX).is_some_and(|next| next <= world.now) {}
    assert_eq!((world.nat.stats().flows, world.ports()), (0, ports));
}

struct World {
    nat: Nat,
    now: Instant,
    /// How each tuple that ever left a client was sent on last.
    known: BTreeMap<(u16, u32, u16, u16), (Tuple, Tuple)>,
}

impl World {
    fn ports(&self) -> u32 {
        let free = self.nat.stats().ports_free;
        free.tcp + free.udp + free.icmp + free.icmpv6
    }

    fn step(&mut self, [what, who, whom, how]: [u8; 4]) {
        let slot = u16::from(who & 3);
        let proto = Proto::ALL[usize::from(who >> 2 & 3)];
        let v6 = proto == Proto::Icmpv6 || who & 16 != 0 && proto != Proto::Icmp;
        let addr = |net: u8, n: u8| -> IpAddr {
            if v6 {
                [0xfd, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n].into()
            } else {
                [10, net, 0, n].into()
            }
        };
        let is_icmp = matches!(proto, Proto::Icmp | Proto::Icmpv6);
        let asked = Tuple {
            proto,
            src: addr(0, who & 3),
            sport: u16::from(who >> 5),
            dst: addr(1, whom & 15),
            dport: if is_icmp { 0 } else { u16::from(whom >> 4) },
        };
        let key = (slot, u32::from(proto.number()) << 8 | u32::from(who), u16::from(whom), 0);
        let sent = self.known.get(&key).map(|(_, sent)| *sent);
        match what % 8 {
            0..=2 => {
                let transport = transport(proto, what >> 3, how, false);
                let redirected = (what & 128 != 0 && !is_icmp).then(|| (addr(2, 1), 53));
                self.send(key, Port::new(slot, 0), asked, &transport, addr(9, 1), redirected);
            }
            3 | 4 => {
                let Some(sent) = sent else { return };
                let back = Tuple { sport: sent.dport ^ u16::from(what >> 7), ..sent.reversed() };
                let hash = self.nat.hash(&back);
                if let Some(id) = self.nat.find_in(self.now, hash, &back) {
                    let transport = transport(proto, what >> 3, how, true);
                    let _ = self.nat.pass(self.now, id, Direction::In, &transport);
                }
            }
            5 => {
                let Some(tuple) = sent else { return };
                let tcp_seq = (proto == Proto::Tcp).then_some(u32::from(how));
                let quote = Quote { tuple, l3: 42, l4: 62, tcp_seq };
                let _ = self.nat.icmp_error(self.now, Direction::In, addr(1, how), &quote);
            }
            6 => {
                let millis = u64::from(how) * u64::from(whom) * 100;
                self.now = self.now + Duration::from_millis(millis);
                self.nat.tick(self.now, usize::from(what >> 3));
            }
            _ => match how {
                0 => self.nat.flush(self.now),
                1..=16 => self.nat.client_gone(self.now, Port::new(slot, 0)),
                _ => self.whole(),
            },
        }
    }

    fn send(
        &mut self,
        key: (u16, u32, u16, u16),
        client: Port,
        tuple: Tuple,
        transport: &Transport,
        external: IpAddr,
        redirected: Option<(IpAddr, u16)>,
    ) {
        let hash = self.nat.hash(&tuple);
        let got = match self.nat.find_out(self.now, hash, &tuple) {
            Some(id) => self.nat.pass(self.now, id, Direction::Out, transport),
            None => {
                let new = NewFlow { client, tuple, transport, external, redirected, epoch: 0 };
                self.nat.open(self.now, &new).map(|(_, passage)| passage)
            }
        };
        if let Ok(passage) = got {
            assert!(passage.tuple.sport >= 1024 && passage.tuple.src == external);
            self.known.insert(key, (tuple, passage.tuple));
        }
    }

    /// Both ways of every flow lead to the same one, and no two sockets share a port.
    fn whole(&self) {
        let mut owners = BTreeMap::new();
        for (asked, sent) in self.known.values() {
            let out = self.nat.find_out(self.now, self.nat.hash(asked), asked);
            let Some(id) = out else { continue };
            let facts = self.nat.facts(id).expect("a flow that was found is there");
            if facts.sent != *sent {
                continue;
            }
            let back = sent.reversed();
            assert_eq!(self.nat.find_in(self.now, self.nat.hash(&back), &back), out);
            let redirected = (asked.dst, asked.dport) != (sent.dst, sent.dport);
            let socket = (asked.src, asked.sport, redirected.then_some((asked.dst, asked.dport)));
            let end = (sent.proto, sent.src, sent.sport);
            assert_eq!(*owners.entry(end).or_insert(socket), socket);
        }
    }
}

fn transport(proto: Proto, kind: u8, how: u8, from_remote: bool) -> Transport {
    match proto {
        Proto::Udp => Transport::Udp(Udp { sport: 0, dport: 0, data: u32::from(how) }),
        Proto::Icmp | Proto::Icmpv6 => Transport::IcmpQuery(IcmpQuery {
            kind: QueryKind::Echo,
            is_reply: from_remote ^ (how == 0),
            id: 0,
            seq: how.into(),
        }),
        Proto::Tcp => {
            let flags = [2, 0x12, 0x10, 0x11, 4, 0x14, 0x18, 0x3f][usize::from(kind & 7)];
            let (seq, ack) = (u32::from(how & 15), u32::from(how >> 4));
            Transport::Tcp(Tcp {
                sport: 0,
                dport: 0,
                flags: TcpFlags(flags),
                seq,
                ack,
                window: u16::from(how) << 8,
                window_scale: (how & 1 == 1).then_some(how >> 4),
                data: u32::from(how >> 6),
            })
        }
    }
}
