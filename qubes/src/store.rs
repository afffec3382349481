//! The copy of the database, and the rule trees in it.
#![deny(clippy::arithmetic_side_effects)]

use crate::Path;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Bound;
use rules::Family;
use rules::qubes::{Tree, TreeError};

/// Bytes an entry takes besides its own.
const ENTRY: usize = 64;

const FIREWALL: &str = "/qubes-firewall/";

/// A copy of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    entries: BTreeMap<Path, Vec<u8>>,
    used: usize,
    /// Bytes it may hold, keys and values and what they take besides.
    room: usize,
    /// Clients whose rules did not fit: none of them is kept, until dom0 begins anew.
    lost: BTreeSet<IpAddr>,
}

/// The copy would be larger than it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Store {
    pub(crate) const fn new(room: usize) -> Self {
        Self { entries: BTreeMap::new(), used: 0, room, lost: BTreeSet::new() }
    }

    /// An empty one of the same room.
    pub(crate) const fn emptied(&self) -> Self {
        Self::new(self.room)
    }

    /// The value of the key `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.entries.get(path).map(Vec::as_slice)
    }

    /// All keys below `prefix`, in their order, with their values.
    pub fn below<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, &'s [u8])> + 's {
        let inside = self.entries_below(prefix);
        inside.map(|(path, value)| (path.as_str(), value.as_slice()))
    }

    /// Keeps a value. If there is no room for a rule, all rules of its client are lost, and
    /// [`Self::tree`] says so.
    pub(crate) fn insert(&mut self, path: &Path, value: &[u8]) -> Result<(), Full> {
        let client = Self::client_ruled_by(path);
        if client.is_some_and(|client| self.lost.contains(&client)) {
            return Ok(());
        }
        self.remove_key(path);
        let used = self.used.saturating_add(cost(path, value));
        if used <= self.room {
            self.used = used;
            self.entries.insert(path.clone(), value.to_vec());
            return Ok(());
        }
        let client = client.ok_or(Full)?;
        self.remove_below(&home(client));
        self.lost.insert(client);
        Ok(())
    }

    /// Removes a key, or all that is below it.
    pub(crate) fn remove(&mut self, path: &Path) {
        if path.is_subtree() {
            self.remove_below(path.as_str());
            self.lost.retain(|client| !home(*client).starts_with(path.as_str()));
        } else {
            self.remove_key(path);
        }
    }

    fn remove_below(&mut self, prefix: &str) {
        let below: Vec<Path> = self.entries_below(prefix).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| self.remove_key(path));
    }

    fn remove_key(&mut self, path: &Path) {
        if let Some(value) = self.entries.remove(path) {
            self.used = self.used.saturating_sub(cost(path, &value));
        }
    }

    fn entries_below<'s>(
        &'s self,
        prefix: &'s str,
    ) -> impl Iterator<Item = (&'s Path, &'s Vec<u8>)> + 's {
        let from = self.entries.range::<str, _>((Bound::Excluded(prefix), Bound::Unbounded));
        from.take_while(move |(path, _)| path.as_str().starts_with(prefix))
    }

    /// The client whose rules are committed by writing `path`, if that is what it does.
    pub(crate) fn client_committed_by(path: &Path) -> Option<IpAddr> {
        path.as_str().strip_prefix(FIREWALL)?.parse().ok()
    }

    /// The client one of whose rules `path` is.
    fn client_ruled_by(path: &Path) -> Option<IpAddr> {
        let (client, _rule) = path.as_str().strip_prefix(FIREWALL)?.split_once('/')?;
        client.parse().ok()
    }

    /// Every client whose rules are committed.
    pub(crate) fn clients(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.entries_below(FIREWALL).filter_map(|(path, _)| Self::client_committed_by(path))
    }

    /// The rules of a client as they stand now.
    pub(crate) fn tree(&self, client: IpAddr) -> Result<Tree, TreeError> {
        if self.lost.contains(&client) {
            return Err(TreeError::NoRoom);
        }
        let prefix = home(client);
        let entries = self
            .below(&prefix)
            .map(|(path, value)| (path.strip_prefix(prefix.as_str()).unwrap_or(path), value));
        Tree::parse(Family::of(client), entries)
    }
}

/// Where the rules of a client stand.
fn home(client: IpAddr) -> String {
    // Every address has several spellings; dom0 writes the one that Display gives.
    format!("{FIREWALL}{client}/")
}

fn cost(path: &Path, value: &[u8]) -> usize {
    path.as_str().len().saturating_add(value.len()).saturating_add(ENTRY)
}
