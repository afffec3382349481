//! The policy language: from the text a person wrote to rules a firewall can obey.
//!
//! In: the text of one file. Out: a checked [`rules::Policy`] with its blob, or every mistake that
//! was found, each with its place and a way out. Never: reads files, guesses, or panics on any text;
//! never part of the kernel.
//!
//! The way: `lex` cuts the text into words, `parse` finds declarations and rules (and goes on
//! after a mistake), `names` ties names to what they stand for, `lower` builds the common form,
//! `expect` asks it the questions the file itself answers. The language is told in docs/POLICY.md.
#![forbid(unsafe_code)]

mod ast;
mod diagnostic;
mod expect;
mod lex;
mod literal;
mod lower;
mod names;
mod parse;
mod source;
mod words;

pub use diagnostic::{Diagnostic, Label};
pub use source::{Place, Source, Span};

use rules::Policy;
use std::sync::Arc;

/// A policy that can be obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Its common form.
    pub policy: Policy,
    /// The same as bytes, for a kernel.
    pub blob: Vec<u8>,
    /// How many `expect` lines of the file were checked.
    pub expectations: usize,
}

/// Compiles the `text` of the file `name`.
///
/// # Errors
/// Every mistake that was found, in the order of their places.
pub fn compile(name: &str, text: &str) -> Result<Compiled, Vec<Diagnostic>> {
    let source = Arc::new(Source::new(name, text));
    let mut report = diagnostic::Report::new(source.clone());
    let compiled = stages(&source, &mut report);
    match (compiled, report.finish()) {
        (Some(compiled), mistakes) if mistakes.is_empty() => Ok(compiled),
        (_, mistakes) => Err(mistakes),
    }
}

fn stages(source: &Source, report: &mut diagnostic::Report) -> Option<Compiled> {
    let file = parse::parse(source.text(), report);
    let names = names::resolve(&file, report);
    let policy = lower::lower(source, &file, &names, report)?;
    expect::check(&policy, &file, &names, report);
    let blob = policy.encode().ok()?;
    Some(Compiled { policy, blob, expectations: file.expects.len() })
}
