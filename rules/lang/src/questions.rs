//! What can be asked about a policy: what becomes of a packet, whether a claim holds, what a new
//! version changes, whether its expectations are met.
//!
//! In: the text of a policy and a question as a person writes it. Out: an answer with the lines of
//! the rules that are the reason. Never: an answer that the firewall would not give: all come from
//! [`rules::Policy`].

use crate::analysis::witness::Example;
use crate::analysis::{TooTangled, change, claim};
use crate::ast::Addresses;
use crate::diagnostic::Report;
use crate::expect::{Asked, Asker};
use crate::model::{self, Model};
use crate::{Diagnostic, Source};
use rules::{
    Condition, Decision, HostName, Policy, Query, Rate, RuleId, Services, Severity, Transport,
    What, failing,
};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A rule as an answer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The line it was written on; `None` where no block speaks of the direction.
    pub line: Option<u32>,
    /// How it was written, on one line.
    pub text: String,
    /// What it does: `accept`, `drop`, `reject KIND` or `qubes`, with `log` if it logs.
    pub does: String,
}

/// Where a packet was sent to, before the DNS redirect and forwards gave it the destination that rules
/// see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// `None` is the firewall's own address.
    pub to: Option<IpAddr>,
    /// The port; 0 if it has none.
    pub port: u16,
}

/// As it is written in a policy.
impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.to, self.port) {
            (None, port) => write!(f, "firewall:{port}"),
            (Some(addr), 0) => addr.fmt(f),
            (Some(addr), port) => SocketAddr::new(addr, port).fmt(f),
        }
    }
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The packet as rules see it.
    pub packet: Query,
    /// The host name that is taken to stand for its destination.
    pub host: Option<HostName>,
    /// Where it was sent to.
    pub sent: Sent,
    /// Whether it was sent to an address of the firewall from which nothing leads on, so that no rule
    /// is asked.
    pub stranded: bool,
    /// The VM it comes from, if it has a name.
    pub vm: Option<String>,
    /// The rules that were asked before, with the condition that did not hold.
    pub passed: Vec<(Named, Condition)>,
    /// The rule that decides.
    pub rule: Named,
    /// What is decided; with `qubes`, what holds for a VM without rules of its own.
    pub decision: Decision,
    /// Whether it leaves under the address of the firewall.
    pub masqueraded: bool,
}

impl Explanation {
    /// The packet with the name that is taken to stand for its destination.
    #[must_use]
    pub fn example(&self) -> Example {
        Example { packet: self.packet, hosts: self.host.iter().cloned().collect() }
    }

    /// Whether rules see another destination than it was sent to.
    #[must_use]
    pub fn is_led_on(&self) -> bool {
        let port = match self.packet.transport {
            Transport::Tcp { dport, .. } | Transport::Udp { dport, .. } => dport,
            Transport::Icmp { .. } | Transport::Other(_) => self.sent.port,
        };
        !self.stranded && (self.sent.to != Some(self.packet.dst) || self.sent.port != port)
    }
}

/// Explains what becomes of the packet described by `packet`, in the words of `expect`:
/// `tcp from work to 93.184.216.34:443`. A VM with several addresses gives several answers.
///
/// # Errors
/// What is wrong with the policy or the description.
pub fn explain(policy: (&str, &str), packet: &str) -> Result<Vec<Explanation>, Vec<Diagnostic>> {
    let described = model::aside(("packet", packet), |parser| parser.only_packet())?;
    model::with(policy, |model, _| {
        let mut report = Report::aside(Arc::new(Source::new("packet", packet)));
        let mut asker = Asker { policy: &model.policy, names: &model.names, report: &mut report };
        let asked = asker.queries(&described);
        match asked {
            Some(asked) if report.is_clean() => {
                Ok(asked.iter().map(|one| answer(model, one)).collect())
            }
            _ => Err(report.finish()),
        }
    })?
}

fn answer(model: &Model<'_>, asked: &Asked) -> Explanation {
    let (policy, packet) = (&model.policy, asked.packet);
    let decision = asked.decision(policy);
    let before = policy.block(packet.from, packet.to).take_while(|(id, _)| *id != decision.rule);
    let before = before.filter(|_| !asked.stranded);
    let hosts = asked.hosts();
    let passed =
        before.filter_map(|(id, rule)| Some((named(model, id), failing(rule, &hosts, &packet)?)));
    Explanation {
        packet,
        host: asked.host.clone(),
        sent: asked.sent,
        stranded: asked.stranded,
        vm: policy.vm_name(packet.src).map(str::to_owned),
        passed: passed.collect(),
        rule: named(model, decision.rule),
        decision,
        masqueraded: policy.masquerades(packet.from, packet.to),
    }
}

fn named(model: &Model<'_>, id: RuleId) -> Named {
    let line = model.policy.rule(id).map(|(_, rule)| rule.line).filter(|line| *line != 0);
    Named { line, text: model.written(id), does: does(&model.policy, id) }
}

fn does(policy: &Policy, id: RuleId) -> String {
    let Some((_, rule)) = policy.rule(id) else { return "drop".to_owned() };
    let then = match rule.then {
        rules::Then::Do(action) => action.to_string(),
        rules::Then::Qubes => "qubes".to_owned(),
    };
    let limit = rule.limit.map(|rate| format!(" limit {}", rated(rate))).unwrap_or_default();
    let log = rule.log.map(|note| {
        let rate = note.limit.map(|rate| format!(" {}", rated(rate))).unwrap_or_default();
        let severity = Some(note.severity).filter(|s| *s != Severity::default());
        format!(" log{}{rate}", severity.map(|s| format!(" {s}")).unwrap_or_default())
    });
    format!("{then}{limit}{}", log.unwrap_or_default())
}

/// A rate as it is written.
fn rated(rate: Rate) -> String {
    let unit = match rate.secs {
        1 => "s".to_owned(),
        60 => "min".to_owned(),
        3600 => "h".to_owned(),
        86400 => "d".to_owned(),
        secs => format!("{secs}s"),
    };
    let burst =
        if rate.burst == rate.count { String::new() } else { format!(" burst {}", rate.burst) };
    format!("{}/{unit}{burst}", rate.count)
}

/// Whether a claim holds.
#[derive(Clone, Debug)]
pub enum Proof {
    /// For every packet it speaks of.
    Holds,
    /// Not for this packet, because of this rule.
    Fails(Box<(Example, Named)>),
    /// No packet is like that, so there is nothing to prove.
    Nothing,
    /// The policy is too tangled to be searched.
    Unknown,
}

/// Proves a claim, `FROM can|cannot reach TO [KINDS]`, or finds a packet that contradicts it.
///
/// # Errors
/// What is wrong with the policy or the claim.
pub fn prove(policy: (&str, &str), text: &str) -> Result<Proof, Vec<Diagnostic>> {
    let written = model::aside(("claim", text), |parser| parser.only_claim())?;
    model::with(policy, |model, _| {
        let mut report = Report::aside(Arc::new(Source::new("claim", text)));
        let mut end = |list: &[Addresses<'_>]| match list {
            [Addresses::Named(name)] if model.names.zone_named(*name).is_some() => {
                model.names.zone_named(*name).map(claim::End::Zone)
            }
            list => {
                let places = model.names.places(list, &mut report);
                Some(claim::End::Addrs(places.addrs.clone(), places.host_set()))
            }
        };
        let (from, to) = (end(&written.from), end(&written.to));
        if matches!(from, Some(claim::End::Addrs(_, Some(_)))) {
            model.names.addresses(&written.from, &mut report);
        }
        let kinds = model.names.kinds(&written.kinds, &mut report);
        let (Some(from), Some(to), true) = (from, to, report.is_clean()) else {
            return Err(report.finish());
        };
        let any = written.kinds.is_empty();
        let what = if any { What::Any } else { kinds.what(&rules::PortSet::full()) };
        let claim = claim::Claim { from, can: written.can, to, what };
        Ok(match claim::prove(&model.policy, &claim) {
            Ok(claim::Answer::Holds) => Proof::Holds,
            Ok(claim::Answer::Nothing) => Proof::Nothing,
            Ok(claim::Answer::Fails(packet, rule)) => {
                Proof::Fails(Box::new((packet, named(model, rule))))
            }
            Err(TooTangled) => Proof::Unknown,
        })
    })?
}

/// What a new version of a policy does differently.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// For each pair of rules that differ about some packet, one such packet.
    pub changes: Vec<Changed>,
    /// Other differences, in words.
    pub others: Vec<String>,
    /// Whether the policies were too tangled to find all changes.
    pub incomplete: bool,
}

/// A packet that meets another fate.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The packet.
    pub packet: Example,
    /// The rule that decided.
    pub old: Named,
    /// The rule that decides now.
    pub new: Named,
}

/// Compares two policies.
///
/// # Errors
/// What is wrong with one of them.
pub fn diff(old: (&str, &str), new: (&str, &str)) -> Result<Difference, Vec<Diagnostic>> {
    model::with(old, |old, _| {
        model::with(new, |new, _| {
            let changes = change::changes(&old.policy, &new.policy);
            let incomplete = changes.is_err();
            let changes = changes.unwrap_or_default().into_iter().map(|change| Changed {
                packet: change.packet,
                old: named(old, change.old),
                new: named(new, change.new),
            });
            let others = others(&old.policy, &new.policy);
            Difference { changes: changes.collect(), others, incomplete }
        })
    })?
}

fn others(old: &Policy, new: &Policy) -> Vec<String> {
    let (old, new) = (old.parts(), new.parts());
    let mut told = Vec::new();
    let mut tell = |differs: bool, text: &str| {
        if differs {
            told.push(text.to_owned());
        }
    };
    tell(old.masquerade != new.masquerade, "other flows leave under the address of the firewall");
    tell(old.redirect_dns != new.redirect_dns, "DNS queries are redirected to other resolvers");
    let (was, is) = (&old.services, &new.services);
    tell(was.forwards != is.forwards, "other ports are forwarded, or to other targets");
    let names = |services: &Services| (services.one_to_one.clone(), services.sources.clone());
    tell(names(was) != names(is), "other flows leave under names that are written down");
    tell(was.hairpin != is.hairpin, "clients meet, or no longer meet, at external addresses");
    tell(was.routes != is.routes, "there are other routes");
    tell(was.syslog != is.syslog, "the log is sent elsewhere, or with other lines");
    let lives = |services: &Services| (services.timeouts.clone(), services.flows_per_client);
    tell(lives(was) != lives(is), "flows live for another time, or there may be another number");
    tell(old.vms != new.vms, "the VMs known by name, or their addresses, differ");
    told
}

/// An expectation of a policy and what came of it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The line it was written on.
    pub line: u32,
    /// How it was written.
    pub text: String,
    /// What is wrong; nothing if it is met.
    pub failed: Vec<Diagnostic>,
}

/// Puts every expectation of a policy to it.
///
/// # Errors
/// What is wrong with the policy itself.
pub fn expectations(policy: (&str, &str)) -> Result<Vec<Expectation>, Vec<Diagnostic>> {
    model::with(policy, |model, _| {
        let mut report = Report::new(Arc::new(model.source.clone()));
        model.expectations(&mut report);
        let found = report.finish();
        let outcome = |expect: &crate::ast::Expect<'_>| {
            let span = expect.span;
            let inside = |d: &&Diagnostic| (span.start..span.end).contains(&d.primary.span.start);
            let text = model.source.text().get(span.start..span.end).unwrap_or("");
            Expectation {
                line: model.source.place(span.start).line,
                text: text.split_whitespace().collect::<Vec<_>>().join(" "),
                failed: found.iter().filter(inside).cloned().collect(),
            }
        };
        model.file.expects.iter().map(outcome).collect()
    })
}
