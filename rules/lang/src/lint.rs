//! Says what the analysis found, in words and with the places.

use crate::Span;
use crate::analysis::findings::{self, Finding, What};
use crate::diagnostic::{Level, More, Report};
use crate::model::Model;
use rules::{Query, RuleId};

/// Rules that are named as the reason for one finding; more would hide the point.
const REASONS: usize = 4;

/// Reports what is odd about a policy.
pub(crate) fn lint(model: &Model<'_>, report: &mut Report) {
    let written = |id: RuleId| model.span(id);
    for Finding { rule, what } in findings::all(&model.policy) {
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
            What::Covered { by, vms, redirect, packet } => {
                covered(report, span, &by, (vms, redirect), &packet, reasons);
            }
            What::Redundant { by, packet } => {
                let message = "this rule changes nothing";
                let label = "without it, the same would happen";
                let more = report.find(Level::Warning, "redundant", message, span, label);
                let more = more.example(described(&packet));
                reasons(&by, more, "because this rule would do it");
            }
            What::WiderThanQubes { qubes, packet } => {
                let message = "this rule accepts what the VM's own rules may forbid";
                let more = report.find(Level::Warning, "wider-than-qubes", message, span, "");
                let more = match written(qubes) {
                    Some(span) => more.see(span, "here they would have been asked"),
                    None => more,
                };
                more.example(described(&packet));
            }
            What::Conflict { before, packet } => {
                let message =
                    "this rule and an earlier one disagree, and neither contains the other";
                let more = report.find(Level::Note, "conflict", message, span, "");
                let more = match written(before) {
                    Some(span) => more.see(span, "this one decides about packets of both"),
                    None => more,
                };
                more.example(described(&packet));
            }
            What::Unknown => {
                let message = "the rules from here on are too tangled to be analysed";
                report.find(Level::Note, "too-tangled", message, span, "");
            }
        }
    }
}

/// A packet with all that makes it special.
pub(crate) fn described(packet: &Query) -> String {
    format!("{packet}{}", packet.header)
}

fn covered(
    report: &mut Report,
    span: Span,
    by: &[RuleId],
    (vms, redirect): (bool, bool),
    packet: &Query,
    reasons: impl Fn(&[RuleId], More<'_>, &str),
) {
    let (code, message) = if vms || redirect {
        ("never-asked", "this rule is never asked about the packets it speaks of")
    } else {
        ("shadowed", "this rule never decides: earlier ones take all its packets")
    };
    let mut more = report.find(Level::Warning, code, message, span, "");
    more = more.example(described(packet));
    if vms {
        more = more.help(
            "the address of a `vm` is that of a client: flows to it do not leave by the uplink",
        );
    }
    if redirect {
        more = more.help(
            "queries to redirected resolvers are seen with the real resolver as their destination",
        );
    }
    let label =
        if by.len() == 1 { "this rule takes them all" } else { "this rule takes some of them" };
    reasons(by, more, label);
}
