//! What a guest needs of Xen, without a line of policy: the [`Hypervisor`](hypervisor::Hypervisor) trait, the netif, XenStore,
//! vchan and console protocols on it, and two who implement it: `raw` (hypercalls) and `sim` (memory).
//!
//! In: pages, ports and messages other domains control. Out: values that were read once and checked.
//! Never: trust in what stands in a shared page, or `unsafe` outside `raw`.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "sim"))]
extern crate std;

pub mod conformance;
pub mod console;
mod copy;
pub mod hypervisor;
pub mod io;
pub mod layout;
pub mod netif;
#[cfg(feature = "raw")]
pub mod raw;
pub mod ring;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod store;
pub mod vchan;
pub mod xenbus;
