//! Exceptions: each is a bug of ours, told with its place, and the end.
//!
//! In: what Xen (PV) or the processor (PVH) pushed. Never: a return.

use super::voice::die;
use super::{image, voice};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicPtr, Ordering};
use xen::raw::{abi, call};

global_asm!(include_str!("traps.s"));

/// FLAT_KERNEL_CS (xen-x86_64.h).
const PV_CODE: u16 = 0xe033;
const PVH_CODE: u16 = 8;
const TASK_STATE: u16 = 24;
const PAGE_FAULT: u64 = 14;
const VECTORS: usize = 32;

unsafe extern "C" {
    static pv_traps: [u64; VECTORS];
    static pvh_traps: [u64; VECTORS];
    static mut boot_gdt: [u64; 5];
}

/// The shared info page, where Xen tells a PV guest what address it faulted at.
static INFO: AtomicPtr<abi::shared_info> = AtomicPtr::new(core::ptr::null_mut());

/// Names the handlers to Xen.
pub(super) fn install_pv() {
    let mut table = [abi::trap_info { vector: 0, flags: 0, cs: 0, address: 0 }; VECTORS + 1];
    // SAFETY: the table of traps.s.
    let addresses = unsafe { &pv_traps };
    for (vector, (entry, address)) in table.iter_mut().zip(addresses).enumerate() {
        *entry = abi::trap_info { vector: vector as u8, flags: 0, cs: PV_CODE, address: *address };
    }
    // SAFETY: the handlers of traps.s take what Xen pushes; the last entry stays 0.
    let set = unsafe {
        call::call::<{ abi::nr::SET_TRAP_TABLE }>([table.as_ptr().addr() as u64, 0, 0, 0])
    };
    if let Err(e) = set {
        voice::say(format_args!("no exception handlers: Xen says {e:?}"));
    }
}

/// In a PV guest: where to read the address of a page fault.
pub(super) fn use_info(info: *mut abi::shared_info) {
    INFO.store(info, Ordering::Release);
}

#[repr(C, packed)]
struct TaskState {
    _reserved: u32,
    stacks: [u64; 3],
    _reserved2: u64,
    /// Interrupt stacks 1 to 7: the first is for all exceptions, as the main stack may be what broke.
    ist: [u64; 7],
    _reserved3: u64,
    _reserved4: u16,
    io_map: u16,
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

static mut TASK: TaskState = TaskState {
    _reserved: 0,
    stacks: [0; 3],
    _reserved2: 0,
    ist: [0; 7],
    _reserved3: 0,
    _reserved4: 0,
    io_map: size_of::<TaskState>() as u16,
};
static mut IDT: [[u64; 2]; VECTORS] = [[0; 2]; VECTORS];
#[repr(align(16))]
struct Stack {
    _bytes: [u8; 16 << 10],
}
static mut STACK: Stack = Stack { _bytes: [0; 16 << 10] };

/// Loads a table of handlers that run on a stack of their own.
///
/// # Safety
/// Once, in ring 0.
pub(super) unsafe fn install_pvh() {
    let task = (&raw const TASK).addr() as u64;
    // SAFETY: nobody else touches these statics; the processor reads them from here on.
    unsafe {
        TASK.ist[0] = (&raw const STACK).addr() as u64 + size_of::<Stack>() as u64;
        boot_gdt[3] = (size_of::<TaskState>() as u64 - 1)
            | ((task & 0x00ff_ffff) << 16)
            | (0x89 << 40)
            | ((task >> 24 & 0xff) << 56);
        boot_gdt[4] = task >> 32;
        let gates = &raw mut IDT;
        for (gate, address) in (*gates).iter_mut().zip(&pvh_traps) {
            // Interrupt gate, stack 1.
            *gate = [
                (address & 0xffff)
                    | (u64::from(PVH_CODE) << 16)
                    | (0x8e01 << 32)
                    | ((address >> 16 & 0xffff) << 48),
                address >> 32,
            ];
        }
        let idt = Pointer {
            limit: (size_of::<[[u64; 2]; VECTORS]>() - 1) as u16,
            base: (&raw const IDT).addr() as u64,
        };
        asm!("ltr {0:x}", "lidt [{1}]", in(reg) TASK_STATE, in(reg) &raw const idt);
    }
}

/// What traps.s leaves on the stack.
#[repr(C)]
struct Frame {
    vector: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

#[unsafe(no_mangle)]
extern "C" fn trap_main(frame: &Frame) -> ! {
    const NAMES: [(u64, &str); 8] = [
        (0, "division error"),
        (2, "non-maskable interrupt"),
        (3, "breakpoint"),
        (6, "invalid opcode"),
        (8, "double fault"),
        (13, "general protection fault"),
        (PAGE_FAULT, "page fault"),
        (17, "alignment check"),
    ];
    let Frame { vector, code, rip, rsp, .. } = frame;
    let name = NAMES.iter().find(|(v, _)| v == vector).map_or("exception", |(_, name)| name);
    if *vector != PAGE_FAULT {
        die(format_args!("Tidegate: {name} ({vector}, {code:#x}) at rip {rip:#x}, rsp {rsp:#x}"));
    }
    let address = fault_address(frame);
    let why = if address < 4096 {
        ", a null pointer"
    } else if image::is_stack_guard(address) {
        ", the stack is full"
    } else {
        ""
    };
    die(format_args!(
        "Tidegate: page fault ({code:#x}) at rip {rip:#x}, address {address:#x}{why}, rsp {rsp:#x}"
    ))
}

fn fault_address(frame: &Frame) -> usize {
    if frame.cs as u16 == PVH_CODE {
        let address;
        // SAFETY: reads a register, in ring 0.
        unsafe { asm!("mov {}, cr2", out(reg) address) };
        return address;
    }
    let info = INFO.load(Ordering::Acquire);
    if info.is_null() {
        return usize::MAX;
    }
    // SAFETY: `use_info` was given the mapped shared info page.
    unsafe { (&raw const (*info).vcpu_info[0].arch.cr2).read_volatile() as usize }
}
