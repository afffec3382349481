//! `tidegate load` as a person in dom0 meets it. That a real firewall takes what is loaded is shown on
//! the rig.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{Firewall, room, serve};
use tidegate::appliance::delivery::offer::RUNNING;

const OPEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/open.tide");
const LAPTOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/laptop.tide");

/// What came of a run: exit code, both outputs, and the nodes left in XenStore.
type Outcome = (Option<i32>, String, String, BTreeMap<String, Vec<u8>>);

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn command(socket: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let out = command.arg("load").args(args).env("XENSTORED_PATH", socket).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

fn run(name: &str, firewall: Firewall, nodes: &[(&str, &str)], args: &[&str]) -> Outcome {
    let socket = place(name);
    let served = serve(&socket, firewall, nodes);
    let (code, out, told) = command(&socket, args);
    (code, out, told, served.join().unwrap())
}

fn digest(policy: &str) -> String {
    let text = std::fs::read_to_string(policy).unwrap();
    lang::compile(policy, &text).unwrap().policy.digest().to_string()
}

/// Whether nothing of an offer is left.
fn is_clean(nodes: &BTreeMap<String, Vec<u8>>) -> bool {
    nodes.keys().all(|path| !path.contains("/control/"))
}

#[test]
fn a_policy_is_loaded_by_name_or_number_and_nothing_is_left_behind() {
    for domain in ["fw", "7"] {
        let nodes = [room("100000"), (RUNNING, "none")];
        let args = [LAPTOP, "--domain", domain];
        let (code, out, told, left) = run("load-good", Firewall::Answers, &nodes, &args);
        assert_eq!(code, Some(0), "{told}");
        let said =
            format!("{domain}: loaded: laptop.tide {}\n{domain}: was: none\n", digest(LAPTOP));
        assert_eq!(out, said);
        assert!(is_clean(&left), "{left:?}");
    }
    let nodes = [room("100000"), (RUNNING, "none")];
    let args = [OPEN, "--domain", "fw", "--json"];
    let (_, out, _, _) = run("load-json", Firewall::Answers, &nodes, &args);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["ok"], &report["answer"]), (&true.into(), &"loaded".into()));
    assert_eq!(report["policy"], digest(OPEN));
}

#[test]
fn a_dry_run_tells_what_changes_and_loads_nothing() {
    let running = format!("{} open.tide", digest(OPEN));
    let nodes = [room("100000"), (RUNNING, &*running)];
    let args = [LAPTOP, "--domain", "fw", "--dry-run", "--since", OPEN];
    let (code, out, told, left) = run("load-dry", Firewall::Silent, &nodes, &args);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        out.contains("was accept\n") && out.contains("fw: would be loaded: laptop.tide"),
        "{out}"
    );
    assert!(is_clean(&left));
    // What is compared with must be what runs.
    let args = [OPEN, "--domain", "fw", "--dry-run", "--since", LAPTOP];
    let (code, _, told, _) = run("load-other", Firewall::Silent, &nodes, &args);
    assert!(code == Some(1) && told.contains("is not what runs there"), "{told}");
}

#[test]
fn what_cannot_be_loaded_is_said_and_leaves_nothing_behind() {
    let nodes = [room("100"), (RUNNING, "none")];
    let args = [LAPTOP, "--domain", "fw"];
    let (code, _, told, left) = run("load-long", Firewall::Answers, &nodes, &args);
    assert!(code == Some(1) && told.contains("there is room for 100"), "{told}");
    assert!(is_clean(&left));

    let nodes = [room("100000"), (RUNNING, "none")];
    let args = [LAPTOP, "--domain", "fw", "--wait", "1"];
    let (code, _, told, left) = run("load-silent", Firewall::Silent, &nodes, &args);
    assert!(code == Some(2) && told.contains("no answer within 1 s"), "{told}");
    assert!(is_clean(&left), "{left:?}");
    let (code, _, told, left) = run("load-rude", Firewall::Rude, &nodes, &args);
    assert!(
        code == Some(1) && told.contains(r"refused: \u{1b}[2J") && told.contains("stays"),
        "{told}"
    );
    assert!(is_clean(&left));

    let (code, _, told, _) =
        run("load-nobody", Firewall::Answers, &nodes, &[OPEN, "--domain", "no"]);
    assert!(code == Some(2) && told.contains("no such domain"), "{told}");
    let (code, _, told, _) = run("load-linux", Firewall::Answers, &[], &args);
    assert!(code == Some(2) && told.contains("no Tidegate"), "{told}");
    let (code, _, told) = command(&place("no-socket"), &[OPEN, "--domain", "fw"]);
    assert!(code == Some(2) && told.contains("is this dom0"), "{told}");
}

#[test]
fn a_policy_with_a_mistake_reaches_no_store() {
    let bad = place("load-bad.tide");
    std::fs::write(&bad, "zone a = netback\npolicy a -> b { drop }\n").unwrap();
    let (code, _, told) = command(&place("no-socket"), &[bad.to_str().unwrap(), "--domain", "fw"]);
    assert!(code == Some(1) && told.contains("load-bad.tide:2:13"), "{told}");
}
