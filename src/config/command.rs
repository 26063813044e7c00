//! The command of a plain process.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{Command, Problem, Problems};

/// Where programs are looked for when nobody says.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command of a process: a list, or one line split at spaces.
pub(super) fn command(
    fields: &mut Fields<'_>,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Command> {
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
    let start = directory.and_then(|node| values::text(node, problems)).map(PathBuf::from);
    let name = user.and_then(|node| values::text(node, problems)).map(str::to_owned);
    let command = Command { argv, env: variables, directory: start, user: name };
    let is_missing = command.directory.as_deref().is_some_and(is_no_directory);
    let mut warn = |at: &Node, what: String, lacks: &str| {
        let hint = format!("it can not be started until {lacks} is there");
        problems.0.push(Problem::warning(at.place.clone(), what).with_hint(hint));
    };
    if let (Some(at), true) = (directory, is_missing) {
        warn(at, format!("there is no directory {}", at.shown()), "the directory");
    } else if let Some(what) = lacks_its_program(&command, variable) {
        warn(node, what, "the program");
    }
    if let (Some(at), Some(name)) = (user, &command.user)
        && is_nobody(name)
    {
        warn(at, format!("there is no user {}", at.shown()), "the user");
    }
    Some(command)
}

/// Whether there is certainly no such directory.
fn is_no_directory(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |facts| !facts.is_dir())
}

/// Whether there is certainly no such user. A number needs none.
fn is_nobody(name: &str) -> bool {
    name.parse::<u32>().is_err() && matches!(nix::unistd::User::from_name(name), Ok(None))
}

/// What is wrong with the program of a command, as far as can be seen from here. No error: it may yet be installed.
fn lacks_its_program(command: &Command, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let program = command.argv.first()?;
    let start = command.directory.clone().unwrap_or_default();
    if program.contains('/') {
        let file = start.join(program);
        return match is_program(&file) {
            Some(false) => Some(format!("`{}` is no program", file.display())),
            Some(true) => None,
            None => Some(format!("there is no program `{}`", file.display())),
        };
    }
    let path = command.env.get("PATH").cloned().or_else(|| variable("PATH")).unwrap_or_else(|| USUAL_PATH.to_owned());
    let found = path.split(':').any(|folder| is_program(&start.join(folder).join(program)) == Some(true));
    (!found).then(|| format!("there is no program `{program}` in any folder of the `PATH` `{path}`"))
}

/// Whether a file can be run; absent: there is none. What can not be looked at is believed.
fn is_program(file: &Path) -> Option<bool> {
    match std::fs::metadata(file) {
        Ok(facts) => Some(facts.is_file() && facts.permissions().mode() & 0o111 != 0),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(_) => Some(true),
    }
}
