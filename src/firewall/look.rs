//! What can be seen of a running firewall.
//!
//! In: questions. Out: who is there, and what the rules would say. Never: a change, or a count.

use super::{Alias, Author, Firewall};
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;
use rules::{Action, Policy, Query, Zone};
use wire::Uplink;

impl Firewall {
    /// Whether the first uplink is up.
    #[must_use]
    pub fn has_uplink(&self) -> bool {
        self.links.uplink(Uplink::FIRST).is_some()
    }

    /// The further uplinks that the policy speaks of and that are none, as we have no address there.
    /// What would leave by them has no way.
    pub fn missing_uplinks(&self) -> impl Iterator<Item = Uplink> + '_ {
        let parts = self.policy.as_ref().map(Policy::parts);
        let spoken_of = move |uplink: &Uplink| {
            parts.is_some_and(|parts| {
                let zones = parts.blocks.iter().flat_map(|block| [block.from, block.to]);
                let zones =
                    zones.chain(parts.masquerade.iter().flat_map(|(from, to)| [*from, *to]));
                let routes = parts.services.routes.iter().map(|route| Some(route.uplink));
                zones.map(Zone::uplink).chain(routes).any(|of| of == Some(*uplink))
            })
        };
        let missing = |uplink: &Uplink| !self.ways.is_there(*uplink);
        Uplink::ALL.into_iter().filter(missing).filter(spoken_of)
    }

    /// The addresses of the clients that are there.
    pub fn clients(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.links.all_addrs()
    }

    /// Whether a client with this address is there.
    #[must_use]
    pub fn is_up(&self, client: IpAddr) -> bool {
        self.links.is_a_client(client)
    }

    /// The clients that are told to go by other names, there or not.
    #[must_use]
    pub fn aliases(&self) -> &[Alias] {
        self.links.aliases()
    }

    /// What the rules say about a new flow, and which of them.
    #[must_use]
    pub fn explain(&self, query: &Query) -> String {
        let Some(policy) = &self.policy else { return format!("drop {query}, no policy") };
        let decision = policy.decide(query, &self.own, &self.hosts.table);
        let verdict = match decision.action {
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Reject(_) => "reject",
        };
        let line = policy.rule(decision.rule).map(|(_, rule)| rule.line);
        let author = Author { line, own: decision.own };
        format!("{verdict} {query}{}", fmt::from_fn(|f| author.write(f, policy.name())))
    }
}
