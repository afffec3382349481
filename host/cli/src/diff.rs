//! `tidegate diff`: what a new version of a policy does differently.

use crate::{Unusable, at, count, read, refuse, rule};
use lang::Difference;
use serde_json::json;
use std::path::Path;

/// Compares two policies; whether they do the same.
pub(crate) fn run(old: &Path, new: &Path, json: bool) -> Result<bool, Unusable> {
    let (old_text, new_text) = (read(old)?, read(new)?);
    let (old_name, new_name) = (old.to_string_lossy(), new.to_string_lossy());
    let found = match lang::diff((&old_name, &old_text), (&new_name, &new_text)) {
        Ok(found) => found,
        Err(mistakes) => return Ok(refuse(&mistakes, json)),
    };
    let same = is_same(&found);
    if json {
        println!("{:#}", value(&found, same));
        return Ok(same);
    }
    print((old, new), &found);
    Ok(same)
}

fn is_same(found: &Difference) -> bool {
    found.changes.is_empty() && found.others.is_empty() && !found.incomplete
}

/// Prints what differs between two files.
pub(crate) fn print((old, new): (&Path, &Path), found: &Difference) {
    for change in &found.changes {
        let (from, to) = (change.packet.packet.from, change.packet.packet.to);
        println!("{from} -> {to}: {}", change.packet);
        println!("  was {}\n      {}", change.old.does, at(old, &change.old));
        println!("  now {}\n      {}", change.new.does, at(new, &change.new));
    }
    for other in &found.others {
        println!("{other}");
    }
    if found.incomplete {
        println!("the policies are too tangled to find everything that differs");
    } else if is_same(found) {
        println!("they do the same with every packet");
    } else {
        println!("{}", count(found.changes.len(), "change"));
    }
}

fn value(found: &Difference, same: bool) -> serde_json::Value {
    let changes = found.changes.iter().map(|change| {
        json!({
            "packet": crate::packet_text(&change.packet.packet),
            "from": change.packet.packet.from.to_string(),
            "to": change.packet.packet.to.to_string(),
            "hosts": crate::hosts(&change.packet),
            "old": rule(&change.old),
            "new": rule(&change.new),
        })
    });
    json!({
        "ok": true,
        "same": same,
        "changes": changes.collect::<Vec<_>>(),
        "others": found.others,
        "incomplete": found.incomplete,
    })
}
