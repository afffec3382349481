//! Translations, routes, the receiver of the log, and limits.
//!
//! In: what was written. Out: plain data of which each question has one answer. Never: an address of
//! the firewall itself, which is not known here.

use super::Lower;
use super::blocks::to_ports;
use crate::Span;
use crate::ast::{self, End, Host, How, Nat};
use crate::names::misplaced;
use rules::{
    AddrSet, Block, Forward, OneToOne, PortSet, ROUTES_MAX, Route, SERVICES_MAX, Services, Source,
    Syslog, Then, Uplink, What, Zone,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Ports that one `forward` may name: a range becomes so many.
const PORTS_MAX: usize = 256;

impl Lower<'_, '_> {
    /// Which directions are masqueraded, and everything else. To be asked behind all blocks, whose
    /// forwards are part of it.
    pub(super) fn services(&mut self) -> (Vec<(Zone, Zone)>, Services) {
        let file = self.file;
        let (mut masquerade, mut services) = (Vec::new(), Services::default());
        let mut hairpin: Option<Span> = None;
        let mut said = HashMap::new();
        for nat in &file.nats {
            let Some((from, to)) = self.direction(nat) else { continue };
            let uplink = to.uplink().or(from.uplink()).unwrap_or_default();
            match &nat.how {
                How::Masquerade => {
                    if self.said(&mut said, format!("masquerade {uplink}"), nat.span) {
                        masquerade.push((from, to));
                    }
                }
                How::Hairpin => {
                    self.said(&mut said, "hairpin".to_owned(), nat.span);
                    hairpin = Some(nat.span);
                }
                How::Snat { proto, from, to } => {
                    let sources = self.snat(uplink, *proto, from, to);
                    for source in sources {
                        let key = format!("{uplink} {} {:?}", source.inside, source.socket);
                        self.said(&mut said, key, nat.span);
                        self.answered_on(uplink, source.external, to.span);
                        services.sources.push(source);
                        self.room((services.sources.len(), SERVICES_MAX), "sources", nat.span);
                    }
                }
                How::OneToOne { inside, external } => {
                    if let Some(pair) = self.one_to_one(uplink, inside, external) {
                        for addr in [pair.inside, pair.external] {
                            self.said(&mut said, format!("1:1 {uplink} {addr}"), nat.span);
                        }
                        self.answered_on(uplink, pair.external, external.span);
                        services.one_to_one.push(pair);
                        self.room((services.one_to_one.len(), SERVICES_MAX), "pairs", nat.span);
                    }
                }
                How::Dnat { forward, from } => {
                    let from = self.set(from.as_deref());
                    self.forward(forward, uplink, &from, nat.span);
                }
            }
        }
        masquerade.sort_unstable();
        services.hairpin = hairpin.is_some();
        services.forwards = self.forwards.iter().map(|(forward, _)| forward.clone()).collect();
        for route in &file.routes {
            let (net, last) = route.net;
            let first = self.said(&mut said, format!("route {net} {last}"), route.span);
            let Some(uplink) = self.uplink_of(route).filter(|_| first) else { continue };
            services.routes.push(Route {
                net,
                prefix: prefix((net, last)),
                uplink,
                via: route.via,
            });
            self.room((services.routes.len(), ROUTES_MAX), "routes", route.span);
        }
        for &ast::Syslog { to, port, accepted, refused, span } in &file.syslogs {
            self.said(&mut said, "syslog".to_owned(), span);
            services.syslog = Some(Syslog { to, port, accepted, refused });
        }
        for &(kind, secs, span) in &file.timeouts {
            self.said(&mut said, format!("timeout {}", kind.name()), span);
            services.timeouts.push((kind, secs));
        }
        services.timeouts.sort_unstable();
        services.timeouts.dedup_by_key(|(kind, _)| *kind);
        for &(number, span) in &file.flow_limits {
            self.said(&mut said, "flows".to_owned(), span);
            services.flows_per_client = Some(number);
        }
        (masquerade, services)
    }

    /// Reports what has been said before; whether it has not.
    fn said(&mut self, said: &mut HashMap<String, Span>, what: String, span: Span) -> bool {
        let first = said.get(&what).copied();
        if let Some(first) = first {
            self.report
                .error("twice", "this is said already", span, "again")
                .see(first, "first here");
        } else {
            said.insert(what, span);
        }
        first.is_none()
    }

    /// Refuses the first for which a kernel has no room, when that has been added.
    fn room(&mut self, (count, most): (usize, usize), what: &str, span: Span) {
        if count == most.saturating_add(1) {
            let message = format!("a policy has {most} {what} at most");
            self.report.error("too-many", message, span, "one too many");
        }
    }

    /// Notes that `addr` is answered for on `uplink`, and so on no other.
    fn answered_on(&mut self, uplink: Uplink, addr: IpAddr, span: Span) {
        let &mut (known, first) = self.external.entry(addr).or_insert((uplink, span));
        if known != uplink {
            let zone = self.names.zone_called(Zone::Uplink(known));
            let message = format!("{addr} belongs to another uplink");
            self.report
                .error("two-uplinks", message, span, "")
                .see(first, format!("here it is an address on `{zone}`"))
                .help("an external address is answered for on one uplink");
        }
    }

    /// Where a route leads: that may be left out where there is one uplink only.
    fn uplink_of(&mut self, route: &ast::Route<'_>) -> Option<Uplink> {
        if let Some(on) = route.on {
            let zone = self.names.zone(on, self.report)?;
            if zone == Zone::Clients {
                let message = "a route leads to what is behind an uplink";
                self.report.error("bad-route", message, on.span, "");
            }
            return zone.uplink();
        }
        let file = self.file;
        let mut uplinks = file.uplinks();
        let (first, second) = (uplinks.next(), uplinks.next());
        if let (Some((_, first)), Some((_, second))) = (first, second) {
            let message = "there are several uplinks, and this route names none";
            self.report
                .error("which-uplink", message, route.span, "")
                .see(first.span, "one of them")
                .see(second.span, "another")
                .help(format!("name it at the end: `… on {}`", second.text));
            return None;
        }
        Some(first.map_or(Uplink::FIRST, |(uplink, _)| uplink))
    }

    /// Which way a translation goes, if it can.
    fn direction(&mut self, nat: &Nat<'_>) -> Option<(Zone, Zone)> {
        let from = self.names.zone(nat.pair.from, self.report);
        let to = self.names.zone(nat.pair.to, self.report);
        let (from, to) = (from?, to?);
        let outside = (from.uplink().is_some(), to.uplink().is_some());
        let (wanted, message, help) = match nat.how {
            How::Masquerade | How::Snat { .. } | How::OneToOne { .. } => (
                (false, true),
                "only flows from clients to the uplink are translated so",
                "towards a client, `dnat` and `forward` translate the destination",
            ),
            How::Dnat { .. } => (
                (true, false),
                "only destinations of flows from the uplink are translated so",
                "write `nat uplink -> clients dnat …`",
            ),
            How::Hairpin => (
                (false, false),
                "only clients meet this way",
                "write `nat clients -> clients hairpin`",
            ),
        };
        if outside == wanted {
            return Some((from, to));
        }
        self.report.error("bad-direction", message, nat.pair.span(), "").help(help);
        None
    }

    /// The addresses of one end of a translation.
    fn hosts(&mut self, end: &End<'_>) -> Vec<IpAddr> {
        match &end.host {
            Host::Addr(addr) => vec![*addr],
            Host::Called(_) => {
                misplaced(self.report, end.span);
                Vec::new()
            }
            Host::Vm(name) => {
                self.names.vm(*name, self.report).map(<[_]>::to_vec).unwrap_or_default()
            }
            Host::Firewall => {
                let message = "the firewall's own address needs no name here";
                self.report
                    .error("bad-nat", message, end.span, "")
                    .help("what is not translated otherwise leaves under it by `masquerade`");
                Vec::new()
            }
        }
    }

    fn snat(
        &mut self,
        uplink: Uplink,
        proto: Option<rules::Ported>,
        from: &End<'_>,
        to: &End<'_>,
    ) -> Vec<Source> {
        let (inside, external) = (self.hosts(from), self.hosts(to));
        let [external] = external[..] else {
            if external.len() > 1 {
                let message = "these flows can leave under one address only";
                self.report.error("bad-nat", message, to.span, "").help("write the address");
            }
            return Vec::new();
        };
        let fault = match (proto, from.port, to.port) {
            (Some(_), None, _) => Some((from.span, "write it: `snat udp from work:5060 to …`")),
            (None, Some(_), _) => Some((from.span, "say of which protocol: `snat udp from …`")),
            (_, None, Some(_)) => {
                Some((to.span, "one port cannot serve all flows of a VM: name one there, too"))
            }
            _ => None,
        };
        if let Some((span, help)) = fault {
            let message = "a port and its protocol belong together";
            self.report.error("bad-nat", message, span, "").help(help);
            return Vec::new();
        }
        let socket = proto.zip(from.port);
        let sources: Vec<_> = inside
            .iter()
            .filter(|addr| addr.is_ipv4() == external.is_ipv4())
            .map(|&inside| Source { uplink, inside, socket, external, port: to.port })
            .collect();
        self.same_family(!inside.is_empty() && sources.is_empty(), from.span.to(to.span));
        sources
    }

    fn one_to_one(
        &mut self,
        uplink: Uplink,
        inside: &End<'_>,
        external: &End<'_>,
    ) -> Option<OneToOne> {
        if let Some(end) = [inside, external].into_iter().find(|end| end.port.is_some()) {
            let message = "one address stands for the other with all its ports";
            self.report.error("bad-nat", message, end.span, "").help("leave the port out");
            return None;
        }
        let (insides, externals) = (self.hosts(inside), self.hosts(external));
        let external_addr = externals.first().copied()?;
        let found = insides.iter().find(|addr| addr.is_ipv4() == external_addr.is_ipv4());
        self.same_family(!insides.is_empty() && found.is_none(), inside.span.to(external.span));
        Some(OneToOne { uplink, inside: *found?, external: external_addr })
    }

    fn same_family(&mut self, wrong: bool, span: Span) {
        if wrong {
            let message = "these two have no address family in common";
            self.report.error("bad-nat", message, span, "");
        }
    }

    /// Notes a forward for each of its ports and families; what its flows are to the rules.
    pub(super) fn forward(
        &mut self,
        forward: &ast::Forward<'_>,
        uplink: Uplink,
        from: &Arc<AddrSet>,
        span: Span,
    ) -> Vec<(AddrSet, What)> {
        let ports = PortSet::from_ranges(forward.ports.iter().copied());
        let count: usize = ports
            .ranges()
            .iter()
            .map(|(lo, hi)| usize::from(hi.abs_diff(*lo)).saturating_add(1))
            .sum();
        let fixed = forward.to.iter().find(|end| end.port.is_some());
        let zero = ports.contains(0) || forward.to.iter().any(|end| end.port == Some(0));
        let fault = match fixed {
            _ if zero => Some((span, "there is no port 0")),
            _ if count > PORTS_MAX => Some((span, "these are too many ports for one forward")),
            Some(end) if count > 1 => Some((end.span, "several ports cannot lead to one")),
            _ => None,
        };
        if let Some((span, message)) = fault {
            self.report
                .error("bad-forward", message, span, "")
                .help("a target without a port gets each flow on the port it came for");
            return Vec::new();
        }
        let mut targets: Vec<(IpAddr, Option<u16>)> = Vec::new();
        for end in &forward.to {
            let hosts = self.hosts(end);
            let of = |v4| hosts.iter().find(move |addr| addr.is_ipv4() == v4);
            targets.extend([true, false].into_iter().filter_map(of).map(|addr| (*addr, end.port)));
        }
        if let Some(at) = forward.at {
            self.answered_on(uplink, at.addr, at.span);
            let all = targets.len();
            targets.retain(|(addr, _)| addr.is_ipv4() == at.addr.is_ipv4());
            self.same_family(all > 0 && targets.is_empty(), span);
        }
        let numbers = ports.ranges().iter().flat_map(|&(lo, hi)| lo..=hi);
        for port in numbers {
            for v4 in [true, false] {
                let to = targets.iter().filter(|(addr, _)| addr.is_ipv4() == v4);
                let to: Vec<_> = to.map(|&(addr, own)| (addr, own.unwrap_or(port))).collect();
                if !to.is_empty() {
                    self.add_forward((forward, uplink), port, from.clone(), to, span);
                }
            }
        }
        let mut found: Vec<(AddrSet, What)> = Vec::new();
        for (addr, port) in targets {
            let ports = port.map_or(ports.clone(), |port| PortSet::from_ranges([(port, port)]));
            let what = to_ports(forward.proto, ports);
            let addr = AddrSet::from_addrs([addr]);
            match found.iter_mut().find(|(_, known)| *known == what) {
                Some((set, _)) => *set = AddrSet::from_ranges(set.ranges().chain(addr.ranges())),
                None => found.push((addr, what)),
            }
        }
        found
    }

    fn add_forward(
        &mut self,
        (forward, uplink): (&ast::Forward<'_>, Uplink),
        port: u16,
        from: Arc<AddrSet>,
        to: Vec<(IpAddr, u16)>,
        span: Span,
    ) {
        let at = forward.at.map(|at| at.addr);
        let (proto, balance) = (forward.proto, forward.balance);
        let new = Forward { uplink, proto, at, port, from, to, balance };
        let same = |(old, _): &&(Forward, Span)| {
            (old.uplink, old.proto, old.at, old.port, old.is_v6())
                == (uplink, proto, at, port, new.is_v6())
        };
        if let Some(&(_, first)) = self.forwards.iter().find(same) {
            if first != span {
                let message = format!("port {port} is forwarded already");
                self.report
                    .error("forwarded-twice", message, span, "again")
                    .see(first, "first here")
                    .help("one forward may have several targets: `to [a:80, b:80] balance hash`");
            }
            return;
        }
        self.forwards.push((new, span));
        self.room((self.forwards.len(), SERVICES_MAX), "forwarded ports", span);
    }

    /// An untranslated address of a client would never be answered: the uplink does not know it.
    pub(super) fn accepted_is_translated(
        &mut self,
        blocks: &[Block],
        masquerade: &[(Zone, Zone)],
        services: &Services,
    ) {
        for block in blocks.iter().filter(|block| !masquerade.contains(&(block.from, block.to))) {
            if let (Zone::Clients, Zone::Uplink(uplink)) = (block.from, block.to) {
                self.block_is_translated(block, uplink, services);
            }
        }
    }

    fn block_is_translated(&mut self, block: &Block, uplink: Uplink, services: &Services) {
        let whole = services.sources.iter().filter(|s| s.socket.is_none() && s.uplink == uplink);
        let pairs = services.one_to_one.iter().filter(|pair| pair.uplink == uplink);
        let known = whole.map(|s| s.inside).chain(pairs.map(|pair| pair.inside));
        let known = AddrSet::from_addrs(known);
        let opens = |rule: &rules::Rule| {
            matches!(rule.then, Then::Do(rules::Action::Accept) | Then::Qubes)
                && !(rule.src.v4.is_subset(&known.v4) && rule.src.v6.is_subset(&known.v6))
        };
        let Some(&pair) = self.directions.get(&(block.from, block.to)) else { return };
        if !block.rules.iter().any(opens) {
            return;
        }
        let (from, to) = (self.names.zone_called(block.from), self.names.zone_called(block.to));
        let help = format!("add `nat {from} -> {to} masquerade`");
        let message = "these flows would leave under an address that nobody can answer to";
        self.report.error("not-translated", message, pair, "").help(help);
    }
}

/// The length of the prefix of a network from its first and last address.
fn prefix((first, last): (IpAddr, IpAddr)) -> u8 {
    let differing = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(differing).unwrap_or(u8::MAX)
}
