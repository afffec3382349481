//! The qrexec agent: dom0's qrexec-daemon is our client on the control channel.
//!
//! In: orders of dom0. Out: calls served, a few at a time; our own request for the feature
//! `qubes-firewall`. Never: more calls at once than [`CALLS_MAX`], or more that wait than
//! [`WAITING_MAX`].

use super::calls::{Running, Stream};
use super::database::Database;
use super::services::Service;
use super::{DOM0, Done, View};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use qubes::qrexec::{Command, Control, Ident, Order};
use wire::Instant;
use xen::hypervisor::{DomId, EvtPort, Hypervisor, Memory, PortSet};
use xen::store::{self, Event, Tag};
use xen::vchan::{Orders, Server, Stream as _};

/// Where agents are served (libqrexec: VCHAN_BASE_PORT).
const PORT: u32 = 512;

/// Calls served at once.
const CALLS_MAX: usize = 4;

/// Calls that may wait for their turn; beyond, a call is ended before it began.
const WAITING_MAX: usize = 32;

/// Bytes read in one turn.
const READ: usize = 4096;

/// The agent.
pub(super) struct Agent<H: Hypervisor> {
    own: DomId,
    channel: Server<H>,
    tag: Tag,
    /// The tag of the next call.
    next_tag: u32,
    first_tag: u32,
    control: Option<Control>,
    running: Vec<Running<H>>,
    waiting: VecDeque<(DomId, u32, Service)>,
    /// Our own servers that are being taken down.
    closing: Vec<Server<H>>,
    features: Features,
    lines: Vec<String>,
}

/// How far our request for features is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Features {
    /// Not asked for.
    Unasked,
    /// Asked, by this name.
    Asked(Ident),
    /// Answered, one way or the other.
    Answered,
}

impl<H: Hypervisor> Agent<H> {
    pub(super) fn new(own: DomId, tag: Tag, first_tag: u32) -> Self {
        Self {
            own,
            channel: Server::new(tag, own, (DOM0, PORT), Orders::PAGE),
            tag,
            next_tag: first_tag,
            first_tag,
            control: None,
            running: Vec::new(),
            waiting: VecDeque::new(),
            closing: Vec::new(),
            features: Features::Unasked,
            lines: Vec::new(),
        }
    }

    pub(super) fn on_store<M: Memory>(&mut self, store: &mut store::Client<M>, event: &Event) {
        let (Event::Reply { tag, .. } | Event::Watch { tag, .. }) = event else { return };
        if *tag == self.tag {
            self.channel.on_store(store, event);
        }
        self.running.iter_mut().filter(|run| run.tag() == *tag).for_each(|run| {
            run.on_store(store, event);
        });
        self.closing.iter_mut().filter(|server| server.tag() == *tag).for_each(|server| {
            server.on_store(store, event);
        });
    }

    pub(super) fn events(&self, into: &mut Vec<EvtPort>) {
        into.extend(self.channel.event());
        into.extend(self.running.iter().filter_map(Running::event));
    }

    pub(super) fn is_signalled(&self, pending: &PortSet) -> bool {
        let mut ports = self.channel.event().into_iter();
        let control = ports.any(|port| pending.contains(port));
        control || self.running.iter().filter_map(Running::event).any(|port| pending.contains(port))
    }

    /// What is worth saying.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        core::mem::take(&mut self.lines)
    }

    /// Does a bounded part of what there is to do.
    pub(super) fn turn<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        database: &mut Database<H>,
        view: &View<'_>,
        now: Instant,
    ) -> Done {
        let mut done = Done { more: false, due: self.channel.tick(h, store, now) };
        done.more |= self.talk(h);
        self.obey(now);
        self.ask_for_features(database);
        self.begin_calls(store, now);
        self.serve(h, store, view, now, &mut done);
        self.closing.iter_mut().for_each(|server| {
            let due = server.tick(h, store, now);
            done.due = [done.due, due].into_iter().flatten().min();
        });
        self.closing.retain(|server| !server.is_over());
        self.send(h);
        done
    }

    /// Reads from the control channel; whether there may be more.
    fn talk(&mut self, h: &mut H) -> bool {
        if !self.channel.is_up() {
            self.control = None;
            return false;
        }
        let control = self.control.get_or_insert_default();
        if !control.wants_input() {
            return true;
        }
        let mut bytes = [0; READ];
        let read = self.channel.read(h, &mut bytes);
        if let Err(error) = control.receive(bytes.get(..read).unwrap_or_default()) {
            self.lines.push(format!("{error}; waiting for dom0 to connect anew"));
            self.channel.give_up();
            return true;
        }
        read > 0
    }

    fn send(&mut self, h: &mut H) {
        if let Some(control) = &mut self.control {
            let written = self.channel.write(h, control.outgoing());
            control.sent(written);
        }
    }

    fn obey(&mut self, now: Instant) {
        while let Some(order) = self.control.as_mut().and_then(Control::next_order) {
            match order {
                Order::Run { domain, port, command } if self.waiting.len() < WAITING_MAX => {
                    let service = Service::named(&command);
                    if let (Service::Unknown, Command::Service { name, source, .. }) =
                        (&service, &command)
                    {
                        let (name, source) = (name.escape_debug(), source.escape_debug());
                        self.lines.push(format!("qrexec: {source} calls {name}: not known here"));
                    }
                    self.waiting.push_back((DomId(domain), port, service));
                }
                Order::Run { domain, port, .. } => {
                    self.lines.push("qrexec: too many calls wait; one is refused".to_string());
                    self.terminated(DomId(domain), port);
                }
                Order::Connect { ident, domain, port } => {
                    if self.features == Features::Asked(ident) {
                        self.features = Features::Answered;
                        let tag = self.tag_of_call();
                        let own = self.own;
                        self.running.push(Running::calling(tag, own, DomId(domain), port, now));
                    }
                }
                Order::Refused(ident) => {
                    if self.features == Features::Asked(ident) {
                        self.features = Features::Answered;
                        let told = "dom0 refuses qubes.FeaturesRequest: set the feature by \
                                    `qvm-features NAME qubes-firewall 1`";
                        self.lines.push(told.to_string());
                    }
                }
            }
        }
    }

    /// Asks dom0 to set the feature that says we obey `/qubes-firewall/`. dom0 reads what is asked
    /// for from QubesDB.
    fn ask_for_features(&mut self, database: &mut Database<H>) {
        let Some(control) = &mut self.control else { return };
        if self.features != Features::Unasked || !control.is_greeted() || !database.is_live() {
            return;
        }
        let ident = Ident::numbered(1);
        if database.write("/features-request/qubes-firewall", "1")
            && control.request("dom0", "qubes.FeaturesRequest", ident)
        {
            self.features = Features::Asked(ident);
        }
    }

    fn begin_calls<M: Memory>(&mut self, store: &mut store::Client<M>, now: Instant) {
        while self.running.len() < CALLS_MAX
            && let Some((domain, port, service)) = self.waiting.pop_front()
        {
            // There is memory for one policy on its way.
            if service.is_load() && self.running.iter().any(Running::is_load) {
                self.waiting.push_front((domain, port, service));
                return;
            }
            let tag = self.tag_of_call();
            self.running.push(Running::serving(store, tag, self.own, (domain, port), service, now));
        }
    }

    fn serve<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        view: &View<'_>,
        now: Instant,
        done: &mut Done,
    ) {
        for run in &mut self.running {
            let turned = run.turn(h, store, view, now);
            done.more |= turned.more;
            done.due = [done.due, turned.due].into_iter().flatten().min();
        }
        let over = self.running.extract_if(.., |run| run.is_over());
        for run in over.collect::<Vec<_>>() {
            self.lines.extend(run.line());
            let (domain, port) = run.place();
            match run.stop(h, store) {
                Stream::Server(server) => self.closing.push(server),
                Stream::Client(_) => self.terminated(domain, port),
            }
            done.more = true;
        }
    }

    /// Tells dom0 that a port is free again; without this it would run out of them.
    fn terminated(&mut self, domain: DomId, port: u32) {
        if let Some(control) = &mut self.control {
            control.terminated(domain.0, port);
        }
    }

    fn tag_of_call(&mut self) -> Tag {
        let tag = Tag(self.next_tag);
        // Long before they come again the calls are over.
        self.next_tag = self.next_tag.checked_add(1).unwrap_or(self.first_tag);
        tag
    }
}
