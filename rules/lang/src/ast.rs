//! A policy as it was written: names not yet tied to anything, each piece with its place.

use crate::Span;
use rules::{Action, RejectKind};
use std::net::IpAddr;

/// A name that was written somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// The declarations of a file, by kind, each in the order written.
#[derive(Debug, Default)]
pub(crate) struct File<'a> {
    pub(crate) zones: Vec<ZoneDecl<'a>>,
    pub(crate) vms: Vec<Decl<'a, Address>>,
    pub(crate) sets: Vec<Decl<'a, Addresses<'a>>>,
    pub(crate) services: Vec<Decl<'a, Kind<'a>>>,
    pub(crate) blocks: Vec<Block<'a>>,
    pub(crate) nats: Vec<Pair<'a>>,
    pub(crate) redirects: Vec<Redirect>,
    pub(crate) expects: Vec<Expect<'a>>,
}

/// `zone NAME = netfront 0` or `= netback`
#[derive(Debug)]
pub(crate) struct ZoneDecl<'a> {
    pub(crate) name: Name<'a>,
    /// `None` if it was not understood, which has been said.
    pub(crate) zone: Option<rules::Zone>,
}

/// `KEYWORD NAME = LIST`
#[derive(Debug)]
pub(crate) struct Decl<'a, T> {
    pub(crate) name: Name<'a>,
    pub(crate) items: Vec<T>,
}

/// One address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) addr: IpAddr,
    pub(crate) span: Span,
}

/// One or many addresses.
#[derive(Debug)]
pub(crate) enum Addresses<'a> {
    Range(IpAddr, IpAddr),
    Named(Name<'a>),
}

/// A kind of traffic.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// Destination ports; none is all.
    Tcp(Vec<(u16, u16)>),
    Udp(Vec<(u16, u16)>),
    Icmp,
    EchoRequest,
    Service(Name<'a>),
}

/// `FROM -> TO`
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) from: Name<'a>,
    pub(crate) to: Name<'a>,
}

impl Pair<'_> {
    pub(crate) const fn span(&self) -> Span {
        self.from.span.to(self.to.span)
    }
}

/// `policy FROM -> TO { … }`
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub(crate) pair: Pair<'a>,
    pub(crate) rules: Vec<Rule<'a>>,
    /// Whether some rule in it was not understood, which has been said.
    pub(crate) broken: bool,
    /// Its closing brace.
    pub(crate) close: Span,
}

/// `VERDICT [KINDS] [sport PORTS] [from ADDRESSES] [to ADDRESSES] [log]`
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) span: Span,
    pub(crate) verdict: Verdict,
    pub(crate) kinds: Vec<Kind<'a>>,
    pub(crate) sport: Option<(Vec<(u16, u16)>, Span)>,
    pub(crate) from: Option<Vec<Addresses<'a>>>,
    pub(crate) to: Option<Vec<Addresses<'a>>>,
    pub(crate) log: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) then: rules::Then,
    pub(crate) span: Span,
}

/// `redirect dns VIRTUALS to REALS`
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) span: Span,
    pub(crate) virtuals: Vec<Address>,
    pub(crate) reals: Vec<Address>,
}

/// `expect VERDICT PACKET`
#[derive(Debug)]
pub(crate) struct Expect<'a> {
    pub(crate) span: Span,
    pub(crate) wanted: Wanted,
    pub(crate) packet: Packet<'a>,
}

/// `[FROM -> TO] PROTOCOL from END to END`
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) span: Span,
    pub(crate) pair: Option<Pair<'a>>,
    pub(crate) proto: Proto,
    pub(crate) from: End<'a>,
    pub(crate) to: End<'a>,
}

/// `FROM can|cannot reach TO [KINDS]`
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) from: Vec<Addresses<'a>>,
    pub(crate) can: bool,
    pub(crate) to: Vec<Addresses<'a>>,
    pub(crate) kinds: Vec<Kind<'a>>,
}

/// What an expectation wants to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Accept,
    Drop,
    /// `None` is any kind.
    Reject(Option<RejectKind>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    EchoRequest,
}

/// One end of a flow.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum Host<'a> {
    Addr(IpAddr),
    Vm(Name<'a>),
}

impl Wanted {
    pub(crate) fn is(self, action: Action) -> bool {
        match (self, action) {
            (Self::Accept, Action::Accept) | (Self::Drop, Action::Drop) => true,
            (Self::Reject(wanted), Action::Reject(kind)) => wanted.is_none_or(|w| w == kind),
            _ => false,
        }
    }
}
