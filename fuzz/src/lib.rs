//! What the fuzzers run: one function for each way in that is open to others.
//!
//! In: any bytes. Out: nothing, if all is well. Never: a panic, but for a promise that was broken.
//! Each function feeds its bytes to the real code and holds the outcome to what is promised of it.
//! `tests/corpus.rs` runs them over all that is kept in `corpus/` and `regressions/`, without
//! cargo-fuzz; with it: `cargo fuzz run -s none --features libfuzzer TARGET`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a fuzzer is told"
)]

mod frames;
mod resolver;
mod steps;
mod texts;

pub use frames::{batch, frame};
pub use resolver::dns;
pub use steps::nat_step;
pub use texts::{blob, cmdline, policy, qubesdb, tree, xenstore};

/// A way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its corpus and of its binary.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "frame", run: frame },
    Target { name: "batch", run: batch },
    Target { name: "nat_step", run: nat_step },
    Target { name: "dns", run: dns },
    Target { name: "blob", run: blob },
    Target { name: "policy", run: policy },
    Target { name: "tree", run: tree },
    Target { name: "cmdline", run: cmdline },
    Target { name: "xenstore", run: xenstore },
    Target { name: "qubesdb", run: qubesdb },
];
