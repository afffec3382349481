//! Asks a policy the questions its own file answers: `expect` lines.
//!
//! A described packet is put to [`Policy::decide`] as the firewall would put it: after the DNS
//! redirect, before source translation.

use crate::ast::{End, Expect, File, Host, Packet, Pair, Proto, Wanted};
use crate::diagnostic::Report;
use crate::names::Names;
use rules::qubes::Trees;
use rules::{Decision, Policy, Query, RuleId, Transport, Zone};
use std::net::IpAddr;

/// The source port of an expectation that names none: the first dynamic port (RFC 6335).
const SOURCE_PORT: u16 = 49152;

/// Checks every expectation of `file` against `policy`.
pub(crate) fn check(policy: &Policy, file: &File<'_>, names: &Names<'_>, report: &mut Report) {
    for expect in &file.expects {
        let asked = Asker { policy, names, report }.queries(&expect.packet);
        let mut checker = Checker { policy, file, report };
        for query in asked.into_iter().flatten() {
            if !checker.holds(expect, &query.packet) {
                break;
            }
        }
    }
}

/// A packet as rules see it, and where it was sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) packet: Query,
    pub(crate) sent_to: IpAddr,
}

/// Turns described packets into questions.
pub(crate) struct Asker<'c, 'r> {
    pub(crate) policy: &'c Policy,
    pub(crate) names: &'c Names<'c>,
    pub(crate) report: &'r mut Report,
}

struct Checker<'c, 'r> {
    policy: &'c Policy,
    file: &'c File<'c>,
    report: &'r mut Report,
}

impl Asker<'_, '_> {
    /// One question for each pair of addresses of one family.
    pub(crate) fn queries(&mut self, asked: &Packet<'_>) -> Option<Vec<Asked>> {
        let from = self.addrs(&asked.from)?;
        let to = self.addrs(&asked.to)?;
        let ports = self.ports(asked)?;
        let same_family = |src: IpAddr, dst: IpAddr| src.is_ipv4() == dst.is_ipv4();
        let pairs: Vec<_> = from
            .iter()
            .flat_map(|&src| to.iter().map(move |&dst| (src, dst)))
            .filter(|&(src, dst)| same_family(src, dst))
            .collect();
        if pairs.is_empty() {
            let message = "these two have no address family in common";
            self.report.error("expect-family", message, asked.span, "");
            return None;
        }
        pairs
            .into_iter()
            .map(|(src, dst)| {
                let zones = self.zones(asked, src, dst)?;
                let packet = self.query(asked.proto, zones, (src, dst), ports);
                Some(Asked { packet, sent_to: dst })
            })
            .collect()
    }

    fn addrs(&mut self, end: &End<'_>) -> Option<Vec<IpAddr>> {
        match end.host {
            Host::Addr(addr) => Some(vec![addr]),
            Host::Vm(name) => self.names.vm(name, self.report).map(<[_]>::to_vec),
        }
    }

    /// Source and destination port, which only TCP and UDP have.
    fn ports(&mut self, expect: &Packet<'_>) -> Option<(u16, u16)> {
        let (from, to) = (&expect.from, &expect.to);
        if expect.proto == Proto::EchoRequest {
            if from.port.or(to.port).is_some() {
                let span = if from.port.is_some() { from.span } else { to.span };
                self.report.error("expect-port", "icmp has no ports", span, "");
                return None;
            }
            return Some((0, 0));
        }
        let Some(dport) = to.port else {
            let help = match to.host {
                Host::Addr(IpAddr::V6(addr)) => format!("write `[{addr}]:443`"),
                Host::Addr(addr) => format!("write `{addr}:443`"),
                Host::Vm(name) => format!("write `{}:443`", name.text),
            };
            let message = "a port is missing";
            self.report.error("expect-port", message, to.span, "to which port?").help(help);
            return None;
        };
        Some((from.port.unwrap_or(SOURCE_PORT), dport))
    }

    /// The direction as written, or else by who owns the addresses: a VM's are a client's, all
    /// others are outside.
    fn zones(&mut self, expect: &Packet<'_>, src: IpAddr, dst: IpAddr) -> Option<(Zone, Zone)> {
        if let Some(Pair { from, to }) = expect.pair {
            return Some((self.names.zone(from, self.report)?, self.names.zone(to, self.report)?));
        }
        let zone = |addr| match self.policy.vm_name(addr) {
            Some(_) => Zone::Clients,
            None => Zone::Uplink,
        };
        match (zone(src), zone(dst)) {
            (Zone::Uplink, Zone::Uplink) => {
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
        proto: Proto,
        (from, to): (Zone, Zone),
        (src, dst): (IpAddr, IpAddr),
        (sport, dport): (u16, u16),
    ) -> Query {
        let transport = match (proto, dst) {
            (Proto::Tcp, _) => Transport::Tcp { sport, dport },
            (Proto::Udp, _) => Transport::Udp { sport, dport },
            (Proto::EchoRequest, IpAddr::V4(_)) => Transport::Icmp { kind: 8, code: 0 },
            (Proto::EchoRequest, IpAddr::V6(_)) => Transport::Icmp { kind: 128, code: 0 },
        };
        let is_dns = proto != Proto::EchoRequest && dport == 53 && from == Zone::Clients;
        let dst = self.policy.dns_target(dst).filter(|_| is_dns).unwrap_or(dst);
        Query { from, to, src, dst, transport }
    }
}

impl Checker<'_, '_> {
    fn holds(&mut self, expect: &Expect<'_>, query: &Query) -> bool {
        let decision = self.policy.decide(query, &Trees::default());
        if expect.wanted.is(decision.action) && decision.own.is_none() {
            return true;
        }
        let decided = self.written(decision.rule);
        if decision.own.is_some() {
            let message = "what the VM's own rules will say is not known here";
            let more = self.report.error("expect-qubes", message, expect.span, "");
            if let Some(span) = decided {
                more.see(span, "this rule hands over to them");
            }
            return false;
        }
        let Decision { action, .. } = decision;
        let message = format!("expected {}, but it is {action}: {query}", expect.wanted);
        let more = self.report.error("expect-failed", message, expect.span, "");
        match decided {
            Some(span) => more.see(span, "this rule decided"),
            None => more.help("no block speaks of this direction, so it is dropped"),
        };
        false
    }

    /// Where the rule `id` stands in the file.
    fn written(&self, id: RuleId) -> Option<crate::Span> {
        let index = id.index().checked_sub(1)?;
        self.file.blocks.iter().flat_map(|block| &block.rules).nth(index).map(|rule| rule.span)
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
