//! What the firewall does with packets, one behaviour a test. Frames are built and judged by smoltcp.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]

#[path = "../../wire/tests/common/mod.rs"]
mod common;

mod alias;
mod answers;
mod dns;
mod flows;
mod fragments;
mod hairpin;
mod hostile;
mod hosts;
mod icmp;
mod names;
mod own;
mod poisoning;
mod policy;
mod resolver;
mod short;
mod statics;
mod uplinks;
mod vocabulary;
mod words;
mod world;
mod zones;
