//! Cuts the text into tokens. A token is a mark or a word; what a word means (a name, an address, a
//! port) is for the parser to say, which knows what should stand there.

use crate::Span;
use crate::diagnostic::Report;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Letters, digits and `_ . : / -`; also `*.` before them, so that what is wrong with it can be said.
    Word,
    /// `->`
    Arrow,
    /// One of `{ } [ ] , ; =`.
    Mark(char),
    /// The end of the text.
    End,
}

/// A token with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// What is taken for `->` once it has been reported, so that it is reported once.
const ARROW_LIKE: [&str; 3] = [">", "→", "»"];

/// All tokens, [`Kind::End`] last. `#` begins a comment.
pub(crate) fn lex<'a>(text: &'a str, report: &mut Report) -> Vec<Token<'a>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let start = text.len().saturating_sub(rest.len());
        let (kind, len) = match first {
            '#' => (None, rest.find('\n').unwrap_or(rest.len())),
            c if c.is_whitespace() => (None, c.len_utf8()),
            '{' | '}' | '[' | ']' | ',' | ';' | '=' => (Some(Kind::Mark(first)), 1),
            '-' if rest.starts_with("->") => (Some(Kind::Arrow), 2),
            c if in_word(c) || rest.starts_with("*.") => (Some(Kind::Word), word_len(rest)),
            _ => (None, strange_len(rest)),
        };
        let Some((piece, after)) = rest.split_at_checked(len) else { break };
        let span = Span { start, end: start.saturating_add(len) };
        match kind {
            Some(kind) => tokens.push(Token { kind, text: piece, span }),
            None if first == '#' || first.is_whitespace() => {}
            None => {
                strange(piece, span, report);
                if ARROW_LIKE.contains(&piece) {
                    tokens.push(Token { kind: Kind::Arrow, text: piece, span });
                }
            }
        }
        rest = after;
    }
    let end = Span { start: text.len(), end: text.len() };
    tokens.push(Token { kind: Kind::End, text: "", span: end });
    tokens
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-')
}

/// A word ends before an arrow, so `a->b` is read as `a -> b`.
fn word_len(text: &str) -> usize {
    let star = text.len().saturating_sub(text.trim_start_matches('*').len());
    let after = text.get(star..).and_then(|rest| rest.find(|c| !in_word(c)));
    let end = after.map_or(text.len(), |len| len.saturating_add(star));
    let next = text.get(end..).unwrap_or("");
    let before_arrow = next.starts_with('>') && text.get(..end).is_some_and(|w| w.ends_with('-'));
    if before_arrow { end.saturating_sub(1) } else { end }
}

fn strange_len(text: &str) -> usize {
    let known = |c: char| in_word(c) || c.is_whitespace() || "{}[],;=#".contains(c);
    text.find(known).unwrap_or(text.len())
}

fn strange(piece: &str, span: Span, report: &mut Report) {
    let shown: String = piece.chars().flat_map(shown).collect();
    let more = report.error("bad-character", format!("`{shown}` has no meaning here"), span, "");
    if piece.starts_with('"') || piece.starts_with('\'') {
        more.help("names and addresses stand without quotes");
    } else if piece.starts_with('!') {
        more.help("there is no `not`: put a rule for the exception before the general one");
    } else if ARROW_LIKE.contains(&piece) {
        more.help("a direction is written `clients -> uplink`");
    } else if piece.starts_with('*') {
        more.help("a condition that is left out holds for everything");
    }
}

/// A character as a message may show it: what is not printable is escaped.
pub(crate) fn shown(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = match c {
        '"' | '\'' => (Some(c), None),
        _ => (None, Some(c.escape_debug())),
    };
    plain.into_iter().chain(escaped.into_iter().flatten())
}
