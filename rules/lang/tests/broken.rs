//! Every policy under tests/broken/ is refused, and every one under tests/odd/ remarked upon, with
//! exactly the text beside it. After a change that is meant,
//! `TIDEGATE_WRITE_EXPECTED=1 cargo test -p tidegate-lang` writes the texts anew: read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use lang::{Diagnostic, Level};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Those for which a text would be too long to be shown in an explanation.
const TOLD_ONLY: [&str; 4] = ["invalid", "too-many", "too-many-hosts", "too-tangled"];

/// The policy whose file has a name that cannot be printed, which is no name for a file kept here.
const UNPRINTABLE: &str = "unprintable.tide";

/// What stands before the policies of codes.md that have no zone.
const HEAD: &str = "zone uplink = netfront 0\nzone clients = netback\n\
    nat clients -> uplink masquerade\nvm work = 10.137.0.10\n";

/// A policy, and what is said about it.
struct Told {
    path: PathBuf,
    text: String,
    found: Vec<Diagnostic>,
}

static BROKEN: LazyLock<Vec<Told>> = LazyLock::new(|| policies("broken"));
static ODD: LazyLock<Vec<Told>> = LazyLock::new(|| policies("odd"));

fn policies(folder: &str) -> Vec<Told> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension() == Some("tide".as_ref())).collect();
    paths.sort();
    let told = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = if name == UNPRINTABLE { "un\u{7}.tide" } else { name };
        let text = fs::read_to_string(&path).unwrap();
        Told { found: lang::check(name, &text).1, text, path }
    };
    paths.into_iter().map(told).collect()
}

fn compare(policies: &[Told]) {
    let write = std::env::var_os("TIDEGATE_WRITE_EXPECTED").is_some();
    let mut differing = Vec::new();
    for Told { path, found, .. } in policies {
        let texts: Vec<_> = found.iter().map(Diagnostic::render).collect();
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

#[test]
fn each_broken_policy_is_refused_with_the_text_beside_it() {
    compare(&BROKEN);
    for Told { path, text, .. } in BROKEN.iter().filter(|told| !told.path.ends_with(UNPRINTABLE)) {
        let mistakes = lang::compile("x", text).expect_err("broken");
        assert!(!mistakes.is_empty(), "{path:?}");
        assert!(mistakes.iter().all(|one| one.level == Level::Error));
    }
}

#[test]
fn each_odd_policy_is_remarked_upon_with_the_text_beside_it() {
    compare(&ODD);
    for Told { path, text, found } in ODD.iter() {
        assert!(lang::compile("x", text).is_ok(), "{path:?}");
        assert!(found.iter().all(|one| one.level != Level::Error));
    }
}

/// A kind of remark that no policy here gets would be one whose text nobody has read, and one without
/// an explanation would leave its reader alone.
#[test]
fn each_kind_of_remark_is_made_about_some_policy_and_explained() {
    let all = BROKEN.iter().chain(ODD.iter());
    let made: BTreeSet<_> = all.flat_map(|told| &told.found).map(|one| one.code).collect();
    let explained: BTreeSet<_> = lang::codes().map(|explained| explained.code).collect();
    assert_eq!(made, explained);

    let mut written = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some("rs".as_ref()) {
                written.extend(codes(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(written.len() > 25, "the codes are no longer found in the sources: {written:?}");
    let unexplained: Vec<_> =
        written.iter().filter(|code| !explained.contains(code.as_str())).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}

/// The first string of every `.error(` and `Fault::new(`, those behind a level, and those chosen
/// just before.
fn codes(source: &str) -> BTreeSet<String> {
    let places = [".error(", "Fault::new(", "Some(_) => (", "None => (", "Warning, ", "Note, "];
    let calls = places.iter().flat_map(|call| source.split(call).skip(1));
    let quoted = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    quoted.filter(|text| !text.contains(' ')).map(str::to_owned).collect()
}

/// Each explanation shows a policy that gets its code, and one that is mended.
#[test]
fn explanations_show_what_they_tell() {
    assert!(lang::explain_code("shadowed").is_some() && lang::explain_code("nonsense").is_none());
    for explained in lang::codes().filter(|one| !TOLD_ONLY.contains(&one.code)) {
        let blocks: Vec<_> = explained.text.split("```").map(str::trim).collect();
        let [told, wrong, between, right, ""] = blocks[..] else {
            panic!("{}: {blocks:?}", explained.code)
        };
        assert!(told.ends_with("Wrong:") && between == "Right:" && told.len() > 40);
        let with_head = |text: &str| match text.contains("zone uplink") {
            true => text.to_owned(),
            false => format!("{HEAD}{text}"),
        };
        let codes = |text: &str| {
            let (compiled, found) = lang::check("x", &with_head(text));
            (compiled.is_some(), found.iter().map(|one| one.code).collect::<Vec<_>>())
        };
        assert!(codes(wrong).1.contains(&explained.code), "{}: {:?}", explained.code, codes(wrong));
        let (good, left) = codes(right);
        assert!(good && !left.contains(&explained.code), "{}: {left:?}", explained.code);
    }
}
