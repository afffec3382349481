//! Which external port stands for which client socket.
//!
//! In: sockets of clients. Out: mappings that their flows share: the same for every remote
//! (endpoint-independent, RFC 4787 REQ-1), or a flow's own if it is redirected. Never: two mappings
//! of a protocol with the same external port, or one without a flow.

use crate::flow::ExternalId;
use crate::hash::{Endpoint, Hasher};
use crate::slab::{Place, Slab, Stamped};
use core::num::NonZeroU32;
use hashbrown::HashTable;
use wire::Proto;

/// Whose an external port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// All flows of a client socket.
    Socket,
    /// One redirected flow.
    Redirected,
}

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingId(NonZeroU32);

impl MappingId {
    const fn new(index: u32) -> Option<Self> {
        match NonZeroU32::new(index.wrapping_add(1)) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    const fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// A mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The client's socket; of a redirected flow, the destination that was asked for.
    pub(crate) endpoint: Endpoint,
    pub(crate) port: u16,
    pub(crate) owner: u16,
    pub(crate) generation: u16,
    pub(crate) proto: Proto,
    pub(crate) external: ExternalId,
    pub(crate) usage: Use,
    /// How many flows use it.
    pub(crate) flows: u32,
}

/// Bytes of a mapping's place and of its entry in an index that is at most 7/16 full.
pub const MAPPING_BYTES: usize = size_of::<Place<Mapping>>() + 5 * 16 / 7 + 1;

impl Stamped for Mapping {
    fn generation(&self) -> u16 {
        self.generation
    }
}

/// What a shared mapping is found by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    pub(crate) proto: Proto,
    pub(crate) end: Endpoint,
    pub(crate) owner: u16,
    pub(crate) external: ExternalId,
}

/// All mappings.
#[derive(Debug)]
pub(crate) struct Mappings {
    slab: Slab<Mapping>,
    by_socket: HashTable<u32>,
}

impl Mappings {
    pub(crate) fn new(capacity: u32) -> Self {
        let by_socket = HashTable::with_capacity(2 * capacity as usize);
        Self { slab: Slab::new(capacity), by_socket }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.slab.len()
    }

    pub(crate) const fn capacity(&self) -> u32 {
        self.slab.capacity()
    }

    pub(crate) fn get(&self, id: MappingId) -> Option<&Mapping> {
        self.slab.get(id.index())
    }

    /// The mapping that all flows of this socket share.
    pub(crate) fn find(&self, hasher: &Hasher, socket: &Socket) -> Option<MappingId> {
        let hash = hasher.endpoint(socket.proto, socket.end);
        let same = |index: &u32| {
            self.slab.get(*index).is_some_and(|m| {
                (m.proto, m.endpoint, m.owner, m.external)
                    == (socket.proto, socket.end, socket.owner, socket.external)
            })
        };
        self.by_socket.find(hash, same).copied().and_then(MappingId::new)
    }

    /// Puts a mapping that has no flows yet. `None` if all places are taken.
    pub(crate) fn insert(
        &mut self,
        hasher: &Hasher,
        make: impl FnOnce(u16) -> Mapping,
    ) -> Option<MappingId> {
        let index = self.slab.insert(make)?;
        let mapping = self.slab.get(index)?;
        if mapping.usage == Use::Socket {
            let hash = hasher.endpoint(mapping.proto, mapping.endpoint);
            let slab = &self.slab;
            // Never called: the table has room for twice as many.
            let rehash = |i: &u32| {
                slab.get(*i).map_or(0, |mapping| hasher.endpoint(mapping.proto, mapping.endpoint))
            };
            self.by_socket.insert_unique(hash, index, rehash);
        }
        MappingId::new(index)
    }

    /// One flow more uses it.
    pub(crate) fn hold(&mut self, id: MappingId) {
        if let Some(mapping) = self.slab.get_mut(id.index()) {
            mapping.flows += 1;
        }
    }

    /// One flow less uses it. The mapping, if that was the last.
    pub(crate) fn release(&mut self, hasher: &Hasher, id: MappingId) -> Option<Mapping> {
        let index = id.index();
        let mapping = self.slab.get_mut(index)?;
        mapping.flows = mapping.flows.saturating_sub(1);
        if mapping.flows > 0 {
            return None;
        }
        if mapping.usage == Use::Socket {
            let hash = hasher.endpoint(mapping.proto, mapping.endpoint);
            if let Ok(entry) = self.by_socket.find_entry(hash, |i| *i == index) {
                entry.remove();
            }
        }
        self.slab.remove(index)
    }
}
