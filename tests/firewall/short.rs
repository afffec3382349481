//! A frame that goes the short way becomes what it would have become on the long one.

use crate::common::{Kind, Spec, packet};
use crate::world::{
    OPEN, PERSONAL, PERSONAL_MAC, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, config_of, ip,
    personal, us, web, web6, work, work6,
};
use nat::Statics;
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;
use tidegate::firewall::Link;
use wire::{Csum, Gso, GsoKind, Mac, Offload, Port, TcpFlags, Verdict};

/// Who comes later, with an address that clients may have talked to before.
const NEWCOMER: Port = Port::new(3, 0);

/// What is done.
#[derive(Clone, Debug)]
enum Act {
    /// A client sends to a remote.
    Out(usize, How),
    /// The n-th flow that was ever seen is answered.
    Back(usize, How),
    Wait(u64),
    /// Everything out is allowed, UDP only, or nothing.
    Rules(usize),
    Hairpin(bool),
    Newcomer(bool),
    ClientBack,
    Uplink(u16),
}

/// What of a packet differs from the most usual one.
#[derive(Clone, Copy, Debug)]
struct How {
    tcp: bool,
    v6: bool,
    remote: usize,
    port: usize,
    flags: usize,
    seq: [u32; 2],
    ttl: u8,
    mac: u8,
    len: usize,
    offload: usize,
}

fn how() -> impl Strategy<Value = How> {
    let mostly = |usual: u8, other: u8| prop_oneof![9 => Just(usual), 1 => Just(other)];
    let len = prop_oneof![6 => Just(20usize), 1 => Just(200), 1 => Just(1200), 1 => Just(1500)];
    let packet = (any::<[bool; 2]>(), 0..5usize, 0..3usize, 0..9usize, any::<[bool; 2]>());
    (packet, mostly(64, 1), mostly(0, 1), len, prop_oneof![4 => Just(0usize), 1 => 1..5usize])
        .prop_map(|(([tcp, v6], remote, port, flags, seq), ttl, mac, len, offload)| {
            let seq = seq.map(u32::from);
            How { tcp, v6, remote, port, flags, seq, ttl, mac, len, offload }
        })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => (0..2usize, how()).prop_map(|(client, how)| Act::Out(client, how)),
        20 => (0..12usize, how()).prop_map(|(nth, how)| Act::Back(nth, how)),
        2 => (0..200u64).prop_map(Act::Wait),
        1 => (0..3usize).prop_map(Act::Rules),
        1 => any::<bool>().prop_map(Act::Hairpin),
        1 => any::<bool>().prop_map(Act::Newcomer),
        1 => Just(Act::ClientBack),
        1 => prop_oneof![Just(1500u16), Just(1280)].prop_map(Act::Uplink),
    ]
}

fn newcomer() -> IpAddr {
    ip("198.51.100.7")
}

fn spec(how: How, src: (IpAddr, u16), dst: (IpAddr, u16), from_client: bool) -> Spec {
    let [syn, ack, psh, fin, rst] =
        [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::PSH, TcpFlags::FIN, TcpFlags::RST];
    let flags = [syn, syn.with(ack), ack, ack, ack, ack.with(psh), fin.with(ack), rst, fin];
    let (ours, theirs) = (1000 + how.seq[0], 5000 + how.seq[1]);
    let (seq, ack) = if from_client { (ours, theirs) } else { (theirs, ours) };
    let kind = if how.tcp {
        Kind::Tcp { sport: src.1, dport: dst.1, flags: flags[how.flags], seq, ack }
    } else {
        Kind::Udp { sport: src.1, dport: dst.1 }
    };
    Spec::new(src.0, dst.0, kind).payload(&vec![7; how.len]).ttl(how.ttl)
}

fn offload(how: How, v6: bool) -> Offload {
    let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    let gso = Some(Gso { kind, size: 1000 });
    match how.offload {
        1 => Offload { csum: Csum::Valid, gso: None },
        2 => Offload { csum: Csum::Blank, gso: None },
        3 if how.tcp => Offload { csum: Csum::Blank, gso },
        _ => Offload::NONE,
    }
}

/// Two firewalls to which the same happens. Interfaces that never were go away from the second before
/// each frame: it can never know whether what it saw before is still so.
struct Twins {
    both: [World; 2],
    /// The ends in the world of flows that were seen: ours, and the remote's.
    seen: Vec<((IpAddr, u16), (IpAddr, u16))>,
}

impl Twins {
    fn new() -> Self {
        Self { both: [OPEN; 2].map(|rules| World::new(config(rules))), seen: Vec::new() }
    }

    fn send(&mut self, from: Port, bytes: &[u8], offload: Offload) -> Result<(), TestCaseError> {
        let [quick, slow] = &mut self.both;
        (quick.sound, slow.sound) = (false, false);
        slow.firewall.port_down(slow.now, Port::new(200, 0));
        let fates = [quick, slow].map(|world| world.send_with(from, bytes, offload));
        let [quick, slow] = &fates;
        prop_assert_eq!(quick.verdict, slow.verdict);
        prop_assert_eq!(&quick.frame, &slow.frame);
        prop_assert_eq!(&quick.replies, &slow.replies);
        if let Verdict::Emit(emit) = quick.verdict
            && emit.to == UPLINK
        {
            let tuple = packet(&quick.frame[..]).tuple().unwrap();
            let ends = ((tuple.src, tuple.sport), (tuple.dst, tuple.dport));
            if !self.seen.contains(&ends) {
                self.seen.push(ends);
            }
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        match *act {
            Act::Out(client, how) => {
                let port = [WORK, PERSONAL][client];
                let v6 = how.v6 && client == 0;
                let src = if v6 { work6() } else { [work(), personal()][client] };
                let remotes = [web(), newcomer(), us(), personal(), ip("192.0.2.9")];
                let dst = if v6 { web6() } else { remotes[how.remote] };
                let mac = [WORK_MAC, PERSONAL_MAC][client];
                let to = if how.mac == 0 { Mac::BACKEND } else { UPLINK_MAC };
                let dport = [443, 123, 53][how.port];
                let spec = spec(how, (src, 4000), (dst, dport), true).macs(to, mac);
                self.send(port, &spec.frame(), offload(how, v6))
            }
            Act::Back(nth, how) => {
                let Some((ours, remote)) = self.seen.get(nth).copied() else { return Ok(()) };
                let v6 = ours.0.is_ipv6();
                let remote = if how.remote == 0 { (remote.0, remote.1 ^ 1) } else { remote };
                let to = if how.mac == 0 { UPLINK_MAC } else { WORK_MAC };
                let spec = spec(how, remote, ours, false).macs(to, Mac::BACKEND);
                self.send(UPLINK, &spec.frame(), offload(how, v6))
            }
            _ => {
                self.both.iter_mut().for_each(|world| other(world, act));
                Ok(())
            }
        }
    }
}

/// What happens without a frame.
fn other(world: &mut World, act: &Act) {
    let now = world.now;
    let client = |mac, addrs| Link::Client { mac, addrs, mtu: 1500 };
    match *act {
        Act::Wait(secs) => world.now = now + Duration::from_secs(secs),
        Act::Rules(which) => {
            let rules = ["accept", "accept udp\ndrop", "drop"][which];
            let text = format!(
                "policy clients -> uplink {{\n{rules}\n}}\nnat clients -> uplink masquerade"
            );
            world.firewall.set_policy(config_of(&text).policy);
        }
        Act::Hairpin(hairpin) => {
            world.firewall.set_statics(Statics { hairpin, ..Statics::default() }).unwrap();
        }
        Act::Newcomer(true) => {
            world.firewall.port_up(now, NEWCOMER, client(WORK_MAC, vec![newcomer()]));
        }
        Act::Newcomer(false) => world.firewall.port_down(now, NEWCOMER),
        Act::ClientBack => {
            world.firewall.port_up(now, PERSONAL, client(PERSONAL_MAC, vec![personal()]));
        }
        Act::Uplink(mtu) => world.uplink_up(mtu),
        Act::Out(..) | Act::Back(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_lead_to_the_same(acts in prop::collection::vec(act(), 1..150)) {
        let mut twins = Twins::new();
        for act in &acts {
            twins.act(act)?;
        }
        let [quick, slow] = &twins.both;
        let counters = |world: &World| {
            let counters = world.firewall.counters();
            (counters.emitted, counters.emitted_bytes, counters.drops.clone(), counters.answers)
        };
        prop_assert_eq!(counters(quick), counters(slow));
        prop_assert_eq!(quick.firewall.flows(), slow.firewall.flows());
    }
}

#[test]
fn a_client_that_comes_ends_what_others_sent_to_its_address_in_the_world() {
    let mut world = World::new(config(OPEN));
    let (src, dst) = ((work(), 4000), (newcomer(), 123));
    let frame = Spec::udp(src, dst).macs(Mac::BACKEND, WORK_MAC).frame();
    for _ in 0..3 {
        world.send(WORK, &frame).emitted(UPLINK);
    }
    let link = Link::Client { mac: PERSONAL_MAC, addrs: vec![newcomer()], mtu: 1500 };
    world.firewall.port_up(world.now, NEWCOMER, link);
    world.send(WORK, &frame).silent(wire::DropReason::ClientToClient);
    world.firewall.port_down(world.now, NEWCOMER);
    world.send(WORK, &frame).emitted(UPLINK);
}
