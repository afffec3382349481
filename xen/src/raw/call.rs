//! Hypercalls: the way into Xen, and nothing else.
//!
//! In: numbers and addresses of structures. Out: what Xen answered. Both modes call into the same
//! page: in a PV guest the domain builder filled it, in a PVH guest [`enable`] has Xen fill it.

use super::abi::{self, UVMF_INVLPG, nr};
use crate::hypervisor::{DomId, Errno};
use core::arch::{asm, global_asm, x86_64::__cpuid};

// One 32-byte entry for each hypercall. Named by the HYPERCALL_PAGE note of the ELF.
global_asm!(
    ".pushsection .text.hypercall_page, \"ax\", @progbits",
    ".global hypercall_page",
    ".balign 4096",
    "hypercall_page:",
    ".fill 4096, 1, 0xcc",
    ".popsection",
);

unsafe extern "C" {
    static hypercall_page: [u8; 4096];
}

/// Hypercall `NR`; 0 for arguments it does not have.
///
/// # Safety
/// The hypercall page is filled, and what the arguments point at is what hypercall `NR` reads and
/// writes there.
///
/// # Errors
/// The errno of the hypercall.
pub unsafe fn call<const NR: u32>(args: [u64; 4]) -> Result<u64, Errno> {
    let [a, b, c, d] = args;
    let answer: i64;
    // SAFETY: the caller answers for the arguments. The page's code keeps all registers but those
    // below; the stack is used (so no `nostack`), and memory may change.
    unsafe {
        asm!(
            "call hypercall_page + {entry}",
            entry = const NR * 32,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            inlateout("r10") d => _,
            out("r8") _,
            out("rcx") _,
            out("r11") _,
            lateout("rax") answer,
        );
    }
    u64::try_from(answer).map_err(|_| Errno(answer.unsigned_abs() as u32))
}

/// Where Xen's CPUID leaves start, if this is a Xen guest (arch-x86/cpuid.h).
#[must_use]
pub fn cpuid_base() -> Option<u32> {
    (0x4000_0000..=0x4001_0000).step_by(0x100).find(|base| {
        let leaf = __cpuid(*base);
        (leaf.ebx, leaf.ecx, leaf.edx) == (0x566e_6558, 0x6558_4d4d, 0x4d4d_566e)
    })
}

/// Has Xen fill the hypercall page of a PVH guest. False if there is no Xen.
///
/// # Safety
/// Ring 0 of an HVM guest, with this image mapped at its physical addresses.
pub unsafe fn enable() -> bool {
    let Some(base) = cpuid_base() else { return false };
    let msr = __cpuid(base + 2).ebx;
    let page = (&raw const hypercall_page).addr();
    // SAFETY: the register named by Xen takes the address of a page of ours that holds no data.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") page as u32, in("edx") (page >> 32) as u32);
    }
    true
}

/// Hypercall `NR` in the form most have: a command and its argument structure.
///
/// # Safety
/// `T` is what `cmd` takes, and what it names is ours to be read, written or changed.
///
/// # Errors
/// The errno of the hypercall.
pub unsafe fn op<const NR: u32, T>(cmd: u32, arg: &mut T) -> Result<u64, Errno> {
    // SAFETY: the caller's promise.
    unsafe { call::<NR>([cmd.into(), at(arg), 0, 0]) }
}

/// grant_table_op on all of `ops`.
///
/// # Safety
/// `T` is what `cmd` takes, and what it names is ours to be read, written or changed.
///
/// # Errors
/// The errno of the hypercall.
pub unsafe fn grant_table_op<T>(cmd: u32, ops: &mut [T]) -> Result<u64, Errno> {
    let [ptr, len] = [ops.as_mut_ptr().addr() as u64, ops.len() as u64];
    // SAFETY: the caller's promise.
    unsafe { call::<{ nr::GRANT_TABLE_OP }>([cmd.into(), ptr, len, 0]) }
}

/// HVMOP_get_param of our own domain. PVH only.
///
/// # Errors
/// The errno of the hypercall.
pub fn hvm_param(index: u32) -> Result<u64, Errno> {
    let mut param = abi::HvmParam { domid: DomId::SELF.0, index, value: 0 };
    // SAFETY: HVMOP_get_param takes a xen_hvm_param and writes its value.
    unsafe { op::<{ nr::HVM_OP }, _>(abi::hvm::GET_PARAM, &mut param)? };
    Ok(param.value)
}

/// Writes to Xen's own console. Works for dom0; a release Xen drops it for others.
pub fn console_io(text: &[u8]) {
    // SAFETY: CONSOLEIO_write (0) reads `text.len()` bytes at the address.
    let _dropped_is_fine = unsafe {
        call::<{ nr::CONSOLE_IO }>([0, text.len() as u64, text.as_ptr().addr() as u64, 0])
    };
}

/// Sets the one page-table entry of `va`. PV only.
///
/// # Safety
/// Nothing that is in use loses its page or its rights to it.
///
/// # Errors
/// The errno of the hypercall.
pub unsafe fn update_va_mapping(va: usize, entry: u64) -> Result<u64, Errno> {
    // SAFETY: the caller's promise.
    unsafe { call::<{ nr::UPDATE_VA_MAPPING }>([va as u64, entry, UVMF_INVLPG, 0]) }
}

fn at<T>(arg: &mut T) -> u64 {
    (&raw mut *arg).addr() as u64
}
