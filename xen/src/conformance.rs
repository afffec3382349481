//! What Xen does, stated once: rows that hold on the real hypervisor and on the simulation alike.
//!
//! In: an implementation of [`Hypervisor`] in a domain that talks to itself. Out: the first difference
//! from the row. Never: statements that were not seen true on real Xen.

mod copies;
mod events;
mod maps;
mod sleep;
mod vchan;

use crate::hypervisor::{DomId, Hypervisor};
use alloc::format;
use alloc::string::String;
use core::fmt::{self, Debug};

/// One statement about Xen.
pub struct Row<H> {
    /// The statement.
    pub name: &'static str,
    /// Holds in PV only: in PVH mapping one's own grant moves the page instead of showing it twice.
    pub pv_only: bool,
    /// Tries it in the domain with the given number.
    pub run: fn(&mut H, DomId) -> Result<(), Mismatch>,
}

/// How what happened differs from the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All rows.
pub fn rows<H: Hypervisor>() -> impl Iterator<Item = Row<H>> {
    let lists = [events::rows(), sleep::rows(), copies::rows(), maps::rows(), vchan::rows()];
    lists.into_iter().flatten()
}

type Outcome = Result<(), Mismatch>;

/// A row that holds everywhere.
fn row<H>(name: &'static str, run: fn(&mut H, DomId) -> Outcome) -> Row<H> {
    Row { name, pv_only: false, run }
}

/// A row that holds in PV only.
fn pv_row<H>(name: &'static str, run: fn(&mut H, DomId) -> Outcome) -> Row<H> {
    Row { name, pv_only: true, run }
}

fn expect<T: Debug + PartialEq>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(Mismatch(format!("{what}: {found:?}, expected {expected:?}")))
    }
}

/// The value of something that must work before the row can say anything.
fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> Result<T, Mismatch> {
    result.map_err(|error| Mismatch(format!("{what}: {error:?}")))
}
