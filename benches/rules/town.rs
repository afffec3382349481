//! A firewall, a client with many addresses, and packets that each open a flow.

use super::policy::{CLIENTS, Written, address};
use rules::Policy;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant as Clock};
use tidegate::firewall::{Budget, Config, Firewall, Link, LogLevel, Site};
use wire::{
    BATCH, Frame, HEAD_MAX, Instant, Mac, Offload, Outbox, Port, REPLY_MAX, Uplink, Verdict,
};

const UPLINK: Port = Port::new(0, 0);
const MAC: Mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0]);

/// Batches in a round: fewer flows than ports, so that ports are found as easily in all rounds.
const BATCHES: usize = 128;

pub(crate) struct Town {
    firewall: Firewall,
    now: Instant,
    rounds: u16,
}

impl Town {
    pub(crate) fn new(policy: Policy) -> Self {
        let sites = Site { addr4: Some(Ipv4Addr::new(192, 0, 2, 1)), ..Site::default() }.into();
        let config =
            Config { sites, policy: Some(policy), log: LogLevel::None, ..Config::default() };
        let firewall = Firewall::new(config, Budget { bytes: 64 << 20 }, [7; 32]);
        let (mut firewall, now) = (firewall.expect("a firewall"), Instant::from_secs(1));
        let mac = Mac([0, 0x16, 0x3e, 1, 1, 1]);
        let link = Link::Uplink { uplink: Uplink::FIRST, mac, mtu: 1500, network: 1 };
        firewall.port_up(now, UPLINK, link);
        Self { firewall, now, rounds: 0 }
    }

    /// What a new flow takes, from its frame to the frame that leaves, in nanoseconds.
    pub(crate) fn nanos_to_open(&mut self, written: &Written) -> f64 {
        self.rounds += 1;
        let client = Port::new(1, self.rounds);
        let addrs = (0..CLIENTS).map(address).collect();
        self.firewall.port_up(self.now, client, Link::Client { mac: MAC, addrs, mtu: 1500 });
        let frames: Vec<[u8; 43]> = (0..BATCHES * BATCH)
            .map(|n| {
                let (src, dst, dport) = written.aimed[n % written.aimed.len()];
                // A socket of its own, so that each needs a port.
                let sport = u16::try_from(10_000 + n).unwrap();
                datagram((src, sport), (dst, dport))
            })
            .collect();
        let (mut heads, mut replies) = ([[0; HEAD_MAX]; BATCH], [[0; REPLY_MAX]; 1]);
        let mut took = Duration::ZERO;
        for batch in frames.chunks(BATCH) {
            let frame =
                |bytes| Frame { from: client, head: bytes, len: 43, offload: Offload::NONE };
            let frames: Vec<_> = batch.iter().map(|bytes| frame(&bytes[..])).collect();
            let mut out = Outbox::new(&mut heads, &mut replies);
            let start = Clock::now();
            self.firewall.batch(self.now, &frames, &mut out);
            took += start.elapsed();
            assert!(out.verdicts().iter().all(|verdict| matches!(verdict, Verdict::Emit(_))));
        }
        self.firewall.port_down(self.now, client);
        while self.firewall.flows() > 0 {
            self.now = self.now + Duration::from_secs(1);
            self.firewall.tick(self.now, &mut Outbox::new(&mut [], &mut replies));
        }
        took.as_nanos() as f64 / (BATCHES * BATCH) as f64
    }
}

/// A frame with one byte for `dst`, without a sum, as UDP in IPv4 may be.
fn datagram(src: (IpAddr, u16), dst: (IpAddr, u16)) -> [u8; 43] {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (src.0, dst.0) else { panic!("IPv4") };
    let mut frame = [0; 43];
    frame[..6].copy_from_slice(&Mac::BACKEND.0);
    frame[6..12].copy_from_slice(&MAC.0);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&29u16.to_be_bytes());
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&from.octets());
    frame[30..34].copy_from_slice(&to.octets());
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&src.1.to_be_bytes());
    frame[36..38].copy_from_slice(&dst.1.to_be_bytes());
    frame[38..40].copy_from_slice(&9u16.to_be_bytes());
    frame
}
