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
mod config;
mod nat;

pub use api::{Direction, ErrorPassage, Facts, FlowId, Hash, NewFlow, Passage};
pub use config::{Budget, Config, ConfigError, Timeouts};
pub use nat::{Nat, QUARANTINE};
