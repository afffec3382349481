//! `tidegate build` and `tidegate verify` as a person or a script meets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../../image/tests/elf/mod.rs"]
mod elf;

use rules::Digest;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const OPEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/open.tide");
const LAPTOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/laptop.tide");

/// A directory of one test's own, with a kernel in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        drop(fs::remove_dir_all(&place.0));
        fs::create_dir_all(&place.0).unwrap();
        place.write("kernel", &elf::kernel());
        place
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `tidegate` here: exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let out = command.args(args).current_dir(&self.0).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let (code, out, told) = self.run(args);
        (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{told}")))
    }
}

#[test]
fn an_image_says_which_kernel_policy_and_text_are_in_it() {
    let place = Place::new("image-says");
    let (code, out, told) = place.run(&["build", OPEN, "--kernel", "kernel", "-o", "vmlinuz"]);
    assert_eq!(code, Some(0), "{told}");
    let kernel = Digest::of(&elf::kernel()).to_string();
    assert!(out.contains(&format!("kernel {kernel}\n")), "{out}");

    let (code, out, _) = place.run(&["verify", "vmlinuz"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with(&format!("kernel {kernel}\npolicy ")), "{out}");
    assert!(out.contains("this text makes that policy") && out.contains("masquerade"), "{out}");
    assert_eq!(place.run(&["verify", "--text", "vmlinuz"]).1, fs::read_to_string(OPEN).unwrap());

    let (code, report) = place.json(&["verify", "--json", "vmlinuz"]);
    let (_, checked) = place.json(&["check", "--json", OPEN]);
    assert_eq!((code, &report["ok"], &report["kernel"]), (Some(0), &true.into(), &kernel.into()));
    assert_eq!(report["policy"]["digest"], checked["files"][0]["digest"]);
    assert_eq!(
        (&report["policy"]["name"], &report["policy"]["agrees"]),
        (&"open.tide".into(), &true.into())
    );
}

#[test]
fn the_same_policy_and_kernel_make_the_same_bytes_whatever_was_there_before() {
    let place = Place::new("image-same");
    for (policy, kernel, to) in
        [(OPEN, "kernel", "a"), (LAPTOP, "a", "b"), (LAPTOP, "kernel", "c"), (OPEN, "b", "b")]
    {
        assert_eq!(place.run(&["build", policy, "--kernel", kernel, "-o", to]).0, Some(0));
    }
    assert_eq!(place.read("a"), place.read("b"));
    assert_ne!(place.read("a"), place.read("c"));
}

#[test]
fn a_policy_with_a_mistake_leaves_what_was_there() {
    let place = Place::new("image-mistake");
    place.write("vmlinuz", b"the old one");
    place.write("bad.tide", b"zone a = netback\nzone b = netfront 0\npolicy a -> b { dorp }\n");
    let build = ["build", "bad.tide", "--kernel", "kernel", "-o", "vmlinuz"];
    let (code, _, told) = place.run(&build);
    assert_eq!(code, Some(1));
    assert!(told.contains("bad.tide:3:17") && told.contains("nothing written"), "{told}");
    let (code, report) = place.json(&[&build[..], &["--json"]].concat());
    assert_eq!((code, &report["ok"]), (Some(1), &false.into()));
    assert_eq!(place.read("vmlinuz"), b"the old one");
    assert_eq!(place.names(), ["bad.tide", "kernel", "vmlinuz"], "nothing half done is left");
}

#[test]
fn what_cannot_be_used_as_a_kernel_or_be_written_is_said_with_a_way_out() {
    let place = Place::new("image-unusable");
    let (code, _, told) = place.run(&["build", OPEN, "--kernel", OPEN, "-o", "vmlinuz"]);
    assert!(code == Some(2) && told.contains("not a kernel"), "{told}");
    let (code, _, told) = place.run(&["build", OPEN, "--kernel", "kernel", "-o", "no/where"]);
    assert!(code == Some(2) && told.contains("cannot write no/where"), "{told}");
    if !std::path::Path::new("/usr/lib/tidegate/vmlinuz").exists() {
        let (code, _, told) = place.run(&["build", OPEN, "-o", "vmlinuz"]);
        assert!(code == Some(2) && told.contains("--kernel FILE"), "{told}");
    }
    assert_eq!(place.names(), ["kernel"]);
}

#[test]
fn an_image_that_was_changed_or_whose_text_tells_another_story_is_found_out() {
    let place = Place::new("image-changed");
    assert_eq!(place.run(&["build", OPEN, "--kernel", "kernel", "-o", "vmlinuz"]).0, Some(0));
    let image = place.read("vmlinuz");
    let comment = image.windows(4).position(|w| w == b"Lets").unwrap();

    let mut changed = image.clone();
    changed[300] ^= 1;
    place.write("changed", &changed);
    let (_, report) = place.json(&["verify", "--json", "changed"]);
    assert_ne!(report["kernel"], Digest::of(&elf::kernel()).to_string());

    // A comment may say anything; a rule may not.
    let mut changed = image.clone();
    changed[comment] = b'B';
    place.write("changed", &changed);
    assert_eq!(place.run(&["verify", "changed"]).0, Some(0));
    let text = fs::read_to_string(OPEN).unwrap().replace("    accept\n", "    drop  \n");
    let end = image.len() - 32;
    let lies = [&image[..end - text.len()], text.as_bytes(), &image[end..]].concat();
    place.write("lies", &lies);
    let (code, out, _) = place.run(&["verify", "lies"]);
    assert!(code == Some(1) && out.contains("NOT made of the text"), "{out}");
    let (_, report) = place.json(&["verify", "--json", "lies"]);
    assert_eq!((&report["ok"], &report["policy"]["agrees"]), (&false.into(), &false.into()));

    place.write("cut", &image[..image.len() - 1]);
    let (code, _, told) = place.run(&["verify", "cut"]);
    assert!(code == Some(1) && told.contains("was changed after"), "{told}");
    let (code, out, _) = place.run(&["verify", "kernel"]);
    assert!(code == Some(0) && out.ends_with("no policy is in it\n"), "{out}");
}
