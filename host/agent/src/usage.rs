//! Processor time of every domain, in nanoseconds, asked of the hypervisor itself: `xl list` tells
//! tenths of a second, and takes some of them.
//!
//! In: nothing. Out: each domain's time since its creation. For dom0 only. Never: changes anything.

#![allow(unsafe_code, reason = "a hypercall of dom0 is an ioctl")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const PRIVCMD: &str = "/dev/xen/privcmd";
/// IOCTL_PRIVCMD_HYPERCALL (xen/privcmd.h of Linux): `_IOC(_IOC_NONE, 'P', 0, 48)`.
const HYPERCALL: u64 = 48 << 16 | 0x50 << 8;
/// __HYPERVISOR_domctl (xen.h).
const DOMCTL: u64 = 36;
/// XEN_DOMCTL_getdomaininfo, and the version of the interface in Xen 4.17 (domctl.h).
const GETDOMAININFO: u32 = 5;
const INTERFACE: u32 = 0x15;
const ESRCH: i32 = 3;

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Call {
    op: u64,
    arg: [u64; 5],
}

/// `struct xen_domctl` with `struct xen_domctl_getdomaininfo` in its union of 128 bytes.
#[repr(C)]
#[derive(Default)]
struct Domctl {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    found: u16,
    pad1: u16,
    flags: u32,
    pages: [u64; 5],
    shared_info_frame: u64,
    cpu_time: u64,
    rest: [u64; 8],
}

unsafe extern "C" {
    fn ioctl(fd: i32, request: u64, ...) -> i32;
}

/// Nanoseconds by domain number.
pub(crate) fn all() -> io::Result<BTreeMap<u16, u64>> {
    let privcmd = File::options().read(true).write(true).open(PRIVCMD)?;
    let mut times = BTreeMap::new();
    let mut from = 0;
    // Xen answers for the first domain from that number on.
    while let Some(info) = info(&privcmd, from)? {
        times.insert(info.found, info.cpu_time);
        from = info.found + 1;
    }
    Ok(times)
}

fn info(privcmd: &File, from: u16) -> io::Result<Option<Domctl>> {
    let mut domctl = Box::new(Domctl {
        cmd: GETDOMAININFO,
        interface_version: INTERFACE,
        domain: from,
        ..Domctl::default()
    });
    let call = Call { op: DOMCTL, arg: [(&raw mut *domctl) as u64, 0, 0, 0, 0] };
    // SAFETY: Linux reads `call`; Xen reads and writes `domctl`, which is as long as its own. Both
    // outlive the call. There is no swap here that a touched page could be in.
    match unsafe { ioctl(privcmd.as_raw_fd(), HYPERCALL, &raw const call) } {
        0 => Ok(Some(*domctl)),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(ESRCH) => Ok(None),
            e => Err(e),
        },
    }
}
