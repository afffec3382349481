//! Commands that documents name, held to the tree by looking at its text: nothing is built or run.
//!
//! In: a command as it stands in a document. Out: what of it there is not: a package, a test program, a
//! test its filter finds, a command of xtask, a flag of it, a scenario, a stage.

use super::{read, root, rust_files, tests_of};
use std::fs;
use std::path::{Path, PathBuf};

/// Where xtask's commands and those of its bench are told apart.
const XTASK: &str = "host/xtask/src/main.rs";
const BENCH: &str = "host/xtask/src/bench/mod.rs";

/// Whether a command that begins with `cargo` can be given.
///
/// # Errors
/// What there is not.
pub fn check(command: &str) -> Result<(), String> {
    // What follows is for the program that cargo starts.
    let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != "--").collect();
    match words[..] {
        ["cargo", "xtask", ref rest @ ..] => xtask(rest),
        ["cargo", "test", ref rest @ ..] => test(rest),
        ["cargo", "bench" | "build" | "install" | "mutants" | "run", ref rest @ ..] => {
            package(rest).map(|_| ())
        }
        _ => Err(format!("no such command of cargo: {command}")),
    }
}

/// The word behind `-p` or `--test`.
fn value<'w>(words: &[&'w str], names: &[&str]) -> Option<&'w str> {
    let at = words.iter().position(|word| names.contains(word))?;
    words.get(at + 1).copied()
}

/// The folder of the package a command is about.
fn package(words: &[&str]) -> Result<PathBuf, String> {
    let Some(name) = value(words, &["-p", "--package"]) else { return Ok(root()) };
    let head = format!("[package]\nname = \"{name}\"\n");
    let is_it = |dir: &PathBuf| {
        fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|manifest| manifest.contains(&head))
    };
    let workspace = read("Cargo.toml");
    let (_, members) = workspace.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let members = members.split('"').skip(1).step_by(2).map(|member| root().join(member));
    members.chain([root()]).find(is_it).ok_or_else(|| format!("no package {name}"))
}

fn test(words: &[&str]) -> Result<(), String> {
    let dir = package(words)?;
    let program = value(words, &["--test"]);
    let mut filters = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "-p" | "--package" | "--test" | "--features" => drop(rest.next()),
            "--workspace" | "--release" | "--lib" => {}
            flag if flag.starts_with('-') => return Err(format!("a flag not known here: {flag}")),
            filter => filters.push(filter),
        }
    }
    let tests = match program {
        Some(name) => program_tests(&dir.join("tests"), name)?,
        None if words.contains(&"--lib") => tests_below(&dir.join("src")),
        None => tests_below(&dir),
    };
    if tests.is_empty() {
        return Err("there are no tests".into());
    }
    let unknown = filters.iter().find(|filter| !tests.iter().any(|test| test.contains(**filter)));
    unknown.map_or(Ok(()), |filter| Err(format!("no test has {filter:?} in its name")))
}

/// The tests of a program, each behind the module that it stands in.
fn program_tests(dir: &Path, name: &str) -> Result<Vec<String>, String> {
    let (file, folder) = (dir.join(format!("{name}.rs")), dir.join(name));
    if !file.is_file() && !folder.join("main.rs").is_file() {
        return Err(format!("no test program {name} in {}", dir.display()));
    }
    let own = if file.is_file() { tests_of(&file) } else { Vec::new() };
    let further = if folder.is_dir() { tests_below(&folder) } else { Vec::new() };
    Ok(own.into_iter().chain(further).collect())
}

/// All tests in a folder, each behind the modules that its file is.
fn tests_below(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    rust_files(dir, &mut files);
    let in_file = |file: &PathBuf| -> Vec<String> {
        let modules = file.strip_prefix(dir).unwrap().with_extension("");
        let modules = modules.to_str().unwrap().replace('/', "::");
        tests_of(file).into_iter().map(|test| format!("{modules}::{test}")).collect()
    };
    files.iter().flat_map(in_file).collect()
}

fn xtask(words: &[&str]) -> Result<(), String> {
    let [command, rest @ ..] = words else { return Err("xtask does nothing by itself".into()) };
    let own = variant(XTASK, "enum Command {", command)?;
    let (mut flags, mut rest) = (flags(&own), rest);
    if own.contains("world: WorldArgs") {
        flags.extend(self::flags(&between(&read(XTASK), "struct WorldArgs {", "\n}")));
    }
    if *command == "bench" {
        let [what, of_it @ ..] = rest else { return Err("bench of what?".into()) };
        let own = variant(BENCH, "enum Bench {", what)?;
        let file = root().join(format!("host/xtask/src/bench/{what}.rs"));
        let elsewhere =
            if own.contains('{') { String::new() } else { fs::read_to_string(file).unwrap() };
        flags = self::flags(&(own + &elsewhere));
        rest = of_it;
    }
    for pair in rest.windows(2).filter(|pair| pair[0] == "--only") {
        let known = match *command {
            "rig" => scenarios(),
            "test" => variants(&between(&read("host/xtask/src/stages.rs"), "enum Stage {", "\n}")),
            _ => continue,
        };
        let is_placeholder = pair[1].chars().all(char::is_uppercase);
        if !is_placeholder && !known.iter().any(|name| name == pair[1]) {
            return Err(format!("{command} has no {}", pair[1]));
        }
    }
    let unknown = rest.iter().filter_map(|word| word.strip_prefix("--"));
    let unknown =
        unknown.filter(|flag| *flag != "help").find(|flag| !flags.iter().any(|f| f == flag));
    unknown.map_or(Ok(()), |flag| Err(format!("{command} has no --{flag}")))
}

/// What stands between two pieces of a text.
fn between(text: &str, from: &str, to: &str) -> String {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("nowhere {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?} behind {from:?}")).0.to_owned()
}

/// The text of the variant of an enum that clap makes this word of.
fn variant(file: &str, of: &str, word: &str) -> Result<String, String> {
    let body = between(&read(file), of, "\n}");
    let starts = |line: &str| {
        line.strip_prefix("    ").is_some_and(|rest| {
            rest.starts_with(char::is_uppercase) && kebab(&name_in(rest)) == word
        })
    };
    let from = body.lines().position(starts).ok_or_else(|| format!("xtask has no {word}"))?;
    let lines: Vec<&str> = body.lines().skip(from).collect();
    // One with fields ends where its brace does, any other on its own line.
    let ends = |line: &&str| line.starts_with("    }") || !lines[0].ends_with('{');
    let len = lines.iter().position(ends).map_or(lines.len(), |end| end + 1);
    Ok(lines[..len].join("\n"))
}

/// The words that clap makes of all variants of an enum without fields.
fn variants(body: &str) -> Vec<String> {
    let names = body.lines().filter_map(|line| line.trim().strip_suffix(','));
    names.map(kebab).collect()
}

/// The long flags that clap makes of the fields in a text.
fn flags(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim);
    let mut flags = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("#[arg(") && line.contains("long") {
            let field = lines.find(|line| !line.starts_with("///") && line.contains(": "));
            let name = name_in(field.unwrap_or_default().trim_start_matches("pub(crate) "));
            flags.push(name.replace('_', "-"));
        }
    }
    flags
}

fn name_in(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
}

/// The names of the scenarios of the rig.
fn scenarios() -> Vec<String> {
    let files = fs::read_dir(root().join("host/rig/src/scenario")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let named = |text: String| -> Vec<String> {
        let calls = text.split("scenario(").skip(1).map(str::trim_start);
        let names = calls.filter_map(|call| call.strip_prefix('"')?.split('"').next());
        names.map(str::to_owned).collect()
    };
    texts.flat_map(named).collect()
}
