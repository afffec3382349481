//! The translator, taken through any steps in any order.

use core::net::IpAddr;
use core::time::Duration;
use nat::{
    Balance, Budget, Config, Direction, Forward, Nat, NewFlow, NewInflow, OneToOne, Sender, Source,
    Statics,
};
use std::collections::BTreeMap;
use wire::{
    DropReason, IcmpQuery, Instant, Port, Proto, QueryKind, Quote, Tcp, TcpFlags, Transport, Tuple,
    Udp, Uplink,
};

const FIRST: Uplink = Uplink::FIRST;

/// Steps of four bytes each: what, who, with whom, and how. Whatever happens, no two sockets have one
/// external port, both ways of a flow lead to the same flow, no port is lost, what is written down is
/// obeyed, and a pause ages nothing.
pub fn nat_step(data: &[u8]) {
    let config = Config { slots: 4, ..Config::default() };
    let mut world = World {
        nat: Nat::new(config, Budget { bytes: 300 << 10 }, [3; 32]).unwrap(),
        now: Instant::from_secs(1),
        known: BTreeMap::new(),
        written: 0,
        named: false,
    };
    let ports = world.ports();
    for step in data.as_chunks::<4>().0.iter().take(4096) {
        world.step(*step);
        let stats = world.nat.stats();
        assert!(stats.mappings <= stats.flows && stats.flows <= stats.capacity);
        // Those that are written down are not to be drawn.
        let held = ports - world.ports() - stats.mappings;
        assert!(held <= world.written, "{held} ports were lost");
    }
    world.whole();
    world.write(0);
    world.nat.flush(world.now);
    while world.nat.tick(world.now, usize::MAX).is_some_and(|next| next <= world.now) {}
    assert_eq!((world.nat.stats().flows, world.ports()), (0, ports));
}

struct World {
    nat: Nat,
    now: Instant,
    /// Most ports that what is written down may hold.
    written: u32,
    /// Whether anything was written down ever.
    named: bool,
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
        match what % 12 {
            0..=2 => {
                let transport = transport(proto, what >> 3, how, false);
                let redirected = (what & 128 != 0 && !is_icmp).then(|| (addr(2, 1), 53));
                self.send(key, Port::new(slot, 0), asked, &transport, addr(9, 1), redirected);
            }
            3 | 4 => {
                let Some(sent) = sent else { return };
                let back = Tuple { sport: sent.dport ^ u16::from(what >> 7), ..sent.reversed() };
                let hash = self.nat.hash(&back);
                if let Some(id) = self.nat.find_in(self.now, hash, FIRST, &back) {
                    let transport = transport(proto, what >> 3, how, true);
                    let _ = self.nat.pass(self.now, id, Direction::In, &transport);
                }
            }
            5 => {
                let Some(tuple) = sent else { return };
                let tcp_seq = (proto == Proto::Tcp).then_some(u32::from(how));
                let quote = Quote { tuple, l3: 42, l4: 62, tcp_seq };
                let _ = self.nat.icmp_error(self.now, Sender::World(FIRST), addr(1, how), &quote);
            }
            6 => {
                let millis = u64::from(how) * u64::from(whom) * 100;
                self.now = self.now + Duration::from_millis(millis);
                self.nat.tick(self.now, usize::from(what >> 3));
            }
            7 => self.come(proto, (addr(3, whom & 3), u16::from(whom >> 2)), addr(9, 1), how),
            8 => self.write(how),
            9 => self.dns(asked, how),
            10 => {
                // A pause, that nothing is older after than before.
                let flow = self.nat.find_out(self.now, self.nat.hash(&asked), &asked);
                let pause = Duration::from_secs(u64::from(how) * 3600);
                self.now = self.now + pause;
                self.nat.paused(pause);
                assert_eq!(self.nat.find_out(self.now, self.nat.hash(&asked), &asked), flow);
            }
            _ => match how {
                0 => self.nat.flush(self.now),
                1..=16 => self.nat.client_gone(self.now, Port::new(slot, 0)),
                _ => self.whole(),
            },
        }
    }

    /// A remote sends to a port that may be written down, and may open a flow by it.
    fn come(&mut self, proto: Proto, remote: (IpAddr, u16), external: IpAddr, how: u8) {
        let dport = 2000 + u16::from(how & 7);
        let tuple = Tuple { proto, src: remote.0, sport: remote.1, dst: external, dport };
        let carried = transport(proto, 0, how | 1, false);
        let hash = self.nat.hash(&tuple);
        if let Some(id) = self.nat.find_in(self.now, hash, FIRST, &tuple) {
            let _ = self.nat.pass(self.now, id, Direction::In, &carried);
            return;
        }
        let Some(inbound) = self.nat.inbound(&tuple, |_| how & 16 == 0) else { return };
        let slot = u16::from(how >> 6);
        let client = Port::new(slot, 0);
        let new = NewInflow {
            client,
            uplink: FIRST,
            tuple,
            transport: &carried,
            to: inbound.to,
            epoch: 0,
        };
        let Ok((id, passage)) = self.nat.open_inbound(self.now, &new) else { return };
        assert_eq!((passage.tuple.dst, passage.tuple.dport), inbound.to);
        assert_eq!(self.nat.find_in(self.now, hash, FIRST, &tuple), Some(id));
        let facts = self.nat.facts(id).expect("it was just opened");
        assert_eq!((facts.opened, facts.sent.reversed()), (Direction::In, tuple));
        assert!(self.nat.still_lets_in(&facts).is_some());
    }

    /// Other translations are written down, or some that contradict themselves.
    fn write(&mut self, which: u8) {
        let (ours, other) = (IpAddr::from([10, 9, 0, 1]), IpAddr::from([10, 9, 0, 2]));
        let client = |n: u8| IpAddr::from([10, 0, 0, n]);
        let forward = |proto, port| Forward {
            uplink: FIRST,
            proto,
            external: ours,
            port,
            from: vec![],
            to: vec![(client(1), 5), (client(2), 5)],
            balance: if which & 8 == 0 { Balance::RoundRobin } else { Balance::Hash },
        };
        let mut statics = Statics::default();
        if which & 1 != 0 {
            statics.forwards = vec![forward(Proto::Udp, 2000), forward(Proto::Tcp, 2001)];
        }
        if which & 2 != 0 {
            statics.one_to_one =
                vec![OneToOne { uplink: FIRST, inside: client(3), external: other }];
        }
        if which & 4 != 0 {
            let socket = Some((Proto::Udp, 1));
            let source = Source {
                uplink: FIRST,
                inside: client(0),
                socket,
                external: ours,
                port: Some(2003),
            };
            statics.sources = vec![source];
        }
        let contradicts = which & 16 != 0 && which & 1 != 0;
        if contradicts {
            statics.forwards.push(forward(Proto::Udp, 2000));
        }
        let claims = statics.forwards.len() + statics.sources.len();
        self.named |= claims + statics.one_to_one.len() > 0;
        let before = self.nat.statics().clone();
        assert_eq!(self.nat.set_statics(statics).is_err(), contradicts);
        if contradicts {
            assert_eq!(*self.nat.statics(), before);
        } else {
            // Those that flows had already are held until these end.
            self.written = u32::try_from(claims).unwrap();
        }
    }

    /// A query goes out and an answer comes back, which is the one that was asked for or not.
    fn dns(&mut self, asked: Tuple, how: u8) {
        let Some(id) = self.nat.find_out(self.now, self.nat.hash(&asked), &asked) else { return };
        let query = u16::from(how & 15);
        let sent = self.nat.ask(id, query);
        if !self.nat.is_dns(id) {
            assert_eq!(sent, query, "the id of what is no query to a resolver of ours");
            assert_eq!(self.nat.answer(id, sent), Err(DropReason::Unsolicited));
            return;
        }
        assert_eq!(self.nat.ask(id, query), sent, "it was only sent again");
        if how & 16 != 0 {
            let answered = self.nat.answer(id, sent).expect("it was asked");
            assert_eq!(answered.id, query);
            assert_eq!(self.nat.answer(id, sent), Err(DropReason::Unsolicited), "twice");
            if answered.last && how & 32 != 0 {
                self.nat.close(self.now, id);
            }
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
                let new = NewFlow {
                    client,
                    uplink: FIRST,
                    tuple,
                    transport,
                    external,
                    redirected,
                    epoch: 0,
                };
                self.nat.open(self.now, &new).map(|(_, passage)| passage)
            }
        };
        if let Ok(passage) = got {
            let drawn = passage.tuple.sport >= 1024 && passage.tuple.src == external;
            assert!(drawn || self.named, "nothing that names it was ever written down");
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
            // Flows that the world opened share a port that is written down.
            if facts.sent != *sent || facts.opened == Direction::In {
                continue;
            }
            let back = sent.reversed();
            assert_eq!(self.nat.find_in(self.now, self.nat.hash(&back), FIRST, &back), out);
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
