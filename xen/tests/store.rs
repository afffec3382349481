//! The XenStore client against a daemon, against bytes in small pieces, and against nonsense.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use xen::hypervisor::{DomId, Hypervisor, Memory, Page};
use xen::sim::xenstored::{Caller, VALUE_MAX, Xenstored};
use xen::sim::{Sim, SimHypervisor, SimPage};
use xen::store::wire::{Header, MsgType, PAYLOAD_MAX, PermLetter};
use xen::store::{
    Broken, Change, Client, Event, Found, Gather, GatherError, Key, Op, Outcome, Perm, Publish,
    Reply, RequestId, Step, StoreError, SubmitError, Tag, TxId,
};

const OWN: DomId = DomId(5);
const TAG: Tag = Tag(77);

struct Guest {
    sim: Sim,
    store: Xenstored,
    h: SimHypervisor,
    client: Client<SimPage>,
}

impl Guest {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let store = Xenstored::new(&sim);
        let (page, port) = store.introduce(OWN);
        let client = Client::new(page, port);
        Self { h: sim.domain(OWN), sim, store, client }
    }

    /// Pumps until nothing moves any more and returns the events.
    fn run(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut quiet = 0;
        // A long message takes several fillings of the ring before there is an answer.
        while quiet < 8 {
            self.client.pump(&mut self.h);
            self.sim.settle();
            let _ = self.h.take_pending();
            let before = events.len();
            events.extend(std::iter::from_fn(|| self.client.next_event()));
            self.client.pump(&mut self.h);
            quiet = if events.len() == before { quiet + 1 } else { 0 };
        }
        events
    }

    /// One request and its reply.
    fn ask(&mut self, tx: TxId, op: &Op<'_>) -> Result<Reply, StoreError> {
        let id = self.client.submit(TAG, tx, op).unwrap();
        let events = self.run();
        let reply = events.into_iter().find_map(|e| match e {
            Event::Reply { tag, id: i, result } if i == id => {
                assert_eq!(tag, TAG);
                Some(result)
            }
            _ => None,
        });
        reply.expect("a reply")
    }

    fn plain(&mut self, op: &Op<'_>) -> Result<Reply, StoreError> {
        self.ask(TxId::NONE, op)
    }

    fn publish(&mut self, changes: Vec<Change>) -> Outcome {
        let mut publish = Publish::start(&mut self.client, TAG, changes).unwrap();
        for _ in 0..1000 {
            for event in self.run() {
                if let Event::Reply { id, result, .. } = event
                    && let Step::Done(outcome) = publish.on(&mut self.client, id, &result)
                {
                    return outcome;
                }
            }
        }
        panic!("a transaction without an end");
    }

    fn gather(&mut self, keys: &[Key<'_>]) -> Result<Vec<Found>, GatherError> {
        let keys = keys.iter().copied();
        let mut gather = Gather::start(&mut self.client, TAG, TxId::NONE, keys).unwrap();
        for event in self.run() {
            if let Event::Reply { id, result, .. } = event
                && let Step::Done(found) = gather.on(id, &result)
            {
                return found;
            }
        }
        panic!("a gather without an end");
    }
}

#[test]
fn every_operation_has_its_reply() {
    let mut g = Guest::new(1);
    let home = "/local/domain/5";
    assert_eq!(g.plain(&Op::DomainPath(OWN)), Ok(Reply::Path(home.into())));
    assert_eq!(g.plain(&Op::Write("data/x", b"v\0w")), Ok(Reply::Ok));
    assert_eq!(g.plain(&Op::Read("data/x")), Ok(Reply::Value(b"v\0w".into())));
    assert_eq!(g.plain(&Op::Mkdir("data/y/z")), Ok(Reply::Ok));
    let names = Reply::Names(vec!["x".into(), "y".into()]);
    assert_eq!(g.plain(&Op::Directory("/local/domain/5/data")), Ok(names));
    assert_eq!(g.plain(&Op::Directory("data/x")), Ok(Reply::Names(vec![])));
    let part =
        Reply::Part { generation: 1, names: vec!["x".into(), "y".into()], last: true, next: 4 };
    assert_eq!(g.plain(&Op::DirectoryPart("data", 0)), Ok(part));
    let owner = Perm { letter: PermLetter::None, dom: OWN };
    let reader = Perm { letter: PermLetter::Read, dom: DomId(9) };
    assert_eq!(g.plain(&Op::SetPerms("data/x", &[owner, reader])), Ok(Reply::Ok));
    assert_eq!(g.plain(&Op::GetPerms("data/x")), Ok(Reply::Perms(vec![owner, reader])));
    assert_eq!(g.plain(&Op::Rm("data/x")), Ok(Reply::Ok));
    assert_eq!(g.plain(&Op::Rm("data/x")), Ok(Reply::Ok));
    assert_eq!(g.plain(&Op::Rm("data/q/x")), Err(StoreError::Enoent));
    assert_eq!(g.plain(&Op::Read("data/x")), Err(StoreError::Enoent));
    assert_eq!(g.plain(&Op::Read("bad path")), Err(StoreError::Einval));
}

#[test]
fn a_node_deleted_below_an_unreadable_parent_answers_eacces() {
    let mut g = Guest::new(1);
    g.store.set("/local/domain/9/device/vif/0/state", "4");
    assert_eq!(g.plain(&Op::Read("/local/domain/9/device/vif/0/state")), Err(StoreError::Eacces));
    assert_eq!(g.plain(&Op::Read("/local/domain/9/nothing")), Err(StoreError::Eacces));
    assert!(StoreError::Eacces.is_gone());
    assert_eq!(g.plain(&Op::Write("domid", b"0")), Err(StoreError::Eacces));
}

#[test]
fn transactions_isolate_and_collide() {
    let mut g = Guest::new(1);
    let Ok(Reply::Tx(tx)) = g.plain(&Op::TransactionStart) else { panic!() };
    assert_eq!(g.ask(tx, &Op::Write("data/a", b"1")), Ok(Reply::Ok));
    assert_eq!(g.ask(tx, &Op::Read("data/a")), Ok(Reply::Value(b"1".into())));
    assert_eq!(g.plain(&Op::Read("data/a")), Err(StoreError::Enoent));
    g.store.set("/local/domain/5/data/a", "2");
    let end = Op::TransactionEnd { commit: true };
    assert_eq!(g.ask(tx, &end), Err(StoreError::Eagain));
    assert_eq!(g.store.value("/local/domain/5/data/a").as_deref(), Some("2"));
    assert_eq!(g.ask(tx, &Op::Read("data/a")), Err(StoreError::Enoent), "no such transaction");
}

#[test]
fn a_watch_fires_at_once_below_and_when_its_parent_is_deleted() {
    let mut g = Guest::new(1);
    let paths = |events: Vec<Event>| -> Vec<(u32, String)> {
        let watch = |e| match e {
            Event::Watch { tag, path } => Some((tag.0, path)),
            _ => None,
        };
        events.into_iter().filter_map(watch).collect()
    };
    g.client.submit(Tag(1), TxId::NONE, &Op::Watch("data")).unwrap();
    g.client.submit(Tag(2), TxId::NONE, &Op::Watch("/local/domain/5/data/a/b")).unwrap();
    let now = paths(g.run());
    assert_eq!(now, [(1, "data".into()), (2, "/local/domain/5/data/a/b".into())]);
    g.store.set("/local/domain/5/data/a/b", "1");
    let set = paths(g.run());
    assert_eq!(set, [(1, "data/a/b".into()), (2, "/local/domain/5/data/a/b".into())]);
    g.store.remove("/local/domain/5/data/a");
    let removed = paths(g.run());
    assert_eq!(removed, [(1, "data/a".into()), (2, "/local/domain/5/data/a/b".into())]);
    assert_eq!(g.store.with(|s| s.watches_of(Caller::Domain(OWN))), 2);
    g.client.submit(Tag(1), TxId::NONE, &Op::Unwatch("data")).unwrap();
    g.run();
    g.store.set("/local/domain/5/data/c", "1");
    assert_eq!(paths(g.run()), []);
    assert_eq!(g.store.with(|s| s.watches_of(Caller::Domain(OWN))), 1);
}

#[test]
fn what_a_former_user_of_the_ring_left_is_dropped_first() {
    let sim = Sim::new(3);
    let store = Xenstored::new(&sim);
    let (page, port) = store.introduce(OWN);
    store.with(|s| s.watch(Caller::Domain(OWN), "data", "77").unwrap());
    store.with(|s| s.begin(Caller::Domain(OWN)).unwrap());
    let mut client = Client::new(page, port);
    let mut h = sim.domain(OWN);
    client.pump(&mut h);
    sim.settle();
    assert_eq!(store.with(|s| s.watches_of(Caller::Domain(OWN))), 0);
    assert_eq!(store.with(|s| s.transactions_of(Caller::Domain(OWN))), 0);
}

#[test]
fn quotas_have_names() {
    let mut g = Guest::new(1);
    let long = vec![b'x'; VALUE_MAX];
    let error = g.plain(&Op::Write("data/long", &long)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let mut last = Ok(Reply::Ok);
    for n in 0..1001 {
        last = g.plain(&Op::Write(&format!("data/{n}"), b""));
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last, Err(StoreError::Enospc));
    let watches: Vec<_> = (0..129).map(|n| g.plain(&Op::Watch(&format!("data/w{n}")))).collect();
    assert_eq!(watches.iter().filter(|r| r.is_ok()).count(), 128);
    assert_eq!(watches[128], Err(StoreError::E2big));
}

#[test]
fn many_requests_at_once_all_come_back_under_their_numbers() {
    let mut g = Guest::new(9);
    for n in 0..500 {
        g.store.set(&format!("/local/domain/5/data/{n}"), &format!("value {n}"));
    }
    let ids: Vec<RequestId> = (0..500u32)
        .map(|n| {
            let path = format!("data/{n}");
            g.client.submit(Tag(n), TxId::NONE, &Op::Read(&path)).unwrap()
        })
        .collect();
    let events = g.run();
    assert_eq!(events.len(), 500);
    for event in events {
        let Event::Reply { tag, id, result } = event else { panic!("{event:?}") };
        assert_eq!(id, ids[tag.0 as usize]);
        assert_eq!(result, Ok(Reply::Value(format!("value {}", tag.0).into())));
    }
}

#[test]
fn more_transactions_than_the_quota_wait_for_each_other() {
    let mut g = Guest::new(1);
    // Nodes that are there: making them would be a change of their common parent, and collide.
    (0..30).for_each(|n| g.store.set(&format!("/local/domain/5/data/{n}"), ""));
    let mut running: Vec<_> = (0..30)
        .map(|n| {
            let change = Change::write(format!("data/{n}"), "x");
            Publish::start(&mut g.client, Tag(n), vec![change]).unwrap()
        })
        .collect();
    let mut outcomes = Vec::new();
    while outcomes.len() < 30 {
        for event in g.run() {
            let Event::Reply { tag, id, result } = event else { continue };
            match running[tag.0 as usize].on(&mut g.client, id, &result) {
                Step::Done(outcome) => outcomes.push(outcome),
                Step::Pending => {}
                Step::NotMine => panic!("every reply is somebody's"),
            }
        }
    }
    assert!(outcomes.iter().all(|o| *o == Outcome::Done), "{outcomes:?}");
    assert_eq!(g.store.with(|s| s.transactions_of(Caller::Domain(OWN))), 0);
}

#[test]
fn a_publish_is_all_or_nothing_and_says_how_it_ended() {
    let mut g = Guest::new(1);
    let value = |g: &Guest, name: &str| g.store.value(&format!("/local/domain/5/data/{name}"));
    let both = || vec![Change::write("data/a", "1"), Change::write("data/b", "2")];
    assert_eq!(g.publish(both()), Outcome::Done);
    assert_eq!((value(&g, "a"), value(&g, "b")), (Some("1".into()), Some("2".into())));
    assert_eq!(
        g.publish(vec![Change::remove("data/a"), Change::remove("data/none")]),
        Outcome::Done
    );
    assert_eq!((value(&g, "a"), value(&g, "b")), (None, Some("2".into())));

    g.store.collide(15);
    assert_eq!(g.publish(both()), Outcome::Done);
    g.store.collide(16);
    assert_eq!(g.publish(both()), Outcome::Contended);
    g.store.collide(0);

    let half = vec![Change::write("data/c", "1"), Change::write("/local/domain/9/x", "1")];
    assert_eq!(g.publish(half), Outcome::Gone);
    assert_eq!(value(&g, "c"), None);
    let big = vec![Change::write("data/c", "1"), Change::write("data/d", vec![b'x'; VALUE_MAX])];
    assert_eq!(g.publish(big), Outcome::NoSpace(StoreError::Enospc));
    assert_eq!(value(&g, "c"), None);
    let wrong = vec![Change::write("data/c", "1"), Change::write("data/ ", "1")];
    assert_eq!(g.publish(wrong), Outcome::Failed(StoreError::Einval));
    let long = vec![Change::write("data/c", "1"), Change::write("x".repeat(2049), "1")];
    assert_eq!(g.publish(long), Outcome::NotSubmitted(SubmitError::TooLong));
    assert_eq!(value(&g, "c"), None);
    assert_eq!(g.publish(vec![]), Outcome::Done);
    assert_eq!(g.store.with(|s| s.transactions_of(Caller::Domain(OWN))), 0, "none stays open");
}

#[test]
fn a_gather_tells_what_is_there_what_is_gone_and_what_failed() {
    let mut g = Guest::new(1);
    g.store.set("/local/domain/5/data/a", "1");
    g.store.set("/local/domain/5/data/d/e", "1");
    let found = g.gather(&[
        Key::Value("data/a"),
        Key::Value("data/none"),
        Key::Value("/local/domain/9/gone"),
        Key::Names("data"),
        Key::Names("data/none"),
    ]);
    let found = found.unwrap();
    assert_eq!(found[0].text(), Some("1"));
    assert_eq!(found[1..3], [Found::Gone, Found::Gone]);
    assert_eq!(found[3].names().unwrap(), ["a", "d"]);
    assert_eq!(found[4], Found::Gone);
    let failed = g.gather(&[Key::Value("data/a"), Key::Value("bad path")]);
    assert_eq!(failed, Err(GatherError { key: 1, error: StoreError::Einval }));
}

#[test]
fn a_stalled_daemon_delays_and_loses_nothing() {
    let mut g = Guest::new(1);
    g.store.stall(true);
    let value = vec![b'v'; 1900];
    for n in 0..30 {
        g.client.submit(Tag(n), TxId::NONE, &Op::Write(&format!("data/{n}"), &value)).unwrap();
    }
    g.client.pump(&mut g.h);
    g.sim.settle();
    assert_eq!(g.client.next_event(), None);
    g.store.stall(false);
    let events = g.run();
    assert_eq!(events.len(), 30);
    assert!(events.iter().all(|e| matches!(e, Event::Reply { result: Ok(Reply::Ok), .. })));
}

#[test]
fn too_long_and_too_many_are_refused_at_once() {
    let mut g = Guest::new(1);
    let refused = |g: &mut Guest, op: &Op<'_>| g.client.submit(TAG, TxId::NONE, op).unwrap_err();
    let (absolute, relative) = (format!("/{}", "x".repeat(3072)), "x".repeat(2049));
    assert_eq!(refused(&mut g, &Op::Read(&absolute)), SubmitError::TooLong);
    assert_eq!(refused(&mut g, &Op::Read(&relative)), SubmitError::TooLong);
    assert_eq!(refused(&mut g, &Op::Write("a", &vec![0; PAYLOAD_MAX - 1])), SubmitError::TooLong);
    assert!(g.client.submit(TAG, TxId::NONE, &Op::Write("a", &vec![0; PAYLOAD_MAX - 2])).is_ok());
    let accepted =
        (0..5000).take_while(|_| g.client.submit(TAG, TxId::NONE, &Op::Read("a")).is_ok()).count();
    assert!((1000..5000).contains(&accepted), "{accepted}");
    assert_eq!(refused(&mut g, &Op::Read("a")), SubmitError::QueueFull);
}

#[test]
fn a_long_list_comes_in_parts() {
    let mut g = Guest::new(1);
    let names: Vec<String> = (0..900).map(|n| format!("name-{n:04}")).collect();
    for name in &names {
        g.store.set(&format!("/local/domain/5/data/{name}"), "");
    }
    assert_eq!(g.plain(&Op::Directory("data")), Err(StoreError::E2big));
    let (mut found, mut offset, mut parts) = (Vec::new(), 0, 0);
    loop {
        let reply = g.plain(&Op::DirectoryPart("data", offset));
        let Ok(Reply::Part { names, last, next, .. }) = reply else { panic!("{reply:?}") };
        found.extend(names);
        offset += next;
        parts += 1;
        if last {
            break;
        }
    }
    assert_eq!((found, parts), (names, 3));
}

/// A client whose ring page the test writes itself, playing the daemon.
struct Bare {
    sim: Sim,
    h: SimHypervisor,
    client: Client<SimPage>,
    page: SimPage,
}

const REPLY_PROD: usize = 2060;

impl Bare {
    fn new(start: u32) -> Self {
        let sim = Sim::new(0);
        let mut h = sim.domain(OWN);
        let page = h.page().unwrap();
        for index in [2048, 2052, 2056, 2060] {
            page.store(index, start);
        }
        let port = h.alloc_unbound(DomId(0)).unwrap();
        let view = sim.page_at(OWN, page.frame());
        Self { client: Client::new(page, port), page: view, sim, h }
    }

    /// Puts bytes on the reply ring as far as they fit; returns how many did.
    fn put(&self, bytes: &[u8]) -> usize {
        let (cons, prod) = (self.page.load(2056), self.page.load(REPLY_PROD));
        let room = 1024 - prod.wrapping_sub(cons);
        let n = bytes.len().min(room as usize);
        for (i, byte) in bytes[..n].iter().enumerate() {
            let at = prod.wrapping_add(i as u32) % 1024;
            self.page.write(1024 + at as usize, &[*byte]);
        }
        self.page.store(REPLY_PROD, prod.wrapping_add(n as u32));
        n
    }

    fn events(&mut self) -> Vec<Event> {
        self.client.pump(&mut self.h);
        std::iter::from_fn(|| self.client.next_event()).collect()
    }
}

#[test]
fn no_more_than_20_requests_are_unanswered() {
    let mut b = Bare::new(0);
    for _ in 0..50 {
        b.client.submit(TAG, TxId::NONE, &Op::Read("a")).unwrap();
    }
    let mut sent = Vec::new();
    for _ in 0..100 {
        b.client.pump(&mut b.h);
        let prod = b.page.load(2052);
        for at in b.page.load(2048)..prod {
            let mut byte = [0];
            b.page.read(at as usize % 1024, &mut byte);
            sent.push(byte[0]);
        }
        b.page.store(2048, prod);
    }
    // RESET_WATCHES has a payload of 1 byte, the others "a" and its NUL.
    assert_eq!(sent.len(), 17 + 19 * 18);
    b.put(&message(21, 1, 0, b"OK\0"));
    b.client.pump(&mut b.h);
    assert_eq!(b.page.load(2052) as usize, sent.len() + 18, "an answer makes room for one more");
}

fn message(kind: u32, request: u32, tx: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { kind, request, tx: TxId(tx), len: payload.len() as u32 };
    [&header.encode()[..], payload].concat()
}

#[test]
fn nonsense_is_an_event_and_the_end_of_the_connection() {
    type Case = (Vec<u8>, Broken);
    let cases: Vec<Case> = vec![
        (
            Header { kind: 2, request: 2, tx: TxId(0), len: 4097 }.encode().into(),
            Broken::TooLong { len: 4097 },
        ),
        (
            Header { kind: 15, request: 0, tx: TxId(0), len: u32::MAX }.encode().into(),
            Broken::TooLong { len: u32::MAX },
        ),
        (message(1, 2, 0, b"x\0"), Broken::BadReply(MsgType::Read)),
        (message(2, 2, 9, b"x"), Broken::BadReply(MsgType::Read)),
        (message(11, 3, 0, b"NO\0"), Broken::BadReply(MsgType::Write)),
        (message(11, 3, 0, b""), Broken::BadReply(MsgType::Write)),
    ];
    for (bytes, broken) in cases {
        let mut b = Bare::new(u32::MAX - 5);
        b.client.submit(TAG, TxId::NONE, &Op::Read("a")).unwrap();
        b.client.submit(TAG, TxId::NONE, &Op::Write("a", b"1")).unwrap();
        assert_eq!(b.events(), []);
        b.put(&bytes);
        assert_eq!(b.events(), [Event::Broken(broken)]);
        assert_eq!(b.events(), [], "told once");
        let refused = b.client.submit(TAG, TxId::NONE, &Op::Read("a"));
        assert_eq!(refused, Err(SubmitError::Broken));
    }
}

#[test]
fn impossible_indices_are_an_event() {
    for index in [2048, 2052, 2056, 2060] {
        let mut b = Bare::new(7);
        b.page.store(index, 7 + 5000);
        assert_eq!(b.events(), [Event::Broken(Broken::RingIndex)], "{index}");
    }
}

#[test]
fn replies_in_any_order_find_their_requests_and_strangers_are_ignored() {
    let mut b = Bare::new(0);
    let ids: Vec<_> =
        (0..3).map(|n| b.client.submit(Tag(n), TxId::NONE, &Op::Read("a")).unwrap()).collect();
    b.events();
    // 1 is RESET_WATCHES, so these are 2, 3 and 4.
    let mut all = message(2, 4, 0, b"four");
    all.extend(message(2, 999, 0, b"who"));
    all.extend(message(15, 0, 0, b"path\0not-a-tag\0"));
    all.extend(message(15, 0, 0, b"garbage"));
    all.extend(message(16, 2, 0, b"EWHATEVER\0"));
    all.extend(message(2, 3, 0, b"three"));
    b.put(&all);
    let reply = |n: usize, result| Event::Reply { tag: Tag(n as u32), id: ids[n], result };
    assert_eq!(
        b.events(),
        [
            reply(2, Ok(Reply::Value(b"four".into()))),
            reply(0, Err(StoreError::Unknown)),
            reply(1, Ok(Reply::Value(b"three".into()))),
        ]
    );
}

#[test]
fn a_flood_of_watch_events_is_bounded_and_none_is_lost() {
    let mut b = Bare::new(0);
    b.events();
    let mut queued = 0;
    let mut bytes: Vec<u8> = Vec::new();
    for n in 0..2000 {
        bytes.extend(message(15, 0, 0, format!("path/{n}\0\x37\0").as_bytes()));
    }
    // Nobody takes events: the client stops reading, and the ring stays full.
    let mut rest = &bytes[..];
    for _ in 0..200 {
        rest = &rest[b.put(rest)..];
        b.client.pump(&mut b.h);
    }
    assert!(!rest.is_empty());
    loop {
        let events = b.events();
        queued += events.len();
        let put = b.put(rest);
        rest = &rest[put..];
        if events.is_empty() && put == 0 && rest.is_empty() {
            break;
        }
    }
    assert_eq!(queued, 2000);
    // The same again and again is told once.
    for _ in 0..10 {
        b.put(&message(15, 0, 0, b"same\x007\0"));
        b.client.pump(&mut b.h);
    }
    assert_eq!(b.events(), [Event::Watch { tag: Tag(7), path: "same".into() }]);
    let _ = &b.sim;
}

proptest! {
    /// However the bytes are cut and wherever the indices stand, the same events come out.
    #[test]
    fn pieces_do_not_matter(
        start in any::<u32>(),
        cuts in prop::collection::vec(1usize..40, 1..60),
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..10),
    ) {
        let mut b = Bare::new(start);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (n, value) in values.iter().enumerate() {
            let id = b.client.submit(Tag(n as u32), TxId::NONE, &Op::Read("a")).unwrap();
            bytes.extend(message(2, n as u32 + 2, 0, value));
            let result = Ok(Reply::Value(value.clone()));
            expected.push(Event::Reply { tag: Tag(n as u32), id, result });
        }
        let mut found = b.events();
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let n = cuts.next().unwrap().min(rest.len());
            let put = b.put(&rest[..n]);
            rest = &rest[put..];
            found.extend(b.events());
        }
        prop_assert_eq!(found, expected);
    }

    /// Whatever the daemon writes, at any moment, no call stops or loops.
    #[test]
    fn no_bytes_can_break_the_client(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        pokes in prop::collection::vec((2048usize..2064, any::<u8>()), 0..8),
    ) {
        let mut b = Bare::new(0);
        for _ in 0..5 {
            b.client.submit(TAG, TxId::NONE, &Op::TransactionStart).unwrap();
            b.client.submit(TAG, TxId::NONE, &Op::Directory("a")).unwrap();
        }
        b.put(&bytes);
        b.events();
        for (at, byte) in pokes {
            b.page.write(at, &[byte]);
            b.events();
        }
    }

    /// Payloads that the daemon can be asked to produce are read back as they are.
    #[test]
    fn replies_never_panic_and_values_round_trip(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 21, 22] {
            let kind = MsgType::parse(kind).unwrap();
            let _ = Reply::parse(kind, &payload);
        }
        prop_assert_eq!(Reply::parse(MsgType::Read, &payload), Some(Reply::Value(payload.clone())));
        let _ = StoreError::parse(&payload);
    }
}

#[test]
fn requests_stand_on_the_ring_as_xs_wire_h_has_them() {
    let sim = Sim::new(0);
    let mut h = sim.domain(OWN);
    let page = h.page().unwrap();
    let frame = page.frame();
    let port = h.alloc_unbound(DomId(0)).unwrap();
    let mut client = Client::new(page, port);
    client.submit(Tag(12), TxId(3), &Op::Watch("a/b")).unwrap();
    client.pump(&mut h);
    let bytes = sim.peek(frame);
    let reset = [21, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(bytes[..17], reset);
    let watch = [4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0];
    assert_eq!(bytes[17..33], watch);
    assert_eq!(&bytes[33..40], b"a/b\x0012\0");
    assert_eq!(bytes[2052..2056], [40, 0, 0, 0]);
}
