//! Qubes' dom0: QubesDB and qrexec, if they are there.
//!
//! In: XenStore events, signals, time. Out: the network and the rules dom0 keeps, told to the firewall;
//! answers to calls; lines to be said. Never: waits, or makes a frame wait for dom0.
//!
//! Nothing says "this is Qubes" but what makes it so: dom0 serves QubesDB to this domain, which stands
//! in XenStore where nobody but dom0 can write. Until it does, all of this is one watch.

mod agent;
mod calls;
mod database;
mod network;
mod policy;
mod report;
mod services;

pub(super) use network::Given;

use super::path::PathCounters;
use crate::firewall::Firewall;
use agent::Agent;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::cell::Cell;
use database::Database;
use rules::Policy;
use wire::Instant;
use xen::hypervisor::{DomId, EvtPort, Hypervisor, Memory, PortSet};
use xen::store::{Client, Event, Op, Reply, RequestId, Tag, TxId};

/// First of the XenStore tags used here; those of calls follow.
const FIRST_TAG: u32 = 0x4000_0000;
const OWN_TAG: Tag = Tag(FIRST_TAG);
const DATABASE_TAG: Tag = Tag(FIRST_TAG + 1);
const CONTROL_TAG: Tag = Tag(FIRST_TAG + 2);
const CALLS_TAG: u32 = FIRST_TAG + 16;

/// dom0.
const DOM0: DomId = DomId(0);

/// Lines that may wait to be said; what is more is lost, as with a full console.
const LINES_MAX: usize = 64;

/// What calls may look at.
pub(super) struct View<'a> {
    pub(super) firewall: &'a Firewall,
    pub(super) path: &'a PathCounters,
    /// The last lines said, made when asked for.
    pub(super) log: &'a dyn Fn() -> String,
    /// Bytes a policy may have.
    pub(super) most: usize,
    /// A policy that was brought and is to be put in force.
    pub(super) brought: &'a Cell<Option<Box<Policy>>>,
}

/// Everything that speaks with dom0's daemons.
pub(super) struct Qubes<H: Hypervisor> {
    given: Given,
    /// Memory for the database and the rules in it, in bytes.
    room: usize,
    /// Bytes a policy may have that a call brings.
    most: usize,
    brought: Cell<Option<Box<Policy>>>,
    asking: Option<RequestId>,
    database: Option<Database<H>>,
    agent: Option<Agent<H>>,
    lines: VecDeque<String>,
    /// Whether something has happened since the last turn, and when there is something to do anyway.
    awake: bool,
    due: Option<Instant>,
}

impl<H: Hypervisor> Qubes<H> {
    /// Begins to look for QubesDB. What was `given` to the firewall stays as it is; the database and
    /// its rules may take about `room` bytes, a policy that a call brings at most `most`.
    pub(super) fn start<M: Memory>(
        store: &mut Client<M>,
        given: Given,
        (room, most): (usize, usize),
    ) -> Self {
        let asking = store.submit(OWN_TAG, TxId::NONE, &Op::Read("domid")).ok();
        Self {
            given,
            room,
            most,
            brought: Cell::new(None),
            asking,
            database: None,
            agent: None,
            lines: VecDeque::new(),
            awake: false,
            due: None,
        }
    }

    /// How many rules of VMs there is room for.
    pub(super) const fn rules_max(room: usize) -> usize {
        room / 2 / database::BYTES_PER_RULE
    }

    /// Whether an event is about what is done here.
    pub(super) const fn owns(tag: Tag) -> bool {
        tag.0 >= FIRST_TAG
    }

    /// Takes such an event.
    pub(super) fn on_store<M: Memory>(&mut self, store: &mut Client<M>, event: &Event) {
        self.awake = true;
        match event {
            Event::Reply { tag: OWN_TAG, id, result } if self.asking == Some(*id) => {
                self.asking = None;
                self.begin(store, result.as_ref().ok());
            }
            Event::Reply { tag: DATABASE_TAG, .. } | Event::Watch { tag: DATABASE_TAG, .. } => {
                if let Some(database) = &mut self.database {
                    database.on_store(event);
                }
            }
            Event::Reply { .. } | Event::Watch { .. } => {
                if let Some(agent) = &mut self.agent {
                    agent.on_store(store, event);
                }
            }
            Event::Broken(_) => {}
        }
    }

    /// Adds the event channels.
    pub(super) fn events(&self, into: &mut alloc::vec::Vec<EvtPort>) {
        into.extend(self.database.as_ref().and_then(Database::event));
        self.agent.iter().for_each(|agent| agent.events(into));
    }

    /// Takes notice of signals.
    pub(super) fn wake(&mut self, pending: &PortSet) {
        let database = self.database.as_ref().and_then(Database::event);
        let agent = || self.agent.as_ref().is_some_and(|agent| agent.is_signalled(pending));
        self.awake |= database.is_some_and(|port| pending.contains(port)) || agent();
    }

    /// Whether there is something to do.
    pub(super) fn is_awake(&self, now: Instant) -> bool {
        self.awake || self.due.is_some_and(|due| due <= now)
    }

    /// When there will be something to do, if nothing happens before.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does a bounded part of what there is to do; returns whether there may be more at once.
    pub(super) fn turn<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        firewall: &mut Firewall,
        (path, log): (&PathCounters, &dyn Fn() -> String),
        now: Instant,
    ) -> bool {
        self.awake = false;
        let Some(database) = &mut self.database else { return false };
        let done = database.turn(h, store, now);
        let mut told = database.tell(firewall, &self.given, now);
        told.drain(..).for_each(|line| push(&mut self.lines, line));
        let mut due = done.due;
        let mut more = done.more || database.has_news();
        if database.is_there() && self.agent.is_none() {
            self.agent = Some(Agent::new(database.own(), CONTROL_TAG, CALLS_TAG));
        }
        if let Some(agent) = &mut self.agent {
            let view = View { firewall, path, log, most: self.most, brought: &self.brought };
            let done = agent.turn(h, store, database, &view, now);
            agent.take_lines().into_iter().for_each(|line| push(&mut self.lines, line));
            more |= done.more;
            due = [due, done.due].into_iter().flatten().min();
        }
        (self.awake, self.due) = (more, due);
        more
    }

    /// A policy that a call has brought.
    pub(super) fn take_policy(&self) -> Option<Box<Policy>> {
        self.brought.take()
    }

    /// The next line to be said.
    pub(super) fn next_line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    fn begin<M: Memory>(&mut self, store: &mut Client<M>, reply: Option<&Reply>) {
        let Some(Reply::Value(value)) = reply else { return };
        let own = core::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        if let Some(own) = own {
            self.database = Some(Database::new(store, DATABASE_TAG, DomId(own), self.room));
        }
    }
}

/// What a turn leaves.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// There may be more to do at once.
    more: bool,
    /// There will be more to do then.
    due: Option<Instant>,
}

fn push(lines: &mut VecDeque<String>, line: String) {
    if lines.len() < LINES_MAX {
        lines.push_back(line);
    }
}
