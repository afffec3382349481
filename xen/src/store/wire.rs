//! XenStore's messages (xen/io/xs_wire.h, docs/misc/xenstore.txt).
//!
//! In: operations, and payloads from outside. Out: payloads, and typed replies. Never: I/O.

use crate::hypervisor::DomId;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a message header.
pub const HEADER: usize = 16;
/// Most bytes of a payload (XENSTORE_PAYLOAD_MAX).
pub const PAYLOAD_MAX: usize = 4096;
/// Most bytes of an absolute path (XENSTORE_ABS_PATH_MAX).
pub const ABS_PATH_MAX: usize = 3072;
/// Most bytes of a relative path (XENSTORE_REL_PATH_MAX).
pub const REL_PATH_MAX: usize = 2048;

/// What a message is (enum xsd_sockmsg_type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of xs_wire.h")]
#[repr(u32)]
pub enum MsgType {
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    ResetWatches = 21,
    DirectoryPart = 22,
}

impl MsgType {
    const ALL: [Self; 16] = [
        Self::Directory,
        Self::Read,
        Self::GetPerms,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::GetDomainPath,
        Self::Write,
        Self::Mkdir,
        Self::Rm,
        Self::SetPerms,
        Self::WatchEvent,
        Self::Error,
        Self::ResetWatches,
        Self::DirectoryPart,
    ];

    /// The type with this number.
    #[must_use]
    pub fn parse(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// A transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId(pub u32);

impl TxId {
    /// Outside of any transaction.
    pub const NONE: Self = Self(0);
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is; a number, as a peer may send any.
    pub kind: u32,
    /// Chosen by who asks, repeated in the reply; 0 in watch events.
    pub request: u32,
    /// The transaction.
    pub tx: TxId,
    /// Bytes of payload.
    pub len: u32,
}

impl Header {
    /// As it stands on the ring.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let words = [self.kind, self.request, self.tx.0, self.len];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// What stands on the ring.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            kind: u32::from_le_bytes([a, b, c, d]),
            request: u32::from_le_bytes([e, f, g, h]),
            tx: TxId(u32::from_le_bytes([i, j, k, l])),
            len: u32::from_le_bytes([m, n, o, p]),
        }
    }
}

/// Who may do what with a node: one entry of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// The letter of xenstore.txt.
    pub letter: PermLetter,
    /// For whom; in the first entry: the owner, and the letter is for everybody not named.
    pub dom: DomId,
}

/// What an entry of a permission list allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermLetter {
    /// `n`
    None,
    /// `r`
    Read,
    /// `w`
    Write,
    /// `b`
    Both,
}

impl Perm {
    /// Reads `r7`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (letter, dom) = text.split_at_checked(1)?;
        let letter = match letter {
            "n" => PermLetter::None,
            "r" => PermLetter::Read,
            "w" => PermLetter::Write,
            "b" => PermLetter::Both,
            _ => return None,
        };
        Some(Self { letter, dom: DomId(dom.parse().ok()?) })
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.letter {
            PermLetter::None => 'n',
            PermLetter::Read => 'r',
            PermLetter::Write => 'w',
            PermLetter::Both => 'b',
        };
        write!(f, "{letter}{}", self.dom.0)
    }
}

/// A request. Paths are absolute, or relative to `/local/domain/<own number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// The names of a node's children: [`Reply::Names`].
    Directory(&'a str),
    /// A part of such a list, from byte `offset` of it: [`Reply::Part`]. For lists longer than
    /// [`PAYLOAD_MAX`].
    DirectoryPart(&'a str, u32),
    /// A value: [`Reply::Value`].
    Read(&'a str),
    /// A node's permissions: [`Reply::Perms`].
    GetPerms(&'a str),
    /// Sets them.
    SetPerms(&'a str, &'a [Perm]),
    /// Sets a value; makes the node and those above it.
    Write(&'a str, &'a [u8]),
    /// Makes a node with an empty value, unless it is there.
    Mkdir(&'a str),
    /// Removes a node and all below it. Not an error if only the node itself is missing.
    Rm(&'a str),
    /// Tells of every change at or below a path, and once at once. Events carry the tag.
    Watch(&'a str),
    /// Ends it. Events that are on their way still come.
    Unwatch(&'a str),
    /// [`Reply::Tx`].
    TransactionStart,
    /// Ends the transaction of the request: its changes happen, all of them or none, or are
    /// forgotten. EAGAIN: another's change came in between, do it all again.
    TransactionEnd {
        /// Make the changes.
        commit: bool,
    },
    /// Where a domain's nodes are: [`Reply::Path`].
    DomainPath(DomId),
    /// Drops all our watches and transactions; those of a former owner of our ring too.
    ResetWatches,
}

/// An operation whose payload or path XenStore would not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Op<'_> {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> MsgType {
        match self {
            Self::Directory(_) => MsgType::Directory,
            Self::DirectoryPart(..) => MsgType::DirectoryPart,
            Self::Read(_) => MsgType::Read,
            Self::GetPerms(_) => MsgType::GetPerms,
            Self::SetPerms(..) => MsgType::SetPerms,
            Self::Write(..) => MsgType::Write,
            Self::Mkdir(_) => MsgType::Mkdir,
            Self::Rm(_) => MsgType::Rm,
            Self::Watch(_) => MsgType::Watch,
            Self::Unwatch(_) => MsgType::Unwatch,
            Self::TransactionStart => MsgType::TransactionStart,
            Self::TransactionEnd { .. } => MsgType::TransactionEnd,
            Self::DomainPath(_) => MsgType::GetDomainPath,
            Self::ResetWatches => MsgType::ResetWatches,
        }
    }

    /// Its payload; `token` is used by watches only.
    ///
    /// # Errors
    /// [`TooLong`] if a path or the whole is too long.
    pub fn payload(&self, token: &str) -> Result<Vec<u8>, TooLong> {
        let mut bytes = Vec::new();
        let mut string = |text: &str| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        };
        match *self {
            Self::Directory(path)
            | Self::Read(path)
            | Self::GetPerms(path)
            | Self::Mkdir(path)
            | Self::Rm(path) => string(checked(path)?),
            Self::DirectoryPart(path, offset) => {
                string(checked(path)?);
                string(&offset.to_string());
            }
            Self::SetPerms(path, perms) => {
                string(checked(path)?);
                perms.iter().for_each(|perm| string(&perm.to_string()));
            }
            Self::Write(path, value) => {
                string(checked(path)?);
                bytes.extend_from_slice(value);
            }
            Self::Watch(path) | Self::Unwatch(path) => {
                string(checked(path)?);
                string(token);
            }
            Self::TransactionStart | Self::ResetWatches => string(""),
            Self::TransactionEnd { commit } => string(if commit { "T" } else { "F" }),
            Self::DomainPath(dom) => string(&dom.0.to_string()),
        }
        if bytes.len() <= PAYLOAD_MAX { Ok(bytes) } else { Err(TooLong) }
    }
}

fn checked(path: &str) -> Result<&str, TooLong> {
    let max = if path.starts_with('/') { ABS_PATH_MAX } else { REL_PATH_MAX };
    if path.len() <= max { Ok(path) } else { Err(TooLong) }
}

/// What XenStore answered to a request that worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Ok,
    /// A value.
    Value(Vec<u8>),
    /// Names of children.
    Names(Vec<String>),
    /// Some names of children, and the generation of the list they are from.
    Part {
        /// Changes when the children change: then start over.
        generation: u64,
        /// The names in this part.
        names: Vec<String>,
        /// Whether these were the last.
        last: bool,
        /// Where in the list, in bytes, the next part starts.
        next: u32,
    },
    /// Permissions.
    Perms(Vec<Perm>),
    /// A transaction has begun.
    Tx(TxId),
    /// A path.
    Path(String),
}

impl Reply {
    /// What the reply to a request of type `kind` says; `None` if it says nothing that makes sense.
    #[must_use]
    pub fn parse(kind: MsgType, payload: &[u8]) -> Option<Self> {
        Some(match kind {
            MsgType::Read => Self::Value(payload.into()),
            MsgType::Directory => Self::Names(strings(payload)?.map(String::from).collect()),
            MsgType::DirectoryPart => part(payload)?,
            MsgType::GetPerms => {
                Self::Perms(strings(payload)?.map(Perm::parse).collect::<Option<_>>()?)
            }
            MsgType::TransactionStart => match one_string(payload)?.parse().ok()? {
                0 => return None,
                id => Self::Tx(TxId(id)),
            },
            MsgType::GetDomainPath => Self::Path(one_string(payload)?.into()),
            MsgType::WatchEvent | MsgType::Error => return None,
            _ => (one_string(payload)? == "OK").then_some(Self::Ok)?,
        })
    }
}

/// A part of a directory: the generation, names, and an empty name behind the last of all.
fn part(payload: &[u8]) -> Option<Reply> {
    let end = payload.iter().position(|b| *b == 0)?;
    let (generation, rest) = payload.split_at_checked(end)?;
    let rest = rest.split_first()?.1;
    let last = rest.last() == Some(&0) && (rest.len() == 1 || rest.ends_with(&[0, 0]));
    let names = if last { rest.split_last()?.1 } else { rest };
    Some(Reply::Part {
        generation: core::str::from_utf8(generation).ok()?.parse().ok()?,
        names: strings(names)?.map(String::from).collect(),
        last,
        next: u32::try_from(names.len()).ok()?,
    })
}

/// The path and the token of a watch event.
#[must_use]
pub fn parse_watch_event(payload: &[u8]) -> Option<(&str, &str)> {
    let mut parts = strings(payload)?;
    let event = (parts.next()?, parts.next()?);
    // A third string is the depth that newer daemons may be asked for.
    Some(event)
}

/// NUL-terminated strings one after the other, all of them UTF-8.
fn strings(payload: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let text = core::str::from_utf8(payload).ok()?;
    let text = if text.is_empty() { "" } else { text.strip_suffix('\0')? };
    let empty = payload.is_empty();
    Some(text.split('\0').filter(move |_| !empty))
}

fn one_string(payload: &[u8]) -> Option<&str> {
    let (nul, text) = payload.split_last()?;
    if *nul != 0 || text.contains(&0) {
        return None;
    }
    core::str::from_utf8(text).ok()
}

/// Why XenStore did not do something (the names of xs_wire.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of errno")]
pub enum StoreError {
    Einval,
    Eacces,
    Eexist,
    Eisdir,
    Enoent,
    Enomem,
    Enospc,
    Eio,
    Enotempty,
    Enosys,
    Erofs,
    Ebusy,
    Eagain,
    Eisconn,
    E2big,
    Eperm,
    /// A name that is not in the list.
    Unknown,
}

impl StoreError {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Einval, "EINVAL"),
        (Self::Eacces, "EACCES"),
        (Self::Eexist, "EEXIST"),
        (Self::Eisdir, "EISDIR"),
        (Self::Enoent, "ENOENT"),
        (Self::Enomem, "ENOMEM"),
        (Self::Enospc, "ENOSPC"),
        (Self::Eio, "EIO"),
        (Self::Enotempty, "ENOTEMPTY"),
        (Self::Enosys, "ENOSYS"),
        (Self::Erofs, "EROFS"),
        (Self::Ebusy, "EBUSY"),
        (Self::Eagain, "EAGAIN"),
        (Self::Eisconn, "EISCONN"),
        (Self::E2big, "E2BIG"),
        (Self::Eperm, "EPERM"),
    ];

    /// The error an ERROR message names. Daemons may invent names.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        let name = one_string(payload);
        Self::ALL.into_iter().find(|(_, n)| Some(*n) == name).map_or(Self::Unknown, |(e, _)| e)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(e, _)| *e == self).map_or("unknown error", |(_, n)| n)
    }

    /// The node is not there. A node that was deleted below a parent we may not read answers EACCES.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Enoent | Self::Eacces)
    }

    /// A quota of XenStore is used up: the number of nodes or watches (ENOSPC in oxenstored and for
    /// nodes, E2BIG for watches and values in C xenstored).
    #[must_use]
    pub const fn is_no_space(self) -> bool {
        matches!(self, Self::Enospc | Self::E2big)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
