//! A XenStore daemon: the wire protocol on ring pages for domains, plain calls for the toolstack.
//!
//! It answers as C xenstored 4.17 does, errors and quotas included.

mod connection;
mod store;
mod tree;

pub use store::{Caller, Quotas, Store, TransactionId};
pub use tree::VALUE_MAX;

use super::{Actor, Sim, SimHypervisor, SimPage};
use crate::hypervisor::{DomId, EvtPort, Hypervisor};
use connection::Connection;
use core::time::Duration;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use wire::Instant;

/// The domain the daemon runs in; nothing else may take events there.
pub const STORE_DOM: DomId = DomId(0);

/// A XenStore daemon in [`STORE_DOM`]. Clones are handles to the same one.
#[derive(Clone)]
pub struct Xenstored {
    sim: Sim,
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    h: SimHypervisor,
    store: Store,
    connections: BTreeMap<DomId, Connection>,
    stalled: bool,
    /// What was pending in the daemon's domain and is not its own.
    signals: BTreeSet<EvtPort>,
    /// Time it takes for a message; none if it is infinitely fast.
    pace: Duration,
    busy_until: Instant,
}

impl Xenstored {
    /// Starts a daemon with an empty tree.
    #[must_use]
    pub fn new(sim: &Sim) -> Self {
        let inner = Rc::new(RefCell::new(Inner {
            h: sim.domain(STORE_DOM),
            store: Store::default(),
            connections: BTreeMap::new(),
            stalled: false,
            signals: BTreeSet::new(),
            pace: Duration::ZERO,
            busy_until: Instant::ZERO,
        }));
        sim.add_actor(STORE_DOM, Daemon(Rc::clone(&inner)));
        Self { sim: sim.clone(), inner }
    }

    /// Makes a domain known and returns the ring page and port it finds in its start info. Makes its
    /// home `/local/domain/<dom>`, as the toolstack does. The ring's indices start somewhere.
    #[must_use]
    pub fn introduce(&self, dom: DomId) -> (SimPage, EvtPort) {
        let mut guest = self.sim.domain(dom);
        let mut inner = self.inner.borrow_mut();
        let page = guest.page().expect("a page for XenStore");
        let start = u32::MAX.wrapping_sub(u32::try_from(self.sim.random(2000)).unwrap_or(0));
        let port = guest.alloc_unbound(STORE_DOM).expect("a port for XenStore");
        let ours = inner.h.bind_interdomain(dom, port.0).expect("the guest's offer");
        let view = self.sim.page_at(dom, crate::hypervisor::Page::frame(&page));
        inner.connections.insert(dom, Connection::new(view, ours, start));
        inner.store.make_home(dom);
        (page, port)
    }

    /// Forgets a domain that is gone: its watches and transactions, not its nodes.
    pub fn release(&self, dom: DomId) {
        let mut inner = self.inner.borrow_mut();
        inner.connections.remove(&dom);
        inner.store.reset(Caller::Domain(dom));
    }

    /// The tree, as the toolstack changes it.
    pub fn with<T>(&self, f: impl FnOnce(&mut Store) -> T) -> T {
        let result = f(&mut self.inner.borrow_mut().store);
        self.sim.raise(STORE_DOM, EvtPort(0));
        result
    }

    /// Whether `who` has a watch event waiting. Not to be asked from within [`with`](Self::with).
    #[must_use]
    pub fn has_event(&self, who: Caller) -> bool {
        self.inner.try_borrow().is_ok_and(|inner| inner.store.has_event(who))
    }

    /// Whether somebody signalled `port` of [`STORE_DOM`], for who else runs there.
    #[must_use]
    pub fn is_signalled(&self, port: EvtPort) -> bool {
        self.inner.try_borrow().is_ok_and(|inner| inner.signals.contains(&port))
    }

    /// The same, and takes the signal.
    pub fn take_signal(&self, port: EvtPort) -> bool {
        self.inner.borrow_mut().signals.remove(&port)
    }

    /// The value of a node as text, for a test to look at.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<std::string::String> {
        // Looking wakes nobody: a condition awaited may be looked at over and over.
        let value = self.inner.borrow_mut().store.read(Caller::Toolstack, None, path).ok()?;
        std::string::String::from_utf8(value).ok()
    }

    /// Sets a node as the toolstack, its permissions inherited.
    pub fn set(&self, path: &str, value: &str) {
        self.with(|s| s.write(Caller::Toolstack, None, path, value.as_bytes()))
            .expect("the toolstack may write anything");
    }

    /// Removes a node as the toolstack.
    pub fn remove(&self, path: &str) {
        let _ = self.with(|s| s.remove(Caller::Toolstack, None, path));
    }

    /// While stalled, the daemon neither reads nor answers.
    pub fn stall(&self, stalled: bool) {
        self.inner.borrow_mut().stalled = stalled;
        self.sim.raise(STORE_DOM, EvtPort(0));
    }

    /// From now on it takes this long for each message, in or out, and serves its connections in turns.
    pub fn set_pace(&self, pace: Duration) {
        self.inner.borrow_mut().pace = pace;
    }

    /// From now on domains may have so much.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.inner.borrow_mut().store.set_quotas(quotas);
    }

    /// The next `n` commits of domains collide with somebody else's change.
    pub fn collide(&self, n: u32) {
        self.inner.borrow_mut().store.collide(n);
    }
}

struct Daemon(Rc<RefCell<Inner>>);

impl Actor for Daemon {
    fn turn(&mut self) -> Option<Instant> {
        let inner = &mut *self.0.borrow_mut();
        let pending = inner.h.take_pending();
        inner.signals.extend(pending.iter());
        if inner.stalled {
            return None;
        }
        if inner.pace != Duration::ZERO {
            return inner.step();
        }
        // Every request may have made events for every connection.
        loop {
            let mut any = false;
            for (dom, connection) in &mut inner.connections {
                any |= connection.serve(*dom, &mut inner.store, &mut inner.h);
            }
            if !any {
                return None;
            }
        }
    }
}

impl Inner {
    /// One message for each connection that has one, if those before have taken their time.
    fn step(&mut self) -> Option<Instant> {
        let now = self.h.now();
        if now >= self.busy_until {
            let mut messages = 0;
            for (dom, connection) in &mut self.connections {
                messages += u32::from(connection.serve_one(*dom, &mut self.store, &mut self.h));
            }
            self.busy_until = now + self.pace * messages;
        }
        (self.busy_until > now).then_some(self.busy_until)
    }
}
