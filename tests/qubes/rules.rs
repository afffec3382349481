//! What each client may: dom0's rules, as they are committed.

use crate::machine::SERVER;
use crate::world::{DNS, World};
use std::net::IpAddr;
use std::time::Duration;

const ANY: &str = "action=accept";

#[test]
fn a_client_without_rules_is_dropped_and_told_until_dom0_commits_some() {
    let world = World::new(1);
    let client = world.machine.client(10);
    assert!(!world.passes(&client, 4000));
    assert!(world.was_told(&client));
    world.set_rules(&client, &[ANY]);
    assert!(world.passes(&client, 4001));
}

#[test]
fn rules_count_from_their_commit_on_and_the_old_ones_until_then() {
    let world = World::new(2);
    let client = world.client(10, &[ANY]);
    assert!(world.passes(&client, 4000));
    let addr = client.addr.to_string();
    world.dom0.database(|db| db.begin_rules(&addr, "drop", &[(0, "action=drop")]));
    world.run(Duration::from_secs(60));
    assert!(world.passes(&client, 4001), "nothing was committed");
    world.dom0.database(|db| db.write(&format!("/qubes-firewall/{addr}"), ""));
    world.run(Duration::from_millis(100));
    assert!(!world.passes(&client, 4002));
    assert!(world.was_told(&client));
}

#[test]
fn gaps_in_the_numbers_lose_no_rule() {
    let world = World::new(3);
    let client = world.client(10, &[]);
    let addr = client.addr.to_string();
    let rules = [(3, "action=drop proto=udp dstports=7-7"), (4711, ANY)];
    world.dom0.database(|db| db.set_rules(&addr, "drop", &rules));
    world.machine.settle();
    assert!(!world.passes(&client, 4000));
    assert!(world.out(&client, 4000, (SERVER, 8)).is_some());
}

#[test]
fn what_is_not_understood_blocks_that_client_alone_and_is_said() {
    for broken in
        ["action=accept dpi=NO", "action=accept  proto=tcp", "allow", "action=accept dst6=fd00::/8"]
    {
        let world = World::new(4);
        let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
        assert!(world.passes(&client, 4000));
        world.set_rules(&client, &[ANY, broken]);
        assert!(!world.passes(&client, 4000), "{broken}");
        assert!(world.was_told(&client));
        assert!(world.passes(&other, 4000));
        let console = world.console();
        assert!(console.contains("rules of 10.137.0.10: rule 0001: "), "{console}");
        assert!(console.contains("it is blocked"), "{console}");
        let (status, _) = world.call("tidegate.Status", b"");
        assert!(status.contains("client 10.137.0.10 rules blocked: rule 0001"), "{status}");
        assert!(status.contains("client 10.137.0.11 rules 1\n"), "{status}");
    }
}

#[test]
fn a_flow_ends_when_its_rule_does_and_lives_when_nothing_has_changed() {
    let world = World::new(5);
    let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let [mine, others] =
        [&client, &other].map(|client| world.out(client, 4000, (SERVER, 7)).unwrap());
    for _ in 0..3 {
        world.set_rules(&client, &[ANY]);
        assert_eq!(world.out(&client, 4000, (SERVER, 7)), Some(mine), "the same again");
    }
    world.set_rules(&client, &["action=accept dst4=93.184.216.0/24", "action=drop"]);
    assert_eq!(world.out(&client, 4000, (SERVER, 7)), Some(mine), "another rule lets it go on");
    world.set_rules(&client, &["action=drop"]);
    assert!(!world.back(&client, &mine) || world.out(&client, 4000, (SERVER, 7)).is_none());
    assert!(world.out(&client, 4000, (SERVER, 7)).is_none());
    assert_eq!(world.out(&other, 4000, (SERVER, 7)), Some(others));
}

#[test]
fn specialtarget_dns_is_limited_to_the_resolvers_whatever_stands_beside_it() {
    for beside in ["", " proto=udp", " proto=udp dstports=53-53", " dst4=10.139.1.0/24"] {
        let world = World::new(6);
        let client = world.client(10, &[&format!("action=accept{beside} specialtarget=dns")]);
        assert!(world.out(&client, 4000, (DNS, 53)).is_some(), "{beside}");
        for dst in [(DNS, 7), (SERVER, 53), (SERVER, 7)] {
            assert!(world.out(&client, 4001, dst).is_none(), "{beside} {dst:?}");
        }
    }
}

#[test]
fn more_rules_than_are_taken_block_their_client_and_delay_nobody() {
    let world = World::new(7);
    let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    world.console();
    let before = world.machine.sim.now();
    world.set_rules(&client, &vec![ANY; 10_000]);
    assert!(world.machine.sim.now().since(before) < Duration::from_millis(100));
    assert!(!world.passes(&client, 4000));
    let console = world.console();
    assert!(console.contains("it is blocked") || console.contains("holds more"), "{console}");
    assert!(world.passes(&other, 4000));
}

/// Rules change a hundred times while another client sends: none of its packets is lost, and each
/// change counts within a tenth of a second.
#[test]
fn a_change_of_rules_under_load_loses_no_packet_of_others() {
    let world = World::new(8);
    let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let mut passed = 0;
    for round in 0..100_u16 {
        let open = round % 2 == 0;
        let rule = if open { ANY } else { "action=drop" };
        let rules: Vec<(u16, &str)> = (0..50).map(|n| (n, rule)).collect();
        world.dom0.database(|db| db.set_rules("10.137.0.10", "drop", &rules));
        let since = world.machine.sim.now();
        for n in 0..5 {
            other.send(world.datagram(&other, 5000 + n, (SERVER, 7)));
            world.run(Duration::from_millis(10));
            passed += world.machine.uplink().received().len();
        }
        assert!(world.machine.sim.now().since(since) < Duration::from_millis(100));
        assert_eq!(world.passes(&client, 4000 + round), open, "round {round}");
    }
    assert_eq!(passed, 500);
    let handled =
        world.dom0.database(|db| db.get("/qubes-firewall-handled/10.137.0.10").map(str::to_owned));
    assert_eq!(handled.as_deref(), Some("101"));
}

#[test]
fn a_daemon_that_restarts_changes_nothing_until_it_is_read_again() {
    let world = World::new(9);
    let (client, other) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let seen = world.out(&client, 4000, (SERVER, 7)).unwrap();
    world.dom0.stop_database();
    world.run(Duration::from_secs(3600));
    assert!(world.console().contains("QubesDB is gone"));
    assert_eq!(world.out(&client, 4000, (SERVER, 7)).map(|t| t.src), Some(seen.src));
    assert!(world.passes(&other, 4000));
    world.dom0.database(|db| db.set_rules("10.137.0.11", "drop", &[]));
    world.dom0.restart();
    world.machine.wait("the database to be read", || world.dom0.database(|db| db.is_live()));
    world.machine.settle();
    assert!(world.passes(&client, 4001));
    assert!(!world.passes(&other, 4001), "its rules changed meanwhile");
}

#[test]
fn nonsense_of_the_daemon_costs_a_connection_and_no_rule() {
    let world = World::new(10);
    let client = world.client(10, &[ANY]);
    for nonsense in [[0xff; 72].to_vec(), [0; 72].to_vec(), {
        let mut m = vec![0; 72];
        m[0] = 11;
        m
    }] {
        world.dom0.database(|db| db.corrupt(&nonsense));
        world.machine.settle();
        assert!(world.passes(&client, 4000));
        world.machine.wait("the database to be read", || world.dom0.database(|db| db.is_live()));
        world.set_rules(&client, &["action=drop"]);
        assert!(!world.passes(&client, 4000));
        world.set_rules(&client, &[ANY]);
    }
    assert!(world.console().contains("QubesDB sent"));
}

#[test]
fn a_tree_that_is_gone_after_a_restart_blocks_its_client() {
    let world = World::new(11);
    let client = world.client(10, &[ANY]);
    assert!(world.passes(&client, 4000));
    world.dom0.stop_database();
    world.dom0.database(|db| {
        db.remove("/qubes-firewall/10.137.0.10/");
        db.remove("/qubes-firewall/10.137.0.10");
    });
    world.dom0.restart();
    world.machine.wait("the database to be read", || world.dom0.database(|db| db.is_live()));
    world.machine.settle();
    assert!(!world.passes(&client, 4001));
}

#[test]
fn rules_of_ipv6_stand_beside_those_of_ipv4() {
    let entries = [crate::world::ENTRIES, &[("/qubes-ip6", "fd09:24ef:4179::a89:7")]].concat();
    let world = World::with(12, "", None, &entries);
    let client = crate::machine::flow::client(&world.machine, 10, Default::default());
    let own: IpAddr = "fd09::10".parse().unwrap();
    let server: IpAddr = "2606:2800::1".parse().unwrap();
    let knock = || {
        use crate::machine::{CLIENT_MAC, frames::Spec};
        let frame =
            Spec::udp((own, 4000), (server, 7)).macs(wire::Mac::BACKEND, CLIENT_MAC).frame();
        client.send(frame);
        world.machine.settle();
        !world.machine.uplink().received().is_empty()
    };
    world.dom0.database(|db| db.set_rules("10.137.0.10", "drop", &[(0, ANY)]));
    world.machine.settle();
    assert!(!knock(), "no rules for IPv6");
    assert!(world.passes(&client, 4000));
    world.dom0.database(|db| {
        db.set_rules("fd09::10", "drop", &[(0, "action=accept dst6=2606:2800::/32")]);
    });
    world.machine.settle();
    assert!(knock());
}
