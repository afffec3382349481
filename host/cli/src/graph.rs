//! `tidegate graph`: a picture of what may flow.

use crate::{Unusable, read, refuse, write};
use std::path::Path;

/// Draws `file` to `output`, or to standard output; whether it could be.
pub(crate) fn run(file: &Path, output: Option<&Path>) -> Result<bool, Unusable> {
    match (lang::graph(&file.to_string_lossy(), &read(file)?), output) {
        (Ok(svg), Some(output)) => write(output, svg.as_bytes())?,
        (Ok(svg), None) => print!("{svg}"),
        (Err(mistakes), _) => return Ok(refuse(&mistakes, false)),
    }
    Ok(true)
}
