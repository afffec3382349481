//! Pages as the rest of Tidegate sees them: shared ones byte for byte, private ones as slices.
//!
//! In: addresses that boot and the grant table answer for. Never: a reference into a shared page, as
//! what stands there may change at any moment.

use crate::hypervisor::{FrameNo, Memory, PAGE_SIZE, Page};
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// A page that other domains may read or write at any moment.
#[derive(Debug)]
pub struct Shared<K> {
    pub(super) at: NonNull<u8>,
    pub(super) kind: K,
}

/// Ours, to be lent.
#[derive(Debug)]
pub struct Own(pub(super) FrameNo);

/// Another domain's, mapped here; `None` for those the toolstack gave us.
#[derive(Debug)]
pub struct Lent(pub(super) Option<u32>);

impl<K> Shared<K> {
    /// # Safety
    /// `at` is the start of a mapped page that no Rust reference points into, as long as this lives.
    pub(super) const unsafe fn new(at: NonNull<u8>, kind: K) -> Self {
        Self { at, kind }
    }

    /// The part of `len` bytes at `offset` that is inside the page: its address and length.
    fn part(&self, offset: usize, len: usize) -> (*mut u8, usize) {
        debug_assert!(offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE));
        let offset = offset.min(PAGE_SIZE);
        // SAFETY: at most one past the end of the page that `new` was promised.
        (unsafe { self.at.as_ptr().add(offset) }, len.min(PAGE_SIZE - offset))
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        debug_assert!(offset.is_multiple_of(4) && offset < PAGE_SIZE);
        let inside = offset.is_multiple_of(4) && offset < PAGE_SIZE;
        // SAFETY: aligned and inside the page; an atomic may be changed by others.
        inside.then(|| unsafe { AtomicU32::from_ptr(self.at.as_ptr().add(offset).cast()) })
    }
}

impl<K> Memory for Shared<K> {
    fn load(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |w| w.load(Ordering::Acquire))
    }

    fn store(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    fn fetch_and(&self, offset: usize, mask: u32) -> u32 {
        self.word(offset).map_or(0, |w| w.fetch_and(mask, Ordering::SeqCst))
    }

    fn fetch_or(&self, offset: usize, bits: u32) -> u32 {
        self.word(offset).map_or(0, |w| w.fetch_or(bits, Ordering::SeqCst))
    }

    #[inline(always)] // What a ring slot takes is a load or two, once its length is known.
    fn read(&self, offset: usize, into: &mut [u8]) {
        let (from, len) = self.part(offset, into.len());
        if len == into.len() && is_slot(offset, len) {
            for (n, word) in into.as_chunks_mut().0.iter_mut().enumerate() {
                // SAFETY: aligned, and inside the page as all `len` bytes are.
                *word = unsafe { from.cast::<u32>().add(n).read_volatile() }.to_ne_bytes();
            }
            return;
        }
        // SAFETY: `len` bytes are in the page, and at most those of the slice.
        unsafe { copy_once(into.as_mut_ptr(), from, len) };
    }

    #[inline(always)] // As above.
    fn write(&self, offset: usize, from: &[u8]) {
        let (to, len) = self.part(offset, from.len());
        if len == from.len() && is_slot(offset, len) {
            for (n, word) in from.as_chunks().0.iter().enumerate() {
                // SAFETY: aligned, and inside the page as all `len` bytes are.
                unsafe { to.cast::<u32>().add(n).write_volatile(u32::from_ne_bytes(*word)) };
            }
            return;
        }
        // SAFETY: `len` bytes are in the page, and at most those of the slice.
        unsafe { copy_once(to, from.as_ptr(), len) };
    }

    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Whether this many bytes are best moved word by word: a few that are aligned.
const fn is_slot(offset: usize, len: usize) -> bool {
    matches!(len, 8 | 12) && offset.is_multiple_of(4)
}

impl Page for Shared<Own> {
    fn frame(&self) -> FrameNo {
        self.kind.0
    }
}

/// From so many bytes on a copy is one `rep movs`. There it takes as long as the loop and beyond it less,
/// measured on an AMD EPYC; src/boot/mem.s begins at the same length, by `cargo xtask bench memory`.
const REP_FROM: usize = 2048;

/// Copies, touching each byte exactly once: in assembly, as a compiler may turn a Rust copy into one
/// that reads twice.
///
/// # Safety
/// Both sides are mapped for `len` bytes and do not overlap; the one that is not shared is exclusively
/// the caller's.
unsafe fn copy_once(mut to: *mut u8, mut from: *const u8, mut len: usize) {
    if len >= REP_FROM {
        // SAFETY: `len / 8` words are at most `len` bytes. The direction flag is clear, as always here.
        unsafe {
            asm!(
                "rep movsq",
                inout("rcx") len / 8 => _,
                inout("rdi") to,
                inout("rsi") from,
                options(nostack, preserves_flags),
            );
        }
        len %= 8;
    }
    // SAFETY: as for the whole.
    unsafe { copy_words(to, from, len) };
}

/// Four words at a time, then by the bits of what is left.
///
/// # Safety
/// As [`copy_once`].
unsafe fn copy_words(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: what is moved adds up to `len`, on both sides.
    unsafe {
        asm!(
            "sub {left}, 32",
            "jb 3f",
            "2:",
            "mov {a}, [{from}]",
            "mov {b}, [{from} + 8]",
            "mov {c}, [{from} + 16]",
            "mov {d}, [{from} + 24]",
            "mov [{to}], {a}",
            "mov [{to} + 8], {b}",
            "mov [{to} + 16], {c}",
            "mov [{to} + 24], {d}",
            "add {from}, 32",
            "add {to}, 32",
            "sub {left}, 32",
            "jae 2b",
            "3:",
            "test {left:l}, 16",
            "jz 4f",
            "mov {a}, [{from}]",
            "mov {b}, [{from} + 8]",
            "mov [{to}], {a}",
            "mov [{to} + 8], {b}",
            "add {from}, 16",
            "add {to}, 16",
            "4:",
            "test {left:l}, 8",
            "jz 5f",
            "mov {a}, [{from}]",
            "mov [{to}], {a}",
            "add {from}, 8",
            "add {to}, 8",
            "5:",
            "test {left:l}, 4",
            "jz 6f",
            "mov {a:e}, [{from}]",
            "mov [{to}], {a:e}",
            "add {from}, 4",
            "add {to}, 4",
            "6:",
            "test {left:l}, 2",
            "jz 7f",
            "mov {a:x}, [{from}]",
            "mov [{to}], {a:x}",
            "add {from}, 2",
            "add {to}, 2",
            "7:",
            "test {left:l}, 1",
            "jz 8f",
            "mov {a:l}, [{from}]",
            "mov [{to}], {a:l}",
            "8:",
            to = inout(reg) to => _,
            from = inout(reg) from => _,
            left = inout(reg_abcd) len => _,
            a = out(reg_abcd) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
}

/// Contiguous private pages. They are taken for the life of the domain: dropping this does not give
/// them back.
#[derive(Debug)]
pub struct Private {
    pub(super) at: NonNull<u8>,
    pub(super) pages: u16,
}

impl Private {
    /// The address of page `index`, if there is one.
    pub(super) fn page(&self, index: u16) -> Option<usize> {
        (index < self.pages).then(|| self.at.addr().get() + usize::from(index) * PAGE_SIZE)
    }
}

impl AsRef<[u8]> for Private {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `pages` pages, made and zeroed for this value alone; Xen writes there only during
        // a copy, which holds it by `&mut`.
        unsafe {
            core::slice::from_raw_parts(self.at.as_ptr(), usize::from(self.pages) * PAGE_SIZE)
        }
    }
}

impl AsMut<[u8]> for Private {
    fn as_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.pages) * PAGE_SIZE;
        // SAFETY: as above, and we hold it exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), len) }
    }
}
