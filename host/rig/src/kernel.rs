//! Unpacks Linux once, here, instead of at every boot under emulation, where that alone takes longer
//! than all the rest of a guest's start.
//!
//! In: a bzImage. Out: the ELF image in it, which Xen and the toolstack load as well
//! (Documentation/arch/x86/boot.rst, payload_offset and payload_length).

use crate::error::{Context as _, Error, Result, ensure};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// The ELF image in a bzImage compressed with xz, as Debian's are.
///
/// # Errors
/// When it is not such an image, or xz fails.
pub(crate) fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).ok_or_else(|| Error::new("not a bzImage"))?.to_vec();
    let mut xz = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("xz")?;
    let pipe = xz.stdin.take();
    let feed = thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(&payload)));
    let output = xz.wait_with_output().context("xz")?;
    drop(feed.join());
    let elf = output.stdout;
    ensure(output.status.success() && elf.starts_with(b"\x7fELF"), || {
        format!("xz: {}, {} bytes that are no ELF image", output.status, elf.len())
    })?;
    Ok(elf)
}

/// The xz stream; the four bytes behind it are its unpacked size, for the boot code.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(image, PAYLOAD_OFFSET)?;
    let length = word(image, PAYLOAD_LENGTH)?;
    image.get(start..start + length)?.strip_suffix(image.get(start + length - 4..start + length)?)
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 4096];
        image[SETUP_SECTORS] = 2;
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&10_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&12_u32.to_le_bytes());
        image[1546..1558].copy_from_slice(b"stream..size");
        assert_eq!(payload(&image), Some(&b"stream.."[..]));
        assert_eq!(payload(&image[..1550]), None, "a cut image");
    }
}
