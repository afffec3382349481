//! What dom0 can call, and what we ask of it.

use crate::machine::SERVER;
use crate::world::World;
use std::time::Duration;

const ANY: &str = "action=accept";

#[test]
fn every_service_answers_with_its_code() {
    let world = World::new(1);
    for (service, input, code) in [
        ("qubes.WaitForSession", "", 0),
        ("qubes.SetDateTime", "2026-11-22T19:20:00+00:00\n", 0),
        ("qubes.SuspendPre", "", 0),
        ("qubes.SuspendPost", "", 0),
        ("qubes.SuspendPreAll", "", 0),
        ("qubes.SuspendPostAll", "", 0),
        ("qubes.WaitForNetworkUplink", "", 0),
        ("qubes.GetAppmenus", "", 127),
        ("qubes.VMShell", "poweroff\n", 127),
        ("tidegate.Nothing", "", 127),
        ("tidegate.Status+argument", "", 0),
    ] {
        assert_eq!(world.call(service, input.as_bytes()).1, Some(code), "{service}");
    }
    let shell = world.dom0.exec("root:poweroff", b"");
    let other = world.dom0.exec("root:QUBESRPC tidegate.Status work", b"");
    world.machine.wait("both", || [shell, other].iter().all(|c| world.dom0.outcome(*c).is_some()));
    assert_eq!(world.dom0.outcome(shell).unwrap().exit, Some(127));
    assert_eq!(world.dom0.outcome(other).unwrap().exit, Some(126), "of dom0 alone");
    world.machine.settle();
    assert_eq!(world.dom0.open_calls(), 0, "every port is free again");
}

#[test]
fn what_an_administrator_asks_is_answered() {
    let world = World::new(2);
    let client =
        world.client(10, &["action=accept proto=udp dstports=7-7", "action=drop proto=tcp"]);
    assert!(world.passes(&client, 4000));
    assert!(world.out(&client, 4000, (SERVER, 8)).is_none());
    let (status, _) = world.call("tidegate.Status", b"");
    for line in ["policy qubes ", "uplink up\n", "flows 1 of ", "client 10.137.0.10 rules 2\n"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let (stats, _) = world.call("tidegate.Stats", b"");
    assert!(stats.contains("\npassed 1\n") && stats.contains("\ndrop-rule-reject 1\n"), "{stats}");
    let (log, _) = world.call("tidegate.Log", b"");
    assert!(log.contains("rules of 10.137.0.10: 2\n") && log.contains("reject"), "{log}");
    let asked = b"10.137.0.10 93.184.216.34 udp 7\n10.137.0.10 1.1.1.1 tcp 443\n\
        10.137.0.11 1.1.1.1 icmp\nwhat?\x1b[2J";
    let (explained, _) = world.call("tidegate.Explain", asked);
    let lines: Vec<&str> = explained.lines().collect();
    assert!(
        lines[0].starts_with("accept") && lines[0].ends_with("rule 0 of the VM"),
        "{explained}"
    );
    assert!(
        lines[1].starts_with("reject") && lines[1].ends_with("rule 1 of the VM"),
        "{explained}"
    );
    assert!(lines[2].ends_with("the VM has no valid rules"), "{explained}");
    assert!(lines[3].starts_with("what?\\x1b[2J: not"), "{explained}");
    assert!(!explained.contains('\x1b'));
}

#[test]
fn a_policy_that_is_brought_counts_and_one_that_is_none_changes_nothing() {
    let world = World::new(10);
    let client = world.client(10, &["action=drop"]);
    assert!(!world.passes(&client, 4000));
    let open = lang::compile("open.tide", crate::machine::OPEN).unwrap();
    let most = world.machine.xs.value("/local/domain/2/data/policy/most").unwrap();
    let long = vec![0; most.parse::<usize>().unwrap() + 1];
    for nonsense in [&b""[..], b"nonsense", &open.blob[1..], &long[..]] {
        let call = world.dom0.call("tidegate.Load", nonsense);
        world.machine.wait("the call", || world.dom0.outcome(call).is_some());
        let outcome = world.dom0.outcome(call).unwrap();
        assert!(outcome.output.starts_with(b"refused: "));
        assert_eq!(outcome.exit, Some(1));
        assert!(!world.passes(&client, 4000));
    }
    let (said, code) = world.call("tidegate.Load", &open.blob);
    assert_eq!((said, code), (format!("loaded {} open.tide\n", open.policy.digest()), Some(0)));
    assert!(world.passes(&client, 4001));
    let running = world.machine.xs.value("/local/domain/2/data/policy/running");
    assert_eq!(running, Some(format!("{} open.tide", open.policy.digest())));
    let (status, _) = world.call("tidegate.Status", b"");
    assert!(status.starts_with(&format!("policy open.tide {}\n", open.policy.digest())));
}

#[test]
fn what_is_explained_leaves_by_the_uplink_that_routes_lead_to() {
    let world = World::new(11);
    let policy = "zone uplink = netfront 0 zone lab = netfront 1 zone clients = netback
         nat clients -> uplink masquerade nat clients -> lab masquerade
         route 10.20.0.0/16 on lab
         policy clients -> uplink { accept } policy clients -> lab { accept tcp 22; drop }";
    world.call("tidegate.Load", &lang::compile("two.tide", policy).unwrap().blob);
    let asked = b"10.137.0.10 1.1.1.1 tcp 80\n10.137.0.10 10.20.0.7 tcp 80";
    let (explained, _) = world.call("tidegate.Explain", asked);
    let verdicts: Vec<_> = explained.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(verdicts, ["accept", "drop"], "{explained}");
}

#[test]
fn four_calls_run_at_once_and_the_others_wait_their_turn() {
    let world = World::new(3);
    let mapped = || world.machine.sim.holdings(crate::machine::TIDEGATE).mapped;
    let (idle, mut most) = (mapped(), 0);
    let calls: Vec<usize> = (0..30).map(|_| world.dom0.call("tidegate.Stats", b"")).collect();
    world.machine.wait("all", || {
        most = most.max(mapped() - idle);
        calls.iter().all(|call| world.dom0.outcome(*call).is_some())
    });
    // The page of each channel and its two rings.
    assert_eq!(most, 4 * 3);
    for call in calls {
        assert_eq!(world.dom0.outcome(call).unwrap().exit, Some(0));
    }
    let client = world.client(10, &[ANY]);
    assert!(world.passes(&client, 4000));
}

#[test]
fn a_call_nobody_waits_for_is_given_up_and_its_place_is_free() {
    let world = World::new(4);
    let before = world.machine.sim.holdings(crate::machine::TIDEGATE);
    for _ in 0..10 {
        world.dom0.order("root:QUBESRPC tidegate.Status dom0");
    }
    world.run(Duration::from_secs(300));
    assert_eq!(world.dom0.open_calls(), 0);
    assert_eq!(world.call("tidegate.Status", b"").1, Some(0));
    world.machine.settle();
    assert_eq!(world.machine.sim.holdings(crate::machine::TIDEGATE), before);
}

#[test]
fn the_feature_is_asked_for_once() {
    let world = World::new(5);
    world.machine.wait("the request", || !world.dom0.asked().is_empty());
    let asked = world.dom0.asked();
    assert_eq!((&*asked[0].target, &*asked[0].service), ("dom0", "qubes.FeaturesRequest"));
    let wanted =
        world.dom0.database(|db| db.get("/features-request/qubes-firewall").map(str::to_owned));
    assert_eq!(wanted.as_deref(), Some("1"));
    let call = world.dom0.serve_asked(700, b"");
    world.machine.wait("the call", || world.dom0.outcome(call).is_some());
    world.run(Duration::from_secs(5));
    assert!(world.console().contains("dom0 has taken qubes.FeaturesRequest"));
    world.dom0.restart_qrexec();
    world.machine.wait("the agent", || world.dom0.is_greeted());
    world.run(Duration::from_secs(60));
    assert!(world.dom0.asked().is_empty());
}

#[test]
fn a_refused_request_is_said_with_the_command_that_helps() {
    let world = World::new(6);
    world.machine.wait("the request", || !world.dom0.asked().is_empty());
    world.dom0.refuse_asked();
    world.run(Duration::from_secs(1));
    assert!(world.console().contains("qvm-features NAME qubes-firewall 1"));
}

#[test]
fn a_daemon_that_restarts_finds_the_agent_again() {
    let world = World::new(7);
    for round in 0..20 {
        world.dom0.restart_qrexec();
        world.machine.wait("the agent", || world.dom0.is_greeted());
        assert_eq!(world.call("tidegate.Status", b"").1, Some(0), "round {round}");
    }
}

#[test]
fn names_from_outside_reach_no_terminal_as_they_came() {
    let world = World::new(8);
    let call = world.dom0.exec("root:QUBESRPC evil\x1b]0;x\x07 wo\x1brk", b"");
    world.machine.wait("the call", || world.dom0.outcome(call).is_some());
    world.run(Duration::from_secs(1));
    let (log, _) = world.call("tidegate.Log", b"");
    assert!(log.contains("calls evil\\u{1b}]0;x\\u{7}"), "{log}");
    assert!(!log.contains('\x1b') && !world.console().contains('\x1b'));
}

#[test]
fn a_console_nobody_reads_stops_no_packet_and_no_call() {
    let world = World::new(9);
    let client = world.client(10, &["action=drop"]);
    for n in 0..2000 {
        client.send(world.datagram(&client, 4000 + n % 1000, (SERVER, n)));
        if n % 16 == 0 {
            world.run(Duration::from_millis(100));
        }
    }
    world.set_rules(&client, &[ANY]);
    assert!(world.passes(&client, 4000));
    assert_eq!(world.call("tidegate.Log", b"").1, Some(0));
}
