//! What is done with a new flow.

use core::fmt;

/// What is done with a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It may pass.
    Accept,
    /// It vanishes without a word.
    Drop,
    /// It does not pass, and its sender is told so.
    Reject(RejectKind),
}

/// How the sender of a rejected packet is told.
///
/// | kind | IPv4 (RFC 792, 1812) | IPv6 (RFC 4443) |
/// |---|---|---|
/// | tcp-reset | TCP RST (RFC 9293 3.5.2) | TCP RST |
/// | admin-prohibited | type 3 code 13 | type 1 code 1 |
/// | host-unreachable | type 3 code 1 | type 1 code 3, address unreachable |
/// | net-unreachable | type 3 code 0 | type 1 code 0, no route |
/// | port-unreachable | type 3 code 3 | type 1 code 4 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectKind {
    /// A TCP reset. Only in rules that match nothing but TCP.
    TcpReset,
    /// Communication administratively prohibited.
    AdminProhibited,
    /// Host unreachable.
    HostUnreachable,
    /// Network unreachable.
    NetUnreachable,
    /// Port unreachable.
    PortUnreachable,
}

impl RejectKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::TcpReset,
        Self::AdminProhibited,
        Self::HostUnreachable,
        Self::NetUnreachable,
        Self::PortUnreachable,
    ];

    /// The word for it in a policy and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpReset => "tcp-reset",
            Self::AdminProhibited => "admin-prohibited",
            Self::HostUnreachable => "host-unreachable",
            Self::NetUnreachable => "net-unreachable",
            Self::PortUnreachable => "port-unreachable",
        }
    }

    /// Type and code of the ICMP error for IPv4; `None` where a TCP reset answers.
    #[must_use]
    pub const fn icmp_v4(self) -> Option<(u8, u8)> {
        match self {
            Self::TcpReset => None,
            Self::AdminProhibited => Some((3, 13)),
            Self::HostUnreachable => Some((3, 1)),
            Self::NetUnreachable => Some((3, 0)),
            Self::PortUnreachable => Some((3, 3)),
        }
    }

    /// Type and code of the ICMPv6 error; `None` where a TCP reset answers.
    #[must_use]
    pub const fn icmp_v6(self) -> Option<(u8, u8)> {
        match self {
            Self::TcpReset => None,
            Self::AdminProhibited => Some((1, 1)),
            Self::HostUnreachable => Some((1, 3)),
            Self::NetUnreachable => Some((1, 0)),
            Self::PortUnreachable => Some((1, 4)),
        }
    }
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject(kind) => write!(f, "reject {kind}"),
        }
    }
}
