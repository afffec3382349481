//! What stands in a policy block or a group.

use super::{Parsed, Parser, Reported};
use crate::Span;
use crate::ast::{Does, Rule, Verdict, When};
use crate::lex;
use crate::literal;
use crate::words::{CLAUSES, DECLARATIONS, VERDICTS, did_you_mean};
use rules::{Action, FLAG_NAMES, Note, Rate, RejectKind, Severity, State, Then};

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
            when: When::default(),
            limit: None,
            log: None,
        };
        let simple = matches!(rule.verdict.does, Does::Then(_));
        let kinds = self.peek().kind == lex::Kind::Word && !self.is_one_of(&CLAUSES);
        if simple && kinds && !self.rule_ended() {
            rule.kinds = self.kinds()?;
        }
        while !self.rule_ended() {
            let clause = self.peek();
            if !CLAUSES.contains(&clause.text) || !may_have(&rule.verdict.does, clause.text) {
                self.no_clause(&rule);
                return Err(Reported);
            }
            self.clause(&mut rule, clause)?;
        }
        rule.span = rule.verdict.span.to(self.last_span());
        Ok(rule)
    }

    /// Takes one condition, or what else is said of a rule.
    fn clause(&mut self, rule: &mut Rule<'a>, clause: lex::Token<'a>) -> Parsed<()> {
        if self.condition(&mut rule.when)? {
            return Ok(());
        }
        self.next();
        let twice = match clause.text {
            "sport" => {
                let ports = self.port_list()?;
                rule.sport.replace((ports, clause.span.to(self.last_span()))).is_some()
            }
            "from" => rule.from.replace(self.address_list()?).is_some(),
            "to" => rule.to.replace(self.address_list()?).is_some(),
            "limit" => rule.limit.replace(self.limit()?).is_some(),
            _ => rule.log.replace(self.note()?).is_some(),
        };
        self.once(twice, clause)
    }

    /// Takes a condition about the rest of the header, if one is next.
    pub(super) fn condition(&mut self, when: &mut When) -> Parsed<bool> {
        let clause = self.peek();
        let numbers = match clause.text {
            "state" | "ttl" | "dscp" | "length" | "flags" | "no-flags" => self.next(),
            _ => return Ok(false),
        };
        let twice = match numbers.text {
            "state" => when.state.replace(self.state()?).is_some(),
            "ttl" => {
                let list = self.one_or_list(|p| p.number_range(255, "a TTL"))?;
                when.ttl.replace(list).is_some()
            }
            "dscp" => when.dscp.replace(self.one_or_list(Self::dscp)?).is_some(),
            "length" => {
                let list = self.one_or_list(|p| p.number_range(u16::MAX, "a length in bytes"))?;
                when.length.replace(list).is_some()
            }
            word => {
                let bits = self.one_or_list(Self::flag)?.into_iter().fold(0, |all, bit| all | bit);
                let said = (bits, clause.span.to(self.last_span()));
                let flags = if word == "flags" { &mut when.flags } else { &mut when.no_flags };
                flags.replace(said).is_some()
            }
        };
        self.once(twice, clause)?;
        Ok(true)
    }

    fn state(&mut self) -> Parsed<State> {
        let token = self.peek();
        let Some(state) = State::ALL.into_iter().find(|state| state.name() == token.text) else {
            let meant = did_you_mean(token.text, State::ALL.map(State::name));
            self.expected("`new` or `established`").maybe_help(meant);
            return Err(Reported);
        };
        self.next();
        Ok(state)
    }

    fn number_range(&mut self, most: u16, what: &str) -> Parsed<(u16, u16)> {
        let token = self.peek();
        if token.kind != lex::Kind::Word || !literal::is_numeric(token.text) {
            self.expected(what);
            return Err(Reported);
        }
        self.next();
        literal::numbers(token.text, most, what).map_err(|fault| self.fault(fault, token.span))
    }

    fn dscp(&mut self) -> Parsed<(u16, u16)> {
        if let Some(value) = literal::dscp(self.peek().text) {
            self.next();
            return Ok((value, value));
        }
        self.number_range(63, "a DSCP: `ef`, `af11`, `cs1` or a number")
    }

    fn flag(&mut self) -> Parsed<u8> {
        let token = self.peek();
        let Some(bit) = FLAG_NAMES.into_iter().position(|name| name == token.text) else {
            let meant = did_you_mean(token.text, FLAG_NAMES);
            self.expected("a TCP flag: `syn`, `psh`, `urg`, `ece`, `cwr`").maybe_help(meant);
            return Err(Reported);
        };
        self.next();
        Ok(1u8.checked_shl(u32::try_from(bit).unwrap_or(0)).unwrap_or(0))
    }

    /// `RATE [burst NUMBER]`
    fn limit(&mut self) -> Parsed<Rate> {
        let (count, secs) = self.rate()?;
        let burst = if self.eat_word("burst") {
            let token = self.peek();
            let (first, last) = self.number_range(u16::MAX, "how many may come at once")?;
            if first != last || first == 0 {
                let message = "a burst is one number above 0";
                self.report.error("bad-number", message, token.span, "");
                return Err(Reported);
            }
            first.into()
        } else {
            count
        };
        Ok(Rate { count, secs, burst })
    }

    fn rate(&mut self) -> Parsed<(u32, u32)> {
        let token = self.peek();
        if token.kind != lex::Kind::Word || !literal::is_numeric(token.text) {
            self.expected("a rate: `10/s`");
            return Err(Reported);
        }
        self.next();
        literal::rate(token.text).map_err(|fault| self.fault(fault, token.span))
    }

    /// `[SEVERITY] [RATE]` behind `log`.
    fn note(&mut self) -> Parsed<Note> {
        let token = self.peek();
        let named = Severity::ALL.into_iter().find(|severity| severity.name() == token.text);
        let severity = match named {
            Some(severity) => {
                self.next();
                severity
            }
            None => Severity::default(),
        };
        let rate = self.peek();
        let limited = rate.kind == lex::Kind::Word && literal::is_numeric(rate.text);
        let limit = if limited { Some(self.limit()?) } else { None };
        Ok(Note { severity, limit })
    }

    /// Reports that the next word is nothing that can be said of `rule`.
    fn no_clause(&mut self, rule: &Rule<'a>) {
        let token = self.peek();
        let wanted = match (&rule.verdict.does, rule.kinds.is_empty()) {
            (Does::Use(_), _) => "`from`, `to` or the next rule",
            (Does::Forward(_), _) => "`at`, `balance`, `from`, `limit`, `log` or the next rule",
            (_, true) => "a protocol, a condition such as `from`, or the next rule",
            _ => "a condition such as `from`, `limit`, `log` or the next rule",
        };
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        if before.is_some_and(|before| before.text == "log") {
            let names = Severity::ALL.map(Severity::name);
            let meant = did_you_mean(token.text, names);
            let all = format!("severities are {}", names.join(", "));
            self.expected("a severity, a rate or the next rule").maybe_help(meant).help(all);
            return;
        }
        let meant = did_you_mean(token.text, [&CLAUSES[..], &VERDICTS].concat());
        self.expected(wanted).maybe_help(meant);
    }

    /// Whether the next token ends a rule or begins another.
    pub(super) fn rule_ended(&self) -> bool {
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

    pub(super) fn once(&mut self, twice: bool, clause: lex::Token<'a>) -> Parsed<()> {
        if !twice {
            return Ok(());
        }
        let message = format!("this rule has a second `{}`", clause.text);
        let more = self.report.error("twice", message, clause.span, "");
        if matches!(clause.text, "sport" | "from" | "to" | "ttl" | "dscp" | "length") {
            more.help("several addresses or ports are written in one list: `[10.0.0.1, 10.0.0.2]`");
        }
        Err(Reported)
    }

    fn verdict(&mut self) -> Parsed<Verdict<'a>> {
        let word = self.peek();
        let then = match word.text {
            "accept" => Then::Do(Action::Accept),
            "drop" => Then::Do(Action::Drop),
            "reject" => Then::Do(Action::Reject(RejectKind::AdminProhibited)),
            "qubes" => Then::Qubes,
            "forward" => {
                self.next();
                let does = Does::Forward(self.forwarding()?);
                return Ok(Verdict { does, span: word.span });
            }
            "use" => {
                self.next();
                let name = self.name("the name of a group")?;
                return Ok(Verdict { does: Does::Use(name), span: word.span });
            }
            _ => {
                self.unexpected("a rule: `accept`, `drop`, `reject`, `forward`, `use` or `qubes`")
                    .maybe_help(did_you_mean(word.text, VERDICTS));
                // A rule is looked for behind this word, or it would be found wanting again.
                self.next();
                return Err(Reported);
            }
        };
        self.next();
        let (then, span) = match (word.text, self.reject_kind()) {
            ("reject", Some((kind, end))) => (Then::Do(Action::Reject(kind)), word.span.to(end)),
            _ => (then, word.span),
        };
        Ok(Verdict { does: Does::Then(then), span })
    }

    /// Takes the name of a reject kind if it is next.
    pub(super) fn reject_kind(&mut self) -> Option<(RejectKind, Span)> {
        let token = self.peek();
        let kind = RejectKind::ALL.into_iter().find(|kind| kind.name() == token.text)?;
        self.next();
        Some((kind, token.span))
    }
}

/// Whether `clause` can be said of a rule that does this: a group says all but addresses itself, and a
/// forward has its own `to` and ports.
fn may_have(does: &Does<'_>, clause: &str) -> bool {
    match does {
        Does::Then(_) => true,
        Does::Use(_) => matches!(clause, "from" | "to"),
        Does::Forward(_) => !matches!(clause, "to" | "sport"),
    }
}
