//! Links the bare-metal binaries: at fixed addresses, by the script `kernel.ld`, without the C
//! library. Does nothing for all else, which shares the target triple.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernel.ld");
    if env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    // Asked at run time: a target directory may have served another copy of the tree before.
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("-Wl,-T{root}/kernel.ld");
    let args = [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        &script,
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        "-Wl,-n",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
    ];
    for arg in args {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
