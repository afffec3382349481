//! What may flow: the one form every rule has, wherever it was written, and what it decides.
//!
//! In: a policy made by `lang` on Linux (or its [blob](Policy::encode) in the kernel), the rules
//! Qubes sends for each VM ([`qubes`]), and one [`Query`] for each new flow. Out: a [`Decision`] with
//! the rule that made it. Never: packets, time, I/O, or the parser of the policy language.
//!
//! The meaning of a policy is [`Policy::decide`], short enough to be read in one sitting. Invalid
//! forms cannot be held: a [`Policy`] exists only if [`Policy::new`] or [`Policy::decode`] has
//! checked every rule of it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod blob;
mod counters;
mod decide;
mod policy;
pub mod qubes;
mod query;
mod rule;
mod set;

pub use action::{Action, RejectKind};
pub use blob::{BlobError, FORMAT};
pub use counters::Counters;
pub use decide::{Decision, OwnRule};
pub use policy::{Block, Digest, DnsRedirect, Invalid, Parts, Policy, Vm};
pub use query::{Family, Query, Transport, Zone};
pub use rule::{Rule, RuleId, Then, Traffic, What};
pub use set::{AddrSet, Point, PortSet, RangeSet};
