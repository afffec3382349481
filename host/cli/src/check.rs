//! `tidegate check`: reads policies and tells what is wrong with them. Never writes a file.

use crate::{Unusable, count, read, tell};
use lang::{Compiled, Diagnostic};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Checks `files`; whether all of them can be obeyed.
pub(crate) fn run(files: &[PathBuf], json: bool) -> Result<bool, Unusable> {
    let mut all_good = true;
    let mut reports = Vec::new();
    for path in files {
        let name = path.to_string_lossy();
        let outcome = lang::compile(&name, &read(path)?);
        all_good &= outcome.is_ok();
        if json {
            reports.push(report(&name, &outcome));
            continue;
        }
        match outcome {
            Ok(compiled) => println!("{}", summary(&name, &compiled)),
            Err(mistakes) => {
                tell(&mistakes);
                println!("{name}: {}", count(mistakes.len(), "mistake"));
            }
        }
    }
    if json {
        println!("{:#}", json!({ "ok": all_good, "files": reports }));
    }
    Ok(all_good)
}

fn summary(name: &str, compiled: &Compiled) -> String {
    let rules = count(rules(compiled), "rule");
    let expectations = count(compiled.expectations, "expectation");
    format!("{name}: good; {rules}, {expectations} met, digest {}", compiled.policy.digest())
}

fn rules(compiled: &Compiled) -> usize {
    compiled.policy.rule_ids().count().saturating_sub(1)
}

fn report(name: &str, outcome: &Result<Compiled, Vec<Diagnostic>>) -> Value {
    match outcome {
        Ok(compiled) => json!({
            "file": name,
            "ok": true,
            "rules": rules(compiled),
            "expectations": compiled.expectations,
            "digest": compiled.policy.digest().to_string(),
            "mistakes": [],
        }),
        Err(mistakes) => json!({
            "file": name,
            "ok": false,
            "mistakes": mistakes.iter().map(mistake).collect::<Vec<_>>(),
        }),
    }
}

fn mistake(mistake: &Diagnostic) -> Value {
    let label = |label: &lang::Label| {
        let place = mistake.place_of(label);
        json!({ "line": place.line, "column": place.column, "text": label.text })
    };
    let place = mistake.place();
    json!({
        "code": mistake.code,
        "message": mistake.message,
        "line": place.line,
        "column": place.column,
        "label": mistake.primary.text,
        "see": mistake.secondary.iter().map(label).collect::<Vec<_>>(),
        "help": mistake.help,
    })
}
