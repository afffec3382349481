//! The `tidegate` command as a person or a script meets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: &str = "zone a = netback\nzone b = netfront 0\npolicy a -> b { drop }\n";
const BAD: &str = "zone a = netback\nzone b = netfront 0\npolicy a -> b { dorp }\n";

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().unwrap()
}

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_tells_good_from_bad_by_exit_code_and_shows_the_place() {
    let (good, bad) = (file("check-good.tide", GOOD), file("check-bad.tide", BAD));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let out = tidegate(&["check", good]);
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("good; 1 rule, 0 expectations met, digest "));

    let out = tidegate(&["check", good, bad]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stdout).contains("check-bad.tide: 1 mistake"));
    let told = text(&out.stderr);
    assert!(
        told.contains("check-bad.tide:3:17") && told.contains("did you mean `drop`?"),
        "{told}"
    );
    assert!(!told.contains('\u{1b}'), "no colour where nobody looks");
}

#[test]
fn json_says_the_same_to_programs() {
    let (good, bad) = (file("json-good.tide", GOOD), file("json-bad.tide", BAD));
    let out = tidegate(&["check", "--json", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["files"][0]["ok"], true);
    assert_eq!(json["files"][0]["digest"].as_str().unwrap().len(), 64);
    let mistake = &json["files"][1]["mistakes"][0];
    assert_eq!((mistake["line"].as_u64(), mistake["column"].as_u64()), (Some(3), Some(17)));
    assert_eq!(mistake["code"], "expected");
    assert_eq!(mistake["help"][0], "did you mean `drop`?");
}

#[test]
fn compile_writes_a_blob_or_nothing() {
    let (good, bad) = (file("compile-good.tide", GOOD), file("compile-bad.tide", BAD));
    let blob = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy.blob");
    let _ = std::fs::remove_file(&blob);
    let run = |policy: &Path| {
        tidegate(&["compile", policy.to_str().unwrap(), "-o", blob.to_str().unwrap()])
    };
    let out = run(&bad);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("nothing written") && !blob.exists());

    let out = run(&good);
    assert_eq!(out.status.code(), Some(0));
    let policy = rules::Policy::decode(&std::fs::read(&blob).unwrap()).unwrap();
    assert_eq!(policy.name(), "compile-good.tide");
    assert!(text(&out.stdout).contains(&policy.digest().to_string()));
}

#[test]
fn what_cannot_be_used_is_another_exit_code() {
    let out = tidegate(&["check", "/nowhere/my.tide"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("error: cannot read /nowhere/my.tide: "));
    assert_eq!(tidegate(&["chekc"]).status.code(), Some(2));
    let help = tidegate(&["--help"]);
    assert!(text(&help.stdout).contains("tidegate compile my.tide -o my.blob"));
}
