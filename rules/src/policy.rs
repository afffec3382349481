//! A checked policy.
//!
//! In: [`Parts`], plain data as `lang` or the blob decoder built it. Out: a [`Policy`], which holds
//! only if every block ends in a verdict and every rule can be obeyed.

use crate::matcher::Index;
use crate::{
    AddrSet, Family, HostName, HostSet, HostTable, Invalid, Query, Rule, RuleId, Services, Zone,
};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use wire::Uplink;

/// What a policy is made of, before it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The name of its file.
    pub name: String,
    /// The VMs it knows by name.
    pub vms: Vec<Vm>,
    /// One block for each direction it speaks of.
    pub blocks: Vec<Block>,
    /// Directions whose flows leave under the firewall's own address.
    pub masquerade: Vec<(Zone, Zone)>,
    /// DNS resolvers that are really somewhere else.
    pub redirect_dns: Option<DnsRedirect>,
    /// Translations that are written down, routes, the log's receiver, limits.
    pub services: Services,
}

/// A VM known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// The address of its interface, if only that may use them.
    pub mac: Option<[u8; 6]>,
}

/// The rules for flows that begin in one zone and go to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where the flows begin.
    pub from: Zone,
    /// Where they go.
    pub to: Zone,
    /// First match decides; the last one matches everything.
    pub rules: Vec<Rule>,
}

/// Queries to the first resolver that clients know go to the first real one, and so on in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRedirect {
    /// The resolvers the clients ask.
    pub virtuals: Vec<IpAddr>,
    /// Those that answer.
    pub reals: Vec<IpAddr>,
}

/// The SHA-256 of a policy's encoded body: equal policies have equal digests.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// A policy in which every rule can be obeyed.
#[derive(Clone, Debug)]
pub struct Policy {
    parts: Parts,
    digest: Digest,
    /// One for each block.
    indices: Vec<Index>,
    /// Whether all of them are ready.
    settled: bool,
    looks_at_headers: bool,
    /// The sources and the names of each rule that has names.
    named: BTreeSet<(Arc<AddrSet>, Arc<HostSet>)>,
}

impl Policy {
    /// Checks `parts`.
    ///
    /// # Errors
    /// The first thing that could not be obeyed.
    pub fn new(parts: Parts) -> Result<Self, Invalid> {
        parts.check()?;
        let digest = Digest::of(&crate::blob::encode_body(&parts)?);
        let indices = parts.blocks.iter().map(|block| Index::new(&block.rules)).collect();
        let rules = || parts.blocks.iter().flat_map(|block| &block.rules);
        let looks_at_headers = rules().any(|rule| rule.when.is_some());
        let named = rules().filter_map(|rule| Some((rule.src.clone(), rule.hosts.clone()?)));
        let named = named.collect();
        Ok(Self { parts, digest, indices, settled: false, looks_at_headers, named })
    }

    /// Goes on preparing to decide quickly, for about as long as `work` rules take to be looked at
    /// once (some 20 ns each). Whether nothing is left to be done.
    pub fn settle(&mut self, work: usize) -> bool {
        if !self.settled {
            let mut left = work;
            for (index, block) in self.indices.iter_mut().zip(&self.parts.blocks) {
                left = index.settle(&block.rules, left);
            }
            self.settled = self.indices.iter().all(Index::is_settled);
        }
        self.settled
    }

    /// Memory that deciding quickly takes, in bytes; at most [`crate::BYTES_PER_RULE`] for each rule.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.indices.iter().map(Index::bytes).sum()
    }

    /// The name of the file it was written in.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Whether some rule asks more than addresses, protocols and ports, so that queries need their
    /// [`crate::Header`].
    #[must_use]
    pub const fn looks_at_headers(&self) -> bool {
        self.looks_at_headers
    }

    /// Whether some rule says a host name, so that what they stand for has to be known.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        !self.named.is_empty()
    }

    /// The names that rules about flows of `client` say.
    #[must_use]
    pub fn hosts_of(&self, client: IpAddr) -> BTreeSet<&HostName> {
        let rules = self.named.iter().filter(|(src, _)| src.contains(client));
        rules.flat_map(|(_, hosts)| hosts.names()).collect()
    }

    /// Its fingerprint.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// All there is in it.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The name of the VM with the address `addr`, if the policy gives one.
    #[must_use]
    pub fn vm_name(&self, addr: IpAddr) -> Option<&str> {
        self.parts.vms.iter().find(|vm| vm.addrs.contains(&addr)).map(|vm| vm.name.as_str())
    }

    /// The address of the interface that alone may use `addr`, if the policy gives one.
    #[must_use]
    pub fn mac_of(&self, addr: IpAddr) -> Option<[u8; 6]> {
        self.parts.vms.iter().find(|vm| vm.mac.is_some() && vm.addrs.contains(&addr))?.mac
    }

    /// Whether flows from `from` to `to` leave under the firewall's own address.
    #[must_use]
    pub fn masquerades(&self, from: Zone, to: Zone) -> bool {
        self.parts.masquerade.contains(&(from, to))
    }

    /// Whether flows from `inside` that leave by `uplink` do so under a name that is answered.
    #[must_use]
    pub fn translates(&self, inside: IpAddr, uplink: Uplink) -> bool {
        self.masquerades(Zone::Clients, Zone::Uplink(uplink))
            || self.parts.services.translates(inside, uplink)
    }

    /// The resolver that answers for `asked`, if DNS queries (TCP or UDP port 53) of clients to it
    /// are redirected. The redirect comes before the rules: they see the real resolver.
    #[must_use]
    pub fn dns_target(&self, asked: IpAddr) -> Option<IpAddr> {
        self.parts.redirect_dns.as_ref()?.target(asked)
    }

    /// Every rule id of this policy, [`RuleId::DEFAULT`] first.
    pub fn rule_ids(&self) -> impl Iterator<Item = RuleId> + use<> {
        let rules: usize = self.parts.blocks.iter().map(|b| b.rules.len()).sum();
        (0..=u32::try_from(rules).unwrap_or(u32::MAX)).map(RuleId)
    }

    /// The rules for one direction, in order.
    pub fn block(&self, from: Zone, to: Zone) -> impl Iterator<Item = (RuleId, &Rule)> {
        let found = self.blocks().find(|(_, block, _)| (block.from, block.to) == (from, to));
        let (first, rules) = found.map_or((1, &[][..]), |(first, block, _)| (first, &block.rules));
        (first..).map(RuleId).zip(rules)
    }

    /// The first rule that matches `query` in the block for its direction.
    pub(crate) fn first_match(&self, query: &Query, hosts: &HostTable) -> Option<(RuleId, &Rule)> {
        let here = |block: &Block| (block.from, block.to) == (query.from, query.to);
        let (first, block, index) = self.blocks().find(|(_, block, _)| here(block))?;
        let named = if self.has_hosts() { hosts.of(query.src, query.dst) } else { &[] };
        let position = index.first(&block.rules, query, named)?;
        let id = first.saturating_add(u32::try_from(position).unwrap_or(u32::MAX));
        Some((RuleId(id), block.rules.get(position)?))
    }

    /// The rule `id` with its block; `None` for [`RuleId::DEFAULT`].
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<(&Block, &Rule)> {
        self.blocks().find_map(|(first, block, _)| {
            let position = id.0.checked_sub(first)? as usize;
            block.rules.get(position).map(|rule| (block, rule))
        })
    }

    /// Each block with the number of its first rule and its index.
    fn blocks(&self) -> impl Iterator<Item = (u32, &Block, &Index)> {
        let mut next = 1u32;
        self.parts.blocks.iter().zip(&self.indices).map(move |(block, index)| {
            let first = next;
            next = next.saturating_add(u32::try_from(block.rules.len()).unwrap_or(u32::MAX));
            (first, block, index)
        })
    }

    /// Where the rule `id` was written, as a log prints it: `laptop.tide:12`.
    #[must_use]
    pub const fn location(&self, id: RuleId) -> Location<'_> {
        Location { policy: self, id }
    }
}

/// Policies are equal if their parts are; how far they are prepared does not matter.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Policy {}

/// Prints where a rule was written.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    policy: &'a Policy,
    id: RuleId,
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy.rule(self.id) {
            Some((_, rule)) if rule.line != 0 => write!(f, "{}:{}", self.policy.name(), rule.line),
            _ => write!(f, "{}: no block for this direction", self.policy.name()),
        }
    }
}

impl DnsRedirect {
    /// The real resolver for `asked`: within its family, the n-th stands for the n-th, in turn.
    #[must_use]
    pub fn target(&self, asked: IpAddr) -> Option<IpAddr> {
        let same = |addr: &&IpAddr| Family::of(**addr) == Family::of(asked);
        let nth = self.virtuals.iter().filter(same).position(|v| *v == asked)?;
        self.reals.iter().filter(same).cycle().nth(nth).copied()
    }

    /// The addresses clients ask.
    #[must_use]
    pub fn virtual_set(&self) -> AddrSet {
        AddrSet::from_addrs(self.virtuals.iter().copied())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
