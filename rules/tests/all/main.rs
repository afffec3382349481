//! The common form seen from outside: what policies decide, how they become bytes, what Qubes says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod blob;
mod common;
mod decide;
mod qubes;
