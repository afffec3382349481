//! From Xen's PV entry to a machine with all its memory mapped, by rights.
//!
//! In: start_info and the builder's page tables, which reach a little beyond the image. Out: every
//! page at the address of its number, W^X, page 0 and the stack guard not there. Never: a page table
//! that is writable, or a not-present entry other than 0 (Xen kills for both).

use super::voice::{self, die};
use super::{Ring, Start, image, ram, traps};
use core::ops::Range;
use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};
use xen::hypervisor::{DomId, EvtPort, PAGE_SIZE};
use xen::raw::abi::{SIF_INITDOMAIN, mmu_update, nr, pte, start_info};
use xen::raw::{Mode, call};

/// MACH2PHYS_VIRT_START: where every PV guest can look up its page by machine frame.
const MACH2PHYS: usize = 0xffff_8000_0000_0000;
/// mod_start is a page number (xen.h); not what our notes ask for.
const SIF_MOD_START_PFN: u32 = 1 << 3;
/// What one level-1 table maps.
const CHUNK: usize = 512 * PAGE_SIZE;
/// Level-1 tables for pages of Xen and other domains.
const WINDOW: usize = 5 * CHUNK;
/// Entries that lead to other tables.
const TABLE: u64 = pte::PRESENT | pte::WRITE | pte::USER | pte::ACCESSED;

#[unsafe(no_mangle)]
extern "C" fn pv_main(info: &'static start_info) -> ! {
    let dom0 = info.flags & SIF_INITDOMAIN != 0;
    let rings = if dom0 { None } else { rings(info) };
    match &rings {
        None => voice::use_xen(),
        Some((_, console)) => voice::use_ring(console.at, console.port),
    }
    traps::install_pv();

    // SAFETY: Xen made this list of `nr_pages` entries and does not change it.
    let p2m: &[u64] = unsafe {
        core::slice::from_raw_parts(
            with_exposed_provenance(info.mfn_list as usize),
            info.nr_pages as usize,
        )
    };
    // Memory ends at the first hole, should there be one.
    let pages = p2m.iter().position(|mfn| mfn >> 40 != 0).unwrap_or(p2m.len());
    let mut tables = Tables { root: info.pt_base as usize, p2m, next: first_free(info, &rings) };
    tables.map(pages);
    let start = (pages * PAGE_SIZE).next_multiple_of(CHUNK);
    let window = start..start + WINDOW;
    tables.reserve(window.clone());
    // SAFETY: mapped now. The first megabyte but for page 0 is padding of the builder.
    unsafe {
        ram::add(PAGE_SIZE..image::range().start);
        ram::add(tables.next..pages * PAGE_SIZE);
    }
    super::run(Start {
        mode: Mode::Pv { p2m, shared_info: info.shared_info },
        window,
        ram: info.nr_pages as usize * PAGE_SIZE,
        cmdline: super::text(with_exposed_provenance((&raw const info.cmd_line).addr()), 1024),
        module: module(info),
        rings,
    })
}

/// XenStore's and the console's ring.
fn rings(info: &start_info) -> Option<(Ring, Ring)> {
    // SAFETY: not dom0, so this is the member of the union that was set.
    let console = unsafe { info.console.domU };
    let ring = |mfn, port| Some(Ring { at: page_of(mfn)?, port: EvtPort(port) });
    Some((ring(info.store_mfn, info.store_evtchn)?, ring(console.mfn, console.evtchn)?))
}

/// Where the builder has put the boot module, empty if there is none.
fn module_range(info: &start_info) -> Range<usize> {
    let start = info.mod_start as usize;
    let start = if info.flags & SIF_MOD_START_PFN == 0 { start } else { start * PAGE_SIZE };
    start..start + info.mod_len as usize
}

fn module(info: &start_info) -> Option<&'static [u8]> {
    let Range { start, end } = module_range(info);
    // SAFETY: the builder has put the module there; it is mapped by now, and nobody else's, as free
    // memory begins behind it.
    (start < end).then(|| unsafe {
        core::slice::from_raw_parts(with_exposed_provenance(start), end - start)
    })
}

fn page_of(mfn: u64) -> Option<NonNull<u8>> {
    NonNull::new(with_exposed_provenance_mut(number_of(mfn) * PAGE_SIZE))
}

fn number_of(mfn: u64) -> usize {
    let list = with_exposed_provenance::<u64>(MACH2PHYS);
    // SAFETY: Xen maps the whole list for reading; the frame is ours.
    unsafe { list.add(mfn as usize).read_volatile() as usize }
}

/// The first address behind all that the builder has put behind the image.
fn first_free(info: &start_info, rings: &Option<(Ring, Ring)>) -> usize {
    let here = (&raw const *info).addr();
    let ends = [
        image::range().end,
        here + size_of::<start_info>(),
        info.mfn_list as usize + info.nr_pages as usize * 8,
        module_range(info).end,
        info.pt_base as usize + info.nr_pt_frames as usize * PAGE_SIZE,
    ];
    let rings = rings.iter().flat_map(|(a, b)| [a, b]).map(|r| r.at.addr().get() + PAGE_SIZE);
    ends.into_iter().chain(rings).fold(0, usize::max).next_multiple_of(PAGE_SIZE)
}

/// The page tables, as Xen lets a PV guest see and change them: they are readable at the address of
/// their page number, and every change is a hypercall.
struct Tables<'a> {
    /// Address of the level-4 table.
    root: usize,
    p2m: &'a [u64],
    /// The next free page, mapped if `map` has come so far.
    next: usize,
}

impl Tables<'_> {
    /// Maps `pages` pages at the addresses of their numbers, with the rights of the image's parts.
    fn map(&mut self, pages: usize) {
        for start in (0..pages * PAGE_SIZE).step_by(CHUNK) {
            let frames = (start / PAGE_SIZE..pages).take(512);
            let (table, index) = self.directory(start);
            match self.below(table, index) {
                Some(leaf) => frames.for_each(|page| self.adjust(page, read(leaf, page % 512))),
                None => {
                    let leaf = self.new_table(|i| {
                        self.p2m.get(start / PAGE_SIZE + i).map_or(0, |mfn| {
                            if start / PAGE_SIZE + i < pages { mfn << 12 | pte::DATA } else { 0 }
                        })
                    });
                    self.hook(table, index, leaf, TABLE);
                }
            }
        }
    }

    /// Makes empty tables for `window`, whose pages will never run.
    fn reserve(&mut self, window: Range<usize>) {
        for start in window.step_by(CHUNK) {
            let (table, index) = self.directory(start);
            if self.below(table, index).is_none() {
                let leaf = self.new_table(|_| 0);
                self.hook(table, index, leaf, TABLE | pte::NO_EXECUTE);
            }
        }
    }

    /// Gives a page the builder may have mapped the rights it should have.
    fn adjust(&self, page: usize, old: u64) {
        let va = page * PAGE_SIZE;
        let frame = self.p2m.get(page).map_or(0, |mfn| mfn << 12);
        let new = match image::rights(va) {
            Some(0) => 0,
            Some(rights) => frame | rights,
            None if old & pte::PRESENT == 0 => frame | pte::DATA,
            // Page tables stay read-only.
            None => old | pte::NO_EXECUTE,
        };
        if new != old {
            set(va, new);
        }
    }

    /// The level-2 table for `va` and the index in it; made if there is none.
    fn directory(&mut self, va: usize) -> (usize, usize) {
        let index = |level: usize| va >> (12 + 9 * (level - 1)) & 511;
        let mut table = self.root;
        for level in [4, 3] {
            table = self.below(table, index(level)).unwrap_or_else(|| {
                let new = self.new_table(|_| 0);
                self.hook(table, index(level), new, TABLE);
                new
            });
        }
        (table, index(2))
    }

    /// The table that entry `index` of `table` leads to.
    fn below(&self, table: usize, index: usize) -> Option<usize> {
        let entry = read(table, index);
        (entry & pte::PRESENT != 0).then(|| number_of((entry & pte::FRAME) >> 12) * PAGE_SIZE)
    }

    /// A page of entries, made read-only so that Xen takes it for a page table.
    fn new_table(&mut self, entry: impl Fn(usize) -> u64) -> usize {
        let va = self.next;
        self.next += PAGE_SIZE;
        let (table, index) = self.directory(va);
        let mapped = self
            .below(table, index)
            .is_some_and(|leaf| read(leaf, va / PAGE_SIZE % 512) & pte::WRITE != 0);
        if !mapped {
            die(format_args!("Tidegate: no mapped page is left for page tables at {va:#x}"));
        }
        let page = with_exposed_provenance_mut::<u64>(va);
        for i in 0..512 {
            // SAFETY: a free page, mapped for writing.
            unsafe { page.add(i).write_volatile(entry(i)) };
        }
        set(va, self.machine(va) | pte::PRESENT | pte::ACCESSED | pte::NO_EXECUTE);
        va
    }

    /// Lets entry `index` of `table` lead to the table `new`.
    fn hook(&self, table: usize, index: usize, new: usize, rights: u64) {
        let ptr = self.machine(table) + index as u64 * 8;
        let mut update = mmu_update { ptr, val: self.machine(new) | rights };
        let at = (&raw mut update).addr() as u64;
        let args = [at, 1, 0, DomId::SELF.0.into()];
        // SAFETY: one update (ptr is MMU_NORMAL_PT_UPDATE, 0) of an entry that was not present.
        if let Err(e) = unsafe { call::call::<{ nr::MMU_UPDATE }>(args) } {
            die(format_args!("Tidegate: Xen refuses the page table at {new:#x}: {e:?}"));
        }
    }

    /// The machine address of the page at `va`.
    fn machine(&self, va: usize) -> u64 {
        self.p2m.get(va / PAGE_SIZE).map_or(0, |mfn| mfn << 12)
    }
}

fn read(table: usize, index: usize) -> u64 {
    let table = with_exposed_provenance::<u64>(table);
    // SAFETY: page tables are mapped for reading; indices are below 512.
    unsafe { table.add(index).read_volatile() }
}

fn set(va: usize, entry: u64) {
    // SAFETY: only pages of the image get fewer rights, those it is linked for, and free pages that
    // become page tables.
    if let Err(e) = unsafe { call::update_va_mapping(va, entry) } {
        die(format_args!("Tidegate: Xen refuses {entry:#x} for the page at {va:#x}: {e:?}"));
    }
}
