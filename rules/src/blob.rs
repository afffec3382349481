//! A policy as bytes: how it gets from the tool on Linux into the kernel.
//!
//! ```text
//! 0   8  "TIDEGATE"
//! 8   2  format, little-endian as all numbers
//! 10  2  zero
//! 12  4  length of the body in bytes
//! 16  32 SHA-256 of the body
//! 48     body
//! ```
//!
//! Every policy has exactly one encoding. Decoding trusts nothing: whatever the bytes are, they give
//! a checked [`Policy`] or a [`BlobError`], never a panic and never an allocation larger than the
//! blob justifies.
#![deny(clippy::arithmetic_side_effects)]

mod read;
mod write;

use crate::{Digest, Invalid, Policy};
use alloc::vec::Vec;
use core::fmt;
use sha2::{Digest as _, Sha256};

pub(crate) use write::encode_body;

/// The format written here, and the only one read.
pub const FORMAT: u16 = 2;

const MAGIC: &[u8; 8] = b"TIDEGATE";

/// Why bytes are not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// They do not begin like one.
    NotAPolicy,
    /// Made for another version of the kernel.
    Format(u16),
    /// Shorter or longer than they say.
    Length,
    /// The body does not have the digest it should.
    Damaged,
    /// A field at this offset of the body has no meaning.
    Field(usize),
    /// Understood, but this is not how it would have been written.
    NotCanonical,
    /// The rules in it cannot be obeyed.
    Invalid(Invalid),
}

impl Policy {
    /// The policy as a blob.
    ///
    /// # Errors
    /// [`Invalid::TooMany`] if it is longer than a length field can say.
    pub fn encode(&self) -> Result<Vec<u8>, Invalid> {
        let body = encode_body(self.parts())?;
        let len = u32::try_from(body.len()).map_err(|_| Invalid::TooMany)?;
        let mut blob = Vec::with_capacity(body.len().saturating_add(48));
        blob.extend_from_slice(MAGIC);
        blob.extend_from_slice(&FORMAT.to_le_bytes());
        blob.extend_from_slice(&[0; 2]);
        blob.extend_from_slice(&len.to_le_bytes());
        blob.extend_from_slice(&self.digest().0);
        blob.extend_from_slice(&body);
        Ok(blob)
    }

    /// Reads and checks a blob.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn decode(blob: &[u8]) -> Result<Self, BlobError> {
        let rest = blob.strip_prefix(MAGIC).ok_or(BlobError::NotAPolicy)?;
        let (format, rest) = rest.split_first_chunk().ok_or(BlobError::Length)?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(BlobError::Format(format));
        }
        let (zero, rest) = rest.split_first_chunk::<2>().ok_or(BlobError::Length)?;
        let (len, rest) = rest.split_first_chunk().ok_or(BlobError::Length)?;
        let (digest, body) = rest.split_first_chunk::<32>().ok_or(BlobError::Length)?;
        if usize::try_from(u32::from_le_bytes(*len)) != Ok(body.len()) {
            return Err(BlobError::Length);
        }
        if Digest::of(body).0 != *digest {
            return Err(BlobError::Damaged);
        }
        let policy = Self::new(read::decode_body(body)?).map_err(BlobError::Invalid)?;
        let canonical = policy.digest().0 == *digest && *zero == [0; 2];
        if canonical { Ok(policy) } else { Err(BlobError::NotCanonical) }
    }
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPolicy => f.write_str("not a policy blob"),
            Self::Format(got) => write!(f, "policy format {got}, but this reads format {FORMAT}"),
            Self::Length => f.write_str("cut off, or longer than it says"),
            Self::Damaged => f.write_str("damaged: the digest does not fit"),
            Self::Field(at) => write!(f, "byte {at} of the body has no meaning"),
            Self::NotCanonical => f.write_str("not written by this format's rules"),
            Self::Invalid(why) => write!(f, "cannot be obeyed: {why}"),
        }
    }
}

impl core::error::Error for BlobError {}
