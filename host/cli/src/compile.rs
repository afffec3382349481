//! `tidegate compile`: writes the blob of a policy, or nothing at all.

use crate::{Unusable, count, read, tell, write};
use std::path::Path;

/// Compiles `file` to `output`; whether it could be done.
pub(crate) fn run(file: &Path, output: &Path) -> Result<bool, Unusable> {
    let name = file.to_string_lossy();
    match lang::compile(&name, &read(file)?) {
        Ok(compiled) => {
            write(output, &compiled.blob)?;
            let size = count(compiled.blob.len(), "byte");
            let digest = compiled.policy.digest();
            println!("{}: {size}, digest {digest}", output.display());
            Ok(true)
        }
        Err(mistakes) => {
            tell(&mistakes);
            eprintln!("{name}: {}, nothing written", count(mistakes.len(), "mistake"));
            Ok(false)
        }
    }
}
