//! `tidegate fmt`: puts policies into the one layout. Never writes a file that would not change, or one
//! whose form has mistakes.

use crate::{Unusable, read, tell, unusable, write};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Formats `files`, or says which would change; whether all could be, or none would.
pub(crate) fn run(files: &[PathBuf], check: bool) -> Result<bool, Unusable> {
    let mut all_good = true;
    for path in files {
        let stdin = path.as_os_str() == "-";
        let text = if stdin { read_stdin(path)? } else { read(path)? };
        match lang::format(&path.to_string_lossy(), &text) {
            Err(mistakes) => {
                tell(&mistakes);
                all_good = false;
            }
            Ok(formatted) if check => {
                if formatted != text {
                    println!("{}: not in the one layout", path.display());
                    all_good = false;
                }
            }
            Ok(formatted) if stdin => print!("{formatted}"),
            Ok(formatted) if formatted != text => write(path, formatted.as_bytes())?,
            Ok(_) => {}
        }
    }
    Ok(all_good)
}

fn read_stdin(path: &Path) -> Result<String, Unusable> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map(|_| text).map_err(|why| unusable(path, "read", why))
}
