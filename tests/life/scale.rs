//! Many vifs: as many as XenStore's quotas allow and more, more than SCHEDOP_poll can list, and twenty
//! of which nobody says anything.

use crate::machine::{Client, Machine, TIDEGATE, client_vif};
use crate::traffic::{exchange, held};
use std::time::Duration;
use xen::hypervisor::DomId;
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::toolstack::Job;
use xen::sim::xenstored::{Caller, Quotas};

const FIRST: u16 = 10;
/// Memory for more clients than XenStore and SCHEDOP_poll have room for.
const LARGE: usize = 40 << 20;
/// Most ports of SCHEDOP_poll.
const POLL_MAX: usize = 128;
/// What a vif may be late by that is not among those listed.
const BLIND: Duration = Duration::from_millis(10);

/// A client domain whose vif is yet to be attached.
fn newcomer(machine: &Machine, dom: u16) -> Client {
    let manners = Manners { rx_buffers: 8, ..Manners::default() };
    let start = machine.xs.introduce(DomId(dom));
    let peer = PeerFront::start(&machine.sim, DomId(dom), start, TIDEGATE, 0, manners);
    let spec = client_vif(dom);
    Client { addr: spec.ip.parse().unwrap(), spec, peer }
}

/// So many client domains, all attached at once.
fn crowd(machine: &Machine, count: u16) -> (Vec<Client>, Vec<Job>) {
    let clients: Vec<_> = (FIRST..FIRST + count).map(|dom| newcomer(machine, dom)).collect();
    let jobs = clients.iter().map(|client| machine.tools.attach(client.spec.clone())).collect();
    (clients, jobs)
}

#[test]
fn two_hundred_vifs_attached_at_once_all_work_and_all_go() {
    let machine = Machine::open_in(1, LARGE);
    machine.xs.set_quotas(Quotas { nodes: 8000, watches: 400, transactions: 10 });
    machine.sleep_between_turns();
    machine.run(Duration::from_secs(1));
    let before = held(&machine);
    let (clients, jobs) = crowd(&machine, 200);
    jobs.into_iter().for_each(|job| machine.finish(job));
    machine.wait("all connections", || clients.iter().all(|client| client.peer.is_up()));
    for (n, client) in (0..).zip(&clients) {
        exchange(&machine, client, 4000 + n);
    }
    let now = held(&machine);
    assert_eq!(now.of_xen.mapped - before.of_xen.mapped, 400);
    assert_eq!(now.of_xen.ports - before.of_xen.ports, 200);
    assert_eq!(now.watches - before.watches, 200);

    // More event channels than can be listed: those of the last that spoke are.
    let newest = machine.sim.last_poll(TIDEGATE).ports;
    assert_eq!(newest.len(), POLL_MAX);
    machine.run(Duration::from_secs(1));
    for client in &clients[..50] {
        exchange(&machine, client, 5000);
    }
    let poll = machine.sim.last_poll(TIDEGATE);
    assert_eq!(poll.ports.len(), POLL_MAX);
    let kept = poll.ports.iter().filter(|port| newest.contains(port)).count();
    assert_eq!(kept, POLL_MAX - 50, "the fifty that spoke now stand in for fifty that did not");
    assert!(poll.until.unwrap().since(machine.sim.now()) <= BLIND);

    let jobs: Vec<_> = clients.iter().map(|client| machine.tools.detach(&client.spec)).collect();
    jobs.into_iter().for_each(|job| machine.finish(job));
    machine.run(Duration::from_secs(1));
    let after = held(&machine);
    assert_eq!((after.of_xen, after.watches), (before.of_xen, before.watches));
    assert_eq!((after.transactions, after.nodes), (0, before.nodes));
    let poll = machine.sim.last_poll(TIDEGATE);
    assert!(poll.until.unwrap().since(machine.sim.now()) > Duration::from_secs(1));
}

#[test]
fn at_default_quotas_those_that_fit_work_and_the_first_that_does_not_is_named_once() {
    let machine = Machine::open_in(2, LARGE);
    let mut up = Vec::new();
    let refused = loop {
        let _boot = machine.read_console();
        let client = newcomer(&machine, FIRST + up.len() as u16);
        let attached = machine.tools.finish(machine.tools.attach(client.spec.clone()));
        if attached.is_err() {
            break client;
        }
        machine.wait("the connection", || client.peer.is_up());
        up.push(client);
    };
    println!("{} vifs fit", up.len());
    assert!(up.len() >= 50, "only {} fit", up.len());
    for (n, client) in (0..).zip(&up) {
        exchange(&machine, client, 4000 + n);
    }
    // Named once, however long it lasts.
    machine.run(Duration::from_secs(120));
    let console = machine.read_console();
    let name = refused.spec.front.0;
    let told = format!(
        "client: backend/vif/{name}/0: cannot be offered, a quota of XenStore is used up (raise the \
         quotas of xenstored for more vifs): ENOSPC"
    );
    assert_eq!(console.matches(&told).count(), 1, "{console}");
    assert_eq!(console.matches("quota").count(), 2, "{console}");
    // When one leaves there is room for it.
    let gone = &up[0].spec;
    machine.finish(machine.tools.destroy(gone.front, std::slice::from_ref(gone)));
    machine.wait("the one that did not fit", || refused.peer.is_up());
    exchange(&machine, &refused, 5000);
}

#[test]
fn beyond_the_quota_of_watches_vifs_are_polled_and_work() {
    let machine = Machine::open_in(3, LARGE);
    machine.xs.set_quotas(Quotas { nodes: 8000, ..Quotas::default() });
    let (clients, jobs) = crowd(&machine, 140);
    jobs.into_iter().for_each(|job| machine.finish(job));
    machine.wait("all connections", || clients.iter().all(|client| client.peer.is_up()));
    let watches = machine.xs.with(|store| store.watches_of(Caller::Domain(TIDEGATE)));
    assert_eq!(watches, Quotas::default().watches);
    for (n, client) in (0..).zip(&clients) {
        exchange(&machine, client, 4000 + n);
    }
    let console = machine.read_console();
    assert!(console.contains("no watch, a quota of XenStore is used up"), "{console}");
}

#[test]
fn with_twenty_silent_clients_the_firewall_wakes_up_less_than_twice_a_second() {
    for cmdline in ["ip=10.137.255.2", "ip=10.137.255.2 gw=10.137.255.1"] {
        let blob = lang::compile("test.tide", crate::machine::OPEN).unwrap().blob;
        let mut machine = Machine::bare(4, cmdline, Some(&blob));
        machine.plug(crate::machine::SYS_NET, 0);
        machine.xs.set_pace(Duration::from_micros(50));
        let (clients, jobs) = crowd(&machine, 20);
        jobs.into_iter().for_each(|job| machine.finish(job));
        machine.wait("all connections", || clients.iter().all(|client| client.peer.is_up()));
        // Flows that wait for their end must not wake it either.
        for (n, client) in (0..).zip(&clients) {
            client.send(crate::traffic::query(client, 4000 + n));
        }
        machine.run(Duration::from_secs(30));
        machine.sleep_between_turns();
        let polls = || machine.sim.counters(TIDEGATE).polls;
        let mut most = 0;
        let (start, seconds) = (polls(), 600);
        for _ in 0..seconds {
            let before = polls();
            machine.run(Duration::from_secs(1));
            most = most.max(polls() - before);
        }
        let woken = polls() - start;
        println!("{cmdline}: {woken} wake-ups in {seconds} s, at most {most} in one");
        assert!(woken <= 2 * seconds, "{woken} wake-ups in {seconds} s");
    }
}
