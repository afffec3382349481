//! The whole appliance on a simulated machine: uplinks and clients that come, go, break, flood XenStore
//! and are many; what is held afterwards, to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../machine/mod.rs"]
mod machine;

mod clients;
mod ledger;
mod memory;
mod policy;
mod scale;
mod traffic;
mod uplink;
mod uplinks;
