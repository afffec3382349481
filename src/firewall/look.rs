//! What can be seen of a running firewall.
//!
//! In: questions. Out: who is there, and what the rules would say. Never: a change, or a count.

use super::{Alias, Author, Firewall};
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;
use rules::{Action, Query};

impl Firewall {
    /// Whether there is a way to the world.
    #[must_use]
    pub fn has_uplink(&self) -> bool {
        self.links.uplink().is_some()
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
        let decision = policy.decide(query, &self.own);
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
