//! A network backend like Linux' xen-netback, in a domain of its own.
//!
//! In: what the frontend writes to XenStore and its rings, and what a test wants delivered or done
//! wrong. Out: frames the frontend sent, or why Linux would have disabled the vif
//! ([`PeerBack::complaint`]). Never: more patient than Linux.

mod rings;

pub use rings::{Received, RxSlot, Tricks};

use super::toolstack::VifSpec;
use super::xenstored::{Caller, Xenstored};
use super::{Actor, ActorId, Sim, SimHypervisor, SimMapped, SimPage};
use crate::hypervisor::{DomId, Hypervisor};
use crate::store::{Client, Event, Op, Tag, TxId};
use crate::xenbus::XenbusState as State;
use core::time::Duration;
use rings::{Rings, release};
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;
use wire::{Instant, Offload, Takes};

/// What the backend offers; a Linux bridge offers all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// feature-rx-copy.
    pub rx_copy: bool,
    /// feature-sg.
    pub sg: bool,
    /// feature-gso-tcpv4 and -tcpv6.
    pub gso: bool,
    /// No feature-no-csum-offload.
    pub ipv4_csum: bool,
    /// feature-ipv6-csum-offload.
    pub ipv6_csum: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self { rx_copy: true, sg: true, gso: true, ipv4_csum: true, ipv6_csum: true }
    }
}

impl Offers {
    /// Nothing but what every backend does.
    pub const PLAIN: Self =
        Self { rx_copy: true, sg: false, gso: false, ipv4_csum: false, ipv6_csum: false };

    const fn takes(self) -> Takes {
        let Self { sg, gso, ipv4_csum, ipv6_csum, .. } = self;
        Takes { sg, gso_v4: gso, gso_v6: gso, blank_v4: ipv4_csum, blank_v6: ipv6_csum }
    }
}

/// The backend of one vif. Clones are handles to the same one.
#[derive(Clone)]
pub struct PeerBack {
    sim: Sim,
    inner: Rc<RefCell<Inner>>,
    actor: ActorId,
}

struct Inner {
    h: SimHypervisor,
    store: Client<SimPage>,
    xs: Xenstored,
    front: DomId,
    back_dir: String,
    front_dir: String,
    rings: Option<Rings>,
    tricks: Tricks,
    offers: Offers,
    kept: Vec<SimMapped>,
    /// Why it would not connect.
    refused: Option<String>,
}

impl PeerBack {
    /// Runs a backend for `spec`, whose directories the toolstack has made. One for each backend
    /// domain at a time.
    #[must_use]
    pub fn start(sim: &Sim, xs: &Xenstored, spec: &VifSpec, offers: Offers) -> Self {
        let (page, port) = xs.introduce(spec.back);
        let mut store = Client::new(page, port);
        let state = format!("{}/state", spec.frontend());
        store.submit(Tag(0), TxId::NONE, &Op::Watch(&state)).expect("an empty queue");
        let mut inner = Inner {
            h: sim.domain(spec.back),
            store,
            xs: xs.clone(),
            front: spec.front,
            back_dir: spec.backend(),
            front_dir: spec.frontend(),
            rings: None,
            tricks: Tricks::default(),
            offers,
            kept: Vec::new(),
            refused: None,
        };
        inner.offer(offers);
        inner.store.pump(&mut inner.h);
        let inner = Rc::new(RefCell::new(inner));
        let actor = sim.add_actor(spec.back, Turn(Rc::clone(&inner)));
        Self { sim: sim.clone(), inner, actor }
    }

    /// The driver is unloaded: lets go of the rings without a word, and does nothing any more.
    pub fn stop(&self) {
        self.inner.borrow_mut().disconnect();
        self.sim.stop_actor(self.actor);
    }

    /// The driver is loaded anew: forgets its rings without a word and waits for a frontend. Rings
    /// that are still on offer are taken up where they were left, as Linux does.
    pub fn restart(&self, offers: Offers) {
        let mut inner = self.inner.borrow_mut();
        inner.disconnect();
        inner.offer(offers);
        if !inner.tricks.deaf {
            inner.frontend_changed();
        }
    }

    /// Queues a frame, as Linux would lay it out.
    pub fn send(&self, bytes: &[u8], offload: Offload) {
        self.send_slots(RxSlot::frame(bytes, offload));
    }

    /// Queues a frame slot by slot, right or wrong.
    pub fn send_slots(&self, slots: Vec<RxSlot>) {
        self.with_rings(|rings, h, tricks| {
            rings.queue.push_back(slots);
            rings.run(h, tricks);
        });
    }

    /// Frames waiting for buffers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.borrow().rings.as_ref().map_or(0, |rings| rings.queue.len())
    }

    /// Takes the frames that were sent to it.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        let mut inner = self.inner.borrow_mut();
        inner.rings.as_mut().map(|rings| core::mem::take(&mut rings.received)).unwrap_or_default()
    }

    /// What it does wrong from now on. Pages it kept go when none are to be kept any more.
    pub fn set_tricks(&self, tricks: Tricks) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        inner.tricks = tricks;
        if !(tricks.keep_tx || tricks.keep_rx || tricks.keep_rings) {
            release(&mut inner.h, core::mem::take(&mut inner.kept), false, &mut Vec::new());
            if let Some(rings) = &mut inner.rings {
                rings.let_go(&mut inner.h);
            }
        }
        if let Some(rings) = &mut inner.rings {
            rings.run(&mut inner.h, tricks);
        }
        if !tricks.deaf {
            inner.frontend_changed();
        }
    }

    /// Writes a TX response of its own invention.
    pub fn answer_tx(&self, raw: [u8; 12]) {
        self.with_rings(|rings, h, _| rings.answer_tx(h, raw));
    }

    /// Claims `by` more responses in the TX or the RX ring.
    pub fn overrun(&self, tx: bool, by: u32) {
        self.with_rings(|rings, h, _| rings.overrun(h, tx, by));
    }

    /// Writes `state` to its own node, whatever is the case.
    pub fn say(&self, state: State) {
        self.inner.borrow().write_state(state);
    }

    /// Whether it has the frontend's rings.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.borrow().rings.is_some()
    }

    /// Why Linux would have disabled the vif or refused to connect.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let inner = self.inner.borrow();
        inner.refused.clone().or_else(|| inner.rings.as_ref()?.dead.clone())
    }

    fn with_rings(&self, f: impl FnOnce(&mut Rings, &mut SimHypervisor, Tricks)) {
        let inner = &mut *self.inner.borrow_mut();
        let rings = inner.rings.as_mut().expect("a connected backend");
        f(rings, &mut inner.h, inner.tricks);
    }
}

struct Turn(Rc<RefCell<Inner>>);

impl Actor for Turn {
    fn turn(&mut self) -> Option<Instant> {
        let inner = &mut *self.0.borrow_mut();
        let _ = inner.h.take_pending();
        inner.store.pump(&mut inner.h);
        while let Some(event) = inner.store.next_event() {
            if matches!(event, Event::Watch { .. }) && !inner.tricks.deaf {
                inner.frontend_changed();
            }
        }
        let rings = inner.rings.as_mut()?;
        rings.run(&mut inner.h, inner.tricks);
        let later = inner.h.now() + Duration::from_millis(1);
        (inner.tricks.slow_tx && rings.is_behind()).then_some(later)
    }
}

impl Inner {
    /// netback_probe: what it can do, then InitWait.
    fn offer(&mut self, offers: Offers) {
        self.offers = offers;
        let flags = [
            ("feature-rx-copy", offers.rx_copy),
            ("feature-sg", offers.sg),
            ("feature-gso-tcpv4", offers.gso),
            ("feature-gso-tcpv6", offers.gso),
            ("feature-no-csum-offload", !offers.ipv4_csum),
            ("feature-ipv6-csum-offload", offers.ipv6_csum),
        ];
        for (name, on) in flags {
            self.write(name, if on { "1" } else { "0" });
        }
        self.write_state(State::InitWait);
    }

    /// frontend_changed and set_backend_state of netback's xenbus.c.
    fn frontend_changed(&mut self) {
        let Some(own) = self.state(&self.back_dir) else { return };
        match (self.state(&self.front_dir), own) {
            (Some(State::Initialising), State::InitWait) => {}
            (Some(State::Initialising), _) => {
                self.disconnect();
                self.refused = None;
                self.write_state(State::InitWait);
            }
            (Some(State::Connected), State::InitWait) => {
                self.disconnect();
                match self.connect() {
                    Ok(rings) => {
                        self.rings = Some(rings);
                        self.write_state(State::Connected);
                    }
                    // xenbus_dev_fatal.
                    Err(why) => {
                        self.refused = Some(why);
                        self.write_state(State::Closing);
                    }
                }
            }
            (Some(State::Closing), State::InitWait | State::Connected) => {
                self.disconnect();
                self.write_state(State::Closing);
            }
            // A frontend that is gone counts as closed.
            (Some(State::Closed) | None, State::Closed) => {}
            (Some(State::Closed) | None, _) => {
                self.disconnect();
                self.write_state(State::Closing);
                self.write_state(State::Closed);
            }
            _ => {}
        }
    }

    fn connect(&mut self) -> Result<Rings, String> {
        let dir = self.front_dir.clone();
        let number = |name: &str| {
            let text = self.read(&format!("{dir}/{name}")).unwrap_or_default();
            text.parse::<u32>().map_err(|_| format!("{name} is \"{text}\""))
        };
        let refs = [number("tx-ring-ref")?, number("rx-ring-ref")?, number("event-channel")?];
        if number("request-rx-copy") != Ok(1) {
            return Err("the frontend does not request rx-copy".into());
        }
        Rings::connect(&mut self.h, self.front, refs, self.offers.takes())
    }

    fn disconnect(&mut self) {
        if let Some(rings) = self.rings.take() {
            self.kept.extend(rings.disconnect(&mut self.h, self.tricks));
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        let who = Caller::Domain(self.h.dom());
        let value = self.xs.with(|s| s.read(who, None, path)).ok()?;
        String::from_utf8(value).ok()
    }

    fn state(&self, dir: &str) -> Option<State> {
        State::parse(self.read(&format!("{dir}/state"))?.as_bytes())
    }

    /// To a directory that may be gone.
    fn write(&self, name: &str, value: &str) {
        let path = format!("{}/{name}", self.back_dir);
        let who = Caller::Domain(self.h.dom());
        let _ = self.xs.with(|s| s.write(who, None, &path, value.as_bytes()));
    }

    fn write_state(&self, state: State) {
        self.write("state", state.as_str());
    }
}
