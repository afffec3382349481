//! Writes an initramfs: a cpio archive in the "newc" form the Linux kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! In: paths and bytes. Out: the archive. Not compressed: unpacking costs more than loading.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive being written.
#[derive(Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Cpio {
    /// A file that may be executed. Its directories are made first.
    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) {
        self.parents(path);
        self.entry(path, PROGRAM, contents);
    }

    /// A file that is only read.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) {
        self.parents(path);
        self.entry(path, PLAIN, contents);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entry(path, LINK, to.as_bytes());
    }

    /// A directory and those above it.
    pub(crate) fn directory(&mut self, path: &str) {
        self.parents(path);
        self.one_directory(path.trim_matches('/'));
    }

    /// The finished archive, padded so that another may follow it.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.pad(512);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        let above: Vec<_> = Path::new(path).ancestors().skip(1).collect();
        for directory in above.into_iter().rev().filter_map(Path::to_str) {
            self.one_directory(directory);
        }
    }

    fn one_directory(&mut self, path: &str) {
        if !path.is_empty() && self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, &[]);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        // magic, inode, mode, uid, gid, links, mtime, size, device and its kind (4), name, check
        let (inode, size, name) = (self.entries, contents.len(), path.len() + 1);
        let zero = 0;
        self.bytes.extend_from_slice(
            format!(
                "070701{inode:08x}{mode:08x}{zero:08x}{zero:08x}{links:08x}{zero:08x}{size:08x}\
                 {zero:08x}{zero:08x}{zero:08x}{zero:08x}{name:08x}{zero:08x}{path}\0",
                links = 1,
            )
            .as_bytes(),
        );
        self.pad(4);
        self.bytes.extend_from_slice(contents);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_data_is_aligned() {
        let mut archive = Cpio::default();
        archive.file("a/b", b"12345");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let heads: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        // "a" (110 + 2 = 112), then "a/b" (110 + 4 -> 116, data 5 -> 8), then the trailer
        assert_eq!(heads, [0, 112, 112 + 116 + 8]);
        assert_eq!(&bytes[112 + 116..112 + 116 + 5], b"12345");
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn a_directory_is_made_once_and_before_what_is_in_it() {
        let mut archive = Cpio::default();
        archive.program("/bin/x", b"");
        archive.program("/bin/y", b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("bin\0").count(), 1);
        assert!(text.find("bin\0") < text.find("bin/x\0"));
    }
}
