//! The rules of all VMs, brought into the common form.

use super::{Proto, RuleText, Target, Tree, TreeError, Verdict};
use crate::matcher::Index;
use crate::{
    Action, AddrSet, Family, HostName, OwnRule, PortSet, Query, RejectKind, Rule, Then, Traffic,
    What,
};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

/// The VMs' own rules, by client address.
#[derive(Clone, Debug)]
pub struct Trees {
    clients: BTreeMap<IpAddr, Client>,
    names: Names,
    /// Most rules of all clients together.
    most: usize,
    /// Whether every index is ready, so that nobody looks for one that is not.
    settled: bool,
}

#[derive(Clone, Debug)]
struct Client {
    tree: Result<Tree, TreeError>,
    /// The common form of `tree`; each rule's line is its number.
    rules: Vec<Rule>,
    index: Index,
}

/// What rules may name without saying an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    resolvers: Vec<IpAddr>,
    /// For each client by itself: what one is told is nothing to another.
    hosts: BTreeMap<(IpAddr, HostName), Named>,
}

/// The addresses that something named has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    addrs: Vec<IpAddr>,
    /// Whether it has no others.
    whole: bool,
}

impl Default for Trees {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Trees {
    /// No tree yet, and never more than `most` rules in all: a client whose rules come on top is
    /// blocked.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { clients: BTreeMap::new(), names: Names::default(), most, settled: true }
    }

    /// Takes the tree that was committed for `client`, or why it was not understood. Whether
    /// anything changed: dom0 often writes what already stands there.
    pub fn set(&mut self, client: IpAddr, tree: Result<Tree, TreeError>) -> bool {
        let tree = tree.and_then(|tree| match self.room_for(client) < tree.rules.len() {
            true => Err(TreeError::NoRoom),
            false => Ok(tree),
        });
        let rules = self.names.compile(client, &tree);
        let new = Client { tree, index: Index::new(&rules), rules };
        if self.clients.get(&client) == Some(&new) {
            return false;
        }
        // Names that are no longer used are no longer known.
        self.names
            .hosts
            .retain(|(of, host), _| *of != client || new.hosts().any(|used| used == host));
        self.clients.insert(client, new);
        self.settled = false;
        true
    }

    /// Goes on preparing to decide quickly, as [`crate::Policy::settle`] does.
    pub fn settle(&mut self, work: usize) -> bool {
        if !self.settled {
            let mut left = work;
            for client in self.clients.values_mut() {
                left = client.index.settle(&client.rules, left);
            }
            self.settled = self.clients.values().all(|client| client.index.is_settled());
        }
        self.settled
    }

    /// Says which addresses `specialtarget=dns` means. Whether that changed any rule.
    pub fn set_resolvers(&mut self, resolvers: &[IpAddr]) -> bool {
        if self.names.resolvers == resolvers {
            return false;
        }
        self.names.resolvers = resolvers.to_vec();
        let clients: Vec<IpAddr> = self.clients.keys().copied().collect();
        clients.into_iter().fold(false, |changed, client| self.compile_again(client) | changed)
    }

    /// Says which addresses `host` has for `client`; none if that is not known, and `whole` if there are
    /// no others. Whether that changed any rule.
    pub fn set_host(
        &mut self,
        client: IpAddr,
        host: HostName,
        addrs: Vec<IpAddr>,
        whole: bool,
    ) -> bool {
        if !self.hosts(client).any(|used| *used == host) {
            return false;
        }
        if addrs.is_empty() {
            self.names.hosts.remove(&(client, host));
        } else {
            self.names.hosts.insert((client, host), Named { addrs, whole });
        }
        self.compile_again(client)
    }

    /// Forgets which addresses hosts have for `client`. Whether that changed any rule.
    pub fn forget_hosts(&mut self, client: IpAddr) -> bool {
        self.names.hosts.retain(|(of, _), _| *of != client);
        self.compile_again(client)
    }

    /// Every host name the rules of `client` use.
    pub fn hosts(&self, client: IpAddr) -> impl Iterator<Item = &HostName> {
        self.clients.get(&client).into_iter().flat_map(Client::hosts)
    }

    /// How many rules `client` has, or why it is blocked; `None` if it has no tree.
    #[must_use]
    pub fn state(&self, client: IpAddr) -> Option<Result<usize, TreeError>> {
        let Client { tree, .. } = self.clients.get(&client)?;
        Some(tree.as_ref().map(|tree| tree.rules.len()).map_err(|why| *why))
    }

    /// Every address that has a tree.
    pub fn clients(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.clients.keys().copied()
    }

    /// Every client that is blocked because its tree was not understood.
    pub fn broken(&self) -> impl Iterator<Item = (IpAddr, TreeError)> + '_ {
        self.clients.iter().filter_map(|(addr, client)| Some((*addr, client.tree.clone().err()?)))
    }

    /// What the rules of the VM with the source address of `query` say.
    #[must_use]
    pub fn decide(&self, query: &Query) -> (Action, OwnRule) {
        let refuse = Action::Reject(RejectKind::AdminProhibited);
        let Some(Client { tree: Ok(tree), rules, index }) = self.clients.get(&query.src) else {
            return (refuse, OwnRule::Blocked);
        };
        match index.first(rules, query, &[]).and_then(|first| rules.get(first)) {
            Some(&Rule { then: Then::Do(action), line, .. }) => {
                (action, OwnRule::Number(u16::try_from(line).unwrap_or(u16::MAX)))
            }
            Some(_) => (refuse, OwnRule::Blocked),
            None => (tree.policy.action(), OwnRule::Fallback),
        }
    }

    /// The rules of `client` in the common form, and what becomes of the rest; `None` if there are
    /// none that were understood.
    pub(crate) fn of(&self, client: IpAddr) -> Option<(&[Rule], Action)> {
        let Client { tree, rules, .. } = self.clients.get(&client)?;
        let tree = tree.as_ref().ok()?;
        Some((rules, tree.policy.action()))
    }

    /// How many rules `client` may have beside those of all others.
    fn room_for(&self, client: IpAddr) -> usize {
        let others = self.clients.iter().filter(|(addr, _)| **addr != client);
        let used =
            others.map(|(_, client)| client.tree.as_ref().map_or(0, |tree| tree.rules.len()));
        self.most.saturating_sub(used.sum())
    }

    fn compile_again(&mut self, addr: IpAddr) -> bool {
        let Some(client) = self.clients.get_mut(&addr) else { return false };
        let rules = self.names.compile(addr, &client.tree);
        if rules == client.rules {
            return false;
        }
        self.settled = false;
        client.index = Index::new(&rules);
        client.rules = rules;
        true
    }
}

/// How far they are prepared does not matter.
impl PartialEq for Trees {
    fn eq(&self, other: &Self) -> bool {
        self.clients == other.clients && self.names == other.names
    }
}

impl Eq for Trees {}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.tree == other.tree && self.rules == other.rules
    }
}

impl Eq for Client {}

impl Client {
    fn hosts(&self) -> impl Iterator<Item = &HostName> {
        let rules = self.tree.iter().flat_map(|tree| tree.rules.values());
        rules.filter_map(|rule| match &rule.target {
            Target::Host(name) => Some(name),
            Target::Any | Target::Net(_) => None,
        })
    }
}

impl Names {
    fn compile(&self, client: IpAddr, tree: &Result<Tree, TreeError>) -> Vec<Rule> {
        let Ok(tree) = tree else { return Vec::new() };
        let family = Family::of(client);
        let any = Arc::new(AddrSet::any());
        let compile = |(number, text): (&u16, &RuleText)| {
            let what = text.what(family)?;
            let dst = Arc::new(self.dst(client, text));
            let then = Then::Do(text.action.action());
            let src = any.clone();
            let line = u32::from(*number);
            let hosts = None; // Their addresses are in `dst`.
            let (when, limit, log) = (None, None, None);
            let rule = Rule { line, src, dst, hosts, what, when, then, limit, log };
            (!rule.dst.is_empty()).then_some(rule)
        };
        tree.rules.iter().filter_map(compile).collect()
    }

    /// Where a rule applies.
    fn dst(&self, client: IpAddr, text: &RuleText) -> AddrSet {
        let target = match &text.target {
            Target::Any => AddrSet::any(),
            Target::Net(net) => net.clone(),
            Target::Host(name) => {
                let known = self.hosts.get(&(client, name.clone()));
                known_or(text.action, known.map(|named| (&*named.addrs, named.whole)))
            }
        };
        if !text.dns {
            return target;
        }
        target.intersection(&known_or(text.action, Some((&self.resolvers, true))))
    }
}

/// A name whose addresses are not known may stand for any: until they are, a rule that accepts it
/// applies nowhere, and one that drops it everywhere. If only some are known, those are accepted.
fn known_or(action: Verdict, known: Option<(&[IpAddr], bool)>) -> AddrSet {
    match (known, action) {
        (Some((addrs, whole)), _) if !addrs.is_empty() && (whole || action == Verdict::Accept) => {
            AddrSet::from_addrs(addrs.iter().copied())
        }
        (_, Verdict::Accept) => AddrSet::EMPTY,
        (_, Verdict::Drop) => AddrSet::any(),
    }
}

impl RuleText {
    /// The protocols and ports a rule applies to; `None` if no packet can have them.
    fn what(&self, family: Family) -> Option<What> {
        let ports = match (self.dns, self.dstports) {
            (false, ports) => ports,
            (true, None | Some((53, 53))) => Some((53, 53)),
            (true, Some(_)) => return None,
        };
        let dport = ports.map_or_else(PortSet::full, |range| PortSet::from_ranges([range]));
        let sport = PortSet::full();
        let tcp = Traffic::Tcp { sport: sport.clone(), dport: dport.clone() };
        let udp = Traffic::Udp { sport, dport };
        match (self.proto, self.icmptype) {
            (Some(Proto::Tcp), _) => Some(What::Of(vec![tcp])),
            (Some(Proto::Udp), _) => Some(What::Of(vec![udp])),
            (Some(Proto::Icmp), _) | (None, Some(_)) if self.dns => None,
            (Some(Proto::Icmp), None) => Some(What::Of(vec![Traffic::Icmp])),
            (_, Some(kind)) => Some(What::Of(vec![Traffic::IcmpType { family, kind, code: None }])),
            (None, None) if ports.is_some() => Some(What::Of(vec![tcp, udp])),
            (None, None) => Some(What::Any),
        }
    }
}

impl Verdict {
    const fn action(self) -> Action {
        match self {
            Self::Accept => Action::Accept,
            Self::Drop => Action::Reject(RejectKind::AdminProhibited),
        }
    }
}
