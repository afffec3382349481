//! A session against the other end of the stream, played by its rules and against them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use qubes::{DATA_MAX, Event, HEADER, Path, ProtocolError, Refused, Session};
use rules::qubes::{TreeError, Trees};
use rules::{Action, Header, Query, Transport, Uplink, Zone};
use std::collections::BTreeMap;

const WRITE: u8 = 1;
const MULTIREAD: u8 = 2;
const RM: u8 = 4;
const OK: u8 = 7;
const NOENT: u8 = 8;
const ERROR: u8 = 9;
const GOT_MULTIREAD: u8 = 11;

/// As much as anybody needs.
const ROOM: usize = 4 << 20;

const CLIENT: &str = "10.137.0.10";
const MARKER: &str = "/qubes-firewall/10.137.0.10";

fn message(kind: u8, path: &str, data: &str) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0] = kind;
    bytes[1..=path.len()].copy_from_slice(path.as_bytes());
    bytes[68..].copy_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    bytes.extend(data.bytes());
    bytes
}

/// Takes what waits to be sent apart into kind, path and data.
fn sent(session: &mut Session) -> Vec<(u8, String, String)> {
    let bytes = session.outgoing().to_vec();
    session.sent(bytes.len());
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let path = rest[1..65].split(|b| *b == 0).next().unwrap();
        let len = u32::from_le_bytes(rest[68..HEADER].try_into().unwrap()) as usize;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        messages.push((rest[0], text(path), text(&rest[HEADER..HEADER + len])));
        rest = &rest[HEADER + len..];
    }
    messages
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

fn path(text: &str) -> Path {
    Path::new(text).unwrap()
}

/// What dom0 sends of its database, in reverse order as the daemon does.
fn database(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries
        .iter()
        .rev()
        .flat_map(|(path, value)| message(GOT_MULTIREAD, path, value))
        .collect();
    bytes.extend(message(GOT_MULTIREAD, "", ""));
    bytes
}

fn tree(rule: &str) -> Vec<(&'static str, String)> {
    vec![
        (MARKER, String::new()),
        ("/qubes-firewall/10.137.0.10/0000", rule.to_owned()),
        ("/qubes-firewall/10.137.0.10/policy", "drop".to_owned()),
    ]
}

/// A session that has read this database, its events taken.
fn live(entries: &[(&str, &str)]) -> Session {
    let mut session = Session::connected(ROOM);
    assert_eq!(sent(&mut session), [(MULTIREAD, String::new(), String::new())]);
    session.receive(&database(entries)).unwrap();
    events(&mut session);
    session
}

#[test]
fn the_database_is_read_once_and_then_followed() {
    let mut session = Session::connected(ROOM);
    assert_eq!(sent(&mut session), [(MULTIREAD, String::new(), String::new())]);
    let whole = database(&[("/name", "sys-tide"), ("/qubes-ip", "10.137.0.5")]);
    let (last, first) = (whole.len() - HEADER, whole.len());
    session.receive(&whole[..last]).unwrap();
    assert_eq!(
        (events(&mut session), session.store().get("/name")),
        (vec![], None),
        "not yet whole"
    );
    session.receive(&whole[last..first]).unwrap();
    assert_eq!(events(&mut session), [Event::Synced]);
    assert_eq!(session.store().get("/qubes-ip"), Some(&b"10.137.0.5"[..]));
    assert_eq!(sent(&mut session), [], "entries are not answered");

    session.receive(&message(WRITE, "/qubes-ip", "10.137.0.6")).unwrap();
    session.receive(&message(RM, "/name", "")).unwrap();
    session.receive(&message(RM, "/never-there", "")).unwrap();
    let done = |path: &str| (OK, path.to_owned(), String::new());
    assert_eq!(sent(&mut session), [done("/qubes-ip"), done("/name"), done("/never-there")]);
    assert_eq!(session.store().get("/qubes-ip"), Some(&b"10.137.0.6"[..]));
    assert_eq!(session.store().get("/name"), None);
    let expected = [
        Event::Written(path("/qubes-ip")),
        Event::Removed(path("/name")),
        Event::Removed(path("/never-there")),
    ];
    assert_eq!(events(&mut session), expected);
}

/// The transaction by which dom0 changes rules: the old ones hold until the marker is written.
#[test]
fn rules_take_effect_when_they_are_committed() {
    let entries = tree("action=accept proto=tcp");
    let entries: Vec<_> = entries.iter().map(|(path, value)| (*path, value.as_str())).collect();
    let mut session = Session::connected(ROOM);
    session.receive(&database(&entries)).unwrap();
    let mut trees = Trees::default();
    let apply = |session: &mut Session, trees: &mut Trees| {
        let mut applied = 0;
        for event in events(session) {
            if let Event::Rules(client, tree) = event {
                trees.set(client, tree);
                applied += 1;
            }
        }
        applied
    };
    let allowed = |trees: &Trees, transport| {
        let (src, dst) = (CLIENT.parse().unwrap(), "1.1.1.1".parse().unwrap());
        let query = Query {
            from: Zone::Clients,
            to: Zone::Uplink(Uplink::FIRST),
            src,
            dst,
            transport,
            header: Header::PLAIN,
        };
        trees.decide(&query).0 == Action::Accept
    };
    let (tcp, udp) = (Transport::Tcp { sport: 1, dport: 2 }, Transport::Udp { sport: 1, dport: 2 });
    assert_eq!(apply(&mut session, &mut trees), 1);
    assert!(allowed(&trees, tcp) && !allowed(&trees, udp));

    session.receive(&message(RM, "/qubes-firewall/10.137.0.10/", "")).unwrap();
    session.receive(&message(WRITE, "/qubes-firewall/10.137.0.10/policy", "drop")).unwrap();
    session
        .receive(&message(WRITE, "/qubes-firewall/10.137.0.10/0004", "action=accept proto=udp"))
        .unwrap();
    assert_eq!(apply(&mut session, &mut trees), 0);
    assert!(allowed(&trees, tcp) && !allowed(&trees, udp));
    session.receive(&message(WRITE, MARKER, "")).unwrap();
    assert_eq!(apply(&mut session, &mut trees), 1);
    assert!(!allowed(&trees, tcp) && allowed(&trees, udp));

    session.receive(&message(WRITE, "/qubes-firewall/10.137.0.10/0005", "action=maybe")).unwrap();
    session.receive(&message(WRITE, MARKER, "")).unwrap();
    assert_eq!(apply(&mut session, &mut trees), 1);
    assert!(!allowed(&trees, udp), "not understood, so blocked");
    assert_eq!(trees.broken().count(), 1);
}

/// Trees of clients whose addresses begin alike, and the old compatibility keys, do not mix.
#[test]
fn a_tree_is_what_lies_below_its_own_address() {
    let mut session = Session::connected(ROOM);
    session
        .receive(&database(&[
            ("/qubes-firewall/10.137.0.1", ""),
            ("/qubes-firewall/10.137.0.1/policy", "accept"),
            ("/qubes-firewall/10.137.0.10/0000", "action=accept"),
            ("/qubes-firewall/fd09::a", ""),
            ("/qubes-firewall/fd09::a/0000", "action=accept dst6=2001:db8::/32"),
            ("/qubes-firewall/fd09::a/policy", "drop"),
            ("/qubes-firewall/not-an-address", ""),
            ("/qubes-iptables", "reload"),
        ]))
        .unwrap();
    let told = events(&mut session);
    let rules: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::Rules(client, Ok(tree)) => Some((client.to_string(), tree.rules.len())),
            Event::Rules(client, Err(why)) => panic!("{client}: {why}"),
            _ => None,
        })
        .collect();
    assert_eq!(rules, [("10.137.0.1".to_owned(), 0), ("fd09::a".to_owned(), 1)]);
}

#[test]
fn a_new_connection_keeps_what_was_known_until_it_is_read_again() {
    let entries = tree("action=accept");
    let entries: Vec<_> = entries.iter().map(|(path, value)| (*path, value.as_str())).collect();
    let mut session = live(&entries).reconnected();
    assert_eq!(sent(&mut session), [(MULTIREAD, String::new(), String::new())]);
    assert!(session.store().get(MARKER).is_some());
    session.receive(&message(GOT_MULTIREAD, "/name", "x")).unwrap();
    session.receive(&message(WRITE, "/type", "y")).unwrap();
    assert_eq!(sent(&mut session), [(OK, "/type".to_owned(), String::new())]);
    assert!(session.store().get(MARKER).is_some() && session.store().get("/name").is_none());
    session.receive(&message(GOT_MULTIREAD, "", "")).unwrap();
    let client = CLIENT.parse().unwrap();
    let gone = Event::Rules(client, Err(TreeError::NoPolicy));
    assert_eq!(events(&mut session), [Event::Synced, gone]);
    assert_eq!(
        session.store().below("/").map(|(path, _)| path).collect::<Vec<_>>(),
        ["/name", "/type"]
    );
}

/// Every kind of message in both states: what is taken, what is answered, what ends the connection.
#[test]
fn each_message_is_taken_answered_or_refused() {
    for kind in 0..=255u8 {
        for synced in [false, true] {
            for (name, data) in [("/key", "value"), ("", ""), ("/dir/", "")] {
                let mut session = if synced { live(&[]) } else { Session::connected(ROOM) };
                sent(&mut session);
                let outcome = session.receive(&message(kind, name, data));
                let answers = sent(&mut session);
                let what = format!("kind {kind}, synced {synced}, path {name:?}");
                let fine = matches!(
                    (kind, name, synced),
                    (WRITE, "/key", _)
                        | (RM, "/key" | "/dir/", _)
                        | (GOT_MULTIREAD, "/key" | "", false)
                        | (OK | NOENT | ERROR, _, _)
                );
                assert_eq!(outcome.is_ok(), fine, "{what}");
                let answered = fine && matches!(kind, WRITE | RM);
                let expected = answered.then(|| (OK, name.to_owned(), String::new()));
                assert_eq!(answers, expected.into_iter().collect::<Vec<_>>(), "{what}");
                if !fine {
                    assert!(!session.wants_input());
                    assert_eq!(session.receive(&message(OK, "", "")), outcome, "{what}: for good");
                    assert_eq!(session.write(&path("/key"), b""), Err(Refused::NotSynced));
                    assert!(session.outgoing().is_empty());
                }
            }
        }
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = message(WRITE, "/key", "");
        change(&mut bytes);
        live(&[]).receive(&bytes)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|m| m[0] = 14), Err(ProtocolError::Header));
    assert_eq!(with(|m| m[1] = b'k'), Err(ProtocolError::Header), "no slash");
    assert_eq!(with(|m| m[3] = b' '), Err(ProtocolError::Header), "a strange character");
    assert_eq!(with(|m| m[3] = 0xff), Err(ProtocolError::Header));
    assert_eq!(with(|m| m[1..65].fill(b'/')), Err(ProtocolError::Header), "no NUL");
    assert_eq!(with(|m| m[68..72].fill(0xff)), Err(ProtocolError::Header), "too long");
    assert_eq!(
        with(|m| m[68..70].copy_from_slice(&3072u16.to_le_bytes())),
        Err(ProtocolError::Header)
    );
    assert_eq!(with(|m| m[68..70].copy_from_slice(&3071u16.to_le_bytes())), Ok(()), "data to come");
}

#[test]
fn only_what_the_daemon_survives_is_written() {
    let mut session = Session::connected(ROOM);
    sent(&mut session);
    assert_eq!(session.write(&path("/key"), b"early"), Err(Refused::NotSynced));
    let mut session = live(&[]);
    assert_eq!(session.write(&path("/dir/"), b""), Err(Refused::Path));
    assert_eq!(session.write(&path("/key"), b"a\0b"), Err(Refused::Data));
    assert_eq!(session.write(&path("/key"), &[b'x'; DATA_MAX + 1]), Err(Refused::Data));
    assert!(session.outgoing().is_empty());
    assert_eq!(session.write(&path("/key"), &[b'x'; DATA_MAX]), Ok(()));
    assert_eq!(session.write(&path("/qubes-firewall-handled/10.137.0.10"), b"1"), Ok(()));
    let told: Vec<_> = sent(&mut session).into_iter().map(|(kind, path, _)| (kind, path)).collect();
    let handled = "/qubes-firewall-handled/10.137.0.10";
    assert_eq!(told, [(WRITE, "/key".to_owned()), (WRITE, handled.to_owned())]);
    for bad in ["", "key", "/a b", "/\u{e9}", &format!("/{}", "x".repeat(63))] {
        assert_eq!(Path::new(bad), None, "{bad}");
    }
}

#[test]
fn a_secret_can_be_forgotten_without_a_word() {
    let mut session = live(&[("/qubes-random-seed", "c2VlZA==")]);
    session.forget(&path("/qubes-random-seed"));
    assert_eq!(session.store().get("/qubes-random-seed"), None);
    assert!(session.outgoing().is_empty());
}

#[test]
fn neither_answers_nor_the_copy_grow_without_end() {
    let mut session = live(&[]);
    let mut taken = 0;
    while session.wants_input() {
        session.receive(&message(WRITE, "/key", "value")).unwrap();
        taken += 1;
        assert!(taken < 10_000);
    }
    assert!(session.outgoing().len() < 100_000);
    let waiting = session.outgoing().len();
    session.sent(waiting);
    events(&mut session);
    assert!(session.wants_input());

    let value = "x".repeat(DATA_MAX);
    for _ in 0..3000 {
        session.receive(&message(WRITE, "/key", &value)).unwrap();
        sent(&mut session);
        events(&mut session);
    }
    let too_large = (0..10_000).find_map(|n| {
        let outcome = session.receive(&message(WRITE, &format!("/key{n}"), &value));
        sent(&mut session);
        events(&mut session);
        outcome.err().map(|why| (n, why))
    });
    let (count, why) = too_large.unwrap();
    assert_eq!(why, ProtocolError::TooLarge);
    assert!((1000..2000).contains(&count), "{count}");
}

/// Rules that do not fit block their client, and no other, until dom0 writes others.
#[test]
fn rules_without_room_are_lost_as_a_whole_and_alone() {
    let mut session = Session::connected(20_000);
    session.receive(&message(GOT_MULTIREAD, "", "")).unwrap();
    let write = |session: &mut Session, path: &str, value: &str| {
        session.receive(&message(WRITE, path, value)).unwrap();
        sent(session);
    };
    let rules = |session: &mut Session, client: &str, count: usize| {
        session.receive(&message(RM, &format!("/qubes-firewall/{client}/"), "")).unwrap();
        write(session, &format!("/qubes-firewall/{client}/policy"), "drop");
        for n in 0..count {
            write(session, &format!("/qubes-firewall/{client}/{n:04}"), "action=accept");
        }
        write(session, &format!("/qubes-firewall/{client}"), "");
        let mut rules = events(session).into_iter().filter_map(|event| match event {
            Event::Rules(_, tree) => Some(tree.map(|tree| tree.rules.len())),
            _ => None,
        });
        rules.next_back().unwrap()
    };
    assert_eq!(rules(&mut session, "10.137.0.11", 5), Ok(5));
    assert_eq!(rules(&mut session, CLIENT, 1000), Err(TreeError::NoRoom));
    assert_eq!(rules(&mut session, "10.137.0.12", 5), Ok(5), "what was lost takes no room");
    assert_eq!(rules(&mut session, CLIENT, 5), Ok(5));
}

/// Messages of dom0 as they come in life, and what the database is after them.
fn traffic() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    let name = proptest::sample::select(vec![
        "/a",
        "/a/b",
        "/a/c",
        "/ab",
        "/d/e/f",
        MARKER,
        "/qubes-firewall/10.137.0.10/0000",
        "/qubes-firewall/10.137.0.10/policy",
    ]);
    let dir = proptest::sample::select(vec!["/a/", "/d/", "/qubes-firewall/10.137.0.10/", "/"]);
    let one = prop_oneof![
        3 => (name.clone(), "[a-z= ]{0,20}").prop_map(|(p, v)| (WRITE, p.to_owned(), v)),
        1 => name.prop_map(|p| (RM, p.to_owned(), String::new())),
        1 => dir.prop_map(|p| (RM, p.to_owned(), String::new())),
        1 => Just((OK, "/a".to_owned(), String::new())),
    ];
    proptest::collection::vec(one, 0..20)
}

proptest! {
    /// However the stream is cut, the outcome is that of whole messages, and that of a plain map.
    #[test]
    fn cuts_in_the_stream_do_not_matter(traffic in traffic(), cuts in proptest::collection::vec(1usize..200, 1..50)) {
        let stream: Vec<u8> = database(&[("/a", "1"), ("/a/b", "2")])
            .into_iter()
            .chain(traffic.iter().flat_map(|(kind, path, data)| message(*kind, path, data)))
            .collect();
        let mut whole = Session::connected(ROOM);
        whole.receive(&stream).unwrap();
        let mut pieces = Session::connected(ROOM);
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.receive(piece).unwrap();
            rest = after;
        }
        prop_assert_eq!(&pieces, &whole);

        let mut plain = BTreeMap::from([("/a", "1"), ("/a/b", "2")]);
        for (kind, path, data) in &traffic {
            match *kind {
                WRITE => drop(plain.insert(path, data)),
                RM if path.ends_with('/') => plain.retain(|key, _| !key.starts_with(path.as_str())),
                RM => drop(plain.remove(path.as_str())),
                _ => {}
            }
        }
        let kept: Vec<_> = whole.store().below("/").collect();
        let expected: Vec<_> = plain.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        prop_assert_eq!(kept, expected);
        let changes = traffic.iter().filter(|(kind, _, _)| *kind != OK).count();
        prop_assert_eq!(sent(&mut whole).len(), changes + 1);
    }

    #[test]
    fn noise_neither_panics_nor_is_answered_with_what_may_not_be_sent(
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), 0u8..14, Just(b'/')], 0..400),
    ) {
        let mut session = live(&[]);
        let _ = session.receive(&noise);
        for (kind, _, data) in sent(&mut session) {
            prop_assert_eq!(kind, OK);
            prop_assert_eq!(data, "");
        }
    }
}
