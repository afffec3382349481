//! What each name of a file stands for.
//!
//! In: the declarations, in any order. Out: a table from names to zones, VMs, address sets and kinds
//! of traffic. Unknown names, names of the wrong sort, names given twice and sets that contain
//! themselves are reported here, each once. Never: recursion; names may be nested as deep as the
//! file is long.

mod order;

use crate::Span;
use crate::ast::{Addresses, Decl, File, IcmpType, Kind, Name, VmItem};
use crate::diagnostic::{More, Report};
use crate::words::did_you_mean;
use order::{Order, in_order};
use rules::{AddrSet, HostName, HostSet, PortSet, Traffic, What, Zone};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The names of a file.
#[derive(Default)]
pub(crate) struct Names<'a> {
    table: HashMap<&'a str, Entry>,
}

struct Entry {
    declared: Span,
    thing: Thing,
}

#[derive(Clone)]
enum Thing {
    /// `None` if its device was not understood, which has been said.
    Zone(Option<Zone>),
    Vm(Vec<IpAddr>),
    Set(Places),
    Service(Kinds),
    /// Which of the file's groups.
    Group(usize),
}

/// Addresses, and names that stand for some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub(crate) addrs: AddrSet,
    /// Each with a place where it was written.
    pub(crate) hosts: BTreeMap<HostName, Span>,
}

impl Places {
    /// The names, unless there is none or the addresses are all there are.
    pub(crate) fn host_set(&self) -> Option<Arc<HostSet>> {
        let hosts = HostSet::new(self.hosts.keys().cloned()).map(Arc::new);
        hosts.filter(|_| !self.addrs.is_any())
    }
}

/// Reports a host name where none can be known.
pub(crate) fn misplaced(report: &mut Report, span: Span) -> More<'_> {
    let message = "a host name can only be a destination in the world";
    report
        .error("host-not-destination", message, span, "")
        .help("it stands behind `to` in a block such as `policy clients -> uplink`")
}

/// Where the flows of a block begin or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Zone(Zone),
    /// Some of the clients.
    Clients(AddrSet),
}

impl Side {
    /// The zone it is or lies in.
    pub(crate) const fn zone(&self) -> Zone {
        match self {
            Self::Zone(zone) => *zone,
            Self::Clients(_) => Zone::Clients,
        }
    }
}

/// Kinds of traffic, each port and type once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kinds {
    tcp: PortSet,
    udp: PortSet,
    /// All of ICMP.
    icmp: bool,
    /// Some of it.
    types: BTreeSet<IcmpType>,
}

/// Ties the names of `file` to what they stand for.
pub(crate) fn resolve<'a>(file: &File<'a>, report: &mut Report) -> Names<'a> {
    let mut names = Names::default();
    for zone in &file.zones {
        names.declare(zone.name, Thing::Zone(zone.zone), report);
    }
    for vm in &file.vms {
        let addrs = addresses_of(&vm.items).map(|(addr, _)| addr).collect();
        names.declare(vm.name, Thing::Vm(addrs), report);
    }
    for set in &file.sets {
        names.declare(set.name, Thing::Set(Places::default()), report);
    }
    for service in &file.services {
        names.declare(service.name, Thing::Service(Kinds::NONE), report);
    }
    for (number, group) in file.groups.iter().enumerate() {
        names.declare(group.name, Thing::Group(number), report);
    }
    one_zone_per_device(file, report);
    one_vm_per_address(file, report);
    names.fill_sets(&file.sets, report);
    names.fill_services(&file.services, report);
    names
}

impl<'a> Names<'a> {
    /// The zone `name` stands for.
    pub(crate) fn zone(&self, name: Name<'_>, report: &mut Report) -> Option<Zone> {
        match self.find(name, "zone", |thing| matches!(thing, Thing::Zone(_)), report)? {
            Thing::Zone(zone) => *zone,
            _ => None,
        }
    }

    /// The zone `name` stands for, if it is one.
    pub(crate) fn zone_named(&self, name: Name<'_>) -> Option<Zone> {
        match self.table.get(name.text)?.thing {
            Thing::Zone(zone) => zone,
            _ => None,
        }
    }

    /// What the author calls `zone`.
    pub(crate) fn zone_called(&self, zone: Zone) -> String {
        let is = |entry: &Entry| matches!(entry.thing, Thing::Zone(Some(of)) if of == zone);
        let called = self.table.iter().filter(|(_, entry)| is(entry));
        let called = called.min_by_key(|(_, entry)| entry.declared);
        called.map_or_else(|| zone.to_string(), |(name, _)| (*name).to_owned())
    }

    /// The addresses of the VM `name` stands for.
    pub(crate) fn vm(&self, name: Name<'_>, report: &mut Report) -> Option<&[IpAddr]> {
        match self.find(name, "vm", |thing| matches!(thing, Thing::Vm(_)), report)? {
            Thing::Vm(addrs) => Some(addrs),
            _ => None,
        }
    }

    /// Where the flows of a block begin or end: in the zone `name`, or at the clients it stands for.
    pub(crate) fn side(&self, name: Name<'_>, report: &mut Report) -> Option<Side> {
        let fits = |thing: &Thing| matches!(thing, Thing::Zone(_) | Thing::Vm(_) | Thing::Set(_));
        match self.find(name, "zone, vm or set", fits, report)? {
            Thing::Zone(zone) => zone.map(Side::Zone),
            Thing::Vm(addrs) => Some(Side::Clients(AddrSet::from_addrs(addrs.iter().copied()))),
            Thing::Set(set) => {
                if let Some(host) = set.hosts.values().next() {
                    misplaced(report, name.span).see(*host, "this is in the set");
                }
                Some(Side::Clients(set.addrs.clone()))
            }
            Thing::Service(_) | Thing::Group(_) => None,
        }
    }

    /// The number of the group `name` stands for.
    pub(crate) fn group(&self, name: Name<'_>, report: &mut Report) -> Option<usize> {
        match self.find(name, "group", |thing| matches!(thing, Thing::Group(_)), report)? {
            Thing::Group(number) => Some(*number),
            _ => None,
        }
    }

    /// All addresses in `list`, which must not hold names of hosts.
    pub(crate) fn addresses(&self, list: &[Addresses<'_>], report: &mut Report) -> AddrSet {
        for item in list {
            match item {
                Addresses::Range(..) => {}
                Addresses::Host(_, span) => {
                    misplaced(report, *span);
                }
                Addresses::Named(name) => {
                    if let Some(Entry { thing: Thing::Set(set), .. }) = self.table.get(name.text)
                        && let Some(host) = set.hosts.values().next()
                    {
                        misplaced(report, name.span).see(*host, "this is in the set");
                    }
                }
            }
        }
        self.places(list, report).addrs
    }

    /// All addresses in `list`, and names that stand for some.
    pub(crate) fn places(&self, list: &[Addresses<'_>], report: &mut Report) -> Places {
        let mut hosts = BTreeMap::new();
        let is_addresses = |thing: &Thing| matches!(thing, Thing::Vm(_) | Thing::Set(_));
        let mut ranges = Vec::new();
        for item in list {
            match item {
                Addresses::Range(first, last) => ranges.push((*first, *last)),
                Addresses::Host(name, span) => {
                    hosts.entry(name.clone()).or_insert(*span);
                }
                Addresses::Named(name) => match self.find(*name, "vm or set", is_addresses, report)
                {
                    Some(Thing::Vm(addrs)) => ranges.extend(addrs.iter().map(|&a| (a, a))),
                    Some(Thing::Set(set)) => {
                        ranges.extend(set.addrs.ranges());
                        hosts.extend(set.hosts.iter().map(|(name, span)| (name.clone(), *span)));
                    }
                    Some(_) | None => {}
                },
            }
        }
        Places { addrs: AddrSet::from_ranges(ranges), hosts }
    }

    /// All kinds of traffic in `list`.
    pub(crate) fn kinds(&self, list: &[Kind<'_>], report: &mut Report) -> Kinds {
        let mut all = Kinds::NONE;
        for kind in list {
            match kind {
                Kind::Tcp(ports) => all.tcp = union(&all.tcp, &every_if_none(ports)),
                Kind::Udp(ports) => all.udp = union(&all.udp, &every_if_none(ports)),
                Kind::Icmp => all.icmp = true,
                Kind::IcmpTypes(types) => all.types.extend(types.iter()),
                Kind::IcmpType(one) => all.types.extend([*one]),
                Kind::Service(name) => {
                    let is_service = |thing: &Thing| matches!(thing, Thing::Service(_));
                    if let Some(Thing::Service(kinds)) =
                        self.find(*name, "service", is_service, report)
                    {
                        all = all.with(kinds);
                    }
                }
            }
        }
        all
    }

    fn declare(&mut self, name: Name<'a>, thing: Thing, report: &mut Report) {
        let entry = Entry { declared: name.span, thing };
        let Some(other) = self.table.get_mut(name.text) else {
            self.table.insert(name.text, entry);
            return;
        };
        let (first, second) = match other.declared < name.span {
            true => (other.declared, name.span),
            false => (name.span, other.declared),
        };
        if first == name.span {
            *other = entry;
        }
        report
            .error("declared-twice", format!("`{}` is declared twice", name.text), second, "again")
            .see(first, "first here");
    }

    /// What `name` stands for, if it is of the wanted `sort`.
    fn find(
        &self,
        name: Name<'_>,
        sort: &str,
        fits: impl Fn(&Thing) -> bool,
        report: &mut Report,
    ) -> Option<&Thing> {
        match self.table.get(name.text) {
            Some(entry) if fits(&entry.thing) => Some(&entry.thing),
            Some(entry) => {
                let is = entry.thing.sort();
                let message = format!("`{}` is a {is}, not a {sort}", name.text);
                let more = report
                    .error("wrong-kind", message, name.span, format!("a {sort} is needed here"))
                    .see(entry.declared, format!("declared as a {is} here"));
                match entry.thing {
                    Thing::Zone(_) => {
                        more.help("zones stand before the block: `policy clients -> uplink`");
                    }
                    Thing::Service(_) => {
                        more.help(format!("a service follows the verdict: `accept {}`", name.text));
                    }
                    Thing::Group(_) => {
                        more.help(format!("its rules are asked by `use {}`", name.text));
                    }
                    Thing::Vm(_) | Thing::Set(_) => {}
                }
                None
            }
            None => {
                let fitting = self.table.iter().filter(|(_, entry)| fits(&entry.thing));
                let mut candidates: Vec<_> = fitting.map(|(name, _)| *name).collect();
                candidates.sort_unstable();
                let meant = did_you_mean(name.text, candidates);
                let message = format!("there is no {sort} `{}`", name.text);
                report.error("unknown-name", message, name.span, "").maybe_help(meant);
                None
            }
        }
    }

    fn fill_sets(&mut self, sets: &[Decl<'a, Addresses<'a>>], report: &mut Report) {
        let uses = |set: &Decl<'a, Addresses<'a>>| {
            let named = set.items.iter().filter_map(|item| match item {
                Addresses::Named(name) => Some(*name),
                Addresses::Range(..) | Addresses::Host(..) => None,
            });
            named.collect()
        };
        for set in self.ordered(sets, uses, report) {
            let filled = Thing::Set(self.places(&set.items, report));
            self.fill(set.name, filled);
        }
    }

    fn fill_services(&mut self, services: &[Decl<'a, Kind<'a>>], report: &mut Report) {
        let uses = |service: &Decl<'a, Kind<'a>>| {
            let named = service.items.iter().filter_map(|kind| match kind {
                Kind::Service(name) => Some(*name),
                _ => None,
            });
            named.collect()
        };
        for service in self.ordered(services, uses, report) {
            let filled = Thing::Service(self.kinds(&service.items, report));
            self.fill(service.name, filled);
        }
    }

    /// The declarations so that each comes after those it uses; those that use themselves are
    /// reported and come last.
    fn ordered<'d, T>(
        &self,
        decls: &'d [Decl<'a, T>],
        uses: impl Fn(&Decl<'a, T>) -> Vec<Name<'a>>,
        report: &mut Report,
    ) -> Vec<&'d Decl<'a, T>> {
        let Order { sorted, cycles } = in_order(decls.iter().map(|d| (d.name, uses(d))));
        for cycle in cycles {
            let Some((first, others)) = cycle.split_first() else { continue };
            let message = format!("`{}` contains itself", first.text);
            let mut more = report.error("cycle", message, first.span, "used here");
            for use_of in others {
                more = more.see(use_of.span, format!("which uses `{}`", use_of.text));
            }
        }
        sorted.into_iter().filter_map(|index| decls.get(index)).collect()
    }

    /// Unless the name belongs to another declaration, which has been reported.
    fn fill(&mut self, name: Name<'_>, thing: Thing) {
        if let Some(entry) = self.table.get_mut(name.text).filter(|e| e.declared == name.span) {
            entry.thing = thing;
        }
    }
}

fn one_zone_per_device(file: &File<'_>, report: &mut Report) {
    for (i, zone) in file.zones.iter().enumerate() {
        let same = |other: &&crate::ast::ZoneDecl<'_>| other.zone == zone.zone;
        let Some(first) = file.zones.iter().take(i).find(same) else { continue };
        if zone.zone.is_some() {
            report
                .error("zone-twice", "these interfaces are a zone already", zone.name.span, "again")
                .see(first.name.span, "first here");
        }
    }
}

fn one_vm_per_address(file: &File<'_>, report: &mut Report) {
    let mut owners = HashMap::new();
    for vm in &file.vms {
        for (addr, span) in addresses_of(&vm.items) {
            if let Some(first) = owners.insert(addr, span) {
                let message = format!("{addr} belongs to a VM already");
                report
                    .error("address-twice", message, span, "again")
                    .see(first, "first here")
                    .help("an address tells VMs apart, so each has one owner");
            }
        }
    }
}

/// The addresses of a VM.
pub(crate) fn addresses_of(items: &[VmItem]) -> impl Iterator<Item = (IpAddr, Span)> {
    items.iter().filter_map(|item| match item {
        VmItem::Address(address) => Some((address.addr, address.span)),
        VmItem::Mac(..) => None,
    })
}

impl Thing {
    const fn sort(&self) -> &'static str {
        match self {
            Self::Zone(_) => "zone",
            Self::Vm(_) => "vm",
            Self::Set(_) => "set",
            Self::Service(_) => "service",
            Self::Group(_) => "group",
        }
    }
}

impl Kinds {
    const NONE: Self =
        Self { tcp: PortSet::EMPTY, udp: PortSet::EMPTY, icmp: false, types: BTreeSet::new() };

    fn with(&self, other: &Self) -> Self {
        Self {
            tcp: union(&self.tcp, &other.tcp),
            udp: union(&self.udp, &other.udp),
            icmp: self.icmp || other.icmp,
            types: self.types.union(&other.types).copied().collect(),
        }
    }

    pub(crate) fn has_icmp(&self) -> bool {
        self.icmp || !self.types.is_empty()
    }

    /// In the common form, from these source ports.
    pub(crate) fn what(self, sport: &PortSet) -> What {
        let mut kinds = Vec::new();
        let Self { tcp, udp, icmp, types } = self;
        if !tcp.is_empty() {
            kinds.push(Traffic::Tcp { sport: sport.clone(), dport: tcp });
        }
        if !udp.is_empty() {
            kinds.push(Traffic::Udp { sport: sport.clone(), dport: udp });
        }
        if icmp {
            kinds.push(Traffic::Icmp);
        } else {
            let of = |(family, kind, code)| Traffic::IcmpType { family, kind, code };
            kinds.extend(types.into_iter().map(of));
        }
        What::Of(kinds)
    }
}

fn every_if_none(ports: &[(u16, u16)]) -> PortSet {
    if ports.is_empty() { PortSet::full() } else { PortSet::from_ranges(ports.iter().copied()) }
}

fn union(a: &PortSet, b: &PortSet) -> PortSet {
    PortSet::from_ranges(a.ranges().iter().chain(b.ranges()).copied())
}
