//! Builds the kernel, with or without a policy in it.
//!
//! In: the source tree, and a policy file. Out: target/tidegate.elf and target/vmlinuz. A policy
//! with a mistake is shown with its place, and no image is written.

use image::{Image, Kernel};
use lang::Compiled;
use rig::{Context as _, Error, Layout, Result, run, step};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo xtask image`.
pub(crate) fn command(layout: &Layout, policy: Option<&Path>) -> Result<()> {
    let elf = layout.target.join("tidegate.elf");
    let stripped = layout.target.join("vmlinuz");
    build(layout, policy, &elf, &stripped)?;
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
    build(layout, Some(&layout.root.join("host/rig/rig.tide")), &elf, &stripped)?;
    Ok(stripped)
}

/// The kernel `name`, a guest beside the firewall, put where the rig finds it.
pub(crate) fn guest(layout: &Layout, name: &str) -> Result<()> {
    let directory = layout.guests();
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["build", "--quiet", "--package", "tidegate"]);
    cargo.args(["--bin", name, "--features", "kernel", "--profile", "kernel"]);
    step(&format!("build the guest {name}"), || run(&mut cargo))?;
    let built = layout.target.join("kernel").join(name);
    let stripped = directory.join(name);
    run(Command::new("objcopy").arg("--strip-all").arg(built).arg(stripped)).map(drop)
}

fn build(layout: &Layout, policy: Option<&Path>, elf: &Path, stripped: &Path) -> Result<()> {
    let policy = policy.map(|policy| {
        step(&format!("compile {}", policy.display()), || {
            let text = fs::read_to_string(policy).map_err(Error::file(policy))?;
            Ok((compile(policy, &text)?, text))
        })
    });
    let policy = policy.transpose()?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["build", "--quiet", "--package", "tidegate"]);
    cargo.args(["--bin", "kernel", "--features", "kernel", "--profile", "kernel"]);
    step("build the kernel", || run(&mut cargo))?;
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
