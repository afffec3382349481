//! One call and its data channel.
//!
//! In: a stream, what the service wants of it. Out: the answer on the stream. Never: outlives
//! [`PATIENCE`] without a byte moved.

use super::services::{Service, Turned};
use super::{Done, View};
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use qubes::qrexec::Call;
use wire::Instant;
use xen::hypervisor::{DomId, EvtPort, Hypervisor, Memory};
use xen::store::{self, Event, Tag};
use xen::vchan::{Client, Order, Orders, Server, Stream as _};

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes read in one turn.
const READ: usize = 4096;

/// Our end of the data channel: of a call to us the client, of ours the server.
pub(super) enum Stream<H: Hypervisor> {
    Client(Client<H>),
    Server(Server<H>),
}

/// A call that is under way.
pub(super) struct Running<H: Hypervisor> {
    tag: Tag,
    domain: DomId,
    port: u32,
    stream: Stream<H>,
    call: Call,
    /// What is served; `None` if the call is ours.
    service: Option<Service>,
    /// Whether the other end has been there.
    met: bool,
    moved: Instant,
    over: bool,
}

impl<H: Hypervisor> Running<H> {
    /// A call of somebody at `port` of `domain`, to `service`.
    pub(super) fn serving<M: Memory>(
        store: &mut store::Client<M>,
        tag: Tag,
        own: DomId,
        (domain, port): (DomId, u32),
        service: Service,
        now: Instant,
    ) -> Self {
        let stream = Stream::Client(Client::new(store, tag, own, (domain, port), Order::DATA));
        let (call, service) = (Call::serving(), Some(service));
        Self { tag, domain, port, stream, call, service, met: false, moved: now, over: false }
    }

    /// A call of ours without input, to who will come to `port`.
    pub(super) fn calling(tag: Tag, own: DomId, domain: DomId, port: u32, now: Instant) -> Self {
        let stream = Stream::Server(Server::new(tag, own, (domain, port), Orders::DATA));
        let (call, service) = (Call::calling(&[]), None);
        Self { tag, domain, port, stream, call, service, met: false, moved: now, over: false }
    }

    pub(super) const fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether it brings a policy.
    pub(super) fn is_load(&self) -> bool {
        self.service.as_ref().is_some_and(Service::is_load)
    }

    /// Where the other end is.
    pub(super) const fn place(&self) -> (DomId, u32) {
        (self.domain, self.port)
    }

    pub(super) fn event(&self) -> Option<EvtPort> {
        match &self.stream {
            Stream::Client(client) => client.event(),
            Stream::Server(server) => server.event(),
        }
    }

    pub(super) fn on_store<M: Memory>(&mut self, store: &mut store::Client<M>, event: &Event) {
        match &mut self.stream {
            Stream::Client(client) => client.on_store(event),
            Stream::Server(server) => server.on_store(store, event),
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// What is worth saying of a call that is over.
    pub(super) fn line(&self) -> Option<String> {
        match (&self.service, self.call.exit_code()) {
            (Some(_), _) => None,
            (None, Some(0)) => Some(String::from("dom0 has taken qubes.FeaturesRequest")),
            (None, code) => Some(format!("qubes.FeaturesRequest failed: {code:?}")),
        }
    }

    /// Moves bytes, and the service along.
    pub(super) fn turn<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        view: &View<'_>,
        now: Instant,
    ) -> Done {
        let due = match &mut self.stream {
            Stream::Client(client) => client.tick(h, store, now),
            Stream::Server(server) => server.tick(h, store, now),
        };
        let mut bytes = [0; READ];
        let mut read = 0;
        if self.is_up() && self.call.wants_input() {
            read = match &mut self.stream {
                Stream::Client(client) => client.read(h, &mut bytes),
                Stream::Server(server) => server.read(h, &mut bytes),
            };
        }
        self.over |= self.call.receive(bytes.get(..read).unwrap_or_default()).is_err();
        if let Some(service) = &mut self.service
            && service.turn(&mut self.call, view) == Turned::Worked
        {
            self.moved = now;
        }
        let written = match &mut self.stream {
            Stream::Client(client) => client.write(h, self.call.outgoing()),
            Stream::Server(server) => server.write(h, self.call.outgoing()),
        };
        self.call.sent(written);
        if read > 0 || written > 0 {
            self.moved = now;
        }
        let left = self.met && !self.is_up();
        self.met |= self.is_up();
        let late = now.since(self.moved) >= PATIENCE;
        self.over |= self.call.is_over() || left || late;
        let due = [due, Some(self.moved + PATIENCE)].into_iter().flatten().min();
        Done { more: read > 0 || self.over, due }
    }

    /// Ends the channel; what is left of it.
    pub(super) fn stop<M: Memory>(self, h: &mut H, store: &mut store::Client<M>) -> Stream<H> {
        match self.stream {
            Stream::Client(mut client) => {
                client.stop(h, store);
                Stream::Client(client)
            }
            Stream::Server(mut server) => {
                server.stop();
                Stream::Server(server)
            }
        }
    }

    fn is_up(&self) -> bool {
        match &self.stream {
            Stream::Client(client) => client.is_up(),
            Stream::Server(server) => server.is_up(),
        }
    }
}
