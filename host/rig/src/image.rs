//! What boots inside: hypervisor, kernel, and the two initramfs (dom0's, and the one all Linux
//! guests share), made of unpacked packages, our agent and the scripts in `guest/`.
//!
//! Made again only when something they are made of has changed.

use crate::cpio::Cpio;
use crate::error::{Context as _, Error, Result};
use crate::host::{Layout, digest, run, step};
use crate::tree::Tree;
use crate::{kernel, packages, plan};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOM0_INIT: &str = include_str!("../guest/dom0-init.sh");
const VIF_SYSNET: &str = include_str!("../guest/vif-sysnet.sh");
const GUEST_INIT: &str = include_str!("../guest/guest-init.sh");
const CLIENT_UP: &str = include_str!("../guest/client-up.sh");
const FIREWALL_UP: &str = include_str!("../guest/firewall-up.sh");
const FIREWALL_NFT: &str = include_str!("../guest/firewall.nft");

/// Programs of dom0, by their path in the packages.
const DOM0_PROGRAMS: [&str; 18] = [
    "usr/lib/xen-4.17/bin/xl",
    "usr/lib/xen-4.17/bin/xenstored",
    "usr/lib/xen-4.17/bin/xenconsoled",
    "usr/lib/xen-4.17/bin/xenconsole",
    "usr/lib/xen-4.17/bin/xen-init-dom0",
    "usr/lib/xen-4.17/bin/xentrace",
    "usr/lib/xen-4.17/bin/libxl-save-helper",
    "usr/lib/xen-4.17/bin/xenstore-control",
    "usr/bin/xenstore-chmod",
    "usr/bin/xenstore-exists",
    "usr/bin/xenstore-list",
    "usr/bin/xenstore-ls",
    "usr/bin/xenstore-read",
    "usr/bin/xenstore-rm",
    "usr/bin/xenstore-watch",
    "usr/bin/xenstore-write",
    "usr/bin/iperf3",
    "bin/ip",
];

/// Loaded by name in dom0.
const DOM0_LIBRARIES: [&str; 1] = ["usr/lib/x86_64-linux-gnu/libxenvchan.so.4.17"];

const GUEST_PROGRAMS: [&str; 7] = [
    "usr/bin/xenstore-read",
    "usr/bin/xenstore-rm",
    "usr/bin/xenstore-watch",
    "usr/bin/xenstore-write",
    "usr/bin/iperf3",
    "usr/sbin/nft",
    "bin/ip",
];

const DOM0_MODULES: [&str; 7] =
    ["xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs", "xen-netback", "dummy"];

const CLIENT_MODULES: [&str; 1] = ["xen-netfront"];

const FIREWALL_MODULES: [&str; 14] = [
    "crc32c_generic",
    "xenfs",
    "xen-netfront",
    "xen-netback",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_limit",
    "nft_log",
    "nf_log_syslog",
];

/// Everything QEMU loads.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    /// The hypervisor, an ELF32 multiboot image.
    pub xen: PathBuf,
    /// Linux for dom0, unpacked (the guests' copy is inside the initramfs).
    pub kernel: PathBuf,
    /// dom0's initramfs; more archives may follow it.
    pub dom0: PathBuf,
}

/// Builds what is missing or out of date.
///
/// # Errors
/// When apt, cargo or a file fails.
pub(crate) fn provide(layout: &Layout) -> Result<Images> {
    let packages = packages::provide(layout)?;
    let agent = build_agent(layout)?;
    let made = layout.cache().join(format!("images-{}", key(&agent, &packages)?));
    let tree = Tree::new(packages)?;
    let images = Images {
        xen: made.join("xen"),
        kernel: made.join("vmlinux"),
        dom0: made.join("dom0.cpio"),
    };
    if !made.exists() {
        forget_old(&layout.cache())?;
        step("build the initramfs of dom0 and guests", || build(&tree, &agent, &made))?;
    }
    Ok(images)
}

/// Names what the images are made of; the code that makes them is a part of it.
fn key(agent: &Path, packages: &Path) -> Result<String> {
    let code = [include_str!("image.rs"), include_str!("cpio.rs"), include_str!("tree.rs")];
    let scripts = [DOM0_INIT, VIF_SYSNET, GUEST_INIT, CLIENT_UP, FIREWALL_UP, FIREWALL_NFT];
    let words = [code.concat(), scripts.concat(), packages.to_string_lossy().into_owned()];
    digest(&[agent.to_owned()], &words.concat())
}

fn forget_old(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).map_err(Error::file(cache))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("images-")) {
            fs::remove_dir_all(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

fn build_agent(layout: &Layout) -> Result<PathBuf> {
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "tidegate-agent"])
        .current_dir(&layout.root))
    .context("build the agent")?;
    Ok(layout.target.join("release/tidegate-agent"))
}

fn build(tree: &Tree, agent: &Path, made: &Path) -> Result<()> {
    let half = made.with_extension("half");
    fs::create_dir_all(&half).map_err(Error::file(&half))?;
    let packed = tree.path("boot/xen-4.17-amd64.gz");
    let unpacked = Command::new("gunzip").arg("-c").arg(&packed).output().context("gunzip")?;
    fs::write(half.join("xen"), unpacked.stdout)?;
    let linux = kernel::unpack(&read(&tree.kernel()?)?)?;
    fs::write(half.join("vmlinux"), &linux)?;
    let guest = guest(tree, agent)?;
    fs::write(half.join("dom0.cpio"), dom0(tree, agent, &linux, &guest)?)?;
    fs::rename(&half, made).map_err(Error::file(made))
}

fn dom0(tree: &Tree, agent: &Path, linux: &[u8], guest: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    user_land(&mut archive, tree, agent, &DOM0_PROGRAMS, &DOM0_LIBRARIES)?;
    archive.program("init", DOM0_INIT.as_bytes());
    archive.program("etc/xen/scripts/vif-sysnet", VIF_SYSNET.as_bytes());
    archive.file("etc/xen/xl.conf", b"autoballoon=\"off\"\n");
    archive.file("etc/gateway", format!("{}\n", plan::SYS_NET).as_bytes());
    let internet = plan::INTERNET.map(|address| format!("{address}\n")).concat();
    archive.file("etc/internet", internet.as_bytes());
    modules(&mut archive, tree, "modules", &DOM0_MODULES)?;
    archive.file("guest/vmlinux", linux);
    archive.file("guest/initramfs", guest);
    Ok(archive.finish())
}

fn guest(tree: &Tree, agent: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    user_land(&mut archive, tree, agent, &GUEST_PROGRAMS, &[])?;
    archive.program("init", GUEST_INIT.as_bytes());
    archive.program("bin/client-up", CLIENT_UP.as_bytes());
    archive.program("bin/firewall-up", FIREWALL_UP.as_bytes());
    archive.file("etc/firewall.nft", FIREWALL_NFT.as_bytes());
    modules(&mut archive, tree, "modules/client", &CLIENT_MODULES)?;
    modules(&mut archive, tree, "modules/firewall", &FIREWALL_MODULES)?;
    Ok(archive.finish())
}

/// Programs with the libraries they need, and `libraries` that somebody loads by name.
fn user_land(
    archive: &mut Cpio,
    tree: &Tree,
    agent: &Path,
    programs: &[&str],
    libraries: &[&str],
) -> Result<()> {
    for directory in ["dev", "proc", "sys", "run", "tmp", "etc", "var", "usr/bin", "usr/sbin"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &read(&tree.path("bin/busybox"))?);
    archive.link("bin/sh", "busybox");
    archive.program("bin/tidegate-agent", &read(agent)?);
    let mut started = vec![agent.to_owned()];
    for program in programs {
        archive.program(program, &read(&tree.path(program))?);
        started.push(tree.path(program));
    }
    archive.program("lib64/ld-linux-x86-64.so.2", &read(&tree.loader())?);
    let named: Vec<_> = libraries.iter().map(|library| tree.path(library)).collect();
    started.extend(named.iter().cloned());
    for library in tree.libraries(&started)?.into_iter().chain(named) {
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.program(&format!("lib/x86_64-linux-gnu/{name}"), &read(&library)?);
    }
    Ok(())
}

/// Puts modules and what they depend on under `to`, with the order to load them in.
fn modules(archive: &mut Cpio, tree: &Tree, to: &str, wanted: &[&str]) -> Result<()> {
    let mut order = String::new();
    for module in tree.modules(wanted)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("{to}/{name}"), &read(&module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file(&format!("{to}/order"), order.as_bytes());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file(path))
}

/// An archive with one more file for dom0, to follow its initramfs.
pub(crate) fn overlay(files: &[(String, PathBuf)]) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for (path, from) in files {
        archive.file(path, &read(from)?);
    }
    Ok(archive.finish())
}
