//! Messages as they stand on a stream: u32 kind, u32 length, then so many bytes.
#![deny(clippy::arithmetic_side_effects)]

use super::{VERSION, kind};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a header.
const HEADER: usize = 8;

/// Most bytes of a message: a chunk of data in protocol 3 (MAX_DATA_CHUNK_V3), and more than dom0's
/// policy lets a command line have.
pub const BODY_MAX: usize = 65536;

/// What the other side did wrong. The stream has no meaning from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A message of more than [`BODY_MAX`] bytes.
    TooLong(u32),
    /// A message of this kind may not be sent to us, not now, or not with so many bytes.
    Unexpected(u32),
    /// The other side speaks an older protocol than ours.
    Version(u32),
}

/// A stream of messages both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frames {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Frames {
    /// A new stream; both sides greet first.
    pub(super) fn new() -> Self {
        let mut frames = Self { inbox: Vec::new(), outbox: Vec::new() };
        frames.put(kind::HELLO, &[&VERSION.to_le_bytes()]);
        frames
    }

    /// Appends a message of these parts.
    pub(super) fn put(&mut self, kind: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()));
        self.outbox.extend_from_slice(&kind.to_le_bytes());
        self.outbox.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        parts.iter().for_each(|part| self.outbox.extend_from_slice(part));
    }

    /// Adds bytes that came.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }

    /// The next message, once it is whole.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub(super) fn next(&mut self) -> Result<Option<(u32, Vec<u8>)>, FrameError> {
        let Some((kind, rest)) = self.inbox.split_first_chunk() else { return Ok(None) };
        let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let (kind, told) = (u32::from_le_bytes(*kind), u32::from_le_bytes(*len));
        let len = usize::try_from(told).ok().filter(|len| *len <= BODY_MAX);
        let len = len.ok_or(FrameError::TooLong(told))?;
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let body = body.to_vec();
        self.inbox.drain(..HEADER.saturating_add(len));
        Ok(Some((kind, body)))
    }

    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outbox
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.outbox.drain(..count.min(self.outbox.len()));
    }
}

/// Checks a greeting.
///
/// # Errors
/// [`FrameError`] if it is none, or too old.
pub(super) fn hello(kind: u32, body: &[u8]) -> Result<(), FrameError> {
    match <[u8; 4]>::try_from(body).map(u32::from_le_bytes) {
        Ok(VERSION..) if kind == kind::HELLO => Ok(()),
        Ok(version) if kind == kind::HELLO => Err(FrameError::Version(version)),
        _ => Err(FrameError::Unexpected(kind)),
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "qrexec sent a message of {len} bytes"),
            Self::Unexpected(kind) => write!(f, "qrexec sent message {kind:#x} out of place"),
            Self::Version(version) => write!(f, "qrexec speaks version {version} only"),
        }
    }
}

impl core::error::Error for FrameError {}
