//! A mistake in a policy: what is wrong, where, what it has to do with another place, and what to
//! write instead.

use crate::{Place, Source, Span};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::sync::Arc;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    source: Arc<Source>,
    /// Names the kind of mistake: lower case with dashes.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub primary: Label,
    /// Other places it has to do with.
    pub secondary: Vec<Label>,
    /// What to do about it.
    pub help: Vec<String>,
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
        let snippet = Snippet::source(self.source.text())
            .path(self.source.name())
            .annotation(label(AnnotationKind::Primary, &self.primary))
            .annotations(others);
        let title = Level::ERROR.primary_title(self.message.as_str()).id(self.code);
        let help = self.help.iter().map(|text| Level::HELP.message(text.as_str()));
        renderer.render(&[title.element(snippet).elements(help)])
    }
}

/// Gathers the mistakes of one file.
pub(crate) struct Report {
    source: Arc<Source>,
    found: Vec<Diagnostic>,
}

impl Report {
    pub(crate) const fn new(source: Arc<Source>) -> Self {
        Self { source, found: Vec::new() }
    }

    /// Notes a mistake; what it returns adds to it.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> More<'_> {
        self.found.push(Diagnostic {
            source: self.source.clone(),
            code,
            message: message.into(),
            primary: Label { span, text: label.into() },
            secondary: Vec::new(),
            help: Vec::new(),
        });
        More(self.found.last_mut())
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// All mistakes, by place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|mistake| mistake.primary.span);
        self.found
    }
}

/// Adds to the mistake that was noted last.
pub(crate) struct More<'a>(Option<&'a mut Diagnostic>);

impl More<'_> {
    /// Another place, and what it has to do with it.
    pub(crate) fn see(self, span: Span, text: impl Into<String>) -> Self {
        if let Self(Some(mistake)) = self {
            mistake.secondary.push(Label { span, text: text.into() });
            return Self(Some(mistake));
        }
        self
    }

    /// What to do about it.
    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        if let Self(Some(mistake)) = self {
            mistake.help.push(text.into());
            return Self(Some(mistake));
        }
        self
    }

    /// The same, if there is something to be said.
    pub(crate) fn maybe_help(self, text: Option<String>) -> Self {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }
}
