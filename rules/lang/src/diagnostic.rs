//! What is to be said about a policy: what it is, where, what it has to do with another place, and
//! what to write instead.

use crate::lex::shown;
use crate::{Place, Source, Span};
use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet};
use std::sync::Arc;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The policy cannot be obeyed.
    Error,
    /// It can be obeyed, and its author must have meant something else.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    source: Arc<Source>,
    /// How much it matters.
    pub level: Level,
    /// Names its kind, lower case with dashes; [`crate::explain_code`] tells more about it.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub primary: Label,
    /// Other places it has to do with.
    pub secondary: Vec<Label>,
    /// What to do about it.
    pub help: Vec<String>,
    /// A packet that shows it.
    pub example: Option<String>,
}

/// A place and what is to be said about it, which may be nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is to be said.
    pub text: String,
}

impl Diagnostic {
    /// The place of the mistake.
    #[must_use]
    pub fn place(&self) -> Place {
        self.source.place(self.primary.span.start)
    }

    /// The place of one of its labels.
    #[must_use]
    pub fn place_of(&self, label: &Label) -> Place {
        self.source.place(label.span.start)
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The mistake with the lines it is about, as plain text.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_with(&Renderer::plain())
    }

    /// The same in colour.
    #[must_use]
    pub fn render_styled(&self) -> String {
        self.render_with(&Renderer::styled())
    }

    fn render_with(&self, renderer: &Renderer) -> String {
        let label = |kind: AnnotationKind, label: &Label| {
            let annotation = kind.span(label.span.start..label.span.end);
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            annotation.label(text)
        };
        let others = self.secondary.iter().map(|l| label(AnnotationKind::Context, l));
        let path: String = self.source.name().chars().flat_map(shown).collect();
        let snippet = Snippet::source(self.source.text())
            .path(path)
            .annotation(label(AnnotationKind::Primary, &self.primary))
            .annotations(others);
        let level = match self.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
            Level::Note => Title::NOTE,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code);
        let example = self.example.iter().map(|packet| format!("for example {packet}"));
        let example = example.map(|text| Title::NOTE.message(text));
        let help = self.help.iter().map(|text| Title::HELP.message(text.as_str()));
        renderer.render(&[title.element(snippet).elements(example).elements(help)])
    }
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Gathers what is to be said about one file.
pub(crate) struct Report {
    source: Arc<Source>,
    found: Vec<Diagnostic>,
    /// Whether other places are in the same text.
    whole: bool,
}

impl Report {
    pub(crate) const fn new(source: Arc<Source>) -> Self {
        Self { source, found: Vec::new(), whole: true }
    }

    /// About a text that uses names of another file, whose places are left out.
    pub(crate) const fn aside(source: Arc<Source>) -> Self {
        Self { source, found: Vec::new(), whole: false }
    }

    /// Notes a mistake; what it returns adds to it.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> More<'_> {
        self.find(Level::Error, code, message, span, label)
    }

    /// Notes something; what it returns adds to it.
    pub(crate) fn find(
        &mut self,
        level: Level,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> More<'_> {
        self.found.push(Diagnostic {
            source: self.source.clone(),
            level,
            code,
            message: message.into(),
            primary: Label { span, text: label.into() },
            secondary: Vec::new(),
            help: Vec::new(),
            example: None,
        });
        More(self.found.last_mut(), self.whole)
    }

    /// Whether there is no mistake.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.iter().all(|found| found.level != Level::Error)
    }

    /// All that was found, by place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|mistake| mistake.primary.span);
        self.found
    }
}

/// Adds to the mistake that was noted last.
pub(crate) struct More<'a>(Option<&'a mut Diagnostic>, bool);

impl More<'_> {
    /// Another place, and what it has to do with it.
    pub(crate) fn see(self, span: Span, text: impl Into<String>) -> Self {
        let Self(Some(found), whole) = self else { return self };
        if whole {
            found.secondary.push(Label { span, text: text.into() });
        }
        Self(Some(found), whole)
    }

    /// What to do about it.
    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        let Self(Some(found), whole) = self else { return self };
        found.help.push(text.into());
        Self(Some(found), whole)
    }

    /// A packet that shows it.
    pub(crate) fn example(self, packet: String) -> Self {
        let Self(Some(found), whole) = self else { return self };
        found.example = Some(packet);
        Self(Some(found), whole)
    }

    /// The same, if there is something to be said.
    pub(crate) fn maybe_help(self, text: Option<String>) -> Self {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }
}
