//! A real Xen, with dom0, clients and a firewall, on any Debian machine.
//!
//! In: which firewall, which guests. Out: a typed handle on each of them, from which tests and the
//! demo are written. QEMU emulates the processor (no KVM), the hypervisor and the toolstack are
//! Debian's own. All traffic stays inside the emulator.
//!
//! ```text
//!   World ── topology: internet, firewall, clients        scenario ── named tests over a World
//!   Xen ──── xl, XenStore, consoles                       Domain ──── commands and probes inside
//!   Machine ─ QEMU                                        Link ────── JSON lines to the agents
//!   image ── initramfs ── tree ── packages (apt)
//! ```

#![forbid(unsafe_code)]

mod config;
mod cpio;
mod domain;
mod error;
mod host;
mod image;
mod kernel;
mod link;
mod load;
mod machine;
mod monitor;
mod packages;
pub mod peers;
pub mod plan;
mod sample;
pub mod scenario;
mod tree;
mod world;
mod xen;

pub use agent::probe;
pub use agent::{Condition, Exit};
pub use config::{Config, Mode, Vif};
pub use domain::{DEADLINE, Domain, Ping, Way};
pub use error::{Context, Error, Result, ensure};
pub use host::{Layout, run, step};
pub use load::{Load, Report};
pub use machine::{Clock, Machine, Options, PROCESSOR, XEN_WORDS};
pub use monitor::{Monitor, Registers};
pub use sample::{Sample, Sampler};
pub use world::{FIREWALL, Firewall, World};
pub use xen::{Usage, Xen};

/// The hypervisor alone, an ELF32 multiboot image, for kernels that want to be dom0 themselves.
///
/// # Errors
/// When apt cannot bring it.
pub fn hypervisor(layout: &Layout) -> Result<std::path::PathBuf> {
    Ok(step("prepare Xen and Linux", || image::provide(layout))?.xen)
}
