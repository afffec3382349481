//! What users say about their qubes and each other, and about the memory of the firewall.

use crate::machine::{CLIENT_MAC, SERVER, TIDEGATE};
use crate::qubes::World;
use std::time::Duration;
use wire::{Mac, reply};
use xen::sim::xenstored::Caller;
use xen::store::wire::{Perm, PermLetter};

const ANY: &str = "action=accept";

/// The rules of a new qube accept everything, and everything is the world alone.
#[test]
fn two_qubes_reach_each_other_under_default_rules() {
    let world = World::new(1);
    let (one, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    for (from, to) in [(&one, &other), (&other, &one)] {
        assert!(world.out(from, 4000, (to.addr, 7)).is_none(), "nor by way of sys-net");
        assert!(to.peer.take_received().is_empty());
    }
    assert!(world.passes(&one, 4000) && world.passes(&other, 4000));
}

#[test]
fn each_arp_request_of_a_qube_is_a_line_in_the_log() {
    let world = World::new(2);
    let client = world.client(10, &[ANY]);
    let std::net::IpAddr::V4(own) = client.addr else { panic!() };
    let mut frame = [0; wire::REPLY_MAX];
    let len = reply::arp_request(CLIENT_MAC, own, [10, 137, 255, 2].into(), &mut frame).unwrap();
    world.console();
    let mut answered = 0;
    for _ in 0..500 {
        client.send(frame[..len].to_vec());
        world.run(Duration::from_millis(50));
        answered += client.peer.take_received().len();
    }
    assert!(answered > 100, "{answered}");
    assert_eq!(world.console(), "");
}

/// dom0 lets a VM report what it uses, and takes the rest away from whoever does.
#[test]
fn dom0_takes_memory_away_and_the_firewall_runs_out_of_it() {
    let world = World::new(3);
    let meminfo = "/local/domain/2/memory/meminfo";
    world.machine.xs.set(meminfo, "");
    let perms = vec![Perm { letter: PermLetter::None, dom: TIDEGATE }];
    world.machine.xs.with(|s| s.set_perms(Caller::Toolstack, None, meminfo, perms)).unwrap();
    assert!(
        world.machine.xs.with(|s| s.write(Caller::Domain(TIDEGATE), None, meminfo, b"")).is_ok()
    );
    let held = world.machine.sim.holdings(TIDEGATE);
    for target in ["20480", "8192", "1048576"] {
        world.machine.xs.set("/local/domain/2/memory/target", target);
        world.run(Duration::from_secs(600));
    }
    assert_eq!(world.machine.xs.value(meminfo).as_deref(), Some(""));
    assert_eq!(world.machine.sim.holdings(TIDEGATE), held);
    let client = world.client(10, &[ANY]);
    assert!(world.passes(&client, 4000));
}

/// One qube after the other comes, is served and goes, without a word or with one.
#[test]
fn after_some_sixty_qubes_no_more_can_be_started() {
    let world = World::new(4);
    let mut before = None;
    for n in 0..70 {
        let client = world.client(10 + n, &[ANY]);
        assert!(world.passes(&client, 4000), "qube {n}");
        let vifs = std::slice::from_ref(&client.spec);
        let job = match n % 2 {
            0 => world.machine.tools.detach(&client.spec),
            _ => world.machine.tools.destroy(client.spec.front, vifs),
        };
        world.machine.finish(job);
        world.machine.settle();
        let watches = world.machine.xs.with(|s| s.watches_of(Caller::Domain(TIDEGATE)));
        assert_eq!(*before.get_or_insert(watches), watches, "after qube {n}");
    }
}

/// As one does whose author wrote to the wrong place, or an enemy.
#[test]
fn one_bad_ring_entry_of_a_qube_ends_the_whole_firewall() {
    let world = World::new(5);
    let (bad, good) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let seen = world.out(&good, 4000, (SERVER, 7)).unwrap();
    world.console();
    // A lone slot that says another one follows, one over the end of its page, one of no grant.
    let slot = |gref: u32, offset: u16, flags: u16, size: u16| {
        let mut raw = [0; 12];
        raw[..4].copy_from_slice(&gref.to_le_bytes());
        for (at, word) in [(4, offset), (6, flags), (8, 7), (10, size)] {
            raw[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        raw
    };
    let more_data = 4;
    bad.peer.inject(&[slot(9999, 0, 0, 60), slot(9999, 4090, 0, 60), slot(9, 0, more_data, 60)]);
    world.machine.settle();
    assert_eq!(world.machine.ended(), None);
    assert!(world.back(&good, &seen) && world.passes(&good, 4001));
    let console = world.console();
    assert!(console.contains("backend/vif/10/0: the client broke its rings"), "{console}");
}

/// The broadcast address of Ethernet, where Windows asks for an address.
#[test]
fn a_windows_qube_that_asks_by_dhcp_upsets_the_firewall() {
    let world = World::new(6);
    let client = world.client(10, &[ANY]);
    let nobody = std::net::Ipv4Addr::UNSPECIFIED.into();
    let all = std::net::Ipv4Addr::BROADCAST.into();
    let discover =
        crate::common::Spec::udp((nobody, 68), (all, 67)).macs(Mac([0xff; 6]), CLIENT_MAC);
    for _ in 0..100 {
        client.send(discover.frame());
        world.run(Duration::from_millis(100));
    }
    assert!(world.machine.uplink().received().is_empty(), "the world hears of none");
    assert!(client.peer.take_received().is_empty());
    assert!(world.console().lines().count() < 40);
    assert!(world.passes(&client, 4000));
}
