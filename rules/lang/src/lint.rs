//! Says what the analysis found, in words and with the places.

use crate::Span;
use crate::analysis::findings::{self, Finding, Settled, What};
use crate::analysis::witness::Example;
use crate::diagnostic::{Level, More, Report};
use crate::model::Model;
use rules::{Action, RuleId, Then, Zone};
use std::collections::BTreeSet;

/// Rules that are named as the reason for one finding; more would hide the point.
const REASONS: usize = 4;

/// Reports what is odd about a policy.
pub(crate) fn lint(model: &Model<'_>, report: &mut Report) {
    let written = |id: RuleId| model.span(id);
    idle_blocks(model, report);
    refused_forwards(model, report);
    hosts(model, report);
    let all = findings::all(&model.policy);
    let asked = asked_somewhere(model, &all);
    for Finding { rule, what } in all {
        let Some(span) = written(rule) else { continue };
        let reasons = |by: &[RuleId], mut more: More<'_>, label: &str| {
            for span in by.iter().take(REASONS).filter_map(|id| written(*id)) {
                more = more.see(span, label);
            }
            if by.len() > REASONS {
                let rest = by.len().saturating_sub(REASONS);
                more.help(format!("{rest} more rules are part of the reason"));
            }
        };
        match what {
            What::Empty => {
                let message = "no packet meets all conditions of this rule";
                report
                    .find(Level::Warning, "empty-match", message, span, "")
                    .help("are its source and destination of one address family?");
            }
            What::Covered { settled, .. } if settled.elsewhere && asked.contains(&span) => {}
            What::Covered { by, settled, packet } => {
                let leaves = model.leaves_by(&packet.packet).filter(|_| settled.elsewhere);
                covered(report, span, &by, (settled, leaves), &packet, reasons);
            }
            What::Redundant { by, packet } => {
                let message = "this rule changes nothing";
                let label = "without it, the same would happen";
                let more = report.find(Level::Warning, "redundant", message, span, label);
                let more = more.example(packet.to_string());
                reasons(&by, more, "because this rule would do it");
            }
            What::WiderThanQubes { qubes, packet } => {
                let message = "this rule accepts what the VM's own rules may forbid";
                let more = report.find(Level::Warning, "wider-than-qubes", message, span, "");
                let more = match written(qubes) {
                    Some(span) => more.see(span, "here they would have been asked"),
                    None => more,
                };
                more.example(packet.to_string());
            }
            What::Conflict { before, packet } => {
                let message =
                    "this rule and an earlier one disagree, and neither contains the other";
                let more = report.find(Level::Note, "conflict", message, span, "");
                let more = match written(before) {
                    Some(span) => more.see(span, "this one decides about packets of both"),
                    None => more,
                };
                more.example(packet.to_string());
            }
            What::NoWay => {
                let message = "this rule is never asked about the packets it speaks of";
                let between =
                    model.policy.rule(rule).is_some_and(|(block, _)| block.from == block.to);
                let help = match between {
                    true => {
                        "clients meet at external addresses only: `nat clients -> clients hairpin`"
                    }
                    false => "nothing leads them to a client: write `forward tcp 80 to web:80`",
                };
                report.find(Level::Warning, "never-asked", message, span, "").help(help);
            }
            What::Unknown => {
                let message = "the rules from here on are too tangled to be analysed";
                let label = "what is odd about them is not known";
                report.find(Level::Warning, "too-tangled", message, span, label).help(
                    "they are obeyed; fewer ranges in each, or blocks for VMs, untangle them",
                );
            }
        }
    }
}

/// Where rules stand that are asked about something: one of a group may be used for several uplinks,
/// and speak of destinations of each.
fn asked_somewhere(model: &Model<'_>, all: &[Finding]) -> BTreeSet<Span> {
    let covered = all.iter().filter(|found| matches!(found.what, What::Covered { .. }));
    let never: BTreeSet<RuleId> = covered.map(|found| found.rule).collect();
    let asked = model.policy.rule_ids().filter(|id| !never.contains(id));
    asked.filter_map(|id| model.span(id)).collect()
}

/// Reports blocks towards an uplink by which nothing leaves.
fn idle_blocks(model: &Model<'_>, report: &mut Report) {
    for uplink in findings::unreached(&model.policy) {
        let to = |name| model.names.zone_named(name) == Some(Zone::Uplink(uplink));
        let pairs = model.file.blocks.iter().map(|block| &block.pair);
        let Some(pair) = pairs.into_iter().find(|pair| to(pair.to)) else { continue };
        let zone = pair.to.text;
        report
            .find(
                Level::Warning,
                "no-route",
                format!("nothing leaves by `{zone}`"),
                pair.span(),
                "",
            )
            .help(format!("say what is behind it: `route 10.20.0.0/16 on {zone}`"));
    }
}

/// Reports host names that do less than they seem to.
fn hosts(model: &Model<'_>, report: &mut Report) {
    let policy = &model.policy;
    let rules = policy.rule_ids().filter_map(|id| Some((id, policy.rule(id)?.1)));
    let named = rules.filter(|(_, rule)| rule.hosts.is_some());
    let mut told = BTreeSet::new();
    for (number, (id, rule)) in named.enumerate() {
        let Some(span) = model.span(id).filter(|span| told.insert(*span)) else { continue };
        if matches!(rule.then, Then::Do(Action::Drop | Action::Reject(_))) {
            let message = "whoever knows an address of this host still reaches it";
            let label = "refuses what the name is known to stand for, and nothing else";
            report
                .find(Level::Warning, "weak-host", message, span, label)
                .help("accept what is wanted, and refuse the rest");
        }
        if number == 0 && policy.parts().redirect_dns.is_none() {
            let message = "this policy does not say who is asked for host names";
            report
                .find(Level::Note, "hosts-unresolved", message, span, "")
                .help("in Qubes, dom0 says it, elsewhere dnsto= or: `redirect dns 192.0.2.1 to 192.0.2.53`");
        }
    }
}

/// Reports forwards that lead to rules which let nothing in.
fn refused_forwards(model: &Model<'_>, report: &mut Report) {
    let mut told = Vec::new();
    for (number, packet, rule) in findings::refused_forwards(&model.policy) {
        let Some(&span) = model.forwards.get(number).filter(|span| !told.contains(*span)) else {
            continue;
        };
        told.push(span);
        let message = "the rules let nothing in that comes here";
        let more = report.find(Level::Warning, "forward-refused", message, span, "");
        let more = match model.span(rule) {
            Some(by) => more.see(by, "this rule refuses it"),
            None => {
                let [from, to] = [packet.packet.from, packet.packet.to]
                    .map(|zone| model.names.zone_called(zone));
                more.help(format!("no block `policy {from} -> {to}` accepts it"))
            }
        };
        more.example(packet.to_string());
    }
}

fn covered(
    report: &mut Report,
    span: Span,
    by: &[RuleId],
    (settled, leaves): (Settled, Option<String>),
    packet: &Example,
    reasons: impl Fn(&[RuleId], More<'_>, &str),
) {
    let (code, message) = if settled.any() {
        ("never-asked", "this rule is never asked about the packets it speaks of")
    } else {
        ("shadowed", "this rule never decides: earlier ones take all its packets")
    };
    let mut more = report.find(Level::Warning, code, message, span, "");
    more = more.example(packet.to_string());
    if settled.vms {
        more = more.help(
            "the address of a `vm` is that of a client: flows to it do not leave by the uplink",
        );
    }
    if settled.redirect {
        more = more.help(
            "queries to redirected resolvers are seen with the real resolver as their destination",
        );
    }
    if let Some(zone) = leaves {
        more = more.help(format!("by the routes, what goes there leaves by `{zone}`"));
    }
    let label =
        if by.len() == 1 { "this rule takes them all" } else { "this rule takes some of them" };
    reasons(by, more, label);
}
