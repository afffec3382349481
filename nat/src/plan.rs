//! How many flows a budget pays for.
//!
//! In: bytes. Out: sizes of all tables, which together take no more. Never: an estimate.

use crate::flow::Flow;
use crate::nat::External;
use crate::numbers::Numbers;
use crate::slab::Place;
use crate::{Budget, Config, ConfigError, clients, index, ports, quarantine, wheel};
use wire::Addr;

/// The fewest flows that are worth having.
const FLOWS_MIN: u32 = 64;

/// The most, so that places and their side fit an index entry.
const FLOWS_MAX: u32 = index::NUMBERS_MAX / 2;

/// Sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) flows: u32,
}

impl Plan {
    /// The largest tables within the budget.
    pub(crate) fn new(config: &Config, budget: Budget) -> Result<Self, ConfigError> {
        if config.slots == 0 {
            return Err(ConfigError::NoSlots);
        }
        let cost = |flows: u32| Self { flows }.bytes(config.slots);
        if cost(FLOWS_MIN) > budget.bytes {
            return Err(ConfigError::Budget { least: cost(FLOWS_MIN) });
        }
        // The cost grows with the flows, so the largest number within the budget can be bisected.
        let (mut fits, mut too_many) = (FLOWS_MIN, FLOWS_MAX);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if cost(middle) <= budget.bytes { fits = middle } else { too_many = middle }
        }
        Ok(Self { flows: fits })
    }

    /// Entries of the index of flows: every flow stands there under two keys.
    pub(crate) const fn index_entries(&self) -> u32 {
        2 * self.flows
    }

    /// Entries of the index of sockets: each has at least one flow, and a port of its own.
    pub(crate) fn socket_entries(&self) -> u32 {
        self.flows.min(4 * ports::COUNT)
    }

    fn bytes(&self, slots: u16) -> usize {
        let numbers = Numbers::<External>::BYTES + Numbers::<(Addr, u16)>::BYTES;
        let fixed = 4 * ports::BYTES + quarantine::BYTES + numbers + wheel::BYTES;
        let clients = usize::from(slots) * clients::BYTES;
        let flows = self.flows as usize * size_of::<Place<Flow>>();
        let tables = index::bytes(self.index_entries()) + index::bytes(self.socket_entries());
        fixed + clients + flows + tables
    }
}
