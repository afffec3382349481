//! Frames: the one parse, the one rewrite, and the whole firewall.

use std::net::IpAddr;
use std::sync::OnceLock;
use tidegate::firewall::{Budget, Config, Firewall, Link, Site};
use wire::sums::Sum;
use wire::{
    BATCH, Csum, Frame, Gso, GsoKind, HEAD_MAX, Instant, Mac, Offload, Outbox, Parsed, Port,
    REPLY_MAX, Rewrite, Translation, Transport, Unparsed, Uplink, Verdict, parse,
};

/// A frame, behind a byte that says how it came.
pub fn frame(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 != 0 {
        repair(&mut bytes);
    }
    let csum = [Csum::Unknown, Csum::Valid, Csum::Blank, Csum::Unknown][usize::from(how >> 1 & 3)];
    let kind = if how & 8 == 0 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    let gso = (how & 16 != 0).then_some(Gso { kind, size: 1400 });
    let missing = if how & 32 == 0 { 0 } else { 1500 };
    let len = u32::try_from(bytes.len()).unwrap() + missing;
    let frame = Frame { from: Port::new(1, 0), head: &bytes, len, offload: Offload { csum, gso } };
    match parse(&frame) {
        Err(Unparsed::NeedWhole) => assert!(missing > 0, "there is no more of it"),
        Ok(Parsed::Ip(packet)) => rewritten(&packet),
        Err(Unparsed::Drop(_)) | Ok(Parsed::Arp(_)) => {}
    }
}

/// A packet keeps its meaning under new addresses, and a right checksum stays right.
fn rewritten(packet: &wire::Packet<'_>) {
    let v6 = packet.is_ipv6();
    let addr = |n: u8| -> IpAddr {
        if v6 {
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n].into()
        } else {
            [192, 0, 2, n].into()
        }
    };
    let outer = match packet.transport {
        Transport::Fragment(_) | Transport::Other(_) => Translation::NONE,
        _ => Translation {
            src: Some((addr(1), 4321)),
            dst: Some((addr(2), 1234)),
            dns_id: packet.dns().map(|dns| dns.id ^ 0x55aa),
        },
    };
    let (eth_dst, eth_src) = (Mac::BACKEND, Mac([2, 0, 0, 0, 0, 9]));
    let change = Rewrite {
        eth_dst,
        eth_src,
        outer,
        quoted: Translation::NONE,
        decrement_ttl: packet.ttl > 1,
    };
    let mut out = [0; HEAD_MAX];
    let Ok(head) = packet.rewrite(&change, &mut out) else { return };
    if !packet.is_whole() || usize::from(head.len) != packet.head().len() {
        return;
    }
    let bytes = &out[..head.len.into()];
    let frame =
        Frame { from: Port::new(2, 0), head: bytes, len: head.len.into(), offload: packet.offload };
    let Ok(Parsed::Ip(new)) = parse(&frame) else { panic!("it cannot be read any more") };
    assert_eq!(new.checksum_is_right(), packet.checksum_is_right());
    if let (Some(old), Some(new)) = (packet.tuple(), new.tuple()) {
        assert_eq!((old.proto, new.src, new.dst), (new.proto, addr(1), addr(2)));
    }
}

const UPLINKS: [Port; 2] = [Port::new(0, 0), Port::new(3, 0)];
const CLIENTS: [Port; 2] = [Port::new(1, 0), Port::new(2, 0)];
/// Our addresses on each uplink.
const US: [[u8; 4]; 2] = [[10, 138, 1, 1], [10, 9, 0, 1]];
const US6: [&str; 2] = ["fd09::1", "fd0a::1"];
const POLICY: &str = "zone uplink = netfront 0\nzone lab = netfront 1\nzone clients = netback\n\
    policy clients -> uplink {\naccept udp\naccept icmp echo-request\naccept tcp 80, 443\n\
    reject admin-prohibited\n}\nnat clients -> uplink masquerade\n\
    policy clients -> lab {\naccept\n}\nnat clients -> lab masquerade\n\
    policy lab -> clients {\nforward tcp 22 to 10.137.0.10\ndrop\n}\n\
    route 10.9.0.0/16 on lab\nroute fd0a::/16 via fd0a::9 on lab\nroute 8.0.0.0/5 on lab\n";

fn firewall() -> Firewall {
    static COMPILED: OnceLock<rules::Policy> = OnceLock::new();
    let compile = || lang::compile("fuzz.tide", POLICY).expect("it compiles").policy;
    let policy = Some(COMPILED.get_or_init(compile).clone());
    let mut config = Config { policy, ..Config::default() };
    for (uplink, (addr4, addr6)) in Uplink::ALL.into_iter().zip(US.into_iter().zip(US6)) {
        let (addr4, addr6) = (Some(addr4.into()), Some(addr6.parse().unwrap()));
        config.sites[uplink] = Site { addr4, addr6, ..Site::default() };
    }
    let mut firewall = Firewall::new(config, Budget { bytes: 1 << 20 }, [7; 32]).unwrap();
    let now = Instant::from_secs(1);
    let mac = Mac([0, 0x16, 0x3e, 1, 1, 1]);
    for (uplink, port) in Uplink::ALL.into_iter().zip(UPLINKS) {
        firewall.port_up(now, port, Link::Uplink { uplink, mac, mtu: 1500, network: 1 });
    }
    for (port, last) in CLIENTS.iter().zip([10, 11]) {
        let addrs = vec![[10, 137, 0, last].into(), format!("fd09::a89:{last}").parse().unwrap()];
        firewall.port_up(now, *port, Link::Client { mac, addrs, mtu: 1500 });
    }
    firewall
}

/// A batch of frames, each behind a byte that says where it came from and one for its length. A
/// client's frame leaves by the uplink its destination is behind and from our address there, or not at all.
pub fn batch(data: &[u8]) {
    let mut firewall = firewall();
    let mut now = Instant::from_secs(2);
    let mut owned = Vec::new();
    let mut rest = data;
    while let [how, len, after @ ..] = rest {
        let (bytes, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let mut bytes = bytes.to_vec();
        if how & 4 != 0 {
            repair(&mut bytes);
        }
        let from = [UPLINKS[0], CLIENTS[0], CLIENTS[1], UPLINKS[1]][usize::from(how & 3)];
        owned.push((from, bytes));
    }
    let (mut heads, mut replies) = (vec![[0; HEAD_MAX]; BATCH], vec![[0; REPLY_MAX]; BATCH]);
    for some in owned.chunks(BATCH) {
        let frames: Vec<Frame<'_>> = some
            .iter()
            .map(|(from, head)| Frame {
                from: *from,
                head,
                len: u32::try_from(head.len()).unwrap(),
                offload: Offload::NONE,
            })
            .collect();
        let mut out = Outbox::new(&mut heads, &mut replies);
        firewall.batch(now, &frames, &mut out);
        assert_eq!(out.verdicts().len(), frames.len());
        for (n, frame) in frames.iter().enumerate() {
            left(frame, out.verdicts()[n], out.head_bytes(n));
        }
        let _ = firewall.tick(now, &mut out);
        while firewall.next_log().map(|line| line.to_string()).is_some() {}
        now = now + core::time::Duration::from_secs(7);
    }
}

fn left(frame: &Frame<'_>, verdict: Verdict, head: Option<&[u8]>) {
    assert_ne!(verdict, Verdict::NeedWhole, "there is no more of it");
    let (Verdict::Emit(emit), Some(head)) = (verdict, head) else { return };
    assert!(emit.skip <= emit.end && emit.end <= frame.len);
    let len = u32::try_from(head.len()).unwrap() + emit.end - emit.skip;
    let body = frame.head.get(emit.skip as usize..).unwrap_or_default();
    let body = body.get(..(emit.end - emit.skip) as usize).unwrap_or(body);
    let whole = [head, body].concat();
    let left = Frame { from: emit.to, head: &whole, len, offload: emit.offload };
    let Ok(Parsed::Ip(packet)) = parse(&left) else { panic!("it cannot be read any more") };
    if UPLINKS.contains(&frame.from) {
        assert!(CLIENTS.contains(&emit.to));
    } else {
        let at = match packet.dst {
            IpAddr::V4(dst) => matches!(dst.octets(), [10, 9, ..] | [8..=15, ..]),
            IpAddr::V6(dst) => dst.segments()[0] == 0xfd0a,
        };
        let at = usize::from(at);
        assert_eq!(emit.to, UPLINKS[at]);
        let us = if packet.is_ipv6() { US6[at].parse().unwrap() } else { IpAddr::from(US[at]) };
        assert_eq!(packet.src, us, "an address of the inside left");
    }
}

/// Makes the sum of an IPv4 header right, and that of an ICMP message in it: no fuzzer finds those.
fn repair(bytes: &mut [u8]) {
    if bytes.get(12..14) != Some(&[8, 0]) || bytes.len() < 34 {
        return;
    }
    let header = 14 + usize::from(bytes[14] & 15) * 4;
    if !(34..=bytes.len()).contains(&header) {
        return;
    }
    put_sum(&mut bytes[14..header], 10);
    let end = (14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))).min(bytes.len());
    if bytes[23] == 1 && end >= header + 8 {
        put_sum(&mut bytes[header..end], 2);
    }
}

fn put_sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 2].fill(0);
    let sum = Sum::ZERO.bytes(bytes).checksum();
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
