//! How the memory there is at the start is shared out.
//!
//! In: bytes that are free, the policy already loaded, and how many uplinks there are. Out: what
//! connections may take, and how many clients there can be at a time. Never: more given away than there is, so that neither a pool of pages
//! nor a client that comes late finds the heap empty.

use crate::firewall::Budget;
use core::fmt;
use xen::hypervisor::PAGE_SIZE;

/// Connections get one part in so many: their tables are made once, at the start.
const FLOWS_SHARE: usize = 2;

/// Connections give way to the first clients, but for so many bytes of them: 16 k.
const FLOWS_MIN: usize = 2304 << 10;

/// The rings and buffers of an uplink, twice: a backend that never lets go of its pages may have taken
/// the first set with it. More are not made (netfront).
const UPLINK: usize = 2 * 514 * PAGE_SIZE;

/// The packet path, the log, requests to XenStore and what it answers, and what is lost between blocks.
const OTHERS: usize = 1 << 20;

/// One client's vif with its rings' shadows, its names and its place in the tables, twice over for what
/// is lost between blocks.
const CLIENT: usize = 12 << 10;

/// What dom0 says gets one part in so many of what clients could have.
const QUBES_SHARE: usize = 4;

/// Names in the policy get one part in so many of it.
const HOSTS_SHARE: usize = 16;

/// One name as one client address knows it, with its addresses.
const HOST: usize = 1 << 10;

/// What a policy that comes later may take at least, beside the one it replaces.
const POLICY: usize = 256 << 10;

/// Memory a policy takes while it is read, checked and put in place of another, for each byte of its
/// blob.
const POLICY_COST: usize = 16;

/// Fewer clients are not worth a start.
const CLIENTS_MIN: usize = 4;

/// So many clients come before more connections.
const CLIENTS_FIRST: usize = 32;

/// What is taken whatever there is.
const ALL_BUT_CLIENTS: usize = UPLINK + OTHERS + POLICY;

/// So many clients, with the shares that what is theirs is divided into.
const fn around(clients: usize) -> usize {
    const SHARES: usize = HOSTS_SHARE * QUBES_SHARE;
    // What is left of a whole when a sixteenth and a fourth of it are gone, and what rounding takes.
    let left = SHARES - SHARES / HOSTS_SHARE - SHARES / QUBES_SHARE;
    (clients * CLIENT + 2 * HOST) * SHARES / left
}

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Tables of connections.
    pub(super) flows: Budget,
    /// Vifs of clients there can be at a time.
    pub(super) clients: u16,
    /// Bytes of the longest blob there is room for while the firewall runs.
    pub(super) blob: usize,
    /// Names in the policy that are resolved, each counted for each client address.
    pub(super) hosts: usize,
    /// Bytes for what Qubes' dom0 says: its database, and the rules in it.
    pub(super) qubes: usize,
}

/// There is not even memory for a few clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLittle {
    free: usize,
    /// What uplinks take beside the first.
    further: usize,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = ALL_BUT_CLIENTS + FLOWS_MIN + around(CLIENTS_MIN) + self.further;
        write!(f, "{} KiB of memory are free, {} are needed", self.free >> 10, least >> 10)
    }
}

impl Shares {
    /// Shares `free` bytes between `uplinks`, connections and at most `clients_max` clients. What further
    /// uplinks take is off the top, so that each costs the same whatever there is.
    ///
    /// # Errors
    /// [`TooLittle`].
    pub(super) fn of(free: usize, uplinks: usize, clients_max: u16) -> Result<Self, TooLittle> {
        let further = uplinks.saturating_sub(1) * UPLINK;
        let left = free.saturating_sub(further);
        let half = left / FLOWS_SHARE;
        let beside_clients = left.saturating_sub(ALL_BUT_CLIENTS + around(CLIENTS_FIRST));
        let flows = half.min(beside_clients.max(FLOWS_MIN));
        let rest = (left - flows).saturating_sub(ALL_BUT_CLIENTS);
        let qubes = rest / QUBES_SHARE;
        let hosts = rest / HOSTS_SHARE / HOST;
        let rest = rest - hosts * HOST;
        let clients = (rest - qubes) / CLIENT;
        if clients < CLIENTS_MIN {
            return Err(TooLittle { free, further });
        }
        let clients = u16::try_from(clients).unwrap_or(u16::MAX).min(clients_max);
        let blob = (POLICY + rest - qubes - usize::from(clients) * CLIENT) / POLICY_COST;
        Ok(Self { flows: Budget { bytes: flows }, clients, blob, hosts, qubes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_no_more_than_there_is() {
        for (mib, uplinks) in (11..600).map(|mib| (mib, 1)).chain((24..600).map(|mib| (mib, 4))) {
            let free = (mib << 20) - 12345;
            let shares = Shares::of(free, uplinks, u16::MAX).unwrap();
            let clients = usize::from(shares.clients) * CLIENT;
            let policy = shares.blob * POLICY_COST;
            let said = shares.qubes + shares.hosts * HOST;
            let all = shares.flows.bytes + uplinks * UPLINK + OTHERS + clients + policy + said;
            assert!(all <= free && free - all < 2 * CLIENT && policy > POLICY - CLIENT);
        }
    }

    #[test]
    fn the_most_is_kept_and_too_little_is_told_with_what_is_needed() {
        assert_eq!(Shares::of(64 << 20, 1, 255).unwrap().clients, 255);
        for (uplinks, needed) in [(1, 7768), (2, 11880)] {
            let error = Shares::of(7 << 20, uplinks, 255).unwrap_err();
            let told = alloc::format!("7168 KiB of memory are free, {needed} are needed");
            assert_eq!(alloc::format!("{error}"), told);
            assert!(Shares::of((needed - 64) << 10, uplinks, 255).is_err());
            assert!(Shares::of((needed + 1) << 10, uplinks, 255).is_ok());
        }
    }

    #[test]
    fn connections_give_way_to_the_first_clients_but_for_so_many() {
        for free in (ALL_BUT_CLIENTS + FLOWS_MIN + around(CLIENTS_FIRST)..64 << 20).step_by(4096) {
            let Shares { flows, clients, .. } = Shares::of(free, 1, 255).unwrap();
            assert!(usize::from(clients) >= CLIENTS_FIRST, "{clients} of {free} bytes");
            let half = free / FLOWS_SHARE;
            assert!(flows.bytes >= FLOWS_MIN && flows.bytes <= half, "{flows:?} of {free}");
            assert!(usize::from(clients) <= CLIENTS_FIRST + 1 || flows.bytes == half);
        }
    }
}
