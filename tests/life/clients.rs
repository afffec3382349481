//! Clients' lives: how Windows and HVMs come up, how often anybody may come and go, and how much noise
//! one can make before another hears of it.

use crate::machine::{CLIENT_MAC, Client, Machine, TIDEGATE, client_vif};
use crate::traffic::{count_heap, exchange, held};
use std::time::Duration;
use wire::Offload;
use xen::hypervisor::DomId;
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::toolstack::Progress;
use xen::sim::xenstored::Caller;
use xen::xenbus::XenbusState as State;

/// Windows' driver: it does nothing by itself, the test says each of its states.
fn windows() -> Manners {
    Manners { follows_backend: false, ..Manners::default() }
}

fn state(machine: &Machine, client: &Client) -> Option<String> {
    machine.xs.value(&format!("{}/state", client.spec.backend()))
}

/// Closes and opens again, as Windows' driver does before its first connect and whenever it restarts:
/// it writes each state when it sees ours.
fn close_cycle(machine: &Machine, client: &Client) {
    client.peer.behave(windows());
    for (own, ours) in [(State::Closing, "5"), (State::Closed, "6"), (State::Initialising, "2")] {
        client.peer.write_state(own);
        machine.wait("our answer", || state(machine, client).as_deref() == Some(ours));
    }
    client.peer.behave(Manners::default());
    // It looks again when it has restarted.
    client.peer.write_state(State::Initialising);
    machine.wait("the connection", || client.peer.is_up());
}

#[test]
fn windows_closes_before_its_first_connect_and_at_any_time() {
    for seed in 0..6 {
        let machine = Machine::open(seed);
        let other = machine.client(20);
        let client = machine.boot(10, windows());
        for n in 0..10 {
            close_cycle(&machine, &client);
            machine.run(Duration::from_millis(machine.sim.random(400)));
            exchange(&machine, &client, 4000 + n);
            exchange(&machine, &other, 5000 + n);
        }
        assert_eq!((client.peer.fault(), client.peer.kept()), (None, 0));
        machine.finish(machine.tools.detach(&client.spec));
    }
}

#[test]
fn a_close_cycle_that_breaks_off_anywhere_leaves_nothing_but_a_vif_that_can_start_again() {
    let states = [State::Initialising, State::Connected, State::Closing, State::Closed];
    for seed in 0..12 {
        let machine = Machine::open(100 + seed);
        let client = machine.client(10);
        machine.run(Duration::from_secs(1));
        let up = machine.sim.holdings(TIDEGATE);
        for n in 0..10 {
            client.peer.behave(windows());
            for _ in 0..machine.sim.random(5) {
                client.peer.write_state(states[machine.sim.random(4) as usize]);
                machine.run(Duration::from_millis(machine.sim.random(200)));
            }
            client.peer.behave(Manners::default());
            close_cycle(&machine, &client);
            exchange(&machine, &client, 4000 + n);
            machine.run(Duration::from_secs(1));
            assert_eq!(machine.sim.holdings(TIDEGATE), up, "seed {seed}, {n}");
        }
    }
}

#[test]
fn both_vifs_of_an_hvm_work_with_the_same_mac_and_address_and_the_last_one_goes_on() {
    let machine = Machine::open(50);
    let mut stub = client_vif(21);
    stub.ip = "10.137.0.20".into();
    let start = machine.xs.introduce(stub.front);
    let peer = PeerFront::start(&machine.sim, stub.front, start, TIDEGATE, 0, Manners::default());
    machine.finish(machine.tools.attach(stub.clone()));
    let emulated = Client { addr: stub.ip.parse().unwrap(), spec: stub, peer };
    let guest = machine.boot(20, windows());
    machine.wait("the emulated interface", || emulated.peer.is_up());
    // Both are offered; only the emulated one connects at first.
    assert_eq!(state(&machine, &guest).as_deref(), Some("2"));
    exchange(&machine, &emulated, 4000);
    // Then the guest's driver does.
    close_cycle(&machine, &guest);
    assert_eq!(guest.addr, emulated.addr);
    for n in 0..3 {
        exchange(&machine, &guest, 4010 + n);
        exchange(&machine, &emulated, 4020 + n);
    }
    machine
        .finish(machine.tools.destroy(emulated.spec.front, std::slice::from_ref(&emulated.spec)));
    exchange(&machine, &guest, 4030);
    assert_eq!((guest.spec.mac, guest.peer.fault()), (CLIENT_MAC, None));
}

#[test]
fn two_hundred_attachments_leave_everything_as_it_was() {
    let machine = Machine::open(51);
    count_heap(&machine);
    let stays = machine.client(9);
    let comes = machine.client(10);
    let cycle = |n: u16| {
        // A domain that comes for the first time and is destroyed, and one that stays beside its vif.
        let guest = machine.client(1000 + n);
        exchange(&machine, &guest, 4000);
        let gone = std::slice::from_ref(&guest.spec);
        machine.finish(machine.tools.destroy(guest.spec.front, gone));
        exchange(&machine, &comes, 4000 + n);
        machine.finish(machine.tools.detach(&comes.spec));
        machine.settle();
        let held = held(&machine);
        machine.finish(machine.tools.attach(comes.spec.clone()));
        machine.wait("the connection", || comes.peer.is_up());
        let _log = machine.read_console();
        held
    };
    for n in 0..3 {
        cycle(n);
    }
    let before = cycle(3);
    for n in 4..204 {
        assert_eq!(cycle(n), before, "after {n} attachments");
    }
    exchange(&machine, &stays, 4000);
    assert_eq!((comes.peer.kept(), comes.peer.fault(), stays.peer.fault()), (0, None, None));
}

/// How long an attach takes from `xl`'s first word to frames that pass, while `noise` is made each
/// 100 µs, and XenStore takes its time for each message.
fn attach_beside(machine: &Machine, dom: u16, mut noise: impl FnMut()) -> Duration {
    let start = machine.xs.introduce(DomId(dom));
    let peer = PeerFront::start(&machine.sim, DomId(dom), start, TIDEGATE, 0, Manners::default());
    let spec = client_vif(dom);
    let begun = machine.sim.now();
    let job = machine.tools.attach(spec.clone());
    while !peer.is_up() {
        noise();
        machine.run(Duration::from_micros(100));
        assert!(machine.sim.now().since(begun) < Duration::from_secs(30), "never");
    }
    let took = machine.sim.now().since(begun);
    machine.finish(job);
    let addr = spec.ip.parse().unwrap();
    exchange(machine, &Client { spec, peer, addr }, 4000);
    took
}

/// A machine whose XenStore does twenty thousand messages a second.
fn paced(seed: u64) -> Machine {
    let machine = Machine::open(seed);
    machine.xs.set_pace(Duration::from_micros(50));
    machine
}

#[test]
fn a_client_that_writes_its_state_ten_thousand_times_a_second_delays_no_neighbour() {
    for seed in 0..3 {
        let machine = paced(60 + seed);
        let flipper = machine.boot(10, windows());
        let states = [State::Closing, State::Closed, State::Initialising, State::Connected];
        let mut n = 0;
        let mut flip = || {
            flipper.peer.write_state(states[n % 4]);
            n += 1;
        };
        // It has been at it for a while: whatever piles up has piled up.
        for _ in 0..10_000 {
            flip();
            machine.run(Duration::from_micros(100));
        }
        let took = attach_beside(&machine, 11, flip);
        assert!(took < Duration::from_secs(1), "seed {seed}: {took:?}");
        // When it starts over, it is served like any other.
        flipper.peer.write_state(State::Initialising);
        machine.wait("our offer", || state(&machine, &flipper).as_deref() == Some("2"));
        close_cycle(&machine, &flipper);
        exchange(&machine, &flipper, 4000);
        let open = machine.xs.with(|store| store.transactions_of(Caller::Domain(TIDEGATE)));
        assert_eq!(open, 0);
    }
}

#[test]
fn a_client_that_writes_long_values_everywhere_delays_no_neighbour() {
    let machine = paced(70);
    let writer = machine.boot(10, windows());
    let frontend = writer.spec.frontend();
    let long = vec![b'9'; 2047];
    let names = ["state", "tx-ring-ref", "rx-ring-ref", "event-channel", "feature-sg", "mtu"];
    let mut n = 0;
    let mut noise = || {
        let path = format!("{frontend}/{}", names[n % names.len()]);
        // Every now and then a state that makes us read all the others.
        let value = if n % 60 == 0 { &b"4"[..] } else { &long };
        let who = Caller::Domain(DomId(10));
        machine.xs.with(|store| store.write(who, None, &path, value)).unwrap();
        n += 1;
    };
    for _ in 0..5_000 {
        noise();
        machine.run(Duration::from_micros(100));
    }
    let took = attach_beside(&machine, 11, noise);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Not one of its bytes is on the console unescaped or uncut.
    assert!(!machine.console().contains(&"9".repeat(100)), "{}", machine.console());
}

#[test]
fn an_attach_begun_while_xenstore_stands_still_ends_when_it_goes_on() {
    let machine = Machine::open(71);
    let client = machine.client(10);
    machine.xs.stall(true);
    let _ring = machine.xs.introduce(DomId(11));
    let job = machine.tools.attach(client_vif(11));
    machine.run(Duration::from_secs(5));
    assert_eq!(machine.tools.progress(job), Progress::Waiting);
    machine.uplink().send(&[0; 60], Offload::NONE);
    exchange(&machine, &client, 4000);
    machine.xs.stall(false);
    machine.finish(job);
}
