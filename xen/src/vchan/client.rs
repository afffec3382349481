//! The life of a client's end: finds its server in XenStore, connects, and connects again.
//!
//! In: XenStore events, time. Out: a stream that is up or not. Never: more than one attempt a second,
//! unless the server said something new.

use super::channel::Channel;
use super::layout::Order;
use super::life::{self, Seen, Step};
use super::{Peer, Stream, open, place};
use crate::hypervisor::{DomId, EvtPort, Hypervisor, Memory};
use crate::store::{self, Event, Found, Gather, Key, Op, RequestId, Tag, TxId};
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use wire::Instant;

/// How long to wait after an attempt that failed, or a channel that was lost, if nothing new is heard.
const AGAIN: Duration = Duration::from_secs(1);

/// A client's end of a channel.
pub struct Client<H: Hypervisor> {
    tag: Tag,
    server: DomId,
    /// The server's directory.
    path: String,
    most: Order,
    wanted: bool,
    watch: Option<RequestId>,
    /// There is no watch: what the server says is looked at now and then, next at this time.
    blind: bool,
    look_again: Instant,
    /// What is being read, and whether it has changed meanwhile.
    reading: Option<Gather>,
    look: bool,
    /// Where the server says it is: the grant of its control page and its event channel.
    told: Option<(u32, u32)>,
    /// Before this, no attempt by what is known already.
    not_before: Instant,
    channel: Option<Channel<H::Mapped>>,
    broken: bool,
}

impl<H: Hypervisor> Client<H> {
    /// A client in domain `own` of what `server` serves on `port`, with rings of at most `most`.
    /// XenStore is asked with `tag`.
    #[must_use]
    pub fn new<M: Memory>(
        store: &mut store::Client<M>,
        tag: Tag,
        own: DomId,
        (server, port): (DomId, u32),
        most: Order,
    ) -> Self {
        let path = format!("/local/domain/{}/{}", server.0, place(own, port));
        let watched = format!("{path}/event-channel");
        let watch = store.submit(tag, TxId::NONE, &Op::Watch(&watched)).ok();
        Self {
            tag,
            server,
            path,
            most,
            wanted: true,
            watch,
            blind: watch.is_none(),
            look_again: Instant::ZERO,
            reading: None,
            look: true,
            told: None,
            not_before: Instant::ZERO,
            channel: None,
            broken: false,
        }
    }

    /// Takes an event with the tag given.
    pub fn on_store(&mut self, event: &Event) {
        match event {
            Event::Watch { .. } => {
                self.look = true;
                self.not_before = Instant::ZERO;
            }
            Event::Reply { id, result, .. } if self.watch == Some(*id) => {
                self.blind = result.is_err();
            }
            Event::Reply { id, result, .. } => {
                let Some(reading) = &mut self.reading else { return };
                if let store::Step::Done(found) = reading.on(*id, result) {
                    self.reading = None;
                    self.told = found.ok().and_then(|found| numbers(&found));
                }
            }
            Event::Broken(_) => {}
        }
    }

    /// Does what is to be done; says when next, if nothing happens before.
    pub fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        if self.blind && now >= self.look_again {
            (self.look, self.look_again) = (true, now + AGAIN);
        }
        if self.look && self.reading.is_none() && self.channel.is_none() && self.wanted {
            self.look = false;
            let nodes = ["ring-ref", "event-channel"].map(|node| format!("{}/{node}", self.path));
            let keys = nodes.iter().map(|node| Key::Value(node));
            self.reading = Gather::start(store, self.tag, TxId::NONE, keys).ok();
            self.look = self.reading.is_none();
        }
        let known = self.told.filter(|_| self.reading.is_none() && now >= self.not_before);
        match life::client(self.wanted, known.is_some(), self.seen()) {
            Step::Connect => {
                let (ring_ref, port) = known?;
                self.not_before = now + AGAIN;
                self.channel = open::connect(h, self.server, ring_ref, port, self.most).ok();
                self.broken = false;
            }
            Step::Close => {
                if let Some(channel) = self.channel.take() {
                    open::close(h, channel);
                }
                self.look = true;
                self.not_before = self.not_before.max(now + AGAIN);
            }
            Step::Rest | Step::Offer | Step::Accept => {}
        }
        let idle = self.channel.is_none() && self.reading.is_none() && self.wanted;
        match (idle, self.look, self.told) {
            (true, true, _) => Some(now + AGAIN),
            (true, false, Some(_)) => Some(self.not_before),
            (true, false, None) if self.blind => Some(self.look_again),
            _ => None,
        }
    }

    /// Ends it for good.
    pub fn stop<M: Memory>(&mut self, h: &mut H, store: &mut store::Client<M>) {
        self.wanted = false;
        self.tick(h, store, Instant::ZERO);
        let watched = format!("{}/event-channel", self.path);
        let _refused = store.submit(self.tag, TxId::NONE, &Op::Unwatch(&watched));
    }

    /// Closes the channel, as after nonsense of the server; it is connected to again.
    pub const fn give_up(&mut self) {
        self.broken = true;
    }

    /// Whether the server tells where it is, or is connected to.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.told.is_some() || self.channel.is_some()
    }

    fn seen(&self) -> Option<Seen> {
        let channel = self.channel.as_ref()?;
        let unread = channel.ready();
        let broken = self.broken || unread.is_err();
        Some(Seen { peer: channel.peer(), unread: unread.is_ok_and(|bytes| bytes > 0), broken })
    }
}

/// Both are decimal numbers, and neither is 0 (libxenvchan_client_init).
fn numbers(found: &[Found]) -> Option<(u32, u32)> {
    let [ring_ref, port] = found else { return None };
    let number = |found: &Found| found.text()?.parse().ok().filter(|number| *number > 0);
    Some((number(ring_ref)?, number(port)?))
}

impl<H: Hypervisor> Stream<H> for Client<H> {
    fn read(&mut self, h: &mut H, into: &mut [u8]) -> usize {
        let Some(channel) = &mut self.channel else { return 0 };
        let read = channel.read(h, into);
        self.broken |= read.is_err();
        read.unwrap_or(0)
    }

    fn write(&mut self, h: &mut H, from: &[u8]) -> usize {
        let Some(channel) = &mut self.channel else { return 0 };
        if channel.peer() == Peer::Gone {
            return 0;
        }
        let written = channel.write(h, from);
        self.broken |= written.is_err();
        written.unwrap_or(0)
    }

    fn is_up(&self) -> bool {
        self.channel.is_some() && !self.broken
    }

    fn event(&self) -> Option<EvtPort> {
        self.channel.as_ref().map(Channel::port)
    }
}
