//! Two uplinks: each lives, breaks and heals by itself, and neither sees what is the other's.

use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, FREE, Machine, SYS_NET, TIDEGATE, Uplink};
use crate::traffic::{answer, assert_gateway_answers, exchange, query, tuple};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;
use wire::{Mac, Offload, Tuple};
use xen::hypervisor::DomId;
use xen::sim::Label;
use xen::sim::peer_back::{Offers, Tricks};
use xen::sim::peer_front::Outgoing;
use xen::xenbus::XenbusState as State;

const CMDLINE: &str = "ip=10.137.255.2 ip.1=10.20.0.2/24";
const LAB_NET: DomId = DomId(3);
const LAB_OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2));
const LAB_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 7));
const POLICY: &str = "
zone uplink  = netfront 0
zone lab     = netfront 1
zone clients = netback
route 198.18.0.0/15 on lab
policy clients -> uplink { accept }
policy clients -> lab { accept }
nat clients -> uplink masquerade
nat clients -> lab masquerade
";

/// Both uplinks connected, and one client.
fn start(seed: u64) -> (Machine, Uplink, Client) {
    let blob = lang::compile("test.tide", POLICY).expect("a policy").blob;
    let mut machine = Machine::bare_in(seed, CMDLINE, Some(&blob), 2 * FREE);
    machine.plug(SYS_NET, 0);
    let lab = machine.plug_further(LAB_NET, 1);
    machine.wait("both", || machine.uplink().is_connected() && lab.peer.is_connected());
    let client = machine.client(10);
    (machine, lab, client)
}

fn lab_query(client: &Client, sport: u16) -> Vec<u8> {
    Spec::udp((client.addr, sport), (LAB_SERVER, 7)).macs(Mac::BACKEND, CLIENT_MAC).frame()
}

/// A datagram to the lab and its answer back. Returns how it was seen there.
fn exchange_with_lab(machine: &Machine, lab: &Uplink, client: &Client, sport: u16) -> Tuple {
    client.send(lab_query(client, sport));
    machine.settle();
    let sent = lab.peer.received();
    assert_eq!(sent.len(), 1, "console:\n{}", machine.console());
    let seen = tuple(&sent[0].bytes, sent[0].offload);
    assert_eq!((seen.src, seen.dst), (LAB_OWN, LAB_SERVER));
    assert!(reaches(machine, lab, client, &seen));
    seen
}

/// Whether what the lab answers comes to the client.
fn reaches(machine: &Machine, lab: &Uplink, client: &Client, seen: &Tuple) -> bool {
    lab.peer.send(&answer(seen), Offload::NONE);
    machine.settle();
    client.peer.take_received().len() == 1
}

#[test]
fn each_uplink_has_its_device_and_what_befalls_one_is_nothing_to_the_other() {
    for seed in 0..4 {
        let (machine, mut lab, client) = start(seed);
        let boot = machine.read_console();
        assert!(boot.contains("uplink up: domain 1,"), "{boot}");
        assert!(boot.contains("uplink 1 up: domain 3,"), "{boot}");
        assert!(!boot.contains("is not used") && !boot.contains("WARNING"), "{boot}");
        let here = exchange(&machine, &client, 4000);
        let mut there = exchange_with_lab(&machine, &lab, &client, 4000);
        let still_here = |machine: &Machine| {
            machine.uplink().send(&answer(&here), Offload::NONE);
            machine.settle();
            client.peer.take_received().len() == 1
        };
        for n in 0..8u16 {
            match machine.sim.random(4) {
                0 => {
                    lab.peer.restart(Offers::default());
                    machine.wait("the lab again", || lab.peer.is_connected());
                    machine.settle();
                    assert!(reaches(&machine, &lab, &client, &there), "its flow has waited");
                }
                1 => {
                    lab.peer.say(State::Closing);
                    machine.run(Duration::from_millis(100));
                    lab.peer.restart(Offers::default());
                }
                which => {
                    if which == 2 {
                        machine.kill_further(lab);
                    } else {
                        machine.unplug_further(lab);
                    }
                    machine.run(Duration::from_millis(machine.sim.random(2000)));
                    client.send(lab_query(&client, 4000));
                    machine.settle();
                    let told = client.peer.take_received();
                    assert_eq!(told.len(), 1, "seed {seed}, {n}");
                    // ICMP destination unreachable, net unreachable (RFC 792).
                    assert_eq!((told[0].bytes[23], &told[0].bytes[34..36]), (1, &[3, 0][..]));
                    assert!(still_here(&machine), "seed {seed}, {n}");
                    lab = machine.plug_further(DomId(200 + n), 1);
                    machine.wait("another lab", || lab.peer.is_connected());
                    machine.settle();
                    assert!(!reaches(&machine, &lab, &client, &there), "its flows are over");
                }
            }
            assert!(still_here(&machine), "seed {seed}, {n}");
            machine.wait("the lab", || lab.peer.is_connected());
            machine.run(Duration::from_secs(3));
            let _told = client.peer.take_received();
            there = exchange_with_lab(&machine, &lab, &client, 5000 + n);
        }
        assert_gateway_answers(&machine, &client);
        let console = machine.read_console();
        assert!(!console.contains("client"), "seed {seed}:\n{console}");
        assert!(!console.contains("uplink up") && !console.contains("uplink down"), "{console}");
        assert!(console.contains("uplink 1 down"), "{console}");
        assert_eq!(machine.uplink().complaint().or(lab.peer.complaint()), None);
    }
}

#[test]
fn the_first_uplink_heals_to_another_index_but_not_to_that_of_a_further_one() {
    let (mut machine, lab, client) = start(10);
    exchange(&machine, &client, 4000);
    machine.unplug();
    machine.run(Duration::from_secs(10));
    assert!(lab.peer.is_connected());
    exchange_with_lab(&machine, &lab, &client, 4000);
    client.send(query(&client, 4000));
    machine.settle();
    assert_eq!(client.peer.take_received().len(), 1, "unreachable");
    assert!(lab.peer.received().is_empty(), "no uplink stands in for another");
    machine.plug(SYS_NET, 2);
    machine.wait("the uplink again", || machine.uplink().is_connected());
    machine.settle();
    exchange(&machine, &client, 4001);
    exchange_with_lab(&machine, &lab, &client, 4001);
}

#[test]
fn an_uplink_that_takes_no_frames_does_not_hold_up_the_other() {
    let (machine, lab, client) = start(20);
    exchange(&machine, &client, 4000);
    exchange_with_lab(&machine, &lab, &client, 4000);
    for paused in [LAB_NET, SYS_NET] {
        machine.sim.pause(paused, true);
        for n in 0..600 {
            let frame = match paused == LAB_NET {
                true => lab_query(&client, 10_000 + n),
                false => query(&client, 10_000 + n),
            };
            client.send(frame);
            if n % 50 == 0 {
                machine.settle();
            }
        }
        machine.settle();
        // No time has passed: nothing waited for the other to be given up.
        assert_eq!(client.peer.in_flight(), 0);
        if paused == LAB_NET {
            exchange(&machine, &client, 4001);
        } else {
            exchange_with_lab(&machine, &lab, &client, 4001);
        }
        machine.sim.pause(paused, false);
        machine.run(Duration::from_secs(1));
        let _late = (machine.uplink().received(), lab.peer.received());
    }
    assert!(machine.counters().drops[wire::DropReason::EgressFull] > 0);
    exchange(&machine, &client, 4002);
    exchange_with_lab(&machine, &lab, &client, 4002);
}

#[test]
fn neither_backend_reads_a_byte_of_what_is_the_others() {
    const OUT: [Label; 2] = [Label(1), Label(2)];
    const BACK: [Label; 2] = [Label(11), Label(12)];
    for seed in 30..32 {
        let (machine, mut lab, client) = start(seed);
        let seen: Rc<RefCell<BTreeMap<(DomId, Label), usize>>> = Rc::default();
        let count = Rc::clone(&seen);
        machine.sim.on_exposure(move |e| {
            if e.owner == TIDEGATE {
                for label in e.labels {
                    *count.borrow_mut().entry((e.to, *label)).or_default() += 1;
                }
            }
        });
        let mut labs = vec![LAB_NET];
        machine.uplink().set_tricks(Tricks { label: BACK[0], ..Tricks::default() });
        for n in 0..60u16 {
            lab.peer.set_tricks(Tricks { label: BACK[1], ..Tricks::default() });
            for (label, server) in OUT.into_iter().zip([crate::machine::SERVER, LAB_SERVER]) {
                let spec = Spec::udp((client.addr, 4000 + n), (server, 7)).payload(&[0x5a; 1400]);
                let bytes = spec.macs(Mac::BACKEND, CLIENT_MAC).frame();
                assert!(client.peer.send(&Outgoing { label, ..Outgoing::plain(bytes) }));
            }
            machine.settle();
            for peer in [machine.uplink(), &lab.peer] {
                for sent in peer.received() {
                    let seen = tuple(&sent.bytes, sent.offload);
                    peer.send(&answer(&seen), Offload::NONE);
                }
            }
            machine.settle();
            let _answers = client.peer.take_received();
            if n % 20 == 19 {
                machine.unplug_further(lab);
                labs.push(DomId(100 + n));
                lab = machine.plug_further(DomId(100 + n), 1);
                machine.wait("another lab", || lab.peer.is_connected());
                machine.settle();
            }
        }
        let seen = seen.borrow();
        let bytes = |to: DomId, label| seen.get(&(to, label)).copied().unwrap_or(0);
        assert!(bytes(SYS_NET, OUT[0]) > 60_000 && bytes(LAB_NET, OUT[1]) > 20_000, "{seen:?}");
        for dom in labs {
            assert_eq!((bytes(dom, OUT[0]), bytes(dom, BACK[0])), (0, 0), "seed {seed}, {dom}");
        }
        assert_eq!((bytes(SYS_NET, OUT[1]), bytes(SYS_NET, BACK[1])), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_further_uplink_costs_its_pages_and_a_place_and_too_little_memory_is_told() {
    let blob = lang::compile("test.tide", POLICY).expect("a policy").blob;
    let one = Machine::bare_in(40, "ip=10.137.255.2", Some(&blob), 2 * FREE);
    let two = Machine::bare_in(40, CMDLINE, Some(&blob), 2 * FREE);
    let clients = |machine: &Machine| {
        let console = machine.console();
        let line = console.lines().find(|line| line.contains("KiB free")).unwrap().to_owned();
        let number = |word: &str| -> u32 {
            let before = line.split(word).next().unwrap();
            before.rsplit([' ', ',']).find(|part| !part.is_empty()).unwrap().parse().unwrap()
        };
        (number(" connections"), number(" clients"))
    };
    one.settle();
    two.settle();
    let (one, two) = (clients(&one), clients(&two));
    assert_eq!((one.1, two.1), (255, 254));
    assert!(two.0 < one.0, "{two:?} instead of {one:?}");
    // Two do with 16 MiB as well, if not with as many connections.
    let two = Machine::bare_in(42, CMDLINE, Some(&blob), FREE);
    two.settle();
    let (connections, clients) = clients(&two);
    assert!(connections >= 16 << 10 && clients >= 32, "{connections} and {clients}");
    let small = Machine::bare_in(41, CMDLINE, Some(&blob), FREE - (3 << 20));
    let console = small.console();
    assert!(console.contains("11428 KiB of memory are free, 11880 are needed"), "{console}");
    assert!(small.ended().is_some());
}

#[test]
fn a_policy_that_speaks_of_an_uplink_without_an_address_is_told() {
    let machine = Machine::new(50, "ip=10.137.255.2", Some(POLICY));
    let told = "WARNING: the policy speaks of netfront 1, and nothing leaves there: \
                the command line has neither ip.1= nor ip6.1=";
    assert!(machine.console().contains(told), "{}", machine.console());
    let client = machine.client(10);
    exchange(&machine, &client, 4000);
    client.send(lab_query(&client, 4000));
    machine.settle();
    let back = client.peer.take_received();
    assert_eq!((back[0].bytes[23], &back[0].bytes[34..36]), (1, &[3, 0][..]));
    // Without a word for a further uplink its device is a spare one, as ever.
    let spare = machine.plug_further(LAB_NET, 1);
    machine.run(Duration::from_secs(10));
    assert!(!spare.peer.is_connected());
    let spare = "device/vif/1 is not used: the uplink is device/vif/0";
    assert!(machine.console().contains(spare), "{}", machine.console());
    let missing = Machine::bare_in(51, CMDLINE, None, 2 * FREE);
    missing.run(Duration::from_secs(6));
    let console = missing.console();
    let told = "no uplink 1: device/vif/1 is not connected; waiting";
    assert!(console.contains("no uplink: no vif") && console.contains(told), "{console}");
}
