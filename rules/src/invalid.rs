//! What no firewall could obey.
//!
//! In: the parts of a policy, wherever they come from. Out: nothing, or the first thing that is wrong
//! with them. Never: a repair.

use crate::{
    Action, DnsRedirect, HOSTS_MAX, HOSTS_PER_RULE, HostName, Parts, RejectKind, Rule, Then, What,
    Zone,
};
use alloc::collections::BTreeSet;
use core::fmt;
use core::net::IpAddr;

/// Bytes a name may have.
const NAME_MAX: usize = 255;

/// Why parts do not make a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A name is empty, longer than 255 bytes, or holds control characters.
    Name,
    /// Two blocks for one direction.
    TwoBlocks(Zone, Zone),
    /// Flows from an uplink to an uplink never cross the firewall.
    Direction(Zone, Zone),
    /// The last rule of the block does not match everything.
    NoVerdict(Zone, Zone),
    /// The rule on this line resets what is not TCP.
    ResetWithoutTcp(u32),
    /// The rule on this line hands over to the rules of a VM, but its flows come from the uplink.
    QubesFromUplink(u32),
    /// The rule on this line matches nothing.
    MatchesNothing(u32),
    /// The rule on this line says a host name that cannot be resolved, or in another place than among
    /// the destinations of clients' flows to an uplink.
    Host(u32),
    /// The rule on this line says more than [`HOSTS_PER_RULE`] host names, or the first one above
    /// [`HOSTS_MAX`].
    ManyHosts(u32),
    /// A virtual resolver without a real one of its family.
    NoResolver(IpAddr),
    /// The rule on this line looks at TCP flags of what is not TCP.
    FlagsWithoutTcp(u32),
    /// The rule on this line has a rate that cannot be kept to.
    Rate(u32),
    /// A forward of this port leads nowhere, or nobody may use it.
    NoTarget(u16),
    /// Two ends of one translation or route are of different families.
    Families(IpAddr, IpAddr),
    /// An external address, or one of its ports, is spoken for twice; `None` is the firewall's own.
    TranslatedTwice(Option<IpAddr>, u16),
    /// An external address belongs to two uplinks.
    TwoUplinks(IpAddr),
    /// A route to what is no network.
    Route(IpAddr),
    /// Two routes to one network.
    RouteTwice(IpAddr),
    /// A port fixed for a whole client, or no port at all.
    PortWithoutSocket(u16),
    /// A timeout below what its RFC allows or above a week, or given twice.
    Timeout,
    /// No flow at all for any client.
    NoFlows,
    /// More of something than can be numbered.
    TooMany,
}

impl Parts {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        check_name(&self.name)?;
        self.vms.iter().try_for_each(|vm| check_name(&vm.name))?;
        for (i, block) in self.blocks.iter().enumerate() {
            let (from, to) = (block.from, block.to);
            check_direction(from, to)?;
            if self.blocks.iter().take(i).any(|b| (b.from, b.to) == (from, to)) {
                return Err(Invalid::TwoBlocks(from, to));
            }
            if !block.rules.last().is_some_and(Rule::matches_all) {
                return Err(Invalid::NoVerdict(from, to));
            }
            block.rules.iter().try_for_each(|rule| check_rule(from, rule))?;
            block.rules.iter().try_for_each(|rule| check_hosts((from, to), rule))?;
        }
        self.check_number_of_hosts()?;
        self.masquerade.iter().try_for_each(|&(from, to)| check_direction(from, to))?;
        self.services.check()?;
        self.redirect_dns.as_ref().map_or(Ok(()), check_redirect)
    }

    fn check_number_of_hosts(&self) -> Result<(), Invalid> {
        let mut all = BTreeSet::new();
        for rule in self.blocks.iter().flat_map(|block| &block.rules) {
            let Some(hosts) = &rule.hosts else { continue };
            all.extend(hosts.names());
            if hosts.names().len() > HOSTS_PER_RULE || all.len() > HOSTS_MAX {
                return Err(Invalid::ManyHosts(rule.line));
            }
        }
        Ok(())
    }
}

fn check_redirect(redirect: &DnsRedirect) -> Result<(), Invalid> {
    match redirect.virtuals.iter().find(|v| redirect.target(**v).is_none()) {
        Some(unanswered) => Err(Invalid::NoResolver(*unanswered)),
        None => Ok(()),
    }
}

/// Names reach consoles and logs, so they are one printable line.
fn check_name(name: &str) -> Result<(), Invalid> {
    let fine = !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(Invalid::Name) }
}

fn check_direction(from: Zone, to: Zone) -> Result<(), Invalid> {
    match (from, to) {
        (Zone::Uplink(_), Zone::Uplink(_)) => Err(Invalid::Direction(from, to)),
        _ => Ok(()),
    }
}

fn check_rule(from: Zone, rule: &Rule) -> Result<(), Invalid> {
    let matches_nothing = rule.src.is_empty()
        || (rule.dst.is_empty() && rule.hosts.is_none())
        || matches!(&rule.what, What::Of(kinds) if kinds.is_empty())
        || rule.when.as_ref().is_some_and(|when| when.is_empty());
    if matches_nothing {
        return Err(Invalid::MatchesNothing(rule.line));
    }
    let about_flags = rule.when.as_ref().is_some_and(|when| when.is_about_tcp());
    if about_flags && !rule.what.is_tcp_only() {
        return Err(Invalid::FlagsWithoutTcp(rule.line));
    }
    let rates = [rule.limit, rule.log.and_then(|note| note.limit)];
    if !rates.into_iter().flatten().all(|rate| rate.is_sound()) {
        return Err(Invalid::Rate(rule.line));
    }
    match rule.then {
        Then::Do(Action::Reject(RejectKind::TcpReset)) if !rule.what.is_tcp_only() => {
            Err(Invalid::ResetWithoutTcp(rule.line))
        }
        Then::Qubes if from != Zone::Clients => Err(Invalid::QubesFromUplink(rule.line)),
        Then::Do(_) | Then::Qubes => Ok(()),
    }
}

/// Only clients ask resolvers, and only what is in the world has a name there.
fn check_hosts((from, to): (Zone, Zone), rule: &Rule) -> Result<(), Invalid> {
    let Some(hosts) = &rule.hosts else { return Ok(()) };
    let outward = from == Zone::Clients && to != Zone::Clients;
    let sound = |name: &HostName| HostName::new(name.as_str()).as_ref() == Ok(name);
    match outward && hosts.names().iter().all(sound) {
        true => Ok(()),
        false => Err(Invalid::Host(rule.line)),
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a name is empty, too long or not printable"),
            Self::TwoBlocks(from, to) => write!(f, "two blocks for {from} -> {to}"),
            Self::Direction(from, to) => write!(f, "{from} -> {to} never crosses the firewall"),
            Self::NoVerdict(from, to) => write!(f, "the block {from} -> {to} ends in no verdict"),
            Self::ResetWithoutTcp(line) => {
                write!(f, "the rule on line {line} resets what is not TCP")
            }
            Self::QubesFromUplink(line) => {
                write!(f, "the rule on line {line} asks the uplink for a VM's rules")
            }
            Self::MatchesNothing(line) => write!(f, "the rule on line {line} matches nothing"),
            Self::Host(line) => {
                write!(f, "the rule on line {line} says a host name where none can be known")
            }
            Self::ManyHosts(line) => write!(
                f,
                "more than {HOSTS_PER_RULE} host names in the rule on line {line}, or more than \
                 {HOSTS_MAX} up to there"
            ),
            Self::NoResolver(asked) => write!(f, "no real resolver of the family of {asked}"),
            Self::FlagsWithoutTcp(line) => {
                write!(f, "the rule on line {line} looks at flags of what is not TCP")
            }
            Self::Rate(line) => write!(f, "the rate on line {line} cannot be kept to"),
            Self::NoTarget(port) => write!(f, "the forward of port {port} leads nowhere"),
            Self::Families(a, b) => write!(f, "{a} and {b} are of different families"),
            Self::TranslatedTwice(addr, port) => {
                f.write_str("spoken for twice: ")?;
                match addr {
                    Some(addr) => write!(f, "{addr}")?,
                    None => f.write_str("the firewall's own address")?,
                }
                if *port == 0 { Ok(()) } else { write!(f, " port {port}") }
            }
            Self::TwoUplinks(addr) => write!(f, "{addr} belongs to two uplinks"),
            Self::Route(net) => write!(f, "a route to {net}, which is no network of that length"),
            Self::RouteTwice(net) => write!(f, "two routes to {net}"),
            Self::PortWithoutSocket(port) => write!(f, "port {port} cannot serve a whole client"),
            Self::Timeout => f.write_str("a timeout is too short, too long or given twice"),
            Self::NoFlows => f.write_str("no client may have any flow"),
            Self::TooMany => f.write_str("more entries than can be numbered"),
        }
    }
}

impl core::error::Error for Invalid {}
