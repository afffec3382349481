//! One connection to dom0's QubesDB daemon.
//!
//! | came in | while the database is read | afterwards |
//! |---|---|---|
//! | RESP_MULTIREAD | an entry, or the end | a mistake of the other side |
//! | WRITE | stored, answered | stored, answered, told |
//! | RM | removed, answered | removed, answered, told |
//! | RESP_OK, RESP_ERROR, RESP_ERROR_NOENT | about our own writes: nothing to do | the same |
//! | anything else | a mistake of the other side | the same |
//!
//! After a mistake the connection is of no use: close it, and begin again with
//! [`Session::reconnected`], which keeps what was known until the database has been read anew.
#![deny(clippy::arithmetic_side_effects)]

use crate::message::{DATA_MAX, HEADER, Header, Kind, Outgoing};
use crate::{Path, Store};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use rules::qubes::{Tree, TreeError};

/// Answers that may wait before nothing more is read. The ring holds 4096 bytes.
const ANSWERS_MAX: usize = 64 << 10;

/// Events that may wait before nothing more is read.
const EVENTS_MAX: usize = 1024;

/// What became known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The whole database is there, see [`Session::store`].
    Synced,
    /// dom0 wrote this key.
    Written(Path),
    /// dom0 removed this key, or all below it.
    Removed(Path),
    /// dom0 committed the rules of this client: they take effect now. If they were not understood,
    /// the client is blocked ([`rules::qubes::Trees::set`]).
    Rules(IpAddr, Result<Tree, TreeError>),
}

/// What the other side did wrong. Whatever it sends then has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A header that is none: unknown kind, path or length.
    Header,
    /// A message of this kind may not be sent to us, or not now.
    Unexpected(u8),
    /// The database is larger than can be kept.
    TooLarge,
}

/// Why a key was not written. Sent nevertheless, it would end the daemon, or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The database has not been read yet, or the connection is of no use any more.
    NotSynced,
    /// The path names no key.
    Path,
    /// More than [`DATA_MAX`] bytes, or a NUL among them.
    Data,
    /// Too much waits to be sent.
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The database is on its way.
    Syncing,
    /// Changes come as they are made.
    Live,
    /// The other side made a mistake.
    Failed(ProtocolError),
}

/// A connection, without the bytes' way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    state: State,
    store: Store,
    /// Fills while the database is read; takes the place of `store` when it is whole.
    arriving: Store,
    /// A message of which a part is still to come.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    events: VecDeque<Event>,
}

impl Session {
    /// A new connection: the first bytes to send ask for the whole database, of which at most `room`
    /// bytes are kept, and while it is read again, twice as much.
    #[must_use]
    pub fn connected(room: usize) -> Self {
        Self::begin(Store::new(room))
    }

    /// A connection in place of this one, which was lost. What is known stays until the database
    /// has been read again; events that nobody has taken are lost, the next [`Event::Synced`]
    /// stands for them.
    #[must_use]
    pub fn reconnected(self) -> Self {
        Self::begin(self.store)
    }

    fn begin(store: Store) -> Self {
        let mut outbox = Vec::new();
        Outgoing::ReadAll.write_to(&mut outbox);
        let arriving = store.emptied();
        Self {
            state: State::Syncing,
            store,
            arriving,
            inbox: Vec::new(),
            outbox,
            events: VecDeque::new(),
        }
    }

    /// The database as far as it is known: whole once [`Event::Synced`] was told.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What became known next.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether something became known that nobody has taken.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether more may be read from the stream. While it may not, send [`Session::outgoing`] and
    /// take events first.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::Failed(_))
            && self.outbox.len() < ANSWERS_MAX
            && self.events.len() < EVENTS_MAX
    }

    /// The bytes to be sent next.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outbox
    }

    /// Says that the first `count` of them were sent.
    pub fn sent(&mut self, count: usize) {
        self.outbox.drain(..count.min(self.outbox.len()));
    }

    /// Takes the next bytes of the stream, however many.
    ///
    /// # Errors
    /// What the other side did wrong, now or before. Nothing is sent from then on.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        if let State::Failed(why) = self.state {
            return Err(why);
        }
        self.inbox.extend_from_slice(bytes);
        let mut inbox = core::mem::take(&mut self.inbox);
        let mut rest = inbox.as_slice();
        let outcome = loop {
            match split_message(rest) {
                Ok(Some((header, data, after))) => {
                    rest = after;
                    if let Err(why) = self.take(&header, data) {
                        break Err(why);
                    }
                }
                Ok(None) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        let taken = inbox.len().saturating_sub(rest.len());
        inbox.drain(..taken);
        self.inbox = inbox;
        outcome.inspect_err(|why| {
            self.state = State::Failed(*why);
            self.outbox.clear();
            self.inbox.clear();
        })
    }

    /// Writes a key of our own.
    ///
    /// # Errors
    /// [`Refused`], and then nothing is sent.
    pub fn write(&mut self, path: &Path, data: &[u8]) -> Result<(), Refused> {
        if self.state != State::Live {
            return Err(Refused::NotSynced);
        }
        if path.is_subtree() {
            return Err(Refused::Path);
        }
        if data.len() > DATA_MAX || data.contains(&0) {
            return Err(Refused::Data);
        }
        if self.outbox.len() >= ANSWERS_MAX || self.store.insert(path, data).is_err() {
            return Err(Refused::Busy);
        }
        Outgoing::Write(path, data).write_to(&mut self.outbox);
        Ok(())
    }

    /// Drops the copy of a key, such as a secret that has been used. The database keeps its own.
    pub fn forget(&mut self, path: &Path) {
        self.store.remove(path);
    }

    fn take(&mut self, header: &Header, data: &[u8]) -> Result<(), ProtocolError> {
        let unexpected = ProtocolError::Unexpected(header.kind as u8);
        match (header.kind, &header.path, self.state) {
            (Kind::GotMultiread, Some(path), State::Syncing) if !path.is_subtree() => {
                self.arriving.insert(path, data).map_err(|_| ProtocolError::TooLarge)
            }
            (Kind::GotMultiread, None, State::Syncing) => {
                self.synced();
                Ok(())
            }
            (Kind::Write, Some(path), _) if !path.is_subtree() => self.written(path, data),
            (Kind::Rm, Some(path), _) => {
                self.current().remove(path);
                Outgoing::Done(path).write_to(&mut self.outbox);
                self.tell(Event::Removed(path.clone()));
                Ok(())
            }
            (Kind::Ok | Kind::Error | Kind::ErrorNoent, _, _) => Ok(()),
            _ => Err(unexpected),
        }
    }

    /// What dom0 speaks of: the copy that is being read, or the whole one.
    const fn current(&mut self) -> &mut Store {
        match self.state {
            State::Syncing => &mut self.arriving,
            State::Live | State::Failed(_) => &mut self.store,
        }
    }

    fn written(&mut self, path: &Path, data: &[u8]) -> Result<(), ProtocolError> {
        self.current().insert(path, data).map_err(|_| ProtocolError::TooLarge)?;
        Outgoing::Done(path).write_to(&mut self.outbox);
        self.tell(Event::Written(path.clone()));
        if let Some(client) = Store::client_committed_by(path) {
            let rules = self.current().tree(client);
            self.tell(Event::Rules(client, rules));
        }
        Ok(())
    }

    /// The copy is whole. Rules that were known and are no more block their client: nothing says
    /// what it may do.
    fn synced(&mut self) {
        self.state = State::Live;
        let empty = self.arriving.emptied();
        let before =
            core::mem::replace(&mut self.store, core::mem::replace(&mut self.arriving, empty));
        self.tell(Event::Synced);
        let clients: BTreeSet<IpAddr> = self.store.clients().chain(before.clients()).collect();
        for client in clients {
            let rules = self.store.tree(client);
            self.tell(Event::Rules(client, rules));
        }
    }

    /// Tells what happened, except about a copy that is not whole yet.
    fn tell(&mut self, event: Event) {
        if self.state == State::Live {
            self.events.push_back(event);
        }
    }
}

/// The first message of `bytes` and what follows it; `None` if it is not all there.
#[allow(clippy::type_complexity, reason = "a header, its data, the rest")]
fn split_message(bytes: &[u8]) -> Result<Option<(Header, &[u8], &[u8])>, ProtocolError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let header = Header::parse(header).ok_or(ProtocolError::Header)?;
    let len = header.len;
    Ok(rest.split_at_checked(len).map(|(data, rest)| (header, data, rest)))
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("QubesDB sent a header that is none"),
            Self::Unexpected(kind) => write!(f, "QubesDB sent message {kind}, which it may not"),
            Self::TooLarge => f.write_str("QubesDB holds more than can be kept"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSynced => "QubesDB has not been read",
            Self::Path => "the path names no key",
            Self::Data => "the value is too long or holds a NUL",
            Self::Busy => "too much waits to be sent",
        })
    }
}

impl core::error::Error for ProtocolError {}
impl core::error::Error for Refused {}
