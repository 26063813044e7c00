//! Problems as they are told: those of a configuration, and those of a request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::{Change, Excluded};
use crate::model;

/// What is wrong in a configuration, where, and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `error`, `warning` or `hint`.
    #[schema(example = "error")]
    pub severity: String,
    /// Where, in words.
    pub place: String,
    /// The file, when it is in one.
    pub file: Option<String>,
    /// The line there, from 1.
    pub line: Option<u32>,
    /// The column there, from 1.
    pub column: Option<u32>,
    /// The container, as `node/name`, when it is in a label.
    pub container: Option<String>,
    /// The label's key.
    pub label: Option<String>,
    /// The node, when it is one whose engine is away.
    #[serde(default)]
    pub node: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// Problems of the configuration in force.
    pub problems: Vec<Problem>,
    /// Problems of the last reload, if it was refused.
    pub refused: Vec<Problem>,
    /// Containers without routes, and why.
    pub excluded: Vec<Excluded>,
}

/// What a configuration text would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// Whether it would be taken.
    pub ok: bool,
    /// The changes to settings, and to what runs in the order in which they would be made.
    pub changes: Vec<Change>,
    /// Keys of settings among them that only a new process heeds: one that takes over, or a new start.
    pub waiting: Vec<String>,
    /// All problems.
    pub problems: Vec<Problem>,
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The changes to settings, and to what runs in the order in which they were made.
    pub changes: Vec<Change>,
    /// Keys of settings among them that only a new process heeds: one that takes over, or a new start. Told each time
    /// until then.
    pub waiting: Vec<String>,
    /// What may be amiss with what was taken; no errors.
    pub problems: Vec<Problem>,
}

/// An error of a request, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// Always `about:blank`: `code` says what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of error in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// The kind of error as a word that does not change: `host_not_allowed`, `origin_not_allowed`, `no_such_path`,
    /// `method_not_allowed`, `no_such_backend`, `no_such_container`, `bad_request`, `body_too_large`, `denied`,
    /// `configuration_refused`, `not_kept`, `ending` or `fault`.
    #[schema(example = "no_such_backend")]
    pub code: String,
    /// What went wrong this time.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
    /// The errors of a configuration (`configuration_refused`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl From<&model::Problem> for Problem {
    fn from(problem: &model::Problem) -> Self {
        let told = Self {
            severity: problem.severity.as_str().to_owned(),
            place: problem.place.to_string(),
            what: problem.what.clone(),
            hint: problem.hint.clone(),
            ..Self::default()
        };
        match problem.place.clone() {
            model::Place::File { path, line, column } => Self { file: Some(path.to_string()), line, column, ..told },
            model::Place::Label { container, label } => Self { container: Some(container), label, ..told },
            model::Place::Node(node) => Self { node: Some(node.to_string()), ..told },
            model::Place::Body(_) | model::Place::Host(_) => told,
        }
    }
}
