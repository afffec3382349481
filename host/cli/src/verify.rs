//! `tidegate verify`: what is in an image: which kernel, which policy, and whether that policy is what
//! its text says. Never believes the image: the policy is compiled again.

use crate::{Unusable, unusable};
use image::{Embedded, Image};
use rules::Policy;
use serde_json::{Value, json};
use std::path::Path;

/// How to tell it.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) json: bool,
    pub(crate) text: bool,
}

/// A policy that was found.
struct Found {
    policy: Policy,
    text: String,
    /// Why its text is not what it was made of.
    disagrees: Option<String>,
}

/// Tells what `file` holds; whether all of it fits together.
pub(crate) fn run(file: &Path, wanted: Wanted) -> Result<bool, Unusable> {
    let bytes = std::fs::read(file).map_err(|why| unusable(file, "read", why))?;
    let image = match Image::parse(&bytes) {
        Ok(image) => image,
        Err(why) => return Ok(no(file, wanted, &why.to_string())),
    };
    let found = match image.policy.map(look).transpose() {
        Ok(found) => found,
        Err(why) => return Ok(no(file, wanted, &why)),
    };
    let agrees = found.as_ref().is_none_or(|found| found.disagrees.is_none());
    let kernel = image.kernel.digest().to_string();
    if wanted.json {
        let policy = found.as_ref().map(value);
        println!("{:#}", json!({ "ok": agrees, "kernel": kernel, "policy": policy }));
        return Ok(agrees);
    }
    match found {
        Some(found) if wanted.text => print!("{}", found.text),
        Some(found) => print(&kernel, &found),
        None => println!("kernel {kernel}\nno policy is in it"),
    }
    Ok(agrees)
}

fn no(file: &Path, wanted: Wanted, why: &str) -> bool {
    if wanted.json {
        println!("{:#}", json!({ "ok": false, "why": why }));
    } else {
        eprintln!("{}: {why}", file.display());
    }
    false
}

fn look(embedded: Embedded) -> Result<Found, String> {
    let Embedded { blob, text } = embedded;
    let policy =
        Policy::decode(&blob).map_err(|why| format!("the policy in it is broken: {why}"))?;
    let disagrees = match lang::compile(policy.name(), &text) {
        Ok(compiled) if compiled.blob == blob => None,
        Ok(compiled) => {
            Some(format!("the text makes another policy, {}", compiled.policy.digest()))
        }
        Err(_) => Some("the text makes no policy".to_owned()),
    };
    Ok(Found { policy, text, disagrees })
}

fn print(kernel: &str, found: &Found) {
    println!("kernel {kernel}");
    println!("policy {} {}", found.policy.digest(), found.policy.name());
    let says = match &found.disagrees {
        None => "this text makes that policy".to_owned(),
        Some(why) => format!("NOT made of the text in the image: {why}"),
    };
    println!("{says}:\n\n{}", found.text.trim_end());
}

fn value(found: &Found) -> Value {
    json!({
        "name": found.policy.name(),
        "digest": found.policy.digest().to_string(),
        "rules": found.policy.rule_ids().count().saturating_sub(1),
        "text": found.text,
        "agrees": found.disagrees.is_none(),
        "why": found.disagrees,
    })
}
