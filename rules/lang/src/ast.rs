//! A policy as it was written: names not yet tied to anything, each piece with its place.

use crate::Span;
use rules::{
    Action, Balance, Family, HostName, Note, Ported, Rate, RejectKind, State, Timeout, Uplink,
};
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
    pub(crate) vms: Vec<Decl<'a, VmItem>>,
    pub(crate) sets: Vec<Decl<'a, Addresses<'a>>>,
    pub(crate) services: Vec<Decl<'a, Kind<'a>>>,
    pub(crate) groups: Vec<Group<'a>>,
    pub(crate) blocks: Vec<Block<'a>>,
    pub(crate) nats: Vec<Nat<'a>>,
    pub(crate) redirects: Vec<Redirect>,
    pub(crate) routes: Vec<Route<'a>>,
    pub(crate) syslogs: Vec<Syslog>,
    pub(crate) timeouts: Vec<(Timeout, u32, Span)>,
    pub(crate) flow_limits: Vec<(u32, Span)>,
    pub(crate) expects: Vec<Expect<'a>>,
}

/// `zone NAME = netfront NUMBER` or `= netback`
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

impl<'a> File<'a> {
    /// The zones that are uplinks, each with its name.
    pub(crate) fn uplinks(&self) -> impl Iterator<Item = (Uplink, Name<'a>)> {
        self.zones.iter().filter_map(|decl| Some((decl.zone?.uplink()?, decl.name)))
    }
}

/// What tells a VM from others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum VmItem {
    Address(Address),
    /// The address of its interface.
    Mac([u8; 6], Span),
}

/// One or many addresses.
#[derive(Debug)]
pub(crate) enum Addresses<'a> {
    Range(IpAddr, IpAddr),
    Named(Name<'a>),
    /// `host NAME`
    Host(HostName, Span),
}

/// A kind of traffic.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// Destination ports; none is all.
    Tcp(Vec<(u16, u16)>),
    Udp(Vec<(u16, u16)>),
    Icmp,
    /// Types and codes of one family each.
    IcmpTypes(&'static [IcmpType]),
    IcmpType(IcmpType),
    Service(Name<'a>),
}

/// Family, type and code.
pub(crate) type IcmpType = (Family, u8, Option<u8>);

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

/// `group NAME { … }`
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) rules: Vec<Rule<'a>>,
}

/// `VERDICT [KINDS] [CLAUSES]`
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) span: Span,
    pub(crate) verdict: Verdict<'a>,
    pub(crate) kinds: Vec<Kind<'a>>,
    pub(crate) sport: Option<(Vec<(u16, u16)>, Span)>,
    pub(crate) from: Option<Vec<Addresses<'a>>>,
    pub(crate) to: Option<Vec<Addresses<'a>>>,
    pub(crate) when: When,
    pub(crate) limit: Option<Rate>,
    pub(crate) log: Option<Note>,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) does: Does<'a>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum Does<'a> {
    Then(rules::Then),
    /// Lets in what comes for a port, and sends it on.
    Forward(Forward<'a>),
    /// Asks the rules of a group.
    Use(Name<'a>),
}

/// `tcp PORTS [at ADDRESS] to TARGETS [balance …]`, behind `forward` or `dnat`.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    pub(crate) proto: Ported,
    pub(crate) ports: Vec<(u16, u16)>,
    pub(crate) at: Option<Address>,
    /// Without a port, the same one.
    pub(crate) to: Vec<End<'a>>,
    pub(crate) balance: Balance,
}

/// What a rule demands of the rest of the header. What is not said is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct When {
    pub(crate) state: Option<State>,
    pub(crate) ttl: Option<Vec<(u16, u16)>>,
    pub(crate) dscp: Option<Vec<(u16, u16)>>,
    pub(crate) length: Option<Vec<(u16, u16)>>,
    /// Control bits that are set, and that are not.
    pub(crate) flags: Option<(u8, Span)>,
    pub(crate) no_flags: Option<(u8, Span)>,
}

/// `nat FROM -> TO …`
#[derive(Debug)]
pub(crate) struct Nat<'a> {
    pub(crate) pair: Pair<'a>,
    pub(crate) how: How<'a>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum How<'a> {
    /// `masquerade`
    Masquerade,
    /// `snat [tcp|udp] from END to END`
    Snat { proto: Option<Ported>, from: End<'a>, to: End<'a> },
    /// `one-to-one VM to ADDRESS`
    OneToOne { inside: End<'a>, external: End<'a> },
    /// `dnat tcp PORTS … [from ADDRESSES]`
    Dnat { forward: Forward<'a>, from: Option<Vec<Addresses<'a>>> },
    /// `hairpin`
    Hairpin,
}

/// `route NETWORK [via ADDRESS] [on ZONE]`
#[derive(Debug)]
pub(crate) struct Route<'a> {
    /// Its first and last address.
    pub(crate) net: (IpAddr, IpAddr),
    pub(crate) via: Option<IpAddr>,
    pub(crate) on: Option<Name<'a>>,
    pub(crate) span: Span,
}

/// `syslog ADDRESS[:PORT] [accepted] [refused]`
#[derive(Debug)]
pub(crate) struct Syslog {
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) accepted: bool,
    pub(crate) refused: bool,
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
    /// What is said of the rest of its header.
    pub(crate) when: When,
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
    /// A type of each family that has it, with its code.
    Icmp(&'static [IcmpType]),
    IcmpType(IcmpType),
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
    /// An address that this name stands for.
    Called(HostName),
    /// The firewall itself, whatever its address.
    Firewall,
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
