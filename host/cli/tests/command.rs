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

const LAPTOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/laptop.tide");
const OPEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/open.tide");

/// Exit code, standard output and standard error.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let out = tidegate(args);
    (out.status.code(), text(&out.stdout).to_owned(), text(&out.stderr).to_owned())
}

fn json(args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let (code, out, _) = run(args);
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn warnings_are_told_and_can_be_denied() {
    let odd = "zone a = netback\nzone b = netfront 0\npolicy a -> b { drop tcp; drop }\n";
    let odd = file("odd.tide", odd);
    let odd = odd.to_str().unwrap();
    let (code, out, told) = run(&["check", odd]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("1 warning, digest") && told.starts_with("warning[redundant]"),
        "{out}{told}"
    );
    assert_eq!(run(&["check", "--deny-warnings", odd]).0, Some(1));
    let (_, report) = json(&["check", "--json", odd]);
    let remark = &report["files"][0]["remarks"][0];
    assert_eq!((&remark["level"], &remark["code"]), (&"warning".into(), &"redundant".into()));
    assert!(!run(&["check", LAPTOP]).2.contains("note["));
    assert!(run(&["check", "--notes", LAPTOP]).2.contains("note[conflict]"));
}

#[test]
fn fmt_changes_a_file_once_and_only_if_it_may() {
    let path = file("fmt.tide", "zone a=netback\nzone b  =netfront 0\npolicy a->b{drop}");
    let path = path.to_str().unwrap();
    assert_eq!(run(&["fmt", "--check", path]).0, Some(1));
    assert_eq!(run(&["fmt", path]).0, Some(0));
    let formatted = std::fs::read_to_string(path).unwrap();
    assert_eq!(formatted, "zone a = netback\nzone b = netfront 0\npolicy a -> b { drop }\n");
    assert_eq!(run(&["fmt", "--check", path]).0, Some(0));
    let bad = file("fmt-bad.tide", "zone = x\n");
    assert_eq!(run(&["fmt", bad.to_str().unwrap()]).0, Some(1));
    assert_eq!(std::fs::read_to_string(&bad).unwrap(), "zone = x\n");
    for example in [LAPTOP, OPEN] {
        assert_eq!(run(&["fmt", "--check", example]).0, Some(0), "{example}");
    }
}

#[test]
fn explain_tells_the_way_and_answers_by_exit_code() {
    let packet = ["explain", LAPTOP, "tcp", "from", "personal", "to", "10.0.0.9:631"];
    let (code, out, _) = run(&packet);
    assert_eq!(code, Some(1));
    assert!(out.contains("does not match: another source"), "{out}");
    assert!(out.contains("laptop.tide:22: reject host-unreachable to private log"), "{out}");
    let (code, out, _) = run(&["explain", LAPTOP, "udp from work to 10.139.1.1:53"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("nat: it was sent to 10.139.1.1:53\n"), "{out}");
    assert!(out.contains("nat: it leaves under the address of the firewall"), "{out}");
    let (_, report) = json(&["explain", "--json", LAPTOP, "tcp from personal to 10.0.0.9:631"]);
    assert_eq!(report["packets"][0]["rule"]["line"], 22);
    assert_eq!(report["packets"][0]["passed"][1]["because"], "another source");
    let (code, _, told) = run(&["explain", LAPTOP, "tcp from wrok to 1.1.1.1:1"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("did you mean `work`?"), "{told}");
}

#[test]
fn prove_says_yes_or_shows_a_packet() {
    let (code, out, _) = run(&["prove", LAPTOP, "personal cannot reach 10.0.0.0/8"]);
    assert_eq!((code, out.as_str()), (Some(0), "yes, for every packet\n"));
    let (code, out, _) = run(&["prove", LAPTOP, "work", "cannot", "reach", "printers"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("no, not for this packet") && out.contains("10.0.0.9:"), "{out}");
    let (_, report) = json(&["prove", "--json", LAPTOP, "work cannot reach printers"]);
    assert_eq!(report["rule"]["text"], "accept print from work to printers");
}

#[test]
fn diff_shows_a_packet_for_each_change() {
    let (code, out, _) = run(&["diff", OPEN, LAPTOP]);
    assert_eq!(code, Some(1));
    assert!(out.contains("was accept\n") && out.contains("now drop\n"), "{out}");
    assert!(out.contains("DNS queries are redirected to other resolvers"), "{out}");
    assert_eq!(run(&["diff", LAPTOP, LAPTOP]).1, "they do the same with every packet\n");
    let (_, report) = json(&["diff", "--json", OPEN, LAPTOP]);
    assert_eq!(report["changes"][0]["old"]["does"], "accept");
}

/// Without them the packet would be another, of which the answer is not true.
#[test]
fn a_packet_that_is_shown_has_the_header_that_rules_look_at() {
    let with = |rules: &str| {
        format!(
            "zone a = netback\nzone b = netfront 0\nnat a -> b masquerade\n\
             policy a -> b {{ {rules}; drop }}\n"
        )
    };
    let keeps = file("keeps.tide", &with("accept tcp ttl 1-3 state established"));
    let none = file("none.tide", &with("drop udp"));
    let (keeps, none) = (keeps.to_str().unwrap(), none.to_str().unwrap());
    let header = ", state established, ttl 1";
    let (_, out, _) = run(&["prove", keeps, "a cannot reach b"]);
    assert!(out.contains(&format!(":443{header}\n")), "{out}");
    let (_, out, _) = run(&["diff", keeps, none]);
    assert!(out.contains(&format!(":443{header}\n")), "{out}");
    let packet = "a -> b tcp from 10.137.0.10 to 192.0.2.1:443 state established ttl 1";
    let (_, out, _) = run(&["explain", keeps, packet]);
    assert!(out.contains(&format!(":443{header}\n")), "{out}");
    let claim = "a cannot reach b";
    for told in [
        &json(&["prove", "--json", keeps, claim]).1["packet"],
        &json(&["diff", "--json", keeps, none]).1["changes"][0]["packet"],
        &json(&["explain", "--json", keeps, packet]).1["packets"][0]["packet"],
    ] {
        assert!(told.as_str().is_some_and(|told| told.ends_with(header)), "{told}");
    }
}

#[test]
fn test_runs_each_expectation() {
    let (code, out, _) = run(&["test", LAPTOP, OPEN]);
    assert_eq!(code, Some(0));
    assert!(out.ends_with("13 expectations met, 0 failed\n"), "{out}");
    let failing = format!("{GOOD}expect accept a -> b tcp from 10.0.0.1 to 1.1.1.1:1\n");
    let failing = file("failing.tide", &failing);
    let (code, out, told) = run(&["test", failing.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(out.contains("FAILED") && told.contains("this rule decided"), "{out}{told}");
    let (_, report) = json(&["test", "--json", failing.to_str().unwrap()]);
    assert_eq!((&report["failed"], &report["expectations"][0]["line"]), (&1.into(), &4.into()));
}

#[test]
fn graph_explain_code_completions_and_man_write_what_they_are_for() {
    let svg = Path::new(env!("CARGO_TARGET_TMPDIR")).join("graph.svg");
    assert_eq!(run(&["graph", LAPTOP, "-o", svg.to_str().unwrap()]).0, Some(0));
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("printers"));
    let (code, out, _) = run(&["explain-code", "shadowed"]);
    assert!(code == Some(0) && out.contains("Wrong:"), "{out}");
    assert!(run(&["explain-code"]).1.lines().any(|line| line == "host-bits"));
    assert_eq!(run(&["explain-code", "nonsense"]).0, Some(1));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).1.contains("explain-code"), "{shell}");
    }
    let man = run(&["man"]).1;
    assert!(man.contains(".TH tidegate 1") && man.contains("deny\\-warnings"), "{man}");
}

/// Every command shows how it is used.
#[test]
fn every_help_has_an_example() {
    let help = run(&["--help"]).1;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let words = commands.lines().filter_map(|line| line.split_whitespace().next());
    let words: Vec<_> = words.filter(|word| *word != "help").collect();
    assert!(words.len() >= 11, "{words:?}");
    for word in words {
        let help = run(&[word, "--help"]).1;
        assert!(help.contains(&format!("  tidegate {word} ")) || word == "man", "{help}");
    }
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
