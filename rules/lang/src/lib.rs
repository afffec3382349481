//! The policy language: from the text a person wrote to rules a firewall can obey.
//!
//! In: the text of one file. Out: a checked [`rules::Policy`] with its blob, or every mistake that
//! was found, each with its place and a way out. Never: reads files, guesses, or panics on any text;
//! never part of the kernel.
//!
//! The way: `lex` cuts the text into words, `parse` finds declarations and rules (and goes on
//! after a mistake), `names` ties names to what they stand for, `lower` builds the common form,
//! `expect` asks it the questions the file itself answers. `analysis` studies the common form, `lint`
//! says what is odd about it, `questions` answers what a person asks. The language is told in
//! docs/POLICY.md.
#![forbid(unsafe_code)]

mod analysis;
mod ast;
mod codes;
mod diagnostic;
mod expect;
mod format;
mod graph;
mod lex;
mod lint;
mod literal;
mod lower;
mod model;
mod names;
mod parse;
mod questions;
mod source;
mod words;

pub use analysis::witness::Example;
pub use codes::{Explained, codes, explain_code};
pub use diagnostic::{Diagnostic, Label, Level};
pub use format::format;
pub use graph::graph;
pub use questions::{
    Changed, Difference, Expectation, Explanation, Named, Proof, Sent, diff, expectations, explain,
    prove,
};
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
    let compiled = stages(&source, &mut report, false);
    match (compiled, report.finish()) {
        (Some(compiled), mistakes) if mistakes.is_empty() => Ok(compiled),
        (_, mistakes) => Err(mistakes),
    }
}

/// Compiles the `text` of the file `name` and studies it. Besides the compiled policy, if there is
/// one, all that is to be said: mistakes, and what is odd in a policy without mistakes.
#[must_use]
pub fn check(name: &str, text: &str) -> (Option<Compiled>, Vec<Diagnostic>) {
    let source = Arc::new(Source::new(name, text));
    let mut report = diagnostic::Report::new(source.clone());
    let compiled = stages(&source, &mut report, true);
    let compiled = compiled.filter(|_| report.is_clean());
    (compiled, report.finish())
}

fn stages(source: &Source, report: &mut diagnostic::Report, study: bool) -> Option<Compiled> {
    let model = model::read(source, report)?;
    model.expectations(report);
    if study {
        lint::lint(&model, report);
    }
    let blob = model.policy.encode().ok()?;
    Some(Compiled { policy: model.policy, blob, expectations: model.file.expects.len() })
}
