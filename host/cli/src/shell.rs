//! What the command tells about itself: completions and the man page.

use crate::{Args, Unusable, unusable};
use clap::CommandFactory;
use std::io::Write;
use std::path::Path;

/// Writes completions to standard output.
pub(crate) fn completions(shell: clap_complete::Shell) -> bool {
    clap_complete::generate(shell, &mut Args::command(), "tidegate", &mut std::io::stdout());
    true
}

/// Writes the man page of the command, and behind it those of its commands.
pub(crate) fn man() -> Result<bool, Unusable> {
    let failed = |why| unusable(Path::new("standard output"), "write", why);
    let mut command = Args::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        man.render_synopsis_section(&mut page).map_err(failed)?;
        man.render_description_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    std::io::stdout().write_all(&page).map_err(failed)?;
    Ok(true)
}
