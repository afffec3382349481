//! Changing a set of nodes in one transaction.
//!
//! In: changes, then the replies. Out: how it ended. Never: leaves half of the changes behind, or
//! tries for ever: a transaction that collides is done again a bounded number of times.

use super::client::{Client, RequestId, SubmitError, Tag};
use super::wire::{Op, Perm, Reply, StoreError, TxId};
use crate::hypervisor::Memory;
use alloc::string::String;
use alloc::vec::Vec;

/// How often a transaction is begun before its collisions are taken for an error.
const ATTEMPTS: u32 = 16;

/// One change of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets its value; makes it if need be.
    Write {
        /// The node.
        path: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Says who may do what with it.
    Allow {
        /// The node.
        path: String,
        /// Its owner first.
        perms: Vec<Perm>,
    },
    /// Removes it and all below it, if it is there.
    Remove {
        /// The node.
        path: String,
    },
}

impl Change {
    /// Sets the value of `path`.
    pub fn write(path: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Write { path: path.into(), value: value.into() }
    }

    /// Removes `path`.
    pub fn remove(path: impl Into<String>) -> Self {
        Self::Remove { path: path.into() }
    }
}

/// How a [`Publish`] ended. Except for [`Outcome::Done`], nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All changes were made.
    Done,
    /// A quota of XenStore is used up.
    NoSpace(StoreError),
    /// A directory to write to is not there any more.
    Gone,
    /// Others changed the same nodes, over and over.
    Contended,
    /// Refused for another reason.
    Failed(StoreError),
    /// A request could not even be queued.
    NotSubmitted(SubmitError),
}

/// What an event meant to one who waits for replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The reply is to somebody else's request.
    NotMine,
    /// More replies are awaited.
    Pending,
    /// That was the last one.
    Done(T),
}

/// A transaction under way. It must be driven to its end, or it stays open in XenStore.
#[derive(Debug)]
pub struct Publish {
    tag: Tag,
    changes: Vec<Change>,
    attempts: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Starting(RequestId),
    Changing { tx: TxId, waiting: Vec<RequestId>, error: Option<Outcome> },
    Ending { id: RequestId, aborted: Option<Outcome> },
}

impl Publish {
    /// Begins. The replies come as events with `tag`.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn start<M: Memory>(
        client: &mut Client<M>,
        tag: Tag,
        changes: Vec<Change>,
    ) -> Result<Self, SubmitError> {
        let id = client.submit(tag, TxId::NONE, &Op::TransactionStart)?;
        Ok(Self { tag, changes, attempts: 1, state: State::Starting(id) })
    }

    /// Takes a reply and does what comes next.
    pub fn on<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) -> Step<Outcome> {
        match &mut self.state {
            State::Starting(start) if *start == id => match result {
                Ok(Reply::Tx(tx)) => {
                    let tx = *tx;
                    self.change(client, tx)
                }
                Ok(_) => Step::Done(Outcome::Failed(StoreError::Unknown)),
                Err(error) => Step::Done(outcome(*error)),
            },
            State::Changing { tx, waiting, error } => {
                let Some(at) = waiting.iter().position(|w| *w == id) else { return Step::NotMine };
                waiting.swap_remove(at);
                if let Err(e) = result {
                    error.get_or_insert(outcome(*e));
                }
                if !waiting.is_empty() {
                    return Step::Pending;
                }
                let (tx, aborted) = (*tx, error.take());
                self.end(client, tx, aborted)
            }
            State::Ending { id: end, aborted } if *end == id => match (aborted.take(), result) {
                (Some(outcome), _) => Step::Done(outcome),
                (None, Ok(_)) => Step::Done(Outcome::Done),
                (None, Err(StoreError::Eagain)) => self.again(client),
                (None, Err(error)) => Step::Done(outcome(*error)),
            },
            State::Starting(_) | State::Ending { .. } => Step::NotMine,
        }
    }

    fn change<M: Memory>(&mut self, client: &mut Client<M>, tx: TxId) -> Step<Outcome> {
        let mut waiting = Vec::with_capacity(self.changes.len());
        let mut error = None;
        for change in &self.changes {
            let op = match change {
                Change::Write { path, value } => Op::Write(path, value),
                Change::Allow { path, perms } => Op::SetPerms(path, perms),
                Change::Remove { path } => Op::Rm(path),
            };
            match client.submit(self.tag, tx, &op) {
                Ok(id) => waiting.push(id),
                Err(e) => {
                    error = Some(Outcome::NotSubmitted(e));
                    break;
                }
            }
        }
        if waiting.is_empty() {
            return self.end(client, tx, error);
        }
        self.state = State::Changing { tx, waiting, error };
        Step::Pending
    }

    fn end<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        tx: TxId,
        aborted: Option<Outcome>,
    ) -> Step<Outcome> {
        let op = Op::TransactionEnd { commit: aborted.is_none() };
        match client.submit(self.tag, tx, &op) {
            Ok(id) => {
                self.state = State::Ending { id, aborted };
                Step::Pending
            }
            Err(e) => Step::Done(Outcome::NotSubmitted(e)),
        }
    }

    fn again<M: Memory>(&mut self, client: &mut Client<M>) -> Step<Outcome> {
        if self.attempts >= ATTEMPTS {
            return Step::Done(Outcome::Contended);
        }
        self.attempts = self.attempts.saturating_add(1);
        match client.submit(self.tag, TxId::NONE, &Op::TransactionStart) {
            Ok(id) => {
                self.state = State::Starting(id);
                Step::Pending
            }
            Err(e) => Step::Done(Outcome::NotSubmitted(e)),
        }
    }
}

const fn outcome(error: StoreError) -> Outcome {
    if error.is_no_space() {
        Outcome::NoSpace(error)
    } else if error.is_gone() {
        Outcome::Gone
    } else {
        Outcome::Failed(error)
    }
}
