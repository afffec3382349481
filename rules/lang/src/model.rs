//! A checked policy together with its text, for everything that is asked about it.

use crate::ast::File;
use crate::diagnostic::Report;
use crate::names::{Names, resolve};
use crate::parse::Parser;
use crate::{Diagnostic, Source, Span, expect, lower, parse};
use rules::{Policy, Query, RuleId, Zone};
use std::sync::Arc;

/// A policy, and where what was written.
pub(crate) struct Model<'a> {
    pub(crate) source: &'a Source,
    pub(crate) file: File<'a>,
    pub(crate) names: Names<'a>,
    pub(crate) policy: Policy,
    /// Where each rule stands, by its id; `None` for one that nobody wrote.
    spans: Vec<Option<Span>>,
    /// Where each forward stands, in the order of the policy.
    pub(crate) forwards: Vec<Span>,
}

/// Hands the policy in `text` to `then`, unless it has mistakes. Expectations are not asked.
pub(crate) fn with<T>(
    (name, text): (&str, &str),
    then: impl FnOnce(&Model<'_>, &mut Report) -> T,
) -> Result<T, Vec<Diagnostic>> {
    let source = Arc::new(Source::new(name, text));
    let mut report = Report::new(source.clone());
    let Some(model) = read(&source, &mut report) else { return Err(report.finish()) };
    let made = then(&model, &mut report);
    if report.is_clean() { Ok(made) } else { Err(report.finish()) }
}

/// The policy of `source`, unless it has mistakes.
pub(crate) fn read<'a>(source: &'a Source, report: &mut Report) -> Option<Model<'a>> {
    let file = parse::parse(source.text(), report);
    let names = resolve(&file, report);
    let lower::Lowered { policy, spans, forwards } = lower::lower(source, &file, &names, report)?;
    Some(Model { source, file, names, policy, spans, forwards })
}

/// Parses `text`, which was not written in a file but given as `what`, and uses the names of a policy.
pub(crate) fn aside<'t, T>(
    (what, text): (&str, &'t str),
    parse: impl FnOnce(&mut Parser<'t, '_>) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    let source = Arc::new(Source::new(what, text));
    let mut report = Report::aside(source);
    let parsed = parse(&mut Parser::new(text, &mut report));
    parsed.filter(|_| report.is_clean()).ok_or_else(|| report.finish())
}

impl Model<'_> {
    /// Where the rule `id` stands.
    pub(crate) fn span(&self, id: RuleId) -> Option<Span> {
        self.spans.get(id.index().checked_sub(1)?).copied().flatten()
    }

    /// How the rule `id` was written, on one line.
    pub(crate) fn written(&self, id: RuleId) -> String {
        let span = self.span(id).and_then(|span| self.source.text().get(span.start..span.end));
        let text = span.unwrap_or("(no block speaks of this direction)");
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line));
        lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    }

    /// By which zone a packet leaves, if not by that of its direction.
    pub(crate) fn leaves_by(&self, packet: &Query) -> Option<String> {
        let uplink = self.policy.parts().services.uplink_to(packet.dst);
        let other = packet.to.uplink().is_some_and(|asked| asked != uplink);
        other.then(|| self.names.zone_called(Zone::Uplink(uplink)))
    }

    /// Checks what the file expects of itself.
    pub(crate) fn expectations(&self, report: &mut Report) {
        expect::check(self, report);
    }
}
