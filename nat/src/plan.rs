//! How many flows a budget pays for.
//!
//! In: bytes. Out: sizes of all tables, which together take no more. Never: an estimate; the
//! geometry of every table is counted, that of hashbrown included.

use crate::flow::Flow;
use crate::mappings::Mapping;
use crate::slab::Place;
use crate::{Budget, Config, ConfigError, clients, externals, ports, quarantine, wheel};

/// The fewest flows that are worth having.
const FLOWS_MIN: u32 = 64;

/// The most, so that places and their side fit an index entry.
const FLOWS_MAX: u32 = 1 << 28;

/// Sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) flows: u32,
    pub(crate) mappings: u32,
}

impl Plan {
    /// The largest tables within the budget.
    pub(crate) fn new(config: &Config, budget: Budget) -> Result<Self, ConfigError> {
        if config.slots == 0 {
            return Err(ConfigError::NoSlots);
        }
        let cost = |flows: u32| Self::of(flows).bytes(config.slots);
        if cost(FLOWS_MIN) > budget.bytes {
            return Err(ConfigError::Budget { least: cost(FLOWS_MIN) });
        }
        // The cost grows with the flows, so the largest number within the budget can be bisected.
        let (mut fits, mut too_many) = (FLOWS_MIN, FLOWS_MAX);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if cost(middle) <= budget.bytes { fits = middle } else { too_many = middle }
        }
        Ok(Self::of(fits))
    }

    /// A mapping has at least one flow, and a port of its own.
    fn of(flows: u32) -> Self {
        Self { flows, mappings: flows.min(4 * ports::COUNT) }
    }

    /// Entries of the index of flows: every flow stands there under two tuples.
    pub(crate) const fn index_entries(&self) -> usize {
        2 * self.flows as usize
    }

    fn bytes(&self, slots: u16) -> usize {
        let fixed = 4 * ports::BYTES + quarantine::BYTES + externals::BYTES + wheel::BYTES;
        let clients = usize::from(slots) * clients::BYTES;
        let flows = self.flows as usize * size_of::<Place<Flow>>();
        let mappings = self.mappings as usize * size_of::<Place<Mapping>>();
        let tables = index_bytes(self.index_entries()) + index_bytes(self.mappings as usize);
        fixed + clients + flows + mappings + tables
    }
}

/// Bytes of a hashbrown table of `u32` with room for twice as many entries. So it is at most 7/16
/// full, and what is removed leaves no marks that would have to be swept one day.
fn index_bytes(entries: usize) -> usize {
    let buckets = (2 * entries * 8 / 7).next_power_of_two();
    buckets * (size_of::<u32>() + 1) + 16
}
