//! What examples and the document's policies expect of themselves is what the firewall itself does: each
//! expectation is put to it as a packet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use rules::RejectKind;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn json(args: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().unwrap();
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// The examples, and the policies of docs/POLICY.md.
fn policies() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join("examples")).unwrap();
    let is_policy = |path: &PathBuf| path.extension() == Some("tide".as_ref());
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(is_policy).collect();
    let document = fs::read_to_string(Path::new(ROOT).join("docs/POLICY.md")).unwrap();
    for (n, rest) in document.split("```tide\n").skip(1).enumerate() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("document-{n}.tide"));
        fs::write(&path, rest.split("```").next().unwrap()).unwrap();
        found.push(path);
    }
    found
}

/// What became of the packets of an expectation by the firewall itself, as `expect` says it.
fn fates(policy: &str, packet: &str) -> Vec<Option<&'static str>> {
    let explained = json(&["explain", "--json", policy, packet]);
    let fate = |packet: &Value| match packet["firewall"].as_str()? {
        said if said.starts_with("passes, leaves as ") => Some("accept"),
        "refused, and its sender is told" => Some("reject"),
        said if said.starts_with("refused") => Some("drop"),
        said => panic!("{policy}: {packet}: {said}"),
    };
    explained["packets"].as_array().unwrap().iter().map(fate).collect()
}

#[test]
fn what_policies_expect_is_what_the_firewall_does() {
    let kinds = RejectKind::ALL.map(RejectKind::name);
    let mut seen = [0; 4];
    for path in policies() {
        let policy = path.to_str().unwrap();
        let report = json(&["test", "--json", policy]);
        for expectation in report["expectations"].as_array().unwrap() {
            let text = expectation["text"].as_str().unwrap();
            let mut words = text.split(' ').skip(1).peekable();
            let wanted = words.next().unwrap();
            words.next_if(|word| kinds.contains(word));
            let packet = words.collect::<Vec<_>>().join(" ");
            for fate in fates(policy, &packet) {
                // A flow that older rules accepted cannot be begun.
                assert!(fate.is_some() || packet.contains("established"), "{text}");
                assert_eq!(fate.unwrap_or(wanted), wanted, "{policy}: {text}");
                let all = [Some("accept"), Some("reject"), Some("drop"), None];
                seen[all.iter().position(|one| *one == fate).unwrap()] += 1;
            }
        }
    }
    let [accepted, rejected, dropped, unasked] = seen;
    assert!(accepted >= 25 && rejected >= 15 && dropped >= 10 && unasked <= 1, "{seen:?}");
}

/// Whoever needs one of these finds it.
#[test]
fn there_is_an_example_of_each_use() {
    let names = ["laptop", "router", "bridge", "dmz", "vpn", "gateway", "qubes", "open"];
    for name in names.into_iter().chain(["two-uplinks", "updates"]) {
        assert!(Path::new(ROOT).join(format!("examples/{name}.tide")).is_file(), "{name}");
    }
}
