//! The frontend end of the netif protocol: an uplink of ours, towards a Linux netback or one like it.
//!
//! In: what XenStore says under `device/vif`, responses in shared rings, frames to be sent. Out:
//! frames that arrived, notices of the uplink's coming and going. Never: waits, trusts a backend with
//! more than the frames that are its own, or takes anything of one backend to the next.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bucket;
mod device;
mod devices;
mod fault;
pub mod life;
mod link;
mod list;
mod pool;
mod rx;
mod seen;
mod stall;
mod tx;
mod uplink;
mod vif;

pub use devices::Devices;
pub use fault::Fault;
pub use uplink::Netfront;

use alloc::string::String;
use wire::{Mac, Port, PortSlot};
use xen::hypervisor::DomId;
use xen::store::Tag;

/// A number of ring slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slots(pub u32);

/// What the uplink may use, and how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the uplink stands in the table of ports.
    pub slot: PortSlot,
    /// Marks what belongs to us in XenStore's client; nobody else may use it.
    pub tag: Tag,
    /// Which devices it may use.
    pub devices: Devices,
    /// Pages to send from, at most 256: as many slots can be in flight.
    pub tx_pages: u16,
    /// Pages to receive in, 64 to 256.
    pub rx_pages: u16,
}

impl Config {
    /// Full rings, and any device.
    #[must_use]
    pub const fn new(slot: PortSlot, tag: Tag) -> Self {
        Self { slot, tag, devices: Devices::ANY, tx_pages: 256, rx_pages: 256 }
    }
}

/// News for whoever uses the uplink, in the order they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The uplink is connected: frames may flow, and some may wait already.
    Up {
        /// What it is called until it goes down.
        port: Port,
        /// Our own address on it.
        mac: Mac,
        /// Bytes of a packet it carries, without the Ethernet header.
        mtu: u16,
        /// The domain behind it. Another one than before is another network.
        backend: DomId,
    },
    /// It is gone; what is staged on it will not be sent.
    Down {
        /// As it was called.
        port: Port,
    },
    /// Something is wrong, told to humans: the path or device, and what.
    Problem {
        /// One line of text without control characters.
        text: String,
    },
}
