//! Reading a set of nodes in one go.
//!
//! In: paths, then the replies. Out: what each node held, when the last reply is in. Never: takes a
//! missing node for an error.

use super::client::{Client, RequestId, SubmitError, Tag};
use super::publish::Step;
use super::wire::{Op, Reply, StoreError, TxId};
use crate::hypervisor::Memory;
use alloc::string::String;
use alloc::vec::Vec;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The value of a node.
    Value(&'a str),
    /// The names of its children.
    Names(&'a str),
}

/// What was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No such node, or one we may not read, which can mean the same.
    Gone,
    /// Its value.
    Value(Vec<u8>),
    /// The names of its children.
    Names(Vec<String>),
}

impl Found {
    /// The value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Value(value) => Some(value),
            Self::Gone | Self::Names(_) => None,
        }
    }

    /// The value as text, if there is one that is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        core::str::from_utf8(self.value()?).ok()
    }

    /// The names of the children, if there is a node.
    #[must_use]
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::Names(names) => Some(names),
            Self::Gone | Self::Value(_) => None,
        }
    }
}

/// A key that could not be read, though it may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherError {
    /// Its place among the keys.
    pub key: usize,
    /// Why.
    pub error: StoreError,
}

/// Replies being waited for.
#[derive(Debug)]
pub struct Gather {
    waiting: Vec<RequestId>,
    found: Vec<Option<Found>>,
    error: Option<GatherError>,
}

impl Gather {
    /// Asks for all `keys` (at least one). The replies come as events with `tag`.
    ///
    /// # Errors
    /// [`SubmitError`]; replies that come nevertheless belong to nobody.
    pub fn start<'a, M: Memory>(
        client: &mut Client<M>,
        tag: Tag,
        tx: TxId,
        keys: impl IntoIterator<Item = Key<'a>>,
    ) -> Result<Self, SubmitError> {
        let waiting = keys
            .into_iter()
            .map(|key| {
                let op = match key {
                    Key::Value(path) => Op::Read(path),
                    Key::Names(path) => Op::Directory(path),
                };
                client.submit(tag, tx, &op)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let found = waiting.iter().map(|_| None).collect();
        Ok(Self { waiting, found, error: None })
    }

    /// Takes a reply. [`Step::Done`] comes with the last one: what each key held, in the order of
    /// the keys.
    pub fn on(
        &mut self,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) -> Step<Result<Vec<Found>, GatherError>> {
        let Some(key) = self.waiting.iter().position(|w| *w == id) else { return Step::NotMine };
        let found = match result {
            Ok(Reply::Value(value)) => Found::Value(value.clone()),
            Ok(Reply::Names(names)) => Found::Names(names.clone()),
            Err(error) if !error.is_gone() => {
                self.error.get_or_insert(GatherError { key, error: *error });
                Found::Gone
            }
            Ok(_) | Err(_) => Found::Gone,
        };
        if let Some(place) = self.found.get_mut(key) {
            *place = Some(found);
        }
        if self.found.iter().any(Option::is_none) {
            return Step::Pending;
        }
        Step::Done(match self.error {
            Some(error) => Err(error),
            None => Ok(self.found.drain(..).flatten().collect()),
        })
    }
}
