//! Addresses, networks, ranges and ports as single words.
//!
//! In: a word. Out: its value, or a [`Fault`] that says what is wrong with it. Never: a value that
//! was not meant, such as a network whose address lies inside it.

use rules::{HostName, NoHost};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong with a word.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None }
    }

    fn help(self, text: impl Into<String>) -> Self {
        Self { help: Some(text.into()), ..self }
    }
}

/// Whether `word` has the form of a name: a letter, then letters, digits, `_` and `-`.
pub(crate) fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether `word` is meant as a number.
pub(crate) fn is_numeric(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// `ADDRESS`, `ADDRESS/PREFIX` or `ADDRESS-ADDRESS`: the first and the last address.
pub(crate) fn addresses(word: &str) -> Result<(IpAddr, IpAddr), Fault> {
    if let Some((first, last)) = word.split_once('-') {
        range(address(first)?, address(last)?)
    } else if let Some((addr, prefix)) = word.split_once('/') {
        network(address(addr)?, prefix)
    } else {
        address(word).map(|addr| (addr, addr))
    }
}

/// One address.
pub(crate) fn address(word: &str) -> Result<IpAddr, Fault> {
    if word.is_empty() {
        let fault = Fault::new("bad-address", "an address is missing");
        return Err(fault.help("a range is written without spaces: `10.0.0.1-10.0.0.9`"));
    }
    word.parse().map_err(|_| {
        let fault = Fault::new("bad-address", format!("`{word}` is not an address"));
        let parts: Vec<_> = word.split('.').collect();
        let decimal = !parts.contains(&"") && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !decimal && !word.contains(':') && word.contains('.') {
            match host(word) {
                Ok(name) => fault.help(format!("a host name is written `host {name}`")),
                Err(why) => Fault { help: why.help, ..fault },
            }
        } else if !decimal {
            fault
        } else if parts.len() != 4 {
            fault.help("an IPv4 address has four numbers: `10.137.0.10`")
        } else if let Some(part) = parts.iter().find(|part| part.parse::<u8>().is_err()) {
            fault.help(format!("`{part}` is above 255"))
        } else {
            fault.help("its numbers have no leading zeros")
        }
    })
}

/// The name of a host.
pub(crate) fn host(word: &str) -> Result<HostName, Fault> {
    HostName::new(word).map_err(|why| {
        let fault = Fault::new("bad-host", format!("`{word}` is not a host name: {why}"));
        let plain = word.parse::<IpAddr>().is_ok();
        match why {
            NoHost::Wildcard => {
                fault.help("each name is asked for ahead: write the names one by one")
            }
            NoHost::Address if plain => fault.help(format!("write it alone: `to {word}`")),
            NoHost::Character(':') => {
                fault.help("ports stand with their protocol: `accept tcp 443 to host …`")
            }
            _ => fault,
        }
    })
}

fn range(first: IpAddr, last: IpAddr) -> Result<(IpAddr, IpAddr), Fault> {
    if first.is_ipv4() != last.is_ipv4() {
        Err(Fault::new("bad-range", "a range cannot go from one address family to the other"))
    } else if first > last {
        let help = format!("did you mean `{last}-{first}`?");
        Err(Fault::new("bad-range", "this range ends before it starts").help(help))
    } else {
        Ok((first, last))
    }
}

fn network(addr: IpAddr, prefix: &str) -> Result<(IpAddr, IpAddr), Fault> {
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    let digits = prefix.bytes().all(|b| b.is_ascii_digit());
    let length = prefix.parse::<u32>().ok().filter(|n| digits && *n <= longest);
    let Some(length) = length else {
        let message = format!("`/{prefix}` is not a prefix length of {}", family(addr));
        return Err(Fault::new("bad-prefix", message).help(format!("it goes from 0 to {longest}")));
    };
    let (first, last) = match addr {
        IpAddr::V4(addr) => {
            let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = Ipv4Addr::from_bits(addr.to_bits() & !hosts);
            (IpAddr::V4(first), IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() | hosts)))
        }
        IpAddr::V6(addr) => {
            let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = Ipv6Addr::from_bits(addr.to_bits() & !hosts);
            (IpAddr::V6(first), IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() | hosts)))
        }
    };
    if first == addr {
        return Ok((first, last));
    }
    let message = format!("`{addr}` is a host inside the network, not its address");
    let help = format!("the network is `{first}/{length}`, the host alone `{addr}`");
    Err(Fault::new("host-bits", message).help(help))
}

const fn family(addr: IpAddr) -> &'static str {
    match addr {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// `PORT` or `PORT-PORT`: the first and the last port.
pub(crate) fn ports(word: &str) -> Result<(u16, u16), Fault> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (port(first)?, port(last)?);
    if first <= last {
        return Ok((first, last));
    }
    let help = format!("did you mean `{last}-{first}`?");
    Err(Fault::new("bad-range", "this range ends before it starts").help(help))
}

/// One port.
pub(crate) fn port(word: &str) -> Result<u16, Fault> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    match word.parse() {
        Ok(port) if digits => Ok(port),
        _ if digits => {
            Err(Fault::new("bad-port", format!("`{word}` is above 65535, the last port")))
        }
        _ => Err(Fault::new("bad-port", format!("`{word}` is not a port"))
            .help("a port is a number from 0 to 65535, a range is written `8000-8099`")),
    }
}

/// Times that a rate or a duration can be told in, in seconds.
const UNITS: [(&str, u32); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 86400)];

/// `COUNT/UNIT`: how many in how many seconds.
pub(crate) fn rate(word: &str) -> Result<(u32, u32), Fault> {
    let wrong = || {
        let fault = Fault::new("bad-rate", format!("`{word}` is not a rate"));
        fault.help("a rate is written `10/s`, `100/min` or `5/h`")
    };
    let (count, unit) = word.split_once('/').ok_or_else(wrong)?;
    let secs = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    let count = count.parse().ok().filter(|_| is_numeric(count)).ok_or_else(wrong)?;
    if (1..=rules::Rate::MAX).contains(&count) {
        return Ok((count, secs));
    }
    let message = format!("a rate is from 1 to {}", rules::Rate::MAX);
    Err(Fault::new("bad-rate", message).help("what is never to pass is dropped"))
}

/// `NUMBER` followed by a unit of time, in seconds.
pub(crate) fn duration(word: &str) -> Result<u32, Fault> {
    let unit = word.find(|c: char| !c.is_ascii_digit()).and_then(|at| word.split_at_checked(at));
    let secs = unit.and_then(|(number, unit)| {
        let (_, secs) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u32>().ok()?.checked_mul(*secs)
    });
    secs.ok_or_else(|| {
        let fault = Fault::new("bad-duration", format!("`{word}` is not a duration"));
        fault.help("a duration is written `30s`, `5min` or `2h`")
    })
}

/// `NUMBER` or `NUMBER-NUMBER`, none above `most`; `what` says of what.
pub(crate) fn numbers(word: &str, most: u16, what: &str) -> Result<(u16, u16), Fault> {
    let number = |word: &str| {
        let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        word.parse().ok().filter(|n| digits && *n <= most).ok_or_else(|| {
            let fault = Fault::new("bad-number", format!("`{word}` is not {what}"));
            fault.help(format!("it is a number from 0 to {most}, a range is written `1-9`"))
        })
    };
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last {
        return Ok((first, last));
    }
    let help = format!("did you mean `{last}-{first}`?");
    Err(Fault::new("bad-range", "this range ends before it starts").help(help))
}

/// A DSCP by its name (RFC 2474, RFC 2597, RFC 3246).
pub(crate) fn dscp(word: &str) -> Option<u16> {
    let digits = |prefix: &str| {
        let digits = word.strip_prefix(prefix)?;
        digits.bytes().map(|b| b.is_ascii_digit().then(|| u16::from(b - b'0'))).collect()
    };
    let of = |digits: Option<Vec<u16>>| digits.unwrap_or_default();
    match (word, &of(digits("cs"))[..], &of(digits("af"))[..]) {
        ("ef", ..) => Some(46),
        (_, [class @ 0..=7], _) => Some(class * 8),
        (_, _, [class @ 1..=4, drop @ 1..=3]) => Some(class * 8 + drop * 2),
        _ => None,
    }
}

/// An Ethernet address, `00:16:3e:5e:6c:10`.
pub(crate) fn mac(word: &str) -> Result<[u8; 6], Fault> {
    let parts: Option<Vec<u8>> = word
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
        .collect();
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(|| {
        let fault = Fault::new("bad-mac", format!("`{word}` is not the address of an interface"));
        fault.help("it has six pairs of digits: `00:16:3e:5e:6c:10`")
    })
}
