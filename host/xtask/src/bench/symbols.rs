//! Names for addresses: of the hypervisor, of Linux and of our own kernel.
//!
//! In: tables as `nm` prints them, and what dom0 knows. Out: the function an address
//! lies in, or the hypercall a guest went in by.

use rig::{Context as _, Domain, Result, run};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Numbers of the hypercalls a network guest makes (__HYPERVISOR_*, xen.h).
const HYPERCALLS: [(u64, &str); 9] = [
    (1, "mmu_update"),
    (12, "memory_op"),
    (14, "update_va_mapping"),
    (17, "xen_version"),
    (20, "grant_table_op"),
    (23, "iret"),
    (24, "vcpu_op"),
    (29, "sched_op"),
    (32, "event_channel_op"),
];
/// Bytes between two hypercalls' entries in the page that Xen fills.
const ENTRY: u64 = 32;
const PAGE: u64 = 4096;
const HYPERCALL_PAGE: &str = "hypercall_page";

/// Where each function starts.
#[derive(Debug, Default)]
pub(crate) struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Of an ELF file on the host; empty if it was stripped.
    pub(crate) fn of_elf(elf: &Path) -> Result<Self> {
        Ok(Self::parse(&run(Command::new("nm").args(["--demangle", "--defined-only"]).arg(elf))?))
    }

    /// Those of the hypervisor and of the rig's Linux that `addresses` lie in. All Linux domains boot
    /// the same kernel; its modules lie elsewhere in each, and have no names here.
    pub(crate) fn of_kernels(dom0: &Domain, addresses: &[u64]) -> Result<Self> {
        Ok(Self(dom0.functions(addresses).context("the kernels' symbols")?))
    }

    fn parse(text: &str) -> Self {
        let code = |kind: &str| matches!(kind, "t" | "T" | "w" | "W");
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let at = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next()?;
            let name = without_hash(words.next()?.trim());
            code(kind).then(|| (at, name.to_owned()))
        };
        let mut symbols = BTreeMap::new();
        for (at, name) in text.lines().filter_map(entry) {
            // The page may have other names too.
            if symbols.get(&at).is_none_or(|old| old != HYPERCALL_PAGE) {
                symbols.insert(at, name);
            }
        }
        Self(symbols)
    }

    /// The function an address lies in.
    pub(crate) fn name(&self, address: u64) -> Option<&str> {
        self.0.range(..=address).next_back().map(|(_, name)| name.as_str())
    }

    /// The hypercall whose entry a guest will return to, or that it was interrupted.
    pub(crate) fn hypercall(&self, from: u64) -> String {
        // Linux names each entry.
        if let Some(name) = self.name(from).and_then(|name| name.strip_prefix("xen_hypercall_")) {
            return name.to_owned();
        }
        let page = self.0.range(..=from).rev().find(|(_, name)| *name == HYPERCALL_PAGE);
        let offset = page.map(|(at, _)| from - at).filter(|offset| *offset < PAGE);
        match offset.map(|offset| offset / ENTRY) {
            None => format!("no hypercall, but in {}", self.name(from).unwrap_or("unknown code")),
            Some(number) => HYPERCALLS
                .iter()
                .find(|(known, _)| *known == number)
                .map_or_else(|| format!("hypercall {number}"), |(_, name)| (*name).to_owned()),
        }
    }
}

/// What the compiler adds to tell instances apart (`::h` and 16 digits) says nothing here.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 && u64::from_str_radix(hash, 16).is_ok() => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "0000000000100000 T hypercall_page\n0000000000100000 T image_start\n0000000000101000 t core::fmt::write\n\
                         0000000000101040 T <a as x::hyper::B>::c::h0123456789abcdef\n0000000000102000 D data\n";

    #[test]
    fn an_address_has_the_name_of_the_function_before_it() {
        let symbols = Symbols::parse(TABLE);
        assert_eq!(symbols.name(0x10103f), Some("core::fmt::write"));
        assert_eq!(symbols.name(0x101040), Some("<a as x::hyper::B>::c"));
        assert_eq!(symbols.name(0x103000), Some("<a as x::hyper::B>::c"), "data are no functions");
        assert_eq!(symbols.name(0xfffff), None);
    }

    #[test]
    fn a_return_address_in_the_page_tells_the_hypercall() {
        let symbols = Symbols::parse(TABLE);
        assert_eq!(symbols.hypercall(0x100000 + 20 * 32 + 11), "grant_table_op");
        assert_eq!(symbols.hypercall(0x100000 + 99 * 32), "hypercall 99");
        assert!(symbols.hypercall(0x101050).starts_with("no hypercall"));
    }
}
