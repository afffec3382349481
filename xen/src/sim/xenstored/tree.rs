//! The nodes: values, children, permissions and quotas.

use crate::hypervisor::DomId;
use crate::store::StoreError;
use crate::store::wire::{Perm, PermLetter};
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::ops::Bound;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// Bytes of a node (quota-maxsize).
pub const VALUE_MAX: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    pub(super) children: BTreeSet<String>,
    pub(super) perms: Vec<Perm>,
    /// Changes with every change of the node.
    pub(super) generation: u64,
}

impl Node {
    pub(super) fn owner(&self) -> DomId {
        self.perms.first().map_or(DomId(0), |p| p.dom)
    }

    /// Whether `dom` may read (or write) it.
    pub(super) fn allows(&self, dom: DomId, write: bool) -> bool {
        let Some(first) = self.perms.first() else { return false };
        if dom == DomId(0) || first.dom == dom {
            return true;
        }
        let perm = self.perms.iter().skip(1).find(|p| p.dom == dom).unwrap_or(first);
        match perm.letter {
            PermLetter::None => false,
            PermLetter::Read => !write,
            PermLetter::Write => write,
            PermLetter::Both => true,
        }
    }
}

/// All nodes by their absolute paths. `/` is always there.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Shared with the trees of transactions, which are many.
    nodes: BTreeMap<Rc<str>, Rc<Node>>,
    generation: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let perms = vec![Perm { letter: PermLetter::None, dom: DomId(0) }];
        let root = Node { value: Vec::new(), children: BTreeSet::new(), perms, generation: 0 };
        Self { nodes: BTreeMap::from([("/".into(), Rc::new(root))]), generation: 1 }
    }
}

pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(Rc::as_ref)
    }

    fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path).map(Rc::make_mut)
    }

    /// Generation of a node; `None` if there is none.
    pub(super) fn generation(&self, path: &str) -> Option<u64> {
        self.get(path).map(|n| n.generation)
    }

    pub(super) fn owned_by(&self, dom: DomId) -> usize {
        self.nodes.values().filter(|n| n.owner() == dom).count()
    }

    /// Error of a node that is not there: only those who may access the nearest parent are told.
    pub(super) fn missing(&self, path: &str, dom: DomId, write: bool) -> StoreError {
        let mut at = parent(path);
        loop {
            if let Some(node) = self.get(at) {
                let allowed = node.allows(dom, write);
                return if allowed { StoreError::Enoent } else { StoreError::Eacces };
            }
            at = parent(at);
        }
    }

    /// The node, if `dom` may access it.
    pub(super) fn access(&self, path: &str, dom: DomId, write: bool) -> Result<&Node, StoreError> {
        match self.get(path) {
            Some(node) if node.allows(dom, write) => Ok(node),
            Some(_) => Err(StoreError::Eacces),
            None => Err(self.missing(path, dom, write)),
        }
    }

    /// Sets a value (`None`: only makes the node), making the node and its parents. Returns the paths
    /// of all nodes that changed, parents of new nodes included. `quota` is how many nodes a domain may
    /// own.
    pub(super) fn write(
        &mut self,
        path: &str,
        dom: DomId,
        value: Option<&[u8]>,
        quota: usize,
    ) -> Result<Vec<String>, StoreError> {
        match self.access(path, dom, true) {
            Ok(_) => {
                let Some(value) = value else { return Ok(Vec::new()) };
                check_size(value, dom)?;
                let generation = self.next_generation();
                if let Some(node) = self.get_mut(path) {
                    node.value = value.to_vec();
                    node.generation = generation;
                }
                Ok(vec![path.to_string()])
            }
            Err(StoreError::Enoent) => {
                check_size(value.unwrap_or_default(), dom)?;
                // All or nothing: what is missing above is made as well.
                let new = core::iter::successors(Some(path), |p| Some(parent(p)))
                    .take_while(|p| self.get(p).is_none())
                    .count();
                if dom != DomId(0) && self.owned_by(dom) + new > quota {
                    return Err(StoreError::Enospc);
                }
                let mut changed = Vec::new();
                self.create(path, dom, value.unwrap_or_default(), &mut changed);
                Ok(changed)
            }
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, path: &str, dom: DomId, value: &[u8], changed: &mut Vec<String>) {
        let above = parent(path).to_string();
        if self.get(&above).is_none() {
            self.create(&above, dom, &[], changed);
        }
        let generation = self.next_generation();
        let above_node = self.get_mut(&above).expect("a parent was made");
        above_node.children.insert(name(path).to_string());
        above_node.generation = generation;
        // Permissions are inherited; but who is not privileged owns what it makes.
        let mut perms = above_node.perms.clone();
        if dom != DomId(0)
            && let Some(first) = perms.first_mut()
        {
            first.dom = dom;
        }
        let node = Node { value: value.to_vec(), children: BTreeSet::new(), perms, generation };
        self.nodes.insert(path.into(), Rc::new(node));
        changed.push(above);
        changed.push(path.to_string());
    }

    pub(super) fn set_perms(
        &mut self,
        path: &str,
        dom: DomId,
        perms: Vec<Perm>,
    ) -> Result<(), StoreError> {
        let first = perms.first().ok_or(StoreError::Einval)?;
        let node = self.access(path, dom, true)?;
        if dom != DomId(0) && (node.owner() != dom || first.dom != node.owner()) {
            return Err(StoreError::Eperm);
        }
        let generation = self.next_generation();
        if let Some(node) = self.get_mut(path) {
            node.perms = perms;
            node.generation = generation;
        }
        Ok(())
    }

    /// Removes a node and all below it; returns what was removed, the node itself first.
    pub(super) fn remove(
        &mut self,
        path: &str,
        dom: DomId,
    ) -> Result<Vec<(String, Node)>, StoreError> {
        if path == "/" {
            return Err(StoreError::Einval);
        }
        match self.access(path, dom, true) {
            Ok(_) => {}
            Err(StoreError::Enoent) if self.get(parent(path)).is_some() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let generation = self.next_generation();
        if let Some(above) = self.get_mut(parent(path)) {
            above.children.remove(name(path));
            above.generation = generation;
        }
        let below = format!("{path}/");
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        let under = self.nodes.range::<str, _>(from).map(|(p, _)| Rc::clone(p));
        let paths: Vec<Rc<str>> = core::iter::once(path.into())
            .chain(under.take_while(|p| p.starts_with(&below)))
            .collect();
        let gone = paths.into_iter().filter_map(|p| self.nodes.remove_entry(&p));
        Ok(gone.map(|(p, node)| (p.to_string(), Rc::unwrap_or_clone(node))).collect())
    }

    /// Makes the node at `path` what it is in `other`, for a commit.
    pub(super) fn adopt(&mut self, path: &str, other: &Self) {
        let generation = self.next_generation();
        match other.get(path) {
            Some(node) => {
                self.nodes.insert(path.into(), Rc::new(Node { generation, ..node.clone() }));
            }
            None => {
                self.nodes.remove(path);
            }
        }
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }
}

fn check_size(value: &[u8], dom: DomId) -> Result<(), StoreError> {
    if dom != DomId(0) && value.len() >= VALUE_MAX { Err(StoreError::Enospc) } else { Ok(()) }
}
