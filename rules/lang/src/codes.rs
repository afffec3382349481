//! What each code of a diagnostic means: the text of codes.md, by code.
//!
//! Each section there begins with `## CODE`, tells what is wrong, and shows a policy that has it and
//! one that has not, which a test compiles.

/// The explanation of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The code.
    pub code: &'static str,
    /// What it means, in Markdown.
    pub text: &'static str,
}

const TEXT: &str = include_str!("codes.md");

/// Every code that can be explained.
pub fn codes() -> impl Iterator<Item = Explained> {
    let sections = TEXT.split("\n## ").skip(1);
    sections.filter_map(|section| {
        let (code, text) = section.split_once('\n')?;
        Some(Explained { code, text: text.trim() })
    })
}

/// What `code` means.
#[must_use]
pub fn explain_code(code: &str) -> Option<Explained> {
    codes().find(|explained| explained.code == code)
}
