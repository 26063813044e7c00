//! The documented sample of the file.

/// A file with every key at its default, to begin from.
pub const SAMPLE: &str = include_str!("../../config/dormouse.yaml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        config::{Loaded, check_text, idle::IDLE_KEYS},
        model::{Problems, Settings},
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

    #[test]
    fn the_examples_in_its_comments_are_right() {
        // Each block of `# key:` lines replaces the empty key of the same name above it.
        let mut out: Vec<&str> = Vec::new();
        for line in SAMPLE.lines() {
            let example =
                ["domains: [", "nodes:", "acme:", "middlewares:", "routes:", "backends:", "access_log:", "  "]
                    .iter()
                    .any(|start| line.strip_prefix("# ").is_some_and(|rest| rest.starts_with(start)));
            if example {
                let line = &line[2..];
                if let Some((key, _)) = line.split_once(':').filter(|_| !line.starts_with(' ')) {
                    out.retain(|old| !old.starts_with(&format!("{key}:")));
                }
                out.push(line);
            } else {
                out.push(line);
            }
        }
        let loaded = load(&out.join("\n"));
        assert_eq!(loaded.settings.domains, ["example.com", "home.arpa"]);
        assert_eq!(loaded.settings.nodes.len(), 4);
        // Of several endpoints each is one.
        assert_eq!(loaded.routes.len(), 11);
        assert_eq!(loaded.backends.len(), 9);
    }

    #[test]
    fn the_sample_names_the_schema_and_every_idle_setting() {
        assert!(SAMPLE.starts_with("# yaml-language-server: $schema="));
        let words: BTreeSet<&str> = SAMPLE
            .lines()
            .filter_map(|line| line.trim_start().trim_start_matches("# ").split_once(':').map(|(key, _)| key.trim()))
            .collect();
        // Readiness and dependencies belong to one backend; `no_loading_page` is GoDoxy's spelling.
        for key in IDLE_KEYS.iter().filter(|key| !["ready", "depends_on", "no_loading_page"].contains(key)) {
            assert!(words.contains(key), "{key}");
        }
    }
}
