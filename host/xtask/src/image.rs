//! Builds the kernel, with or without a policy in it.
//!
//! In: the source tree, and a policy file. Out: target/tidegate.elf and target/vmlinuz. A policy
//! with a mistake is shown with its place, and no image is written. The same tree gives the same
//! bytes, wherever it lies: no path of this machine is in them.

use image::{Image, Kernel};
use lang::Compiled;
use rig::{Context as _, Error, Layout, Result, run, step};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The policy in the kernel that is packed for Qubes OS.
pub(crate) const QUBES_POLICY: &str = "examples/qubes.tide";

/// `cargo xtask image`.
pub(crate) fn command(layout: &Layout, policy: Option<&Path>) -> Result<()> {
    let elf = layout.target.join("tidegate.elf");
    let stripped = layout.target.join("vmlinuz");
    build(layout, cargo(layout, &cargo_home()?), policy, &elf, &stripped)?;
    for file in [&elf, &stripped] {
        let size = fs::metadata(file).map_err(Error::file(file))?.len();
        println!("{}: {:.1} KiB", file.display(), size as f64 / 1024.0);
    }
    if policy.is_none() {
        println!("No policy is built in: it drops everything unless Qubes gives it rules.");
    }
    Ok(())
}

/// The kernel with the rig's policy, apart from the user's own image.
pub(crate) fn for_rig(layout: &Layout) -> Result<PathBuf> {
    let directory = layout.target.join("rig");
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let (elf, stripped) = (directory.join("tidegate.elf"), directory.join("vmlinuz"));
    let cargo = cargo(layout, &cargo_home()?);
    build(layout, cargo, Some(&layout.root.join("host/rig/rig.tide")), &elf, &stripped)?;
    Ok(stripped)
}

/// The kernel that is packed for dom0 of Qubes OS.
pub(crate) fn for_dist(layout: &Layout) -> Result<PathBuf> {
    packed(layout, cargo(layout, &cargo_home()?))
}

/// The same from another tree, with another home of cargo, in another time zone and with one job.
pub(crate) fn elsewhere(layout: &Layout, home: &Path) -> Result<PathBuf> {
    let mut cargo = cargo(layout, home);
    cargo.env("CARGO_HOME", home).env("CARGO_TARGET_DIR", &layout.target);
    cargo.env("TZ", "Asia/Tokyo").env("LC_ALL", "C").env("USER", "another").args(["--jobs", "1"]);
    packed(layout, cargo)
}

fn packed(layout: &Layout, cargo: Command) -> Result<PathBuf> {
    let directory = layout.target.join("qubes");
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let (elf, stripped) = (directory.join("tidegate.elf"), directory.join("vmlinuz"));
    build(layout, cargo, Some(&layout.root.join(QUBES_POLICY)), &elf, &stripped)?;
    Ok(stripped)
}

/// The kernel `name`, a guest beside the firewall, put where the rig finds it.
pub(crate) fn guest(layout: &Layout, name: &str) -> Result<()> {
    let directory = layout.guests();
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let mut cargo = cargo(layout, &cargo_home()?);
    step(&format!("build the guest {name}"), || run(cargo.args(["--bin", name])))?;
    let built = layout.target.join("kernel").join(name);
    let stripped = directory.join(name);
    run(Command::new("objcopy").arg("--strip-all").arg(built).arg(stripped)).map(drop)
}

/// Where cargo keeps the sources of others.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    home.ok_or_else(|| Error::new("neither CARGO_HOME nor HOME is set"))
}

/// cargo, about to build for the bare machine. Places in the sources, which a panic names, are told
/// from the root of the tree and of cargo's home.
fn cargo(layout: &Layout, home: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["build", "--quiet", "--package", "tidegate"]);
    cargo.args(["--features", "kernel", "--profile", "kernel"]);
    let flag = |from: &Path, to| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [flag(&layout.root, "tidegate"), flag(home, "cargo")].join("\x1f");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    cargo
}

/// The `tidegate` command, put where the rig's dom0 finds it.
pub(crate) fn tool(layout: &Layout) -> Result<()> {
    let directory = layout.guests();
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["build", "--quiet", "--package", "tidegate-cli"]);
    step("build the tidegate command", || run(&mut cargo))?;
    let (built, stripped) = (layout.target.join("debug/tidegate"), directory.join("tidegate-tool"));
    run(Command::new("objcopy").arg("--strip-all").arg(built).arg(stripped)).map(drop)
}

fn build(
    layout: &Layout,
    mut cargo: Command,
    policy: Option<&Path>,
    elf: &Path,
    stripped: &Path,
) -> Result<()> {
    let policy = policy.map(|policy| {
        step(&format!("compile {}", policy.display()), || {
            let text = fs::read_to_string(policy).map_err(Error::file(policy))?;
            Ok((compile(policy, &text)?, text))
        })
    });
    let policy = policy.transpose()?;
    step("build the kernel", || run(cargo.args(["--bin", "kernel"])))?;
    let built = layout.target.join("kernel/kernel");
    fs::copy(&built, elf).map_err(Error::file(&built))?;
    run(Command::new("objcopy").arg("--strip-all").arg(elf).arg(stripped))?;
    let Some((compiled, text)) = policy else { return Ok(()) };
    [elf, stripped].into_iter().try_for_each(|file| embed(file, &compiled, &text))
}

fn compile(policy: &Path, text: &str) -> Result<Compiled> {
    lang::compile(&policy.to_string_lossy(), text).map_err(|mistakes| {
        let shown: Vec<_> = mistakes.iter().map(lang::Diagnostic::render).collect();
        Error::new(format!("the policy cannot be used:\n{}", shown.join("\n")))
    })
}

/// Puts a policy into the kernel `file`, as `tidegate build` does.
fn embed(file: &Path, policy: &Compiled, text: &str) -> Result<()> {
    let kernel = Kernel::parse(&fs::read(file).map_err(Error::file(file))?);
    let kernel = kernel.context(file.display())?;
    let image = Image::with_policy(kernel, &policy.blob, text).context(file.display())?;
    fs::write(file, image.bytes()).map_err(Error::file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_with_a_mistake_is_shown_with_its_place() {
        let text = "zone uplink = netfront 0\nzone clients = netbak\n";
        let told = compile(Path::new("typo.tide"), text).unwrap_err().to_string();
        assert!(told.contains("typo.tide:2:16"), "{told}");
    }
}
