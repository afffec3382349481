//! Kinds of traffic, ports and addresses: what rules, services and claims are about.

use super::{Parsed, Parser, Reported};
use crate::Span;
use crate::ast::{Addresses, IcmpType, Kind};
use crate::lex;
use crate::literal;
use crate::names::misplaced;
use crate::words::{CLAUSES, ICMP_NAMES, PROTOCOLS, did_you_mean, is_reserved};
use rules::{Family, HostName};

type Ports = Vec<(u16, u16)>;

impl<'a> Parser<'a, '_> {
    /// `tcp 80, 443, udp 53, SERVICE, …`: a number after a comma belongs to the protocol before it.
    pub(super) fn kinds(&mut self) -> Parsed<Vec<Kind<'a>>> {
        let mut kinds = vec![self.kind()?];
        while self.eat(',') {
            kinds.push(self.kind()?);
        }
        Ok(kinds)
    }

    pub(super) fn kind(&mut self) -> Parsed<Kind<'a>> {
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
            "icmp4" | "icmp6" => Kind::IcmpType(self.icmp_type()?),
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
        if let Some((_, types)) = ICMP_NAMES.iter().find(|(name, _)| *name == word.text) {
            self.next();
            return Ok(Kind::IcmpTypes(types));
        }
        let ends = self.is_one_of(&CLAUSES) || self.rule_ended();
        if word.kind != lex::Kind::Word || ends {
            return Ok(Kind::Icmp);
        }
        let meant = did_you_mean(word.text, ICMP_NAMES.map(|(name, _)| name));
        let wanted = "`echo-request`, `timestamp-request`, a condition or the next rule";
        self.expected(wanted).maybe_help(meant).help(
            "other types begin no flow: errors and answers pass with the flow they belong to",
        );
        Err(Reported)
    }

    /// `icmp4 type NUMBER [code NUMBER]`
    pub(super) fn icmp_type(&mut self) -> Parsed<IcmpType> {
        let start = self.next();
        let family = if start.text == "icmp4" { Family::V4 } else { Family::V6 };
        self.want_word("type")?;
        let kind = self.byte("a type of ICMP")?;
        let code = if self.eat_word("code") { Some(self.byte("a code of ICMP")?) } else { None };
        let begins = ICMP_NAMES.iter().flat_map(|(_, types)| types.iter());
        if begins.clone().any(|(of, known, _)| (*of, *known) == (family, kind)) {
            return Ok((family, kind, code));
        }
        let numbers: Vec<_> =
            begins.filter(|(of, ..)| *of == family).map(|t| t.1.to_string()).collect();
        let message = format!("no flow begins with type {kind}");
        let span = start.span.to(self.last_span());
        self.report.error("bad-icmp-type", message, span, "").help(format!(
            "one begins with {}; errors and answers need no rule",
            numbers.join(" or ")
        ));
        Err(Reported)
    }

    fn byte(&mut self, what: &str) -> Parsed<u8> {
        let token = self.peek();
        if token.kind != lex::Kind::Word || !literal::is_numeric(token.text) {
            self.expected(what);
            return Err(Reported);
        }
        self.next();
        match literal::numbers(token.text, 255, what) {
            Ok((number, last)) if number == last => Ok(u8::try_from(number).unwrap_or(u8::MAX)),
            Ok(_) => {
                let message = format!("`{}` is more than one", token.text);
                self.report.error("bad-number", message, token.span, "");
                Err(Reported)
            }
            Err(fault) => Err(self.fault(fault, token.span)),
        }
    }

    /// Ports after a protocol: none at all is every port.
    pub(super) fn ports(&mut self) -> Parsed<Ports> {
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
    pub(super) fn port_list(&mut self) -> Parsed<Ports> {
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

    /// `host NAME`: the name and where it stands; `None` if it is not one. The next word is `host`.
    fn host(&mut self) -> Parsed<Option<(HostName, Span)>> {
        let start = self.next().span;
        let token = self.peek();
        if token.kind != lex::Kind::Word || is_reserved(token.text) {
            self.expected("the name of a host: `host deb.debian.org`");
            return Err(Reported);
        }
        self.next();
        let name = literal::host(token.text).map_err(|fault| self.fault(fault, token.span));
        Ok(name.ok().map(|name| (name, start.to(token.span))))
    }

    /// Reports that the next word is `host`, where no name can stand.
    pub(super) fn no_host(&mut self) -> Reported {
        let span = self.next().span;
        misplaced(self.report, span);
        Reported
    }

    /// One name, address, network, range or host.
    pub(super) fn addresses(&mut self) -> Parsed<Option<Addresses<'a>>> {
        let token = self.peek();
        if self.is_word("host") {
            let host = self.host()?;
            return Ok(host.map(|(name, span)| Addresses::Host(name, span)));
        }
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
