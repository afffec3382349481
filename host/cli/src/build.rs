//! `tidegate build`: puts a checked policy into a ready kernel. Writes a whole image or nothing: what
//! stood there before stays until then.

use crate::{Unusable, count, read, refuse, unusable};
use image::Image;
use serde_json::json;
use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// Where a package puts the kernel that `--kernel` need not name.
pub(crate) const KERNEL: &str = "/usr/lib/tidegate/vmlinuz";

/// Builds the image `output` of the kernel and the policy in `file`; whether it could be done.
pub(crate) fn run(
    file: &Path,
    output: &Path,
    kernel: Option<&Path>,
    json: bool,
) -> Result<bool, Unusable> {
    let (name, text) = (file.to_string_lossy(), read(file)?);
    let compiled = match lang::compile(&name, &text) {
        Ok(compiled) => compiled,
        Err(mistakes) => {
            let answer = refuse(&mistakes, json);
            eprintln!("{name}: {}, nothing written", count(mistakes.len(), "mistake"));
            return Ok(answer);
        }
    };
    let base = base(kernel)?.kernel;
    let image = Image::with_policy(base, &compiled.blob, &text)
        .map_err(|why| unusable(file, "put into a kernel", Error::other(why)))?;
    let bytes = image.bytes();
    write_whole(output, &bytes)?;
    let (kernel, policy) = (image.kernel.digest(), compiled.policy.digest());
    if json {
        let report = json!({
            "ok": true,
            "image": output,
            "bytes": bytes.len(),
            "kernel": kernel.to_string(),
            "policy": policy.to_string(),
        });
        println!("{report:#}");
    } else {
        println!("{}: {}", output.display(), count(bytes.len(), "byte"));
        println!("kernel {kernel}\npolicy {policy}");
    }
    Ok(true)
}

/// The image at `path`, or the kernel of the package.
fn base(path: Option<&Path>) -> Result<Image, Unusable> {
    let path = path.unwrap_or(Path::new(KERNEL));
    let bytes = std::fs::read(path).map_err(|why| {
        let advice = "name one with --kernel FILE; `cargo xtask image` makes target/vmlinuz";
        let missing = path == Path::new(KERNEL) && why.kind() == ErrorKind::NotFound;
        let why = if missing { Error::other(format!("{why} ({advice})")) } else { why };
        unusable(path, "read", why)
    })?;
    Image::parse(&bytes).map_err(|why| unusable(path, "use", Error::other(why)))
}

/// Writes beside `path` and renames, so that there never is half an image.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Unusable> {
    let mut half = OsString::from(path);
    half.push(format!(".half-{}", std::process::id()));
    let written = std::fs::write(&half, bytes).and_then(|()| std::fs::rename(&half, path));
    written.map_err(|why| {
        // What is left of it is of no use; that it cannot be removed either is no news.
        drop(std::fs::remove_file(&half));
        unusable(path, "write", why)
    })
}
