//! Connection tracking and network address translation.
//!
//! In: the current time, parsed packets, and a secret once. Out: how to rewrite them, or why not.
//! Never: I/O, a clock, a global, an allocation after [`Nat::new`], or a look into a payload.
//!
//! ```
//! use nat::{Budget, Config, Direction, Nat, NewFlow};
//! use wire::{Instant, Port, Proto, Transport, Tuple, Udp, Uplink};
//!
//! let secret = [7; 32]; // from a real source of randomness, and never twice
//! let mut nat = Nat::new(Config::default(), Budget { bytes: 1 << 20 }, secret).expect("sound");
//! let now = Instant::from_secs(1);
//!
//! // A client's first packet: no flow yet, so the rules are asked, and one is opened.
//! let query = Tuple {
//!     proto: Proto::Udp,
//!     src: [10, 137, 0, 10].into(),
//!     sport: 40_000,
//!     dst: [9, 9, 9, 9].into(),
//!     dport: 53,
//! };
//! let transport = Transport::Udp(Udp { sport: 40_000, dport: 53, data: 32 });
//! assert_eq!(nat.find_out(now, nat.hash(&query), &query), None);
//! let (_, sent) = nat.open(now, &NewFlow {
//!     client: Port::new(1, 0),
//!     tuple: query,
//!     transport: &transport,
//!     uplink: Uplink::FIRST,
//!     external: [192, 0, 2, 1].into(),
//!     redirected: None,
//!     epoch: 0,
//! })?;
//!
//! // The answer finds the way back.
//! let answer = sent.tuple.reversed();
//! let flow = nat.find_in(now, nat.hash(&answer), Uplink::FIRST, &answer);
//! let flow = flow.ok_or(wire::DropReason::Unsolicited)?;
//! let got = nat.pass(now, flow, Direction::In, &transport)?;
//! assert_eq!(got.tuple, query.reversed());
//! # Ok::<(), wire::DropReason>(())
//! ```
//!
//! How it is put together: every packet is found by one probe of one keyed index, whichever way it
//! goes, since each flow stands in it under both its tuples. The flows of a client's socket share its
//! external port, which is the same for all remotes. A flow leaves by one uplink, and what comes by
//! another does not find it. All time is kept by a wheel that a packet never
//! touches, unless it changes a TCP state.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod api;
mod book;
mod clients;
mod config;
mod early;
mod errors;
mod flow;
mod fragments;
mod hash;
mod inbound;
mod index;
mod limits;
mod lists;
mod nat;
mod numbers;
mod open;
mod own;
mod plan;
mod ports;
mod quarantine;
mod queries;
mod room;
mod short;
mod slab;
mod sockets;
mod state;
mod statics;
mod stats;
mod stir;
mod tcp;
mod wheel;

pub use api::{Direction, ErrorPassage, Facts, FlowId, Hash, NewFlow, NewInflow, Passage, Sender};
pub use clients::{Holding, PerProto, Share};
pub use config::{Budget, Config, ConfigError, Timeouts};
pub use early::Early;
pub use flow::FLOW_BYTES;
pub use fragments::{DatagramId, Fragments, Later, Piece};
pub use nat::Nat;
pub use quarantine::QUARANTINE;
pub use queries::Answered;
pub use short::{Second, Shortcut};
pub use statics::{Forward, Inbound, Prefix, STATICS_MAX, Source, StaticError, Statics};
pub use stats::Stats;
// Words of our lists that rules have too.
pub use wire::{Balance, OneToOne};
