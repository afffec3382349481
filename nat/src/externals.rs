//! The external addresses that flows are using, so that a flow only keeps a number.
//!
//! In: addresses. Out: small numbers, valid while counted as used. Never: more than 256 at once.

use crate::flow::ExternalId;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Most external addresses in use at once.
const MOST: usize = 256;

/// Bytes of the table.
pub(crate) const BYTES: usize = MOST * size_of::<(IpAddr, u32)>();

/// Addresses, each with how many mappings use it. Unused ones make room for others.
#[derive(Debug)]
pub(crate) struct Externals(Vec<(IpAddr, u32)>);

impl Externals {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(MOST))
    }

    /// The number of an address, new if need be; `None` if all numbers are in use.
    pub(crate) fn number(&mut self, addr: IpAddr) -> Option<ExternalId> {
        let number = if let Some(known) = self.0.iter().position(|(a, _)| *a == addr) {
            known
        } else if let Some(unused) = self.0.iter().position(|(_, users)| *users == 0) {
            *self.0.get_mut(unused)? = (addr, 0);
            unused
        } else if self.0.len() < MOST {
            self.0.push((addr, 0));
            self.0.len() - 1
        } else {
            return None;
        };
        u8::try_from(number).ok().map(ExternalId)
    }

    /// The address of a number.
    pub(crate) fn addr(&self, id: ExternalId) -> Option<IpAddr> {
        self.0.get(usize::from(id.0)).map(|(addr, _)| *addr)
    }

    /// One mapping more uses it.
    pub(crate) fn hold(&mut self, id: ExternalId) {
        if let Some((_, users)) = self.0.get_mut(usize::from(id.0)) {
            *users += 1;
        }
    }

    /// One less.
    pub(crate) fn release(&mut self, id: ExternalId) {
        if let Some((_, users)) = self.0.get_mut(usize::from(id.0)) {
            *users = users.saturating_sub(1);
        }
    }
}
