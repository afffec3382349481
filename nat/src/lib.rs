//! Connection tracking and network address translation.
//!
//! In: the current time, parsed packets, and a secret once. Out: how to rewrite them, or why not.
//! Never: I/O, a clock, a global, an allocation after [`Nat::new`], or a look into a payload.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod api;
mod clients;
mod config;
mod externals;
mod flow;
mod hash;
mod lists;
mod mappings;
mod nat;
mod open;
mod plan;
mod ports;
mod quarantine;
mod room;
mod slab;
mod state;
mod stats;
mod tcp;
mod wheel;

pub use api::{Direction, ErrorPassage, Facts, FlowId, Hash, NewFlow, Passage};
pub use clients::{Holding, PerProto, Share};
pub use config::{Budget, Config, ConfigError, Timeouts};
pub use flow::FLOW_BYTES;
pub use mappings::MAPPING_BYTES;
pub use nat::Nat;
pub use quarantine::QUARANTINE;
pub use stats::Stats;
