//! Names in rules: which addresses they stand for, for whom, and for how long.
//!
//! In: the names that each client's rules use, what clients ask of the resolvers they are told to ask
//! and what those answer, time, and a source of randomness. Out: queries of our own to the same
//! resolvers, and for each client the addresses of each name. Never: I/O, a clock, one client's answer
//! in the rules of another, or more than is written here of anything.
//!
//! A name has the addresses that the firewall's own resolver was told, and those the client itself was
//! told when it asked: what a client is told now and what we were told a minute ago are different
//! things where servers are many. Both are believed only as far as they were asked for.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ask;
mod known;
mod life;
mod live;
mod message;
mod name;
mod names;

pub use ask::{ASKED_MAX, Ask};
pub use known::{ADDRS_PER_CLIENT, TTL_MAX, TTL_MIN};
pub use message::{
    ADDRS_MAX, ALIASES_MAX, Answer, Kind, QUERY_MAX, QUESTION_MAX, Query, Told, Unusable, question,
    read_answer, write_query,
};
pub use name::Name;
pub use names::{Change, HOSTS_PER_CLIENT, Names, OWN_PER_CLIENT, RESOLVERS_MAX, Source};
