//! The life of vifs as the toolstack and clients see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::{BACK, FIRST_SLOT, Machine, back_dir, front_dir, spec};
use netback::Notice;
use std::time::Duration;
use wire::{Mac, Port};
use xen::hypervisor::DomId;
use xen::sim::peer_front::Manners;
use xen::sim::xenstored::Caller;
use xen::xenbus::XenbusState as State;

/// What libxl needs on a busy dom0 to read state 2 after its event.
const OFFERED: Duration = Duration::from_millis(400);
/// The same for state 6, after which the directory goes.
const CLOSED: Duration = Duration::from_millis(900);

fn states(trace: &[(String, Duration)]) -> Vec<&str> {
    trace.iter().map(|(state, _)| state.as_str()).collect()
}

#[test]
fn a_client_comes_up_with_what_the_toolstack_said_about_it() {
    let m = Machine::new(1);
    let (peer, port) = m.connected(10, Manners::default());
    assert_eq!(port, Port::new(FIRST_SLOT, 0));
    let expected = Notice::Up {
        port,
        dom: DomId(10),
        handle: 0,
        mac: Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0]),
        addrs: vec!["10.137.0.10".parse().unwrap()],
        mtu: 1500,
    };
    assert_eq!(m.back().notices, [expected]);
    assert_eq!(peer.fault(), None);
    let node = |name: &str| m.xs.value(&format!("{}/{name}", back_dir(10, 0)));
    for feature in ["rx-copy", "sg", "gso-tcpv4", "gso-tcpv6", "ipv6-csum-offload"] {
        assert_eq!(node(&format!("feature-{feature}")).as_deref(), Some("1"), "{feature}");
    }
    assert_eq!(node("feature-split-event-channels"), None);
}

#[test]
fn state_2_stays_readable_on_a_hot_attach() {
    let m = Machine::new(2);
    let peer = m.client(10, Manners::default());
    let trace = m.trace(10, || peer.is_up());
    assert_eq!(states(&trace), ["1", "2", "4"]);
    assert!(trace[1].1 >= OFFERED, "{trace:?}");
}

#[test]
fn an_attach_and_a_detach_succeed_though_the_toolstack_looks_late() {
    let m = Machine::new(26);
    m.xl.set_latency(OFFERED);
    let peer = m.boot(10, 0, Manners::default());
    assert_eq!(m.xl.finish(m.attach(10, 0)), Ok(()));
    m.wait("connection", || peer.is_up());
    m.xl.set_latency(CLOSED);
    assert_eq!(m.detach(10, 0), Ok(()));
}

#[test]
fn mtu_and_both_address_families_are_told() {
    let m = Machine::new(3);
    let peer = m.boot(10, 0, Manners::default().with("mtu", Some("9000")));
    m.attach_with(10, 0, &[("ip", "10.137.0.10 fd09:24ef:4179::a89:a")]);
    m.wait("connection", || peer.is_up());
    let Some(Notice::Up { addrs, mtu, .. }) = m.back().notices.first().cloned() else { panic!() };
    assert_eq!(
        addrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.137.0.10", "fd09:24ef:4179::a89:a"]
    );
    assert_eq!(mtu, 9000);
}

#[test]
fn a_detach_shows_5_then_6_for_a_while_and_then_removes_the_directory() {
    let m = Machine::new(4);
    let (_peer, port) = m.connected(10, Manners::default());
    let _ = m.xl.detach(&spec(10, 0));
    let trace = m.trace(10, || m.state(10, 0).is_empty());
    assert_eq!(states(&trace), ["5", "6", ""]);
    assert!(trace[1].1 >= CLOSED, "{trace:?}");
    assert!(m.xs.value(&back_dir(10, 0)).is_none());
    assert_eq!(m.back().notices.last(), Some(&Notice::Down { port }));
    assert!(m.back().netback.vif(port).is_none());
}

#[test]
fn a_frontend_that_does_not_react_makes_a_detach_no_longer_than_the_holds() {
    let m = Machine::new(5);
    let (peer, _) = m.connected(10, Manners::default());
    peer.behave(Manners { follows_backend: false, ..Manners::default() });
    let start = m.sim.now();
    assert_eq!(m.detach(10, 0), Ok(()));
    assert!(m.sim.now().since(start) < Duration::from_secs(2));
}

#[test]
fn a_destroyed_client_leaves_nothing_behind() {
    let m = Machine::new(6);
    m.run(Duration::from_secs(1));
    let before = (m.sim.holdings(BACK), m.back().netback.watches());
    let (_peer, port) = m.connected(10, Manners::default());
    assert_eq!(m.destroy(10), Ok(()));
    m.run(Duration::from_secs(1));
    assert_eq!((m.sim.holdings(BACK), m.back().netback.watches()), before);
    assert_eq!(m.back().notices.last(), Some(&Notice::Down { port }));
    assert_eq!(m.problems(), Vec::<String>::new());
}

#[test]
fn two_hundred_attachments_leave_pages_grants_ports_and_watches_as_before() {
    let m = Machine::new(7);
    let peer = m.boot(10, 0, Manners::default());
    m.run(Duration::from_secs(1));
    let held = || {
        let watches = m.xs.with(|s| s.watches_of(Caller::Domain(BACK)));
        let transactions = m.xs.with(|s| s.transactions_of(Caller::Domain(BACK)));
        let nodes = m.xs.with(|s| s.nodes_of(BACK));
        assert_eq!(m.back().netback.watches(), watches);
        (m.sim.holdings(BACK), m.sim.holdings(DomId(10)), watches, transactions, nodes)
    };
    let before = held();
    for n in 0..200 {
        m.attach(10, 0);
        m.wait("connection", || peer.is_up());
        assert_eq!(m.back().port_of(10), Port::new(FIRST_SLOT, n));
        assert_eq!(m.detach(10, 0), Ok(()));
        m.sim.settle();
        assert_eq!(peer.kept(), 0);
        assert_eq!(held(), before, "after {} attachments", n + 1);
    }
    assert_eq!(m.problems(), Vec::<String>::new());
}

#[test]
fn a_client_closes_and_opens_again_on_the_same_directory() {
    let m = Machine::new(8);
    let (peer, port) = m.connected(10, Manners::default());
    for _ in 0..3 {
        peer.write_state(State::Closing);
        m.wait("both ends closed", || peer.states() == (Some(State::Closed), Some(State::Closed)));
        assert_eq!(m.back().notices.last(), Some(&Notice::Down { port }));
        peer.write_state(State::Initialising);
        m.wait("connection", || peer.is_up());
        assert_eq!(m.back().port_of(10), port);
    }
    assert_eq!(peer.kept(), 0);
}

#[test]
fn windows_closes_before_it_first_connects_and_sees_5_and_6() {
    let m = Machine::new(9);
    let peer = m.client(10, Manners { follows_backend: false, ..Manners::default() });
    m.wait("our offer", || m.state(10, 0) == "2");
    peer.write_state(State::Closing);
    m.wait("state 5", || m.state(10, 0) == "5");
    peer.write_state(State::Closed);
    m.wait("state 6", || m.state(10, 0) == "6");
    peer.behave(Manners::default());
    peer.write_state(State::Initialising);
    m.wait("connection", || peer.is_up());
    assert_eq!(peer.fault(), None);
}

#[test]
fn a_client_that_starts_over_without_closing_is_taken_again() {
    let m = Machine::new(10);
    let (peer, port) = m.connected(10, Manners::default());
    // As after a crash inside the guest: its new kernel writes 1 and waits for 2.
    peer.write_state(State::Initialising);
    m.wait("the old link's end", || m.back().notices.last() == Some(&Notice::Down { port }));
    m.wait("connection", || peer.is_up());
    assert_eq!(peer.fault(), None);
}

#[test]
fn split_event_channels_are_taken() {
    let m = Machine::new(11);
    let manners = Manners { split: true, ..Manners::default() };
    let (peer, port) = m.connected(10, manners);
    assert_eq!(m.back().event_ports().len(), 2);
    assert!(peer.send(&xen::sim::peer_front::Outgoing::plain(machine::frame(600, 1))));
    m.sim.settle();
    let (frames, _) = m.back().pull_all();
    assert_eq!((frames.len(), frames[0].from), (1, port));
    m.sim.settle();
    assert_eq!((peer.in_flight(), peer.fault()), (0, None));
}

#[test]
fn a_frontend_that_vanishes_is_closed_until_the_toolstack_removes_it() {
    let m = Machine::new(12);
    let (_peer, port) = m.connected(10, Manners::default());
    m.xs.remove(&front_dir(10, 0));
    m.wait("state 6", || m.state(10, 0) == "6");
    assert_eq!(m.back().notices.last(), Some(&Notice::Down { port }));
    m.run(Duration::from_secs(1));
    assert_eq!(m.state(10, 0), "6", "not removed while it is wanted");
    assert_eq!(m.destroy(10), Ok(()));
}

#[test]
fn a_directory_removed_under_us_is_forgotten_without_another_word() {
    let m = Machine::new(13);
    let (_peer, port) = m.connected(10, Manners::default());
    m.xs.remove(&back_dir(10, 0));
    m.wait("end of the vif", || m.back.borrow_mut().netback.vif(port).is_none());
    m.run(Duration::from_secs(60));
    assert!(m.xs.value(&back_dir(10, 0)).is_none());
    assert_eq!(m.problems(), Vec::<String>::new());
}

#[test]
fn a_directory_made_anew_under_us_is_a_new_vif() {
    let m = Machine::new(14);
    let (peer, port) = m.connected(10, Manners::default());
    // Both in one go: no look ever sees that it was gone.
    m.xs.remove(&back_dir(10, 0));
    m.xs.remove(&front_dir(10, 0));
    m.attach(10, 0);
    m.wait("end of the old vif", || m.back.borrow_mut().netback.vif(port).is_none());
    m.wait("connection", || peer.is_up());
    assert_eq!(m.back().port_of(10), Port::new(FIRST_SLOT, 1));
}

#[test]
fn both_vifs_of_an_hvm_reach_state_2_and_one_may_stay_there() {
    let m = Machine::new(15);
    let stubdom = m.boot(11, 0, Manners::default());
    let _guest = m.boot(10, 0, Manners { follows_backend: false, ..Manners::default() });
    m.attach(10, 0);
    m.attach_with(11, 0, &[("ip", "10.137.0.10")]);
    m.wait("connection of the stubdomain", || stubdom.is_up());
    m.wait("the guest's offer", || m.state(10, 0) == "2");
    m.run(Duration::from_secs(5));
    assert_eq!(m.state(10, 0), "2");
}

#[test]
fn each_malformed_node_of_ours_is_named_and_costs_that_vif_only() {
    let m = Machine::new(16);
    let (good, _) = m.connected(9, Manners::default());
    let bad = [
        ("frontend-id", "11", "backend/vif/10/0/frontend-id is \"11\", not the number"),
        ("frontend-id", "70000", "backend/vif/10/0/frontend-id is \"70000\", not"),
        (
            "frontend",
            "/local/dom ain",
            "backend/vif/10/0/frontend is \"/local/dom ain\", not a path",
        ),
        ("mac", "00:16:3e", "backend/vif/10/0/mac is \"00:16:3e\", not a unicast MAC"),
        ("mac", "", "backend/vif/10/0/mac is missing"),
        ("ip", "10.137.0", "backend/vif/10/0/ip is \"10.137.0\", not a list of IP addresses"),
    ];
    let _peer = m.boot(10, 0, Manners::default());
    for (name, value, message) in bad {
        m.attach_with(10, 0, &[(name, value)]);
        let trace = m.trace(10, || m.state(10, 0) == "6");
        assert_eq!(states(&trace).last(), Some(&"6"));
        m.run(Duration::from_secs(70));
        let problems = m.problems();
        assert_eq!(problems.len(), 1, "told once: {problems:?}");
        assert!(problems[0].starts_with(message), "{problems:?}");
        m.back().notices.clear();
        assert_eq!(m.detach(10, 0), Ok(()));
        assert!(good.is_up());
    }
}

#[test]
fn each_malformed_node_of_the_client_is_named_and_costs_that_vif_only() {
    let m = Machine::new(17);
    let (good, _) = m.connected(9, Manners::default());
    let (dir, peer) = (front_dir(10, 0), m.client(10, Manners::default()));
    m.wait("connection", || peer.is_up());
    let long = "9".repeat(2000);
    let bad: [(&str, Option<&str>, &str); 8] = [
        ("tx-ring-ref", Some("-1"), "tx-ring-ref is \"-1\", not a grant reference"),
        ("tx-ring-ref", Some(&long), "tx-ring-ref is \"999999"),
        ("rx-ring-ref", None, "rx-ring-ref is missing"),
        ("rx-ring-ref", Some("5000"), "rx-ring-ref 5000 cannot be mapped: grant status -1"),
        ("event-channel", Some("x"), "event-channel is \"x\", not an event channel"),
        ("event-channel", Some("999"), "event channel 999 cannot be bound: errno 22"),
        ("request-rx-copy", Some("0"), "request-rx-copy is \"0\", not 1"),
        ("mtu", Some("20"), "mtu is \"20\", not an MTU"),
    ];
    for (name, value, message) in bad {
        peer.write_state(State::Closing);
        m.wait("both ends closed", || peer.states() == (Some(State::Closed), Some(State::Closed)));
        m.back().notices.clear();
        let holdings = m.sim.holdings(BACK);
        peer.behave(Manners::default().with(name, value));
        peer.write_state(State::Initialising);
        m.wait("a problem", || !m.problems().is_empty());
        assert!(m.problems()[0].starts_with(&dir), "{:?}", m.problems());
        assert!(m.problems()[0].contains(message), "{:?}", m.problems());
        m.wait("state 6", || m.state(10, 0) == "6");
        assert_eq!(m.sim.holdings(BACK), holdings);
        // The next attempt must not hit on what the last has left in XenStore.
        for name in ["event-channel", "rx-ring-ref", "mtu"] {
            m.xs.remove(&format!("{dir}/{name}"));
        }
        m.run(Duration::from_secs(2));
        assert!(good.is_up());
    }
    peer.behave(Manners::default());
    peer.write_state(State::Initialising);
    m.wait("connection after all", || peer.is_up());
}

#[test]
fn one_ring_for_both_directions_is_refused() {
    let m = Machine::new(18);
    let peer = m.client(10, Manners::default().with("rx-ring-ref", Some("8")));
    m.wait("a problem", || !m.problems().is_empty());
    let expected = "/local/domain/10/device/vif/0/rx-ring-ref is \"8\", \
                    not a grant reference other than tx-ring-ref";
    assert_eq!(m.problems(), [expected]);
    m.wait("state 6", || m.state(10, 0) == "6");
    assert!(!peer.is_up());
}

#[test]
fn a_client_flipping_states_does_not_keep_another_from_attaching() {
    let m = Machine::new(19);
    let flipper = m.client(10, Manners { follows_backend: false, ..Manners::default() });
    let neighbour = m.boot(11, 0, Manners::default());
    m.wait("our offer", || m.state(10, 0) == "2");
    m.attach(11, 0);
    let start = m.sim.now();
    let states = [State::Closing, State::Closed, State::Initialising, State::Connected];
    for n in 0..8_000 {
        flipper.write_state(states[n % 4]);
        m.run(Duration::from_micros(100));
    }
    assert!(neighbour.is_up());
    assert!(m.sim.now().since(start) < Duration::from_secs(1));
    assert_eq!(m.xs.with(|s| s.transactions_of(Caller::Domain(BACK))), 0);
}

#[test]
fn a_client_that_lies_over_and_over_fills_one_line_a_second_at_most() {
    let m = Machine::new(27);
    let liar = m.client(10, Manners::default().with("mtu", Some("1")));
    let mut lies = 0;
    let start = m.sim.now();
    while m.sim.now().since(start) < Duration::from_secs(5) {
        m.wait("state 6", || m.state(10, 0) == "6");
        m.wait("the client's end", || liar.states().0 == Some(State::Closed));
        lies += 1;
        liar.write_state(State::Initialising);
        m.wait("our offer", || m.state(10, 0) == "2");
    }
    let told = m.problems().len();
    assert!(lies > 6 && (2..=6).contains(&told), "{lies} lies, {told} lines");
}

#[test]
fn an_offer_that_collides_is_made_again() {
    let m = Machine::new(20);
    m.xs.collide(3);
    let _ = m.connected(10, Manners::default());
}

#[test]
fn at_the_quota_of_nodes_the_vif_that_does_not_fit_is_named() {
    let m = Machine::new(21);
    for n in 0.. {
        let nodes = m.xs.with(|s| s.nodes_of(BACK));
        if nodes >= 998 {
            break;
        }
        m.xs.with(|s| {
            let path = format!("/local/domain/1/data/filler{n}");
            s.write(Caller::Domain(BACK), None, &path, b"").unwrap();
        });
    }
    m.client(10, Manners::default());
    m.wait("a problem", || !m.problems().is_empty());
    let text = &m.problems()[0];
    assert!(text.starts_with("backend/vif/10/0: cannot be offered"), "{text}");
    assert!(text.contains("quota") && text.contains("ENOSPC"), "{text}");
}

#[test]
fn without_a_watch_for_its_frontend_a_vif_is_named_and_polled() {
    let m = Machine::new(22);
    m.xs.with(|s| {
        for n in s.watches_of(Caller::Domain(BACK))..128 {
            s.watch(Caller::Domain(BACK), "/filler", &format!("x{n}")).unwrap();
        }
    });
    let peer = m.client(10, Manners::default());
    let deadline = m.sim.now() + Duration::from_secs(3);
    assert!(m.sim.run_until_done(deadline, || peer.is_up()), "polled once a second");
    let text = &m.problems()[0];
    assert!(text.starts_with("backend/vif/10/0: no watch") && text.contains("E2BIG"), "{text}");
    assert_eq!(m.detach(10, 0), Ok(()));
}

#[test]
fn more_clients_than_slots_are_refused_by_name() {
    let m = Machine::with_slots(23, 1);
    let _ = m.connected(10, Manners::default());
    m.client(11, Manners::default());
    m.wait("a problem", || !m.problems().is_empty());
    assert_eq!(m.problems()[0], "backend/vif/11/0: no room for more than 1 clients");
}

#[test]
fn a_vif_whose_event_was_lost_is_found_by_the_rescan() {
    let m = Machine::new(24);
    // Without our watch no event comes.
    m.xs.with(|s| s.unwatch(Caller::Domain(BACK), "backend/vif", "1000").unwrap());
    let peer = m.client(10, Manners::default());
    m.run(Duration::from_secs(61));
    assert!(peer.is_up());
    assert_eq!(m.back().netback.watches(), 2);
}

#[test]
fn forty_clients_at_once_all_come_up() {
    let m = Machine::new(25);
    let peers: Vec<_> = (10..50).map(|dom| m.boot(dom, 0, Manners::default())).collect();
    let jobs: Vec<_> = (10..50).map(|dom| m.attach(dom, 0)).collect();
    jobs.into_iter().for_each(|job| assert_eq!(m.xl.finish(job), Ok(())));
    m.wait("all connections", || peers.iter().all(xen::sim::peer_front::PeerFront::is_up));
    assert_eq!(m.problems(), Vec::<String>::new());
    assert_eq!(m.back().event_ports().len(), 40);
}
