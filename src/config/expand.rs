//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in plain scalars.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::read_text::{Kinds, read_text};

/// Where variables and secret files come from.
pub(super) struct Sources<'a> {
    pub(super) env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Relative paths start here.
    pub(super) base: PathBuf,
    /// Every file that was read.
    pub(super) files: Vec<PathBuf>,
    /// The text is a stranger's: it is told nothing of this machine's files and variables.
    pub(super) sealed: bool,
}

/// What to do instead.
pub(super) const SEALED: &str = "use the Unix socket, or `dormouse check FILE`";

impl Sources<'_> {
    /// Replaces all variables of a text; says whether a secret is in the result. `$${` is `${` itself.
    pub(super) fn expand(&mut self, text: &str) -> Result<(String, bool), String> {
        let mut out = String::new();
        let mut hidden = false;
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            if let Some(tail) = tail.strip_prefix("${") {
                out.push_str("${");
                rest = tail;
            } else if let Some(tail) = tail.strip_prefix('{') {
                let (inside, tail) = tail.split_once('}').ok_or_else(|| format!("`{text}` lacks a closing `}}`"))?;
                hidden |= inside.starts_with("file:");
                out.push_str(&self.value(inside)?);
                rest = tail;
            } else {
                out.push('$');
                rest = tail;
            }
        }
        out.push_str(rest);
        Ok((out, hidden))
    }

    fn value(&mut self, inside: &str) -> Result<String, String> {
        if let Some(path) = inside.strip_prefix("file:") {
            let path = self.resolve(Path::new(path));
            return self.read(&path).map(|text| text.trim_end_matches(['\n', '\r']).to_owned());
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !sound {
            return Err(format!("`${{{inside}}}` names no variable: write `${{NAME}}` or `${{NAME:-default}}`"));
        }
        if self.sealed {
            return Err(format!("the variable `{name}` is not told to those who ask over TCP: {SEALED}"));
        }
        match ((self.env)(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(format!("the variable `{name}` is not set: set it, or write `${{{name}:-default}}`")),
        }
    }

    /// A path as seen from the file that names it.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        if path.is_absolute() { path.to_owned() } else { self.base.join(path) }
    }

    /// Reads a file and remembers that it was read.
    pub(super) fn read(&mut self, path: &Path) -> Result<String, String> {
        if self.sealed {
            return Err(format!("`{}` is not read for those who ask over TCP: {SEALED}", path.display()));
        }
        let told = |error: io::Error| format!("can not read `{}`: {error}", path.display());
        let text = read_text(path, Kinds::Files).map_err(told)?;
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
        Ok(text)
    }
}
