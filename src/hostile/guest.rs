//! The domain around the attacks: XenStore, events and time, each waited for with a deadline.
//!
//! In: the vif the toolstack gave this domain. Out: the states of both ends, read and written.
//! Never: a driver: what is written to the rings, and when, is the attack's business.

#![forbid(unsafe_code)]

use crate::frames::Net;
use crate::rings::Rings;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use wire::{Instant, Mac};
use xen::hypervisor::{DomId, EvtPort, Hypervisor};
use xen::raw::{Lent, Shared, Xen};
use xen::store::{Client, Event, Op, Reply, StoreError, Tag, TxId};
use xen::xenbus::XenbusState as State;

/// How long anything may take that the backend owes us; an emulated host is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// An event may come between the last look and the sleep: after this we look again.
const LOOK: Duration = Duration::from_millis(20);
/// Backends tell of one problem a second for each vif: attacks that are to be told keep this distance.
const APART: Duration = Duration::from_millis(1100);

const TAG: Tag = Tag(1);
const FRONT: &str = "device/vif/0";

/// What went wrong with an attack: not what it did to the backend, but that it could not be made.
pub(crate) type Wrong = String;

/// Nodes of our directory, by name.
pub(crate) type Nodes = BTreeMap<&'static str, Vec<u8>>;

/// This domain and its one vif.
pub(crate) struct Guest {
    pub(crate) xen: Xen,
    store: Client<Shared<Lent>>,
    pub(crate) net: Net,
    /// Who serves the vif.
    pub(crate) backend: DomId,
    backend_state: String,
    told: Instant,
    echoes: u16,
}

impl Guest {
    /// Learns who the backend is. `word` gives the command line's words.
    pub(crate) fn new<'a>(
        xen: Xen,
        (page, port): (Shared<Lent>, EvtPort),
        word: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, Wrong> {
        let address = |key: &str| -> Result<Ipv4Addr, Wrong> {
            let text = word(key).ok_or_else(|| format!("{key} is missing"))?;
            text.parse().map_err(|_| format!("{key}{text} is no address"))
        };
        let net = Net {
            mac: Mac::BROADCAST,
            own: address("ip=")?,
            gateway: address("gw=")?,
            server: address("to=")?,
        };
        let told = xen.now();
        let mut guest = Self {
            xen,
            store: Client::new(page, port),
            net,
            backend: DomId(0),
            backend_state: String::new(),
            told,
            echoes: 0,
        };
        let dir = guest.text("backend")?;
        let dom = guest.text("backend-id")?;
        let mac = guest.text("mac")?;
        guest.backend = DomId(dom.parse().map_err(|_| format!("backend-id is {dom:?}"))?);
        guest.net.mac = Mac::parse(&mac).ok_or_else(|| format!("mac is {mac:?}"))?;
        guest.backend_state = format!("{dir}/state");
        let watch = guest.backend_state.clone();
        guest.must(&Op::Watch(&watch))?;
        Ok(guest)
    }

    /// The port XenStore signals us by; bound by somebody else than our backend.
    pub(crate) const fn store_port(&self) -> EvtPort {
        self.store.port()
    }

    /// Waits until `done`.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool, Wrong>,
    ) -> Result<(), Wrong> {
        let deadline = self.xen.now() + PATIENCE;
        loop {
            let _pending = self.xen.take_pending();
            self.store.pump(&mut self.xen);
            if done(self)? {
                return Ok(());
            }
            let now = self.xen.now();
            if now >= deadline {
                return Err(format!("waited in vain for {what}"));
            }
            self.sleep(now + LOOK)?;
        }
    }

    /// Lets so much time pass since the last problem that the backend tells of the next.
    pub(crate) fn keep_apart(&mut self) -> Result<(), Wrong> {
        while self.xen.now() < self.told + APART {
            self.sleep(self.told + APART)?;
        }
        Ok(())
    }

    fn sleep(&mut self, until: Instant) -> Result<(), Wrong> {
        self.xen.poll(&[], Some(until)).map_err(|errno| format!("poll: {errno:?}"))
    }

    /// Ends a connection, whatever state it is in, and takes everything back.
    pub(crate) fn disconnect(&mut self, rings: Rings) -> Result<(), Wrong> {
        self.told = self.xen.now();
        self.reset()?;
        rings.close(&mut self.xen);
        Ok(())
    }

    /// Brings both ends to the start, whatever they were in.
    pub(crate) fn reset(&mut self) -> Result<(), Wrong> {
        self.set_state(State::Closed)?;
        self.wait("the backend to close", |guest| {
            // Not begun yet it has nothing to close.
            Ok(matches!(guest.theirs()?, Some(State::Closed | State::Initialising)))
        })?;
        self.set_state(State::Initialising)?;
        self.wait_for("the backend's offer", &[State::InitWait]).map(drop)
    }

    /// Publishes rings and state 4; the answer is the backend's.
    pub(crate) fn offer(&mut self, nodes: &Nodes) -> Result<(), Wrong> {
        for (name, value) in nodes {
            self.set(name, value)?;
        }
        self.set_state(State::Connected)
    }

    /// Makes rings, connects and shows that frames pass both ways.
    pub(crate) fn connect(&mut self) -> Result<Rings, Wrong> {
        self.reset()?;
        let mut rings = Rings::open(self)?;
        self.offer(&rings.nodes())?;
        self.wait_for("the backend to connect", &[State::Connected])?;
        rings.post_buffers(self)?;
        self.ping(&mut rings)?;
        Ok(rings)
    }

    /// Pings the gateway: served as every honest client is.
    pub(crate) fn ping(&mut self, rings: &mut Rings) -> Result<(), Wrong> {
        let echo = self.send_echo(rings)?;
        self.wait("an answer to a ping", |guest| {
            let frames = rings.receive();
            Ok(frames.iter().any(|frame| guest.net.is_reply(frame, echo)))
        })
    }

    /// Asks the gateway for an echo and returns which.
    pub(crate) fn send_echo(&mut self, rings: &mut Rings) -> Result<u16, Wrong> {
        self.echoes = self.echoes.wrapping_add(1);
        let frame = self.net.echo(self.echoes);
        rings.send(self, &frame)?;
        Ok(self.echoes)
    }

    /// Waits for the backend to end the connection.
    pub(crate) fn wait_down(&mut self) -> Result<(), Wrong> {
        self.wait_for("the backend to close", &[State::Closing, State::Closed])
    }

    /// Waits for the backend to take the offer or to refuse it.
    pub(crate) fn wait_taken(&mut self) -> Result<(), Wrong> {
        let states = [State::Connected, State::Closing, State::Closed];
        self.wait_for("the backend to take the offer or to refuse it", &states)
    }

    fn wait_for(&mut self, what: &str, states: &[State]) -> Result<(), Wrong> {
        self.wait(what, |guest| Ok(guest.theirs()?.is_some_and(|s| states.contains(&s))))
    }

    /// The backend's state, if it is one.
    pub(crate) fn theirs(&mut self) -> Result<Option<State>, Wrong> {
        let path = self.backend_state.clone();
        let value = self.ask(&Op::Read(&path))?;
        Ok(match value {
            Ok(Reply::Value(value)) => State::parse(&value),
            _ => None,
        })
    }

    /// Writes our state.
    pub(crate) fn set_state(&mut self, state: State) -> Result<(), Wrong> {
        self.set("state", state.as_str().as_bytes())
    }

    /// Writes a node of ours.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Wrong> {
        self.must(&Op::Write(&format!("{FRONT}/{name}"), value)).map(drop)
    }

    /// Removes a node of ours.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Wrong> {
        self.ask(&Op::Rm(&format!("{FRONT}/{name}"))).map(drop)
    }

    fn text(&mut self, name: &str) -> Result<String, Wrong> {
        match self.must(&Op::Read(&format!("{FRONT}/{name}")))? {
            Reply::Value(value) => Ok(String::from_utf8_lossy(&value).into_owned()),
            other => Err(format!("{name}: {other:?}")),
        }
    }

    fn must(&mut self, op: &Op<'_>) -> Result<Reply, Wrong> {
        self.ask(op)?.map_err(|error| format!("{op:?}: {error:?}"))
    }

    fn ask(&mut self, op: &Op<'_>) -> Result<Result<Reply, StoreError>, Wrong> {
        let asked = self.store.submit(TAG, TxId::NONE, op);
        let asked = asked.map_err(|error| format!("{op:?}: {error:?}"))?;
        let mut answer = None;
        self.wait("an answer of XenStore", |guest| {
            while let Some(event) = guest.store.next_event() {
                match event {
                    Event::Reply { id, result, .. } if id == asked => answer = Some(result),
                    Event::Broken(why) => return Err(format!("XenStore is lost: {why:?}")),
                    _ => {}
                }
            }
            Ok(answer.is_some())
        })?;
        answer.ok_or_else(|| format!("{op:?}: no answer"))
    }
}
