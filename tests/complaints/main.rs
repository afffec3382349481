//! Each test is named after a complaint that users have about other firewalls of Qubes OS, and holds if it
//! has no ground here. docs/COMPLAINTS.md lists all of them with the tests that answer them, these and
//! others; `document` holds it to that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../machine/mod.rs"]
mod machine;

#[path = "../tree/mod.rs"]
mod tree;

/// A Qubes machine.
#[path = "../qubes/world.rs"]
#[allow(dead_code, reason = "shared with another test program")]
mod qubes;

/// The firewall alone.
#[path = "../firewall/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with another test program")]
mod engine;

use machine::frames as common;

mod clients;
mod connections;
mod document;
mod names;
mod netvm;
