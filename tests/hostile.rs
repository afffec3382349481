//! The whole appliance beside a client, or an uplink, that changes shared memory at every access we
//! make to it, and an honest client that must not notice. Repeated by seeds: TIDEGATE_SEEDS says how
//! many, by default as many as a test may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::frames::Spec;
use machine::{CLIENT_MAC, CMDLINE, Client, Machine, OWN, SERVER, SYS_NET, TIDEGATE, UPLINK_MAC};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use wire::{Csum, Frame, Gso, GsoKind, Mac, Offload, Parsed, Port, Tuple, parse};
use xen::hypervisor::{CopyEnd, CopyOp, DomId, GrantStatus};
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::{Manners, Outgoing, Slots};
use xen::sim::{Label, Sim, Touch, TouchKind, Witness};
use xen::xenbus::XenbusState as State;

const POLICY: &str = "
zone uplink  = netfront 0
zone clients = netback
policy clients -> uplink {
    accept udp 7
    accept tcp 7
    drop
}
nat clients -> uplink masquerade
";

const GOOD: DomId = DomId(10);
const EVIL: DomId = DomId(11);
const ALLOWED: u16 = 7;
const REFUSED: u16 = 9;
const ROUNDS: u16 = 12;

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok());
    0..wanted.unwrap_or(16)
}

/// What was seen of a run, to be judged at its end.
struct Seen {
    witness: Rc<RefCell<Witness>>,
    /// Bytes in pages that hold another's.
    strayed: Rc<RefCell<Vec<String>>>,
}

/// Watches all of Tidegate's accesses, and lets `lie` change what it is about to see.
fn watch(machine: &Machine, mut lie: impl FnMut(&Touch, &mut [u8]) + 'static) -> Seen {
    let witness = Rc::new(RefCell::new(Witness::new(TIDEGATE)));
    let seen = Rc::clone(&witness);
    machine.sim.on_touch(move |touch, bytes| {
        seen.borrow_mut().see(touch);
        lie(touch, bytes);
    });
    let strayed = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&strayed);
    machine.sim.on_exposure(move |e| {
        for label in e.labels.iter().filter(|label| **label != Label::OURS) {
            let leaves = e.owner == TIDEGATE && e.to == SYS_NET;
            if e.owner.0 != label.0 && !leaves {
                let text = format!("a byte of domain {} in a page of {}", label.0, e.owner);
                list.borrow_mut().push(text);
            }
        }
    });
    Seen { witness, strayed }
}

impl Seen {
    fn judge(&self, machine: &Machine, seed: u64) {
        let witness = self.witness.borrow();
        let (careless, none) = (witness.careless(), &[] as &[String]);
        assert_eq!(careless, none, "seed {seed}");
        assert!(witness.reads() > 20, "seed {seed}: only {} slots were read", witness.reads());
        assert_eq!(*self.strayed.borrow(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(machine.ended(), None, "seed {seed}; console:\n{}", machine.console());
    }
}

/// Bytes that tell whose and which they are.
fn payload(dom: DomId, seed: u64, round: u16) -> Vec<u8> {
    let len = 30 + (seed as usize * 131 + usize::from(round) * 389) % 1400;
    let mark = u32::from(dom.0) << 16 | u32::from(round);
    (0..len).map(|n| mark.to_be_bytes()[n % 4] ^ (n / 4) as u8).collect()
}

fn datagram(client: &Client, port: u16, payload: &[u8]) -> Vec<u8> {
    let spec = Spec::udp((client.addr, 4000), (SERVER, port));
    spec.payload(payload).macs(Mac::BACKEND, CLIENT_MAC).frame()
}

fn send(client: &Client, outgoing: Outgoing) -> bool {
    client.peer.send(&Outgoing { label: Label(client.spec.front.0), ..outgoing })
}

/// The tuple and the payload of a datagram, or the tuple of a segment.
fn understood(bytes: &[u8], offload: Offload) -> Option<(Tuple, Vec<u8>)> {
    let len = u32::try_from(bytes.len()).unwrap();
    let frame = Frame { from: Port::new(0, 0), head: bytes, len, offload };
    let Ok(Parsed::Ip(packet)) = parse(&frame) else { return None };
    Some((packet.tuple()?, bytes.get(42..).unwrap_or_default().to_vec()))
}

/// Whether it is an ICMP error of our own: an answer that is too long for its client gets one.
fn is_own_error(frame: &[u8]) -> bool {
    let icmp = frame.get(23) == Some(&1) && frame.get(26..30) == Some(&OWN.octets());
    icmp && matches!(frame.get(34), Some(3 | 11))
}

/// What the server answers to what came to it as `seen`.
fn answer(seen: &Tuple, payload: &[u8]) -> Vec<u8> {
    let spec = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
    spec.payload(payload).macs(UPLINK_MAC, Mac::BACKEND).frame()
}

/// The evil client changes what Tidegate is about to look at: indices seldom, as that ends the vif;
/// slots and heads often; and bytes anywhere, so that a second look sees something else.
fn rewrite(sim: &Sim, touch: &Touch, bytes: &mut [u8]) {
    if touch.by != TIDEGATE || touch.owner != EVIL {
        return;
    }
    let luck = |n: usize| sim.random(n as u64) as usize;
    match touch.kind {
        TouchKind::Read if touch.offset < 64 => {
            let chance = luck(150);
            if chance == 0 {
                let index = touch.offset;
                let word = u32::from_le_bytes(bytes[index..index + 4].try_into().unwrap());
                let lie = word.wrapping_add(luck(300) as u32).wrapping_sub(20);
                bytes[index..index + 4].copy_from_slice(&lie.to_le_bytes());
            }
        }
        TouchKind::Read if luck(8) == 0 => {
            bytes[touch.offset + luck(touch.len)] = luck(256) as u8;
        }
        TouchKind::CopyFrom if luck(2) == 0 => {
            for _ in 0..=luck(3) {
                bytes[touch.offset + luck(touch.len.clamp(1, 64))] = luck(256) as u8;
            }
        }
        _ => {}
    }
    if luck(4) == 0 {
        let at = if luck(2) == 0 { 64 + luck(4032) } else { 64 + luck(200) };
        bytes[at] = luck(256) as u8;
    }
}

/// One copy in thirty from or to the evil client's pages fails, as if it had just taken them back.
fn taken_back(sim: Sim) -> impl FnMut(DomId, &CopyOp) -> Option<GrantStatus> {
    move |_, op| {
        let its = |end| matches!(end, CopyEnd::Grant { dom, .. } if dom == EVIL);
        let now = (its(op.src()) || its(op.dst())) && sim.random(30) == 0;
        now.then_some(GrantStatus::GENERAL_ERROR)
    }
}

/// Frames right and wrong, from one that may be neither connected nor sound.
fn misbehave(machine: &Machine, evil: &Client, seed: u64, round: u16) {
    let luck = |n: u64| machine.sim.random(n);
    if evil.peer.fault().is_some() || !evil.peer.is_up() {
        evil.peer.write_state(State::Initialising);
        machine.run(Duration::from_millis(700));
        return;
    }
    for n in 0..1 + luck(6) {
        let port = if luck(2) == 0 { ALLOWED } else { REFUSED };
        let bytes = datagram(evil, port, &payload(EVIL, seed + n, round));
        let slots = match luck(3) {
            0 => Slots::Linux,
            1 => Slots::Bounced,
            _ => Slots::Exactly(vec![(0, 60), (4000, (bytes.len() - 60) as u16)]),
        };
        let fits = bytes.len() <= 60 + 96 || !matches!(slots, Slots::Exactly(_));
        let slots = if fits { slots } else { Slots::Linux };
        let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1000 });
        let offload = if luck(4) == 0 { Offload { csum: Csum::Blank, gso } } else { Offload::NONE };
        let _full = send(evil, Outgoing { offload, slots, ..Outgoing::plain(bytes) });
    }
    match luck(12) {
        0 => evil.peer.revoke_posted(),
        1 => evil.peer.keep_posted(luck(20) as u32),
        2 => evil.peer.write_state(State::ALL[luck(8) as usize]),
        3 => evil.peer.scribble(luck(2) as usize, 4 * luck(1024) as usize, luck(1 << 32) as u32),
        _ => {}
    }
    evil.peer.signal();
}

#[test]
fn a_client_that_rewrites_what_we_look_at_costs_itself_only() {
    let mut passed = 0;
    for seed in seeds() {
        let machine = Machine::new(seed, CMDLINE, Some(POLICY));
        let (good, evil) = (machine.client(GOOD.0), machine.client(EVIL.0));
        let sim = machine.sim.clone();
        let seen = watch(&machine, move |touch, bytes| rewrite(&sim, touch, bytes));
        machine.sim.on_copy(taken_back(machine.sim.clone()));
        for round in 0..ROUNDS {
            misbehave(&machine, &evil, seed, round);
            let sent = payload(GOOD, seed, round);
            assert!(send(&good, Outgoing::plain(datagram(&good, ALLOWED, &sent))));
            machine.settle();
            passed += exchange(&machine, &good, &sent, seed);
        }
        seen.judge(&machine, seed);
        assert_eq!((good.peer.fault(), good.peer.in_flight()), (None, 0), "seed {seed}");
        assert_eq!(machine.uplink().complaint(), None, "seed {seed}");
    }
    assert!(passed > 3 * seeds().end, "only {passed} frames of the evil client went out");
}

/// What came out is what policy allows, the honest datagram among it as it was sent; all of it is
/// answered, and the honest client has its answer. Returns how many were the other's.
fn exchange(machine: &Machine, good: &Client, sent: &[u8], seed: u64) -> u64 {
    let console = || machine.console();
    let out = machine.uplink().received();
    let mut honest = 0;
    let errors = out.iter().filter(|frame| is_own_error(&frame.bytes)).count();
    for frame in out.iter().filter(|frame| !is_own_error(&frame.bytes)) {
        let (tuple, body) = understood(&frame.bytes, frame.offload)
            .unwrap_or_else(|| panic!("seed {seed}: {:02x?}\n{}", frame.bytes, console()));
        assert_eq!((tuple.src, tuple.dport), (OWN.into(), ALLOWED), "seed {seed}: {tuple:?}");
        honest += usize::from(body == sent);
        machine.uplink().send(&answer(&tuple, &body), Offload::NONE);
    }
    assert_eq!(honest, 1, "seed {seed}: of {} frames; console:\n{}", out.len(), console());
    // The evil one may be waited for, for a moment.
    machine.run(Duration::from_millis(2));
    let back = good.peer.take_received();
    let bodies: Vec<_> =
        back.iter().filter_map(|frame| understood(&frame.bytes, frame.offload)).collect();
    assert_eq!(bodies.len(), 1, "seed {seed}; console:\n{}", console());
    assert!(bodies[0].0.dst == good.addr && bodies[0].1 == sent, "seed {seed}: {:?}", bodies[0].0);
    (out.len() - errors) as u64 - 1
}

/// The uplink changes its rings at every look; its frames are what it likes.
#[test]
fn an_uplink_that_rewrites_what_we_look_at_costs_itself_only() {
    let mut faults = 0;
    for seed in seeds() {
        let machine = Machine::new(seed, CMDLINE, Some(POLICY));
        let (one, other) = (machine.client(GOOD.0), machine.client(EVIL.0));
        let (sim, on) = (machine.sim.clone(), Rc::new(Cell::new(true)));
        let lying = Rc::clone(&on);
        let seen = watch(&machine, move |touch, bytes| {
            let its = touch.by == TIDEGATE && touch.owner == TIDEGATE;
            if lying.get() && its && touch.kind == TouchKind::Read && sim.random(30) == 0 {
                let at = touch.offset + sim.random(touch.len.max(1) as u64) as usize;
                bytes[at] = sim.random(256) as u8;
            }
        });
        for round in 0..ROUNDS {
            for client in [&one, &other] {
                let body = payload(client.spec.front, seed, round);
                let _full = send(client, Outgoing::plain(datagram(client, ALLOWED, &body)));
                // Answered by the firewall, whatever the uplink does.
                let spec = Spec::ping(client.addr, OWN.into(), round);
                client.send(spec.macs(Mac::BACKEND, CLIENT_MAC).frame());
            }
            if machine.uplink().is_connected() {
                let stranger = Spec::udp((SERVER, ALLOWED), (OWN.into(), 4000 + round));
                let frame = stranger.macs(UPLINK_MAC, Mac::BACKEND).frame();
                machine.uplink().send(&frame, Offload::NONE);
            }
            machine.settle();
            for client in [&one, &other] {
                let came = client.peer.take_received();
                let pongs = came.iter().filter_map(|f| understood(&f.bytes, f.offload));
                let pongs: Vec<_> = pongs.filter(|(t, _)| t.src == OWN).collect();
                assert_eq!(pongs.len(), 1, "seed {seed}; console:\n{}", machine.console());
                assert_eq!(pongs[0].0.dst, client.addr, "seed {seed}");
            }
            if machine.sim.random(3) == 0 {
                machine.run(Duration::from_millis(500));
            }
        }
        faults += usize::from(machine.read_console().contains("broken backend"));
        on.set(false);
        // What it wrote to its own indices, it suffers from until it starts anew.
        machine.uplink().restart(Offers::default());
        machine.run(Duration::from_secs(60));
        machine.wait("the uplink to heal", || machine.uplink().is_connected());
        let _before = machine.uplink().received();
        let body = payload(GOOD, seed, 99);
        assert!(send(&one, Outgoing::plain(datagram(&one, ALLOWED, &body))));
        machine.settle();
        assert_eq!(machine.uplink().received().len(), 1, "seed {seed}: {}", machine.console());
        for client in [&one, &other] {
            assert_eq!((client.peer.fault(), client.peer.in_flight()), (None, 0), "seed {seed}");
        }
        seen.judge(&machine, seed);
    }
    assert!(faults as u64 > seeds().end / 4, "only {faults} uplinks broke");
}

/// The rules of the witness hold for honest peers and large frames both ways, too.
#[test]
fn nothing_careless_is_seen_with_honest_peers() {
    let machine = Machine::new(1, CMDLINE, Some(POLICY));
    let good = machine.boot(GOOD.0, Manners::default());
    machine.wait("the client to be up", || good.peer.is_up());
    let seen = watch(&machine, |_, _| {});
    for round in 0..300 {
        let sent = payload(GOOD, 1, round);
        assert!(send(&good, Outgoing::plain(datagram(&good, ALLOWED, &sent))));
        machine.settle();
        assert_eq!(exchange(&machine, &good, &sent, 1), 0);
    }
    seen.judge(&machine, 1);
}
