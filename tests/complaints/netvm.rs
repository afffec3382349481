//! What befalls the network VM, and what users then say of the firewall.

use crate::machine::dom0::Dom0;
use crate::machine::{Client, Machine, SERVER, SYS_NET, TIDEGATE, UPLINK_MAC};
use crate::qubes::{ENTRIES, World};
use std::time::Duration;
use xen::hypervisor::{DomId, Shutdown};
use xen::sim::peer_back::Offers;
use xen::sim::toolstack::VifSpec;

const ANY: &str = "action=accept";
const HOUR: Duration = Duration::from_secs(3600);

/// What dom0 keeps for a firewall that has no netvm.
fn without_netvm() -> Vec<(&'static str, &'static str)> {
    let of_the_netvm =
        ["/qubes-mac", "/qubes-ip", "/qubes-netmask", "/qubes-gateway", "/qubes-primary-dns"];
    let all = ENTRIES.iter().copied();
    all.filter(|(key, _)| !of_the_netvm.contains(key) && *key != "/qubes-secondary-dns").collect()
}

/// Whether a datagram of `client` leaves and its answer comes back, within a second from now.
fn has_network(world: &World, client: &Client, sport: u16) -> bool {
    let since = world.machine.sim.now();
    world.machine.wait("the uplink to be up", || world.machine.uplink().is_connected());
    world.machine.settle();
    let seen = world.out(client, sport, (SERVER, 7));
    assert!(world.machine.sim.now().since(since) < Duration::from_secs(1));
    let _refusals = client.peer.take_received();
    seen.is_some_and(|seen| world.back(client, &seen))
}

fn shuts_down(machine: &Machine) -> bool {
    let order = "/local/domain/2/control/shutdown";
    machine.xs.set(order, "poweroff");
    machine.run(Duration::from_secs(1));
    machine.xs.value(order).as_deref() == Some("") && machine.ended() == Some(Shutdown::Poweroff)
}

/// dom0 has nothing to tell: the gateway's address is what it was.
#[test]
fn no_network_after_sys_net_was_restarted_or_killed() {
    let mut world = World::new(1);
    let client = world.client(10, &[ANY]);
    assert!(has_network(&world, &client, 4000));
    for n in 0..6 {
        if n % 2 == 0 {
            world.machine.kill_uplink();
        } else {
            world.machine.unplug();
        }
        world.run(Duration::from_secs(1));
        let (status, _) = world.call("tidegate.Status", b"");
        assert!(status.contains("uplink down\n"), "round {n}: {status}");
        world.machine.plug(DomId(100 + n), 0);
        assert!(has_network(&world, &client, 5000 + n), "round {n}");
    }
}

#[test]
fn no_network_after_the_laptop_slept() {
    let mut world = World::new(2);
    let client = world.client(10, &[ANY]);
    assert!(has_network(&world, &client, 4000));
    for (n, its_domain_is_new) in (0..).zip([false, true]) {
        for service in ["qubes.SuspendPreAll", "qubes.SuspendPre"] {
            assert_eq!(world.call(service, b"").1, Some(0));
        }
        world.machine.sim.pause(TIDEGATE, true);
        if its_domain_is_new {
            world.machine.kill_uplink();
            world.machine.plug(DomId(100), 0);
        } else {
            world.machine.uplink().restart(Offers::default());
        }
        world.run(8 * HOUR);
        world.machine.sim.pause(TIDEGATE, false);
        assert!(has_network(&world, &client, 5000 + n), "round {n}");
    }
}

#[test]
fn no_network_after_another_netvm_was_chosen() {
    let mut world = World::new(3);
    let client = world.client(10, &[ANY]);
    assert!(has_network(&world, &client, 4000));
    world.machine.unplug();
    world.dom0.database(|db| db.write("/qubes-ip", "10.137.255.9"));
    world.dom0.database(|db| db.write("/qubes-gateway", "10.137.0.33"));
    world.machine.plug(DomId(33), 0);
    assert!(has_network(&world, &client, 4000));
    assert_eq!(world.out(&client, 4001, (SERVER, 7)).unwrap().src.to_string(), "10.137.255.9");
}

#[test]
fn without_a_netvm_it_does_not_run_and_cannot_be_shut_down() {
    for netvm_comes in [false, true] {
        let mut machine = Machine::bare(4, "", None);
        let dom0 = Dom0::start(&machine.sim, &machine.xs, TIDEGATE, &without_netvm());
        machine.wait("the database to be read", || dom0.database(|db| db.is_live()));
        machine.wait("the agent", || dom0.is_greeted());
        let client = machine.client(10);
        dom0.database(|db| db.set_rules("10.137.0.10", "drop", &[(0, ANY)]));
        machine.run(HOUR);
        if netvm_comes {
            for (key, value) in ENTRIES {
                dom0.database(|db| db.write(key, value));
            }
            machine.plug(SYS_NET, 0);
            let world = World { machine, dom0 };
            assert!(has_network(&world, &client, 4000));
            assert!(shuts_down(&world.machine));
        } else {
            assert!(shuts_down(&machine), "{}", machine.console());
        }
    }
}

/// As after `ipv6.disable=1` in sys-net, where its script fails and its side is never ready.
#[test]
fn with_a_sys_net_that_never_gets_ready_no_qube_starts_and_nothing_shuts_down() {
    let machine = Machine::bare(5, "", None);
    let _dom0 = Dom0::start(&machine.sim, &machine.xs, TIDEGATE, ENTRIES);
    let mut uplink = VifSpec::new(TIDEGATE, SYS_NET, 0, UPLINK_MAC);
    uplink.driver_domain = false;
    machine.tools.attach(uplink);
    machine.run(Duration::from_secs(60));
    for dom in [10, 11, 12] {
        let since = machine.sim.now();
        let _started = machine.client(dom);
        assert!(machine.sim.now().since(since) < Duration::from_secs(2));
    }
    assert!(shuts_down(&machine), "{}", machine.console());
}

#[test]
fn without_ipv6_in_the_netvm_ipv4_does_not_work_either() {
    let world = World::new(6);
    let client = crate::machine::flow::client(&world.machine, 10, Default::default());
    world.set_rules(&client, &[ANY]);
    world.dom0.database(|db| db.set_rules("fd09::10", "drop", &[(0, ANY)]));
    world.machine.settle();
    assert!(has_network(&world, &client, 4000));
    let [own, far] = ["fd09::10", "2606:2800::1"].map(|addr| addr.parse().unwrap());
    let frame = crate::common::Spec::udp((own, 4000), (far, 7));
    client.send(frame.macs(wire::Mac::BACKEND, crate::machine::CLIENT_MAC).frame());
    world.machine.settle();
    assert!(world.machine.uplink().received().is_empty(), "there is no address to leave under");
    assert!(has_network(&world, &client, 4001));
}
