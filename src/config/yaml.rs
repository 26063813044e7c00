//! YAML (and JSON, which is YAML) into a [`Node`] tree.
//!
//! Doubled keys are errors, `<<` merges, anchors work within a budget, several documents are refused.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::tree::{Entry, Node, Value};
use crate::model::{Place, Problem, Problems};

/// Nodes of one text, aliases expanded: far above any real configuration, far below what would hurt.
const MOST_NODES: usize = 200_000;
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
    let mut builder = Builder { parser, at, expand, anchors: HashMap::new(), nodes: 0, problems };
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
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
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
        Problem::error((self.at)(to_u32(mark.line()), to_u32(mark.col()) + 1), format!("no YAML: {}", error.info()))
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
        self.count(1, &place)?;
        if depth > DEEPEST {
            return Err(Problem::error(place, "nested too deep"));
        }
        let before = self.nodes;
        if let Event::Alias(id) = event {
            let known = self.anchors.get(&id).map(|(node, size)| (node.clone(), *size));
            let (node, size) =
                known.ok_or_else(|| Problem::error(place.clone(), "this alias names no finished anchor"))?;
            self.count(size, &place)?;
            return Ok(node);
        }
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
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn count(&mut self, more: usize, place: &Place) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MOST_NODES {
            return Err(Problem::error(place.clone(), "too large: anchors expand to too many values"));
        }
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
            } else if entries.iter().any(|entry| entry.key == key) {
                self.problems.0.push(Problem::error(place, format!("`{key}` is set twice")));
            } else {
                entries.push(Entry { key, place, node });
            }
        }
        for (place, node) in merged {
            self.merge(&mut entries, &place, node);
        }
        Ok(Value::Map(entries))
    }

    fn merge(&mut self, entries: &mut Vec<Entry>, place: &Place, node: Node) {
        match node.value {
            Value::Map(more) => {
                for entry in more {
                    if !entries.iter().any(|e| e.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Value::List(all) => all.into_iter().for_each(|node| self.merge(entries, place, node)),
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
