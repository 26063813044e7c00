//! YAML (and JSON, which is YAML) into a [`Node`] tree.
//!
//! Doubled keys are errors, `<<` merges, anchors work within a budget, several documents are refused.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::tree::{Entry, Node, Value};
use crate::model::{Place, Problem, Problems};

/// So many values may come out of anchors in any text, and one more for each byte of it. What a text holds itself is
/// bounded by its size; what anchors make of it would not be.
const MOST_COPIED: usize = 100_000;
const DEEPEST: usize = 60;

/// Turns a line and a column, both from 1, into a place.
pub(super) type At<'a> = &'a dyn Fn(u32, u32) -> Place;

/// Replaces variables in a plain scalar; says whether the result is a secret.
pub(super) type Expand<'a> = &'a mut dyn FnMut(&str) -> Result<(String, bool), String>;

/// Reads one document. A text that is no YAML gives its one problem and no tree.
pub(super) fn parse<'a>(text: &str, at: At<'a>, expand: Option<Expand<'a>>, problems: &mut Problems) -> Option<Node> {
    let mut options = Options::default();
    options.emit_comments = false;
    let parser = Parser::new_from_str_with_options(text.trim_start_matches('\u{feff}'), options);
    let to_copy = MOST_COPIED.saturating_add(text.len());
    let mut builder = Builder { parser, at, expand, anchors: HashMap::new(), nodes: 0, to_copy, problems };
    match builder.document() {
        Ok(node) => Some(node),
        Err(problem) => {
            problems.0.push(problem);
            None
        }
    }
}

struct Builder<'i, 'a, 'p> {
    parser: Parser<'i, StrInput<'i>>,
    at: At<'a>,
    expand: Option<Expand<'a>>,
    /// What each anchor names, and how many values that is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    /// So many values may still be copied for anchors and aliases.
    to_copy: usize,
    problems: &'p mut Problems,
}

impl<'i> Builder<'i, '_, '_> {
    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            match self.next()? {
                Some((Event::StreamStart | Event::DocumentEnd, _)) => {}
                Some((Event::DocumentStart(..), span)) if root.is_some() => {
                    return Err(Problem::error(self.place(span), "a second document begins here")
                        .with_hint("keep one document in each file"));
                }
                Some((Event::DocumentStart(..), _)) => root = Some(self.node(0)?),
                Some((Event::StreamEnd, _)) | None => {
                    return Ok(root.unwrap_or_else(|| Node::new((self.at)(1, 1), Value::Null)));
                }
                Some((_, span)) => return Err(Problem::error(self.place(span), "this is not expected here")),
            }
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'i>, Span)>, Problem> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &ScanError) -> Problem {
        let mark = error.marker();
        let at = (self.at)(to_u32(mark.line()), to_u32(mark.col()) + 1);
        let problem = Problem::error(at, format!("no YAML: {}", error.info()));
        if error.info().contains("tabs disallowed") { problem.with_hint("indent with blanks") } else { problem }
    }

    fn place(&self, span: Span) -> Place {
        (self.at)(to_u32(span.start.line()), to_u32(span.start.col()) + 1)
    }

    fn node(&mut self, depth: usize) -> Result<Node, Problem> {
        let Some((event, span)) = self.next()? else {
            return Err(Problem::error((self.at)(1, 1), "the text ends too early"));
        };
        self.node_from(event, span, depth)
    }

    fn node_from(&mut self, event: Event<'i>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = self.place(span);
        if depth > DEEPEST {
            return Err(Problem::error(place, "nested too deep"));
        }
        if let Event::Alias(id) = event {
            return self.alias(id, &place);
        }
        let before = self.nodes;
        self.nodes += 1;
        let anchor = event.anchor_id().unwrap_or(0);
        let node = if let Event::Scalar(text, style, ..) = event {
            self.scalar(&text, style, place)
        } else if matches!(event, Event::SequenceStart(..)) {
            Node::new(place, self.list(depth)?)
        } else if matches!(event, Event::MappingStart(..)) {
            Node::new(place, self.map(depth)?)
        } else {
            return Err(Problem::error(place, "a value is missing here"));
        };
        if anchor > 0 {
            let size = self.nodes - before;
            self.copy(size, &node.place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, place: &Place) -> Result<Node, Problem> {
        let unknown = || Problem::error(place.clone(), "this alias names no finished anchor");
        let size = self.anchors.get(&id).map(|(_, size)| *size).ok_or_else(unknown)?;
        self.copy(size, place)?;
        self.nodes += size;
        self.anchors.get(&id).map(|(node, _)| node.clone()).ok_or_else(unknown)
    }

    /// Accounts for so many values before they are copied.
    fn copy(&mut self, values: usize, place: &Place) -> Result<(), Problem> {
        let left = self.to_copy.checked_sub(values);
        self.to_copy =
            left.ok_or_else(|| Problem::error(place.clone(), "too large: anchors expand to too many values"))?;
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, place: Place) -> Node {
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        // Within braces a secret's name can only stand in quotes.
        let is_secret = style == ScalarStyle::DoubleQuoted && text.starts_with("${file:") && text.ends_with('}');
        if !matches!(style, ScalarStyle::Plain) && !is_secret {
            if quoted
                && self.expand.is_some()
                && let Some(variable) = variable_in(text)
            {
                let what = format!("`{variable}` stands in quotes, where variables are not replaced");
                let hint = "write the value without quotes, and outside of braces, to have it replaced";
                self.problems.0.push(Problem::note(place.clone(), what).with_hint(hint));
            }
            return Node::text(place, text);
        }
        if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Node::new(place, Value::Null);
        }
        let Some(expand) = self.expand.as_mut().filter(|_| text.contains("${")) else {
            return Node::text(place, text);
        };
        match expand(text) {
            Ok((text, hidden)) => Node { place, value: Value::Text(text), hidden },
            Err(what) => {
                self.problems.0.push(Problem::error(place.clone(), what));
                // Already told: no field says it again.
                Node { place, value: Value::Null, hidden: true }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node_from(event, span, depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = HashSet::new();
        let mut merged = Vec::new();
        while let Some((event, span)) = self.next()? {
            let place = self.place(span);
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let Event::Scalar(key, ..) = event else {
                return Err(Problem::error(place, "a key must be a plain text"));
            };
            let key = key.into_owned();
            let node = self.node(depth + 1)?;
            if key == "<<" {
                merged.push((place, node));
            } else if keys.insert(key.clone()) {
                entries.push(Entry { key, place, node });
            } else {
                self.problems.0.push(Problem::error(place, format!("`{key}` is set twice")));
            }
        }
        for (place, node) in merged {
            self.merge(&mut entries, &mut keys, &place, node);
        }
        Ok(Value::Map(entries))
    }

    /// What is there already stays; of several that are merged the first one counts.
    fn merge(&mut self, entries: &mut Vec<Entry>, keys: &mut HashSet<String>, place: &Place, node: Node) {
        match node.value {
            Value::Map(more) => entries.extend(more.into_iter().filter(|entry| keys.insert(entry.key.clone()))),
            Value::List(all) => all.into_iter().for_each(|node| self.merge(entries, keys, place, node)),
            Value::Null | Value::Text(_) => {
                self.problems.0.push(Problem::error(place.clone(), "`<<` must name a mapping"));
            }
        }
    }
}

/// The first variable that a text names, `$${` aside.
fn variable_in(text: &str) -> Option<&str> {
    let at = text.match_indices("${").map(|(at, _)| at).find(|at| !text[..*at].ends_with('$'))?;
    let name = text[at + 2..].split(['}', ':']).next()?;
    let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let end = text[at..].find('}')?;
    sound.then(|| &text[at..=at + end])
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Problems) {
        let mut problems = Problems::default();
        let at = |line, column| Place::File { path: "test.yaml".into(), line: Some(line), column: Some(column) };
        (parse(text, &at, None, &mut problems), problems)
    }

    #[test]
    fn a_text_may_be_as_large_as_it_is_written() {
        let mut text = "usual: &usual { port: 80 }\nroutes:\n".to_owned();
        for number in 0..40_000 {
            let _ = writeln!(text, "  r{number}: {{ hosts: [a{number}.test], <<: *usual }}");
        }
        let (node, problems) = read(&text);
        assert!(problems.0.is_empty(), "{problems}");
        let Some(Node { value: Value::Map(entries), .. }) = node else { panic!("no mapping") };
        assert!(matches!(&entries[1].node.value, Value::Map(routes) if routes.len() == 40_000));
    }

    #[test]
    fn anchors_expand_to_little_more_than_the_text_itself() {
        for bomb in [
            // Each line ten times the one before.
            (1..9).fold("a0: &a0 [x]\n".to_owned(), |mut text, n| {
                let _ = writeln!(text, "a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 10].join(", "));
                text
            }),
            // A long list under many anchors, each of which keeps it whole.
            format!("{}[{}]", "&a [".repeat(50), "x, ".repeat(20_000)) + &"]".repeat(50),
        ] {
            let (node, problems) = read(&bomb);
            assert!(node.is_none());
            assert!(problems.to_string().contains("anchors expand to too many values"), "{problems}");
        }
    }
}
