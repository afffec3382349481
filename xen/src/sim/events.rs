//! Event channels, the 2-level kind, all of them masked.

use super::State;
use crate::hypervisor::{DomId, Errno, PORTS_MAX, PortSet};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

pub(super) const ESRCH: Errno = Errno(3);
pub(super) const EINVAL: Errno = Errno(22);
pub(super) const ENOSPC: Errno = Errno(28);

#[derive(Clone, Copy)]
enum Channel {
    Unbound { remote: DomId },
    Interdomain { remote: DomId, port: u32 },
}

#[derive(Default)]
pub(super) struct Table {
    channels: BTreeMap<u32, Channel>,
    pending: BTreeSet<u32>,
    sleep: Option<Sleep>,
}

/// What a sleeping domain waits for.
struct Sleep {
    /// With exactly one port listed, only that one wakes.
    only: Option<u32>,
    woken: bool,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn any_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_pending(&self, port: u32) -> bool {
        self.pending.contains(&port)
    }

    pub(super) fn take_pending(&mut self) -> PortSet {
        let mut set = PortSet::default();
        for port in std::mem::take(&mut self.pending) {
            set.add(crate::hypervisor::EvtPort(port));
        }
        set
    }

    pub(super) fn sleep(&mut self, only: Option<u32>) {
        self.sleep = Some(Sleep { only, woken: false });
    }

    pub(super) fn is_woken(&self) -> bool {
        self.sleep.as_ref().is_none_or(|s| s.woken)
    }

    pub(super) fn wake(&mut self) {
        self.sleep = None;
    }

    fn allocate(&mut self, channel: Channel) -> Result<u32, Errno> {
        let max = u32::try_from(PORTS_MAX).unwrap_or(u32::MAX);
        let port = (1..max).find(|p| !self.channels.contains_key(p)).ok_or(ENOSPC)?;
        self.channels.insert(port, channel);
        Ok(port)
    }

    /// Returns whether it was not pending before. Only then it wakes anybody.
    fn raise(&mut self, port: u32) -> bool {
        let new = self.pending.insert(port);
        if new && let Some(sleep) = &mut self.sleep {
            sleep.woken |= sleep.only.is_none_or(|only| only == port);
        }
        new
    }
}

pub(super) fn raise(state: &mut State, dom: DomId, port: u32) -> bool {
    state.domains.get_mut(&dom).is_some_and(|d| d.events.raise(port))
}

pub(super) fn ports(state: &State, dom: DomId) -> Vec<u32> {
    state.domains.get(&dom).map(|d| d.events.channels.keys().copied().collect()).unwrap_or_default()
}

fn table(state: &mut State, dom: DomId) -> Result<&mut Table, Errno> {
    state.domains.get_mut(&dom).map(|d| &mut d.events).ok_or(ESRCH)
}

fn number(dom: DomId, by: DomId) -> DomId {
    if dom == DomId::SELF { by } else { dom }
}

pub(super) fn alloc_unbound(state: &mut State, by: DomId, remote: DomId) -> Result<u32, Errno> {
    // Xen does not look whether the remote exists.
    table(state, by)?.allocate(Channel::Unbound { remote: number(remote, by) })
}

pub(super) fn bind(state: &mut State, by: DomId, remote: DomId, port: u32) -> Result<u32, Errno> {
    let remote = number(remote, by);
    match table(state, remote)?.channels.get(&port) {
        Some(Channel::Unbound { remote: offered }) if *offered == by => {}
        _ => return Err(EINVAL),
    }
    let local = table(state, by)?.allocate(Channel::Interdomain { remote, port })?;
    let peer = Channel::Interdomain { remote: by, port: local };
    table(state, remote)?.channels.insert(port, peer);
    // The peer may have signalled before anybody listened.
    raise(state, by, local);
    Ok(local)
}

pub(super) fn close(state: &mut State, by: DomId, port: u32) {
    let Ok(own) = table(state, by) else { return };
    own.pending.remove(&port);
    if let Some(Channel::Interdomain { remote, port: peer }) = own.channels.remove(&port)
        && let Ok(theirs) = table(state, remote)
    {
        theirs.channels.insert(peer, Channel::Unbound { remote: by });
    }
}

/// Returns whether the other end learned something new.
pub(super) fn send(state: &mut State, by: DomId, port: u32) -> Result<bool, Errno> {
    match table(state, by)?.channels.get(&port).copied() {
        Some(Channel::Interdomain { remote, port }) => {
            if let Some(peer) = state.domains.get_mut(&remote) {
                peer.counters.signalled += 1;
            }
            Ok(raise(state, remote, port))
        }
        Some(Channel::Unbound { .. }) => Ok(true),
        None => Err(EINVAL),
    }
}
