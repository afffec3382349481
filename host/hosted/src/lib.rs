//! The firewall on Linux, without Xen: the same engine between TAP devices.
//!
//! In: the names of the TAPs, the clients' addresses, the firewall's configuration. Out: frames from
//! one TAP to another, and lines about what happened. Never: a device of Xen, an address given to an
//! interface, or a route: the network around it is the caller's.

#![deny(unsafe_code)]

mod error;
mod path;
mod tap;
mod vnet;

pub use error::{Error, Tried};

use path::{Path, port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use std::convert::Infallible;
use std::fmt::Arguments;
use std::net::IpAddr;
use std::time::Duration;
use tap::Tap;
use tidegate::firewall::{Budget, Config, Firewall, Link};
use wire::{DropReason, Instant, Mac, Uplink};

/// Memory for connections.
const BUDGET: Budget = Budget { bytes: 64 << 20 };

/// Between two lines about lost frames.
const LOSSES: Duration = Duration::from_secs(10);

/// What stands where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of the TAPs to the world, by the number of the uplink.
    pub uplinks: Vec<String>,
    /// The TAPs to clients.
    pub clients: Vec<Client>,
    /// What the firewall is told.
    pub config: Config,
}

/// A client behind a TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Name of the TAP.
    pub tap: String,
    /// The addresses it may use.
    pub addrs: Vec<IpAddr>,
}

/// Runs the firewall; `say` gets a line for each thing worth one. TAPs that are not there are made, and
/// last as long as this runs.
///
/// # Errors
/// [`Error`], if a TAP cannot be had or is taken away. There is no other end.
pub fn run(plan: Plan, mut say: impl FnMut(Arguments<'_>)) -> Result<Infallible, Error> {
    let clock = std::time::Instant::now();
    let now = || Instant::ZERO + clock.elapsed();
    if !(1..=Uplink::COUNT).contains(&plan.uplinks.len()) {
        return Err(Error::Uplinks);
    }
    let most = usize::from(plan.config.nat.slots).saturating_sub(plan.uplinks.len());
    if plan.clients.len() > most {
        return Err(Error::Clients(most));
    }
    let mut firewall = Firewall::new(plan.config, BUDGET, secret()?).map_err(Error::Config)?;
    let taps = taps(&plan.uplinks, &plan.clients)?;
    let uplinks = plan.uplinks.iter().zip(Uplink::ALL).map(|(_, uplink)| Side::Uplink(uplink));
    let sides = uplinks.chain(plan.clients.iter().map(|client| Side::Client(&client.addrs)));
    for ((n, tap), side) in taps.iter().enumerate().zip(sides) {
        let (name, interface) = (tap.name(), tap.interface()?);
        let (mac, mtu) = (interface.mac, interface.mtu);
        let link = match side {
            Side::Uplink(uplink) => Link::Uplink { uplink, mac: beside(mac), mtu, network: 0 },
            Side::Client(addrs) => Link::Client { mac, addrs: addrs.to_vec(), mtu },
        };
        firewall.port_up(now(), port(n), link);
        say(format_args!("{name} up: {mac}, mtu {mtu}"));
    }
    let mut path = Path::new(taps);
    let mut told = (0, now());
    loop {
        let due = path.tick(&mut firewall, now());
        while let Some(line) = firewall.next_log() {
            say(format_args!("{line}"));
        }
        let lost = DropReason::ALL.iter().map(|reason| path.lost()[*reason]).sum();
        if told.0 != lost && now().since(told.1) >= LOSSES {
            told = (lost, now());
            say(format_args!("{lost} frames could not be sent or read so far"));
        }
        for n in wait(path.taps(), due.map(|due| due.since(now())))? {
            path.turn(&mut firewall, now(), n)?;
        }
    }
}

/// What is behind a TAP.
enum Side<'a> {
    Uplink(Uplink),
    Client(&'a [IpAddr]),
}

/// Takes all TAPs, the uplinks' first.
fn taps(uplinks: &[String], clients: &[Client]) -> Result<Vec<Tap>, Error> {
    let mut taps: Vec<Tap> = Vec::with_capacity(clients.len() + uplinks.len());
    for name in uplinks.iter().chain(clients.iter().map(|client| &client.tap)) {
        if taps.iter().any(|tap| tap.name() == name) {
            return Err(Error::Twice(name.clone()));
        }
        taps.push(Tap::open(name)?);
    }
    Ok(taps)
}

/// Sleeps until frames are waiting, for `most` at most; says by which TAPs.
fn wait(taps: &[Tap], most: Option<Duration>) -> Result<Vec<usize>, Error> {
    let timeout = most.and_then(|most| Timespec::try_from(most).ok());
    let mut polled: Vec<_> = taps.iter().map(|tap| PollFd::new(tap, PollFlags::IN)).collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(why) => return Err(Error::Kernel(why.into())),
    }
    let ready = |(n, fd): (usize, &PollFd<'_>)| (!fd.revents().is_empty()).then_some(n);
    Ok(polled.iter().enumerate().filter_map(ready).collect())
}

/// An address for us on a link where the machine has `mac`: the last bit differs, as it does for
/// nobody else there.
const fn beside(mac: Mac) -> Mac {
    let Mac([a, b, c, d, e, last]) = mac;
    Mac([a, b, c, d, e, last ^ 1])
}

fn secret() -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    match getrandom(&mut secret, GetRandomFlags::empty()) {
        // Up to 256 bytes come whole (getrandom(2)).
        Ok(_) => Ok(secret),
        Err(why) => Err(Error::Kernel(why.into())),
    }
}
