//! What can be wrong with a command line, in words for whoever wrote it.

use core::fmt;
use wire::Uplink;

/// A word that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mistake<'a> {
    /// The word.
    pub word: &'a str,
    /// Where it starts, in characters from 1.
    pub column: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Neither ours nor one that is known to be meant for Linux.
    Unknown,
    /// Given before.
    Twice,
    /// Means nothing without this other word of the same uplink.
    Alone(&'static str, Uplink),
    /// No uplink has this number, or one that has needs none.
    UplinkNumber,
    /// Another uplink has this address.
    TwoUplinks,
    /// Not an IPv4 address.
    NotIpv4,
    /// Not an IPv6 address.
    NotIpv6,
    /// An address that no host has.
    NotAHost,
    /// Not a prefix length up to this.
    PrefixLength(u8),
    /// The gateway has our own address.
    GatewayIsUs,
    /// The gateway is not in the network of our address.
    GatewayElsewhere,
    /// No resolver in `dnsto=` has the family of one in `dns=`.
    NoResolver,
    /// Not a log level.
    LogLevel,
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, column) = (self.word.escape_debug(), self.column);
        write!(f, "command line, column {column}: `{word}`: {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "unknown word; known are ip= gw= ip6= gw6= (ip.1= for uplink 1) dns= dnsto= log="
            }
            Self::Twice => "given twice",
            Self::Alone(other, Uplink::FIRST) => return write!(f, "needs {other}= beside it"),
            Self::Alone(other, uplink) => return write!(f, "needs {other}.{uplink}= beside it"),
            Self::UplinkNumber => {
                "further uplinks are 1 to 3, and words of the first have no number"
            }
            Self::TwoUplinks => "another uplink has this address",
            Self::NotIpv4 => "not an IPv4 address, such as 10.137.0.5",
            Self::NotIpv6 => "not an IPv6 address, such as fd09:24ef:4179::a89:5",
            Self::NotAHost => "not the address of a host",
            Self::PrefixLength(most) => return write!(f, "prefix length must be 0 to {most}"),
            Self::GatewayIsUs => "the gateway cannot have our own address",
            Self::GatewayElsewhere => "the gateway is outside the network of our address",
            Self::NoResolver => "dnsto= has no resolver of the same family",
            Self::LogLevel => "log level must be none, drops or all",
        })
    }
}

impl core::error::Error for Mistake<'_> {}
