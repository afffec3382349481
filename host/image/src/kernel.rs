//! The ELF of a kernel: its place for a policy, and a segment behind all others to fill it.
//!
//! In: ELF files, which may be anything. Out: where a policy goes (the note `Tidegate`), the kernel
//! with one more PT_LOAD, and the kernel as it was before. Never: another segment or section touched.

use object::elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_R, PT_LOAD, ProgramFlags, ProgramHeader64};
use object::pod::{bytes_of, from_bytes, from_bytes_mut};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian as LE, U32, U64};
use std::fmt;
use std::ops::Range;

/// Owner and type of the note that tells of the policy: two numbers of 8 bytes, where it is loaded and
/// how long it is (src/boot/entry.s).
const OWNER: &[u8] = b"Tidegate";
const NOTE: u32 = 0x7469;

const PAGE: u64 = 4096;
/// Program headers stand right behind the file's header.
const HEADERS_AT: usize = size_of::<FileHeader64<LE>>();
const SEGMENT: usize = size_of::<ProgramHeader64<LE>>();

/// A kernel without a policy.
#[derive(Clone, PartialEq, Eq)]
pub struct Kernel {
    bytes: Vec<u8>,
    place: Place,
    segments: u16,
}

/// Where a kernel keeps a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The address it is loaded at.
    address: u64,
    /// Bytes of it; 0 if there is none.
    pub(crate) len: usize,
    /// Where in the file that length stands.
    len_at: Range<usize>,
}

/// Why bytes are no kernel that takes a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAKernel {
    /// Not an ELF file for this processor, or cut off.
    Elf,
    /// Without the note that says where a policy goes.
    NoPlace,
    /// Laid out otherwise than Tidegate's kernels are.
    Layout,
}

impl Kernel {
    /// Reads a kernel that holds no policy.
    ///
    /// # Errors
    /// [`NotAKernel`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAKernel> {
        let header = header(bytes)?;
        let place = place(bytes)?;
        let end = segments(header, bytes)?
            .iter()
            .filter(|segment| segment.p_type(LE) == PT_LOAD)
            .map(|segment| segment.p_paddr(LE).saturating_add(segment.p_memsz(LE)))
            .max();
        let fits = header.e_phoff.get(LE) == HEADERS_AT as u64
            && place.len == 0
            && place.address.is_multiple_of(PAGE)
            && end.is_some_and(|end| end <= place.address);
        if !fits {
            return Err(NotAKernel::Layout);
        }
        Ok(Self { bytes: bytes.to_owned(), place, segments: header.e_phnum.get(LE) })
    }

    /// The kernel at the beginning of an image with a policy.
    pub(crate) fn restore(image: &[u8]) -> Result<Self, NotAKernel> {
        let mut bytes = image.to_owned();
        let header = header_mut(&mut bytes)?;
        header.e_phoff.set(LE, HEADERS_AT as u64);
        header.e_phnum.set(LE, header.e_phnum.get(LE).saturating_sub(1));
        let len_at = place(&bytes)?.len_at;
        bytes.get_mut(len_at).ok_or(NotAKernel::NoPlace)?.fill(0);
        Self::parse(&bytes)
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file with `blob` behind it, as a segment that is loaded behind all others.
    pub(crate) fn with_segment(&self, blob: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(len) = bytes.get_mut(self.place.len_at.clone()) {
            len.copy_from_slice(&(blob.len() as u64).to_le_bytes());
        }
        let behind = self.bytes.get(HEADERS_AT..).unwrap_or_default();
        let old = behind.get(..SEGMENT.saturating_mul(self.segments.into())).unwrap_or_default();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let headers_at = bytes.len() as u64;
        if let Ok(header) = header_mut(&mut bytes) {
            header.e_phoff.set(LE, headers_at);
            header.e_phnum.set(LE, self.segments.saturating_add(1));
        }
        let end = bytes.len().saturating_add(old.len()).saturating_add(SEGMENT);
        let blob_at = end.next_multiple_of(PAGE as usize);
        let segment = ProgramHeader64::<LE> {
            p_type: U32::new(LE, PT_LOAD),
            p_flags: U32::new(LE, ProgramFlags(PF_R.0)),
            p_offset: U64::new(LE, blob_at as u64),
            p_vaddr: U64::new(LE, self.place.address),
            p_paddr: U64::new(LE, self.place.address),
            p_filesz: U64::new(LE, blob.len() as u64),
            p_memsz: U64::new(LE, blob.len() as u64),
            p_align: U64::new(LE, PAGE),
        };
        bytes.extend_from_slice(old);
        bytes.extend_from_slice(bytes_of(&segment));
        bytes.resize(blob_at, 0);
        bytes.extend_from_slice(blob);
        bytes
    }
}

/// Where the kernel in `bytes` keeps a policy.
pub(crate) fn place(bytes: &[u8]) -> Result<Place, NotAKernel> {
    let header = header(bytes)?;
    for segment in segments(header, bytes)? {
        let Ok(Some(mut notes)) = segment.notes(LE, bytes) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == OWNER && note.n_type(LE).0 == NOTE {
                return place_in(bytes, note.desc()).ok_or(NotAKernel::NoPlace);
            }
        }
    }
    Err(NotAKernel::NoPlace)
}

/// Reads the note `desc`, a part of `bytes`.
fn place_in(bytes: &[u8], desc: &[u8]) -> Option<Place> {
    let (address, len) = desc.split_at_checked(8)?;
    let desc_at = (desc.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    let len_at = desc_at.checked_add(8)?..desc_at.checked_add(16)?;
    let address = u64::from_le_bytes(address.try_into().ok()?);
    Some(Place { address, len: crate::number(len)?, len_at })
}

fn header(bytes: &[u8]) -> Result<&FileHeader64<LE>, NotAKernel> {
    let (header, _) = from_bytes::<FileHeader64<LE>>(bytes).map_err(|()| NotAKernel::Elf)?;
    let ours = header.is_supported()
        && header.is_class_64()
        && header.is_little_endian()
        && header.e_type(LE) == ET_EXEC
        && header.e_machine(LE) == EM_X86_64;
    if ours { Ok(header) } else { Err(NotAKernel::Elf) }
}

fn header_mut(bytes: &mut [u8]) -> Result<&mut FileHeader64<LE>, NotAKernel> {
    header(bytes)?;
    from_bytes_mut(bytes).map(|(header, _)| header).map_err(|()| NotAKernel::Elf)
}

fn segments<'a>(
    header: &FileHeader64<LE>,
    bytes: &'a [u8],
) -> Result<&'a [ProgramHeader64<LE>], NotAKernel> {
    header.program_headers(LE, bytes).map_err(|_| NotAKernel::Elf)
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for NotAKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "not a kernel: no 64-bit x86 ELF file, or cut off",
            Self::NoPlace => "not a Tidegate kernel, or one too old to take a policy",
            Self::Layout => "not laid out as a Tidegate kernel is",
        })
    }
}

impl std::error::Error for NotAKernel {}
