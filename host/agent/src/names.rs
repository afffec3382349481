//! Names of the functions that addresses lie in: of the hypervisor and of this Linux, both of which
//! only dom0 can ask for.
//!
//! In: hexadecimal addresses. Out: for each the start and name of its function, as one map.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Tables of `address type name`, which neither kernel mixes with the other's addresses.
const TABLES: [&str; 2] = ["/proc/xen/xensyms", "/proc/kallsyms"];

/// Looks up addresses, separated by white space; those that lie in no function are left out.
pub(crate) fn of(addresses: &str) -> io::Result<BTreeMap<String, String>> {
    let tables = TABLES.map(fs::read_to_string).into_iter().collect::<io::Result<String>>()?;
    let functions: BTreeMap<u64, &str> = tables.lines().filter_map(function).collect();
    let find = |word: &str| {
        let (at, name) = functions.range(..=hex(word)?).next_back()?;
        Some((format!("{at:x}"), (*name).to_owned()))
    };
    Ok(addresses.split_whitespace().filter_map(find).collect())
}

/// Modules are left out: they lie elsewhere in each domain.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_whitespace();
    let (at, kind, name) = (hex(words.next()?)?, words.next()?, words.next()?);
    let code = kind.eq_ignore_ascii_case("t") && words.next().is_none();
    (code && at != 0).then_some((at, name))
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}
