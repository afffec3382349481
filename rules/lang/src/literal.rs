//! Addresses, networks, ranges and ports as single words.
//!
//! In: a word. Out: its value, or a [`Fault`] that says what is wrong with it. Never: a value that
//! was not meant, such as a network whose address lies inside it.

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
            fault.help("host names cannot be used yet: write addresses")
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
