//! Says what the analysis found, in words and with the places.

use crate::Span;
use crate::analysis::findings::{self, Finding, What};
use crate::ast::File;
use crate::diagnostic::{Level, More, Report};
use rules::{Policy, Query, RuleId};

/// Rules that are named as the reason for one finding; more would hide the point.
const REASONS: usize = 4;

/// Reports what is odd about `policy`, which was written as `file`.
pub(crate) fn lint(policy: &Policy, file: &File<'_>, report: &mut Report) {
    let spans: Vec<Span> = file.blocks.iter().flat_map(|b| &b.rules).map(|r| r.span).collect();
    let written = |id: RuleId| spans.get(id.index().checked_sub(1)?).copied();
    for Finding { rule, what } in findings::all(policy) {
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
            What::Unknown => {
                let message = "the rules from here on are too tangled to be analysed";
                report.find(Level::Note, "too-tangled", message, span, "");
            }
        }
    }
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
    more = more.example(packet.to_string());
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
