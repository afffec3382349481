//! The last words: panics and exceptions, readable on the console, then a crash Xen knows of.
//!
//! In: what went wrong. Out: one line on the PV console, or on Xen's own for dom0. Never: a wait
//! without an end, or a return.

use arrayvec::ArrayString;
use core::arch::x86_64::_rdtsc;
use core::fmt::{Arguments, Write};
use core::panic::PanicInfo;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use xen::console::Console;
use xen::hypervisor::{EvtPort, Shutdown};
use xen::raw::abi::{EVTCHNOP_send, SCHEDOP_yield, evtchn_send, nr};
use xen::raw::{Xen, call};

/// Time-stamp ticks the last words wait for the console daemon at most: about a second.
const PATIENCE: u64 = 3_000_000_000;

static RING: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static PORT: AtomicU32 = AtomicU32::new(0);
static TO_XEN: AtomicBool = AtomicBool::new(false);
static DYING: AtomicBool = AtomicBool::new(false);

/// From now on words go to this PV console.
pub(super) fn use_ring(at: NonNull<u8>, port: EvtPort) {
    PORT.store(port.0, Ordering::Relaxed);
    RING.store(at.as_ptr(), Ordering::Release);
}

/// From now on words go to Xen's console: we are dom0.
pub(super) fn use_xen() {
    TO_XEN.store(true, Ordering::Relaxed);
}

/// Says `words` and a line end. Waits a bounded time for room.
pub(crate) fn say(words: Arguments<'_>) {
    if TO_XEN.load(Ordering::Relaxed) {
        let mut line = ArrayString::<512>::new();
        // A longer message is cut.
        let _cut = writeln!(line, "{words}");
        call::console_io(line.as_bytes());
    }
    let Some(at) = NonNull::new(RING.load(Ordering::Acquire)) else { return };
    let port = EvtPort(PORT.load(Ordering::Relaxed));
    wait_for(|| {
        // Made anew for each try, as a console counts what it could not write as lost.
        // SAFETY: `use_ring` was given the console's ring page.
        let said = Console::new(unsafe { Xen::ring(at) }, port).put(words);
        signal();
        said
    });
}

/// Says `words`, waits a bounded time until they are read, and ends the domain as crashed.
pub(crate) fn die(words: Arguments<'_>) -> ! {
    if !DYING.swap(true, Ordering::Relaxed) {
        say(words);
        if let Some(at) = NonNull::new(RING.load(Ordering::Acquire)) {
            // SAFETY: `use_ring` was given the console's ring page.
            let console = Console::new(unsafe { Xen::ring(at) }, EvtPort(0));
            wait_for(|| console.is_drained());
        }
    }
    xen::raw::shutdown(Shutdown::Crash)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => die(format_args!("Tidegate panicked at {at}: {}", info.message())),
        None => die(format_args!("Tidegate panicked: {}", info.message())),
    }
}

/// The daemon may want a processor: yields until `done`, or until patience ends.
fn wait_for(mut done: impl FnMut() -> bool) {
    // SAFETY: every 64-bit processor has it.
    let start = unsafe { _rdtsc() };
    // SAFETY: as above.
    while !done() && unsafe { _rdtsc() }.wrapping_sub(start) < PATIENCE {
        // SAFETY: SCHEDOP_yield has no argument.
        let _yielded = unsafe { call::call::<{ nr::SCHED_OP }>([SCHEDOP_yield.into(), 0, 0, 0]) };
    }
}

fn signal() {
    let mut arg = evtchn_send { port: PORT.load(Ordering::Relaxed) };
    // SAFETY: EVTCHNOP_send takes this structure.
    let _nobody = unsafe { call::op::<{ nr::EVENT_CHANNEL_OP }, _>(EVTCHNOP_send, &mut arg) };
}
