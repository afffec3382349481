//! Writes a policy in the one layout.
//!
//! In: the text of a policy. Out: the same words in the same order with the same comments, one rule a
//! line, blocks and lists indented, `=` and comments of neighbouring lines aligned. Formatting twice
//! changes nothing more. Never: touches a text with mistakes in its form.

use crate::diagnostic::Report;
use crate::lex::{Kind, Token, lex};
use crate::words::{DECLARATIONS, VERDICTS};
use crate::{Diagnostic, Source, parse};
use std::sync::Arc;

/// Declarations whose `=` are aligned in neighbouring lines.
const ALIGNED: [&str; 4] = ["zone", "vm", "set", "service"];

/// The policy `text` in the one layout.
///
/// # Errors
/// What is wrong with its form. Names that do not exist, and the like, do not matter here.
pub fn format(name: &str, text: &str) -> Result<String, Vec<Diagnostic>> {
    let mut report = Report::new(Arc::new(Source::new(name, text)));
    parse::parse(text, &mut report);
    if !report.is_clean() {
        return Err(report.finish());
    }
    let tokens = lex(text, &mut report);
    let one_line = (0..tokens.len()).map(|at| fits_one_line(text, &tokens, at)).collect();
    let mut layout = Layout { one_line, ..Layout::default() };
    let mut end = 0;
    for (at, token) in tokens.iter().enumerate() {
        layout.gap(text.get(end..token.span.start).unwrap_or(""));
        layout.token(&tokens, at);
        end = token.span.end;
    }
    layout.break_line();
    Ok(layout.finish())
}

/// A line to be written.
#[derive(Debug, Default)]
struct Line {
    indent: usize,
    text: String,
    comment: Option<String>,
    blank_before: bool,
}

#[derive(Debug, Default)]
struct Layout {
    lines: Vec<Line>,
    line: Line,
    in_block: bool,
    /// Whether the block that is open is written on one line.
    short: bool,
    /// For each token, whether it opens a block that can be written so.
    one_line: Vec<bool>,
    brackets: usize,
    /// Whether the statement has begun on an earlier line.
    goes_on: bool,
    /// Line breaks since the last token, and whether a comment was among them.
    breaks: usize,
    last: Option<Kind>,
}

impl Layout {
    /// What stands between two tokens: line breaks and comments.
    fn gap(&mut self, gap: &str) {
        for (at, piece) in gap.split('\n').enumerate() {
            if at > 0 {
                self.breaks = self.breaks.saturating_add(1);
            }
            let Some((_, comment)) = piece.split_once('#') else { continue };
            let comment = format!("#{}", comment.trim_end());
            if self.breaks == 0 && !self.lines.is_empty() && self.line.text.is_empty() {
                // Behind a token whose line has just ended.
                if let Some(line) = self.lines.last_mut() {
                    line.comment = Some(comment);
                }
                continue;
            }
            if self.breaks > 0 {
                self.begin_line();
            }
            self.line.comment = Some(comment);
            let goes_on = self.goes_on || !self.line.text.is_empty();
            self.break_line();
            self.goes_on = goes_on;
            self.breaks = 0;
        }
    }

    fn token(&mut self, tokens: &[Token<'_>], at: usize) {
        let Some(token) = tokens.get(at) else { return };
        if matches!(token.kind, Kind::End | Kind::Mark(';')) {
            // The next rule or declaration begins a line anyway.
            return;
        }
        let closes = token.kind == Kind::Mark('}');
        let begins = self.brackets == 0 && begins(token, self.in_block);
        if begins && !(self.short && self.last == Some(Kind::Mark('{'))) {
            self.begin_line();
            self.goes_on = false;
        } else if closes && !self.short {
            self.begin_line();
            self.goes_on = false;
            self.in_block = false;
        } else if self.breaks > 0 {
            self.begin_line();
        }
        if self.line.text.is_empty() {
            let closing = usize::from(token.kind == Kind::Mark(']'));
            let depth = usize::from(self.in_block)
                .saturating_add(usize::from(self.goes_on))
                .saturating_add(self.brackets.saturating_sub(closing).min(1));
            let both = self.goes_on && self.brackets > 0;
            self.line.indent = depth.saturating_sub(usize::from(both));
            if self.goes_on && closing == 1 {
                self.line.indent = usize::from(self.in_block);
            }
        } else if spaced(self.last, token) {
            self.line.text.push(' ');
        }
        self.line.text.push_str(token.text);
        self.breaks = 0;
        self.last = Some(token.kind);
        match token.kind {
            Kind::Mark('{') => {
                self.in_block = true;
                self.short = self.one_line.get(at).copied().unwrap_or(false);
                if !self.short {
                    self.break_line();
                    self.goes_on = false;
                }
            }
            Kind::Mark('}') => {
                (self.in_block, self.short) = (false, false);
                self.break_line();
                self.goes_on = false;
            }
            Kind::Mark('[') => self.brackets = self.brackets.saturating_add(1),
            Kind::Mark(']') => self.brackets = self.brackets.saturating_sub(1),
            _ => {}
        }
    }

    /// Ends the line, if it has begun, and goes to the next.
    fn begin_line(&mut self) {
        let goes_on = !self.line.text.is_empty() || self.goes_on;
        self.break_line();
        self.goes_on = goes_on;
        let opened = self.lines.last().is_some_and(|line| line.text.ends_with('{'));
        self.line.blank_before = self.breaks > 1 && !self.lines.is_empty() && !opened;
        self.line.indent = usize::from(self.in_block);
        self.breaks = 0;
    }

    fn break_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.text.is_empty() || line.comment.is_some() {
            self.lines.push(line);
        }
    }

    fn finish(mut self) -> String {
        for line in &mut self.lines {
            // No empty line before the end of a block.
            line.blank_before &= line.text != "}";
        }
        align(&mut self.lines, keyword, |line| line.text.find(" =").unwrap_or(0));
        align(&mut self.lines, commented, |line| line.text.len());
        let mut text = String::new();
        for line in &self.lines {
            if line.blank_before {
                text.push('\n');
            }
            text.push_str(&"    ".repeat(line.indent));
            text.push_str(&line.text);
            if let Some(comment) = &line.comment {
                text.push_str(if line.text.is_empty() { "" } else { "  " });
                text.push_str(comment);
            }
            text.push('\n');
        }
        text
    }
}

/// The keyword of a declaration whose `=` is aligned with that of its neighbours.
fn keyword(line: &Line) -> Option<&'static str> {
    let word = line.text.split(' ').next().filter(|_| line.indent == 0)?;
    ALIGNED.into_iter().find(|aligned| *aligned == word)
}

/// Whether a comment stands behind something.
fn commented(line: &Line) -> Option<&'static str> {
    (line.comment.is_some() && !line.text.is_empty()).then_some("#")
}

/// Pads neighbouring lines of one `sort` at the byte `place` says, so that what follows stands in one
/// column.
fn align(
    lines: &mut [Line],
    sort: impl Fn(&Line) -> Option<&'static str>,
    place: impl Fn(&Line) -> usize,
) {
    let joins = |a: &Line, b: &Line| !b.blank_before && sort(a).is_some() && sort(a) == sort(b);
    for run in lines.chunk_by_mut(joins) {
        let column = |line: &Line| {
            let before = line.text.get(..place(line)).unwrap_or("").chars().count();
            line.indent.saturating_mul(4).saturating_add(before)
        };
        let widest = run.iter().map(column).max().unwrap_or(0);
        for line in run.iter_mut().filter(|line| sort(line).is_some()) {
            let pad = " ".repeat(widest.saturating_sub(column(line)));
            let at = place(line);
            line.text.insert_str(at, &pad);
        }
    }
}

/// Whether a declaration, or in a block a rule, begins with `token`.
fn begins(token: &Token<'_>, in_block: bool) -> bool {
    let words = if in_block { &VERDICTS[..] } else { &DECLARATIONS };
    token.kind == Kind::Word && words.contains(&token.text)
}

/// Whether a block that opens at `at` was written on one line with at most one rule.
fn fits_one_line(text: &str, tokens: &[Token<'_>], at: usize) -> bool {
    let Some(open) = tokens.get(at).filter(|token| token.kind == Kind::Mark('{')) else {
        return false;
    };
    let inside = tokens.iter().skip(at);
    let inside = inside.take_while(|token| token.kind != Kind::Mark('}'));
    let (mut rules, mut end) = (0usize, open.span.end);
    for token in inside {
        rules = rules.saturating_add(usize::from(begins(token, true)));
        end = token.span.end;
    }
    let close =
        tokens.iter().find(|token| token.span.start >= end && token.kind == Kind::Mark('}'));
    let end = close.map_or(end, |token| token.span.end);
    rules <= 1 && text.get(open.span.start..end).is_some_and(|block| !block.contains(['\n', '#']))
}

/// Whether a space stands between a token of the kind `last` and `token`.
fn spaced(last: Option<Kind>, token: &Token<'_>) -> bool {
    let port = last == Some(Kind::Mark(']')) && token.text.starts_with(':');
    !matches!(token.kind, Kind::Mark(',' | ']')) && last != Some(Kind::Mark('[')) && !port
}
