//! What callers can do: operations, watches, transactions.

use super::tree::{Node, Tree, parent};
use crate::hypervisor::DomId;
use crate::store::StoreError;
use crate::store::wire::{Perm, PermLetter};
use std::borrow::ToOwned;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

const PATH_MAX: usize = 3072;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// dom0's toolstack, over a socket.
    Toolstack,
    /// A domain, over its ring. Domain 0 is privileged too.
    Domain(DomId),
}

impl Caller {
    const fn dom(self) -> DomId {
        match self {
            Self::Toolstack => DomId(0),
            Self::Domain(dom) => dom,
        }
    }
}

/// A transaction of somebody's.
pub type TransactionId = u32;

/// One watch event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed, as the watcher wrote its path: relative or absolute.
    pub path: String,
    /// Given with the watch.
    pub token: String,
}

struct Watch {
    path: String,
    relative: bool,
    token: String,
}

struct Transaction {
    /// The tree as it was when the transaction began, and as it is in there.
    base: Rc<Tree>,
    tree: Rc<Tree>,
    /// What was read or changed, with its generation when the transaction began.
    seen: BTreeMap<String, Option<u64>>,
    changed: BTreeSet<String>,
    fires: Vec<Fire>,
}

/// A change that watches are told of.
struct Fire {
    path: String,
    /// Only watches of exactly this path (nodes removed along with one above).
    exact: bool,
    /// The node as it was, if it is gone.
    removed: Option<Node>,
}

#[derive(Default)]
struct Account {
    watches: Vec<Watch>,
    transactions: BTreeMap<TransactionId, Transaction>,
    events: VecDeque<WatchEvent>,
}

/// What one domain may have of each (the quotas of xenstored's command line); domain 0 has no limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Nodes it owns (`--entry-nb`).
    pub nodes: usize,
    /// Watches (`--watch-nb`).
    pub watches: usize,
    /// Transactions open at once (`--transaction`).
    pub transactions: usize,
}

impl Default for Quotas {
    /// Those of C xenstored 4.17.
    fn default() -> Self {
        Self { nodes: 1000, watches: 128, transactions: 10 }
    }
}

/// The tree and who watches it.
#[derive(Default)]
pub struct Store {
    tree: Rc<Tree>,
    quotas: Quotas,
    accounts: BTreeMap<Caller, Account>,
    last_transaction: TransactionId,
    collisions: u32,
}

type Result<T> = core::result::Result<T, StoreError>;

impl Store {
    /// The value of a node.
    ///
    /// # Errors
    /// As XenStore.
    pub fn read(&mut self, who: Caller, tx: Option<TransactionId>, path: &str) -> Result<Vec<u8>> {
        let path = absolute(who, path)?;
        self.look(who, tx, &path)?.access(&path, who.dom(), false).map(|n| n.value.clone())
    }

    /// The names of a node's children.
    ///
    /// # Errors
    /// As XenStore.
    pub fn directory(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        path: &str,
    ) -> Result<Vec<String>> {
        let path = absolute(who, path)?;
        let node = self.look(who, tx, &path)?.access(&path, who.dom(), false)?;
        Ok(node.children.iter().cloned().collect())
    }

    /// A node's permissions.
    ///
    /// # Errors
    /// As XenStore.
    pub fn perms(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        path: &str,
    ) -> Result<Vec<Perm>> {
        let path = absolute(who, path)?;
        self.look(who, tx, &path)?.access(&path, who.dom(), false).map(|n| n.perms.clone())
    }

    /// Sets them.
    ///
    /// # Errors
    /// As XenStore.
    pub fn set_perms(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        path: &str,
        perms: Vec<Perm>,
    ) -> Result<()> {
        let path = absolute(who, path)?;
        let removed = self.look(who, tx, &path)?.get(&path).cloned();
        self.change(who, tx, |tree| {
            tree.set_perms(&path, who.dom(), perms)?;
            let fire = Fire { path: path.clone(), exact: false, removed };
            Ok((vec![path.clone()], vec![fire]))
        })
    }

    /// Sets a value.
    ///
    /// # Errors
    /// As XenStore.
    pub fn write(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        path: &str,
        value: &[u8],
    ) -> Result<()> {
        self.put(who, tx, path, Some(value))
    }

    /// Makes a node unless it is there.
    ///
    /// # Errors
    /// As XenStore.
    pub fn mkdir(&mut self, who: Caller, tx: Option<TransactionId>, path: &str) -> Result<()> {
        self.put(who, tx, path, None)
    }

    fn put(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        path: &str,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let path = absolute(who, path)?;
        let _ = self.look(who, tx, &path)?;
        let quota = self.quotas.nodes;
        self.change(who, tx, |tree| {
            let changed = tree.write(&path, who.dom(), value, quota)?;
            let fire = Fire { path: path.clone(), exact: false, removed: None };
            let fires = if changed.is_empty() { Vec::new() } else { vec![fire] };
            Ok((changed, fires))
        })
    }

    /// Removes a node and all below it.
    ///
    /// # Errors
    /// As XenStore.
    pub fn remove(&mut self, who: Caller, tx: Option<TransactionId>, path: &str) -> Result<()> {
        let path = absolute(who, path)?;
        let _ = self.look(who, tx, &path)?;
        self.change(who, tx, |tree| {
            let removed = tree.remove(&path, who.dom())?;
            let mut changed: Vec<String> = removed.iter().map(|(p, _)| p.clone()).collect();
            if !changed.is_empty() {
                changed.push(parent(&path).to_owned());
            }
            let fires = removed
                .into_iter()
                .enumerate()
                .map(|(i, (path, node))| Fire { path, exact: i != 0, removed: Some(node) })
                .collect();
            Ok((changed, fires))
        })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// As XenStore.
    pub fn begin(&mut self, who: Caller) -> Result<TransactionId> {
        self.last_transaction += 1;
        let id = self.last_transaction;
        let tree = Rc::clone(&self.tree);
        let open = &mut self.accounts.entry(who).or_default().transactions;
        if who.dom() != DomId(0) && open.len() >= self.quotas.transactions {
            return Err(StoreError::Enospc);
        }
        let transaction = Transaction {
            base: Rc::clone(&tree),
            tree,
            seen: BTreeMap::new(),
            changed: BTreeSet::new(),
            fires: Vec::new(),
        };
        open.insert(id, transaction);
        Ok(id)
    }

    /// Ends one.
    ///
    /// # Errors
    /// As XenStore: EAGAIN if a node it has seen was changed since it began.
    pub fn end(&mut self, who: Caller, id: TransactionId, commit: bool) -> Result<()> {
        let account = self.accounts.entry(who).or_default();
        let tx = account.transactions.remove(&id).ok_or(StoreError::Enoent)?;
        if !commit {
            return Ok(());
        }
        if who.dom() != DomId(0) && self.collisions > 0 {
            self.collisions -= 1;
            return Err(StoreError::Eagain);
        }
        if tx.seen.iter().any(|(path, generation)| self.tree.generation(path) != *generation) {
            return Err(StoreError::Eagain);
        }
        let tree = Rc::make_mut(&mut self.tree);
        for path in &tx.changed {
            tree.adopt(path, &tx.tree);
        }
        self.fire(&tx.fires);
        Ok(())
    }

    /// Sets a watch; it fires once at once.
    ///
    /// # Errors
    /// As XenStore.
    pub fn watch(&mut self, who: Caller, path: &str, token: &str) -> Result<()> {
        let relative = !path.starts_with(['/', '@']);
        let absolute = if path.starts_with('@') { path.to_owned() } else { absolute(who, path)? };
        let account = self.accounts.entry(who).or_default();
        if account.watches.iter().any(|w| w.path == absolute && w.token == token) {
            return Err(StoreError::Eexist);
        }
        if who.dom() != DomId(0) && account.watches.len() >= self.quotas.watches {
            return Err(StoreError::E2big);
        }
        account.watches.push(Watch { path: absolute, relative, token: token.to_owned() });
        account.events.push_back(WatchEvent { path: path.to_owned(), token: token.to_owned() });
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// As XenStore.
    pub fn unwatch(&mut self, who: Caller, path: &str, token: &str) -> Result<()> {
        let absolute = if path.starts_with('@') { path.to_owned() } else { absolute(who, path)? };
        let watches = &mut self.accounts.entry(who).or_default().watches;
        let at = watches.iter().position(|w| w.path == absolute && w.token == token);
        watches.remove(at.ok_or(StoreError::Enoent)?);
        Ok(())
    }

    /// Drops all watches and transactions of `who`.
    pub fn reset(&mut self, who: Caller) {
        self.accounts.remove(&who);
    }

    /// The next watch event for `who`.
    pub fn next_event(&mut self, who: Caller) -> Option<WatchEvent> {
        self.accounts.get_mut(&who)?.events.pop_front()
    }

    /// Whether `who` has a watch event.
    #[must_use]
    pub fn has_event(&self, who: Caller) -> bool {
        self.accounts.get(&who).is_some_and(|a| !a.events.is_empty())
    }

    /// How many watches `who` has.
    #[must_use]
    pub fn watches_of(&self, who: Caller) -> usize {
        self.accounts.get(&who).map_or(0, |a| a.watches.len())
    }

    /// How many transactions `who` has open.
    #[must_use]
    pub fn transactions_of(&self, who: Caller) -> usize {
        self.accounts.get(&who).map_or(0, |a| a.transactions.len())
    }

    /// How many nodes `dom` owns.
    #[must_use]
    pub fn nodes_of(&self, dom: DomId) -> usize {
        self.tree.owned_by(dom)
    }

    pub(super) const fn set_quotas(&mut self, quotas: Quotas) {
        self.quotas = quotas;
    }

    pub(super) fn collide(&mut self, n: u32) {
        self.collisions = n;
    }

    /// What libxl makes for a new guest (libxl_create.c): its home it may read, and the few
    /// directories it may write to.
    pub(super) fn make_home(&mut self, dom: DomId) {
        let home = format!("/local/domain/{}", dom.0);
        let perm = |letter, dom| Perm { letter, dom };
        let ours = [perm(PermLetter::None, DomId(0)), perm(PermLetter::Read, dom)];
        let theirs = [perm(PermLetter::None, dom)];
        let nodes: [(&str, &str, &[Perm]); 12] = [
            ("", "", &ours),
            ("/domid", &dom.0.to_string(), &ours),
            ("/device", "", &ours),
            ("/device/vif", "", &ours),
            ("/backend", "", &ours),
            ("/control", "", &ours),
            ("/control/shutdown", "", &theirs),
            ("/control/feature-poweroff", "", &theirs),
            ("/control/feature-reboot", "", &theirs),
            ("/data", "", &theirs),
            ("/error", "", &theirs),
            ("/attr", "", &theirs),
        ];
        for (name, value, perms) in nodes {
            let path = format!("{home}{name}");
            let who = Caller::Toolstack;
            let made = self.write(who, None, &path, value.as_bytes());
            made.and_then(|()| self.set_perms(who, None, &path, perms.to_vec()))
                .expect("the toolstack may write anything");
        }
    }

    /// The tree `who` sees, with `path` noted as seen.
    fn look(&mut self, who: Caller, tx: Option<TransactionId>, path: &str) -> Result<&Tree> {
        let Some(id) = tx else { return Ok(&self.tree) };
        let account = self.accounts.entry(who).or_default();
        let tx = account.transactions.get_mut(&id).ok_or(StoreError::Enoent)?;
        if !tx.changed.contains(path) {
            tx.seen.entry(path.to_owned()).or_insert_with(|| tx.tree.generation(path));
        }
        Ok(&tx.tree)
    }

    /// Makes a change: `f` has no effect if it fails, and else tells which nodes it changed.
    fn change(
        &mut self,
        who: Caller,
        tx: Option<TransactionId>,
        f: impl FnOnce(&mut Tree) -> Result<(Vec<String>, Vec<Fire>)>,
    ) -> Result<()> {
        let Some(id) = tx else {
            let (_, fires) = f(Rc::make_mut(&mut self.tree))?;
            self.fire(&fires);
            return Ok(());
        };
        let account = self.accounts.entry(who).or_default();
        let tx = account.transactions.get_mut(&id).ok_or(StoreError::Enoent)?;
        let (changed, fires) = f(Rc::make_mut(&mut tx.tree))?;
        for path in changed {
            if !tx.changed.contains(&path) {
                let generation = tx.base.generation(&path);
                tx.seen.entry(path.clone()).or_insert(generation);
            }
            tx.changed.insert(path);
        }
        tx.fires.extend(fires);
        Ok(())
    }

    fn fire(&mut self, fires: &[Fire]) {
        for fire in fires {
            let now = self.tree.get(&fire.path).or(fire.removed.as_ref());
            let above = self.tree.get(parent(&fire.path));
            for (who, account) in &mut self.accounts {
                let permitted =
                    [now, above].into_iter().flatten().any(|n| n.allows(who.dom(), false));
                if !permitted {
                    continue;
                }
                for watch in account.watches.iter().filter(|w| w.concerns(fire)) {
                    let path = if watch.relative {
                        let home = format!("/local/domain/{}/", who.dom().0);
                        fire.path.strip_prefix(&home).unwrap_or(&fire.path).to_owned()
                    } else {
                        fire.path.clone()
                    };
                    account.events.push_back(WatchEvent { path, token: watch.token.clone() });
                }
            }
        }
    }
}

impl Watch {
    fn concerns(&self, fire: &Fire) -> bool {
        if self.path == fire.path {
            return true;
        }
        let below = self.path == "/"
            || fire.path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'));
        !fire.exact && below
    }
}

fn absolute(who: Caller, path: &str) -> Result<String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-/_@".contains(c);
    if path.is_empty() || path.len() > PATH_MAX || !path.chars().all(valid) {
        return Err(StoreError::Einval);
    }
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/local/domain/{}/{path}", who.dom().0)
    };
    if path.contains("//") || (path.len() > 1 && path.ends_with('/')) {
        return Err(StoreError::Einval);
    }
    Ok(path)
}
