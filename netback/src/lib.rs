//! Network interfaces for other domains: the backend end of the netif protocol and the xenbus life of
//! any number of vifs.
//!
//! In: XenStore's events, event channels, time, and the rings of hostile clients. Out: frames of
//! clients as checked pieces, frames to clients as grant copies, and notices of who came and went.
//! Never: waits; looks into a frame; lets one client's fault or one client's noise cost another
//! anything but a bounded share.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod alarm;
mod discovery;
mod entry;
pub mod life;
mod link;
mod nodes;
mod notice;
mod rx;
mod slots;
mod tx;
mod vif;

pub use link::Fault;
pub use nodes::VifId;
pub use notice::Notice;
pub use vif::Vif;

use crate::alarm::Alarm;
use crate::discovery::{Discovery, News};
use crate::entry::{Context, Entry, Fate};
use crate::notice::Notices;
use crate::slots::Slots;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use wire::{Instant, Port};
use xen::hypervisor::{EvtPort, Hypervisor, Memory, PortSet};
use xen::store::{Client, Event, Op, Tag, TxId};

/// Vifs that may have a job under way in XenStore at the same time, the others stand in line: it does one
/// thing after the other anyway, and what clients wrote is held in memory only for so many.
const JOBS_MAX: usize = 16;

/// What netback is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The slots of its ports ([`wire::PortSlot`]), and with that how many vifs there can be.
    pub slots: Range<u16>,
    /// The first XenStore tag of its own; it uses one more than it has slots.
    pub first_tag: Tag,
}

impl Config {
    /// Whether events with `tag` are netback's.
    #[must_use]
    pub const fn owns(&self, tag: Tag) -> bool {
        tag.0.wrapping_sub(self.first_tag.0)
            <= self.slots.end.saturating_sub(self.slots.start) as u32
    }
}

/// All vifs of this domain.
///
/// One turn of its owner: [`on_store`](Self::on_store) for every event, [`on_event`](Self::on_event)
/// with the pending event channels, frames through the [`vif`](Self::vif)s that are
/// [`hot`](Self::hot), [`tick`](Self::tick), and [`next_notice`](Self::next_notice) until there is
/// none.
pub struct Netback<H: Hypervisor> {
    config: Config,
    slots: Slots<H>,
    discovery: Discovery,
    notices: Notices,
    /// What vifs have to say.
    alarm: Alarm,
    /// No vif has to do anything before this by itself.
    due: Instant,
    /// Vifs with a job under way, and those that wait for one to end.
    jobs: usize,
    line: VecDeque<usize>,
    /// It was told that there is no room for another client, and none has gone since.
    full: bool,
    /// Watches to be ended for which XenStore's queue had no room yet.
    unwatch: Vec<(Tag, String)>,
}

impl<H: Hypervisor> Netback<H> {
    /// No vifs yet; the first [`tick`](Self::tick) begins to look for some.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let max = config.slots.end.saturating_sub(config.slots.start);
        Self {
            slots: Slots::new(config.slots.start, max),
            discovery: Discovery::new(config.first_tag),
            config,
            notices: Notices::default(),
            alarm: Alarm::default(),
            due: Instant::ZERO,
            jobs: 0,
            line: VecDeque::new(),
            full: false,
            unwatch: Vec::new(),
        }
    }

    /// Takes an event of XenStore. Those that are not netback's have no effect.
    pub fn on_store<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, event: &Event) {
        let (Event::Reply { tag, .. } | Event::Watch { tag, .. }) = event else { return };
        if !self.config.owns(*tag) {
            return;
        }
        if *tag == self.discovery.tag() {
            let news = match event {
                Event::Watch { path, .. } => self.discovery.on_watch(store, path),
                Event::Reply { id, result, .. } => self.discovery.on_reply(store, *id, result),
                Event::Broken(_) => News::None,
            };
            return self.on_news(h, store, news);
        }
        let at = tag.0.wrapping_sub(self.config.first_tag.0).wrapping_sub(1) as usize;
        let Some(entry) = self.slots.entry(at) else { return };
        let now = h.now();
        let mut cx = Context { h, store, now, notices: &mut self.notices };
        let worked = entry.is_working();
        match event {
            Event::Reply { id, result, .. } => entry.on_reply(&mut cx, *id, result),
            Event::Watch { .. } => entry.on_watch(&mut cx),
            Event::Broken(_) => {}
        }
        self.jobs =
            self.jobs.saturating_sub(worked.into()).saturating_add(entry.is_working().into());
        self.advance(h, store, at);
        while self.jobs < JOBS_MAX
            && let Some(next) = self.line.pop_front()
        {
            if let Some(entry) = self.slots.entry(next) {
                entry.in_line = false;
            }
            self.advance(h, store, next);
        }
    }

    /// Wakes the vifs whose event channels are pending.
    pub fn on_event(&mut self, pending: &PortSet) {
        self.slots.wake(pending);
    }

    /// Does what time demands. Returns when it wants to be called again at the latest.
    pub fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        let rescan = self.discovery.tick(store, now);
        self.unwatch
            .retain(|(tag, path)| store.submit(*tag, TxId::NONE, &Op::Unwatch(path)).is_err());
        if self.alarm.is_due(now) {
            self.slots.vifs().for_each(|vif| vif.signal_late(h, now));
        }
        if self.alarm.is_raised() || now >= self.due {
            self.due = Instant::from_nanos(u64::MAX);
            for at in self.slots.used() {
                self.advance(h, store, at);
            }
        }
        let devices = self.due.min(rescan);
        Some(self.alarm.due().map_or(devices, |signal| signal.min(devices)))
    }

    /// What happened, oldest first.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }

    /// The vif known under `port`, if it is still that one.
    pub fn vif(&mut self, port: Port) -> Option<&mut Vif<H>> {
        self.slots.vif(port)
    }

    /// The vifs whose clients may have published frames.
    pub fn hot(&mut self) -> impl Iterator<Item = Port> {
        self.slots.hot()
    }

    /// The event channels of all vifs.
    pub fn event_ports(&self) -> impl Iterator<Item = EvtPort> {
        self.slots.event_ports()
    }

    /// Fills `into` up to `most` with the event channels of vifs, to be listed when sleeping: those that
    /// were pending last if there are more. Returns whether it is all of them.
    pub fn busiest(&mut self, most: usize, into: &mut Vec<EvtPort>) -> bool {
        self.slots.busiest(most, into)
    }

    /// How many watches there are in XenStore because of netback.
    #[must_use]
    pub fn watches(&self) -> usize {
        let vifs = self.slots.entries().filter(|entry| entry.watched().is_some()).count();
        vifs.saturating_add(self.discovery.watches()).saturating_add(self.unwatch.len())
    }

    fn on_news<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, news: News) {
        match news {
            News::None => {}
            News::Problem(text) => self.notices.push(Notice::Problem { text }),
            News::Vif(id) => self.touch(h, store, id),
            News::Domain(dom) => {
                let ids: Vec<_> = self.slots.entries().map(Entry::id).collect();
                for id in ids.into_iter().filter(|id| id.dom == dom) {
                    self.touch(h, store, id);
                }
            }
            News::All(listed) => {
                let known: BTreeSet<_> = self.slots.entries().map(Entry::id).collect();
                let listed: BTreeSet<_> = listed.into_iter().collect();
                // Those that are known and there have their watches.
                for id in known.symmetric_difference(&listed) {
                    self.touch(h, store, *id);
                }
            }
        }
    }

    /// Looks at a vif, known or not.
    fn touch<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, id: VifId) {
        let at = self.slots.find(id).or_else(|| self.insert(id));
        if let Some(entry) = at.and_then(|at| self.slots.entry(at)) {
            entry.touch();
        }
        if let Some(at) = at {
            self.advance(h, store, at);
        }
    }

    fn insert(&mut self, id: VifId) -> Option<usize> {
        let (alarm, first) = (&self.alarm, self.config.first_tag.0);
        let at = self.slots.insert(id, |at, port| {
            let tag = u32::try_from(at).unwrap_or(0).wrapping_add(1).wrapping_add(first);
            Entry::new(Vif::new(port, id, alarm.clone()), Tag(tag))
        });
        if at.is_none() && !core::mem::replace(&mut self.full, true) {
            let max = self.config.slots.len();
            let text = format!("{}: no room for more than {max} clients", id.dir());
            self.notices.push(Notice::Problem { text });
        }
        at
    }

    /// Lets the vif at `at` do its next step, or stand in line for it, and cleans up if that was its
    /// last.
    fn advance<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, at: usize) {
        let now = h.now();
        let Some(entry) = self.slots.entry(at) else { return };
        let worked = entry.is_working();
        if worked || self.jobs < JOBS_MAX || entry.fate() != Fate::Stays {
            entry.advance(&mut Context { h, store, now, notices: &mut self.notices });
            self.jobs += usize::from(entry.is_working() && !worked);
        } else if !core::mem::replace(&mut entry.in_line, true) {
            self.line.push_back(at);
        }
        let (fate, id) = (entry.fate(), entry.id());
        // Who stands in line is called when it is its turn.
        if let Some(deadline) = entry.deadline()
            && !entry.in_line
        {
            self.due = self.due.min(deadline);
        }
        self.slots.list(at);
        if fate == Fate::Stays {
            return;
        }
        self.full = false;
        if let Some(gone) = self.slots.remove(at)
            && let Some(path) = gone.watched()
            && store.submit(gone.tag(), TxId::NONE, &Op::Unwatch(&path)).is_err()
        {
            self.unwatch.push((gone.tag(), path));
        }
        if fate == Fate::Reborn {
            self.touch(h, store, id);
        }
    }
}
