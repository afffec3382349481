//! The appliance: the devices, XenStore, the console and the firewall in one loop.
//!
//! In: a hypervisor and what the toolstack gave the domain. Out: frames forwarded, a log on the
//! console, and in the end why the domain ends. Never: waits for anybody but in [`Hypervisor::poll`],
//! with everything done that could be done.

mod ask;
mod begin;
mod blobs;
mod brake;
mod budget;
mod control;
pub mod delivery;
mod egress;
mod memory;
mod path;
mod ports;
mod qubes;
mod share;
mod voice;

pub use begin::{Refused, begin};
pub use blobs::Blobs;
pub use path::PathCounters;

use crate::firewall::{Firewall, Link};
use alloc::string::String;
use alloc::vec::Vec;
use begin::{Missing, Summary};
use control::{Control, Found};
use core::fmt;
use delivery::{Delivery, News};
use path::{Path, Turn};
use ports::Ports;
use qubes::Qubes;
use rules::{Policy, Zone};
use voice::Voice;
use wire::{Instant, Port, Uplink};
use xen::hypervisor::{EvtPort, Hypervisor, Memory, PortSet, Shutdown};
use xen::store::{Client, Event, Tag};

const CONTROL_TAG: Tag = Tag(0);
/// Above those of devices.
const DELIVERY_TAG: Tag = Tag(0x3fff_ffff);

/// Event channels SCHEDOP_poll takes at once.
const POLL_MAX: usize = 128;

/// How long to sleep at most when there are more event channels than can be listed: one that becomes
/// pending between the last look and the sleep would not wake us. The busiest are listed, so that this
/// is the delay of a frame on a vif that was silent for long.
const BLIND_SLEEP: core::time::Duration = core::time::Duration::from_millis(10);

/// How long after the start the uplink may be missing before that is said.
const UPLINK_PATIENCE: core::time::Duration = core::time::Duration::from_secs(5);

/// XenStore events served before the packet path has its turn again.
const EVENTS_A_TURN: usize = 64;

/// Lines of the firewall's log written in one turn.
const LINES_A_TURN: usize = 16;

/// What one round of work left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// There may be more: work again at once.
    Busy,
    /// Everything is done until an event comes, or this time.
    Idle(Option<Instant>),
    /// The domain is to end.
    End(Shutdown),
}

/// All of Tidegate but its boot.
pub struct Appliance<H: Hypervisor, M: Memory> {
    h: H,
    store: Client<M>,
    console: Voice<M>,
    ports: Ports<H>,
    path: Path<H>,
    firewall: Firewall,
    control: Control,
    delivery: Delivery,
    qubes: Qubes<H>,
    /// Uplinks that were not up yet, and when to say so.
    awaited: (Instant, Vec<Uplink>),
    hot: Vec<Port>,
    listed: Vec<EvtPort>,
}

impl<H: Hypervisor, M: Memory> Appliance<H, M> {
    /// Works until the domain is told to end.
    pub fn run(mut self) -> Shutdown {
        loop {
            match self.work() {
                Work::Busy => {}
                Work::Idle(until) => self.sleep(until),
                Work::End(why) => {
                    self.h.shutdown(why);
                    return why;
                }
            }
        }
    }

    /// One round: events, frames, time, news, log.
    pub fn work(&mut self) -> Work {
        let pending = self.h.take_pending();
        // One look at the clock a round: where Xen emulates it, it costs as much as a frame.
        let now = self.h.now();
        self.wake(&pending);
        let events = self.serve_store(now);
        let qubes = self.serve_qubes(now);
        let turn = self.forward(now);
        let until = self.tick(now);
        let news = self.tell_news(now);
        let lines = self.write_log();
        if self.store.has_work() {
            self.store.pump(&mut self.h);
        }
        if let Some(why) = self.control.due(now) {
            self.say(format_args!("ending: {why:?}"));
            return Work::End(why);
        }
        // A ring that was found empty signals the next frame, and poll does not sleep over a signal
        // that has come since: no second look is needed.
        if turn.more || events || news || lines || qubes { Work::Busy } else { Work::Idle(until) }
    }

    /// Sleeps until something is pending or `until` has come.
    pub fn sleep(&mut self, until: Option<Instant>) {
        self.listed.clear();
        self.listed.push(self.store.port());
        self.qubes.events(&mut self.listed);
        let all = self.ports.events(POLL_MAX, &mut self.listed);
        let until = if all {
            until
        } else {
            let soon = self.h.now() + BLIND_SLEEP;
            Some(until.map_or(soon, |until| until.min(soon)))
        };
        if let Err(error) = self.h.poll(&self.listed, until) {
            // Without poll the loop would spin; it still works, and says so once a round.
            self.say(format_args!("poll failed: {error:?}"));
        }
    }

    /// The hypervisor, for those who drive it from outside.
    pub const fn hypervisor(&mut self) -> &mut H {
        &mut self.h
    }

    /// What the packet path counted.
    pub const fn counters(&self) -> &PathCounters {
        &self.path.counters
    }

    fn wake(&mut self, pending: &PortSet) {
        if !pending.is_empty() {
            self.ports.on_event(&mut self.h, pending);
            self.qubes.wake(pending);
        }
        if pending.contains(self.store.port()) {
            self.store.pump(&mut self.h);
        }
    }

    /// Returns whether events may be left.
    fn serve_store(&mut self, now: Instant) -> bool {
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.store.next_event() else { return false };
            match &event {
                Event::Reply { tag, .. } | Event::Watch { tag, .. } if *tag == CONTROL_TAG => {
                    match self.control.on_store(now, &mut self.store, &event) {
                        Some(Found::Ignored(what)) => {
                            self.say(format_args!("control/shutdown: ignoring {what:?}"));
                        }
                        Some(Found::Refused(path, error)) => {
                            self.say(format_args!("{path}: XenStore refuses: {}", error.name()));
                        }
                        None => {}
                    }
                }
                Event::Reply { tag, .. } | Event::Watch { tag, .. } if Qubes::<H>::owns(*tag) => {
                    self.qubes.on_store(&mut self.store, &event);
                }
                Event::Reply { tag, .. } | Event::Watch { tag, .. } if *tag == DELIVERY_TAG => {
                    if let Some(news) = self.delivery.on_store(&mut self.store, &event) {
                        self.receive(news);
                    }
                }
                Event::Broken(why) => self.say(format_args!("XenStore is lost: {why:?}")),
                Event::Reply { .. } | Event::Watch { .. } => {
                    self.ports.on_store(&mut self.h, &mut self.store, &event);
                }
            }
        }
        true
    }

    /// Puts a policy in force that dom0 has sent.
    fn receive(&mut self, news: News) {
        match news {
            News::Arrived(policy) => {
                self.say(format_args!("{} (loaded)", Summary(&policy)));
                self.firewall.set_policy(Some(*policy));
                self.say_missing();
                self.delivery.answer(&mut self.store, self.firewall.policy());
            }
            News::Line(line) => self.say(format_args!("{line}")),
        }
    }

    /// Says of which uplinks the policy speaks that are none.
    fn say_missing(&mut self) {
        for uplink in self.firewall.missing_uplinks() {
            self.console.say(&mut self.h, format_args!("{}", Missing(uplink)));
        }
    }

    fn forward(&mut self, now: Instant) -> Turn {
        self.ports.hot(&mut self.hot);
        self.path.turn(&mut self.h, &mut self.ports, &mut self.firewall, now, &self.hot)
    }

    /// Does what is due; returns when next there will be.
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        let devices = self.ports.tick(&mut self.h, &mut self.store, now);
        let firewall = self.path.tick(&mut self.h, &mut self.ports, &mut self.firewall, now);
        let awaited = self.say_awaited(now);
        [devices, firewall, awaited, self.qubes.due()].into_iter().flatten().min()
    }

    /// Says which uplinks have not come for long; returns when to.
    fn say_awaited(&mut self, now: Instant) -> Option<Instant> {
        let (due, awaited) = &mut self.awaited;
        if *due > now {
            return Some(*due).filter(|_| !awaited.is_empty());
        }
        for uplink in core::mem::take(awaited) {
            let (zone, number) = (Zone::Uplink(uplink), uplink.number());
            match uplink {
                Uplink::FIRST => self
                    .say(format_args!("no {zone}: no vif under device/vif is connected; waiting")),
                _ => self
                    .say(format_args!("no {zone}: device/vif/{number} is not connected; waiting")),
            }
        }
        None
    }

    /// Tells the firewall who came and went, and the console as well. Returns whether anybody did:
    /// there may be frames by then.
    fn tell_news(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((uplink, notice)) = self.ports.next_uplink_notice() {
            any = true;
            let zone = Zone::Uplink(uplink);
            match notice {
                netfront::Notice::Up { port, mac, mtu, backend } => {
                    self.awaited.1.retain(|awaited| *awaited != uplink);
                    let link = Link::Uplink { uplink, mac, mtu, network: backend.0 };
                    self.firewall.port_up(now, port, link);
                    self.say(format_args!("{zone} up: {backend}, {mac}, mtu {mtu}"));
                }
                netfront::Notice::Down { port } => {
                    self.firewall.port_down(now, port);
                    self.say(format_args!("{zone} down"));
                }
                netfront::Notice::Problem { text } => self.say(format_args!("{zone}: {text}")),
            }
        }
        while let Some(notice) = self.ports.next_client_notice() {
            any = true;
            match notice {
                netback::Notice::Up { port, dom, handle, mac, addrs, mtu } => {
                    let shown = Addrs(&addrs);
                    self.console.say(
                        &mut self.h,
                        format_args!("client {dom} vif {handle} up: {shown}, {mac}, mtu {mtu}"),
                    );
                    self.firewall.port_up(now, port, Link::Client { mac, addrs, mtu });
                }
                netback::Notice::Down { port } => {
                    self.firewall.port_down(now, port);
                    self.say(format_args!("client on {port:?} down"));
                }
                netback::Notice::Problem { text } => self.say(format_args!("client: {text}")),
            }
        }
        any
    }

    /// Returns whether lines may be left.
    fn write_log(&mut self) -> bool {
        for _ in 0..LINES_A_TURN {
            let Some(line) = self.firewall.next_log() else { return false };
            self.console.say(&mut self.h, format_args!("{line}"));
        }
        true
    }

    /// Serves dom0's daemons, if there is something to do. Returns whether there may be more.
    fn serve_qubes(&mut self, now: Instant) -> bool {
        if !self.qubes.is_awake(now) {
            return false;
        }
        let before = self.firewall.policy().map(Policy::digest);
        let log = || self.console.kept();
        let seen = (&self.path.counters, &log as &dyn Fn() -> String);
        let more = self.qubes.turn(&mut self.h, &mut self.store, &mut self.firewall, seen, now);
        while let Some(line) = self.qubes.next_line() {
            self.say(format_args!("{line}"));
        }
        if let Some(policy) = self.qubes.take_policy() {
            self.say(format_args!("{} (loaded)", Summary(&policy)));
            self.firewall.set_policy(Some(*policy));
        }
        if before != self.firewall.policy().map(Policy::digest) {
            self.delivery.running(&mut self.store, self.firewall.policy());
        }
        more
    }

    fn say(&mut self, message: fmt::Arguments<'_>) {
        self.console.say(&mut self.h, message);
    }
}

/// Addresses as a list.
struct Addrs<'a>(&'a [core::net::IpAddr]);

impl fmt::Display for Addrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no address");
        }
        for (n, addr) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{addr}")?;
        }
        Ok(())
    }
}
