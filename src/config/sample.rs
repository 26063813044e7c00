//! The documented sample of the file.

/// A file with every key at its default, to begin from.
pub const SAMPLE: &str = include_str!("../../config/dormouse.yaml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value as Json;

    use super::*;
    use crate::{
        config::{
            Loaded, check_text, middlewares, schema,
            tree::{Node, Value, normal},
            yaml,
        },
        model::{Place, Problems, Settings},
    };

    fn load(text: &str) -> Loaded {
        check_text(text, "dormouse.yaml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn the_sample_says_the_defaults() {
        let loaded = load(SAMPLE);
        assert_eq!(loaded.settings, Settings::default());
        assert_eq!(loaded.problems, Problems::default());
        assert!(loaded.routes.is_empty() && loaded.backends.is_empty());
    }

    /// The sample with its examples in force: each takes the place of what stands above it under the same key.
    fn with_examples() -> String {
        let is_key = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let mut out: Vec<String> = Vec::new();
        let mut in_example = false;
        for line in SAMPLE.lines() {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim_start().strip_prefix("# ");
            let begins = text.is_some_and(|text| text.split_once(':').is_some_and(|(key, _)| is_key(key)));
            in_example = begins || (in_example && text.is_some_and(|text| text.starts_with("  ")));
            let Some(text) = text.filter(|_| in_example) else {
                out.push(line.to_owned());
                continue;
            };
            if begins {
                let start = format!("{}{}:", " ".repeat(indent), text.split(':').next().unwrap());
                let is_above = |old: &String| old.len() - old.trim_start().len() < indent && !old.trim().is_empty();
                let from = out.iter().rposition(is_above).map_or(0, |at| at + 1);
                let first = if indent == 0 { 0 } else { from };
                let same = out.iter().skip(first).position(|old| old.starts_with(&start));
                same.map(|at| out.remove(first + at));
            }
            out.push(format!("{}{text}", " ".repeat(indent)));
        }
        out.join("\n")
    }

    #[test]
    fn the_examples_in_its_comments_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("waiting.html", "<p>{{title}} wakes</p>");
        write("error_pages/404.html", "<p>nothing here</p>");
        write("routes/more.yaml", "more: { host: 10.0.0.99 }\n");
        let name = folder.path().join("dormouse.yaml").display().to_string();
        let loaded = check_text(&with_examples(), &name, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.settings.domains, ["example.com", "home.arpa"]);
        assert_eq!(loaded.settings.nodes.len(), 7);
        // What an example says is what is meant: nothing of it is without effect.
        let lacks =
            |what: &str| ["program", "directory", "user"].iter().any(|of| what.contains(&format!("there is no {of}")));
        let doubts = loaded.problems.0.iter().filter(|problem| !lacks(&problem.what));
        assert_eq!(doubts.map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        // Of several endpoints each is one.
        assert_eq!(loaded.routes.len(), 23);
    }

    #[test]
    fn the_sample_names_the_schema_and_every_key() {
        assert!(SAMPLE.starts_with("# yaml-language-server: $schema="));
        let mut problems = Problems::default();
        let at = |_, _| Place::Body("sample".to_owned());
        let sample = yaml::parse(&with_examples(), &at, None, &mut problems).unwrap();
        // A table of keys that stands in several places is shown in one of them.
        let mut shown = BTreeMap::new();
        look(&schema(), &[&sample], &mut Vec::new(), &mut shown);
        let missing: Vec<&String> = shown.values().filter(|(shown, _)| !shown).map(|(_, path)| path).collect();
        assert!(shown.len() > 150, "only {} keys", shown.len());
        assert!(missing.is_empty(), "not in `config/dormouse.yaml`: {missing:?}");
        let words = with_examples();
        for name in middlewares::names_of_those_that_work() {
            let is_named = [format!("{name}:"), format!(" {name},")].iter().any(|form| words.contains(form.as_str()));
            assert!(is_named, "middleware `{name}` is not in `config/dormouse.yaml`");
        }
    }

    /// Looks for the keys of a schema in what the sample has in its place: whether they are there, by their name and
    /// meaning, and where they belong.
    fn look(
        schema: &Json,
        there: &[&Node],
        path: &mut Vec<String>,
        shown: &mut BTreeMap<(String, String), (bool, String)>,
    ) {
        let forms = schema["anyOf"].as_array();
        let object = forms.and_then(|forms| forms.iter().find(|form| form.get("properties").is_some()));
        let object = object.unwrap_or(schema);
        for (key, below) in object["properties"].as_object().into_iter().flatten() {
            let meaning = below["description"].as_str().unwrap();
            let is_of_others =
                ["Not in this version yet", "Ignored", "Without effect", "GoDoxy's name", "Another name"];
            if is_of_others.iter().any(|start| meaning.starts_with(start)) {
                continue;
            }
            let entries = there
                .iter()
                .filter_map(|node| if let Value::Map(entries) = &node.value { Some(entries) } else { None });
            let found = entries.flatten().filter(|entry| normal(&entry.key) == normal(key)).map(|entry| &entry.node);
            let found: Vec<&Node> = found.collect();
            // `jobs: process` is short for a mapping with that key.
            let is_word = there.iter().any(|node| node.as_text() == Some(key));
            path.push(key.clone());
            let one = shown.entry((key.clone(), meaning.to_owned())).or_insert_with(|| (false, path.join(": ")));
            one.0 |= is_word || !found.is_empty();
            look(below, &found, path, shown);
            if below.get("additionalProperties").is_some_and(Json::is_object) {
                let entries = found
                    .iter()
                    .filter_map(|node| if let Value::Map(entries) = &node.value { Some(entries) } else { None });
                let each: Vec<&Node> = entries.flatten().map(|entry| &entry.node).collect();
                path.push("NAME".to_owned());
                look(&below["additionalProperties"], &each, path, shown);
                path.pop();
            }
            path.pop();
        }
    }
}
