//! XenStore: the tree of small values the toolstack and all domains talk through.
//!
//! In: bytes on a shared ring, which may be anything. Out: replies matched to requests, and watch
//! events. Never: waits; a slow XenStore delays nobody but those who asked it.
//!
//! [`Client`] moves messages. [`Gather`] and [`Publish`] are what is built of them: reading a set of
//! nodes at once, and changing a set of nodes in one transaction.
#![deny(clippy::arithmetic_side_effects)]

mod client;
mod gather;
mod publish;
pub(crate) mod ring;
pub mod wire;

pub use client::{Broken, Client, Event, RequestId, SubmitError, Tag};
pub use gather::{Found, Gather, GatherError, Key};
pub use publish::{Change, Outcome, Publish, Step};
pub use wire::{Op, Perm, Reply, StoreError, TxId};
