//! The names that all clients' rules use, and their addresses.
//!
//! In: which names there are, and answers to what clients asked. Out: changes of the addresses of a
//! name. Never: an address of one client's name in another's.

use crate::ask::Asks;
use crate::known::{ADDRS_PER_CLIENT, Known, clamped};
use crate::life::Life;
use crate::live::{Live, Ticket};
use crate::message::{Answer, Kind, Query, Unusable, read_answer};
use crate::name::Name;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use wire::{Instant, Port};

/// Most names of a client's own rules that are resolved for one of its addresses. The others stay as
/// they are: unknown.
pub const OWN_PER_CLIENT: usize = 256;

/// Most names of all rules that are resolved for one address of a client, its own among them.
pub const HOSTS_PER_CLIENT: usize = 320;

/// Most resolvers that are asked.
pub const RESOLVERS_MAX: usize = 4;

/// What is taken from those who have it: ports, randomness, and what is known of flows.
pub trait Source {
    /// A UDP port of our own, drawn so that nobody can guess it; `None` if none is free.
    fn take_port(&mut self) -> Option<u16>;
    /// Gives it back.
    fn give_port_back(&mut self, port: u16);
    /// A number nobody can guess.
    fn draw(&mut self) -> u16;
    /// To which of `addrs` the client with this address has flows, by the bits of a number.
    fn used(&mut self, client: IpAddr, addrs: &[IpAddr]) -> u64;
    /// Whether a name may have this address: not if it is ours or a client's, or can never be routed.
    fn is_usable(&mut self, addr: IpAddr) -> bool;
}

/// A name of a client: the address of the client, and the place among its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId {
    pub(crate) client: IpAddr,
    pub(crate) nth: u16,
}

/// A name, and how it stands with it.
#[derive(Debug)]
pub(crate) struct Host {
    text: Box<str>,
    pub(crate) name: Name,
    pub(crate) known: Known,
    pub(crate) life: Life,
    /// When it is to be asked for, while it rests.
    pub(crate) due: Option<Instant>,
    /// When it is looked at, in [`Names::timers`].
    timer: Option<Instant>,
}

/// The addresses of a name have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// In whose rules.
    pub client: IpAddr,
    /// The name, as it was written.
    pub host: &'a str,
    /// All its addresses; none if it is not known.
    pub addrs: Vec<IpAddr>,
    /// Whether there are no others. If there are, a rule that is to drop what goes to this name cannot
    /// know what to leave alone.
    pub whole: bool,
}

/// All names.
#[derive(Debug)]
pub struct Names {
    /// By the address of the client.
    pub(crate) clients: BTreeMap<IpAddr, Vec<Host>>,
    pub(crate) timers: BTreeSet<(Instant, HostId)>,
    changed: VecDeque<HostId>,
    live: Live,
    pub(crate) asks: Asks,
}

impl Names {
    /// No names. `key` must be fresh.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            clients: BTreeMap::new(),
            timers: BTreeSet::new(),
            changed: VecDeque::new(),
            live: Live::new(key),
            asks: Asks::default(),
        }
    }

    /// Says which names the rules of `client` use: its `own` ones, and those for all clients. What
    /// it used before keeps its addresses, new ones are asked for at once. More than
    /// [`OWN_PER_CLIENT`] of the first and [`HOSTS_PER_CLIENT`] in all are not looked at, and neither
    /// are names that no message can spell.
    pub fn set_hosts<'a>(
        &mut self,
        now: Instant,
        client: IpAddr,
        (own, common): (impl Iterator<Item = &'a str>, impl Iterator<Item = &'a str>),
        source: &mut impl Source,
    ) {
        let mut wanted = BTreeSet::new();
        let own = own.map(|host| (host, OWN_PER_CLIENT));
        for (host, most) in own.chain(common.map(|host| (host, HOSTS_PER_CLIENT))) {
            if wanted.len() < most && Name::new(host).is_some() {
                wanted.insert(host);
            }
        }
        let before = self.clients.remove(&client).unwrap_or_default();
        if before.iter().map(|host| &*host.text).eq(wanted.iter().copied()) {
            if !before.is_empty() {
                self.clients.insert(client, before);
            }
            return;
        }
        // Places change, so all that names them is made anew.
        self.forget_places(client, &before, source);
        let mut before: BTreeMap<Box<str>, Known> =
            before.into_iter().map(|host| (host.text, host.known)).collect();
        let hosts: Vec<Host> = wanted
            .into_iter()
            .filter_map(|text| {
                let (name, known) = (Name::new(text)?, before.remove(text).unwrap_or_default());
                let text = Box::from(text);
                Some(Host { text, name, known, life: Life::NEW, due: Some(now), timer: None })
            })
            .collect();
        let count = hosts.len();
        if count > 0 {
            self.clients.insert(client, hosts);
        }
        for nth in (0u16..).take(count) {
            self.set_timer(HostId { client, nth });
        }
    }

    /// Tells of all names of `client` that have addresses as if they had changed: other rules use them.
    pub fn tell_again(&mut self, client: IpAddr) {
        let hosts = self.clients.get(&client).map_or(&[][..], Vec::as_slice);
        let known = (0u16..).zip(hosts).filter(|(_, host)| host.known.len() > 0);
        let ids: Vec<_> = known.map(|(nth, _)| HostId { client, nth }).collect();
        ids.into_iter().for_each(|id| self.tell_change(id));
    }

    /// A client's vif is gone, and with it what it asked.
    pub fn client_gone(&mut self, vm: Port) {
        self.live.client_gone(vm);
    }

    /// An answer to a query of a client cannot be read: there will be no other.
    pub fn client_is_not_told(&mut self, vm: Port, (port, id): (u16, u16)) {
        self.live.forget(vm, Ticket { port, id });
    }

    /// Whether any rule of a client with these addresses uses a name.
    #[must_use]
    pub fn any(&self, addrs: &[IpAddr]) -> bool {
        !self.clients.is_empty() && addrs.iter().any(|addr| self.clients.contains_key(addr))
    }

    /// The client `vm`, which has the addresses `addrs`, sent a DNS query to a resolver it is told to
    /// ask, which left by this external port under this id.
    pub fn client_asks(
        &mut self,
        now: Instant,
        vm: Port,
        addrs: &[IpAddr],
        (port, id): (u16, u16),
        message: &[u8],
    ) {
        let ticket = Ticket { port, id };
        let query = Query::read(message);
        match query.filter(|query| self.asked_for(addrs, query).next().is_some()) {
            Some(query) => self.live.ask(now, vm, ticket, &query),
            None => self.live.forget(vm, ticket),
        }
    }

    /// Whether an answer to such a query is worth a look at all of it.
    #[must_use]
    pub fn client_waits(&self, vm: Port, (port, id): (u16, u16)) -> bool {
        self.live.waits(vm, Ticket { port, id })
    }

    /// The answer to such a query has come, or what seems to be one; there will be no other. How
    /// many usable addresses were told.
    ///
    /// # Errors
    /// Why nothing is learnt from it.
    pub fn client_is_told(
        &mut self,
        now: Instant,
        vm: Port,
        addrs: &[IpAddr],
        (port, id): (u16, u16),
        message: &[u8],
        source: &mut impl Source,
    ) -> Result<usize, Unusable> {
        let asked = self.live.take(now, vm, Ticket { port, id });
        let (kind, hash) = asked.ok_or(Unusable::OtherQuestion)?;
        let question = crate::message::question_of(message).ok_or(Unusable::OtherQuestion)?;
        if !self.live.is(question.question, hash) {
            return Err(Unusable::OtherQuestion);
        }
        let mut answer = read_answer(message, question.question, kind)?;
        answer.told.retain(|told| source.is_usable(told.addr));
        let ids: Vec<HostId> = self.asked_for(addrs, &question).collect();
        for id in ids {
            self.learn(now, id, &answer);
        }
        Ok(answer.told.len())
    }

    /// The next name whose addresses changed.
    pub fn next_change(&mut self) -> Option<Change<'_>> {
        let HostId { client, nth } = self.changed.pop_front()?;
        let host = self.clients.get(&client)?.get(usize::from(nth))?;
        let addrs = host.known.addrs().collect();
        Some(Change { client, host: &host.text, addrs, whole: host.known.is_whole() })
    }

    /// Nothing ran for so long: addresses are as old as they were.
    pub fn paused(&mut self, now: Instant, silence: Duration, source: &mut impl Source) {
        for host in self.clients.values_mut().flatten() {
            host.known.paused(silence);
        }
        self.ask_anew(now, source);
    }

    /// Each name that a query asks for, in the rules for the family it asks about.
    fn asked_for<'a>(
        &'a self,
        addrs: &'a [IpAddr],
        query: &'a Query<'_>,
    ) -> impl Iterator<Item = HostId> + 'a {
        addrs.iter().filter(|addr| Kind::of(**addr) == query.kind).flat_map(|client| {
            // One name may be written in two ways: with a dot at its end, and without.
            let hosts = (0u16..).zip(self.clients.get(client).into_iter().flatten());
            let asked = hosts.filter(|(_, host)| query.is_for(&host.name));
            asked.map(|(nth, _)| HostId { client: *client, nth })
        })
    }

    /// Takes usable addresses of a name.
    pub(crate) fn learn(&mut self, now: Instant, id: HostId, answer: &Answer) {
        let Some(hosts) = self.clients.get_mut(&id.client) else { return };
        let mut room = ADDRS_PER_CLIENT.saturating_sub(hosts.iter().map(|h| h.known.len()).sum());
        let Some(host) = hosts.get_mut(usize::from(id.nth)) else { return };
        let mut changed = false;
        for told in &answer.told {
            let before = host.known.len();
            changed |= host.known.tell(now, told.addr, told.ttl, room > 0);
            room = room.saturating_sub(host.known.len().saturating_sub(before));
        }
        if answer.more {
            let ttl = answer.told.iter().map(|told| told.ttl).min().unwrap_or(0);
            changed |= host.known.lack(now + clamped(ttl));
        }
        if changed {
            self.tell_change(id);
        }
        self.set_timer(id);
    }

    pub(crate) fn tell_change(&mut self, id: HostId) {
        if !self.changed.contains(&id) {
            self.changed.push_back(id);
        }
    }

    pub(crate) fn host(&mut self, id: HostId) -> Option<&mut Host> {
        self.clients.get_mut(&id.client)?.get_mut(usize::from(id.nth))
    }

    /// Has a name looked at when something is due.
    pub(crate) fn set_timer(&mut self, id: HostId) {
        let Some(host) = self.host(id) else { return };
        let timer = host.due.into_iter().chain(host.known.deadline()).min();
        let before = core::mem::replace(&mut host.timer, timer);
        if before == timer {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, id));
        }
        if let Some(timer) = timer {
            self.timers.insert((timer, id));
        }
    }

    /// Takes the timer of a name that is due.
    pub(crate) fn next_timer(&mut self, now: Instant) -> Option<HostId> {
        let &(due, id) = self.timers.first()?;
        if due > now {
            return None;
        }
        self.timers.remove(&(due, id));
        if let Some(host) = self.host(id) {
            host.timer = None;
        }
        Some(id)
    }

    fn forget_places(&mut self, client: IpAddr, hosts: &[Host], source: &mut impl Source) {
        for (nth, host) in (0u16..).zip(hosts) {
            if let Some(timer) = host.timer {
                self.timers.remove(&(timer, HostId { client, nth }));
            }
        }
        self.changed.retain(|id| id.client != client);
        self.asks.forget(|id| id.client == client, source);
    }
}
