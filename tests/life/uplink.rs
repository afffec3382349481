//! The uplink heals itself, and what it was to one domain it is not to the next.

use crate::machine::flow::{self, BOTH, SERVER6};
use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, Machine, OPEN, SERVER, SYS_NET, TIDEGATE};
use crate::traffic::{answer, assert_gateway_answers, count_heap, exchange, held, query, tuple};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use wire::{Mac, Offload};
use xen::hypervisor::DomId;
use xen::sim::Label;
use xen::sim::peer_back::{Offers, Tricks};
use xen::sim::peer_front::{Manners, Outgoing};
use xen::xenbus::XenbusState as State;

/// Pages of one link: 256 to send from, 256 to receive in, two rings.
const LINK_PAGES: usize = 514;

/// What can befall an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    DriverRestarted,
    BackendCloses,
    DomainKilled,
    Paused,
    OtherIndex,
    OtherDomain,
}

const BLOWS: [Blow; 6] = [
    Blow::DriverRestarted,
    Blow::BackendCloses,
    Blow::DomainKilled,
    Blow::Paused,
    Blow::OtherIndex,
    Blow::OtherDomain,
];

impl Blow {
    /// Lets it happen. Afterwards there is a backend that is ready.
    fn strike(self, machine: &mut Machine, n: u16) {
        let pause = Duration::from_millis(machine.sim.random(3000));
        match self {
            Self::DriverRestarted => machine.uplink().restart(Offers::default()),
            Self::BackendCloses => machine.uplink().say(State::Closing),
            Self::DomainKilled => {
                machine.kill_uplink();
                machine.run(pause);
                machine.plug(DomId(100 + n), 0);
            }
            Self::Paused => {
                let backend = machine.uplink_domain();
                machine.sim.pause(backend, true);
                machine.run(pause);
                machine.sim.pause(backend, false);
            }
            Self::OtherIndex => {
                let backend = machine.uplink_domain();
                machine.unplug();
                machine.run(pause);
                machine.plug(backend, 1 + u32::from(n % 3));
            }
            Self::OtherDomain => {
                machine.unplug();
                machine.run(pause);
                machine.plug(DomId(100 + n), 0);
            }
        }
    }
}

/// Virtual time until a frame of `client` is seen outside, one being sent each ten milliseconds.
fn first_frame(machine: &Machine, client: &Client) -> Duration {
    let start = machine.sim.now();
    let _before = machine.uplink().is_connected().then(|| machine.uplink().received());
    for n in 0..200u16 {
        client.send(query(client, 20_000 + n));
        machine.run(Duration::from_millis(10));
        if machine.uplink().is_connected() && !machine.uplink().received().is_empty() {
            return machine.sim.now().since(start);
        }
    }
    panic!("nothing left in two seconds; console:\n{}", machine.console());
}

#[test]
fn whatever_befalls_the_uplink_a_frame_leaves_within_a_second_and_clients_stay_connected() {
    for seed in 0..8 {
        let mut machine = Machine::open(seed);
        machine.xs.set_pace(Duration::from_micros(50));
        let client = machine.client(10);
        exchange(&machine, &client, 4000);
        let _boot = machine.read_console();
        for n in 0..12 {
            let blow = BLOWS[machine.sim.random(6) as usize];
            blow.strike(&mut machine, n);
            let took = first_frame(&machine, &client);
            assert!(took < Duration::from_secs(1), "seed {seed}, {n}: {blow:?}: {took:?}");
            machine.run(Duration::from_secs(3));
            let _unreachable = client.peer.take_received();
            exchange(&machine, &client, 5000 + n);
            let console = machine.read_console();
            assert!(!console.contains("client"), "seed {seed}, {n}: {blow:?}:\n{console}");
        }
        assert_eq!(client.peer.states(), (Some(State::Connected), Some(State::Connected)));
        assert_eq!(client.peer.fault(), None);
        assert_eq!(machine.uplink().complaint(), None);
    }
}

#[test]
fn without_an_uplink_the_gateway_answers_and_the_world_is_unreachable() {
    let blob = lang::compile("test.tide", OPEN).unwrap().blob;
    let mut machine = Machine::bare(20, BOTH, Some(&blob));
    machine.plug(SYS_NET, 0);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    let client = flow::client(&machine, 10, Manners::default());
    let own6: IpAddr = "fd09::10".parse().unwrap();
    let query6 = |sport| {
        let spec = Spec::udp((own6, sport), (SERVER6, 7));
        spec.macs(Mac::BACKEND, CLIENT_MAC).frame()
    };
    exchange(&machine, &client, 4000);
    client.send(query6(4000));
    machine.settle();
    assert_eq!(machine.uplink().received().len(), 1);
    machine.unplug();
    assert_gateway_answers(&machine, &client);
    // ICMP net unreachable (RFC 792), ICMPv6 no route to destination (RFC 4443 section 3.1).
    let v4 = |sport| (query(&client, sport), 23, 1, 34, [3, 0]);
    let v6 = |sport| (query6(sport), 20, 58, 54, [1, 0]);
    // A flow that was open and one that was not.
    for (asked, protocol_at, protocol, icmp_at, icmp) in [v4(4000), v4(4001), v6(4000), v6(4001)] {
        client.send(asked.clone());
        machine.settle();
        let back = client.peer.take_received();
        assert_eq!(back.len(), 1, "console:\n{}", machine.console());
        let told = &back[0].bytes;
        assert_eq!((told[protocol_at], &told[icmp_at..icmp_at + 2]), (protocol, &icmp[..]));
        assert_eq!(told[icmp_at + 8..], asked[14..], "what was asked is quoted");
    }
}

#[test]
fn behind_frames_that_a_paused_backend_does_not_take_the_gateway_still_answers() {
    let machine = Machine::open(21);
    let (loud, quiet) = (machine.client(10), machine.client(11));
    machine.sim.pause(SYS_NET, true);
    let mut sport = 10_000;
    let mut flood = |most: u32| {
        for _ in 0..most {
            sport += 1;
            if !loud.peer.send(&Outgoing::plain(query(&loud, sport))) {
                break;
            }
            machine.settle();
        }
    };
    flood(600);
    // First they wait, for what may be a short pause, and then they are lost.
    assert!(loud.peer.in_flight() > 100, "{} in flight", loud.peer.in_flight());
    machine.run(Duration::from_millis(501));
    assert_eq!(loud.peer.in_flight(), 0);
    for client in [&loud, &quiet] {
        assert_gateway_answers(&machine, client);
    }
    flood(1000);
    assert_gateway_answers(&machine, &loud);
    let told = "uplink: domain 1 takes no frames: they are lost until it does";
    assert_eq!(machine.console().matches(told).count(), 1, "{}", machine.console());

    machine.sim.pause(SYS_NET, false);
    assert!(first_frame(&machine, &quiet) < Duration::from_secs(1));
    machine.settle();
    let _ = (machine.uplink().received(), loud.peer.take_received());
    exchange(&machine, &loud, 4000);
    assert!(machine.console().contains("uplink: domain 1 takes frames again"));
    assert_eq!(machine.uplink().complaint(), None);
}

#[test]
fn a_new_backend_domain_reads_nothing_of_what_was_for_or_from_the_old_one() {
    const CLIENT: [Label; 2] = [Label(1), Label(2)];
    const WORLD: [Label; 2] = [Label(11), Label(12)];
    for seed in 0..6 {
        let mut machine = Machine::open(30 + seed);
        let client = machine.client(10);
        let seen: Rc<RefCell<BTreeMap<(DomId, Label), usize>>> = Rc::default();
        let count = Rc::clone(&seen);
        machine.sim.on_exposure(move |e| {
            if e.owner == TIDEGATE {
                for label in e.labels {
                    *count.borrow_mut().entry((e.to, *label)).or_default() += 1;
                }
            }
        });
        for era in 0..2 {
            // Some keep pages mapped and let go of them when the next domain is already served.
            let keep_tx = machine.sim.random(2) == 0;
            let keep_rx = machine.sim.random(2) == 0;
            let tricks = Tricks { keep_tx, keep_rx, label: WORLD[era], ..Tricks::default() };
            let old = machine.uplink().clone();
            old.set_tricks(tricks);
            for n in 0..300 {
                let bytes = Spec::udp((client.addr, 4000 + n), (SERVER, 7))
                    .payload(&[0x5a; 1400])
                    .macs(Mac::BACKEND, CLIENT_MAC)
                    .frame();
                let label = CLIENT[era];
                assert!(client.peer.send(&Outgoing { label, ..Outgoing::plain(bytes) }));
                machine.settle();
                for sent in machine.uplink().received() {
                    let seen = tuple(&sent.bytes, sent.offload);
                    machine.uplink().send(&answer(&seen), Offload::NONE);
                }
                machine.settle();
            }
            if era == 0 {
                machine.unplug();
                machine.plug(DomId(102), 0);
                machine.wait("the new uplink", || machine.uplink().is_connected());
                machine.run(Duration::from_millis(10));
                old.set_tricks(Tricks::default());
                machine.run(Duration::from_secs(6));
            }
        }
        machine.run(Duration::from_secs(10));
        let seen = seen.borrow();
        let bytes = |to: DomId, label| seen.get(&(to, label)).copied().unwrap_or(0);
        let second = DomId(102);
        assert!(
            bytes(SYS_NET, CLIENT[0]) > 100_000 && bytes(second, CLIENT[1]) > 100_000,
            "{seen:?}"
        );
        assert_eq!((bytes(second, CLIENT[0]), bytes(second, WORLD[0])), (0, 0), "seed {seed}");
        assert_eq!((bytes(SYS_NET, CLIENT[1]), bytes(SYS_NET, WORLD[1])), (0, 0), "seed {seed}");
    }
}

#[test]
fn flows_outlive_a_driver_and_end_with_a_change_of_domain() {
    let mut machine = Machine::open(40);
    let client = machine.client(10);
    let seen = exchange(&machine, &client, 4000);
    let reaches = |machine: &Machine| {
        machine.uplink().send(&answer(&seen), Offload::NONE);
        machine.settle();
        client.peer.take_received().len()
    };
    machine.uplink().restart(Offers::default());
    machine.wait("the uplink again", || machine.uplink().is_connected());
    machine.run(Duration::from_millis(10));
    assert_eq!(reaches(&machine), 1);
    machine.unplug();
    machine.plug(DomId(101), 0);
    machine.wait("the other uplink", || machine.uplink().is_connected());
    machine.run(Duration::from_millis(10));
    assert_eq!(reaches(&machine), 0);
    exchange(&machine, &client, 4000);
}

#[test]
fn backends_that_never_unmap_cost_two_links_of_pages_and_are_told_of_once() {
    let mut machine = Machine::open(41);
    let client = machine.client(10);
    exchange(&machine, &client, 4000);
    let before = machine.sim.holdings(TIDEGATE);
    assert_eq!(before.pages, LINK_PAGES + 2, "beside the rings of XenStore and the console");
    let keep = Tricks { keep_tx: true, keep_rx: true, keep_rings: true, ..Tricks::default() };
    let mut old = Vec::new();
    for dom in 101..105 {
        if machine.uplink().is_connected() {
            machine.uplink().set_tricks(keep);
            for n in 0..300 {
                client.send(query(&client, 10_000 + n));
                machine.settle();
                for sent in machine.uplink().received() {
                    let seen = tuple(&sent.bytes, sent.offload);
                    machine.uplink().send(&answer(&seen), Offload::NONE);
                }
                machine.settle();
            }
        }
        old.push(machine.uplink().clone());
        machine.unplug();
        machine.plug(DomId(dom), 0);
        machine.run(Duration::from_secs(60));
        let _unreachable = client.peer.take_received();
        let pages = machine.sim.holdings(TIDEGATE).pages;
        assert!(pages <= before.pages + 2 * LINK_PAGES, "{pages} pages");
        assert_gateway_answers(&machine, &client);
    }
    assert!(!machine.uplink().is_connected());
    let console = machine.console();
    assert_eq!(console.matches("pages are set aside").count(), 1, "{console}");
    assert_eq!(console.matches("still mapped by former backends").count(), 1, "{console}");

    // They let go: everything comes back, and the last one is served.
    old.iter().for_each(|peer| peer.set_tricks(Tricks::default()));
    machine.wait("the uplink", || machine.uplink().is_connected());
    machine.run(Duration::from_secs(1));
    let _unreachable = client.peer.take_received();
    exchange(&machine, &client, 4000);
    assert_eq!(machine.sim.holdings(TIDEGATE), before);
}

#[test]
fn ten_thousand_flaps_leave_everything_as_it_was() {
    let machine = Machine::open(42);
    count_heap(&machine);
    let client = machine.client(10);
    let flap = |flaps: u32| {
        for n in 0..flaps {
            match n % 4 {
                0 => machine.uplink().say(State::Closing),
                1 => machine.uplink().say(State::Closed),
                2 => machine.uplink().restart(Offers::default()),
                _ => machine.uplink().say(State::Connected),
            }
            machine.run(Duration::from_micros(machine.sim.random(2000)));
        }
        machine.uplink().restart(Offers::default());
        let healed = machine.sim.now();
        machine.wait("the uplink again", || machine.uplink().is_connected());
        assert!(machine.sim.now().since(healed) < Duration::from_secs(1));
        machine.run(Duration::from_secs(60));
        exchange(&machine, &client, 4000);
        machine.run(Duration::from_secs(60));
        let _log = machine.read_console();
    };
    flap(400);
    let before = held(&machine);
    let grants = machine.sim.counters(TIDEGATE).grants;
    flap(10_000);
    assert_eq!(held(&machine), before);
    // Each link costs 258 grants; ten seconds of flaps allow four and two a second.
    let links = (machine.sim.counters(TIDEGATE).grants - grants) / 258;
    assert!(links < 4 + 2 * 11 + 2, "{links} links");
}
