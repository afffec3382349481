//! Everything at once, by a seed: dom0 changes its mind, its daemons and the netvm come and go, qubes
//! restart, resolvers tell the truth and strangers do not. After each step qubes try what they may and
//! what they may not, and get exactly that; what is on its way is what was allowed when it left.
//! `TIDEGATE_QUBES_SEEDS=20000` tries more than the thousand seeds that are always tried.

use crate::machine::frames::Spec;
use crate::machine::{
    CLIENT_MAC, Client, Machine, SERVER, SYS_NET, TIDEGATE, UPLINK_MAC, client_vif,
};
use crate::model::{ABSENT, FAKE, GATEWAY, May, OTHER, POISON, QUBES, Rules, Word};
use crate::names;
use crate::world::World;
use std::net::IpAddr;
use std::time::Duration;
use wire::{Frame, Mac, Offload, Packet, Parsed, Port, Transport, Tuple, parse};
use xen::hypervisor::DomId;
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::toolstack::VifSpec;

const SEEDS: u64 = 1000;
const STEPS: usize = 12;

#[test]
fn whatever_happens_each_qube_may_what_dom0_says_and_no_more() {
    let seeds = std::env::var("TIDEGATE_QUBES_SEEDS").ok().and_then(|n| n.parse().ok());
    let seeds: u64 = seeds.unwrap_or(SEEDS);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || (worker..seeds).step_by(workers as usize).for_each(happen));
        }
    });
}

fn happen(seed: u64) {
    let mut history = History::new(seed);
    for step in 0..STEPS {
        let before = history.counts;
        let what = history.act();
        history.settle();
        history.at = format!("seed {seed}, step {step}, after {what}");
        history.look(&before);
        history.try_all();
    }
    history.end();
}

/// A datagram of a qube.
#[derive(Clone, Copy, Debug)]
struct Probe {
    qube: usize,
    src: IpAddr,
    dst: (IpAddr, u16),
    /// How the world saw it, if it did.
    seen: Option<Tuple>,
}

struct History {
    world: World,
    qubes: [Client; 2],
    /// What stands in dom0's database, and whose rules were ever committed.
    said: Word,
    committed: [bool; 2],
    /// What the firewall has been told of it.
    counts: Word,
    database: bool,
    uplink: bool,
    /// Whether a resolver has ever told where the name is.
    told: bool,
    queries: Vec<(Tuple, u16)>,
    probes: Vec<Probe>,
    next_domain: u16,
    at: String,
}

impl History {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let qubes = [0, 1].map(|qube| boot(&world.machine, qube, 10 + qube as u16));
        let said = Word {
            rules: [Rules::Missing; 2],
            visible: false,
            gateway: false,
            own: 2,
            lists_absent: true,
        };
        Self {
            world,
            qubes,
            said,
            committed: [false; 2],
            counts: said,
            database: true,
            uplink: true,
            told: false,
            queries: Vec::new(),
            probes: Vec::new(),
            next_domain: 30,
            at: String::new(),
        }
    }

    fn random(&self, below: u64) -> usize {
        self.world.machine.sim.random(below) as usize
    }

    /// Something happens.
    fn act(&mut self) -> &'static str {
        match self.random(16) {
            0..4 => self.write_rules(true),
            4 => self.write_rules(false),
            5 => self.write_fake(),
            6 => self.write_network(),
            7 => self.database_ends_or_returns(),
            8 => self.database_stumbles(),
            9 => self.netvm_changes(),
            10 => self.netvm_is_poorly(),
            11 => self.qube_restarts(),
            12 => self.time_passes(),
            13 => self.call(),
            14 => self.answer_names(true),
            _ => self.answer_names(false),
        }
    }

    fn write_rules(&mut self, commit: bool) -> &'static str {
        let (qube, rules) = (self.random(2), Rules::ALL[self.random(6)]);
        let addr = QUBES[qube].to_string();
        self.said.rules[qube] = rules;
        self.committed[qube] |= commit;
        self.world.dom0.database(|db| match commit {
            true => db.set_rules(&addr, "drop", rules.text()),
            false => db.begin_rules(&addr, "drop", rules.text()),
        });
        if commit && self.database {
            self.counts.rules[qube] = rules;
        }
        if commit { "rules" } else { "rules without a commit" }
    }

    fn write_fake(&mut self) -> &'static str {
        let base = format!("/mapped-ip/{}", QUBES[0]);
        let keys = [("visible-ip", FAKE), ("visible-gateway", GATEWAY)];
        let gateway_too = self.random(4) != 0;
        for (name, value) in keys.iter().take(if gateway_too { 2 } else { 1 }) {
            let key = format!("{base}/{name}");
            let there = match *name {
                "visible-ip" => &mut self.said.visible,
                _ => &mut self.said.gateway,
            };
            *there = !*there;
            let there = *there;
            self.world.dom0.database(|db| match there {
                true => db.write(&key, &value.to_string()),
                false => db.remove(&key),
            });
        }
        self.network_is_told();
        "a fake address"
    }

    fn write_network(&mut self) -> &'static str {
        if self.random(2) == 0 {
            self.said.own ^= 1;
            let own = self.said.own().to_string();
            self.world.dom0.database(|db| db.write("/qubes-ip", &own));
        } else {
            self.said.lists_absent = !self.said.lists_absent;
            let absent = if self.said.lists_absent { " 10.137.0.77" } else { "" };
            let all = format!("10.137.0.10 10.137.0.11{absent}");
            self.world.dom0.database(|db| db.write("/connected-ips", &all));
        }
        self.network_is_told();
        "another network"
    }

    /// What is no rule counts when it is written.
    fn network_is_told(&mut self) {
        if self.database {
            self.counts = Word { rules: self.counts.rules, ..self.said };
        }
    }

    /// All is read again: rules in the middle of a change, too, if there was a commit before.
    fn all_is_told(&mut self) {
        self.counts = self.said;
        for (rules, committed) in self.counts.rules.iter_mut().zip(self.committed) {
            if !committed {
                *rules = Rules::Missing;
            }
        }
    }

    fn database_ends_or_returns(&mut self) -> &'static str {
        self.database = !self.database;
        if self.database {
            self.world.dom0.restart();
            self.all_is_told();
        } else {
            self.world.dom0.stop_database();
        }
        "an end or a return of QubesDB"
    }

    fn database_stumbles(&mut self) -> &'static str {
        if self.database {
            self.world.dom0.database(|db| db.corrupt(&[0xee; 72]));
            self.world.machine.settle();
            self.all_is_told();
        }
        "nonsense from QubesDB"
    }

    fn netvm_changes(&mut self) -> &'static str {
        let machine = &mut self.world.machine;
        if self.uplink && machine.sim.random(2) == 0 {
            machine.kill_uplink();
        } else if self.uplink {
            machine.unplug();
        }
        // Sometimes there is none for a while.
        self.uplink = !self.uplink || machine.sim.random(3) != 0;
        if self.uplink {
            self.next_domain += 1;
            machine.plug(DomId(self.next_domain), machine.sim.random(2) as u32);
        }
        "another netvm"
    }

    fn netvm_is_poorly(&self) -> &'static str {
        if self.uplink {
            let machine = &self.world.machine;
            let netvm = machine.uplink_domain();
            match machine.sim.random(2) {
                0 => machine.uplink().restart(Offers::default()),
                _ => {
                    machine.sim.pause(netvm, true);
                    machine.run(Duration::from_millis(machine.sim.random(2000)));
                    machine.sim.pause(netvm, false);
                }
            }
        }
        "an illness of the netvm"
    }

    fn qube_restarts(&mut self) -> &'static str {
        let qube = self.random(2);
        let machine = &self.world.machine;
        let old = &self.qubes[qube].spec;
        machine.finish(machine.tools.destroy(old.front, std::slice::from_ref(old)));
        self.next_domain += 1;
        self.qubes[qube] = boot(machine, qube, self.next_domain);
        // What it asked before it has forgotten.
        self.probes.iter_mut().filter(|probe| probe.qube == qube).for_each(|p| p.seen = None);
        "a restart of a qube"
    }

    fn time_passes(&self) -> &'static str {
        let sim = &self.world.machine.sim;
        let asleep = sim.random(2) == 0;
        sim.pause(TIDEGATE, asleep);
        self.world.run(Duration::from_secs(sim.random(if asleep { 40 } else { 80 })));
        sim.pause(TIDEGATE, false);
        if asleep { "a sleep" } else { "a while" }
    }

    fn call(&self) -> &'static str {
        if self.random(3) == 0 {
            self.world.dom0.restart_qrexec();
        } else {
            let service = ["tidegate.Stats", "qubes.SuspendPreAll", "tidegate.Nothing"];
            let _call = self.world.dom0.call(service[self.random(3)], b"");
        }
        "a call"
    }

    /// Whoever asked for the name is told: by whom it asked, or by somebody who would like to be that.
    fn answer_names(&mut self, truth: bool) -> &'static str {
        if self.random(2) == 0 {
            names::ask(&self.world, &Client { addr: self.counts.visible(0), ..self.borrowed(0) });
            self.look(&self.counts.clone());
        }
        for (asked, id) in std::mem::take(&mut self.queries) {
            let port = asked.sport;
            let lie = [(asked.dst, port, !id), (asked.dst, port ^ 1, id), (OTHER, port, id)];
            let (from, port, id, at) = match truth {
                true => (asked.dst, port, id, SERVER),
                false => {
                    let (from, port, id) = lie[self.random(3)];
                    (from, port, id, POISON)
                }
            };
            self.told |= truth;
            let spec = Spec::udp((from, 53), (asked.src, port)).payload(&names::answer(id, at));
            self.send_from_world(spec);
        }
        if truth { "a truth" } else { "a lie" }
    }

    fn borrowed(&self, qube: usize) -> Client {
        let Client { spec, peer, addr } = &self.qubes[qube];
        Client { spec: spec.clone(), peer: peer.clone(), addr: *addr }
    }

    fn send_from_world(&self, spec: Spec) {
        if self.uplink {
            let frame = spec.macs(UPLINK_MAC, Mac::BACKEND).frame();
            self.world.machine.uplink().send(&frame, Offload::NONE);
        }
    }

    /// Everybody has done what there was to do.
    fn settle(&self) {
        let World { machine, dom0 } = &self.world;
        if self.database {
            machine.wait("the database to be read", || dom0.database(|db| db.is_live()));
        }
        if self.uplink {
            machine.wait("the uplink", || machine.uplink().is_connected());
        }
        machine.settle();
    }

    /// Looks at all that has come out on either side. It was allowed by what counts, or did `before`.
    /// Says which probes have arrived, and to which of them qubes got answers.
    fn look(&mut self, before: &Word) -> (Vec<usize>, Vec<usize>) {
        let words = [*before, self.counts];
        let (mut arrived, mut answered) = (Vec::new(), Vec::new());
        let frames = if self.uplink { self.world.machine.uplink().received() } else { Vec::new() };
        for frame in frames {
            let Some(packet) = read(&frame.bytes, frame.offload) else { continue };
            let tuple = packet.tuple().expect("a packet with ports");
            assert!(words.iter().any(|word| tuple.src == word.own()), "{}: {tuple:?}", self.at);
            if tuple.dport == 53 {
                self.queries.extend(packet.dns().map(|dns| (tuple, dns.id)));
                continue;
            }
            let n = label(&frame.bytes).expect("nothing but probes");
            let Probe { qube, src, dst, .. } = self.probes[n];
            let may = words.map(|word| word.may(self.told, qube, src, dst));
            assert!(may != [May::NotPass; 2], "{}: {:?} left", self.at, self.probes[n]);
            assert_eq!((tuple.dst, tuple.dport), dst, "{}", self.at);
            self.probes[n].seen = Some(tuple);
            arrived.push(n);
        }
        for (qube, client) in self.qubes.iter().enumerate() {
            for frame in client.peer.take_received() {
                let Some(packet) = read(&frame.bytes, frame.offload) else { continue };
                let own = words.map(|word| word.visible(qube));
                assert!(own.contains(&packet.dst), "{}: {packet:?}", self.at);
                if let Transport::IcmpError(error) = packet.transport {
                    assert_eq!(error.quote.tuple.src, packet.dst, "{}", self.at);
                } else if let Some(n) = label(&frame.bytes) {
                    assert_eq!(self.probes[n].qube, qube, "{}: another's answer", self.at);
                    answered.push(n);
                }
            }
        }
        (arrived, answered)
    }

    /// Each qube tries something, and what it tried before is answered.
    fn try_all(&mut self) {
        let first = self.probes.len();
        for n in 0..8 {
            let qube = n % 2;
            let visible = self.counts.visible(qube);
            let src = [visible, visible, visible, QUBES[qube], FAKE, QUBES[1 - qube]];
            let dst = [SERVER, SERVER, OTHER, POISON, ABSENT, QUBES[1 - qube]];
            let (src, dst) = (src[self.random(6)], (dst[self.random(6)], 7 + n as u16 / 4));
            let label = format!("probe {}.", self.probes.len());
            let spec = Spec::udp((src, 4000 + dst.1), dst).payload(label.as_bytes());
            self.qubes[qube].send(spec.macs(Mac::BACKEND, CLIENT_MAC).frame());
            self.probes.push(Probe { qube, src, dst, seen: None });
        }
        self.world.machine.settle();
        let counts = self.counts;
        let (arrived, _) = self.look(&counts);
        for n in first..self.probes.len() {
            let Probe { qube, src, dst, .. } = self.probes[n];
            let may = counts.may(self.told, qube, src, dst);
            let must = may == May::Pass && self.uplink;
            assert!(!must || arrived.contains(&n), "{}: {:?} lost", self.at, self.probes[n]);
        }
        self.answer_all(first);
    }

    /// Those that have just left are answered, and one of those before.
    fn answer_all(&mut self, first: usize) {
        let old = self.random(first.max(1) as u64);
        let asked: Vec<usize> = [old].into_iter().chain(first..self.probes.len()).collect();
        for n in &asked {
            let Probe { seen: Some(seen), .. } = self.probes[*n] else { continue };
            let text = format!("probe {n}.");
            let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
            self.send_from_world(spec.payload(text.as_bytes()));
        }
        self.world.machine.settle();
        let counts = self.counts;
        let (_, answered) = self.look(&counts);
        for n in asked {
            let Probe { qube, dst, seen, .. } = self.probes[n];
            // By whatever name it knows itself now.
            let may = counts.may(self.told, qube, counts.visible(qube), dst);
            let came = answered.contains(&n);
            assert!(!came || may != May::NotPass, "{}: {n} answered", self.at);
            let must = n >= first && seen.is_some() && may == May::Pass;
            assert!(!must || came, "{}: no answer to {:?}", self.at, self.probes[n]);
        }
    }

    /// When all is quiet again everything works.
    fn end(&mut self) {
        if !self.database {
            self.database_ends_or_returns();
        }
        if !self.uplink {
            self.uplink = true;
            self.world.machine.plug(SYS_NET, 0);
        }
        self.settle();
        for rules in [Rules::Shut, Rules::Named] {
            let (text, addr) = (rules.text(), QUBES[0].to_string());
            self.world.dom0.database(|db| db.set_rules(&addr, "drop", text));
            self.settle();
            self.look(&self.counts.clone());
            (self.said.rules[0], self.counts.rules[0]) = (rules, rules);
        }
        let before = self.counts;
        for _ in 0..3 {
            self.look(&before);
            for (asked, id) in std::mem::take(&mut self.queries) {
                let answer = names::answer(id, SERVER);
                self.told = true;
                self.send_from_world(
                    Spec::udp((asked.dst, 53), (asked.src, asked.sport)).payload(&answer),
                );
            }
            self.world.run(Duration::from_secs(3));
        }
        for (dst, passes) in [(SERVER, true), (OTHER, false), (POISON, false)] {
            let client = Client { addr: self.counts.visible(0), ..self.borrowed(0) };
            let left = self.world.out(&client, 5000, (dst, 7)).is_some();
            assert_eq!(left, passes, "{}, at the end: {dst}", self.at);
        }
        assert_eq!(self.world.call("tidegate.Status", b"").1, Some(0), "{}", self.at);
    }
}

/// A qube, running in this domain.
fn boot(machine: &Machine, qube: usize, dom: u16) -> Client {
    let spec = VifSpec { ip: QUBES[qube].to_string(), ..client_vif(dom) };
    let start = machine.xs.introduce(spec.front);
    // A page for each costs time.
    let manners = Manners { rx_buffers: 32, ..Manners::default() };
    let peer = PeerFront::start(&machine.sim, spec.front, start, TIDEGATE, 0, manners);
    machine.finish(machine.tools.attach(spec.clone()));
    machine.wait("the connection", || peer.is_up());
    Client { spec, peer, addr: QUBES[qube] }
}

fn read(bytes: &[u8], offload: Offload) -> Option<Packet<'_>> {
    let len = u32::try_from(bytes.len()).unwrap();
    match parse(&Frame { from: Port::new(0, 0), head: bytes, len, offload }) {
        Ok(Parsed::Ip(packet)) => Some(packet),
        Ok(Parsed::Arp(_)) => None,
        Err(fault) => panic!("{fault:?}: {bytes:02x?}"),
    }
}

/// The number of the probe whose text a datagram carries.
fn label(frame: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(frame.get(42..)?).ok()?;
    text.strip_prefix("probe ")?.split('.').next()?.parse().ok()
}
