//! The command of a plain process.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    tree::{Fields, Value},
    values,
};
use crate::model::{Command, Problem, Problems};

/// The command of a process: a list, or one line split at spaces.
pub(super) fn command(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Command> {
    let node = fields.get("command");
    let env = fields.get("env");
    let directory = fields.get("directory");
    let user = fields.get("user");
    let Some(node) = node else {
        for node in [env, directory, user].into_iter().flatten() {
            problems.0.push(Problem::error(node.place.clone(), "this setting needs a `command`"));
        }
        return None;
    };
    let argv = match &node.value {
        Value::Text(text) if text.contains(['"', '\'', '\\', '$', '|', '&', ';', '<', '>', '`']) => {
            let problem = node.wrong("holds characters of a shell, and there is none");
            problems.0.push(problem.with_hint("write a list, such as `[\"sh\", \"-c\", \"…\"]`"));
            return None;
        }
        Value::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Null | Value::List(_) | Value::Map(_) => values::texts(node, problems),
    };
    if argv.is_empty() {
        problems.0.push(Problem::error(node.place.clone(), "`command` names no program"));
        return None;
    }
    let mut variables = BTreeMap::new();
    if let Some(node) = env {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let value = if entry.node.is_null() { Some("") } else { values::text(&entry.node, problems) };
                    variables.extend(value.map(|value| (entry.key.clone(), value.to_owned())));
                }
            }
            Value::Null | Value::Text(_) | Value::List(_) => {
                problems.0.push(node.wrong("is no mapping of variables to values"))
            }
        }
    }
    let directory = directory.and_then(|node| values::text(node, problems)).map(PathBuf::from);
    let user = user.and_then(|node| values::text(node, problems)).map(str::to_owned);
    Some(Command { argv, env: variables, directory, user })
}
