//! Lives at random: whatever clients, their rings and the toolstack do, and in whatever order, the
//! toolstack's jobs end well and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::{BACK, Machine, frame};
use std::time::Duration;
use wire::Offload;
use xen::sim::peer_front::{Manners, Outgoing, PeerFront};
use xen::sim::xenstored::Caller;
use xen::xenbus::XenbusState as State;

const CLIENTS: u16 = 4;
const STEPS: usize = 60;

struct Client {
    dom: u16,
    peer: PeerFront,
    attached: bool,
}

fn walk(seed: u64) {
    let m = Machine::new(seed);
    let mut clients: Vec<_> = (10..10 + CLIENTS)
        .map(|dom| Client { dom, peer: m.boot(dom, 0, Manners::default()), attached: false })
        .collect();
    m.run(Duration::from_millis(100));
    let held = || {
        let watches = m.xs.with(|s| s.watches_of(Caller::Domain(BACK)));
        assert_eq!(m.back().netback.watches(), watches);
        let transactions = m.xs.with(|s| s.transactions_of(Caller::Domain(BACK)));
        (m.sim.holdings(BACK), watches, transactions, m.xs.with(|s| s.nodes_of(BACK)))
    };
    let before = held();
    let random = |below: usize| m.sim.random(below as u64) as usize;
    for step in 0..STEPS {
        let client = &mut clients[random(usize::from(CLIENTS))];
        let at = format!("seed {seed}, step {step}, client {}", client.dom);
        match random(12) {
            0..3 if !client.attached => {
                m.xl.set_latency(Duration::from_millis(random(100) as u64));
                let job = m.attach(client.dom, 0);
                // An honest client makes an attach succeed, whatever the others are doing.
                if client.peer.states().0.is_none() {
                    client.peer.behave(Manners::default());
                    assert_eq!(m.xl.finish(job), Ok(()), "{at}");
                }
                client.attached = true;
            }
            0 if client.attached => {
                assert_eq!(m.detach(client.dom, 0), Ok(()), "{at}");
                client.attached = false;
            }
            1 if client.attached => {
                assert_eq!(m.destroy(client.dom), Ok(()), "{at}");
                client.peer = m.boot(client.dom, 0, Manners::default());
                client.attached = false;
            }
            2 | 3 => client.peer.write_state(State::ALL[random(State::ALL.len())]),
            4 => client.peer.behave(Manners {
                follows_backend: random(4) != 0,
                split: random(2) == 0,
                rx_buffers: random(257) as u32,
                ..Manners::default()
            }),
            5 => m.xs.collide(random(4) as u32),
            6 => {
                m.xs.stall(true);
                m.run(Duration::from_millis(random(300) as u64));
                m.xs.stall(false);
            }
            7 if client.peer.is_up() => client.peer.scribble(random(2), 0, random(1000) as u32),
            8 | 9 => {
                let _ = client.peer.send(&Outgoing::plain(frame(60 + random(9000), 1)));
            }
            10 => {
                let mut back = m.back();
                let port = back.notices.iter().rev().find_map(|notice| match notice {
                    netback::Notice::Up { port, dom, .. } if dom.0 == client.dom => Some(*port),
                    _ => None,
                });
                if let Some(port) = port {
                    let _ = back.send(port, &frame(5000, 2), 54, &[4042, 904], Offload::NONE);
                }
            }
            _ => m.run(Duration::from_millis(random(400) as u64)),
        }
        let _ = m.back().pull_all();
    }
    for client in clients.iter().filter(|client| client.attached) {
        assert_eq!(m.detach(client.dom, 0), Ok(()), "seed {seed}, client {}", client.dom);
    }
    m.run(Duration::from_secs(1));
    assert_eq!(held(), before, "seed {seed}");
    for client in &clients {
        assert_eq!(client.peer.kept(), 0, "seed {seed}: pages of {} still in use", client.dom);
    }
}

#[test]
fn random_lives_end_well_and_leave_nothing_behind() {
    for seed in 0..25 {
        walk(seed);
    }
}
