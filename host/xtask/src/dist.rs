//! `cargo xtask dist`: the packages for dom0 of Qubes OS.
//!
//! In: the kernel, dist/, and a key of gpg's when they are to be signed. Out: two RPMs and their
//! digests under target/dist. The same tree gives the same bytes. Never: installs anything on this
//! machine but rpm itself.

use crate::image;
use crate::provide::provide;
use rig::{Context as _, Error, Layout, Result, ensure, run, step};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file in the packages is as old as this, in seconds since 1970: 2026-01-01.
const EPOCH: &str = "1767225600";

/// `cargo xtask dist`.
pub(crate) fn command(layout: &Layout, key: Option<&str>) -> Result<()> {
    provide(&[("rpmbuild", "rpm"), ("rpmsign", "rpm"), ("gpg", "gnupg")])?;
    let kernel = image::for_dist(layout)?;
    let directory = layout.target.join("dist");
    let packages = build(layout, &kernel, &directory)?;
    if let Some(key) = key {
        step(&format!("sign with {key}"), || {
            packages.iter().try_for_each(|package| sign(package, key, None))
        })?;
    }
    let digests = run(Command::new("sha256sum").current_dir(&directory).args(names(&packages)))?;
    let list = directory.join("SHA256SUMS");
    fs::write(&list, &digests).map_err(Error::file(&list))?;
    print!("{digests}");
    if key.is_none() {
        println!("They are not signed: dom0 would refuse them. Sign with --sign KEY.");
    }
    Ok(())
}

/// Packs `kernel` and dist/qubes into RPMs in `directory`.
pub(crate) fn build(layout: &Layout, kernel: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let work = directory.join("work");
    fs::remove_dir_all(directory).or_else(missing).map_err(Error::file(directory))?;
    let sources = work.join("SOURCES");
    fs::create_dir_all(&sources).map_err(Error::file(&sources))?;
    let copied = sources.join("vmlinuz");
    fs::copy(kernel, &copied).map_err(Error::file(kernel))?;
    let digest = run(Command::new("sha256sum").current_dir(&sources).arg("vmlinuz"))?;
    fs::write(sources.join("SHA256SUMS"), digest).context(sources.display())?;
    run(Command::new("cp").arg("-r").arg(layout.root.join("dist/qubes")).arg(&sources))?;

    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--target", "x86_64"]).env("SOURCE_DATE_EPOCH", EPOCH);
    for (name, value) in [
        ("_topdir", work.display().to_string()),
        ("_rpmdir", directory.display().to_string()),
        ("_build_name_fmt", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned()),
        ("tidegate_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("_buildhost", "tidegate".to_owned()),
        ("use_source_date_epoch_as_buildtime", "1".to_owned()),
        ("clamp_mtime_to_source_date_epoch", "1".to_owned()),
        ("_source_date_epoch_from_changelog", "0".to_owned()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    step("pack", || run(rpmbuild.arg(layout.root.join("dist/tidegate.spec"))))?;
    fs::remove_dir_all(&work).map_err(Error::file(&work))?;
    let mut packages: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(Error::file(directory))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    packages.sort();
    ensure(packages.len() == 2, || format!("rpmbuild made {packages:?}"))?;
    Ok(packages)
}

/// Signs `package` with `key`, of the keyring in `home` or the user's own.
pub(crate) fn sign(package: &Path, key: &str, home: Option<&Path>) -> Result<()> {
    let mut rpmsign = Command::new("rpmsign");
    rpmsign.arg("--addsign").arg("--define").arg(format!("_gpg_name {key}"));
    // rpm asks for gpg2, by which name Debian has it no more.
    rpmsign.args(["--define", "__gpg /usr/bin/gpg"]);
    if let Some(home) = home {
        rpmsign.arg("--define").arg(format!("_gpg_path {}", home.display()));
    }
    run(rpmsign.arg(package)).map(drop)
}

fn names(packages: &[PathBuf]) -> impl Iterator<Item = &std::ffi::OsStr> {
    packages.iter().filter_map(|package| package.file_name())
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
