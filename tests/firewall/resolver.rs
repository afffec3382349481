//! A resolver and its messages, written plainly: no compression unless a test asks for it.

use crate::common::{Spec, packet};
use crate::own::commit;
use crate::world::{
    Fate, PERSONAL, PERSONAL_MAC, UPLINK, WORK, World, config, from_work, from_world, ip, personal,
    us, us6, work, work6,
};
use std::net::IpAddr;
use tidegate::firewall::{Config, DnsRedirect, LogLevel};
use wire::{Mac, Port, TcpFlags, Transport, Verdict};

pub const HOST: &str = "www.example.org";
pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const AAAA: u16 = 28;
const IN: u16 = 1;

/// Lets clients ask the resolvers.
pub const ASKING: &str = "accept udp 53 to [10.139.1.1, 10.139.1.2]";

/// The resolvers clients are told to ask, which are where they seem to be.
pub fn resolver() -> IpAddr {
    ip("10.139.1.1")
}

pub fn second() -> IpAddr {
    ip("10.139.1.2")
}

/// Two addresses that a name may have.
pub fn good() -> IpAddr {
    ip("93.184.216.34")
}

pub fn evil() -> IpAddr {
    ip("203.0.113.66")
}

/// A record, with its data as it is on the wire.
#[derive(Clone)]
pub struct Record {
    pub owner: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

/// An answer, right in all respects unless a test changes one.
#[derive(Clone)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    pub questions: Vec<(Vec<u8>, u16)>,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additional: Vec<Record>,
}

/// A name as messages spell it.
pub fn spelled(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| {
            [u8::try_from(label.len()).unwrap()]
                .into_iter()
                .chain(label.bytes())
                .collect::<Vec<_>>()
        })
        .collect();
    bytes.push(0);
    bytes
}

pub fn address(owner: &str, addr: IpAddr) -> Record {
    let (kind, data) = match addr {
        IpAddr::V4(addr) => (A, addr.octets().to_vec()),
        IpAddr::V6(addr) => (AAAA, addr.octets().to_vec()),
    };
    Record { owner: spelled(owner), kind, class: IN, ttl: 300, data }
}

pub fn alias(owner: &str, target: &str) -> Record {
    Record { owner: spelled(owner), kind: CNAME, class: IN, ttl: 300, data: spelled(target) }
}

impl Message {
    /// The question for the addresses of `name`.
    pub fn query(id: u16, name: &str, kind: u16) -> Self {
        let questions = vec![(spelled(name), kind)];
        let [answers, authorities, additional] = [vec![], vec![], vec![]];
        Self { id, flags: 0x0100, questions, answers, authorities, additional }
    }

    /// The answer to [`HOST`] that says `addr`.
    pub fn answer(id: u16, addr: IpAddr) -> Self {
        let kind = if addr.is_ipv6() { AAAA } else { A };
        let answers = vec![address(HOST, addr)];
        Self { flags: 0x8180, answers, ..Self::query(id, HOST, kind) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let counts = [
            self.questions.len(),
            self.answers.len(),
            self.authorities.len(),
            self.additional.len(),
        ];
        let mut bytes = Vec::new();
        for word in [self.id, self.flags].into_iter().chain(counts.map(|n| n as u16)) {
            bytes.extend(word.to_be_bytes());
        }
        for (name, kind) in &self.questions {
            bytes.extend(name);
            bytes.extend([*kind, IN].map(u16::to_be_bytes).concat());
        }
        for record in self.answers.iter().chain(&self.authorities).chain(&self.additional) {
            bytes.extend(&record.owner);
            bytes.extend([record.kind, record.class].map(u16::to_be_bytes).concat());
            bytes.extend(record.ttl.to_be_bytes());
            bytes.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
            bytes.extend(&record.data);
        }
        bytes
    }
}

/// A frame of `from` to our `port`.
pub fn told(from: (IpAddr, u16), port: u16, message: &[u8]) -> Vec<u8> {
    from_world(Spec::udp(from, (us(), port)).payload(message))
}

/// A world in which both clients may ask the resolvers, and reach [`HOST`] by HTTPS.
pub fn world() -> World {
    let allowed = format!("action=accept dsthost={HOST} proto=tcp dstports=443-443");
    world_with(&["action=accept specialtarget=dns", &allowed])
}

/// The same, and the policy lets both clients reach [`HOST`] too: whoever fools either of them is found out.
pub fn world_twice() -> World {
    let allowed = format!("action=accept dsthost={HOST} proto=tcp dstports=443-443");
    let rules = ["action=accept specialtarget=dns", &allowed];
    world_of(&format!("{ASKING}\naccept tcp 443 to host {HOST}\nqubes"), &rules)
}

/// A world in which both clients have these rules.
pub fn world_with(rules: &[&str]) -> World {
    world_of(&format!("{ASKING}\nqubes"), rules)
}

/// The firewall of a policy whose clients are told to ask the resolvers.
pub fn asking(policy: &str) -> Config {
    let resolvers = vec![resolver(), second()];
    let dns = Some(DnsRedirect { virtuals: resolvers.clone(), reals: resolvers });
    Config { dns, log: LogLevel::None, ..config(policy) }
}

/// A world of this policy, in which both clients have these rules.
pub fn world_of(policy: &str, rules: &[&str]) -> World {
    let mut world = World::new(asking(policy));
    for client in [work(), work6(), personal()] {
        commit(&mut world, client, rules);
    }
    world
}

impl World {
    /// Sends a query of the client `work` for [`HOST`], from this port with this id; the external port
    /// and the id it left with.
    pub fn asks(&mut self, sport: u16, id: u16, kind: u16) -> (u16, u16) {
        self.asks_of(resolver(), sport, &Message::query(id, HOST, kind))
    }

    pub fn asks_of(&mut self, whom: IpAddr, sport: u16, message: &Message) -> (u16, u16) {
        let spec = Spec::udp((work(), sport), (whom, 53)).payload(&message.bytes());
        let sent = self.send(WORK, &from_work(spec)).emitted(UPLINK);
        let sent = packet(&sent);
        (sent.tuple().unwrap().sport, sent.dns().unwrap().id)
    }

    /// Sends a message of the resolver to our `port`.
    pub fn is_told(&mut self, port: u16, message: &Message) -> Fate {
        self.send(UPLINK, &told((resolver(), 53), port, &message.bytes()))
    }

    /// Whether the client `work` may begin a connection to `addr`.
    pub fn reaches(&mut self, addr: IpAddr) -> bool {
        let from = if addr.is_ipv6() { work6() } else { work() };
        let fate =
            self.send(WORK, &from_work(Spec::tcp((from, 40000), (addr, 443), TcpFlags::SYN)));
        matches!(fate.verdict, Verdict::Emit(_))
    }

    /// The same of the client `personal`.
    pub fn personal_reaches(&mut self, addr: IpAddr) -> bool {
        let spec = Spec::tcp((personal(), 40000), (addr, 443), TcpFlags::SYN);
        let frame = spec.macs(Mac::BACKEND, PERSONAL_MAC).frame();
        matches!(self.send(PERSONAL, &frame).verdict, Verdict::Emit(_))
    }

    /// The queries that the firewall sends of its own accord now: to whom, from which port, and what.
    pub fn own_queries(&mut self) -> Vec<Ask> {
        let sent = self.tick();
        let ours = |(port, frame): &(Port, Vec<u8>)| {
            let ask = Ask::read(frame)?;
            assert!(*port == UPLINK && [us(), us6()].contains(&packet(frame).src));
            Some(ask)
        };
        sent.iter().filter_map(ours).collect()
    }
}

/// A query of the firewall itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub to: IpAddr,
    pub port: u16,
    pub id: u16,
    pub name: Vec<u8>,
    pub kind: u16,
    pub edns: bool,
}

impl Ask {
    pub fn read(frame: &[u8]) -> Option<Self> {
        let sent = packet(frame);
        let Transport::Udp(udp) = sent.transport else { return None };
        assert_eq!(udp.dport, 53);
        let message = &sent.l4_bytes()[8..];
        let end = 12 + message[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
        assert_eq!(message[2..8], [1, 0, 0, 1, 0, 0], "recursion is desired, one question");
        Some(Self {
            to: sent.dst,
            port: udp.sport,
            id: sent.dns().unwrap().id,
            name: message[12..end].to_vec(),
            kind: u16::from_be_bytes([message[end], message[end + 1]]),
            edns: message[10..12] == [0, 1],
        })
    }
}
