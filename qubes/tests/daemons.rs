//! Our ends of the streams against daemons that die where dom0's die.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use daemons::{Daemon, Qrexec, QubesDb};
use proptest::prelude::*;
use qubes::qrexec::{Call, Command, Control, FrameError, Ident, Order};
use qubes::{Event, Path, Session};

/// What both ends of ours have in common here.
trait Ours {
    fn outgoing(&self) -> Vec<u8>;
    fn sent(&mut self, count: usize);
    fn receive(&mut self, bytes: &[u8]);
}

macro_rules! ours {
    ($($type:ty),*) => {$(
        impl Ours for $type {
            fn outgoing(&self) -> Vec<u8> {
                <$type>::outgoing(self).to_vec()
            }
            fn sent(&mut self, count: usize) {
                <$type>::sent(self, count);
            }
            fn receive(&mut self, bytes: &[u8]) {
                <$type>::receive(self, bytes).unwrap();
            }
        }
    )*};
}

ours!(Session, Control, Call);

/// Moves bytes both ways, `step` at a time, until none is left.
fn pump(ours: &mut impl Ours, daemon: &mut impl Daemon, step: usize) {
    loop {
        let (out, back) = (ours.outgoing(), daemon.outgoing().to_vec());
        if out.is_empty() && back.is_empty() {
            return;
        }
        let (out, back) = (&out[..out.len().min(step)], &back[..back.len().min(step)]);
        ours.sent(out.len());
        daemon.sent(back.len());
        daemon.receive(out).unwrap();
        ours.receive(back);
    }
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

#[test]
fn a_session_reads_everything_and_follows_every_change() {
    for step in [1, 7, 72, 4096] {
        let mut daemon = QubesDb::new(&[("/name", "fw"), ("/qubes-ip", "10.137.0.7")]);
        let mut session = Session::connected(1 << 20);
        pump(&mut session, &mut daemon, step);
        assert!(daemon.is_live());
        assert_eq!(session.store().get("/qubes-ip"), Some(&b"10.137.0.7"[..]));
        assert_eq!(events(&mut session), [Event::Synced]);
        daemon.set_rules("10.137.0.10", "drop", &[(0, "action=accept"), (7, "action=drop")]);
        daemon.remove("/nothing");
        pump(&mut session, &mut daemon, step);
        assert_eq!(daemon.acknowledged(), 4, "each change is acknowledged");
        let rules = events(&mut session).into_iter().find_map(|event| match event {
            Event::Rules(client, tree) => Some((client.to_string(), tree.unwrap().rules.len())),
            _ => None,
        });
        assert_eq!(rules, Some(("10.137.0.10".into(), 2)));
        session.write(&Path::new("/qubes-firewall-handled/10.137.0.10").unwrap(), b"1").unwrap();
        pump(&mut session, &mut daemon, step);
        assert_eq!(daemon.get("/qubes-firewall-handled/10.137.0.10"), Some("1"));
        daemon.disconnected();
        let mut session = session.reconnected();
        pump(&mut session, &mut daemon, step);
        assert_eq!(session.store().get("/name"), Some(&b"fw"[..]));
    }
}

fn greeted(step: usize) -> (Control, Qrexec) {
    let (mut control, mut daemon) = (Control::new(), Qrexec::default());
    daemon.connected();
    pump(&mut control, &mut daemon, step);
    assert!(control.is_greeted() && daemon.is_greeted());
    (control, daemon)
}

#[test]
fn a_call_is_ordered_served_and_over() {
    for step in [1, 5, 4096] {
        let (mut control, mut daemon) = greeted(step);
        let port = daemon.exec("user:QUBESRPC tidegate.Status+all dom0");
        pump(&mut control, &mut daemon, step);
        let Some(Order::Run { domain: 0, port: told, command }) = control.next_order() else {
            panic!("no order")
        };
        let (name, argument) = ("tidegate.Status".into(), "all".into());
        assert_eq!(command, Command::Service { name, argument, source: "dom0".into() });
        assert_eq!(told, port);
        let (mut call, mut caller) = (Call::serving(), daemons::Call::caller(b"input"));
        caller.connected();
        pump(&mut call, &mut caller, step);
        assert_eq!((call.take_input(), call.input_ended()), (b"input".to_vec(), true));
        assert!(!call.is_over());
        call.print(&[b'x'; 100_000]);
        call.exit(127);
        pump(&mut call, &mut caller, step);
        assert!(call.is_over());
        let outcome = caller.outcome();
        assert_eq!((outcome.output.len(), outcome.ended, outcome.exit), (100_000, true, Some(127)));
        control.terminated(0, port);
        pump(&mut control, &mut daemon, step);
        assert_eq!(daemon.open_calls(), 0);
    }
}

#[test]
fn a_request_of_ours_is_served_or_refused() {
    let (mut control, mut daemon) = greeted(4096);
    let [one, two] = [1, 2].map(Ident::numbered);
    assert!(control.request("dom0", "qubes.FeaturesRequest", one));
    assert!(control.request("@default", "qubes.GetDate", two));
    pump(&mut control, &mut daemon, 4096);
    let asked = daemon.take_asked();
    assert_eq!((&*asked[0].target, &*asked[0].service), ("dom0", "qubes.FeaturesRequest"));
    daemon.connect(&asked[0], 0, 514);
    daemon.refuse(&asked[1]);
    pump(&mut control, &mut daemon, 4096);
    assert_eq!(control.next_order(), Some(Order::Connect { ident: one, domain: 0, port: 514 }));
    assert_eq!(control.next_order(), Some(Order::Refused(two)));
    let (mut call, mut server) = (Call::calling(b"question"), daemons::Call::server(b"answer"));
    server.connected();
    pump(&mut call, &mut server, 3);
    assert_eq!(server.outcome().output, b"question");
    assert_eq!(
        (call.take_input(), call.exit_code(), call.is_over()),
        (b"answer".to_vec(), Some(0), true)
    );
}

#[test]
fn what_the_daemon_would_not_take_is_not_sent() {
    let mut early = Control::new();
    assert!(!early.request("dom0", "qubes.FeaturesRequest", Ident::numbered(1)), "not greeted");
    let (mut control, _) = greeted(4096);
    let long = "x".repeat(65);
    for (target, service) in
        [("", "a"), (&long, "a"), ("dom0", ""), ("dom0", "+a"), ("dom0", &long), ("dom0", "a b")]
    {
        assert!(!control.request(target, service, Ident::numbered(1)), "{target:?} {service:?}");
    }
    assert!(control.outgoing().is_empty());
}

#[test]
fn a_daemon_that_speaks_nonsense_is_told_apart() {
    let bytes = |kind: u32, len: u32| [kind.to_le_bytes(), len.to_le_bytes()].concat();
    let hello = |version: u32| [bytes(0x300, 4), version.to_le_bytes().to_vec()].concat();
    for (bytes, error) in [
        (bytes(0x200, 65537), FrameError::TooLong(65537)),
        (hello(2), FrameError::Version(2)),
        (bytes(0x203, 0), FrameError::Unexpected(0x203)),
        ([hello(3), hello(3)].concat(), FrameError::Unexpected(0x300)),
        ([hello(9), bytes(0x213, 0)].concat(), FrameError::Unexpected(0x213)),
        ([hello(3), bytes(0x200, 0)].concat(), FrameError::Unexpected(0x200)),
    ] {
        assert_eq!(Control::new().receive(&bytes), Err(error));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_any_end_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let hello = [0x300_u32, 4, 3].map(u32::to_le_bytes).concat();
        let bytes = [hello, bytes].concat();
        let _ = Control::new().receive(&bytes);
        let _ = Call::serving().receive(&bytes);
        let _ = Call::calling(b"x").receive(&bytes);
    }
}
