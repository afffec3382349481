//! From the loader's jump to `start` of the binary: the same image as a PV and as a PVH guest.
//!
//! In: what Xen says about memory, rings and command line. Out: [`Booted`], with the hypervisor, the
//! heap and the seed ready. Never: policy.

mod entropy;
mod image;
mod memory;
mod pv;
mod pvh;
mod ram;
mod traps;
mod voice;

use alloc::string::String;
use core::arch::global_asm;
use core::ops::Range;
use core::ptr::NonNull;
use tidegate::appliance::Blobs;
use xen::hypervisor::EvtPort;
use xen::raw::{Lent, Machine, Mode, Shared, Xen};

use entropy::EntropySource;
pub(crate) use ram::left;
pub(crate) use voice::{die, say};

global_asm!(include_str!("entry.s"));

/// Named by the prebuilt core library, and never called: a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    die(format_args!("Tidegate: a panic tried to unwind"))
}

/// A running guest.
pub(crate) struct Booted {
    /// The hypervisor.
    pub(crate) xen: Xen,
    /// "PV" or "PVH".
    pub(crate) mode: &'static str,
    /// All memory of the domain, in bytes.
    pub(crate) ram: usize,
    /// The seed of all secrets.
    pub(crate) seed: [u8; 32],
    /// Where it came from.
    pub(crate) entropy: EntropySource,
    /// The command line.
    pub(crate) cmdline: String,
    /// What was put behind the image, and the boot module: policies, if all is well.
    pub(crate) blobs: Blobs<'static>,
    /// XenStore's and the console's ring; none for dom0.
    pub(crate) rings: Option<[(Shared<Lent>, EvtPort); 2]>,
}

impl Booted {
    /// Says what was booted and on what; loudly, if secrets can be guessed.
    pub(crate) fn announce(&self, name: &str) {
        let Self { mode, ram, entropy, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        let mib = ram >> 20;
        say(format_args!("{name} {version} booting: {mode}, {mib} MiB, entropy: {entropy}"));
        if *entropy == EntropySource::Jitter {
            say(format_args!(
                "WARNING: this processor has neither RDSEED nor RDRAND. Secrets come from clock \
                 jitter alone: ports and keys may be guessed."
            ));
        }
    }
}

/// What PV and PVH boot have found.
struct Start {
    mode: Mode,
    window: Range<usize>,
    ram: usize,
    cmdline: String,
    module: Option<&'static [u8]>,
    rings: Option<(Ring, Ring)>,
}

/// A ring page of the toolstack.
#[derive(Clone, Copy)]
struct Ring {
    at: NonNull<u8>,
    port: EvtPort,
}

impl Ring {
    fn shared(self) -> (Shared<Lent>, EvtPort) {
        // SAFETY: a mapped ring page. `voice` looks at the console's too, when all else has ended.
        (unsafe { Xen::ring(self.at) }, self.port)
    }
}

fn run(start: Start) -> ! {
    let mode = match start.mode {
        Mode::Pv { .. } => "PV",
        Mode::Pvh => "PVH",
    };
    memory::use_rep_where_fast();
    traps::use_info(core::ptr::with_exposed_provenance_mut(start.window.start));
    let machine = Machine { mode: start.mode, window: start.window, take: ram::take_pages };
    // SAFETY: once; boot has made the tables of the window, and `ram` gives each page once.
    let xen = match unsafe { Xen::new(machine) } {
        Ok(xen) => xen,
        Err(e) => die(format_args!("Tidegate: Xen refuses shared info or grant table: {e:?}")),
    };
    let mut seed = [0; 32];
    let entropy = entropy::entropy(&mut seed);
    let rings = start.rings.map(|(store, console)| [store, console].map(Ring::shared));
    let Start { ram, cmdline, module, .. } = start;
    let blobs = Blobs { built_in: image::policy(), module };
    let booted = Booted { xen, mode, ram, seed, entropy, cmdline, blobs, rings };
    crate::start(booted)
}

/// The text at `at`, up to its NUL or `max` bytes; empty if there is none.
fn text(at: *const u8, max: usize) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: the builder put a text with a NUL there.
    let bytes = (0..max).map(|i| unsafe { at.add(i).read() }).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<alloc::vec::Vec<u8>>()).into_owned()
}
