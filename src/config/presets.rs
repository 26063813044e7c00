//! Presets of `ignore`: who asks without being a user.

use regex::RegexBuilder;

use super::{
    tree::{Node, unknown},
    values,
};
use crate::model::{Ignore, Problems};

/// The names of the presets.
pub(super) const PRESETS: [&str; 3] = ["monitors", "bots", "favicon"];

/// Checks of availability and scrapers of metrics.
const MONITORS: &str = "uptime[-_ ]?kuma|gatus|better ?(stack|uptime)|kube-probe|googlehc|elb-healthchecker|prometheus|\
    blackbox[-_ ]?exporter|uptimerobot|pingdom|statuscake|healthchecks\\.io|updown\\.io|site24x7|freshping|hetrixtools|\
    datadog|newrelicpinger|nagios|check_http|icinga|zabbix|zmon|monit/|traefik-health|haproxy|consul health|checkly|\
    cloudflare-healthchecks|oh ?dear|grafana (agent|alloy)|telegraf|homepage-siteMonitor|beszel";

/// Crawlers and makers of link previews.
const BOTS: &str = "bot\\b|bot/|crawler|spider|slurp|crawling|facebookexternalhit|facebot|whatsapp|telegrambot|\
    slack-imgproxy|discordbot|skypeuripreview|linkedinbot|embedly|pinterest|vkshare|bingpreview|mediapartners-google|\
    google-read-aloud|googleother|gptbot|claudebot|ccbot|perplexitybot|bytespider|ahrefs|semrush|mj12|petalbot|\
    censys|zgrab|masscan|nmap|nuclei|expanse|internetmeasurement|archive\\.org_bot|yandex|baidu|duckduckgo-favicons";

/// What browsers and phones ask for on their own.
const FAVICON: [&str; 8] = [
    "/favicon.ico",
    "/favicon.png",
    "/favicon.svg",
    "/apple-touch-icon*",
    "/robots.txt",
    "/site.webmanifest",
    "/manifest.json",
    "/browserconfig.xml",
];

/// Adds a preset by name.
pub(super) fn add(node: &Node, rules: &mut Ignore, problems: &mut Problems) {
    let Some(name) = values::text(node, problems) else { return };
    match name.to_ascii_lowercase().as_str() {
        "monitors" => add_pattern(MONITORS, false, node, rules, problems),
        "bots" => add_pattern(BOTS, false, node, rules, problems),
        "favicon" => rules.paths.extend(FAVICON.map(str::to_owned)),
        _ => problems.0.push(unknown(&node.place, "preset of `ignore`", name, &PRESETS)),
    }
}

/// Adds a pattern of user agents.
pub(super) fn add_agent(node: &Node, rules: &mut Ignore, problems: &mut Problems) {
    if let Some(pattern) = values::text(node, problems) {
        add_pattern(pattern, true, node, rules, problems);
    }
}

/// Our own patterns are ASCII, which makes them small.
fn add_pattern(pattern: &str, unicode: bool, node: &Node, rules: &mut Ignore, problems: &mut Problems) {
    match RegexBuilder::new(pattern).case_insensitive(true).unicode(unicode).build() {
        Ok(regex) => rules.agents.push(regex),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            problems.0.push(node.wrong(format!("is no pattern of user agents: {why}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IgnoreCase, Place};

    fn ignored(preset: &str, agent: &str, path: &str) -> bool {
        let mut rules = Ignore::default();
        let mut problems = Problems::default();
        add(&Node::text(Place::Body("ignore".into()), preset), &mut rules, &mut problems);
        assert_eq!(problems, Problems::default());
        rules.matches(IgnoreCase { method: "GET", path, agent, client: [127, 0, 0, 1].into() })
    }

    #[test]
    fn monitors_are_known_by_their_agents() {
        for agent in [
            "Uptime-Kuma/1.23.11",
            "Gatus/1.0",
            "Better Stack Better Uptime Bot Mozilla/5.0",
            "kube-probe/1.29",
            "Prometheus/2.51.0",
            "Blackbox Exporter/0.24.0",
            "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        ] {
            assert!(ignored("monitors", agent, "/"), "{agent}");
        }
    }

    #[test]
    fn crawlers_and_previews_are_bots() {
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "facebookexternalhit/1.1",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "TelegramBot (like TwitterBot)",
            "WhatsApp/2.23.20.0",
        ] {
            assert!(ignored("bots", agent, "/"), "{agent}");
        }
    }

    #[test]
    fn browsers_and_tools_of_people_are_neither() {
        for agent in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
            "curl/8.5.0",
            "Jellyfin-Android/2.6.1",
            "Roborock/1.0",
        ] {
            assert!(!ignored("monitors", agent, "/"), "{agent}");
            assert!(!ignored("bots", agent, "/"), "{agent}");
        }
        assert!(ignored("favicon", "Firefox", "/favicon.ico"));
        assert!(ignored("favicon", "Safari", "/apple-touch-icon-120x120.png"));
        assert!(!ignored("favicon", "Firefox", "/icon"));
    }
}
