//! What holds for every text: nothing panics, and what is printed reads back.

use std::{collections::BTreeMap, time::Duration};

use dormouse::model::{Alias, HostPattern, RouteTarget, format_duration, parse_duration};
use proptest::prelude::*;

use super::*;

/// Parts of keys: words of the grammar, and anything at all.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            [
                "",
                "*",
                "#1",
                "#2",
                "#9",
                "#",
                "app",
                "web",
                "APP",
                "port",
                "ports",
                "scheme",
                "host",
                "hosts",
                "healthcheck",
                "path",
                "interval",
                "middlewares",
                "set_headers",
                "aliases",
                "idle_timeout",
                "depends_on",
                "ready",
                "http",
                "ignore",
                "network",
                "load_balance",
                "idle",
                "title",
                "paths",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        "[a-z#*._-]{0,6}",
        ".{0,4}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            [
                "",
                "80",
                "81, 82",
                "true",
                "maybe",
                "5m",
                "30",
                "-1",
                "a, b",
                "[a, b]",
                "{port: 80}",
                "port: 80\n",
                "healthcheck:\n\tpath: /x\n",
                "- a\n- b\n",
                "*",
                "a: &x [*x]",
                "a: b: c",
                "\"",
                "|",
                "http",
                "udp",
                "/x",
                "monitors",
                "{a: {b: {c: d}}}",
                "engine",
                "53:53",
                "? a",
                "<<: {port: 80}",
                "\u{feff}port: 1",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        "[a-z0-9:,\\[\\]{}&*#?|>!%@` \n\t\"'-]{0,24}",
        ".{0,12}",
    ]
}

fn label_sets() -> impl Strategy<Value = BTreeMap<String, String>> {
    let prefix = prop::sample::select(vec!["dormouse", "proxy", "Dormouse", "other"]);
    let key = (prefix, prop::collection::vec(part(), 0..4))
        .prop_map(|(prefix, parts)| std::iter::once(prefix.to_owned()).chain(parts).collect::<Vec<_>>().join("."));
    prop::collection::btree_map(key, value(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_set_of_labels_panics_or_ends_in_silence(labels in label_sets()) {
        let loaded = check_text("domains: [example.com]", "settings.yaml", &|_| None).unwrap();
        let made = from_container(&Unit::labelled(labels.clone()).container(), &loaded.settings, &[]);
        prop_assert!(!made.routes.is_empty() || made.excluded.is_some() || made.problems.has_errors());
        for route in &made.routes {
            prop_assert_eq!(route.alias.to_string().parse::<Alias>().unwrap(), route.alias.clone());
            for host in &route.matches.hosts {
                prop_assert_eq!(&host.to_string().parse::<HostPattern>().unwrap(), host);
            }
            if let Some(health) = &route.options.health {
                prop_assert_eq!(parse_duration(&format_duration(health.interval)), Ok(health.interval));
            }
        }
        let mut aliases: Vec<&Alias> = made.routes.iter().map(|route| &route.alias).collect();
        aliases.sort();
        aliases.dedup();
        prop_assert_eq!(aliases.len(), made.routes.len());
        let catalog = together("settings.yaml", &loaded, &[Unit::labelled(labels)], None);
        for route in catalog.routes.values() {
            let down = matches!(route.target, RouteTarget::Down { .. });
            prop_assert!(down || route.backend().is_none_or(|id| catalog.backends.contains_key(id)));
        }
    }

    #[test]
    fn what_excludes_excludes_whatever_else_is_said(labels in label_sets(), word in "[a-z]{0,5}") {
        prop_assume!(!["false", "no", "off", "n", "f"].contains(&word.as_str()));
        let mut labels = labels;
        labels.retain(|key, _| !key.to_lowercase().replace('_', "").starts_with("dormouse.exclude"));
        labels.insert("dormouse.exclude".into(), word);
        let made = from_container(&Unit::labelled(labels).container(), &Settings::default(), &[]);
        prop_assert_eq!(made.routes, Vec::new());
    }

    #[test]
    fn printed_durations_read_back_as_labels(seconds in 1u64..10_000_000) {
        let idle = Duration::from_secs(seconds);
        let labels = BTreeMap::from([("dormouse.idle_timeout".to_owned(), format_duration(idle))]);
        let made = from_container(&Unit::labelled(labels).container(), &Settings::default(), &[]);
        prop_assert_eq!(made.backend.unwrap().policy.idle_timeout, Some(idle));
    }

    #[test]
    fn printed_aliases_and_hosts_read_back_as_labels(name in "[A-Za-z0-9_-]{1,12}(\\.[A-Za-z0-9-]{1,8}){0,2}\\.?") {
        let made = |alias: &str| {
            let labels = BTreeMap::from([
                ("dormouse.aliases".to_owned(), alias.to_owned()),
                ("dormouse.*.hosts".to_owned(), format!("\"{alias}\", \"*.{alias}\"")),
            ]);
            let labels = labels.into_iter().map(|(k, v)| (k, v.replace('"', ""))).collect();
            from_container(&Unit::labelled(labels).container(), &Settings::default(), &[]).routes.remove(0)
        };
        let first = made(&name);
        let again = made(&first.alias.to_string());
        prop_assert_eq!(&first.alias, &again.alias);
        prop_assert_eq!(first.matches, again.matches);
    }

    #[test]
    fn no_text_of_a_file_panics(text in "[a-z:{}\\[\\]&*#,|>\\-\"' \n\t$]{0,80}") {
        let _ = check_text(&text, "any.yaml", &|_| None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_of_a_known_key_panics(value in value()) {
        let schema = dormouse::config::schema();
        // Files are read only where `include` names them.
        for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "include") {
            let _ = check_text(&format!("{key}: {value}\n"), "any.yaml", &|_| None);
        }
    }
}
