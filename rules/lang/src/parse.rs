//! Recursive descent over the tokens of a file.
//!
//! In: the text. Out: every declaration that could be understood. A mistake is reported where it
//! stands; then the parser skips to the next word that can only begin something new and goes on, so
//! that one run tells of all mistakes. A declaration with a mistake in its body still declares its
//! name, so that no later line is blamed for it. Never: recursion that the text can deepen.

mod declaration;
mod expectation;
mod kinds;
mod rule;
mod service;

use crate::Span;
use crate::ast::{File, Name};
use crate::diagnostic::{More, Report};
use crate::lex::{Kind, Token, lex};
use crate::literal::{Fault, is_name};
use crate::words::{DECLARATIONS, did_you_mean, is_reserved, later};

/// Letters a name may have: as many as a VM's in Qubes has, and some.
const NAME_MAX: usize = 63;

/// The declarations in `text`.
pub(crate) fn parse<'a>(text: &'a str, report: &mut Report) -> File<'a> {
    let mut parser = Parser::new(text, report);
    let mut file = File::default();
    while parser.peek().kind != Kind::End {
        if parser.declaration(&mut file).is_err() {
            parser.skip_to_declaration();
        }
    }
    file
}

/// What was being parsed is not there, which has been reported.
struct Reported;

type Parsed<T> = Result<T, Reported>;

pub(crate) struct Parser<'a, 'r> {
    text: &'a str,
    /// Ends with [`Kind::End`], which is never consumed.
    tokens: Vec<Token<'a>>,
    at: usize,
    report: &'r mut Report,
}

impl<'a, 'r> Parser<'a, 'r> {
    pub(crate) fn new(text: &'a str, report: &'r mut Report) -> Self {
        let tokens = lex(text, report);
        Self { text, tokens, at: 0, report }
    }
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Token<'a> {
        self.peek_at(0)
    }

    /// The token `ahead` of the next one.
    fn peek_at(&self, ahead: usize) -> Token<'a> {
        let end = Token { kind: Kind::End, text: "", span: Span { start: 0, end: 0 } };
        let at = self.at.saturating_add(ahead);
        self.tokens.get(at).or(self.tokens.last()).copied().unwrap_or(end)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token.kind != Kind::End {
            self.at = self.at.saturating_add(1);
        }
        token
    }

    /// The token before the next one.
    fn last_span(&self) -> Span {
        let last = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        last.map_or(Span { start: 0, end: 0 }, |token| token.span)
    }

    fn is_word(&self, word: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Word && token.text == word
    }

    fn is_one_of(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(word))
    }

    /// Takes the word `word` if it is next.
    fn eat_word(&mut self, word: &str) -> bool {
        let there = self.is_word(word);
        if there {
            self.next();
        }
        there
    }

    /// Takes the mark `mark` if it is next.
    fn eat(&mut self, mark: char) -> bool {
        let there = self.peek().kind == Kind::Mark(mark);
        if there {
            self.next();
        }
        there
    }

    fn want(&mut self, mark: char) -> Parsed<Span> {
        let token = self.peek();
        if self.eat(mark) {
            return Ok(token.span);
        }
        self.expected(&format!("`{mark}`"));
        Err(Reported)
    }

    fn want_word(&mut self, word: &'static str) -> Parsed<Span> {
        let token = self.peek();
        if self.eat_word(word) {
            return Ok(token.span);
        }
        self.expected(&format!("`{word}`")).maybe_help(did_you_mean(token.text, [word]));
        Err(Reported)
    }

    /// Whether the next token is the first of its line.
    fn begins_line(&self) -> bool {
        let (before, next) = (self.last_span().end, self.peek().span.start);
        self.text.get(before..next).is_some_and(|between| between.contains('\n'))
    }

    /// Reports that `what` should stand where the next token stands. If a line ends before that,
    /// the place shown is the end of the line, where it is missing.
    fn expected(&mut self, what: &str) -> More<'_> {
        if self.at == 0 || !self.begins_line() {
            return self.unexpected(what);
        }
        let end = self.last_span().end;
        let message = format!("expected {what}, found the end of the line");
        let label = format!("expected {what}");
        self.report.error("expected", message, Span { start: end, end }, label)
    }

    /// Reports that the next token should not stand there, but `what`.
    fn unexpected(&mut self, what: &str) -> More<'_> {
        let token = self.peek();
        let help = match token.text {
            "-" => Some("a range is written without spaces: `10.0.0.1-10.0.0.9`"),
            "}" => Some("no block is open here"),
            word => later(word),
        };
        let (code, message) = match token.kind {
            Kind::End => ("expected", format!("expected {what}, found the end of the file")),
            _ if later(token.text).is_some() => {
                ("not-supported", format!("`{}` is not a word of the language", token.text))
            }
            _ => ("expected", format!("expected {what}, found `{}`", token.text)),
        };
        let label = format!("expected {what}");
        self.report.error(code, message, token.span, label).maybe_help(help.map(str::to_owned))
    }

    /// Reports what is wrong with the word at `span`.
    fn fault(&mut self, fault: Fault, span: Span) -> Reported {
        self.report.error(fault.code, fault.message, span, "").maybe_help(fault.help);
        Reported
    }

    /// A name; `of` says of what. A new name must not be a reserved word.
    fn name(&mut self, of: &str) -> Parsed<Name<'a>> {
        let token = self.peek();
        if token.kind != Kind::Word || !is_name(token.text) {
            self.expected(of);
            return Err(Reported);
        }
        if is_reserved(token.text) || later(token.text).is_some() {
            let message = format!("expected {of}, found the reserved word `{}`", token.text);
            self.report
                .error("expected", message, token.span, format!("expected {of}"))
                .help("choose another name, for example with a `-` in it");
            return Err(Reported);
        }
        if token.text.len() > NAME_MAX {
            let message = format!("this name is longer than {NAME_MAX} letters");
            self.report.error("long-name", message, token.span, "");
            return Err(Reported);
        }
        self.next();
        Ok(Name { text: token.text, span: token.span })
    }

    /// One `item`, or several in brackets.
    fn one_or_list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let open = self.peek().span;
        if !self.eat('[') {
            return Ok(vec![item(self)?]);
        }
        let mut items = Vec::new();
        while !self.eat(']') {
            if matches!(self.peek().kind, Kind::End | Kind::Mark('{' | '}' | ';' | '=')) {
                self.expected("`]`").see(open, "the list begins here");
                return Err(Reported);
            }
            items.push(item(self)?);
            if self.peek().kind != Kind::Mark(']') && !self.eat(',') {
                self.expected("`,` or `]`").see(open, "the list begins here");
                return Err(Reported);
            }
        }
        if items.is_empty() {
            let span = open.to(self.last_span());
            self.report
                .error("empty-list", "an empty list matches nothing", span, "")
                .help("leave the condition out if it is to hold for everything");
            return Err(Reported);
        }
        Ok(items)
    }

    /// Goes on where the next declaration begins, outside of all braces opened meanwhile.
    fn skip_to_declaration(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek().kind {
                Kind::End => return,
                Kind::Mark('{') => depth = depth.saturating_add(1),
                Kind::Mark('}') => depth = depth.saturating_sub(1),
                Kind::Word if depth == 0 && self.is_one_of(&DECLARATIONS) => return,
                Kind::Word | Kind::Arrow | Kind::Mark(_) => {}
            }
            self.next();
        }
    }
}
