//! A client domain with one vif, as Linux' xen-netfront would drive it; on demand one that misbehaves.
//!
//! In: XenStore's and the backend's doings, and what a test asks for. Out: frames received, and what
//! Linux would have complained about. Never: forgives ([`PeerFront::fault`] says what went wrong
//! first).

mod rings;

pub use rings::{Outgoing, Received, Slots};

use super::{Sim, SimHypervisor, SimPage};
use crate::hypervisor::{DomId, EvtPort, GrantRef, Hypervisor, Memory};
use crate::netif::Status;
use crate::store::{Change, Client, Event, Found, Gather, Key, Op, Publish, Step, Tag, TxId};
use crate::xenbus::XenbusState as State;
use rings::{Rings, give_back};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;
use wire::Takes;

const WATCH: Tag = Tag(1);
const LOOK: Tag = Tag(2);
const PUBLISH: Tag = Tag(3);
const WRITE: Tag = Tag(4);

/// How a frontend behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Buffers kept posted in the RX ring.
    pub rx_buffers: u32,
    /// Reacts to the backend's state by itself. Otherwise only the test writes states.
    pub follows_backend: bool,
    /// Uses an event channel for each ring.
    pub split: bool,
    /// What is published instead of or beside what is right; `None` leaves a node out.
    pub terms: BTreeMap<String, Option<String>>,
}

impl Default for Manners {
    /// As Linux.
    fn default() -> Self {
        Self { rx_buffers: 256, follows_backend: true, split: false, terms: BTreeMap::new() }
    }
}

impl Manners {
    /// With nothing but what every frontend does: one slot a frame, no GSO, no checksum offload.
    #[must_use]
    pub fn plain(self) -> Self {
        let absent = ["feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6"];
        absent
            .iter()
            .fold(self, |manners, name| manners.with(name, None))
            .with("feature-no-csum-offload", Some("1"))
            .with("feature-ipv6-csum-offload", None)
    }

    /// With the node `name` of this value, or without it.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.terms.insert(name.to_string(), value.map(String::from));
        self
    }
}

/// A handle to the frontend; clones are handles to the same one.
#[derive(Clone)]
pub struct PeerFront(Rc<RefCell<Inner>>);

struct Inner {
    h: SimHypervisor,
    store: Client<SimPage>,
    dir: String,
    backend_dom: DomId,
    /// The backend's directory whose state is watched.
    backend: Option<String>,
    look: Option<Gather>,
    dirty: bool,
    publish: Option<Publish>,
    own: Option<State>,
    theirs: Option<State>,
    rings: Option<Rings>,
    /// What a backend still had mapped when it was to be freed.
    kept: Vec<(GrantRef, SimPage)>,
    manners: Manners,
    received: Vec<Received>,
    errors: Vec<String>,
    refused: Vec<Status>,
    broken: Option<String>,
}

impl PeerFront {
    /// Runs a frontend for `device/vif/<handle>` in `dom`, which found `store` in its start info.
    #[must_use]
    pub fn start(
        sim: &Sim,
        dom: DomId,
        store: (SimPage, EvtPort),
        backend_dom: DomId,
        handle: u32,
        manners: Manners,
    ) -> Self {
        let mut store = Client::new(store.0, store.1);
        store.submit(WATCH, TxId::NONE, &Op::Watch("device/vif")).expect("a short request");
        let inner = Inner {
            h: sim.domain(dom),
            store,
            dir: format!("device/vif/{handle}"),
            backend_dom,
            backend: None,
            look: None,
            dirty: true,
            publish: None,
            own: None,
            theirs: None,
            rings: None,
            kept: Vec::new(),
            manners,
            received: Vec::new(),
            errors: Vec::new(),
            refused: Vec::new(),
            broken: None,
        };
        let peer = Self(Rc::new(RefCell::new(inner)));
        let actor = peer.clone();
        sim.add_actor(dom, move || {
            actor.0.borrow_mut().turn();
            None
        });
        peer
    }

    /// Its own state and the backend's, as last seen.
    #[must_use]
    pub fn states(&self) -> (Option<State>, Option<State>) {
        let inner = self.0.borrow();
        (inner.own, inner.theirs)
    }

    /// Whether both ends are connected.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.borrow().is_up()
    }

    /// Puts a frame into the TX ring. Returns whether there was room and a connection.
    #[must_use]
    pub fn send(&self, frame: &Outgoing) -> bool {
        let inner = &mut *self.0.borrow_mut();
        let up = inner.is_up();
        inner.rings.as_mut().filter(|_| up).is_some_and(|rings| rings.send(&mut inner.h, frame))
    }

    /// The frames that came since the last call.
    #[must_use]
    pub fn take_received(&self) -> Vec<Received> {
        core::mem::take(&mut self.0.borrow_mut().received)
    }

    /// Why a frame or the whole device was given up, if any was, since the last call.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let inner = &mut *self.0.borrow_mut();
        let errors = core::mem::take(&mut inner.errors);
        inner.broken.clone().or_else(|| errors.into_iter().next())
    }

    /// Statuses other than OKAY that its frames were answered with, since the last call.
    #[must_use]
    pub fn take_refused(&self) -> Vec<Status> {
        core::mem::take(&mut self.0.borrow_mut().refused)
    }

    /// TX slots not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.borrow().rings.as_ref().map_or(0, Rings::in_flight)
    }

    /// Changes how many RX buffers are kept posted.
    pub fn keep_posted(&self, buffers: u32) {
        let inner = &mut *self.0.borrow_mut();
        inner.manners.rx_buffers = buffers;
        if let Some(rings) = &mut inner.rings {
            rings.rx_target = buffers;
            rings.post(&mut inner.h);
        }
    }

    /// Writes its state, whatever sense that makes.
    pub fn write_state(&self, state: State) {
        self.0.borrow_mut().write_state(state);
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, manners: Manners) {
        self.0.borrow_mut().manners = manners;
    }

    /// Writes slots to the TX ring as they are, shows them and signals if the backend asked for it.
    pub fn inject(&self, slots: &[[u8; 12]]) {
        let inner = &mut *self.0.borrow_mut();
        let rings = inner.rings.as_mut().expect("rings");
        for slot in slots {
            rings.push_tx(slot);
        }
        rings.publish_tx(&mut inner.h);
    }

    /// Writes a word of a ring page: the TX ring's is the 0th.
    pub fn scribble(&self, ring: usize, offset: usize, value: u32) {
        let inner = self.0.borrow();
        inner.rings.as_ref().expect("rings").pages()[ring].store(offset, value);
    }

    /// Signals the backend, asked or not.
    pub fn signal(&self) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(rings) = &inner.rings {
            let _ = inner.h.notify(rings.ports[0]);
        }
    }

    /// Ends the grants of all posted buffers while they stand in the RX ring.
    pub fn revoke_posted(&self) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(rings) = &mut inner.rings {
            rings.revoke_posted(&mut inner.h);
        }
    }

    /// Pages a backend has not unmapped although it should have.
    #[must_use]
    pub fn kept(&self) -> usize {
        let inner = &mut *self.0.borrow_mut();
        let kept = core::mem::take(&mut inner.kept);
        inner.kept = give_back(&mut inner.h, kept);
        inner.kept.len()
    }
}

impl Inner {
    fn is_up(&self) -> bool {
        let connected = Some(State::Connected);
        self.rings.is_some() && self.own == connected && self.theirs == connected
    }

    fn turn(&mut self) {
        let _ = self.h.take_pending();
        self.store.pump(&mut self.h);
        while let Some(event) = self.store.next_event() {
            self.on_event(&event);
            self.store.pump(&mut self.h);
        }
        self.look();
        self.store.pump(&mut self.h);
        if let Some(rings) = &mut self.rings {
            rings.turn(&mut self.h);
            self.received.append(&mut rings.received);
            self.errors.append(&mut rings.errors);
            self.refused.append(&mut rings.refused);
            if self.broken.is_none() {
                self.broken.clone_from(&rings.broken);
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Watch { .. } => self.dirty = true,
            Event::Reply { id, result, .. } => {
                if let Some(look) = &mut self.look
                    && let Step::Done(found) = look.on(*id, result)
                {
                    self.look = None;
                    let found = found.expect("readable nodes");
                    self.looked(&found);
                } else if let Some(publish) = &mut self.publish
                    && let Step::Done(_) = publish.on(&mut self.store, *id, result)
                {
                    self.publish = None;
                    self.dirty = true;
                }
            }
            Event::Broken(why) => panic!("XenStore broke: {why:?}"),
        }
    }

    fn look(&mut self) {
        if !core::mem::take(&mut self.dirty) {
            return;
        }
        if self.look.is_some() {
            self.dirty = true;
            return;
        }
        let backend = self.backend.clone().unwrap_or_else(|| "nowhere".to_string());
        let paths = [
            format!("{}/backend", self.dir),
            format!("{}/state", self.dir),
            format!("{backend}/state"),
            format!("{backend}/feature-rx-copy"),
        ];
        let keys = paths.iter().map(|path| Key::Value(path));
        let look = Gather::start(&mut self.store, LOOK, TxId::NONE, keys);
        self.look = Some(look.expect("short requests"));
    }

    fn looked(&mut self, found: &[Found]) {
        let text = |n: usize| found.get(n).and_then(Found::text).map(String::from);
        let state = |n: usize| found.get(n).and_then(Found::value).and_then(State::parse);
        self.own = state(1);
        self.theirs = state(2);
        let backend = text(0);
        if backend != self.backend {
            if let Some(old) = self.backend.take() {
                self.ask(&Op::Unwatch(&format!("{old}/state")));
            }
            if let Some(new) = &backend {
                self.ask(&Op::Watch(&format!("{new}/state")));
            }
            self.backend = backend;
            self.dirty = true;
        }
        if self.own.is_none() {
            self.tear_down();
        }
        if !self.manners.follows_backend {
            return;
        }
        match (self.own, self.theirs) {
            (Some(State::Initialising), Some(State::InitWait)) if self.publish.is_none() => {
                if text(3).as_deref() == Some("1") {
                    self.connect();
                } else {
                    self.broken = Some("backend does not support copying receive path".into());
                }
            }
            // A close of its own (state 5) ends as one of the backend's does.
            (Some(State::Connected | State::Closing), Some(State::Closing | State::Closed)) => {
                self.tear_down();
                self.write_state(State::Closed);
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        self.tear_down();
        let (buffers, split) = (self.manners.rx_buffers, self.manners.split);
        let mut rings = Rings::new(&mut self.h, self.backend_dom, buffers, split);
        let [tx, rx] = rings.refs();
        let mut nodes: BTreeMap<String, String> = [
            ("tx-ring-ref", tx.to_string()),
            ("rx-ring-ref", rx.to_string()),
            ("request-rx-copy", "1".into()),
            ("feature-rx-notify", "1".into()),
            ("feature-sg", "1".into()),
            ("feature-gso-tcpv4", "1".into()),
            ("feature-gso-tcpv6", "1".into()),
            ("feature-ipv6-csum-offload", "1".into()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        let ports = rings.ports.map(|port| port.0.to_string());
        let names: &[&str] =
            if split { &["event-channel-tx", "event-channel-rx"] } else { &["event-channel"] };
        nodes.extend(names.iter().map(|name| (*name).to_string()).zip(ports));
        for (name, value) in &self.manners.terms {
            match value {
                Some(value) => nodes.insert(name.clone(), value.clone()),
                None => nodes.remove(name),
            };
        }
        rings.takes = takes(&nodes);
        let mut changes: Vec<_> = nodes
            .into_iter()
            .map(|(name, value)| Change::write(format!("{}/{name}", self.dir), value))
            .collect();
        let state = State::Connected.as_str();
        changes.push(Change::write(format!("{}/state", self.dir), state));
        self.rings = Some(rings);
        let publish = Publish::start(&mut self.store, PUBLISH, changes);
        self.publish = Some(publish.expect("short requests"));
    }

    fn tear_down(&mut self) {
        if let Some(rings) = self.rings.take() {
            let mut kept = rings.dismantle(&mut self.h);
            self.kept.append(&mut kept);
        }
    }

    fn write_state(&mut self, state: State) {
        self.ask(&Op::Write(&format!("{}/state", self.dir), state.as_str().as_bytes()));
        self.store.pump(&mut self.h);
    }

    fn ask(&mut self, op: &Op<'_>) {
        self.store.submit(WRITE, TxId::NONE, op).expect("a short request");
    }
}

/// What `nodes` say the frontend takes.
fn takes(nodes: &BTreeMap<String, String>) -> Takes {
    let flag = |name: &str| nodes.get(name).is_some_and(|value| value == "1");
    Takes {
        sg: flag("feature-sg"),
        gso_v4: flag("feature-gso-tcpv4"),
        gso_v6: flag("feature-gso-tcpv6"),
        blank_v4: !flag("feature-no-csum-offload"),
        blank_v6: flag("feature-ipv6-csum-offload"),
    }
}
