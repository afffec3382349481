//! The copy of the database, and the rule trees in it.
#![deny(clippy::arithmetic_side_effects)]

use crate::Path;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Bound;
use rules::Family;
use rules::qubes::{Tree, TreeError};

/// Bytes the copy may hold, keys and values: about as much as the rules of 400 clients that use
/// every byte dom0 lets them write.
const ROOM: usize = 4 << 20;

/// Bytes an entry takes besides its own.
const ENTRY: usize = 64;

const FIREWALL: &str = "/qubes-firewall/";

/// A copy of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    entries: BTreeMap<Path, Vec<u8>>,
    used: usize,
}

/// The copy would be larger than it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Store {
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

    pub(crate) fn insert(&mut self, path: &Path, value: &[u8]) -> Result<(), Full> {
        self.remove(path);
        let used = self.used.saturating_add(cost(path, value));
        if used > ROOM {
            return Err(Full);
        }
        self.used = used;
        self.entries.insert(path.clone(), value.to_vec());
        Ok(())
    }

    /// Removes a key, or all that is below it.
    pub(crate) fn remove(&mut self, path: &Path) {
        if path.is_subtree() {
            let below: Vec<Path> =
                self.entries_below(path.as_str()).map(|(path, _)| path.clone()).collect();
            below.iter().for_each(|path| self.remove_key(path));
        } else {
            self.remove_key(path);
        }
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

    /// Every client whose rules are committed.
    pub(crate) fn clients(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.entries_below(FIREWALL).filter_map(|(path, _)| Self::client_committed_by(path))
    }

    /// The rules of a client as they stand now.
    pub(crate) fn tree(&self, client: IpAddr) -> Result<Tree, TreeError> {
        // Every address has several spellings; dom0 writes the one that Display gives.
        let mut prefix = FIREWALL.to_string();
        prefix.push_str(&client.to_string());
        prefix.push('/');
        let entries = self
            .below(&prefix)
            .map(|(path, value)| (path.strip_prefix(prefix.as_str()).unwrap_or(path), value));
        Tree::parse(Family::of(client), entries)
    }
}

fn cost(path: &Path, value: &[u8]) -> usize {
    path.as_str().len().saturating_add(value.len()).saturating_add(ENTRY)
}
