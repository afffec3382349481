//! What stands in a policy block.

use super::{Parsed, Parser, Reported};
use crate::Span;
use crate::ast::{Addresses, Kind, Rule, Verdict};
use crate::lex;
use crate::literal;
use crate::words::{CLAUSES, DECLARATIONS, PROTOCOLS, VERDICTS, did_you_mean, is_reserved};
use rules::{Action, RejectKind, Then};

type Ports = Vec<(u16, u16)>;

impl<'a> Parser<'a, '_> {
    pub(super) fn rule(&mut self) -> Parsed<Rule<'a>> {
        let verdict = self.verdict()?;
        let mut rule = Rule {
            span: verdict.span,
            verdict,
            kinds: Vec::new(),
            sport: None,
            from: None,
            to: None,
            log: false,
        };
        if self.peek().kind == lex::Kind::Word && !self.is_one_of(&CLAUSES) && !self.rule_ended() {
            rule.kinds = self.kinds()?;
        }
        while !self.rule_ended() {
            let clause = self.peek();
            match clause.text {
                "sport" => {
                    self.next();
                    let ports = self.port_list()?;
                    let span = clause.span.to(self.last_span());
                    self.once(rule.sport.replace((ports, span)).is_some(), clause)?;
                }
                "from" => {
                    self.next();
                    let from = self.address_list()?;
                    self.once(rule.from.replace(from).is_some(), clause)?;
                }
                "to" => {
                    self.next();
                    let to = self.address_list()?;
                    self.once(rule.to.replace(to).is_some(), clause)?;
                }
                "log" => {
                    self.next();
                    self.once(std::mem::replace(&mut rule.log, true), clause)?;
                }
                _ => {
                    let wanted = if rule.kinds.is_empty() {
                        "a protocol, `from`, `to`, `log` or the next rule"
                    } else {
                        "`sport`, `from`, `to`, `log` or the next rule"
                    };
                    let candidates = [&CLAUSES[..], &VERDICTS].concat();
                    self.expected(wanted).maybe_help(did_you_mean(clause.text, candidates));
                    return Err(Reported);
                }
            }
        }
        rule.span = verdict.span.to(self.last_span());
        Ok(rule)
    }

    /// Whether the next token ends a rule or begins another.
    fn rule_ended(&self) -> bool {
        match self.peek().kind {
            lex::Kind::End | lex::Kind::Mark(';' | '}') => true,
            lex::Kind::Word => self.is_one_of(&VERDICTS) || self.is_one_of(&DECLARATIONS),
            lex::Kind::Arrow | lex::Kind::Mark(_) => false,
        }
    }

    /// Goes on at the next rule: behind a `;`, or at the next line that does not go on with this
    /// one, which began at the token `start`.
    pub(super) fn skip_to_rule(&mut self, start: usize) {
        let seen = self.tokens.get(start..self.at).unwrap_or(&[]);
        let count = |mark| seen.iter().filter(|token| token.kind == lex::Kind::Mark(mark)).count();
        let mut open = count('[').saturating_sub(count(']'));
        while !self.rule_ended() {
            let goes_on = open > 0 || self.is_one_of(&CLAUSES);
            if self.begins_line() && !goes_on {
                return;
            }
            match self.next().kind {
                lex::Kind::Mark('[') => open = open.saturating_add(1),
                lex::Kind::Mark(']') => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn once(&mut self, twice: bool, clause: lex::Token<'a>) -> Parsed<()> {
        if !twice {
            return Ok(());
        }
        let message = format!("this rule has a second `{}`", clause.text);
        let more = self.report.error("twice", message, clause.span, "");
        if clause.text != "log" {
            more.help("several addresses or ports are written in one list: `[10.0.0.1, 10.0.0.2]`");
        }
        Err(Reported)
    }

    fn verdict(&mut self) -> Parsed<Verdict> {
        let word = self.peek();
        let then = match word.text {
            "accept" => Then::Do(Action::Accept),
            "drop" => Then::Do(Action::Drop),
            "reject" => Then::Do(Action::Reject(RejectKind::AdminProhibited)),
            "qubes" => Then::Qubes,
            _ => {
                self.unexpected("a rule: `accept`, `drop`, `reject` or `qubes`")
                    .maybe_help(did_you_mean(word.text, VERDICTS));
                // A rule is looked for behind this word, or it would be found wanting again.
                self.next();
                return Err(Reported);
            }
        };
        self.next();
        match (word.text, self.reject_kind()) {
            ("reject", Some((kind, end))) => {
                let then = Then::Do(Action::Reject(kind));
                Ok(Verdict { then, span: word.span.to(end) })
            }
            _ => Ok(Verdict { then, span: word.span }),
        }
    }

    /// Takes the name of a reject kind if it is next.
    pub(super) fn reject_kind(&mut self) -> Option<(RejectKind, Span)> {
        let token = self.peek();
        let kind = RejectKind::ALL.into_iter().find(|kind| kind.name() == token.text)?;
        self.next();
        Some((kind, token.span))
    }

    /// `tcp 80, 443, udp 53, SERVICE, …`: a number after a comma belongs to the protocol before it.
    pub(super) fn kinds(&mut self) -> Parsed<Vec<Kind<'a>>> {
        let mut kinds = vec![self.kind()?];
        while self.eat(',') {
            kinds.push(self.kind()?);
        }
        Ok(kinds)
    }

    fn kind(&mut self) -> Parsed<Kind<'a>> {
        let word = self.peek();
        Ok(match word.text {
            "tcp" => {
                self.next();
                Kind::Tcp(self.ports()?)
            }
            "udp" => {
                self.next();
                Kind::Udp(self.ports()?)
            }
            "icmp" => {
                self.next();
                self.icmp()?
            }
            text if word.kind == lex::Kind::Word && literal::is_numeric(text) => {
                let help = format!("say of which protocol: `tcp {text}`");
                self.expected("a protocol or a service").help(help);
                return Err(Reported);
            }
            text if word.kind != lex::Kind::Word
                || is_reserved(text)
                || !literal::is_name(text) =>
            {
                self.expected("a protocol or a service").maybe_help(did_you_mean(text, PROTOCOLS));
                return Err(Reported);
            }
            _ if crate::words::later(word.text).is_some() => {
                self.expected("a protocol or a service");
                return Err(Reported);
            }
            _ if self.peek_at(1).kind == lex::Kind::Word
                && literal::is_numeric(self.peek_at(1).text) =>
            {
                let message = format!("`{}` is not a protocol", word.text);
                self.report
                    .error("expected", message, word.span, "expected `tcp` or `udp` before a port")
                    .maybe_help(did_you_mean(word.text, PROTOCOLS));
                self.next();
                return Err(Reported);
            }
            _ => Kind::Service(self.name("a protocol or a service")?),
        })
    }

    /// The type after `icmp`, if there is one.
    fn icmp(&mut self) -> Parsed<Kind<'a>> {
        let word = self.peek();
        if self.eat_word("echo-request") {
            return Ok(Kind::EchoRequest);
        }
        let ends = self.is_one_of(&CLAUSES) || self.rule_ended();
        if word.kind != lex::Kind::Word || ends {
            return Ok(Kind::Icmp);
        }
        let wanted = "`echo-request`, `from`, `to`, `log` or the next rule";
        self.expected(wanted).help(
            "`echo-request` is the only ICMP type that begins a flow; \
             errors and answers pass with the flow they belong to",
        );
        Err(Reported)
    }

    /// Ports after a protocol: none at all is every port.
    fn ports(&mut self) -> Parsed<Ports> {
        let mut ports = Vec::new();
        if self.peek().kind == lex::Kind::Mark('[') {
            return self.one_or_list(Self::port_range);
        }
        if !self.at_port(0) {
            return Ok(ports);
        }
        ports.push(self.port_range()?);
        while self.peek().kind == lex::Kind::Mark(',') && self.at_port(1) {
            self.next();
            ports.push(self.port_range()?);
        }
        Ok(ports)
    }

    /// Ports after `sport`.
    fn port_list(&mut self) -> Parsed<Ports> {
        let ports = self.ports()?;
        if ports.is_empty() {
            self.expected("a port");
            return Err(Reported);
        }
        Ok(ports)
    }

    fn at_port(&self, ahead: usize) -> bool {
        let token = self.peek_at(ahead);
        token.kind == lex::Kind::Word && literal::is_numeric(token.text)
    }

    fn port_range(&mut self) -> Parsed<(u16, u16)> {
        let token = self.peek();
        if token.kind != lex::Kind::Word {
            self.expected("a port");
            return Err(Reported);
        }
        self.next();
        literal::ports(token.text).map_err(|fault| self.fault(fault, token.span))
    }

    pub(super) fn address_list(&mut self) -> Parsed<Vec<Addresses<'a>>> {
        self.one_or_list(Self::addresses).map(|lists| lists.into_iter().flatten().collect())
    }

    /// One name, address, network or range.
    pub(super) fn addresses(&mut self) -> Parsed<Option<Addresses<'a>>> {
        let token = self.peek();
        if token.kind != lex::Kind::Word || is_reserved(token.text) {
            self.expected("an address, or the name of a vm or set");
            return Err(Reported);
        }
        if crate::words::later(token.text).is_some() {
            self.expected("an address, or the name of a vm or set");
            return Err(Reported);
        }
        self.next();
        if literal::is_name(token.text) {
            let name = crate::ast::Name { text: token.text, span: token.span };
            return Ok(Some(Addresses::Named(name)));
        }
        match literal::addresses(token.text) {
            Ok((first, last)) => Ok(Some(Addresses::Range(first, last))),
            Err(fault) => {
                // The word is understood as an address; what follows it still can be read.
                self.fault(fault, token.span);
                Ok(None)
            }
        }
    }
}
