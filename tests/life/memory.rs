//! What fits: the firewall's memory, counted block by block and page by page.

use crate::ledger;
use crate::machine::{CMDLINE, FREE, Machine, SEED, SYS_NET, TIDEGATE, client_vif};
use crate::traffic::{count_heap, exchange, held};
use std::fmt::Write as _;
use std::time::Duration;
use tidegate::appliance::{Blobs, begin};
use xen::hypervisor::{DomId, Hypervisor, PAGE_SIZE, Page, Start};
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::xenstored::{Quotas, Xenstored};
use xen::sim::{Bracket, Sim};

/// The rings and buffers of one uplink.
const UPLINK: usize = 514 * PAGE_SIZE;

/// A policy of so many rules, no two alike.
fn policy(rules: u32) -> Vec<u8> {
    let mut text = String::from(
        "zone uplink = netfront 0\nzone clients = netback\npolicy clients -> uplink {\n",
    );
    for n in 0..rules {
        let [_, a, b, c] = n.to_be_bytes();
        let _ = writeln!(text, "accept udp {} to 10.{a}.{b}.{c}", 1024 + n % 50_000);
    }
    text.push_str("drop\n}\nnat clients -> uplink masquerade\n");
    lang::compile("many.tide", &text).expect("a policy").blob
}

/// What a firewall takes at its start: the heap it holds, and what it says of what fits.
fn start(free: usize, blob: &[u8]) -> (usize, String) {
    let sim = Sim::new(1);
    let xs = Xenstored::new(&sim);
    let store = xs.introduce(TIDEGATE);
    let mut h = sim.domain(TIDEGATE);
    let console = h.page().unwrap();
    let page = console.frame();
    let evtchn = h.alloc_unbound(SYS_NET).unwrap();
    let start = Start { cmdline: CMDLINE.into(), store, console: (console, evtchn) };
    sim.on_bracket(TIDEGATE, ledger::bracket);
    let before = ledger::held();
    let blobs = Blobs { built_in: Some(blob), module: None };
    ledger::bracket(Bracket::Turn);
    let appliance = begin(h, start, blobs, || free - (ledger::held() - before), SEED);
    ledger::bracket(Bracket::EndOfTurn);
    let took = ledger::held() - before;
    let said = String::from_utf8_lossy(&sim.peek(page)[1024..3072]).replace('\0', "");
    assert!(appliance.is_ok(), "{said}");
    let private = sim.holdings(TIDEGATE).private * PAGE_SIZE;
    (took + private, said)
}

/// The first number before `word` in `text`.
fn number(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default().trim_end();
    let number = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("no number before {word:?}: {text}"))
}

/// Heap that so many connected clients take, whose frames were forwarded.
fn clients(count: u16) -> usize {
    let machine = Machine::open_in(2, FREE + (16 << 20));
    machine.xs.set_quotas(Quotas { nodes: 8000, watches: 400, transactions: 10 });
    count_heap(&machine);
    machine.run(Duration::from_secs(1));
    let before = held(&machine).heap;
    for dom in 10..10 + count {
        let ring = machine.xs.introduce(DomId(dom));
        let manners = Manners { rx_buffers: 8, ..Manners::default() };
        let peer = PeerFront::start(&machine.sim, DomId(dom), ring, TIDEGATE, 0, manners);
        let spec = client_vif(dom);
        machine.finish(machine.tools.attach(spec.clone()));
        machine.wait("the connection", || peer.is_up());
        let addr = spec.ip.parse().unwrap();
        exchange(&machine, &crate::machine::Client { spec, peer, addr }, 4000);
    }
    machine.run(Duration::from_secs(1));
    held(&machine).heap - before
}

#[test]
fn in_16_mib_there_is_room_for_32_clients_16_k_connections_and_10_k_rules() {
    let blob = policy(10_000);
    // The blob is part of the image.
    let free = FREE - blob.len();
    let (took, said) = start(free, &blob);
    assert!(number(&said, " connections") >= 16 << 10, "{said}");
    assert!(number(&said, " clients at most") >= 32, "{said}");
    let of_clients = clients(32);
    let all = took + of_clients + 2 * UPLINK;
    println!(
        "{} KiB at the start, {} for 32 clients, {} KiB of {} in all",
        took >> 10,
        of_clients >> 10,
        all >> 10,
        free >> 10
    );
    assert!(all + (512 << 10) <= free, "{all} of {free} bytes");
}

#[test]
fn in_32_mib_there_is_room_for_128_clients_and_64_k_connections() {
    let free = FREE + (16 << 20);
    let (took, said) = start(free, &policy(10));
    assert!(number(&said, " connections") >= 64 << 10, "{said}");
    assert!(number(&said, " clients at most") >= 128, "{said}");
    let of_clients = clients(128);
    let all = took + of_clients + 2 * UPLINK;
    println!("{} KiB at the start, {} for 128 clients", took >> 10, of_clients >> 10);
    assert!(all + (512 << 10) <= free, "{all} of {free} bytes");
    // As much as the budget sets aside for each.
    assert!(of_clients / 128 <= 12 << 10, "{} bytes a client", of_clients / 128);
}
