//! Builds the common form, and refuses what no firewall could obey or no author can have meant.

mod blocks;
mod services;

use crate::ast::{Addresses, File, Redirect, VmItem};
use crate::diagnostic::Report;
use crate::names::{Names, Places, addresses_of};
use crate::{Source, Span};
use blocks::{Blocks, Placed};
use rules::{
    AddrSet, DnsRedirect, Family, Forward, HOSTS_MAX, HostName, HostSet, Invalid, Parts, Policy,
    Uplink, Vm, Zone,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A policy, and where its parts stand in the file.
pub(crate) struct Lowered {
    pub(crate) policy: Policy,
    /// Each rule, by its id; `None` for one that nobody wrote.
    pub(crate) spans: Vec<Option<Span>>,
    /// Each forward.
    pub(crate) forwards: Vec<Span>,
}

/// The policy in `file`, if nothing is wrong with it.
pub(crate) fn lower(
    source: &Source,
    file: &File<'_>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Lowered> {
    let mut lower = Lower {
        source,
        file,
        names,
        sets: HashMap::new(),
        hosts: HashSet::new(),
        all_hosts: BTreeSet::new(),
        directions: HashMap::new(),
        groups: Vec::new(),
        forwards: Vec::new(),
        external: HashMap::new(),
        report,
    };
    let Blocks { blocks, spans } = lower.blocks();
    let (masquerade, services) = lower.services();
    lower.accepted_is_translated(&blocks, &masquerade, &services);
    let redirect_dns = lower.redirect(&file.redirects);
    let vms = lower.vms();
    let forwards = lower.forwards.iter().map(|(_, span)| *span).collect();
    if !report.is_clean() {
        return None;
    }
    let name = source.short_name().to_owned();
    match Policy::new(Parts { name, vms, blocks, masquerade, redirect_dns, services }) {
        Ok(policy) => Some(Lowered { policy, spans, forwards }),
        Err(why) => {
            let start = Span { start: 0, end: 0 };
            let message = format!("this file makes no policy: {why}");
            let more = report.error("invalid", message, start, "");
            if why == Invalid::Name {
                more.help("the log speaks of the policy by the name of its file: rename it");
            }
            None
        }
    }
}

/// Addresses, and names that stand for some.
type Destinations = (Arc<AddrSet>, Option<Arc<HostSet>>);

struct Lower<'s, 'r> {
    source: &'s Source,
    file: &'s File<'s>,
    names: &'s Names<'s>,
    /// Rules that mean the same addresses share one set.
    sets: HashMap<AddrSet, Arc<AddrSet>>,
    /// The same of names.
    hosts: HashSet<Arc<HostSet>>,
    /// All of them, as long as they are not too many.
    all_hosts: BTreeSet<HostName>,
    /// Where each direction that has a block for whole zones, or else any, is named first.
    directions: HashMap<(Zone, Zone), Span>,
    /// The rules of each group.
    groups: Vec<Vec<Placed>>,
    /// Ports that are forwarded, each with its place.
    forwards: Vec<(Forward, Span)>,
    /// On which uplink each external address is answered for, and where that is said first.
    external: HashMap<IpAddr, (Uplink, Span)>,
    report: &'r mut Report,
}

impl Lower<'_, '_> {
    fn set(&mut self, list: Option<&[Addresses<'_>]>) -> Arc<AddrSet> {
        let set = list.map_or_else(AddrSet::any, |list| self.names.addresses(list, self.report));
        self.shared(set)
    }

    /// Destinations: addresses, and names that stand for some.
    fn places(&mut self, list: Option<&[Addresses<'_>]>) -> Destinations {
        let Some(list) = list else { return (self.shared(AddrSet::any()), None) };
        let places = self.names.places(list, self.report);
        let hosts = places.host_set().map(|hosts| match self.hosts.get(&hosts) {
            Some(shared) => shared.clone(),
            None => {
                self.count_hosts(&places);
                self.hosts.insert(hosts.clone());
                hosts
            }
        });
        (self.shared(places.addrs), hosts)
    }

    /// Refuses more names than are resolved.
    fn count_hosts(&mut self, places: &Places) {
        let before = self.all_hosts.len();
        for (name, span) in &places.hosts {
            self.all_hosts.insert(name.clone());
            if before <= HOSTS_MAX && self.all_hosts.len() > HOSTS_MAX {
                let message = format!("a policy has {HOSTS_MAX} host names at most");
                self.report
                    .error("too-many-hosts", message, *span, "one too many")
                    .help("each is asked for again and again, for each client it is for");
                return;
            }
        }
    }

    fn shared(&mut self, set: AddrSet) -> Arc<AddrSet> {
        self.sets.entry(set).or_insert_with_key(|set| Arc::new(set.clone())).clone()
    }

    fn vms(&mut self) -> Vec<Vm> {
        let mut vms = Vec::new();
        for vm in &self.file.vms {
            let mut macs = vm.items.iter().filter_map(|item| match item {
                VmItem::Mac(mac, span) => Some((*mac, *span)),
                VmItem::Address(_) => None,
            });
            let mac = macs.next();
            if let (Some((_, first)), Some((_, second))) = (mac, macs.next()) {
                let message = "this VM has an interface already";
                self.report
                    .error("twice", message, second, "again")
                    .see(first, "first here")
                    .help("addresses of another interface belong to another `vm`");
            }
            let addrs: Vec<_> = addresses_of(&vm.items).map(|(addr, _)| addr).collect();
            if let (Some((_, span)), true) = (mac, addrs.is_empty()) {
                let message = "an interface alone tells no VM";
                self.report
                    .error("mac-alone", message, span, "")
                    .help("rules go by addresses: `vm work = 10.137.0.10, mac 00:16:3e:5e:6c:10`");
            }
            let name = vm.name.text.to_owned();
            vms.push(Vm { name, addrs, mac: mac.map(|(mac, _)| mac) });
        }
        vms
    }

    fn redirect(&mut self, redirects: &[Redirect]) -> Option<DnsRedirect> {
        let (first, more) = redirects.split_first()?;
        for other in more {
            self.report
                .error("twice", "the resolvers are redirected already", other.span, "again")
                .see(first.span, "first here");
        }
        let addrs = |list: &[crate::ast::Address]| list.iter().map(|a| a.addr).collect::<Vec<_>>();
        let lowered = DnsRedirect { virtuals: addrs(&first.virtuals), reals: addrs(&first.reals) };
        let mut seen: HashMap<IpAddr, Span> = HashMap::new();
        for asked in &first.virtuals {
            if let Some(before) = seen.insert(asked.addr, asked.span) {
                let message = format!("{} is redirected already", asked.addr);
                self.report.error("twice", message, asked.span, "again").see(before, "first here");
            } else if lowered.target(asked.addr).is_none() {
                let family = match Family::of(asked.addr) {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                };
                let message = format!("no {family} resolver can answer for {}", asked.addr);
                self.report
                    .error("no-resolver", message, asked.span, "")
                    .help(format!("add an {family} address behind `to`"));
            }
        }
        Some(lowered)
    }
}
