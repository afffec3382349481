//! The firewall's own resolver: it asks for names ahead of the packets that need them.
//!
//! In: time, answers, and a source of ports and ids. Out: queries. Never: more than so many at once, a
//! query whose port or id was used for another, or belief in anybody but whom it asked.

use crate::Kind;
use crate::life::{Event, Life, Phase, Step, whom};
use crate::message::{QUERY_MAX, Unusable, question, read_answer, write_query};
use crate::names::{HostId, Names, RESOLVERS_MAX, Source};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::ops::Bound;
use core::time::Duration;
use wire::Instant;

/// Most queries that wait for an answer at once.
pub const ASKED_MAX: usize = 64;

/// Most of them for one client, so that names nobody answers for do not hold up those of others.
const ASKED_PER_CLIENT: usize = 8;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most names that are looked at in one tick.
const AT_ONCE: usize = 4;

/// A query that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The port it is to leave by.
    pub port: u16,
    /// The resolver.
    pub resolver: IpAddr,
    /// The message.
    pub message: ArrayVec<u8, QUERY_MAX>,
}

/// A query that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    host: HostId,
    port: u16,
    id: u16,
    resolver: IpAddr,
    until: Instant,
}

/// Whom is asked what.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    resolvers: ArrayVec<IpAddr, RESOLVERS_MAX>,
    /// Names that are to be asked for when there is room, by client.
    waiting: BTreeMap<IpAddr, VecDeque<u16>>,
    /// The client that had its turn last.
    last: Option<IpAddr>,
    asked: Vec<Asked>,
}

impl Asks {
    /// Forgets what is asked for some names.
    pub(crate) fn forget(&mut self, which: impl Fn(HostId) -> bool, source: &mut impl Source) {
        self.waiting.retain(|client, places| {
            places.retain(|nth| !which(HostId { client: *client, nth: *nth }));
            !places.is_empty()
        });
        self.asked.retain(|asked| {
            let over = which(asked.host);
            if over {
                source.give_port_back(asked.port);
            }
            !over
        });
    }

    /// The next name to be asked for: the clients have it in turn.
    fn next(&mut self) -> Option<HostId> {
        if self.asked.len() >= ASKED_MAX {
            return None;
        }
        let has_room = |client: &IpAddr| {
            let its = self.asked.iter().filter(|asked| asked.host.client == *client).count();
            its < ASKED_PER_CLIENT
        };
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.waiting.range((after, Bound::Unbounded)).map(|(client, _)| client);
        let client = *behind.chain(self.waiting.keys()).find(|client| has_room(client))?;
        self.last = Some(client);
        let places = self.waiting.get_mut(&client)?;
        let nth = places.pop_front();
        if places.is_empty() {
            self.waiting.remove(&client);
        }
        nth.map(|nth| HostId { client, nth })
    }
}

impl Names {
    /// Says which resolvers to ask; at most [`RESOLVERS_MAX`] are. If they are others than before, all
    /// names are asked for anew, and keep their addresses meanwhile.
    pub fn set_resolvers(&mut self, now: Instant, resolvers: &[IpAddr], source: &mut impl Source) {
        let resolvers = resolvers.iter().copied().take(RESOLVERS_MAX).collect();
        if self.asks.resolvers != resolvers {
            self.asks.resolvers = resolvers;
            self.ask_anew(now, source);
        }
    }

    /// Whether there is anybody to ask.
    #[must_use]
    pub const fn has_resolvers(&self) -> bool {
        !self.asks.resolvers.is_empty()
    }

    /// The way to the resolvers is new: what was asked will not be answered.
    pub fn ask_anew(&mut self, now: Instant, source: &mut impl Source) {
        self.asks.forget(|_| true, source);
        let ids: Vec<HostId> = self
            .clients
            .iter()
            .flat_map(|(client, hosts)| {
                (0u16..).zip(hosts).map(|(nth, _)| HostId { client: *client, nth })
            })
            .collect();
        for id in ids {
            self.happens(now, id, Event::Anew, None);
        }
    }

    /// Does what is due, so much of it: addresses that are over, names that are to be asked for again,
    /// resolvers that say nothing. To be followed by [`Names::next_ask`] and [`Names::next_change`].
    pub fn tick(&mut self, now: Instant, source: &mut impl Source) {
        for _ in 0..AT_ONCE {
            let Some(id) = self.next_timer(now) else { break };
            let Some(host) = self.host(id) else { continue };
            let changed = host.known.expire(now, |over| source.used(id.client, over));
            if changed {
                self.tell_change(id);
            }
            if self.host(id).and_then(|host| host.due).is_some_and(|due| due <= now) {
                self.happens(now, id, Event::Due, None);
            }
            self.set_timer(id);
        }
        while let Some(at) = self.asks.asked.iter().position(|asked| asked.until <= now) {
            let asked = self.asks.asked.swap_remove(at);
            source.give_port_back(asked.port);
            self.happens(now, asked.host, Event::Silence, None);
        }
    }

    /// The next query to be sent now.
    pub fn next_ask(&mut self, now: Instant, source: &mut impl Source) -> Option<Ask> {
        if self.asks.resolvers.is_empty() {
            return None;
        }
        // One that cannot be asked for, for want of a port, comes again after the others.
        for _ in 0..ASKED_MAX {
            let id = self.asks.next()?;
            if let Some(ask) = self.ask(now, id, source) {
                return Some(ask);
            }
        }
        None
    }

    /// Whether a datagram from `resolver` to this port of ours may be the answer to a query.
    #[must_use]
    pub fn waits_for(&self, resolver: IpAddr, port: u16) -> bool {
        self.asks.asked.iter().any(|a| (a.resolver, a.port) == (resolver, port))
    }

    /// A message has come from port 53 of `resolver` to this port of ours. How many usable addresses
    /// were told.
    ///
    /// # Errors
    /// Why nothing is learnt from it. What nobody was asked for is [`Unusable::OtherQuestion`], and
    /// changes nothing: the answer is still waited for.
    pub fn is_told(
        &mut self,
        now: Instant,
        resolver: IpAddr,
        port: u16,
        message: &[u8],
        source: &mut impl Source,
    ) -> Result<usize, Unusable> {
        let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
        let from =
            |asked: &Asked| (asked.resolver, asked.port, Some(asked.id)) == (resolver, port, id);
        let at = self.asks.asked.iter().position(from).ok_or(Unusable::OtherQuestion)?;
        let host = self.asks.asked.get(at).ok_or(Unusable::OtherQuestion)?.host;
        let kind = Kind::of(host.client);
        let name = &self.host(host).ok_or(Unusable::OtherQuestion)?.name;
        let told = read_answer(message, &question(name, kind), kind);
        if matches!(told, Err(Unusable::OtherQuestion | Unusable::Malformed)) {
            return told.map(|_| 0);
        }
        let asked = self.asks.asked.swap_remove(at);
        source.give_port_back(asked.port);
        match told {
            Ok(mut answer) => {
                answer.told.retain(|told| source.is_usable(told.addr));
                let shortest = answer.told.iter().map(|told| told.ttl).min();
                let event = if shortest.is_some() { Event::Told } else { Event::None };
                self.learn(now, host, &answer);
                self.happens(now, host, event, shortest);
                Ok(answer.told.len())
            }
            Err(why) => {
                let gone = why == Unusable::NoSuchName;
                let event = if gone { Event::None } else { Event::Refused };
                self.happens(now, host, event, None);
                Err(why)
            }
        }
    }

    /// When [`Names::tick`] has something to do. What waits for a way to the resolvers is not awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timers = self.timers.first().map(|(due, _)| *due);
        self.asks.asked.iter().map(|asked| asked.until).chain(timers).min()
    }

    /// Takes a step in the life of a name.
    fn happens(&mut self, now: Instant, id: HostId, event: Event, ttl: Option<u32>) {
        let Some(host) = self.host(id) else { return };
        let (life, step) = host.life.next(event);
        host.life = life;
        match step {
            Step::Stay => {}
            Step::Ask => {
                host.due = None;
                self.asks.waiting.entry(id.client).or_default().push_back(id.nth);
            }
            Step::Refresh => host.due = Some(now + ahead(ttl.unwrap_or(0))),
            Step::Rest(rest) => host.due = Some(now + rest),
        }
        self.set_timer(id);
    }

    fn ask(&mut self, now: Instant, id: HostId, source: &mut impl Source) -> Option<Ask> {
        let count = self.asks.resolvers.len();
        let host = self.host(id)?;
        let Life { phase: Phase::Asks(tries), .. } = host.life else { return None };
        let (nth, edns) = whom(tries, count);
        let query = source.draw();
        let mut bytes = [0; QUERY_MAX];
        let len = write_query(query, &host.name, Kind::of(id.client), edns, &mut bytes)?;
        let resolver = *self.asks.resolvers.get(nth)?;
        let Some(port) = source.take_port() else {
            // As if nobody had answered: it is tried again, and not for ever.
            self.happens(now, id, Event::Silence, None);
            return None;
        };
        let until = now + PATIENCE;
        self.asks.asked.push(Asked { host: id, port, id: query, resolver, until });
        let message = bytes.iter().copied().take(len).collect();
        Some(Ask { port, resolver, message })
    }
}

/// How long after an answer with this TTL in seconds to ask again: ahead of its end by a quarter, which is
/// time enough for all tries.
fn ahead(ttl: u32) -> Duration {
    crate::known::clamped(ttl).saturating_mul(3) / 4
}
