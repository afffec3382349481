//! Host names in the policy: for whom they are resolved, and what the rules know of them.
//!
//! In: policies, clients that come and go, what names stand for. Out: the names that each client has a
//! use for, and the table the rules are asked with. Never: more names than there is memory for, or one left
//! out without a word.

use super::{Event, Firewall};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use rules::{HostName, HostTable, Policy};
use wire::Instant;

/// How long resolvers may stay unknown before it is said: dom0 needs a moment to tell.
const GRACE: Duration = Duration::from_secs(10);

/// What is kept for names in the policy.
#[derive(Debug)]
pub(super) struct Hosts {
    /// What they stand for.
    pub(super) table: HostTable,
    /// Those that are resolved for each client that is there.
    resolved: BTreeMap<IpAddr, BTreeSet<HostName>>,
    /// Most of them in all.
    most: usize,
    /// Whether it is to be said that there is nobody to ask.
    nobody: bool,
    /// When, once somebody has looked at the clock.
    due: Option<Instant>,
}

impl Hosts {
    /// None, and never more than `most`.
    pub(super) const fn new(most: usize) -> Self {
        Self { table: HostTable::new(), resolved: BTreeMap::new(), most, nobody: false, due: None }
    }

    /// Those among `wanted` that there is room for, as names of `client` and instead of those it had; and
    /// how many there are beside them.
    pub(super) fn admit<'a>(
        &mut self,
        client: IpAddr,
        wanted: BTreeSet<&'a HostName>,
    ) -> (BTreeSet<&'a HostName>, usize) {
        self.resolved.remove(&client);
        let others: usize = self.resolved.values().map(BTreeSet::len).sum();
        let room = self.most.saturating_sub(others);
        let left_out = wanted.len().saturating_sub(room);
        let admitted: BTreeSet<_> = wanted.into_iter().take(room).collect();
        self.table.keep(client, &admitted);
        if !admitted.is_empty() {
            self.resolved.insert(client, admitted.iter().map(|name| (*name).clone()).collect());
        }
        (admitted, left_out)
    }

    /// Takes the addresses of a name in the eyes of `client`, if rules of the policy say it. Whether that
    /// changed anything.
    pub(super) fn take(&mut self, client: IpAddr, host: &HostName, addrs: &[IpAddr]) -> bool {
        let said = self.resolved.get(&client).is_some_and(|names| names.contains(host));
        said && self.table.set(client, host, addrs)
    }
}

impl Firewall {
    /// Never more than `most` names of the policy resolved, each counted for each client address it is
    /// resolved for. Before any client is there.
    pub fn limit_hosts(&mut self, most: usize) {
        self.hosts = Hosts::new(most);
        self.look_for_resolvers();
    }

    /// Takes it that `host` stands for these addresses in the eyes of `client`, until something else is
    /// heard of it. For whoever asks what a policy would do.
    pub fn suppose(&mut self, client: IpAddr, host: &HostName, addrs: &[IpAddr]) {
        if self.hosts.table.set(client, host, addrs) {
            self.ask_again_about(client);
        }
    }

    /// The policy is another: its names are resolved instead of those before.
    pub(super) fn take_hosts(&mut self, now: Instant) {
        let clients: Vec<IpAddr> = self.links.all_addrs().collect();
        if self.policy.as_ref().is_some_and(Policy::has_hosts) || !self.hosts.resolved.is_empty() {
            clients.into_iter().for_each(|client| self.take_names(now, client));
        }
    }

    /// The policy or the resolvers are others: if there is nobody to ask, that will be said.
    pub(super) fn look_for_resolvers(&mut self) {
        let wanted = self.policy.as_ref().is_some_and(Policy::has_hosts);
        (self.hosts.nobody, self.hosts.due) = (wanted && !self.names.has_resolvers(), None);
    }

    /// Says that nobody is known to be asked, if that has been so for long; when to look again.
    pub(super) fn say_who_is_missing(&mut self, now: Instant) -> Option<Instant> {
        if !self.hosts.nobody {
            return None;
        }
        let due = *self.hosts.due.get_or_insert(now + GRACE);
        if due > now {
            return Some(due);
        }
        self.hosts.nobody = false;
        self.journal.push(now, Event::NobodyToAsk);
        None
    }
}
