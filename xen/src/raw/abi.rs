//! The words of Xen's interface that `xen-sys` does not have, laid out as the public headers say.
//! Types and numbers only, documented there.
#![allow(missing_docs)]

use core::mem::{offset_of, size_of};

pub use xen_sys::{
    EVTCHNOP_alloc_unbound, EVTCHNOP_bind_interdomain, EVTCHNOP_close, EVTCHNOP_send, SCHEDOP_poll,
    SCHEDOP_shutdown, SCHEDOP_yield, SHUTDOWN_crash, SHUTDOWN_poweroff, SHUTDOWN_reboot,
    SIF_INITDOMAIN, evtchn_alloc_unbound, evtchn_bind_interdomain, evtchn_close, evtchn_send,
    mmu_update, sched_poll, sched_shutdown, shared_info, start_info, trap_info, vcpu_time_info,
};

/// Numbers of hypercalls (__HYPERVISOR_*, xen.h).
pub mod nr {
    pub use xen_sys::{
        __HYPERVISOR_console_io as CONSOLE_IO, __HYPERVISOR_event_channel_op as EVENT_CHANNEL_OP,
        __HYPERVISOR_grant_table_op as GRANT_TABLE_OP, __HYPERVISOR_hvm_op as HVM_OP,
        __HYPERVISOR_memory_op as MEMORY_OP, __HYPERVISOR_mmu_update as MMU_UPDATE,
        __HYPERVISOR_physdev_op as PHYSDEV_OP, __HYPERVISOR_sched_op as SCHED_OP,
        __HYPERVISOR_set_trap_table as SET_TRAP_TABLE,
        __HYPERVISOR_update_va_mapping as UPDATE_VA_MAPPING,
    };
}

/// GNTTABOP_* (grant_table.h).
pub mod gnttabop {
    pub const MAP_GRANT_REF: u32 = 0;
    pub const UNMAP_GRANT_REF: u32 = 1;
    pub const SETUP_TABLE: u32 = 2;
    pub const COPY: u32 = 5;
    pub const QUERY_SIZE: u32 = 6;
}

/// GTF_* of a version 1 entry (grant_table.h).
pub mod gtf {
    pub const PERMIT_ACCESS: u16 = 1;
    pub const READONLY: u16 = 1 << 2;
    pub const READING: u16 = 1 << 3;
    pub const WRITING: u16 = 1 << 4;
}

/// GNTMAP_* (grant_table.h).
pub mod gntmap {
    pub const HOST_MAP: u32 = 1 << 1;
    pub const READONLY: u32 = 1 << 2;
}

/// XENMEM_* and the spaces of `add_to_physmap` (memory.h).
pub mod xenmem {
    pub const ADD_TO_PHYSMAP: u32 = 7;
    pub const MEMORY_MAP: u32 = 9;
    pub const SHARED_INFO: u32 = 0;
    pub const GRANT_TABLE: u32 = 1;
}

/// HVMOP_get_param and the parameters we read (hvm_op.h, params.h).
pub mod hvm {
    pub const GET_PARAM: u32 = 1;
    pub const STORE_PFN: u32 = 1;
    pub const STORE_EVTCHN: u32 = 2;
    pub const CONSOLE_PFN: u32 = 17;
    pub const CONSOLE_EVTCHN: u32 = 18;
}

/// UVMF_INVLPG (xen.h): flush this one address on this processor.
pub const UVMF_INVLPG: u64 = 2;

/// A page-table entry (xen-x86_64.h leaves them to the processor's manual).
pub mod pte {
    pub const PRESENT: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Private data: read and write, never run.
    pub const DATA: u64 = PRESENT | WRITE | ACCESSED | DIRTY | NO_EXECUTE;
    /// The bits that name a frame.
    pub const FRAME: u64 = 0x000f_ffff_ffff_f000;
}

/// grant_entry_v1.
#[repr(C)]
pub struct GrantEntry {
    pub flags: u16,
    pub domid: u16,
    pub frame: u32,
}

/// gnttab_map_grant_ref.
#[repr(C)]
#[derive(Debug, Default)]
pub struct MapGrantRef {
    pub host_addr: u64,
    pub flags: u32,
    pub gref: u32,
    pub dom: u16,
    pub status: i16,
    pub handle: u32,
    pub dev_bus_addr: u64,
}

/// gnttab_unmap_grant_ref.
#[repr(C)]
#[derive(Debug, Default)]
pub struct UnmapGrantRef {
    pub host_addr: u64,
    pub dev_bus_addr: u64,
    pub handle: u32,
    pub status: i16,
}

/// gnttab_setup_table.
#[repr(C)]
pub struct SetupTable {
    pub dom: u16,
    pub nr_frames: u32,
    pub status: i16,
    pub frame_list: *mut u64,
}

/// gnttab_query_size.
#[repr(C)]
#[derive(Debug, Default)]
pub struct QuerySize {
    pub dom: u16,
    pub nr_frames: u32,
    pub max_nr_frames: u32,
    pub status: i16,
}

/// xen_add_to_physmap.
#[repr(C)]
pub struct AddToPhysmap {
    pub domid: u16,
    pub size: u16,
    pub space: u32,
    pub idx: u64,
    pub gpfn: u64,
}

/// xen_hvm_param.
#[repr(C)]
pub struct HvmParam {
    pub domid: u16,
    pub index: u32,
    pub value: u64,
}

const _: () = {
    assert!(size_of::<GrantEntry>() == 8);
    assert!(size_of::<MapGrantRef>() == 32 && offset_of!(MapGrantRef, dev_bus_addr) == 24);
    assert!(size_of::<UnmapGrantRef>() == 24 && offset_of!(UnmapGrantRef, status) == 20);
    assert!(size_of::<SetupTable>() == 24 && offset_of!(SetupTable, frame_list) == 16);
    assert!(size_of::<QuerySize>() == 16 && offset_of!(QuerySize, status) == 12);
    assert!(size_of::<AddToPhysmap>() == 24 && offset_of!(AddToPhysmap, gpfn) == 16);
    assert!(size_of::<HvmParam>() == 16 && offset_of!(HvmParam, value) == 8);
    // What we take from xen-sys, held against the notes of the headers.
    assert!(offset_of!(shared_info, evtchn_pending) == 2048);
    assert!(offset_of!(shared_info, evtchn_mask) == 2560);
    assert!(offset_of!(shared_info, wc_version) == 3072);
    assert!(offset_of!(start_info, mfn_list) == 104 && offset_of!(start_info, cmd_line) == 128);
    assert!(size_of::<sched_poll>() == 24 && offset_of!(sched_poll, timeout) == 16);
    assert!(size_of::<vcpu_time_info>() == 32 && size_of::<trap_info>() == 16);
};
