//! `tidegate check`: reads policies and tells what is wrong with them, and what is odd. Never writes a
//! file.

use crate::{Unusable, count, read, tell};
use lang::{Compiled, Diagnostic, Level};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What is to be told, and how.
pub(crate) struct Wanted {
    pub(crate) json: bool,
    pub(crate) notes: bool,
    pub(crate) deny_warnings: bool,
}

/// Checks `files`; whether all of them can be obeyed.
pub(crate) fn run(files: &[PathBuf], wanted: &Wanted) -> Result<bool, Unusable> {
    let mut all_good = true;
    let mut reports = Vec::new();
    for path in files {
        let name = path.to_string_lossy();
        let (compiled, mut found) = lang::check(&name, &read(path)?);
        found.retain(|one| wanted.notes || one.level != Level::Note);
        all_good &= compiled.is_some() && !(wanted.deny_warnings && warnings(&found) > 0);
        if wanted.json {
            reports.push(report(&name, compiled.as_ref(), &found));
            continue;
        }
        tell(&found);
        match compiled {
            Some(compiled) => println!("{}", summary(&name, &compiled, warnings(&found))),
            None => {
                let mistakes = found.iter().filter(|one| one.level == Level::Error).count();
                println!("{name}: {}", count(mistakes, "mistake"));
            }
        }
    }
    if wanted.json {
        println!("{:#}", json!({ "ok": all_good, "files": reports }));
    }
    Ok(all_good)
}

fn warnings(found: &[Diagnostic]) -> usize {
    found.iter().filter(|one| one.level == Level::Warning).count()
}

fn summary(name: &str, compiled: &Compiled, warnings: usize) -> String {
    let rules = count(rules(compiled), "rule");
    let expectations = count(compiled.expectations, "expectation");
    let warned = match warnings {
        0 => String::new(),
        n => format!("{}, ", count(n, "warning")),
    };
    let digest = compiled.policy.digest();
    format!("{name}: good; {rules}, {expectations} met, {warned}digest {digest}")
}

fn rules(compiled: &Compiled) -> usize {
    compiled.policy.rule_ids().count().saturating_sub(1)
}

fn report(name: &str, compiled: Option<&Compiled>, found: &[Diagnostic]) -> Value {
    let of = |error: bool| {
        let fitting = found.iter().filter(|one| (one.level == Level::Error) == error);
        fitting.map(diagnostic).collect::<Vec<_>>()
    };
    let (mistakes, remarks) = (of(true), of(false));
    match compiled {
        Some(compiled) => json!({
            "file": name,
            "ok": true,
            "rules": rules(compiled),
            "expectations": compiled.expectations,
            "digest": compiled.policy.digest().to_string(),
            "mistakes": mistakes,
            "remarks": remarks,
        }),
        None => json!({ "file": name, "ok": false, "mistakes": mistakes, "remarks": remarks }),
    }
}

/// A mistake or remark as JSON.
pub(crate) fn diagnostic(one: &Diagnostic) -> Value {
    let label = |label: &lang::Label| {
        let place = one.place_of(label);
        json!({ "line": place.line, "column": place.column, "text": label.text })
    };
    let place = one.place();
    json!({
        "level": one.level.name(),
        "code": one.code,
        "message": one.message,
        "line": place.line,
        "column": place.column,
        "label": one.primary.text,
        "see": one.secondary.iter().map(label).collect::<Vec<_>>(),
        "example": one.example,
        "help": one.help,
    })
}
