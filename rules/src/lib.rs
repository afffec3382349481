//! What may flow: the one form every rule has, wherever it was written, and what it decides.
//!
//! In: a policy made by `lang` on Linux (or its [blob](Policy::encode) in the kernel), the rules
//! Qubes sends for each VM ([`qubes`]), and one [`Query`] for each new flow. Out: a [`Decision`] with
//! the rule that made it. Never: packets, time, I/O, or the parser of the policy language.
//!
//! The meaning of a policy is [`interpret()`], short enough to be read in one sitting;
//! [`Policy::decide`] finds the same answer quickly. Invalid forms cannot be held: a [`Policy`]
//! exists only if [`Policy::new`] or [`Policy::decode`] has checked every rule of it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod blob;
mod counters;
mod decide;
mod header;
mod host;
mod interpret;
mod invalid;
mod matcher;
mod note;
mod policy;
pub mod qubes;
mod query;
mod rule;
mod service;
mod set;

pub use action::{Action, RejectKind};
pub use blob::{BlobError, FORMAT};
pub use counters::Counters;
pub use decide::{Decision, OwnRule};
pub use header::{Conditions, FLAG_NAMES, Header, State};
pub use host::{HOSTS_MAX, HOSTS_PER_RULE, HostName, HostSet, HostTable, NoHost, nameless};
pub use interpret::{Condition, failing, interpret, interpret_own};
pub use invalid::Invalid;
pub use matcher::BYTES_PER_RULE;
pub use note::{Note, Rate, Severity};
pub use policy::{Block, Digest, DnsRedirect, Parts, Policy, Vm};
pub use query::{Family, Query, Transport, Zone};
pub use rule::{Rule, RuleId, Then, Traffic, What};
pub use service::{
    Forward, Ported, ROUTES_MAX, Route, SERVICES_MAX, Services, Source, Syslog, Timeout,
};
pub use set::{AddrSet, Point, PortSet, RangeSet};
// Words of services that the translator has too.
pub use wire::{Balance, OneToOne, Uplink};
