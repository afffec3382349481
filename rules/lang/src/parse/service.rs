//! Translations, routes, the receiver of the log, and limits.

use super::{Parsed, Parser, Reported};
use crate::Span;
use crate::ast::{Forward, Host, How, Kind, Nat, Route, Syslog};
use crate::lex;
use crate::literal;
use crate::words::did_you_mean;
use rules::{Balance, Ported, Timeout};

/// The port of syslog (RFC 5426 section 3.3).
const SYSLOG_PORT: u16 = 514;

/// The ways to translate.
const WAYS: [&str; 5] = ["masquerade", "snat", "dnat", "one-to-one", "hairpin"];

impl<'a> Parser<'a, '_> {
    pub(super) fn nat(&mut self) -> Parsed<Nat<'a>> {
        let start = self.next().span;
        let pair = self.pair()?;
        let word = self.peek();
        if !WAYS.contains(&word.text) {
            let wanted = "`masquerade`, `snat`, `dnat`, `one-to-one` or `hairpin`";
            self.expected(wanted).maybe_help(did_you_mean(word.text, WAYS));
            return Err(Reported);
        }
        self.next();
        let how = match word.text {
            "masquerade" => How::Masquerade,
            "hairpin" => How::Hairpin,
            "snat" => {
                let proto = self.ported();
                self.want_word("from")?;
                let from = self.end()?;
                self.want_word("to")?;
                How::Snat { proto, from, to: self.end()? }
            }
            "one-to-one" => {
                let inside = self.end()?;
                self.want_word("to")?;
                How::OneToOne { inside, external: self.end()? }
            }
            _ => {
                let forward = self.forwarding()?;
                let from = if self.eat_word("from") { Some(self.address_list()?) } else { None };
                How::Dnat { forward, from }
            }
        };
        Ok(Nat { pair, how, span: start.to(self.last_span()) })
    }

    /// `tcp PORTS [at ADDRESS] to TARGET, … [balance round-robin|hash]`
    pub(super) fn forwarding(&mut self) -> Parsed<Forward<'a>> {
        let start = self.peek();
        let (proto, ports) = match self.kind()? {
            Kind::Tcp(ports) => (Ported::Tcp, ports),
            Kind::Udp(ports) => (Ported::Udp, ports),
            _ => {
                let message = "only ports of tcp or udp can be forwarded";
                self.report
                    .error("bad-forward", message, start.span, "")
                    .help("write the port the world knows: `forward tcp 8022 to work:22`");
                return Err(Reported);
            }
        };
        if ports.is_empty() {
            self.expected("a port").help("`forward tcp 8022 to work:22`");
            return Err(Reported);
        }
        let at = if self.eat_word("at") { Some(self.address()?) } else { None };
        self.want_word("to")?;
        let to = self.targets()?;
        let balance = if self.eat_word("balance") { self.balance()? } else { Balance::default() };
        Ok(Forward { proto, ports, at, to, balance })
    }

    /// One target or several, in brackets unless the first is an IPv6 address in its own.
    fn targets(&mut self) -> Parsed<Vec<crate::ast::End<'a>>> {
        let port_behind = |p: &Self| {
            let behind = [p.peek_at(2), p.peek_at(3)];
            behind[0].kind == lex::Kind::Mark(']') && behind[1].text.starts_with(':')
        };
        let list = self.peek().kind == lex::Kind::Mark('[') && !port_behind(self);
        if list { self.one_or_list(Self::end) } else { Ok(vec![self.end()?]) }
    }

    fn balance(&mut self) -> Parsed<Balance> {
        let balance = match self.peek().text {
            "round-robin" => Balance::RoundRobin,
            "hash" => Balance::Hash,
            word => {
                let meant = did_you_mean(word, ["round-robin", "hash"]);
                self.expected("`round-robin` or `hash`").maybe_help(meant);
                return Err(Reported);
            }
        };
        self.next();
        Ok(balance)
    }

    fn ported(&mut self) -> Option<Ported> {
        let tcp = self.is_word("tcp");
        let there = tcp || self.is_word("udp");
        if there {
            self.next();
        }
        there.then_some(if tcp { Ported::Tcp } else { Ported::Udp })
    }

    /// `route NETWORK [via ADDRESS] [on ZONE]`
    pub(super) fn route(&mut self) -> Parsed<Route<'a>> {
        let start = self.next().span;
        let net = self.peek();
        if net.kind != lex::Kind::Word || literal::is_name(net.text) {
            self.expected("a network: `10.0.0.0/8`");
            return Err(Reported);
        }
        self.next();
        let range = literal::addresses(net.text).map_err(|fault| self.fault(fault, net.span))?;
        if net.text.contains('-') {
            let message = "a route leads to a network, not to a range";
            self.report
                .error("bad-route", message, net.span, "")
                .help("a network is written `10.0.0.0/8`");
            return Err(Reported);
        }
        let via = if self.eat_word("via") { Some(self.address()?.addr) } else { None };
        let on = if self.eat_word("on") { Some(self.name("an uplink's zone")?) } else { None };
        let span = start.to(self.last_span());
        if via.is_none() && on.is_none() {
            self.expected("`via` or `on`").help("`route 10.0.0.0/8 via 192.0.2.9`");
            return Err(Reported);
        }
        if via.is_some_and(|via| via.is_ipv4() != range.0.is_ipv4()) {
            let message = "the network and its next hop are of different address families";
            self.report.error("bad-route", message, span, "");
            return Err(Reported);
        }
        Ok(Route { net: range, via, on, span })
    }

    /// `syslog ADDRESS[:PORT] [accepted] [refused]`
    pub(super) fn syslog(&mut self) -> Parsed<Syslog> {
        let start = self.next().span;
        let end = self.end()?;
        let Host::Addr(to) = end.host else {
            let message = "the log is sent to an address";
            self.report
                .error("bad-syslog", message, end.span, "")
                .help("it leaves by the uplink: `syslog 192.0.2.9 refused`");
            return Err(Reported);
        };
        let (mut accepted, mut refused) = (false, false);
        loop {
            let word = self.peek();
            let said = match word.text {
                "accepted" => &mut accepted,
                "refused" => &mut refused,
                _ => break,
            };
            let twice = std::mem::replace(said, true);
            self.next();
            self.once(twice, word)?;
        }
        let port = end.port.unwrap_or(SYSLOG_PORT);
        Ok(Syslog { to, port, accepted, refused, span: start.to(self.last_span()) })
    }

    /// `timeout KIND DURATION`
    pub(super) fn timeout(&mut self) -> Parsed<(Timeout, u32, Span)> {
        let start = self.next().span;
        let word = self.peek();
        let kind = Timeout::ALL.into_iter().find(|kind| kind.name() == word.text);
        let Some(kind) = kind else {
            let names = Timeout::ALL.map(Timeout::name);
            let meant = did_you_mean(word.text, names);
            self.expected("what times out").maybe_help(meant).help(names.join(", "));
            return Err(Reported);
        };
        self.next();
        let token = self.peek();
        if token.kind != lex::Kind::Word || !literal::is_numeric(token.text) {
            self.expected("a duration: `5min`");
            return Err(Reported);
        }
        self.next();
        let secs = literal::duration(token.text).map_err(|fault| self.fault(fault, token.span))?;
        if (kind.least()..=Timeout::MOST).contains(&secs) {
            return Ok((kind, secs, start.to(self.last_span())));
        }
        let (name, least) = (kind.name(), kind.least());
        let message = format!("{name} must be from {least}s to 7d");
        self.report
            .error("bad-duration", message, token.span, "")
            .help("the least is what RFC 4787, 5382 and 5508 demand");
        Err(Reported)
    }

    /// `flows NUMBER per client`
    pub(super) fn flow_limit(&mut self) -> Parsed<(u32, Span)> {
        let start = self.next().span;
        let token = self.peek();
        let number = token.text.parse().ok().filter(|n| *n > 0);
        let Some(number) = number.filter(|_| literal::is_numeric(token.text)) else {
            self.expected("how many flows, at least 1");
            return Err(Reported);
        };
        self.next();
        self.want_word("per")?;
        self.want_word("client")?;
        Ok((number, start.to(self.last_span())))
    }
}
