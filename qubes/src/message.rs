//! Messages as they stand on the wire: 72 bytes of header, then data.
//!
//! ```text
//! 0  1  kind
//! 1  64 path, ended by NUL
//! 65 3  nothing
//! 68 4  length of the data, little-endian
//! ```
//!
//! What may be sent is the type [`Outgoing`]; what may not, cannot be written down.
#![deny(clippy::arithmetic_side_effects)]

use crate::Path;
use alloc::vec::Vec;

/// Bytes of a header.
pub const HEADER: usize = 72;

/// Most bytes of data in a message; a daemon that is sent more gives up.
pub const DATA_MAX: usize = 3071;

const PATH_FIELD: usize = 64;

/// Kinds of message, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Read = 0,
    Write = 1,
    Multiread = 2,
    List = 3,
    Rm = 4,
    Watch = 5,
    Unwatch = 6,
    Ok = 7,
    ErrorNoent = 8,
    Error = 9,
    GotRead = 10,
    GotMultiread = 11,
    GotList = 12,
    GotWatch = 13,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Read,
        Self::Write,
        Self::Multiread,
        Self::List,
        Self::Rm,
        Self::Watch,
        Self::Unwatch,
        Self::Ok,
        Self::ErrorNoent,
        Self::Error,
        Self::GotRead,
        Self::GotMultiread,
        Self::GotList,
        Self::GotWatch,
    ];
}

/// What a virtual machine may send. Everything else would end the daemon in dom0: a second
/// MULTIREAD, the removal of a key that is no longer there, "no such key", local commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing<'a> {
    /// Asks for the whole database. Once in the life of a connection.
    ReadAll,
    /// Done as told.
    Done(&'a Path),
    /// Writes a key.
    Write(&'a Path, &'a [u8]),
}

impl Outgoing<'_> {
    /// Appends the message to `out`.
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        let (kind, path, data): (_, _, &[u8]) = match self {
            Self::ReadAll => (Kind::Multiread, "", &[]),
            Self::Done(path) => (Kind::Ok, path.as_str(), &[]),
            Self::Write(path, data) => (Kind::Write, path.as_str(), data),
        };
        let mut field = [0; PATH_FIELD];
        field.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
        out.push(kind as u8);
        out.extend_from_slice(&field);
        out.extend_from_slice(&[0; 3]);
        // Bounded by DATA_MAX, which the session has made sure of.
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(data);
    }
}

/// The header of a message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// `None` is the empty path.
    pub(crate) path: Option<Path>,
    pub(crate) len: usize,
}

impl Header {
    /// Reads a header; `None` if it cannot be one.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (path, rest) = rest.split_first_chunk::<PATH_FIELD>()?;
        let (_, len) = rest.split_last_chunk::<4>()?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == *kind)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= DATA_MAX)?;
        let text = path.iter().position(|b| *b == 0).and_then(|end| path.get(..end))?;
        let path = match core::str::from_utf8(text).ok()? {
            "" => None,
            text => Some(Path::new(text)?),
        };
        Some(Self { kind, path, len })
    }
}
