//! One rule as text: `action=accept dst4=8.8.8.8/32 proto=udp dstports=53-53`.
//!
//! Pairs may stand in any order, each key once. Whatever is not understood is an error, because a
//! condition that is overlooked makes an accepting rule wider than its author wrote it.
#![deny(clippy::arithmetic_side_effects)]

use crate::{AddrSet, HostName};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// What a rule, or the end of the list, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May pass.
    Accept,
    /// May not; the sender is told that it is prohibited, as the Linux agent does.
    Drop,
}

/// A rule as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// `action=`
    pub action: Verdict,
    /// `dst4=`, `dst6=` or `dsthost=`
    pub target: Target,
    /// `proto=`
    pub proto: Option<Proto>,
    /// `specialtarget=dns`: only to the resolvers and port 53.
    pub dns: bool,
    /// `dstports=`, first and last.
    pub dstports: Option<(u16, u16)>,
    /// `icmptype=`
    pub icmptype: Option<u8>,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Anywhere.
    Any,
    /// Into a network; its address family must be that of the tree.
    Net(AddrSet),
    /// To a host by name.
    Host(HostName),
}

/// `proto=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP in an IPv4 tree, ICMPv6 in an IPv6 tree.
    Icmp,
}

/// Why a rule was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// Not `key=value` pairs with one space between them.
    Form,
    /// A key nobody knows.
    UnknownKey,
    /// A key that stands there twice.
    Twice,
    /// A value that its key cannot have.
    Value(&'static str),
    /// No `action=`.
    NoAction,
    /// More than one of `dst4=`, `dst6=` and `dsthost=`.
    TwoTargets,
    /// A destination of the other address family.
    Family,
    /// Ports with ICMP, or an ICMP type without it.
    Contradiction,
}

impl FromStr for RuleText {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (mut action, mut target, mut proto) = (None, None, None);
        let (mut dns, mut dstports, mut icmptype) = (None, None, None);
        for pair in text.split(' ') {
            let (key, value) = pair.split_once('=').ok_or(RuleError::Form)?;
            match key {
                "action" => once(&mut action, value.parse()?)?,
                "dst4" => one_target(&mut target, Target::Net(net4(value)?))?,
                "dst6" => one_target(&mut target, Target::Net(net6(value)?))?,
                "dsthost" => one_target(&mut target, Target::Host(value.parse()?))?,
                "proto" => once(&mut proto, value.parse()?)?,
                "specialtarget" if value == "dns" => once(&mut dns, ())?,
                "specialtarget" => return Err(RuleError::Value("specialtarget")),
                "dstports" => once(&mut dstports, ports(value)?)?,
                "icmptype" => once(&mut icmptype, number(value, "icmptype")?)?,
                _ => return Err(RuleError::UnknownKey),
            }
        }
        let icmp = proto == Some(Proto::Icmp);
        if (icmp && dstports.is_some()) || (!icmp && proto.is_some() && icmptype.is_some()) {
            return Err(RuleError::Contradiction);
        }
        if dstports.is_some() && icmptype.is_some() {
            return Err(RuleError::Contradiction);
        }
        Ok(Self {
            action: action.ok_or(RuleError::NoAction)?,
            target: target.unwrap_or(Target::Any),
            proto,
            dns: dns.is_some(),
            dstports,
            icmptype,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), RuleError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(RuleError::Twice),
    }
}

fn one_target(place: &mut Option<Target>, target: Target) -> Result<(), RuleError> {
    once(place, target).map_err(|_| RuleError::TwoTargets)
}

impl FromStr for Verdict {
    type Err = RuleError;

    fn from_str(value: &str) -> Result<Self, RuleError> {
        match value {
            "accept" => Ok(Self::Accept),
            "drop" => Ok(Self::Drop),
            _ => Err(RuleError::Value("action")),
        }
    }
}

impl FromStr for Proto {
    type Err = RuleError;

    fn from_str(value: &str) -> Result<Self, RuleError> {
        match value {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            _ => Err(RuleError::Value("proto")),
        }
    }
}

/// `[a-z0-9._-]+`, at most 253 bytes.
impl FromStr for HostName {
    type Err = RuleError;

    fn from_str(name: &str) -> Result<Self, RuleError> {
        Self::of_qubes(name).ok_or(RuleError::Value("dsthost"))
    }
}

/// `ADDRESS[/PREFIX]`; host bits are masked off.
fn net4(value: &str) -> Result<AddrSet, RuleError> {
    let (addr, host_bits) = prefixed::<Ipv4Addr>(value, 32, "dst4")?;
    let hosts = u32::MAX.checked_shr(32u32.saturating_sub(host_bits)).unwrap_or(0);
    let (lo, hi) = (addr.to_bits() & !hosts, addr.to_bits() | hosts);
    Ok(range(IpAddr::V4(Ipv4Addr::from_bits(lo)), IpAddr::V4(Ipv4Addr::from_bits(hi))))
}

fn net6(value: &str) -> Result<AddrSet, RuleError> {
    let (addr, host_bits) = prefixed::<Ipv6Addr>(value, 128, "dst6")?;
    let hosts = u128::MAX.checked_shr(128u32.saturating_sub(host_bits)).unwrap_or(0);
    let (lo, hi) = (addr.to_bits() & !hosts, addr.to_bits() | hosts);
    Ok(range(IpAddr::V6(Ipv6Addr::from_bits(lo)), IpAddr::V6(Ipv6Addr::from_bits(hi))))
}

fn range(lo: IpAddr, hi: IpAddr) -> AddrSet {
    AddrSet::from_ranges([(lo, hi)])
}

/// The address and how many bits the prefix leaves to hosts.
fn prefixed<A: FromStr>(value: &str, bits: u32, key: &'static str) -> Result<(A, u32), RuleError> {
    let (addr, prefix) = match value.split_once('/') {
        Some((addr, prefix)) => (addr, number::<u32>(prefix, key)?),
        None => (value, bits),
    };
    let addr = addr.parse().map_err(|_| RuleError::Value(key))?;
    Ok((addr, bits.checked_sub(prefix).ok_or(RuleError::Value(key))?))
}

/// `LO-HI`, or one port.
fn ports(value: &str) -> Result<(u16, u16), RuleError> {
    let (lo, hi) = value.split_once('-').unwrap_or((value, value));
    let (lo, hi) = (number(lo, "dstports")?, number(hi, "dstports")?);
    if lo <= hi { Ok((lo, hi)) } else { Err(RuleError::Value("dstports")) }
}

/// Decimal digits only: `parse` alone would take a sign.
fn number<T: FromStr>(value: &str, key: &'static str) -> Result<T, RuleError> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(RuleError::Value(key))
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not key=value pairs with one space between them"),
            Self::UnknownKey => f.write_str("a key that is not known"),
            Self::Twice => f.write_str("a key stands there twice"),
            Self::Value(key) => write!(f, "{key} cannot have that value"),
            Self::NoAction => f.write_str("no action"),
            Self::TwoTargets => f.write_str("more than one destination"),
            Self::Family => f.write_str("a destination of the other address family"),
            Self::Contradiction => f.write_str("ports with icmp, or an icmp type without it"),
        }
    }
}

impl core::error::Error for RuleError {}
