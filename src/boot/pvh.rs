//! From the PVH entry to a machine with all its memory mapped, by rights.
//!
//! In: hvm_start_info and 4 GiB mapped one to one by entry.s. Out: RAM at its own addresses, W^X, page
//! 0 and the stack guard not there, nothing else mapped but the toolstack's rings and the window.

use super::voice::{self, die};
use super::{Ring, Start, image, ram, traps};
use arrayvec::ArrayVec;
use core::arch::asm;
use core::ops::Range;
use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};
use xen::hypervisor::{EvtPort, PAGE_SIZE};
use xen::raw::abi::{SIF_INITDOMAIN, hvm, nr, pte, xenmem};
use xen::raw::{Mode, call};

const MAGIC: u32 = 0x336e_c578;
/// E820 type of RAM.
const RAM: u32 = 1;
const LARGE_PAGE: usize = 2 << 20;
const GIB: usize = 1 << 30;
/// What one pointer table maps: all we can address.
const LIMIT: usize = 512 * GIB;
/// Addresses for pages of Xen and other domains.
const WINDOW: usize = 5 * LARGE_PAGE;
/// Where the toolstack ends low RAM at the latest (HVM_BELOW_4G_MMIO_START, xenctrl's hvm builder).
const LOW_WINDOW: usize = 0xf000_0000;

/// A page of page-table entries.
#[repr(C, align(4096))]
struct Table([u64; 512]);

/// The tables entry.s fills: the first 4 GiB.
#[repr(C)]
struct Tables {
    root: Table,
    pointers: Table,
    directories: [Table; 4],
}

#[unsafe(no_mangle)]
static mut boot_tables: Tables = Tables {
    root: Table([0; 512]),
    pointers: Table([0; 512]),
    directories: [const { Table([0; 512]) }; 4],
};

/// hvm_start_info, version 1 (arch-x86/hvm/start_info.h).
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    cmdline: u64,
    rsdp: u64,
    memmap: u64,
    memmap_entries: u32,
    _reserved: u32,
}

/// hvm_modlist_entry.
#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    cmdline: u64,
    _reserved: u64,
}

/// hvm_memmap_table_entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct Region {
    address: u64,
    size: u64,
    kind: u32,
    _reserved: u32,
}

const _: () = {
    assert!(size_of::<StartInfo>() == 56 && size_of::<Module>() == 32);
    assert!(size_of::<Region>() == 24);
};

#[unsafe(no_mangle)]
extern "C" fn pvh_main(info: &'static StartInfo) -> ! {
    // SAFETY: once, in ring 0, before anything that can fault on purpose.
    unsafe { traps::install_pvh() };
    // SAFETY: ring 0, and the image is mapped one to one.
    if !unsafe { call::enable() } {
        no_xen();
    }
    let rings = if info.flags & SIF_INITDOMAIN != 0 { None } else { rings() };
    match &rings {
        None => voice::use_xen(),
        Some((_, console)) => voice::use_ring(console.at, console.port),
    }
    if info.magic != MAGIC {
        die(format_args!("Tidegate: the start info has magic {:#x}", info.magic));
    }

    let regions = regions(info);
    let free = free_ram(info, &regions);
    let window = window(&regions, rings.is_none());
    // The heap comes from the first range. What Xen reads there it finds by walking through our page
    // tables, once for each operation of a grant copy, so that is to be where pages are large.
    let large = image::range().end.next_multiple_of(LARGE_PAGE);
    let parts = [large..4 * GIB, 0..large];
    for range in parts.iter().flat_map(|part| free.iter().filter_map(|r| common(r, part))) {
        // SAFETY: entry.s has mapped the first 4 GiB.
        unsafe { ram::add(range) };
    }
    // SAFETY: once, with the tables of entry.s in force.
    unsafe { map(&regions, rings.iter().flat_map(|(a, b)| [a.at, b.at]), &window) };
    for range in free.iter().filter_map(|r| common(r, &(4 * GIB..LIMIT))) {
        // SAFETY: mapped now.
        unsafe { ram::add(range) };
    }
    super::run(Start {
        mode: Mode::Pvh,
        window,
        ram: regions.iter().filter(|r| r.kind == RAM).map(|r| r.size as usize).sum(),
        cmdline: super::text(with_exposed_provenance(info.cmdline as usize), 4096),
        module: modules(info).next().filter(|at| !at.is_empty()).map(|at| {
            // SAFETY: the builder has put the first module there; it is RAM, so mapped by now, and
            // `free_ram` leaves it out.
            unsafe { core::slice::from_raw_parts(with_exposed_provenance(at.start), at.len()) }
        }),
        rings,
    })
}

/// Started by something else than Xen: there is no console but the first serial port, if any.
fn no_xen() -> ! {
    for byte in b"Tidegate needs Xen.\r\n" {
        // SAFETY: ring 0, and nothing else uses the port.
        unsafe { asm!("out dx, al", in("dx") 0x3f8_u16, in("al") *byte, options(nomem, nostack)) };
    }
    loop {
        // SAFETY: interrupts are off: this is the end.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// XenStore's and the console's ring.
fn rings() -> Option<(Ring, Ring)> {
    let ring = |page, port| {
        let at = call::hvm_param(page).ok()? as usize * PAGE_SIZE;
        let port = EvtPort(call::hvm_param(port).ok()? as u32);
        Some(Ring { at: NonNull::new(with_exposed_provenance_mut(at))?, port })
    };
    Some((ring(hvm::STORE_PFN, hvm::STORE_EVTCHN)?, ring(hvm::CONSOLE_PFN, hvm::CONSOLE_EVTCHN)?))
}

type Regions = ArrayVec<Region, 128>;

/// The memory map, from the start info or else from Xen.
fn regions(info: &StartInfo) -> Regions {
    if info.version > 0 && info.memmap_entries > 0 {
        let first = with_exposed_provenance::<Region>(info.memmap as usize);
        return (0..info.memmap_entries as usize)
            .take(128)
            // SAFETY: the builder put that many entries there.
            .map(|i| unsafe { *first.add(i) })
            .collect();
    }
    /// xen_memory_map and its entries of 20 bytes.
    #[repr(C)]
    struct MemoryMap {
        entries: u32,
        buffer: *mut [u32; 5],
    }
    let mut buffer = [[0_u32; 5]; 128];
    let mut map = MemoryMap { entries: 128, buffer: buffer.as_mut_ptr() };
    // SAFETY: the structure of this command, with room for as many entries as it says.
    if let Err(e) = unsafe { call::op::<{ nr::MEMORY_OP }, _>(xenmem::MEMORY_MAP, &mut map) } {
        die(format_args!("Tidegate: no memory map: Xen says {e:?}"));
    }
    let long = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    buffer
        .iter()
        .take(map.entries as usize)
        .map(|[a, b, c, d, kind]| Region {
            address: long(*a, *b),
            size: long(*c, *d),
            kind: *kind,
            _reserved: 0,
        })
        .collect()
}

type Ranges = ArrayVec<Range<usize>, 32>;

/// Whole pages of RAM that hold nothing yet.
fn free_ram(info: &StartInfo, regions: &Regions) -> Ranges {
    let mut free: Ranges = regions
        .iter()
        .filter(|r| r.kind == RAM)
        .map(|r| r.address as usize..(r.address + r.size) as usize)
        .map(|r| {
            r.start.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE)..r.end.min(LIMIT) & !(PAGE_SIZE - 1)
        })
        .filter(|r| !r.is_empty())
        .take(16)
        .collect();
    let size = |n: usize, each: usize| n * each;
    let list = info.module_list as usize;
    let used = [
        image::range(),
        (&raw const *info).addr()..(&raw const *info).addr() + size_of::<StartInfo>(),
        info.cmdline as usize..info.cmdline as usize + PAGE_SIZE,
        info.memmap as usize
            ..info.memmap as usize + size(info.memmap_entries as usize, size_of::<Region>()),
        list..list + size(info.modules as usize, size_of::<Module>()),
    ];
    for hole in used.into_iter().chain(modules(info)) {
        cut(&mut free, &hole);
    }
    free
}

/// What two ranges have in common, if that is anything.
fn common(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// Where the builder has put boot modules.
fn modules(info: &StartInfo) -> impl Iterator<Item = Range<usize>> {
    let first = with_exposed_provenance::<Module>(info.module_list as usize);
    (0..info.modules as usize).map(move |i| {
        // SAFETY: the builder put that many entries there.
        let module = unsafe { &*first.add(i) };
        module.address as usize..(module.address + module.size) as usize
    })
}

/// Takes the pages of `hole` out of `ranges`.
fn cut(ranges: &mut Ranges, hole: &Range<usize>) {
    let hole = hole.start & !(PAGE_SIZE - 1)..hole.end.next_multiple_of(PAGE_SIZE);
    let parts: Ranges = ranges
        .iter()
        .flat_map(|r| [r.start..r.end.min(hole.start), r.start.max(hole.end)..r.end])
        .filter(|r| r.start < r.end)
        .take(32)
        .collect();
    *ranges = parts;
}

/// Addresses where the memory map has nothing. In a guest that is near its special pages, as Xen's own
/// tables for far addresses come out of a pool that is tight in a small guest. dom0 has devices there
/// that the map does not tell of, so it goes above all RAM.
fn window(regions: &Regions, dom0: bool) -> Range<usize> {
    let end = |r: &Region| (r.address + r.size) as usize;
    let ram = regions.iter().filter(|r| r.kind == RAM).map(end).fold(4 * GIB, usize::max);
    let mut start = if dom0 { ram.next_multiple_of(GIB) } else { LOW_WINDOW };
    while let Some(r) =
        regions.iter().find(|r| end(r) > start && (r.address as usize) < start + WINDOW)
    {
        start = ram.max(end(r)).next_multiple_of(GIB);
    }
    if start + WINDOW > LIMIT {
        die(format_args!("Tidegate: no addresses are left above {start:#x}"));
    }
    start..start + WINDOW
}

/// Replaces the mapping of entry.s.
///
/// # Safety
/// Called once; the first 4 GiB are mapped one to one, and free pages were added to `ram`.
unsafe fn map(
    regions: &Regions,
    rings: impl Iterator<Item = NonNull<u8>> + Clone,
    window: &Range<usize>,
) {
    let end = |r: &Region| (r.address + r.size) as usize;
    let wanted = |start: usize, len: usize| {
        let holds = |from: usize, to: usize| from < start + len && start < to;
        regions.iter().any(|r| r.kind == RAM && holds(r.address as usize, end(r)))
            || rings.clone().any(|at| holds(at.addr().get(), at.addr().get() + 1))
            || holds(window.start, window.end)
    };
    let image = image::range();
    let tables = &raw mut boot_tables;
    // SAFETY: the caller calls once, and nobody else touches them.
    let Tables { pointers, directories, .. } = unsafe { &mut *tables };
    let mut directories = directories.iter_mut();
    for (gib, pointer) in (0..).step_by(GIB).zip(&mut pointers.0) {
        let directory = match directories.next() {
            Some(directory) => directory,
            None if !wanted(gib, GIB) => continue,
            None => {
                let new = new_table();
                *pointer = (&raw const *new).addr() as u64 | pte::PRESENT | pte::WRITE;
                new
            }
        };
        for (start, entry) in (gib..).step_by(LARGE_PAGE).zip(&mut directory.0) {
            *entry = if start < image.end {
                let leaf = new_table();
                for (va, entry) in (start..).step_by(PAGE_SIZE).zip(&mut leaf.0) {
                    let rights = image::rights(va).unwrap_or(pte::DATA);
                    *entry = if rights == 0 { 0 } else { va as u64 | rights };
                }
                (&raw const *leaf).addr() as u64 | pte::PRESENT | pte::WRITE
            } else if wanted(start, LARGE_PAGE) {
                start as u64 | pte::DATA | pte::LARGE
            } else {
                0
            };
        }
    }
    // SAFETY: what runs and what it uses is mapped where it was before.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}

fn new_table() -> &'static mut Table {
    let Some(range) = ram::take_low(PAGE_SIZE) else {
        die(format_args!("Tidegate: no page is left for page tables"));
    };
    let table = with_exposed_provenance_mut::<Table>(range.start);
    // SAFETY: a free page below 4 GiB, ours alone.
    unsafe {
        table.write_bytes(0, 1);
        &mut *table
    }
}
