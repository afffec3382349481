//! A file that is laid out as a kernel is, with nothing in it that runs.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

/// Where it says a policy is to be loaded.
pub const PLACE: u64 = 0x10_2000;

/// The file: header, two program headers (all of it to load, and the notes), notes, and some code.
pub fn kernel() -> Vec<u8> {
    with_code(100)
}

/// The same with so many bytes of code.
pub fn with_code(code: usize) -> Vec<u8> {
    let memory = (0x1000 + code as u64).next_multiple_of(0x1000);
    let place = 0x10_0000 + memory;
    let mut notes = Vec::new();
    note(&mut notes, b"Xen\0", 6, b"Tidegate");
    note(&mut notes, b"Tidegate\0", 0x7469, &[place.to_le_bytes(), [0; 8]].concat());
    let notes_at = 64 + 2 * 56;
    let len = notes_at + (notes.len() + code) as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [2_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [0x10_0000_u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    segment(&mut bytes, 1, [0, 0x10_0000, 0x10_0000, len, memory, 0x1000]);
    let notes_len = notes.len() as u64;
    segment(&mut bytes, 4, [notes_at, 0x10_00b0, 0x10_00b0, notes_len, notes_len, 4]);
    bytes.extend(notes);
    bytes.resize(bytes.len() + code, 0x90);
    bytes
}

fn segment(bytes: &mut Vec<u8>, kind: u32, words: [u64; 6]) {
    for word in [kind, 5] {
        bytes.extend(word.to_le_bytes());
    }
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
}

fn note(bytes: &mut Vec<u8>, owner: &[u8], kind: u32, desc: &[u8]) {
    for word in [owner.len() as u32, desc.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [owner, desc] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}
