//! `tidegate test`: whether policies do what they expect of themselves.

use crate::{Unusable, check, count, read, refuse, tell};
use serde_json::json;
use std::path::PathBuf;

/// Tests `files`; whether all expectations are met.
pub(crate) fn run(files: &[PathBuf], json: bool) -> Result<bool, Unusable> {
    let (mut met, mut failed, mut readable) = (0usize, 0usize, true);
    let mut outcomes = Vec::new();
    for path in files {
        let name = path.to_string_lossy();
        let expectations = match lang::expectations((&name, &read(path)?)) {
            Ok(expectations) => expectations,
            Err(mistakes) => {
                readable = refuse(&mistakes, false);
                continue;
            }
        };
        for one in expectations {
            let ok = one.failed.is_empty();
            let counter = if ok { &mut met } else { &mut failed };
            *counter = counter.saturating_add(1);
            if json {
                let mistakes: Vec<_> = one.failed.iter().map(check::diagnostic).collect();
                outcomes.push(json!({
                    "file": name, "line": one.line, "text": one.text, "ok": ok, "mistakes": mistakes,
                }));
                continue;
            }
            println!("{} {name}:{}: {}", if ok { "ok    " } else { "FAILED" }, one.line, one.text);
            tell(&one.failed);
        }
    }
    let ok = failed == 0 && readable;
    if json {
        println!(
            "{:#}",
            json!({ "ok": ok, "met": met, "failed": failed, "expectations": outcomes })
        );
    } else {
        println!("{} met, {failed} failed", count(met, "expectation"));
    }
    Ok(ok)
}
