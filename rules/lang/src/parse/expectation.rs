//! Packets, as they stand behind `expect` (`expect reject tcp from work to 93.184.216.34:443`) or are
//! asked about, and claims about them.

use super::{Parsed, Parser, Reported};
use crate::ast::{Claim, End, Expect, Host, Name, Packet, Proto, Wanted, When};
use crate::lex::Kind;
use crate::literal;
use crate::words::{ICMP_NAMES, PROTOCOLS, did_you_mean, is_reserved};
use std::net::SocketAddr;

impl<'a> Parser<'a, '_> {
    pub(super) fn expect(&mut self) -> Parsed<Expect<'a>> {
        let start = self.next().span;
        let wanted = self.wanted()?;
        let packet = self.packet()?;
        let span = start.to(self.last_span());
        if self.peek().kind == Kind::Word && !self.is_one_of(&crate::words::DECLARATIONS) {
            self.expected("the next declaration");
            return Err(Reported);
        }
        Ok(Expect { span, wanted, packet })
    }

    /// `[FROM -> TO] PROTOCOL from END to END [CONDITIONS]`
    fn packet(&mut self) -> Parsed<Packet<'a>> {
        let start = self.peek().span;
        let pair = if self.peek_at(1).kind == Kind::Arrow { Some(self.pair()?) } else { None };
        let proto = self.proto()?;
        self.want_word("from")?;
        let from = self.end()?;
        self.want_word("to")?;
        let to = self.end()?;
        let mut when = When::default();
        while self.condition(&mut when)? {}
        Ok(Packet { span: start.to(self.last_span()), pair, proto, from, to, when })
    }

    /// A packet and nothing else.
    pub(crate) fn only_packet(&mut self) -> Option<Packet<'a>> {
        let packet = self.packet().ok()?;
        self.only(packet)
    }

    /// A claim and nothing else.
    pub(crate) fn only_claim(&mut self) -> Option<Claim<'a>> {
        let claim = self.claim().ok()?;
        self.only(claim)
    }

    fn claim(&mut self) -> Parsed<Claim<'a>> {
        let from = self.address_list()?;
        let can = match self.peek().text {
            "can" => true,
            "cannot" => false,
            word => {
                let meant = did_you_mean(word, ["can", "cannot"]);
                self.expected("`can` or `cannot`").maybe_help(meant);
                return Err(Reported);
            }
        };
        self.next();
        self.want_word("reach")?;
        let to = self.address_list()?;
        let kinds = if self.peek().kind == Kind::End { Vec::new() } else { self.kinds()? };
        Ok(Claim { from, can, to, kinds })
    }

    fn only<T>(&mut self, whole: T) -> Option<T> {
        if self.peek().kind == Kind::End {
            return Some(whole);
        }
        self.expected("the end");
        None
    }

    fn wanted(&mut self) -> Parsed<Wanted> {
        let word = self.peek();
        let wanted = match word.text {
            "accept" => Wanted::Accept,
            "drop" => Wanted::Drop,
            "reject" => Wanted::Reject(None),
            text => {
                self.expected("`accept`, `drop` or `reject`")
                    .maybe_help(did_you_mean(text, ["accept", "drop", "reject"]));
                return Err(Reported);
            }
        };
        self.next();
        match (wanted, self.reject_kind()) {
            (Wanted::Reject(_), kind) => Ok(Wanted::Reject(kind.map(|(kind, _)| kind))),
            _ => Ok(wanted),
        }
    }

    fn proto(&mut self) -> Parsed<Proto> {
        let word = self.peek();
        let proto = match word.text {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            "icmp" => {
                self.next();
                let word = self.peek().text;
                let named = ICMP_NAMES.iter().find(|(name, _)| *name == word);
                let Some((_, types)) = named else {
                    let meant = did_you_mean(word, ICMP_NAMES.map(|(name, _)| name));
                    self.expected("`echo-request`").maybe_help(meant);
                    return Err(Reported);
                };
                self.next();
                return Ok(Proto::Icmp(types));
            }
            "icmp4" | "icmp6" => return self.icmp_type().map(Proto::IcmpType),
            text => {
                self.expected("`tcp`, `udp` or `icmp echo-request`")
                    .maybe_help(did_you_mean(text, PROTOCOLS));
                return Err(Reported);
            }
        };
        self.next();
        Ok(proto)
    }

    /// `host NAME[:PORT]`
    fn called(&mut self) -> Parsed<End<'a>> {
        let (start, token) = (self.next().span, self.peek());
        if token.kind != Kind::Word || is_reserved(token.text) {
            self.expected("the name of a host: `host deb.debian.org:443`");
            return Err(Reported);
        }
        self.next();
        let (name, port) = match token.text.split_once(':') {
            Some((name, port)) => (name, Some(literal::port(port))),
            None => (token.text, None),
        };
        let port = port.transpose().map_err(|fault| self.fault(fault, token.span))?;
        let name = literal::host(name).map_err(|fault| self.fault(fault, token.span))?;
        Ok(End { host: Host::Called(name), port, span: start.to(token.span) })
    }

    /// `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `host NAME:PORT`
    pub(super) fn end(&mut self) -> Parsed<End<'a>> {
        let start = self.peek();
        if self.is_word("host") {
            return self.called();
        }
        if self.eat('[') {
            let address = self.address()?;
            self.want(']')?;
            let port = self.peek();
            let port = match port.text.strip_prefix(':') {
                Some(digits) if port.kind == Kind::Word => {
                    self.next();
                    Some(literal::port(digits).map_err(|fault| self.fault(fault, port.span))?)
                }
                _ => None,
            };
            let span = start.span.to(self.last_span());
            return Ok(End { host: Host::Addr(address.addr), port, span });
        }
        let is_us = start.text.split(':').next() == Some("firewall");
        if start.kind != Kind::Word || is_reserved(start.text) && !is_us {
            self.expected("an address or the name of a vm");
            return Err(Reported);
        }
        self.next();
        let span = start.span;
        if let Ok(addr) = start.text.parse() {
            return Ok(End { host: Host::Addr(addr), port: None, span });
        }
        if let Ok(SocketAddr::V4(both)) = start.text.parse() {
            let host = Host::Addr((*both.ip()).into());
            return Ok(End { host, port: Some(both.port()), span });
        }
        let (host, port) = match start.text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (start.text, None),
        };
        let host_span =
            crate::Span { start: span.start, end: span.start.saturating_add(host.len()) };
        let port_span =
            crate::Span { start: host_span.end.saturating_add(1).min(span.end), ..span };
        let port = port.map(literal::port).transpose();
        let port = port.map_err(|fault| self.fault(fault, port_span))?;
        if host == "firewall" {
            return Ok(End { host: Host::Firewall, port, span });
        }
        if literal::is_name(host) {
            let host = Host::Vm(Name { text: host, span: host_span });
            return Ok(End { host, port, span });
        }
        let addr = literal::address(host).map_err(|fault| self.fault(fault, host_span))?;
        Ok(End { host: Host::Addr(addr), port, span })
    }
}
