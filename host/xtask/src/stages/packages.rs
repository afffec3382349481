//! What is brought to dom0: its commands against a fake dom0, the packages, and whether a kernel
//! built elsewhere is the same.
//!
//! In: dist/ and the source tree. Out: what each check came to. Never: leaves a key or a package of
//! its own behind.

use super::{Count, count};
use crate::provide::provide;
use crate::{dist, image};
use rig::{Context as _, Error, Layout, Result, ensure, run, step};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The key that the tests sign with, made for each run.
const KEY: &str = "test@tidegate.invalid";

pub(super) fn all(layout: &Layout) -> Result<Count> {
    provide(&[("python3", "python3"), ("rpmbuild", "rpm"), ("rpmsign", "rpm"), ("gpg", "gnupg")])?;
    let mut all = commands(layout)?;
    let scratch = Scratch::new(layout)?;
    let kernel = match image::for_dist(layout) {
        Ok(kernel) => kernel,
        Err(error) => {
            println!("{error}");
            all.failed.push("the kernel for Qubes OS cannot be built".to_owned());
            return Ok(all);
        }
    };
    let checks: [(&str, Check); 4] = [
        ("the same tree gives the same packages", same_packages),
        ("a signed package is accepted, a changed one refused", signed),
        ("the package holds the kernel that was built", holds_the_kernel),
        ("a kernel built elsewhere has the same bytes", same_kernel),
    ];
    let outcomes = checks.map(|(name, check)| {
        let done = step(name, || check(layout, &kernel, &scratch.0));
        (name.to_owned(), done.err().map(|e| e.to_string()))
    });
    let more = count(outcomes.into_iter());
    all.passed += more.passed;
    all.failed.extend(more.failed);
    Ok(all)
}

type Check = fn(&Layout, &Path, &Path) -> Result<()>;

/// dist/tests: what a user types in dom0, and what it does there.
fn commands(layout: &Layout) -> Result<Count> {
    let output = Command::new("python3")
        .args(["-B", "-m", "unittest", "--verbose"])
        .current_dir(layout.root.join("dist/tests"))
        .output()
        .context("python3")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let mut all = Count::default();
    for line in said.lines() {
        match line.rsplit_once(" ... ") {
            Some((_, "ok")) => all.passed += 1,
            Some((name, "FAIL" | "ERROR")) => all.failed.push(name.to_owned()),
            _ => {}
        }
    }
    if !output.status.success() {
        print!("{said}");
        ensure(!all.failed.is_empty(), || format!("python3: {}", output.status))?;
    }
    println!("  {} tests of dom0's commands passed", all.passed);
    Ok(all)
}

fn same_packages(layout: &Layout, kernel: &Path, scratch: &Path) -> Result<()> {
    let first = dist::build(layout, kernel, &scratch.join("first"))?;
    let second = dist::build(layout, kernel, &scratch.join("second/deeper"))?;
    for (one, other) in first.iter().zip(&second) {
        let same =
            fs::read(one).context(one.display())? == fs::read(other).context(other.display())?;
        ensure(same, || format!("{} and {} differ", one.display(), other.display()))?;
    }
    Ok(())
}

fn signed(layout: &Layout, kernel: &Path, scratch: &Path) -> Result<()> {
    let (home, keys) = (scratch.join("gpg"), scratch.join("keys"));
    fs::create_dir_all(&home).map_err(Error::file(&home))?;
    run(Command::new("chmod").arg("700").arg(&home))?;
    let gpg = || {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(&home).args(["--batch", "--quiet"]);
        command
    };
    run(gpg().args(["--passphrase", "", "--quick-generate-key", KEY, "rsa3072", "sign", "1d"]))?;
    let public = scratch.join("public.asc");
    run(gpg().args(["--armor", "--output"]).arg(&public).args(["--export", KEY]))?;
    run(Command::new("rpmkeys").arg("--dbpath").arg(&keys).arg("--import").arg(&public))?;

    let packages = dist::build(layout, kernel, &scratch.join("signed"))?;
    for package in &packages {
        ensure(checked(&keys, package).is_err(), || "no signature, and accepted".to_owned())?;
        dist::sign(package, KEY, Some(&home))?;
        checked(&keys, package)?;
        let mut bytes = fs::read(package).context(package.display())?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        fs::write(package, bytes).context(package.display())?;
        ensure(checked(&keys, package).is_err(), || "changed, and accepted".to_owned())?;
    }
    run(Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "gpg-agent"])).map(drop)
}

/// rpm's word on digests and signature, as dom0 asks for it before it installs.
fn checked(keys: &Path, package: &Path) -> Result<()> {
    let said =
        run(Command::new("rpmkeys").arg("--dbpath").arg(keys).arg("--checksig").arg(package))?;
    ensure(said.trim_end().ends_with("digests signatures OK"), || said)
}

fn holds_the_kernel(layout: &Layout, kernel: &Path, scratch: &Path) -> Result<()> {
    let packages = dist::build(layout, kernel, &scratch.join("held"))?;
    let package = packages.iter().find(|p| p.to_string_lossy().contains("tidegate-kernel-"));
    let package = package.ok_or_else(|| Error::new("no package of the kernel"))?;
    let listed = run(Command::new("rpm").args(["-qp", "--dump"]).arg(package))?;
    let built = run(Command::new("sha256sum").arg(kernel))?;
    let digest = built.split_whitespace().next().unwrap_or_default();
    let line = listed.lines().find(|line| line.contains("/vmlinuz ")).unwrap_or_default();
    ensure(line.contains(digest), || format!("{line} is not {built}"))
}

/// Builds the kernel from a copy of the tree, in another folder, with another home of cargo, in
/// another time zone and with one job.
fn same_kernel(layout: &Layout, kernel: &Path, scratch: &Path) -> Result<()> {
    let root = scratch.join("another place/tree");
    fs::create_dir_all(&root).map_err(Error::file(&root))?;
    let files = run(Command::new("git").current_dir(&layout.root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for file in files.split_terminator('\0') {
        let (from, to) = (layout.root.join(file), root.join(file));
        if !from.exists() {
            continue; // removed, and not committed yet
        }
        let folder = to.parent().unwrap_or(&root);
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        fs::copy(&from, &to).map_err(Error::file(&from))?;
    }
    let home = scratch.join("another cargo");
    std::os::unix::fs::symlink(image::cargo_home()?, &home).map_err(Error::file(&home))?;
    let elsewhere = Layout { target: root.join("target"), root };
    let other = image::elsewhere(&elsewhere, &home)?;
    let (one, two) = (fs::read(kernel).context(kernel.display())?, fs::read(&other).context("")?);
    let at = one.iter().zip(&two).position(|(a, b)| a != b);
    ensure(one == two, || {
        format!("{} and {} bytes, different from {at:?} on", one.len(), two.len())
    })
}

/// A folder that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(layout: &Layout) -> Result<Self> {
        let path = layout.target.join(format!("packages-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Error::file(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
