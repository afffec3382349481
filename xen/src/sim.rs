//! A Xen in memory: several domains, their pages, grants and event channels, and virtual time.
//!
//! In: what domains do through [`SimHypervisor`], and faults and hostile changes a test asks for. Out:
//! the statuses and effects of real Xen, as the conformance table states them, and counters. Never:
//! real time or real randomness: a run is repeated by its seed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "runs in tests only, where a wrong use is to stop at once"
)]

mod actors;
mod copy;
mod events;
mod grants;
mod hypervisor;
mod labels;
mod memory;
pub mod peer_back;
pub mod peer_front;
pub mod peer_vchan;
pub mod toolstack;
mod witness;
pub mod xenstored;

pub use actors::{Actor, ActorId};
pub use hypervisor::SimHypervisor;
pub use labels::{Exposure, Label};
pub use memory::{SimMapped, SimPage, SimPrivate, Touch, TouchKind};
pub use witness::Witness;

use crate::hypervisor::{CopyOp, DomId, EvtPort, FrameNo, GrantStatus, Shutdown};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;
use wire::Instant;

/// A simulated machine. Clones are handles to the same one.
#[derive(Clone)]
pub struct Sim {
    world: Rc<World>,
}

/// What a domain asked of Xen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Hypercalls of any kind. Creating and ending a grant is none.
    pub hypercalls: u64,
    /// Hypercalls that copied.
    pub copies: u64,
    /// Operations in them.
    pub copy_ops: u64,
    /// Bytes they copied.
    pub copied_bytes: u64,
    /// Bytes it moved itself between its private memory and a page.
    pub moved_bytes: u64,
    /// Signals sent.
    pub notifies: u64,
    /// Signals sent while the port was still pending at the other end: they told nothing new.
    pub merged_notifies: u64,
    /// Signals that others sent to it.
    pub signalled: u64,
    /// Times it went to sleep, or would have.
    pub polls: u64,
    /// Grants created.
    pub grants: u64,
    /// Grants ended.
    pub ends: u64,
    /// Pages of others mapped.
    pub maps: u64,
    /// Pages of others unmapped.
    pub unmaps: u64,
}

/// What a domain holds now. A domain that has cleaned up holds what it held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Pages, lent or not.
    pub pages: usize,
    /// Grants in force.
    pub grants: usize,
    /// Pages of others that are mapped.
    pub mapped: usize,
    /// Event channel ports.
    pub ports: usize,
    /// Pages of private memory, which no domain gives back.
    pub private: usize,
}

/// How a domain went to sleep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// The ports it listed.
    pub ports: Vec<EvtPort>,
    /// When it wants to be woken at the latest.
    pub until: Option<Instant>,
}

/// Whose code runs: told to who counts what a domain's own code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bracket {
    /// The domain's turn begins.
    Turn,
    /// It ends.
    EndOfTurn,
    /// In its turn or not, it has called the simulation.
    Call,
    /// The call returns.
    EndOfCall,
}

pub(crate) type TouchHook = Box<dyn FnMut(&Touch, &mut [u8])>;
pub(crate) type CopyHook = Box<dyn FnMut(DomId, &CopyOp) -> Option<GrantStatus>>;
pub(crate) type ExposureHook = Box<dyn FnMut(&Exposure<'_>)>;
pub(crate) type BracketHook = (DomId, fn(Bracket));

pub(crate) struct World {
    state: RefCell<State>,
    privates: RefCell<labels::Privates>,
    actors: RefCell<Vec<actors::Slot>>,
    running: Cell<bool>,
    on_touch: RefCell<Option<TouchHook>>,
    on_copy: RefCell<Option<CopyHook>>,
    on_exposure: RefCell<Option<ExposureHook>>,
    on_bracket: Cell<Option<BracketHook>>,
}

struct State {
    now: Instant,
    rng: u64,
    frames: BTreeMap<FrameNo, memory::Frame>,
    next_frame: u64,
    domains: BTreeMap<DomId, Domain>,
    labels: bool,
}

#[derive(Default)]
struct Domain {
    grants: grants::Table,
    events: events::Table,
    mapped: usize,
    pages: usize,
    private: usize,
    last_poll: Poll,
    pages_max: Option<usize>,
    counters: Counters,
    shutdown: Option<Shutdown>,
}

impl Sim {
    /// An empty machine; `seed` decides the order in which domains take turns.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: Instant::from_secs(1),
            rng: seed,
            frames: BTreeMap::new(),
            next_frame: 0x1000,
            domains: BTreeMap::new(),
            labels: false,
        };
        Self {
            world: Rc::new(World {
                state: RefCell::new(state),
                privates: RefCell::default(),
                actors: RefCell::default(),
                running: Cell::new(false),
                on_touch: RefCell::default(),
                on_copy: RefCell::default(),
                on_exposure: RefCell::default(),
                on_bracket: Cell::default(),
            }),
        }
    }

    /// Xen as domain `dom` sees it; creates the domain if it is new.
    #[must_use]
    pub fn domain(&self, dom: DomId) -> SimHypervisor {
        self.world.state.borrow_mut().domains.entry(dom).or_default();
        SimHypervisor::new(self.clone(), dom)
    }

    /// Destroys a domain as Xen does: its ports close, its mappings go, its grants and pages are no
    /// more (pages that others map stay until they unmap them). Its actors take no more turns.
    pub fn destroy(&self, dom: DomId) {
        self.stop_actors(dom);
        let mut state = self.world.state.borrow_mut();
        let state = &mut *state;
        for port in events::ports(state, dom) {
            events::close(state, dom, port);
        }
        for frame in state.frames.values_mut() {
            frame.mappers.retain(|(mapper, _, _)| *mapper != dom);
        }
        for other in state.domains.values_mut() {
            other.grants.forget_mapper(dom);
        }
        state.domains.remove(&dom);
        state.frames.retain(|_, frame| frame.owner != dom || !frame.mappers.is_empty());
        for frame in state.frames.values_mut().filter(|frame| frame.owner == dom) {
            frame.lent_to.clear();
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.world.state.borrow().now
    }

    /// What `dom` asked of Xen so far.
    #[must_use]
    pub fn counters(&self, dom: DomId) -> Counters {
        self.world.state.borrow().domains.get(&dom).map(|d| d.counters).unwrap_or_default()
    }

    /// What `dom` holds now.
    #[must_use]
    pub fn holdings(&self, dom: DomId) -> Holdings {
        let state = self.world.state.borrow();
        state.domains.get(&dom).map_or_else(Holdings::default, |d| Holdings {
            pages: d.pages,
            grants: d.grants.in_force(),
            mapped: d.mapped,
            ports: d.events.len(),
            private: d.private,
        })
    }

    /// How `dom` went to sleep last. An actor that polls is not put to sleep: it returns `until`.
    #[must_use]
    pub fn last_poll(&self, dom: DomId) -> Poll {
        self.with_domain(dom, |d| d.last_poll.clone())
    }

    /// Calls `hook` whenever the code of `dom` begins or ends to run, by the turns of its actor.
    pub fn on_bracket(&self, dom: DomId, hook: fn(Bracket)) {
        self.world.on_bracket.set(Some((dom, hook)));
    }

    pub(crate) fn bracket(&self, dom: DomId, bracket: Bracket) {
        if let Some((watched, hook)) = self.world.on_bracket.get()
            && watched == dom
        {
            hook(bracket);
        }
    }

    /// Why `dom` has shut itself down, if it has.
    #[must_use]
    pub fn shutdown_of(&self, dom: DomId) -> Option<Shutdown> {
        self.world.state.borrow().domains.get(&dom).and_then(|d| d.shutdown)
    }

    /// Calls `hook` before every access to a page that is lent: there another domain may have changed
    /// it in the meantime, and the hook is that domain.
    pub fn on_touch(&self, hook: impl FnMut(&Touch, &mut [u8]) + 'static) {
        *self.world.on_touch.borrow_mut() = Some(Box::new(hook));
    }

    /// Asks `fault` before every copy operation; if it names a status, the operation has no effect.
    pub fn on_copy(&self, fault: impl FnMut(DomId, &CopyOp) -> Option<GrantStatus> + 'static) {
        *self.world.on_copy.borrow_mut() = Some(Box::new(fault));
    }

    /// From now on `dom` may have at most `pages` pages; more is `NoMemory`.
    pub fn limit_pages(&self, dom: DomId, pages: usize) {
        self.with_domain(dom, |d| d.pages_max = Some(pages));
    }

    /// From now on `dom` may have at most `grants` grants in force; more is `NoRef`.
    pub fn limit_grants(&self, dom: DomId, grants: usize) {
        self.with_domain(dom, |d| d.grants.limit(grants));
    }

    /// Signals a port of `dom` out of nowhere, as a peer may at any time.
    pub fn raise(&self, dom: DomId, port: EvtPort) {
        events::raise(&mut self.world.state.borrow_mut(), dom, port.0);
    }

    /// A number below `below` from the seed.
    pub fn random(&self, below: u64) -> u64 {
        self.world.state.borrow_mut().random() % below.max(1)
    }

    fn with_domain<T>(&self, dom: DomId, f: impl FnOnce(&mut Domain) -> T) -> T {
        f(self.world.state.borrow_mut().domains.entry(dom).or_default())
    }
}

impl State {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
