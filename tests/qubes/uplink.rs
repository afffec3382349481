//! The netvm comes, goes and sleeps: what dom0 says last is what counts, whenever it says it.

use crate::machine::{Client, SERVER, TIDEGATE};
use crate::names;
use crate::world::World;
use std::time::Duration;
use xen::hypervisor::DomId;
use xen::sim::peer_back::Offers;

const ANY: &str = "action=accept";
const NONE: &str = "action=drop";

/// What dom0 writes when another netvm is chosen.
fn rewrite(world: &World, own: &str, resolver: &str) {
    for (key, value) in [
        ("/qubes-ip", own),
        ("/qubes-netvm-gateway", own),
        ("/qubes-primary-dns", resolver),
        ("/qubes-secondary-dns", resolver),
    ] {
        world.dom0.database(|db| db.write(key, value));
    }
    world.machine.settle();
}

fn wait_for_uplink(world: &World) {
    world.machine.wait("the uplink", || world.machine.uplink().is_connected());
    world.machine.settle();
}

/// Whether datagrams of these leave.
fn pass(world: &World, clients: &[&Client], sport: u16) -> Vec<bool> {
    clients.iter().map(|client| world.passes(client, sport)).collect()
}

#[test]
fn another_netvm_counts_whether_dom0_tells_of_it_before_or_after_it_is_there() {
    for keys_first in [true, false] {
        let mut world = World::new(1);
        let (open, shut) = (world.client(10, &[ANY]), world.client(11, &[NONE]));
        for n in 0..4_u16 {
            let own = format!("10.137.255.{}", 10 + n);
            let old = world.out(&open, 4000, (SERVER, 7)).unwrap();
            world.machine.unplug();
            if keys_first {
                rewrite(&world, &own, "10.139.1.1");
            }
            world.machine.plug(DomId(100 + n), u32::from(n % 2));
            wait_for_uplink(&world);
            if !keys_first {
                rewrite(&world, &own, "10.139.1.1");
            }
            let _refusals = open.peer.take_received();
            assert!(!world.back(&open, &old), "a flow of the netvm before");
            let new = world.out(&open, 4000, (SERVER, 7)).unwrap();
            assert_eq!(new.src.to_string(), own);
            assert!(world.back(&open, &new));
            assert_eq!(pass(&world, &[&open, &shut], 5000 + n), [true, false]);
        }
    }
}

/// dom0 removes no key then: they are stale until there is a netvm again.
#[test]
fn a_netvm_that_is_taken_away_and_given_back_finds_the_rules_of_meanwhile() {
    let mut world = World::new(2);
    let (one, two) = (world.client(10, &[ANY]), world.client(11, &[NONE]));
    assert_eq!(pass(&world, &[&one, &two], 4000), [true, false]);
    for n in 0..4_u16 {
        world.machine.unplug();
        world.run(Duration::from_secs(3600));
        let (first, second) = if n % 2 == 0 { (NONE, ANY) } else { (ANY, NONE) };
        world.set_rules(&one, &[first]);
        world.set_rules(&two, &[second]);
        let come = [100 + n, 101][usize::from(n == 3)];
        world.machine.plug(DomId(come), 0);
        wait_for_uplink(&world);
        assert_eq!(pass(&world, &[&one, &two], 4000), [n % 2 == 1, n % 2 == 0], "round {n}");
    }
}

#[test]
fn whatever_befalls_the_netvm_rules_that_change_meanwhile_are_obeyed() {
    for seed in 0..4 {
        let mut world = World::new(10 + seed);
        let client = world.client(10, &[ANY]);
        for n in 0..12_u16 {
            let open = world.machine.sim.random(2) == 0;
            let rule = if open { ANY } else { NONE };
            let flow = world.passes(&client, 4000);
            match world.machine.sim.random(4) {
                0 => {
                    world.machine.kill_uplink();
                    world.set_rules(&client, &[rule]);
                    world.machine.plug(DomId(100 + n), 0);
                }
                1 => {
                    world.machine.unplug();
                    world.set_rules(&client, &[rule]);
                    world.machine.plug(DomId(100 + n), 0);
                }
                2 => {
                    world.machine.uplink().restart(Offers::default());
                    world.set_rules(&client, &[rule]);
                }
                _ => {
                    let netvm = world.machine.uplink_domain();
                    world.machine.sim.pause(netvm, true);
                    world.set_rules(&client, &[rule]);
                    world.machine.sim.pause(netvm, false);
                }
            }
            wait_for_uplink(&world);
            let _late = world.machine.uplink().received();
            // One that was open before, and one that was not.
            for sport in [4000, 5000 + n] {
                assert_eq!(world.passes(&client, sport), open, "seed {seed}, {n}; was {flow}");
            }
        }
    }
}

#[test]
fn a_sleep_ages_nothing_and_what_dom0_said_during_it_counts_after_it() {
    let world = World::new(20);
    let (one, two) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let netvm = world.machine.uplink_domain();
    let all = [TIDEGATE, netvm, DomId(10), DomId(11)];
    for round in 0..4_u16 {
        let seen = world.out(&one, 4000, (SERVER, 7)).unwrap();
        for service in ["qubes.SuspendPreAll", "qubes.SuspendPre"] {
            assert_eq!(world.call(service, b"").1, Some(0));
        }
        let sim = &world.machine.sim;
        // In any order, and woken in any other.
        let turn = usize::from(round);
        all.iter().cycle().skip(turn).take(4).for_each(|dom| sim.pause(*dom, true));
        let rule = if round % 2 == 0 { NONE } else { ANY };
        world.dom0.database(|db| db.set_rules("10.137.0.11", "drop", &[(0, rule)]));
        world.run(Duration::from_secs(9 * 3600));
        all.iter().cycle().skip(3 - turn).take(4).for_each(|dom| sim.pause(*dom, false));
        world.machine.settle();
        for service in ["qubes.SuspendPost", "qubes.SuspendPostAll"] {
            assert_eq!(world.call(service, b"").1, Some(0));
        }
        assert!(world.back(&one, &seen), "its flow is as old as it was");
        assert_eq!(world.out(&one, 4000, (SERVER, 7)), Some(seen));
        assert_eq!(world.passes(&two, 4000), round % 2 == 1, "round {round}");
    }
}

#[test]
fn another_netvms_resolvers_are_asked_for_names_and_meant_by_specialtarget() {
    let mut world = World::new(21);
    let named = "action=accept dsthost=www.example.org proto=udp";
    let client = world.client(10, &[named, "action=accept specialtarget=dns"]);
    let targets = |world: &World| -> Vec<String> {
        names::queries(world).iter().map(|(asked, _)| asked.dst.to_string()).collect()
    };
    assert!(targets(&world).iter().all(|dst| dst == "10.139.1.1"));
    world.machine.unplug();
    rewrite(&world, "10.137.255.9", "10.8.0.1");
    world.machine.plug(DomId(100), 0);
    wait_for_uplink(&world);
    let asked = targets(&world);
    assert!(!asked.is_empty() && asked.iter().all(|dst| dst == "10.8.0.1"), "{asked:?}");
    // Clients still ask the address they were given.
    let (old, new) = ("10.139.1.1".parse().unwrap(), "10.8.0.1".parse().unwrap());
    for (sport, dst) in [(4000, old), (4001, new)] {
        assert_eq!(world.out(&client, sport, (dst, 53)).unwrap().dst, new);
    }
    assert!(world.out(&client, 4002, (old, 54)).is_none());
}
