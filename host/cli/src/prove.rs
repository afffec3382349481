//! `tidegate prove`: whether a claim holds for every packet it speaks of.

use crate::{Unusable, at, read, refuse, rule};
use lang::Proof;
use serde_json::json;
use std::path::Path;

/// Proves `claim` about `file`; whether it holds.
pub(crate) fn run(file: &Path, claim: &str, json: bool) -> Result<bool, Unusable> {
    let (name, text) = (file.to_string_lossy(), read(file)?);
    let proof = match lang::prove((&name, &text), claim) {
        Ok(proof) => proof,
        Err(mistakes) => return Ok(refuse(&mistakes, json)),
    };
    let holds = matches!(proof, Proof::Holds);
    if json {
        let (example, by) = match &proof {
            Proof::Fails(shown) => (Some(&shown.0), Some(rule(&shown.1))),
            Proof::Holds | Proof::Nothing | Proof::Unknown => (None, None),
        };
        let packet = example.map(|example| crate::packet_text(&example.packet));
        let hosts = example.map(crate::hosts);
        let answer = answer(&proof);
        let told = json!({
            "ok": true, "answer": answer, "packet": packet, "hosts": hosts, "rule": by,
        });
        println!("{told:#}");
        return Ok(holds);
    }
    println!("{}", answer(&proof));
    if let Proof::Fails(shown) = &proof {
        let (example, by) = shown.as_ref();
        println!("  {} -> {}: {example}", example.packet.from, example.packet.to);
        println!("  {}", at(file, by));
    }
    Ok(holds)
}

const fn answer(proof: &Proof) -> &'static str {
    match proof {
        Proof::Holds => "yes, for every packet",
        Proof::Fails(_) => "no, not for this packet",
        Proof::Nothing => "no packet is like that, so there is nothing to prove",
        Proof::Unknown => "the policy is too tangled to tell",
    }
}
