//! Debian packages: the emulator is installed, everything that runs inside it is only unpacked.
//!
//! In: the lists below. Out: one directory tree with hypervisor, toolstack, kernel and user land.
//! Never installs Xen on the host, never changes the host's boot.

use crate::error::{Error, Result};
use crate::host::{Layout, digest, run, step};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Needed on the host itself: the program looked for, and the packages that bring it.
const ON_HOST: [(&str, &[&str]); 3] = [
    ("qemu-system-x86_64", &["qemu-system-x86", "qemu-system-common", "seabios", "ipxe-qemu"]),
    ("objcopy", &["binutils"]),
    ("xz", &["xz-utils"]),
];

/// Unpacked for dom0 and the guests, besides the kernel. The libraries are those that the
/// programs in `image` ask for; a missing one is an error there.
const UNPACKED: [&str; 47] = [
    "busybox-static",
    "iperf3",
    "iproute2",
    "libbpf1",
    "libbsd0",
    "libbz2-1.0",
    "libc6",
    "libcap2",
    "libedit2",
    "libelf1",
    "libgcc-s1",
    "libgmp10",
    "libiperf0",
    "libjansson4",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libncurses6",
    "libnftables1",
    "libnftnl11",
    "libnl-3-200",
    "libnl-route-3-200",
    "libpcre2-8-0",
    "libsctp1",
    "libselinux1",
    "libssl3",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libxtables12",
    "libyajl2",
    "libzstd1",
    "nftables",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "zlib1g",
];

/// Makes sure the emulator is installed and returns the tree of unpacked packages.
///
/// # Errors
/// When apt fails; its own words are in the message.
pub(crate) fn provide(layout: &Layout) -> Result<PathBuf> {
    install_missing()?;
    let key = digest(&[], &UNPACKED.join(" "))?;
    let tree = layout.cache().join(format!("packages-{key}"));
    if !tree.exists() {
        step("download Xen, Linux and their user land (about 85 MB)", || unpack(&tree))?;
    }
    Ok(tree)
}

fn install_missing() -> Result<()> {
    let missing: Vec<&str> = ON_HOST
        .iter()
        .filter(|(program, _)| !on_path(program))
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("install {}", missing.join(", ")), || {
        apt_get(&["update"])?;
        let mut words = vec!["install", "--yes", "--no-install-recommends"];
        words.extend(missing);
        apt_get(&words)
    })
}

fn unpack(tree: &Path) -> Result<()> {
    let debs = tree.with_extension("debs");
    let half = tree.with_extension("half");
    for directory in [&debs, &half] {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(Error::file(directory))?;
        }
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
    }
    apt_get(&["update"])?;
    let kernel = kernel_package()?;
    // apt-get writes to the working directory; _apt, its usual user, may not.
    run(Command::new("apt-get")
        .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", &kernel])
        .args(UNPACKED)
        .current_dir(&debs))?;
    for entry in fs::read_dir(&debs).map_err(Error::file(&debs))? {
        run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&half))?;
    }
    fs::remove_dir_all(&debs).map_err(Error::file(&debs))?;
    fs::rename(&half, tree).map_err(Error::file(tree))
}

/// The package linux-image-amd64 stands for today.
fn kernel_package() -> Result<String> {
    let said = run(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    said.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .ok_or_else(|| Error::new(format!("linux-image-amd64 depends on nothing:\n{said}")))
}

fn apt_get(words: &[&str]) -> Result<()> {
    run(Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}
