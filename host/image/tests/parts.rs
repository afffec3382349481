//! What is put into a kernel comes out of it again, and nothing in between can be changed unseen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod elf;

use elf::{PLACE, kernel};
use image::{Embedded, Image, Kernel, NotAKernel, NotAnImage};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use rules::{BlobError, Digest};

/// A policy of so many rules and one more, with its text.
fn policy(rules: usize) -> (Vec<u8>, String) {
    let rules: String = (1..=rules).map(|port| format!("drop tcp {port}\n")).collect();
    let text = format!("zone a = netback\nzone b = netfront 0\npolicy a -> b {{\n{rules}drop }}\n");
    (lang::compile("x.tide", &text).unwrap().blob, text)
}

fn image(rules: usize) -> Image {
    let (blob, text) = policy(rules);
    Image::with_policy(Kernel::parse(&kernel()).unwrap(), &blob, &text).unwrap()
}

#[test]
fn parts_make_an_image_and_the_image_gives_the_parts_back() {
    for rules in [1, 2, 100, 10_000] {
        let (blob, text) = policy(rules);
        let image = image(rules);
        let bytes = image.bytes();
        let back = Image::parse(&bytes).unwrap();
        assert_eq!(back, image);
        assert_eq!(back.policy, Some(Embedded { blob, text }));
        assert_eq!(back.kernel.bytes(), kernel());
        assert_eq!(back.kernel.digest(), Digest::of(&kernel()));
        assert_eq!(image.bytes(), bytes, "the same bytes each time");
    }
}

/// What a loader reads: the segments as they were, and behind them the blob at its place.
#[test]
fn a_loader_finds_the_old_segments_and_the_blob_behind_them() {
    let (blob, _) = policy(3);
    let (before, after) = (kernel(), image(3).bytes());
    let segments = |bytes: &[u8]| {
        let header = FileHeader64::<LittleEndian>::parse(bytes).unwrap();
        let all = header.program_headers(LittleEndian, bytes).unwrap();
        let loaded = all.iter().map(|s| {
            let data = s.data(LittleEndian, bytes).unwrap().to_vec();
            (s.p_type(LittleEndian), s.p_paddr(LittleEndian), s.p_vaddr(LittleEndian), data)
        });
        (header.e_entry.get(LittleEndian), loaded.collect::<Vec<_>>())
    };
    let ((entry, mut old), (new_entry, mut new)) = (segments(&before), segments(&after));
    assert_eq!(new.pop(), Some((PT_LOAD, PLACE, PLACE, blob.clone())));
    // The kernel's own segment holds the note that tells how long the blob is, and its file header.
    let note = before.windows(8).position(|w| w == PLACE.to_le_bytes()).unwrap() + 8;
    assert_eq!(new[0].3[note..note + 8], (blob.len() as u64).to_le_bytes());
    old[0].3[note..note + 8].copy_from_slice(&(blob.len() as u64).to_le_bytes());
    let header_end = 64;
    assert_eq!(new[0].3[header_end..], old[0].3[header_end..]);
    assert_eq!((new_entry, new.len()), (entry, old.len()));
}

#[test]
fn a_policy_takes_the_place_of_another() {
    let (blob, text) = policy(7);
    let again = Image::parse(&image(3).bytes()).unwrap();
    let again = Image::with_policy(again.kernel, &blob, &text).unwrap();
    assert_eq!(again.bytes(), image(7).bytes());
}

#[test]
fn no_byte_can_be_changed_and_no_part_cut_off_without_being_seen() {
    let image = image(2);
    let bytes = image.bytes();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(Image::parse(&changed), Ok(image.clone()), "byte {at}");
        assert_ne!(Image::parse(&bytes[..at]), Ok(image.clone()), "cut at {at}");
    }
    let longer = [bytes, vec![0]].concat();
    assert_eq!(Image::parse(&longer), Err(NotAnImage::Changed));
}

#[test]
fn what_is_no_kernel_or_no_policy_is_refused() {
    let kernel = kernel();
    let (blob, text) = policy(1);
    let refused = |bytes: &[u8]| Image::parse(bytes).unwrap_err();
    assert_eq!(refused(b"TIDEGATE"), NotAnImage::Kernel(NotAKernel::Elf));
    assert_eq!(refused(&kernel[..100]), NotAnImage::Kernel(NotAKernel::Elf));
    let note = kernel.windows(9).position(|w| w == b"Tidegate\0").unwrap();
    let mut nameless = kernel.clone();
    nameless[note] = b't';
    assert_eq!(refused(&nameless), NotAnImage::Kernel(NotAKernel::NoPlace));
    // A place inside the kernel would be overwritten.
    let mut inside = kernel.clone();
    inside[note + 13] = 0x10;
    assert_eq!(refused(&inside), NotAnImage::Kernel(NotAKernel::Layout));
    let parsed = Kernel::parse(&kernel).unwrap();
    let broken = Image::with_policy(parsed, &blob[..blob.len() - 1], &text);
    assert_eq!(broken, Err(NotAnImage::Blob(BlobError::Length)));
}
