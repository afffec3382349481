//! The kernel's command line.
//!
//! In: the text the toolstack gave. Out: [`Settings`], or the first [`Mistake`] with its word and its
//! place. Never: a guess. A word that is neither ours nor one of those that Linux images are started
//! with is a mistake too: a misspelt `gw=` must not be silence.
//!
//! | word | meaning |
//! |---|---|
//! | `ip=ADDR[/LEN]` | our IPv4 address: flows leave from it, clients may ping it |
//! | `gw=ADDR` | IPv4 gateway, asked for by ARP; without it the uplink's backend is the next hop |
//! | `ip6=ADDR[/LEN]`, `gw6=ADDR` | the same for IPv6 |
//! | `ip.1=` `gw.1=` `ip6.1=` `gw6.1=`, … `.3=` | the same on a further uplink, which is `device/vif/1` |
//! | `dns=ADDR[,ADDR]...` | resolvers that clients ask |
//! | `dnsto=ADDR[,ADDR]...` | resolvers that answer, in turn |
//! | `log=none`, `log=drops`, `log=all` | packets worth a line; default `drops` |

mod mistake;

pub use mistake::{Mistake, Problem};

use crate::firewall::{Config, DnsRedirect, LogLevel, NextHop, PerUplink, Site};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rules::Policy;
use wire::{Mac, Uplink};

/// Words of Linux that toolstacks put on every command line (Qubes' default kernel options, xl's
/// `root=`). They mean nothing here.
const LINUX: &[&str] = &[
    "apparmor",
    "clocksource",
    "console",
    "earlyprintk",
    "init",
    "loglevel",
    "nomodeset",
    "nopat",
    "panic",
    "plymouth.enable",
    "quiet",
    "rd_NO_PLYMOUTH",
    "ro",
    "root",
    "rootflags",
    "rootfstype",
    "rw",
    "security",
    "selinux",
    "swiotlb",
    "xen_scrub_pages",
];

/// Beginnings of such words.
const LINUX_PREFIXES: &[&str] = &["rd.", "systemd."];

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is said of each uplink.
    pub uplinks: PerUplink<Addresses>,
    /// `dns=` and `dnsto=`
    pub dns: Option<DnsRedirect>,
    /// `log=`
    pub log: LogLevel,
}

/// What the command line says of one uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `ip=`
    pub addr4: Option<Ipv4Addr>,
    /// `ip6=`
    pub addr6: Option<Ipv6Addr>,
    /// `gw=`
    pub gateway4: Option<Ipv4Addr>,
    /// `gw6=`
    pub gateway6: Option<Ipv6Addr>,
}

impl Addresses {
    fn site(&self) -> Site {
        let hop =
            |gateway: Option<IpAddr>| gateway.map_or(NextHop::Static(Mac::BACKEND), NextHop::Ask);
        Site {
            addr4: self.addr4,
            addr6: self.addr6,
            next_hop4: hop(self.gateway4.map(IpAddr::V4)),
            next_hop6: hop(self.gateway6.map(IpAddr::V6)),
        }
    }
}

impl Settings {
    /// Reads a command line.
    ///
    /// # Errors
    /// The first word that makes no sense, by itself or with the others.
    pub fn parse(line: &str) -> Result<Self, Mistake<'_>> {
        let mut given = Given::default();
        for word in words(line) {
            given.take(word)?;
        }
        given.settle()
    }

    /// The firewall these settings describe.
    #[must_use]
    pub fn firewall(self, policy: Option<Policy>) -> Config {
        Config {
            sites: self.uplinks.map(|_, addresses| addresses.site()),
            policy,
            dns: self.dns,
            log: self.log,
            nat: nat::Config::default(),
        }
    }
}

/// A word with its place.
#[derive(Clone, Copy, Debug)]
struct Word<'a> {
    text: &'a str,
    /// Of its first character, counted from 1.
    column: usize,
}

impl<'a> Word<'a> {
    const fn is(self, problem: Problem) -> Mistake<'a> {
        Mistake { word: self.text, column: self.column, problem }
    }
}

fn words(line: &str) -> impl Iterator<Item = Word<'_>> {
    line.split_whitespace().map(|text| {
        // A part of a string starts no earlier than the string.
        let start = (text.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        let before = line.get(..start).unwrap_or_default();
        Word { text, column: before.chars().count().saturating_add(1) }
    })
}

/// A value with the word that gave it.
type By<'a, T> = Option<(Word<'a>, T)>;

/// All that has been given so far.
#[derive(Default)]
struct Given<'a> {
    uplinks: PerUplink<OnUplink<'a>>,
    dns: By<'a, Vec<IpAddr>>,
    dnsto: By<'a, Vec<IpAddr>>,
    log: By<'a, LogLevel>,
}

/// All that has been given of one uplink.
#[derive(Default)]
struct OnUplink<'a> {
    ip: By<'a, (Ipv4Addr, u8)>,
    gw: By<'a, Ipv4Addr>,
    ip6: By<'a, (Ipv6Addr, u8)>,
    gw6: By<'a, Ipv6Addr>,
}

impl<'a> Given<'a> {
    fn take(&mut self, word: Word<'a>) -> Result<(), Mistake<'a>> {
        let (name, value) = word.text.split_once('=').unwrap_or((word.text, ""));
        if let (kind @ ("ip" | "gw" | "ip6" | "gw6"), of) = split_number(name) {
            let given = &mut self.uplinks[of.map_err(|problem| word.is(problem))?];
            return match kind {
                "ip" => once(&mut given.ip, word, address4(value)),
                "gw" => once(&mut given.gw, word, host4(value)),
                "ip6" => once(&mut given.ip6, word, address6(value)),
                _ => once(&mut given.gw6, word, host6(value)),
            };
        }
        match name {
            "dns" => once(&mut self.dns, word, hosts(value)),
            "dnsto" => once(&mut self.dnsto, word, hosts(value)),
            "log" => once(&mut self.log, word, level(value)),
            _ if LINUX.contains(&name) => Ok(()),
            _ if LINUX_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => Ok(()),
            _ => Err(word.is(Problem::Unknown)),
        }
    }

    /// Whether all words make sense together.
    fn settle(self) -> Result<Settings, Mistake<'a>> {
        let mut ours = Vec::new();
        for (uplink, given) in self.uplinks.iter() {
            given.settle(uplink, &mut ours)?;
        }
        let dns = match (self.dns, self.dnsto) {
            (None, None) => None,
            (Some((word, virtuals)), Some((_, reals))) => {
                let dns = DnsRedirect { virtuals, reals };
                if dns.virtuals.iter().any(|asked| dns.target(*asked).is_none()) {
                    return Err(word.is(Problem::NoResolver));
                }
                Some(dns)
            }
            (Some((word, _)), None) => return Err(word.is(Problem::Alone("dnsto", Uplink::FIRST))),
            (None, Some((word, _))) => return Err(word.is(Problem::Alone("dns", Uplink::FIRST))),
        };
        Ok(Settings {
            uplinks: self.uplinks.map(|_, given| given.addresses()),
            dns,
            log: self.log.map(|(_, level)| level).unwrap_or_default(),
        })
    }
}

impl<'a> OnUplink<'a> {
    /// Whether the words of `uplink` make sense together, and beside the addresses we have elsewhere.
    fn settle(&self, uplink: Uplink, ours: &mut Vec<IpAddr>) -> Result<(), Mistake<'a>> {
        let alone = |other| Problem::Alone(other, uplink);
        if let Some((word, gw)) = self.gw {
            let (_, (ip, len)) = self.ip.ok_or(word.is(alone("ip")))?;
            let (ip, gw) = (u128::from(ip.to_bits()), u128::from(gw.to_bits()));
            gateway(ip, gw, 32, len).map_err(|problem| word.is(problem))?;
        }
        if let Some((word, gw)) = self.gw6 {
            let (_, (ip, len)) = self.ip6.ok_or(word.is(alone("ip6")))?;
            // Routers go by their link-local address, which is on every link.
            let len = if gw.is_unicast_link_local() { 0 } else { len };
            gateway(ip.to_bits(), gw.to_bits(), 128, len).map_err(|problem| word.is(problem))?;
        }
        let ip = self.ip.map(|(word, (ip, _))| (word, IpAddr::V4(ip)));
        let ip6 = self.ip6.map(|(word, (ip, _))| (word, IpAddr::V6(ip)));
        for (word, addr) in ip.into_iter().chain(ip6) {
            if ours.contains(&addr) {
                return Err(word.is(Problem::TwoUplinks));
            }
            ours.push(addr);
        }
        Ok(())
    }

    fn addresses(self) -> Addresses {
        Addresses {
            addr4: self.ip.map(|(_, (ip, _))| ip),
            addr6: self.ip6.map(|(_, (ip, _))| ip),
            gateway4: self.gw.map(|(_, gw)| gw),
            gateway6: self.gw6.map(|(_, gw)| gw),
        }
    }
}

/// A word without the number of its uplink, and that uplink.
fn split_number(name: &str) -> (&str, Result<Uplink, Problem>) {
    let Some((kind, number)) = name.split_once('.') else { return (name, Ok(Uplink::FIRST)) };
    let uplink = match number.as_bytes() {
        [digit @ b'1'..=b'9'] => Uplink::new(digit - b'0'),
        _ => None,
    };
    (kind, uplink.ok_or(Problem::UplinkNumber))
}

fn once<'a, T>(
    slot: &mut By<'a, T>,
    word: Word<'a>,
    value: Result<T, Problem>,
) -> Result<(), Mistake<'a>> {
    let value = value.map_err(|problem| word.is(problem))?;
    match slot.replace((word, value)) {
        None => Ok(()),
        Some(_) => Err(word.is(Problem::Twice)),
    }
}

/// A gateway is somebody else, on the same link.
const fn gateway(ip: u128, gw: u128, bits: u8, len: u8) -> Result<(), Problem> {
    if ip == gw {
        return Err(Problem::GatewayIsUs);
    }
    match (ip ^ gw).checked_shr((bits - len) as u32) {
        Some(differ) if differ != 0 && len != bits => Err(Problem::GatewayElsewhere),
        _ => Ok(()),
    }
}

fn address4(value: &str) -> Result<(Ipv4Addr, u8), Problem> {
    let (addr, len) = prefixed(value, 32)?;
    Ok((host4(addr)?, len))
}

fn address6(value: &str) -> Result<(Ipv6Addr, u8), Problem> {
    let (addr, len) = prefixed(value, 128)?;
    Ok((host6(addr)?, len))
}

/// An address and its prefix length. Without one it is a host route: nothing else is on the link.
fn prefixed(value: &str, bits: u8) -> Result<(&str, u8), Problem> {
    let Some((addr, len)) = value.split_once('/') else { return Ok((value, bits)) };
    let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    match len.parse() {
        Ok(len) if digits && len <= bits => Ok((addr, len)),
        _ => Err(Problem::PrefixLength(bits)),
    }
}

fn host4(value: &str) -> Result<Ipv4Addr, Problem> {
    let addr: Ipv4Addr = value.parse().map_err(|_| Problem::NotIpv4)?;
    let host = !(addr.is_unspecified()
        || addr.is_loopback()
        || addr.is_multicast()
        || addr.is_broadcast());
    if host { Ok(addr) } else { Err(Problem::NotAHost) }
}

fn host6(value: &str) -> Result<Ipv6Addr, Problem> {
    let addr: Ipv6Addr = value.parse().map_err(|_| Problem::NotIpv6)?;
    let host = !(addr.is_unspecified() || addr.is_loopback() || addr.is_multicast());
    if host { Ok(addr) } else { Err(Problem::NotAHost) }
}

fn hosts(value: &str) -> Result<Vec<IpAddr>, Problem> {
    let host = |text: &str| match text.contains(':') {
        true => host6(text).map(IpAddr::V6),
        false => host4(text).map(IpAddr::V4),
    };
    value.split(',').map(host).collect()
}

fn level(value: &str) -> Result<LogLevel, Problem> {
    match value {
        "none" => Ok(LogLevel::None),
        "drops" => Ok(LogLevel::Drops),
        "all" => Ok(LogLevel::All),
        _ => Err(Problem::LogLevel),
    }
}

#[cfg(test)]
mod tests;
