//! Problems: what is wrong in a configuration, where, and what to do about it.

use std::{collections::HashSet, fmt, sync::Arc};

use super::NodeName;

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A file, with line and column from 1 where they are known.
    File {
        /// The path as the user gave it.
        path: Arc<str>,
        /// Line, from 1.
        line: Option<u32>,
        /// Column in characters, from 1.
        column: Option<u32>,
    },
    /// A label of a container.
    Label {
        /// The container, as `node/name`.
        container: String,
        /// The label's key; absent: the container as a whole.
        label: Option<String>,
    },
    /// The body of an API call, with the path of the field.
    Body(String),
    /// A host that is served.
    Host(String),
    /// A node, and its engine.
    Node(NodeName),
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The route (or file) is refused.
    Error,
    /// It works, but not as one may think.
    Warning,
    /// Worth knowing.
    Hint,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What is wrong: a lower-case fragment without a full stop, literals in backticks.
    pub what: String,
    /// What to do, or the nearest known spelling.
    pub hint: Option<String>,
}

/// Several problems, never sorted away: in the order they were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// An error.
    pub fn error(place: Place, what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place, what: what.into(), hint: None }
    }

    /// A warning.
    pub fn warning(place: Place, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, place, what: what.into(), hint: None }
    }

    /// A hint.
    pub fn note(place: Place, what: impl Into<String>) -> Self {
        Self { severity: Severity::Hint, place, what: what.into(), hint: None }
    }

    /// The same problem with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Problems {
    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.has_errors_since(0)
    }

    /// Each is told once: what several endpoints or aliases have from one place is one mistake.
    pub fn tell_once(&mut self) {
        let mut told = HashSet::new();
        self.0.retain(|problem| told.insert(problem.clone()));
    }

    /// Whether any of those found after the first `before` is an error.
    pub fn has_errors_since(&self, before: usize) -> bool {
        self.0.iter().skip(before).any(|p| p.severity == Severity::Error)
    }
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                f.write_str(path)?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let (Some(_), Some(column)) = (line, column) {
                    write!(f, ":{column}")?;
                }
                Ok(())
            }
            Self::Label { container, label: Some(label) } => write!(f, "container {container}, label `{label}`"),
            Self::Label { container, label: None } => write!(f, "container {container}"),
            Self::Body(path) => write!(f, "body, `{path}`"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

impl fmt::Display for Problem {
    /// The alternate form leaves out how bad it is, for where that is told already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{}: ", self.severity.as_str())?;
        }
        write!(f, "{}: {}", self.place, self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
