//! Tidegate, a Xen unikernel firewall with NAT.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod appliance;
pub mod config;
pub mod firewall;
