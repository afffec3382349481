//! Every policy under tests/broken/ is refused with exactly the text beside it. After a change that
//! is meant, `TIDEGATE_WRITE_EXPECTED=1 cargo test -p tidegate-lang` writes the texts anew: read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn policies() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.extension() == Some("tide".as_ref())).collect();
    found.sort();
    found
}

fn mistakes(path: &Path) -> Vec<lang::Diagnostic> {
    let name = path.file_name().unwrap().to_str().unwrap();
    lang::compile(name, &fs::read_to_string(path).unwrap()).expect_err(name)
}

#[test]
fn each_broken_policy_is_refused_with_the_text_beside_it() {
    let write = std::env::var_os("TIDEGATE_WRITE_EXPECTED").is_some();
    let mut differing = Vec::new();
    for path in policies() {
        let texts: Vec<_> = mistakes(&path).iter().map(lang::Diagnostic::render).collect();
        let text = texts.join("\n\n") + "\n";
        let expected = path.with_extension("txt");
        if write {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            println!("{}:\n{text}", path.display());
            differing.push(path);
        }
    }
    assert!(differing.is_empty(), "not as expected: {differing:?}");
}

/// A kind of mistake that no policy here makes would be one whose text nobody has read.
#[test]
fn each_kind_of_mistake_is_made_by_some_policy() {
    let made: BTreeSet<_> =
        policies().iter().flat_map(|path| mistakes(path)).map(|m| m.code.to_owned()).collect();
    let mut known = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                known.extend(codes(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    // Unreachable from any text: it stands for a mistake the compiler itself would have made.
    assert!(known.remove("invalid"));
    assert!(known.len() > 20, "the codes are no longer found in the sources: {known:?}");
    assert_eq!(made, known);
}

/// The first string of every `.error(` and `Fault::new(`, and those chosen just before.
fn codes(source: &str) -> BTreeSet<String> {
    let places = [".error(", "Fault::new(", "Some(_) => (", "None => ("];
    let calls = places.iter().flat_map(|call| source.split(call).skip(1));
    let quoted = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    quoted.filter(|text| !text.contains(' ')).map(str::to_owned).collect()
}
