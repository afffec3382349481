//! From what the domain was given to a running appliance, or to the lines that say why not.
//!
//! In: the command line, the policies it was given, memory and a seed. Out: an [`Appliance`]. Never: guesses:
//! what cannot be understood ends the domain with a message that names it.

use super::blobs::Blobs;
use super::budget::Shares;
use super::control::Control;
use super::delivery::Delivery;
use super::path::Path;
use super::ports::Ports;
use super::qubes::{Given, Qubes};
use super::voice::Voice;
use super::{Appliance, CONTROL_TAG, DELIVERY_TAG, POLL_MAX, UPLINK_PATIENCE};
use crate::config::Settings;
use crate::firewall::Firewall;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use rules::Policy;
use wire::Uplink;
use xen::console::Console;
use xen::hypervisor::{Hypervisor, Memory, Shutdown, Start};
use xen::store::Client;

/// What is left when there is no appliance: enough to say why.
pub struct Refused<H, M> {
    h: H,
    console: Console<M>,
    why: String,
}

/// Starts the appliance. `free` tells how many bytes of memory are left; `seed` comes fresh from an entropy source and is used for nothing else.
///
/// # Errors
/// [`Refused`], with what makes no sense and where it stands.
#[allow(clippy::result_large_err, reason = "once, at boot")]
pub fn begin<H: Hypervisor, M: Memory>(
    mut h: H,
    start: Start<M>,
    blobs: Blobs<'_>,
    free: impl Fn() -> usize,
    seed: [u8; 32],
) -> Result<Appliance<H, M>, Refused<H, M>> {
    let mut console = Console::new(start.console.0, start.console.1);
    let settings = match Settings::parse(&start.cmdline) {
        Ok(settings) => settings,
        Err(mistake) => return Err(Refused { h, console, why: format!("{mistake}") }),
    };
    let no_policy = blobs.built_in.is_none() && blobs.module.is_none();
    let policy = load(&mut h, &mut console, blobs);
    let config = settings.firewall(policy);
    let given = Given::of(&config, no_policy);
    let free = free();
    let uplinks: Vec<Uplink> = config.uplinks().collect();
    let slots = config.nat.slots.saturating_sub(u16::try_from(uplinks.len()).unwrap_or(u16::MAX));
    let shares = match Shares::of(free, uplinks.len(), slots) {
        Ok(shares) => shares,
        Err(error) => return Err(Refused { h, console, why: format!("{error}") }),
    };
    let mut firewall = match Firewall::new(config, shares.flows, seed) {
        Ok(firewall) => firewall,
        Err(error) => {
            let why = format!("connection tracking: {error}");
            return Err(Refused { h, console, why });
        }
    };
    firewall.limit_own_rules(Qubes::<H>::rules_max(shares.qubes));
    firewall.limit_hosts(shares.hosts);
    let (flows, clients) = (firewall.flows_max(), shares.clients);
    console.say(
        &mut h,
        format_args!("{} KiB free: {flows} connections, {clients} clients at most", free >> 10),
    );
    for uplink in firewall.missing_uplinks() {
        console.say(&mut h, format_args!("{}", Missing(uplink)));
    }
    let Ok(path) = Path::new(&mut h) else {
        let why = String::from("not enough memory for the packet path");
        return Err(Refused { h, console, why });
    };
    let mut store = Client::new(start.store.0, start.store.1);
    let watching = Control::start(&mut store, CONTROL_TAG).and_then(|control| {
        let (blob, policy) = (shares.blob, firewall.policy());
        Ok((control, Delivery::start(&mut store, DELIVERY_TAG, blob, policy)?))
    });
    let (control, delivery) = match watching {
        Ok(watching) => watching,
        Err(error) => {
            let why = format!("XenStore takes no requests: {error:?}");
            return Err(Refused { h, console, why });
        }
    };
    let qubes = Qubes::start(&mut store, given, (shares.qubes, shares.blob));
    Ok(Appliance {
        awaited: (h.now() + UPLINK_PATIENCE, uplinks.clone()),
        h,
        store,
        console: Voice::new(console),
        ports: Ports::new(&uplinks, shares.clients),
        path,
        firewall,
        control,
        delivery,
        qubes,
        hot: Vec::new(),
        listed: Vec::with_capacity(POLL_MAX),
    })
}

/// Reads the policy and says which it is. One that is broken opens nothing.
fn load<H: Hypervisor, M: Memory>(
    h: &mut H,
    console: &mut Console<M>,
    blobs: Blobs<'_>,
) -> Option<Policy> {
    match blobs.policy() {
        Ok(None) => {
            console.say(h, format_args!("no policy: everything is dropped"));
            None
        }
        Ok(Some((policy, source))) => {
            console.say(h, format_args!("{} ({source})", Summary(&policy)));
            Some(policy)
        }
        Err(broken) => {
            console.say(h, format_args!("WARNING: {broken}"));
            None
        }
    }
}

/// An uplink that the policy speaks of and that is none.
pub(super) struct Missing(pub(super) Uplink);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(f, "WARNING: the policy speaks of netfront {n}, and nothing leaves there: ")?;
        write!(f, "the command line has neither ip.{n}= nor ip6.{n}=")
    }
}

/// A policy in one line: its name, how many rules it has, its digest.
pub(super) struct Summary<'a>(pub(super) &'a Policy);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, rules) = (self.0.name(), self.0.rule_ids().count());
        write!(f, "policy {name}: {rules} rules, {}", self.0.digest())
    }
}

impl<H: Hypervisor, M: Memory> Refused<H, M> {
    /// Says why there is nothing to run and ends the domain, once the console has been read or after
    /// a bounded number of looks.
    pub fn halt(mut self) {
        self.console.say(&mut self.h, format_args!("{}", self.why));
        self.console.say(&mut self.h, format_args!("halting"));
        for _ in 0..100 {
            if self.console.is_drained() {
                break;
            }
            let soon = self.h.now() + core::time::Duration::from_millis(10);
            if self.h.poll(&[], Some(soon)).is_err() {
                break;
            }
            self.h.take_pending();
        }
        self.h.shutdown(Shutdown::Poweroff);
    }
}
