//! The life of a server's end: offers a channel, tells so in XenStore, and offers the next one when
//! its client has gone.
//!
//! In: XenStore events, time. Out: a stream that is up or not. Never: an offer that two clients can
//! find, or more pages lent to clients that do not let go than a few channels have.

use super::layout::Orders;
use super::life::{self, Has, Seen, Step};
use super::{Offer, Peer, Remains, Stream, place};
use crate::hypervisor::{DomId, EvtPort, Hypervisor, Memory};
use crate::store::wire::{Perm, PermLetter};
use crate::store::{self, Change, Event, Op, Outcome, Publish, RequestId, Tag, TxId};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use wire::Instant;

/// How long to wait after something failed, and between looks at pages that are still mapped.
const AGAIN: Duration = Duration::from_secs(1);

/// Channels whose pages a client may keep, before no more are offered to it.
const REMAINS_MAX: usize = 4;

/// A server's end of a channel.
pub struct Server<H: Hypervisor> {
    tag: Tag,
    own: DomId,
    client: DomId,
    /// Our directory.
    path: String,
    orders: Orders,
    wanted: bool,
    offer: Option<Offer<H>>,
    accepted: bool,
    broken: bool,
    /// What stands in XenStore: the numbers of an offer. `None` if that is not known.
    told: Option<Option<Numbers>>,
    telling: Option<(Telling, Option<Numbers>)>,
    /// XenStore refused: not at once again.
    refused: bool,
    tell_not_before: Instant,
    remains: Vec<Remains<H>>,
    not_before: Instant,
}

/// The grant of the control page and the event channel.
type Numbers = (u32, u32);

enum Telling {
    Publish(Publish),
    Remove(RequestId),
}

impl<H: Hypervisor> Server<H> {
    /// A server in domain `own` for `client` on `port`. XenStore is asked with `tag`.
    #[must_use]
    pub fn new(tag: Tag, own: DomId, (client, port): (DomId, u32), orders: Orders) -> Self {
        Self {
            tag,
            own,
            client,
            path: place(client, port),
            orders,
            wanted: true,
            offer: None,
            accepted: false,
            broken: false,
            told: None,
            telling: None,
            refused: false,
            tell_not_before: Instant::ZERO,
            remains: Vec::new(),
            not_before: Instant::ZERO,
        }
    }

    /// Takes an event with the tag given.
    pub fn on_store<M: Memory>(&mut self, store: &mut store::Client<M>, event: &Event) {
        let Event::Reply { id, result, .. } = event else { return };
        let Some((telling, numbers)) = &mut self.telling else { return };
        let done = match telling {
            Telling::Publish(publish) => match publish.on(store, *id, result) {
                store::Step::Done(outcome) => outcome == Outcome::Done,
                store::Step::Pending | store::Step::NotMine => return,
            },
            Telling::Remove(sent) if sent == id => {
                result.as_ref().map_or_else(|error| error.is_gone(), |_| true)
            }
            Telling::Remove(_) => return,
        };
        self.told = done.then_some(*numbers);
        self.telling = None;
        self.refused = !done;
    }

    /// Does what is to be done; says when next, if nothing happens before.
    pub fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        self.remains.iter_mut().for_each(|remains| remains.retry(h));
        self.remains.retain(|remains| !remains.is_empty());
        let ready = now >= self.not_before && self.remains.len() < REMAINS_MAX;
        match life::server(self.wanted, self.has(), self.seen()) {
            Step::Offer if ready => {
                self.not_before = now + AGAIN;
                self.offer = Offer::new(h, self.client, self.orders).ok();
                (self.accepted, self.broken) = (false, false);
            }
            Step::Accept => self.accepted = true,
            Step::Close => {
                if let Some(offer) = self.offer.take() {
                    let remains = offer.close(h);
                    self.remains.extend((!remains.is_empty()).then_some(remains));
                }
            }
            Step::Rest | Step::Offer | Step::Connect => {}
        }
        if core::mem::take(&mut self.refused) {
            self.tell_not_before = now + AGAIN;
        }
        let told = now >= self.tell_not_before && self.tell(store);
        let waits = self.wanted && self.offer.is_none() || !self.remains.is_empty() || !told;
        waits.then_some(now + AGAIN / 4)
    }

    /// The tag it asks XenStore with.
    #[must_use]
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// Offers no more; [`is_over`](Self::is_over) when nothing is left of it.
    pub const fn stop(&mut self) {
        self.wanted = false;
    }

    /// Whether all is taken down and forgotten.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let nothing = self.offer.is_none() && self.remains.is_empty();
        !self.wanted && nothing && self.telling.is_none() && self.told == Some(None)
    }

    /// Closes the channel, as after nonsense of the client; another one is offered.
    pub const fn give_up(&mut self) {
        self.broken = true;
    }

    const fn has(&self) -> Has {
        match (&self.offer, self.accepted) {
            (None, _) => Has::Nothing,
            (Some(_), false) => Has::Offer,
            (Some(_), true) => Has::Channel,
        }
    }

    fn seen(&self) -> Seen {
        let Some(offer) = &self.offer else {
            return Seen { peer: Peer::NotYet, unread: false, broken: false };
        };
        let unread = offer.channel.ready();
        let broken = self.broken || unread.is_err();
        Seen { peer: offer.peer(), unread: unread.is_ok_and(|bytes| bytes > 0), broken }
    }

    /// Brings XenStore to say what is so, one change at a time. Whether that needs no more than its
    /// answer.
    fn tell<M: Memory>(&mut self, store: &mut store::Client<M>) -> bool {
        let open = self.offer.as_ref().filter(|_| !self.accepted);
        let numbers = open.map(|offer| (offer.ring_ref(), offer.channel.port().0));
        if self.telling.is_some() || self.told == Some(numbers) {
            return true;
        }
        let telling = match numbers {
            Some(numbers) => {
                Publish::start(store, self.tag, self.changes(numbers)).map(Telling::Publish)
            }
            None => store.submit(self.tag, TxId::NONE, &Op::Rm(&self.path)).map(Telling::Remove),
        };
        self.telling = telling.ok().map(|telling| (telling, numbers));
        self.telling.is_some()
    }

    fn changes(&self, (ring_ref, port): Numbers) -> Vec<Change> {
        let perms = vec![
            Perm { letter: PermLetter::None, dom: self.own },
            Perm { letter: PermLetter::Read, dom: self.client },
        ];
        let node = |name: &str, number: u32| {
            let path = format!("{}/{name}", self.path);
            let value = Change::write(path.clone(), number.to_string());
            [value, Change::Allow { path, perms: perms.clone() }]
        };
        // A client looks when the second one appears.
        [node("ring-ref", ring_ref), node("event-channel", port)].into_iter().flatten().collect()
    }
}

impl<H: Hypervisor> Stream<H> for Server<H> {
    fn read(&mut self, h: &mut H, into: &mut [u8]) -> usize {
        let Some(offer) = self.offer.as_mut().filter(|_| self.accepted) else { return 0 };
        let read = offer.channel.read(h, into);
        self.broken |= read.is_err();
        read.unwrap_or(0)
    }

    fn write(&mut self, h: &mut H, from: &[u8]) -> usize {
        let Some(offer) = self.offer.as_mut().filter(|_| self.accepted) else { return 0 };
        if offer.peer() != Peer::There {
            return 0;
        }
        let written = offer.channel.write(h, from);
        self.broken |= written.is_err();
        written.unwrap_or(0)
    }

    fn is_up(&self) -> bool {
        self.offer.is_some() && self.accepted && !self.broken
    }

    fn event(&self) -> Option<EvtPort> {
        self.offer.as_ref().map(|offer| offer.channel.port())
    }
}
