//! The appliance in Qubes: dom0's daemons say what its network is and what each client may, and call it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "qubes/calls.rs"]
mod calls;
#[path = "qubes/chaos.rs"]
mod chaos;
#[path = "qubes/fake.rs"]
mod fake;
mod machine;
#[path = "qubes/model.rs"]
mod model;
#[path = "qubes/names.rs"]
mod names;
#[path = "qubes/network.rs"]
mod network;
#[path = "qubes/peers.rs"]
mod peers;
#[path = "qubes/rules.rs"]
mod rules;
#[path = "qubes/six.rs"]
mod six;
#[path = "qubes/uplink.rs"]
mod uplink;
#[path = "qubes/vifs.rs"]
mod vifs;
#[path = "qubes/world.rs"]
mod world;
