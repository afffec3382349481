//! Links the bare-metal binaries: at fixed addresses, by the script `kernel.ld`, without the C
//! library, and with the policy blob that TIDEGATE_POLICY_BLOB names. Does nothing for all else,
//! which shares the target triple.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernel.ld");
    if env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    embed_policy();
    let script = concat!("-Wl,-T", env!("CARGO_MANIFEST_DIR"), "/kernel.ld");
    let args = [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        script,
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

/// Puts the blob, or an empty file, where `main.rs` includes it from.
fn embed_policy() {
    println!("cargo:rerun-if-env-changed=TIDEGATE_POLICY_BLOB");
    let blob = match env::var_os("TIDEGATE_POLICY_BLOB") {
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())))
        }
        None => Vec::new(),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("policy.blob");
    fs::write(&out, blob).unwrap_or_else(|e| fail(&format!("{}: {e}", out.display())));
}

fn fail(message: &str) -> ! {
    println!("cargo:error={message}");
    std::process::exit(1)
}
