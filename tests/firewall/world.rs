//! Two clients, an uplink, and a firewall between them.

use crate::common::{Spec, assert_sound};
use std::net::IpAddr;
use std::time::Duration;
use tidegate::firewall::{Budget, Config, Firewall, Link, Site};
use wire::{
    Csum, DropReason, Emit, Frame, HEAD_MAX, Instant, Mac, Offload, Outbox, Port, REPLY_MAX,
    Verdict,
};

pub const UPLINK: Port = Port::new(0, 0);
pub const WORK: Port = Port::new(1, 0);
pub const PERSONAL: Port = Port::new(2, 5);

pub const UPLINK_MAC: Mac = Mac([0, 0x16, 0x3e, 1, 1, 1]);
pub const WORK_MAC: Mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0]);
pub const PERSONAL_MAC: Mac = Mac([0, 0x16, 0x3e, 2, 2, 2]);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn us() -> IpAddr {
    ip("10.138.1.1")
}

pub fn us6() -> IpAddr {
    ip("fd09::1")
}

pub fn work() -> IpAddr {
    ip("10.137.0.10")
}

pub fn work6() -> IpAddr {
    ip("fd09::a89:a")
}

pub fn personal() -> IpAddr {
    ip("10.137.0.11")
}

pub fn web() -> IpAddr {
    ip("93.184.216.34")
}

pub fn web6() -> IpAddr {
    ip("2606:2800:21f::1")
}

/// Lets everything out.
pub const OPEN: &str = "accept";

/// A firewall whose rules for clients are `rules`, in the policy language.
pub fn config(rules: &str) -> Config {
    config_of(&format!(
        "policy clients -> uplink {{\n{rules}\n}}\nnat clients -> uplink masquerade"
    ))
}

pub fn config_of(text: &str) -> Config {
    let zones = "zone uplink = netfront 0\nzone clients = netback\n";
    let policy = match lang::compile("test.tide", &format!("{zones}{text}")) {
        Ok(compiled) => compiled.policy,
        Err(mistakes) => panic!("{mistakes:?}"),
    };
    let (IpAddr::V4(addr4), IpAddr::V6(addr6)) = (us(), us6()) else { panic!() };
    let site = Site { addr4: Some(addr4), addr6: Some(addr6), ..Site::default() };
    Config { sites: site.into(), policy: Some(policy), ..Config::default() }
}

pub struct World {
    pub firewall: Firewall,
    pub now: Instant,
    /// Whether frames have sums, so that those that leave are to have right ones.
    pub sound: bool,
}

/// What became of one frame.
#[derive(Debug)]
pub struct Fate {
    pub verdict: Verdict,
    /// The frame as it left.
    pub frame: Vec<u8>,
    /// Frames the firewall sent meanwhile.
    pub replies: Vec<(Port, Vec<u8>)>,
}

impl Fate {
    /// The frame that left by `to`.
    pub fn emitted(self, to: Port) -> Vec<u8> {
        match self.verdict {
            Verdict::Emit(Emit { to: by, .. }) if by == to => self.frame,
            other => panic!("{other:?}, not emitted to {to:?}"),
        }
    }

    /// Asserts that it was dropped for `reason`, and that nobody was told.
    pub fn silent(self, reason: DropReason) {
        assert_eq!(self.verdict, Verdict::Drop(reason));
        assert_eq!(self.replies, []);
    }

    /// The only reply, to `to`, to a frame dropped for `reason`.
    pub fn answered(mut self, reason: DropReason, to: Port) -> Vec<u8> {
        assert_eq!(self.verdict, Verdict::Drop(reason));
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        let (port, bytes) = self.replies.remove(0);
        assert_eq!(port, to);
        bytes
    }
}

impl World {
    pub fn new(config: Config) -> Self {
        let mut world = Self::isolated(config);
        world.uplink_up(1500);
        world
    }

    /// Without an uplink.
    pub fn isolated(config: Config) -> Self {
        Self::isolated_with(config, Budget { bytes: 4 << 20 })
    }

    pub fn isolated_with(config: Config, budget: Budget) -> Self {
        let mut firewall = Firewall::new(config, budget, [7; 32]).unwrap();
        let now = Instant::from_secs(1);
        let client = |mac, addrs: &[IpAddr]| Link::Client { mac, addrs: addrs.to_vec(), mtu: 1500 };
        firewall.port_up(now, WORK, client(WORK_MAC, &[work(), work6()]));
        firewall.port_up(now, PERSONAL, client(PERSONAL_MAC, &[personal()]));
        Self { firewall, now, sound: true }
    }

    pub fn uplink_up(&mut self, mtu: u16) {
        self.uplink_to(1, mtu);
    }

    /// An uplink that leads to this network.
    pub fn uplink_to(&mut self, network: u16, mtu: u16) {
        let uplink = wire::Uplink::FIRST;
        let link = Link::Uplink { uplink, mac: UPLINK_MAC, mtu, network };
        self.firewall.port_up(self.now, UPLINK, link);
    }

    /// Sends one frame, as the appliance would: its head first, all of it if that is asked for.
    pub fn send_with(&mut self, from: Port, bytes: &[u8], offload: Offload) -> Fate {
        let head = &bytes[..bytes.len().min(HEAD_MAX)];
        let fate = self.decide(from, bytes, head, offload);
        if fate.verdict == Verdict::NeedWhole {
            assert_eq!(fate.replies, []);
            return self.decide(from, bytes, bytes, offload);
        }
        fate
    }

    pub fn send(&mut self, from: Port, bytes: &[u8]) -> Fate {
        self.send_with(from, bytes, Offload::NONE)
    }

    /// Sends a frame whose sums smoltcp would not like.
    pub fn send_unsound(&mut self, from: Port, bytes: &[u8]) -> Fate {
        self.sound = false;
        let fate = self.send(from, bytes);
        self.sound = true;
        fate
    }

    fn decide(&mut self, from: Port, bytes: &[u8], head: &[u8], offload: Offload) -> Fate {
        let (mut heads, mut places) = ([[0xaa; HEAD_MAX]; 1], [[0xaa; REPLY_MAX]; 4]);
        let mut out = Outbox::new(&mut heads, &mut places);
        let frame = Frame { from, head, len: u32::try_from(bytes.len()).unwrap(), offload };
        self.firewall.batch(self.now, &[frame], &mut out);
        let verdict = out.verdicts()[0];
        let mut frame = Vec::new();
        if let Verdict::Emit(emit) = verdict {
            frame.extend(out.head_bytes(0).unwrap());
            frame.extend(&bytes[emit.skip as usize..emit.end as usize]);
            assert_eq!(emit.offload, offload);
            if offload.csum != Csum::Blank && self.sound {
                assert_sound(&frame);
            }
        }
        Fate { verdict, frame, replies: replies(&out) }
    }

    /// Lets time do its work.
    pub fn tick(&mut self) -> Vec<(Port, Vec<u8>)> {
        let mut places = [[0xaa; REPLY_MAX]; 4];
        let mut out = Outbox::new(&mut [], &mut places);
        self.firewall.tick(self.now, &mut out);
        replies(&out)
    }

    /// Lets so many seconds pass, as an appliance sees them that runs.
    pub fn wait(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        while self.now < end {
            self.now = end.min(self.now + Duration::from_secs(4));
            self.tick();
        }
    }

    pub fn log(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.firewall.next_log().map(|line| line.to_string())).collect()
    }
}

fn replies(out: &Outbox<'_>) -> Vec<(Port, Vec<u8>)> {
    let reply = |(n, reply): (usize, &wire::Reply)| {
        let bytes = out.reply_bytes(n).unwrap().to_vec();
        assert_sound(&bytes);
        (reply.to, bytes)
    };
    out.replies().iter().enumerate().map(reply).collect()
}

/// A frame of the client `work`.
pub fn from_work(spec: Spec) -> Vec<u8> {
    spec.macs(Mac::BACKEND, WORK_MAC).frame()
}

/// A frame of the next hop.
pub fn from_world(spec: Spec) -> Vec<u8> {
    spec.macs(UPLINK_MAC, Mac::BACKEND).frame()
}
