//! The `tidegate` command: says what is wrong with a policy, and makes it ready for a kernel.
//!
//! Exit codes: 0 done, 1 a policy has mistakes, 2 the command itself or a file could not be used.
#![forbid(unsafe_code)]

mod check;
mod compile;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  tidegate check my.tide                     say whether a policy can be obeyed
  tidegate check --json examples/*.tide      the same for programs, several at once
  tidegate compile my.tide -o my.blob        write what a kernel reads

The language is told in docs/POLICY.md.";

#[derive(Parser)]
#[command(name = "tidegate", version, about = "Policies of the Tidegate firewall", after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell every mistake in policies, and whether what they expect of themselves holds
    Check {
        /// The policies
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write the blob of a policy, which a kernel reads
    Compile {
        /// The policy
        file: PathBuf,
        /// Where to write it; nothing is written if the policy has a mistake
        #[arg(short, long, value_name = "BLOB")]
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Check { files, json } => check::run(&files, json),
        Command::Compile { file, output } => compile::run(&file, &output),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(unusable) => {
            eprintln!("error: {unusable}");
            ExitCode::from(2)
        }
    }
}

/// Why a file could not be used.
struct Unusable {
    path: PathBuf,
    tried: &'static str,
    why: std::io::Error,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {} {}: {}", self.tried, self.path.display(), self.why)
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    std::fs::read_to_string(path).map_err(|why| unusable(path, "read", why))
}

fn unusable(path: &Path, tried: &'static str, why: std::io::Error) -> Unusable {
    Unusable { path: path.to_owned(), tried, why }
}

/// Prints mistakes to standard error, in colour if somebody looks.
fn tell(mistakes: &[lang::Diagnostic]) {
    use std::io::IsTerminal;
    let styled = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for mistake in mistakes {
        eprintln!("{}\n", if styled { mistake.render_styled() } else { mistake.render() });
    }
}

/// `1 mistake`, `2 mistakes`.
fn count(n: usize, of: &str) -> String {
    if n == 1 { format!("1 {of}") } else { format!("{n} {of}s") }
}
