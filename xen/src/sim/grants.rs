//! The grant table of each domain, version 1, with the in-use marks that Xen keeps in it.

use super::State;
use crate::hypervisor::{Access, DomId, FrameNo, GrantStatus};
use std::collections::BTreeMap;
use std::vec::Vec;

/// Entries 0 to 7 are reserved (GNTTAB_NR_RESERVED_ENTRIES).
const FIRST: u32 = 8;
/// 64 frames of 512 entries, the default of Xen.
const ENTRIES: u32 = 64 * 512;

struct Entry {
    to: DomId,
    frame: FrameNo,
    access: Access,
    /// Who has it mapped: GTF_reading and GTF_writing are set while this is not empty.
    mappers: Vec<DomId>,
}

pub(super) struct Table {
    entries: BTreeMap<u32, Entry>,
    free: Vec<u32>,
    next: u32,
    max: usize,
}

impl Default for Table {
    fn default() -> Self {
        let max = (ENTRIES - FIRST) as usize;
        Self { entries: BTreeMap::new(), free: Vec::new(), next: FIRST, max }
    }
}

impl Table {
    pub(super) fn in_force(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn limit(&mut self, max: usize) {
        self.max = max;
    }

    pub(super) fn create(&mut self, to: DomId, frame: FrameNo, access: Access) -> Option<u32> {
        if self.entries.len() >= self.max {
            return None;
        }
        // The last one ended is the first one used again: stale references show at once.
        let gref = self.free.pop().unwrap_or(self.next);
        if gref == self.next {
            self.next += 1;
        }
        self.entries.insert(gref, Entry { to, frame, access, mappers: Vec::new() });
        Some(gref)
    }

    /// The page it lent and to whom, or `None` if it is in use.
    pub(super) fn end(&mut self, gref: u32) -> Option<(FrameNo, DomId)> {
        let entry = self.entries.get(&gref).expect("end of a grant in force");
        if !entry.mappers.is_empty() {
            return None;
        }
        let ended = (entry.frame, entry.to);
        self.entries.remove(&gref);
        self.free.push(gref);
        Some(ended)
    }

    pub(super) fn pin(&mut self, gref: u32, by: DomId) {
        if let Some(entry) = self.entries.get_mut(&gref) {
            entry.mappers.push(by);
        }
    }

    pub(super) fn unpin(&mut self, gref: u32, by: DomId) {
        if let Some(entry) = self.entries.get_mut(&gref)
            && let Some(at) = entry.mappers.iter().position(|m| *m == by)
        {
            entry.mappers.swap_remove(at);
        }
    }

    pub(super) fn forget_mapper(&mut self, dom: DomId) {
        for entry in self.entries.values_mut() {
            entry.mappers.retain(|m| *m != dom);
        }
    }
}

/// The page behind a reference that `by` wants to use.
pub(super) fn resolve(
    state: &State,
    granter: DomId,
    gref: u32,
    by: DomId,
    access: Access,
) -> Result<FrameNo, GrantStatus> {
    let table = &state.domains.get(&granter).ok_or(GrantStatus::BAD_DOMAIN)?.grants;
    if gref >= ENTRIES {
        return Err(GrantStatus::BAD_GNTREF);
    }
    let entry = table.entries.get(&gref).ok_or(GrantStatus::GENERAL_ERROR)?;
    if entry.to != by || (access == Access::ReadWrite && entry.access == Access::ReadOnly) {
        return Err(GrantStatus::GENERAL_ERROR);
    }
    Ok(entry.frame)
}
