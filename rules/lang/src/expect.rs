//! Asks a policy the questions its own file answers: `expect` lines.
//!
//! A described packet is put to [`Policy::decide`] as the firewall would put it: after the DNS
//! redirect, before source translation.

mod whereabouts;

use crate::analysis::uplinks;
use crate::analysis::witness::Example;
use crate::ast::{End, Expect, Host, Packet, Pair, Proto, Wanted, When};
use crate::diagnostic::Report;
use crate::model::Model;
use crate::names::{Names, misplaced};
use crate::questions::Sent;
use rules::qubes::Trees;
use rules::{
    Action, Decision, Family, Header, HostName, HostTable, Policy, Ported, Query, RuleId, State,
    Transport, Uplink, Zone,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use whereabouts::whereabouts;

/// The source port of an expectation that names none: the first dynamic port (RFC 6335).
const SOURCE_PORT: u16 = 49152;

/// Checks every expectation of the file of `model`.
pub(crate) fn check(model: &Model<'_>, report: &mut Report) {
    let (policy, names) = (&model.policy, &model.names);
    for expect in &model.file.expects {
        let asked = Asker { policy, names, report }.queries(&expect.packet);
        let mut checker = Checker { model, report };
        for asked in asked.into_iter().flatten() {
            if !checker.holds(expect, &asked) {
                break;
            }
        }
    }
}

/// A packet as rules see it, and where it was sent to.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) packet: Query,
    /// The name that stands for its destination, if it was sent to one.
    pub(crate) host: Option<HostName>,
    pub(crate) sent: Sent,
    /// Whether it was sent to an address of the firewall and nothing leads on from there, so that no
    /// rule is asked.
    pub(crate) stranded: bool,
}

impl Asked {
    /// What is known of names.
    pub(crate) fn hosts(&self) -> HostTable {
        let mut table = HostTable::new();
        if let Some(host) = &self.host {
            table.set(self.packet.src, host, &[self.packet.dst]);
        }
        table
    }

    /// What becomes of it.
    pub(crate) fn decision(&self, policy: &Policy) -> Decision {
        let decision = policy.decide(&self.packet, &Trees::default(), &self.hosts());
        match self.stranded {
            true => Decision {
                action: Action::Drop,
                rule: RuleId::DEFAULT,
                log: None,
                limit: None,
                own: None,
            },
            false => decision,
        }
    }
}

/// Turns described packets into questions.
pub(crate) struct Asker<'c, 'r> {
    pub(crate) policy: &'c Policy,
    pub(crate) names: &'c Names<'c>,
    pub(crate) report: &'r mut Report,
}

struct Checker<'c, 'r> {
    model: &'c Model<'c>,
    report: &'r mut Report,
}

impl Asker<'_, '_> {
    /// One question for each pair of addresses of one family, and for each target of a forward.
    pub(crate) fn queries(&mut self, asked: &Packet<'_>) -> Option<Vec<Asked>> {
        if matches!(asked.from.host, Host::Called(_)) {
            misplaced(self.report, asked.from.span);
            return None;
        }
        let uplink = self.uplink_of_host(asked)?;
        let from = self.addrs(&asked.from, uplink)?;
        let to = self.addrs(&asked.to, uplink)?;
        let ports = self.ports(asked)?;
        let fits = |src: IpAddr, dst: IpAddr| {
            let has_type = |family| match asked.proto {
                Proto::Tcp | Proto::Udp => true,
                Proto::Icmp(types) => types.iter().any(|(of, ..)| *of == family),
                Proto::IcmpType((of, ..)) => of == family,
            };
            src.is_ipv4() == dst.is_ipv4() && has_type(Family::of(dst))
        };
        let pairs: Vec<_> = from
            .iter()
            .flat_map(|&src| to.iter().map(move |&dst| (src, dst)))
            .filter(|&(src, dst)| fits(src, dst))
            .collect();
        if pairs.is_empty() {
            let message = "these two have no address family in common";
            self.report.error("expect-family", message, asked.span, "");
            return None;
        }
        let mut all = Vec::new();
        for (src, dst) in pairs {
            let own = matches!(asked.to.host, Host::Firewall);
            let zones = self.zones(asked, (src, dst), ports.1, own)?;
            all.extend(self.arriving(asked, zones, (src, dst), ports, own));
        }
        Some(all)
    }

    /// Behind which uplink a host is that is known by name only: if there are several, it has to be said.
    fn uplink_of_host(&mut self, asked: &Packet<'_>) -> Option<Uplink> {
        if let Some(pair) = &asked.pair {
            return Some(self.names.zone(pair.to, self.report)?.uplink().unwrap_or_default());
        }
        if matches!(asked.to.host, Host::Called(_)) && uplinks(self.policy).len() > 1 {
            let message = "a host may be behind any uplink, so the direction is not clear";
            self.report
                .error("expect-direction", message, asked.to.span, "")
                .help("write it: `expect accept clients -> uplink tcp from …`");
            return None;
        }
        Some(Uplink::FIRST)
    }

    /// The resolver that is really asked when a client sends this to `dst`, if it is a redirected query.
    fn redirected(&self, asked: &Packet<'_>, dst: IpAddr, dport: u16) -> Option<IpAddr> {
        let is_dns = matches!(asked.proto, Proto::Tcp | Proto::Udp) && dport == 53;
        self.policy.dns_target(dst).filter(|_| is_dns)
    }

    /// The packet as it comes to the rules: behind the DNS redirect, forwards and what stands for a
    /// client.
    fn arriving(
        &self,
        asked: &Packet<'_>,
        zones: (Zone, Zone),
        (src, dst): (IpAddr, IpAddr),
        (sport, dport): (u16, u16),
        own: bool,
    ) -> Vec<Asked> {
        let services = &self.policy.parts().services;
        let proto = match asked.proto {
            Proto::Tcp => Some(Ported::Tcp),
            Proto::Udp => Some(Ported::Udp),
            Proto::Icmp(_) | Proto::IcmpType(_) => None,
        };
        let inward = zones.0.uplink().is_some();
        let here = |uplink| zones.0 == Zone::Uplink(uplink);
        let forwarded = |proto| {
            let meant = |f: &&rules::Forward| {
                let at = f.at.map_or(own && f.is_v6() == dst.is_ipv6(), |at| at == dst);
                here(f.uplink) && f.proto == proto && f.port == dport && at
            };
            services.forwards.iter().find(meant)
        };
        let forward = proto.and_then(forwarded);
        let pair = services.one_to_one.iter();
        let pair = pair.filter(|pair| here(pair.uplink)).find(|pair| pair.external == dst);
        let named = services.uplink_of(dst).is_some();
        let (targets, stranded) = match (forward, pair) {
            (Some(forward), _) if forward.from.contains(src) => (forward.to.clone(), false),
            (Some(_), _) => (vec![(dst, dport)], true),
            (None, Some(pair)) => (vec![(pair.inside, dport)], false),
            (None, None) => (vec![(dst, dport)], own || inward && named),
        };
        let sent = Sent { to: (!own).then_some(dst), port: dport };
        let make = |(dst, dport)| {
            let packet = self.query(asked, zones, (src, dst), (sport, dport));
            let host = match &asked.to.host {
                Host::Called(name) => Some(name.clone()),
                Host::Addr(_) | Host::Vm(_) | Host::Firewall => None,
            };
            Asked { packet, host, sent, stranded }
        };
        targets.into_iter().map(make).collect()
    }

    fn addrs(&mut self, end: &End<'_>, uplink: Uplink) -> Option<Vec<IpAddr>> {
        match &end.host {
            Host::Addr(addr) => Some(vec![*addr]),
            Host::Firewall => {
                Some(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()])
            }
            Host::Vm(name) => self.names.vm(*name, self.report).map(<[_]>::to_vec),
            // Some place of which nothing is known but the uplink.
            Host::Called(_) => Some(whereabouts(self.policy, uplink)),
        }
    }

    /// Source and destination port, which only TCP and UDP have.
    fn ports(&mut self, expect: &Packet<'_>) -> Option<(u16, u16)> {
        let (from, to) = (&expect.from, &expect.to);
        if matches!(expect.proto, Proto::Icmp(_) | Proto::IcmpType(_)) {
            if from.port.or(to.port).is_some() {
                let span = if from.port.is_some() { from.span } else { to.span };
                self.report.error("expect-port", "icmp has no ports", span, "");
                return None;
            }
            return Some((0, 0));
        }
        let Some(dport) = to.port else {
            let help = match &to.host {
                Host::Addr(IpAddr::V6(addr)) => format!("write `[{addr}]:443`"),
                Host::Addr(addr) => format!("write `{addr}:443`"),
                Host::Vm(name) => format!("write `{}:443`", name.text),
                Host::Called(name) => format!("write `host {name}:443`"),
                Host::Firewall => "write `firewall:443`".to_owned(),
            };
            let message = "a port is missing";
            self.report.error("expect-port", message, to.span, "to which port?").help(help);
            return None;
        };
        Some((from.port.unwrap_or(SOURCE_PORT), dport))
    }

    /// The direction as written, or else by who owns the addresses: a VM's are a client's, all others
    /// are outside. Behind which uplink, is told by the routes; what is sent to one of our names comes
    /// by the uplink where it is one.
    fn zones(
        &mut self,
        expect: &Packet<'_>,
        (src, dst): (IpAddr, IpAddr),
        dport: u16,
        own: bool,
    ) -> Option<(Zone, Zone)> {
        let services = &self.policy.parts().services;
        let real = self.redirected(expect, dst, dport).unwrap_or(dst);
        let leaves = services.uplink_to(real);
        if let Some(pair) = &expect.pair {
            let Pair { from, to } = *pair;
            let zones = (self.names.zone(from, self.report)?, self.names.zone(to, self.report)?);
            return match zones {
                (Zone::Clients, Zone::Uplink(uplink)) if uplink != leaves => {
                    let by = self.names.zone_called(Zone::Uplink(leaves));
                    let message = format!("what clients send to {real} leaves by `{by}`");
                    self.report
                        .error("expect-uplink", message, pair.span(), "never in this direction")
                        .help("by which uplink a packet leaves, the routes say");
                    None
                }
                zones => Some(zones),
            };
        }
        let named = services.uplink_of(dst);
        let zone = |addr, uplink| match self.policy.vm_name(addr) {
            Some(_) => Zone::Clients,
            None => Zone::Uplink(uplink),
        };
        let from = zone(src, named.unwrap_or(services.uplink_to(src)));
        // What is sent to one of our names in the world is for a client.
        let is_ours = own || named.is_some();
        let target = if is_ours { Zone::Clients } else { zone(dst, leaves) };
        match (from, target) {
            (Zone::Uplink(_), Zone::Uplink(_)) => {
                let message = "neither end belongs to a vm, so the direction is not clear";
                self.report
                    .error("expect-direction", message, expect.span, "")
                    .help("write it: `expect accept clients -> uplink tcp from …`");
                None
            }
            direction => Some(direction),
        }
    }

    fn query(
        &self,
        asked: &Packet<'_>,
        (from, to): (Zone, Zone),
        (src, dst): (IpAddr, IpAddr),
        (sport, dport): (u16, u16),
    ) -> Query {
        let icmp = |types: &[crate::ast::IcmpType]| {
            let here = types.iter().find(|(family, ..)| *family == Family::of(dst));
            let (kind, code) = here.map_or((0, None), |(_, kind, code)| (*kind, *code));
            Transport::Icmp { kind, code: code.unwrap_or(0) }
        };
        let transport = match asked.proto {
            Proto::Tcp => Transport::Tcp { sport, dport },
            Proto::Udp => Transport::Udp { sport, dport },
            Proto::Icmp(types) => icmp(types),
            Proto::IcmpType(one) => icmp(&[one]),
        };
        let real = self.redirected(asked, dst, dport).filter(|_| from == Zone::Clients);
        let dst = real.unwrap_or(dst);
        Query { from, to, src, dst, transport, header: header(&asked.when) }
    }
}

/// The header a description means: what is not said is as in a plain packet.
fn header(when: &When) -> Header {
    let plain = Header::PLAIN;
    let first = |list: &Option<Vec<(u16, u16)>>, usual| {
        list.as_ref().and_then(|list| list.first()).map_or(usual, |(value, _)| *value)
    };
    let byte = |list, usual: u8| u8::try_from(first(list, usual.into())).unwrap_or(u8::MAX);
    Header {
        state: when.state.unwrap_or(State::New),
        ttl: byte(&when.ttl, plain.ttl),
        dscp: byte(&when.dscp, plain.dscp),
        length: first(&when.length, plain.length),
        flags: when.flags.map_or(plain.flags, |(bits, _)| bits),
    }
}

impl Checker<'_, '_> {
    fn holds(&mut self, expect: &Expect<'_>, asked: &Asked) -> bool {
        let decision = asked.decision(&self.model.policy);
        if expect.wanted.is(decision.action) && decision.own.is_none() {
            return true;
        }
        let decided = self.model.span(decision.rule);
        if decision.own.is_some() {
            let message = "what the VM's own rules will say is not known here";
            let more = self.report.error("expect-qubes", message, expect.span, "");
            if let Some(span) = decided {
                more.see(span, "this rule hands over to them");
            }
            return false;
        }
        let Decision { action, .. } = decision;
        let example = Example { packet: asked.packet, hosts: asked.host.iter().cloned().collect() };
        let message = format!("expected {}, but it is {action}: {example}", expect.wanted);
        let more = self.report.error("expect-failed", message, expect.span, "");
        match decided {
            Some(span) => more.see(span, "this rule decided"),
            None if asked.stranded => {
                more.help("nothing leads on from that address: no `forward` lets this in")
            }
            None => more.help("no block speaks of this direction, so it is dropped"),
        };
        false
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject(None) => f.write_str("reject"),
            Self::Reject(Some(kind)) => write!(f, "reject {kind}"),
        }
    }
}
