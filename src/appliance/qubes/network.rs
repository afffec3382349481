//! From what stands in QubesDB to the network of the firewall (core-admin qubes/vm/qubesvm.py,
//! qubes/vm/mix/net.py).
//!
//! In: a copy of the database, and what was given on the command line. Out: a [`Network`]. Never: a
//! value dom0 wrote in place of one the owner of this firewall gave, or a guess at one that is broken.

use crate::firewall::{Alias, Config, DnsRedirect, Network, Site};
use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::str::FromStr;
use qubes::Store;
use wire::Uplink;

/// Where the other names of clients stand.
const MAPPED: &str = "/mapped-ip/";

/// What the command line gave; it is not changed by what dom0 says.
#[derive(Clone, Debug)]
pub(in crate::appliance) struct Given {
    /// On the first uplink, the only one that Qubes knows of.
    site: Site,
    dns: Option<DnsRedirect>,
    /// Nobody gave a policy: what `qvm-firewall` says is one.
    pub(in crate::appliance) no_policy: bool,
}

impl Given {
    pub(in crate::appliance) fn of(config: &Config, no_policy: bool) -> Self {
        Self { site: config.sites[Uplink::FIRST], dns: config.dns.clone(), no_policy }
    }
}

/// Whether a key has a part in the network.
pub(super) fn is_part(key: &str) -> bool {
    let names = ["/qubes-ip", "/qubes-ip6", "/connected-ips", "/connected-ips6"];
    names.contains(&key)
        || key.starts_with(MAPPED)
        || (key.starts_with("/qubes-") && key.ends_with("-dns"))
}

/// The network dom0 describes.
///
/// The next hop is at [`wire::Mac::BACKEND`], as in Qubes all backends are, whatever `/qubes-gateway`
/// and `/qubes-netmask` (a host route) say. Queries to the resolvers that clients are told of go to
/// our own, if those are others.
pub(super) fn network(given: &Given, store: &Store) -> Network {
    let site = Site {
        addr4: given.site.addr4.or_else(|| value(store, "/qubes-ip")),
        addr6: given.site.addr6.or_else(|| value(store, "/qubes-ip6")),
        ..given.site
    };
    let dns = |keys: [&str; 2]| -> Vec<IpAddr> {
        keys.iter().filter_map(|key| value(store, key)).collect()
    };
    let virtuals = dns(["/qubes-netvm-primary-dns", "/qubes-netvm-secondary-dns"]);
    let reals = dns(["/qubes-primary-dns", "/qubes-secondary-dns"]);
    let redirect = DnsRedirect { virtuals, reals };
    // Those that are where clients think they are count as well: names in rules are asked for there.
    let handed_out = !redirect.virtuals.is_empty();
    let answered = redirect.virtuals.iter().all(|asked| redirect.target(*asked).is_some());
    let resolvers = match (&given.dns, redirect.reals.is_empty()) {
        (Some(dns), _) => dns.reals.clone(),
        (None, true) => redirect.virtuals.clone(),
        (None, false) => redirect.reals.clone(),
    };
    let clients = ["/connected-ips", "/connected-ips6"].into_iter().flat_map(|key| {
        let text = store.get(key).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("");
        text.split_ascii_whitespace().filter_map(|addr| addr.parse().ok())
    });
    // Of clients with a fake address that one stands there; the real one is no less theirs.
    let aliases = aliases(store);
    let clients = clients.chain(aliases.iter().map(|alias| IpAddr::V4(alias.addr)));
    Network {
        site,
        clients: clients.filter(|addr| Some(*addr) != site.addr4.map(IpAddr::V4)).collect(),
        dns: given.dns.clone().or_else(|| (handed_out && answered).then_some(redirect)),
        resolvers,
        aliases,
    }
}

/// The clients whose address is faked: both keys are there, and say something else (core-agent-linux
/// network/vif-route-qubes).
fn aliases(store: &Store) -> Vec<Alias> {
    let visible = store.below(MAPPED).filter_map(|(key, _)| {
        let addr = key.strip_prefix(MAPPED)?.strip_suffix("/visible-ip")?;
        Some((
            addr.parse().ok()?,
            value(store, key)?,
            value(store, &format!("{MAPPED}{addr}/visible-gateway"))?,
        ))
    });
    let faked = visible.filter(|(addr, visible, _)| addr != visible);
    faked.map(|(addr, visible, gateway)| Alias { addr, visible, gateway }).collect()
}

fn value<T: FromStr>(store: &Store, key: &str) -> Option<T> {
    core::str::from_utf8(store.get(key)?).ok()?.trim().parse().ok()
}
