//! A kernel's file with or without a policy in it.
//!
//! In: the bytes of a kernel, a policy's blob and its source text. Out: the bytes of an image that a
//! domain builder loads, blob included; and back from any image to the kernel, the blob and the text
//! in it. The same parts always give the same bytes. Never: files, or a kernel whose own bytes differ
//! from those that were given but for the three fields that tell of the policy.
//!
//! ```text
//! kernel                  as it was published, but: where its program headers are, how many they
//!                         are, and in the note `Tidegate` how long the policy is
//! program headers         those of the kernel and one more: load the blob behind the kernel
//! blob                    from the next multiple of 4096 on
//! text                    of the policy, never loaded
//! "TIDEGATE POLICY\0"     the last 32 bytes: this, the kernel's length and the text's length,
//!                         8 bytes each, little-endian
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects)]

mod kernel;

pub use kernel::{Kernel, NotAKernel};

use rules::{BlobError, Digest, Policy};
use std::fmt;

const MAGIC: &[u8; 16] = b"TIDEGATE POLICY\0";

/// Bytes at the end of an image with a policy.
const TRAILER: usize = 32;

/// What a kernel's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel as it is without a policy.
    pub kernel: Kernel,
    /// The policy in it.
    pub policy: Option<Embedded>,
}

/// A policy as it stands in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// What the kernel obeys.
    pub blob: Vec<u8>,
    /// What a person wrote. Whether the blob was made of it is for a compiler to say.
    pub text: String,
}

/// Why bytes are not an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnImage {
    /// They are no kernel of Tidegate's.
    Kernel(NotAKernel),
    /// They say that there is a policy, and do not hold it as [`Image::bytes`] would have put it there.
    Changed,
    /// What is to be put in is no policy.
    Blob(BlobError),
}

impl Image {
    /// A kernel with a policy in it.
    ///
    /// # Errors
    /// [`NotAnImage::Blob`]: no image with a broken policy is made.
    pub fn with_policy(kernel: Kernel, blob: &[u8], text: &str) -> Result<Self, NotAnImage> {
        Policy::decode(blob).map_err(NotAnImage::Blob)?;
        let policy = Some(Embedded { blob: blob.to_owned(), text: text.to_owned() });
        Ok(Self { kernel, policy })
    }

    /// Takes a file apart. What it gives makes exactly these bytes again: nothing is left over.
    ///
    /// # Errors
    /// [`NotAnImage::Kernel`] and [`NotAnImage::Changed`]. The blob is not looked into.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnImage> {
        let place = kernel::place(bytes).map_err(NotAnImage::Kernel)?;
        if place.len == 0 {
            let kernel = Kernel::parse(bytes).map_err(NotAnImage::Kernel)?;
            return Ok(Self { kernel, policy: None });
        }
        let image = Self::take_apart(bytes, place.len).ok_or(NotAnImage::Changed)?;
        if image.bytes() == bytes { Ok(image) } else { Err(NotAnImage::Changed) }
    }

    fn take_apart(bytes: &[u8], blob_len: usize) -> Option<Self> {
        let (rest, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
        let lengths = trailer.strip_prefix(MAGIC)?;
        let (kernel_len, text_len) = (number(lengths.get(..8)?)?, number(lengths.get(8..)?)?);
        let (rest, text) = rest.split_at_checked(rest.len().checked_sub(text_len)?)?;
        let (rest, blob) = rest.split_at_checked(rest.len().checked_sub(blob_len)?)?;
        let kernel = Kernel::restore(rest.get(..kernel_len)?).ok()?;
        let text = String::from_utf8(text.to_owned()).ok()?;
        Some(Self { kernel, policy: Some(Embedded { blob: blob.to_owned(), text }) })
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let Some(Embedded { blob, text }) = &self.policy else {
            return self.kernel.bytes().to_owned();
        };
        let mut bytes = self.kernel.with_segment(blob);
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(MAGIC);
        for len in [self.kernel.bytes().len(), text.len()] {
            bytes.extend_from_slice(&(len as u64).to_le_bytes());
        }
        bytes
    }
}

impl Kernel {
    /// The SHA-256 of the kernel's file, as it was published.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.bytes())
    }
}

/// Eight bytes as a length.
fn number(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

impl fmt::Display for NotAnImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(why) => write!(f, "{why}"),
            Self::Changed => f.write_str(
                "says that it holds a policy, but was changed after the policy was put in",
            ),
            Self::Blob(why) => write!(f, "the policy is broken: {why}"),
        }
    }
}

impl std::error::Error for NotAnImage {}
