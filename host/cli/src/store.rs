//! dom0's XenStore, over the daemon's socket or the kernel's device.
//!
//! In: operations, a path to watch. Out: what XenStore answered. Never: a wait without an end where the
//! other side is a guest.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xen::store::wire::{HEADER, Header, MsgType, Op, PAYLOAD_MAX, Reply, StoreError, TxId};

/// Where xenstored listens, and the device for a XenStore that lives in a domain of its own.
const SOCKET: &str = "/run/xenstored/socket";
const DEVICE: &str = "/dev/xen/xenbus";

/// A connection. Requests are answered one by one.
pub(crate) struct Store {
    file: File,
    /// A watch event has come that nobody has waited for yet.
    fired: bool,
}

impl Store {
    /// Connects to `$XENSTORED_PATH`, or to what there is.
    pub(crate) fn open() -> Result<Self> {
        let named = std::env::var_os("XENSTORED_PATH").map(PathBuf::from);
        let path = named.unwrap_or_else(|| {
            PathBuf::from(if Path::new(SOCKET).exists() { SOCKET } else { DEVICE })
        });
        let file = match UnixStream::connect(&path) {
            Ok(stream) => File::from(OwnedFd::from(stream)),
            Err(_) => OpenOptions::new().read(true).write(true).open(&path).map_err(|why| {
                Error::new(
                    why.kind(),
                    format!("{}: {why}; is this dom0, and are you root?", path.display()),
                )
            })?,
        };
        Ok(Self { file, fired: false })
    }

    /// The value of a node as text; `None` if it is not there.
    pub(crate) fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.ask(&Op::Read(path))? {
            Ok(Reply::Value(value)) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(error) if error.is_gone() => Ok(None),
            other => Err(unexpected(path, &other)),
        }
    }

    /// The names of a node's children, none if it is not there.
    pub(crate) fn names(&mut self, path: &str) -> Result<Vec<String>> {
        match self.ask(&Op::Directory(path))? {
            Ok(Reply::Names(names)) => Ok(names),
            Err(error) if error.is_gone() => Ok(Vec::new()),
            other => Err(unexpected(path, &other)),
        }
    }

    /// Sets a node.
    pub(crate) fn write(&mut self, path: &str, value: &str) -> Result<()> {
        self.done(path, &Op::Write(path, value.as_bytes()))
    }

    /// Removes a node and all below it.
    pub(crate) fn remove(&mut self, path: &str) -> Result<()> {
        self.done(path, &Op::Rm(path))
    }

    /// From now on [`wait`](Self::wait) returns when this node has changed.
    pub(crate) fn watch(&mut self, path: &str) -> Result<()> {
        self.done(path, &Op::Watch(path))
    }

    /// Waits for a change, until `deadline` at most; whether there was one.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<bool> {
        while !std::mem::take(&mut self.fired) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_readable(left)? {
                return Ok(false);
            }
            self.message()?;
        }
        Ok(true)
    }

    fn is_readable(&self, within: Duration) -> Result<bool> {
        let timeout = Timespec::try_from(within).map_err(Error::other)?;
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timeout))? != 0)
    }

    fn done(&mut self, path: &str, op: &Op<'_>) -> Result<()> {
        match self.ask(op)? {
            Ok(_) => Ok(()),
            other => Err(unexpected(path, &other)),
        }
    }

    fn ask(&mut self, op: &Op<'_>) -> Result<std::result::Result<Reply, StoreError>> {
        let kind = op.kind();
        let payload = op.payload("tidegate").map_err(|_| Error::other("too long for XenStore"))?;
        let len = u32::try_from(payload.len()).map_err(Error::other)?;
        let header = Header { kind: kind as u32, request: 1, tx: TxId::NONE, len };
        self.file.write_all(&[&header.encode(), &*payload].concat())?;
        loop {
            let Some((answered, payload)) = self.message()? else { continue };
            if answered == MsgType::Error as u32 {
                return Ok(Err(StoreError::parse(&payload)));
            }
            let reply = Reply::parse(kind, &payload).filter(|_| answered == kind as u32);
            let nonsense = || Error::new(ErrorKind::InvalidData, "XenStore answers nonsense");
            return reply.map(Ok).ok_or_else(nonsense);
        }
    }

    /// The next message; `None` if it was a watch event.
    fn message(&mut self) -> Result<Option<(u32, Vec<u8>)>> {
        let mut header = [0; HEADER];
        self.file.read_exact(&mut header)?;
        let header = Header::decode(&header);
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if len > PAYLOAD_MAX {
            return Err(Error::new(ErrorKind::InvalidData, "XenStore answers too much"));
        }
        let mut payload = vec![0; len];
        self.file.read_exact(&mut payload)?;
        if header.kind == MsgType::WatchEvent as u32 {
            self.fired = true;
            return Ok(None);
        }
        Ok(Some((header.kind, payload)))
    }
}

fn unexpected(path: &str, what: &std::result::Result<Reply, StoreError>) -> Error {
    match what {
        Ok(reply) => Error::other(format!("{path}: {reply:?}")),
        Err(error) => Error::other(format!("{path}: {error}")),
    }
}
