//! Our ends of channels against libxenvchan's, over a simulated XenStore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;
use wire::Instant;
use xen::hypervisor::{DomId, Hypervisor, Memory};
use xen::sim::peer_vchan::LibVchan;
use xen::sim::xenstored::{Caller, Quotas, Xenstored};
use xen::sim::{Holdings, Sim, SimHypervisor, SimPage};
use xen::store::{self, Perm, Tag};
use xen::vchan::{Client, Order, Orders, Server, Stream};

const OWN: DomId = DomId(5);
const DOM0: DomId = DomId(0);
const PORT: u32 = 111;

/// A guest with one end of a channel.
struct Guest<E> {
    sim: Sim,
    xs: Xenstored,
    h: SimHypervisor,
    store: store::Client<SimPage>,
    end: E,
}

/// What both ends have in common here.
trait End: Stream<SimHypervisor> {
    fn new(store: &mut store::Client<SimPage>) -> Self;
    fn heard(&mut self, store: &mut store::Client<SimPage>, event: &store::Event);
    fn turn(&mut self, h: &mut SimHypervisor, store: &mut store::Client<SimPage>, now: Instant);
}

impl End for Client<SimHypervisor> {
    fn new(store: &mut store::Client<SimPage>) -> Self {
        Self::new(store, Tag(7), OWN, (DOM0, PORT), Order::DATA)
    }
    fn heard(&mut self, _: &mut store::Client<SimPage>, event: &store::Event) {
        self.on_store(event);
    }
    fn turn(&mut self, h: &mut SimHypervisor, store: &mut store::Client<SimPage>, now: Instant) {
        self.tick(h, store, now);
    }
}

impl End for Server<SimHypervisor> {
    fn new(_: &mut store::Client<SimPage>) -> Self {
        Self::new(Tag(7), OWN, (DOM0, PORT), Orders::PAGE)
    }
    fn heard(&mut self, store: &mut store::Client<SimPage>, event: &store::Event) {
        self.on_store(store, event);
    }
    fn turn(&mut self, h: &mut SimHypervisor, store: &mut store::Client<SimPage>, now: Instant) {
        self.tick(h, store, now);
    }
}

impl<E: End> Guest<E> {
    fn new() -> Self {
        let sim = Sim::new(3);
        let xs = Xenstored::new(&sim);
        let (page, port) = xs.introduce(OWN);
        let h = sim.domain(OWN);
        let mut store = store::Client::new(page, port);
        let end = E::new(&mut store);
        Self { sim, xs, h, store, end }
    }

    /// Everything that can happen now, happens.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.store.pump(&mut self.h);
            self.sim.settle();
            self.store.pump(&mut self.h);
            while let Some(event) = self.store.next_event() {
                self.end.heard(&mut self.store, &event);
            }
            let now = self.sim.now();
            self.end.turn(&mut self.h, &mut self.store, now);
        }
    }

    fn sleep(&mut self, time: Duration) {
        self.sim.run_until(self.sim.now() + time);
        self.settle();
    }

    fn signalled(&mut self) -> bool {
        let port = self.end.event().unwrap();
        self.h.take_pending().contains(port)
    }

    fn read(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = vec![0; max];
        let len = self.end.read(&mut self.h, &mut bytes);
        bytes.truncate(len);
        bytes
    }

    fn server(&self, min: [u32; 2]) -> LibVchan {
        LibVchan::server(&self.sim, &self.xs, OWN, PORT, min)
    }

    fn client(&self) -> Option<LibVchan> {
        LibVchan::client(&self.sim, &self.xs, OWN, PORT)
    }

    /// What the server says, where the guest may read it.
    fn tell(&self, ring_ref: &str, event_channel: &str) {
        let home = "/local/domain/0/data/vchan/5/111";
        for (node, value) in [("ring-ref", ring_ref), ("event-channel", event_channel)] {
            let node = format!("{home}/{node}");
            self.xs.set(&node, value);
            let perms = ["n0", "r5"].map(|perm| Perm::parse(perm).unwrap()).to_vec();
            self.xs.with(|s| s.set_perms(Caller::Toolstack, None, &node, perms)).unwrap();
        }
    }

    fn holdings(&self) -> Holdings {
        self.sim.holdings(OWN)
    }
}

/// Passes `bytes` from one end to the other, each going on only when it has been signalled, and fails if
/// both wait.
fn pump<E: End>(guest: &mut Guest<E>, peer: &mut LibVchan, out: &[u8], back: &[u8]) {
    let (mut sent, mut came, mut answered, mut received) = (0, Vec::new(), 0, Vec::new());
    guest.settle();
    guest.signalled();
    let (mut ours, mut theirs) = (true, true);
    while came.len() < out.len() || received.len() < back.len() {
        assert!(
            ours || theirs,
            "both wait: {} of {} and {} of {} came",
            came.len(),
            out.len(),
            received.len(),
            back.len()
        );
        if std::mem::take(&mut ours) {
            sent += guest.end.write(&mut guest.h, &out[sent..]);
            received.extend(drained(|| guest.read(3000)));
        }
        if std::mem::take(&mut theirs) {
            came.extend(drained(|| peer.read(3000)));
            answered += peer.write(&back[answered..]);
        }
        guest.sim.settle();
        ours |= guest.signalled();
        theirs |= guest.xs.take_signal(peer.port());
    }
    assert_eq!(came, out);
    assert_eq!(received, back);
}

/// Reads until less comes than was asked for.
fn drained(mut read: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut all = Vec::new();
    while {
        let more = read();
        all.extend(&more);
        more.len() == 3000
    } {}
    all
}

fn data(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n ^ n >> 7) as u8).collect()
}

#[test]
fn a_client_finds_a_server_that_comes_late_and_streams_through_every_size_of_ring() {
    for min in [[1024, 2048], [2048, 1024], [4096, 4096], [2048, 65536], [65536, 65536]] {
        let mut guest = Guest::<Client<_>>::new();
        guest.sleep(Duration::from_secs(5));
        assert!(!guest.end.is_up());
        let mut server = guest.server(min);
        guest.settle();
        assert!(guest.end.is_up(), "{min:?}");
        assert_eq!(server.is_open(), 1);
        pump(&mut guest, &mut server, &data(200_001), &data(150_003));
    }
}

#[test]
fn a_server_streams_to_a_client_and_hides_its_offer_from_the_next() {
    let mut guest = Guest::<Server<_>>::new();
    guest.settle();
    let node = "/local/domain/5/data/vchan/0/111/event-channel";
    let perms = guest.xs.with(|s| s.perms(Caller::Toolstack, None, node)).unwrap();
    let perms: Vec<String> = perms.iter().map(ToString::to_string).collect();
    assert_eq!(perms, ["n5", "r0"]);
    let mut client = guest.client().unwrap();
    guest.settle();
    assert!(guest.end.is_up());
    assert!(guest.xs.value(node).is_none());
    pump(&mut guest, &mut client, &data(100_001), &data(90_003));
}

#[test]
fn a_server_that_restarts_is_found_again_a_thousand_times_and_nothing_is_held() {
    let mut guest = Guest::<Client<_>>::new();
    let idle = {
        guest.settle();
        guest.holdings()
    };
    for round in 0..1000_u32 {
        let mut server = guest.server([4096, 4096]);
        guest.settle();
        assert!(guest.end.is_up(), "round {round}");
        if round % 3 == 0 {
            server.hide();
        }
        assert_eq!(server.write(b"farewell"), 8);
        server.close();
        assert_eq!(guest.read(20), b"farewell", "what was sent last is read");
        guest.settle();
        assert!(!guest.end.is_up());
        assert_eq!(guest.holdings(), idle);
    }
}

#[test]
fn clients_of_a_server_come_and_go_a_thousand_times_and_nothing_is_held() {
    let mut guest = Guest::<Server<_>>::new();
    guest.settle();
    let offered = guest.holdings();
    for round in 0..1000 {
        let client = guest.client().unwrap_or_else(|| panic!("round {round}: no offer"));
        guest.settle();
        assert!(guest.end.is_up());
        client.close();
        guest.settle();
        assert!(!guest.end.is_up());
        guest.sleep(Duration::from_secs(1));
        assert_eq!(guest.holdings(), offered);
    }
}

#[test]
fn an_index_that_cannot_be_true_ends_the_channel_and_nothing_else() {
    let mut guest = Guest::<Client<_>>::new();
    let idle = {
        guest.settle();
        guest.holdings()
    };
    let mut server = guest.server([4096, 4096]);
    guest.settle();
    for prod in [4097, u32::MAX, 1 << 31] {
        server.lie(prod);
        assert_eq!(guest.read(100), b"");
        guest.settle();
        assert!(!guest.end.is_up());
        assert_eq!(guest.holdings(), idle);
        server.close();
        server = guest.server([4096, 4096]);
        guest.settle();
        assert!(guest.end.is_up());
    }
}

#[test]
fn a_client_that_never_lets_go_costs_a_few_channels_and_no_more() {
    let mut guest = Guest::<Server<_>>::new();
    let mut held = Vec::new();
    for _ in 0..20 {
        guest.sleep(Duration::from_secs(2));
        let Some(client) = guest.client() else { break };
        guest.settle();
        // Its process says that it has gone, and keeps its pages.
        guest.end.give_up();
        guest.settle();
        held.push(client);
    }
    assert_eq!(held.len(), 4);
    assert_eq!(guest.holdings().pages - 1, 4 * 3);
    held.into_iter().for_each(LibVchan::close);
    guest.sleep(Duration::from_secs(2));
    assert!(guest.client().is_some());
}

#[test]
fn nodes_that_lead_nowhere_are_tried_at_most_once_a_second() {
    let mut guest = Guest::<Client<_>>::new();
    guest.settle();
    guest.tell("12", "13");
    guest.settle();
    let before = guest.sim.counters(OWN).hypercalls;
    for _ in 0..100 {
        guest.sleep(Duration::from_millis(100));
    }
    let tried = guest.sim.counters(OWN).hypercalls - before;
    assert!((9..=12).contains(&tried), "{tried} hypercalls in ten seconds");
    for nonsense in ["", "0", "-1", "99999999999", "x"] {
        guest.tell("12", nonsense);
        guest.settle();
        assert!(!guest.end.is_up());
    }
}

#[test]
fn without_a_watch_a_client_looks_now_and_then() {
    let mut guest = Guest::<Client<_>>::new();
    guest.xs.set_quotas(Quotas { watches: 0, ..Quotas::default() });
    guest.sleep(Duration::from_secs(10));
    let mut server = guest.server([4096, 4096]);
    for _ in 0..20 {
        guest.sleep(Duration::from_millis(100));
    }
    assert!(guest.end.is_up());
    assert_eq!(server.write(b"hello"), 5);
    assert_eq!(guest.read(9), b"hello");
}

#[test]
fn a_client_takes_no_larger_rings_than_it_wants_and_no_nonsense() {
    for word in [0, 12, 12 | 21 << 16, 17 | 12 << 16, 10 | 10 << 16, u32::MAX] {
        let mut guest = Guest::<Client<_>>::new();
        let idle = {
            guest.settle();
            guest.holdings()
        };
        let mut dom0 = guest.sim.domain(DOM0);
        let page = dom0.page().unwrap();
        page.store(16, word);
        page.store(20, 0x0001_0102);
        let gref = dom0.grant(OWN, &page, xen::hypervisor::Access::ReadWrite).unwrap();
        let port = dom0.alloc_unbound(OWN).unwrap();
        guest.tell(&gref.number().to_string(), &port.0.to_string());
        guest.settle();
        assert!(!guest.end.is_up(), "{word:#x}");
        assert_eq!(guest.holdings(), idle);
        assert_eq!(guest.sim.counters(OWN).maps, 1, "the page was looked at");
    }
}
