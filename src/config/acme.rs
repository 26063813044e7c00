//! `acme`: certificates from an authority.

use std::path::Path;

use super::{
    acme_dns,
    tree::{Entry, Fields, Node, Value},
    values,
};
use crate::model::{AcmeChallenge, AcmeSettings, ExternalAccount, HostPattern, Problem, Problems, Secret};

/// Authorities by name.
const DIRECTORIES: [(&str, &str); 3] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
];

const KEYS: &[&str] = &["directory", "root", "email", "eab", "challenge", "dns", "certificates", "on_demand"];

/// Reads `acme`: a mapping, `true`, or `false`; relative paths start at `base`.
pub(super) fn read(entry: &Entry, base: &Path, problems: &mut Problems) -> Option<AcmeSettings> {
    let node = &entry.node;
    let mut settings = AcmeSettings {
        directory: DIRECTORIES[0].1.to_owned(),
        root: None,
        email: None,
        external: None,
        challenges: Vec::new(),
        dns: None,
        certificates: Vec::new(),
        on_demand: true,
        place: entry.place.clone(),
    };
    match node.as_text().map(values::parse_bool) {
        None if node.is_null() => return None,
        None => {}
        Some(Some(false)) => return None,
        Some(Some(true)) => {
            settings.challenges = vec![AcmeChallenge::Http, AcmeChallenge::TlsAlpn];
            return Some(settings);
        }
        Some(None) => {
            problems.0.push(node.wrong("is no form of `acme`: write `true`, `false` or a mapping of its options"));
            return None;
        }
    }
    let mut fields = Fields::open(node, "`acme`", problems);
    let path = fields.get("root").and_then(|node| values::text(node, problems));
    settings.root = path.map(|path| base.join(path));
    if let Some(node) = fields.get("directory") {
        settings.directory = directory(node, problems).unwrap_or(settings.directory);
    }
    if let Some(node) = fields.get("email")
        && let Some(text) = values::text(node, problems)
    {
        if text.contains('@') {
            settings.email = Some(text.to_owned());
        } else {
            problems.0.push(node.wrong("is no address for e-mail"));
        }
    }
    settings.external = fields.get("eab").and_then(|node| external(node, problems));
    let dns = fields.get("dns");
    settings.dns = dns.and_then(|node| acme_dns::read(node, base, problems));
    settings.challenges = match fields.get("challenge") {
        Some(node) => challenges(node, dns.is_some(), problems),
        None if dns.is_some() => vec![AcmeChallenge::Dns],
        None => vec![AcmeChallenge::Http, AcmeChallenge::TlsAlpn],
    };
    if let Some(node) = fields.get("certificates") {
        settings.certificates = certificates(node, dns.is_some(), problems);
    }
    if let Some(node) = fields.get("on_demand") {
        settings.on_demand = values::boolean(node, problems).unwrap_or(true);
    }
    fields.finish(KEYS, problems);
    Some(settings)
}

fn directory(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?;
    if let Some((_, address)) = DIRECTORIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Some((*address).to_owned());
    }
    if text.starts_with("https://") && text.len() > "https://".len() {
        return Some(text.to_owned());
    }
    let names = DIRECTORIES.map(|(name, _)| name).join("`, `");
    problems.0.push(node.wrong(format!("is no authority: write `{names}`, or the `https://` address of a directory")));
    None
}

fn external(node: &Node, problems: &mut Problems) -> Option<ExternalAccount> {
    let mut fields = Fields::open(node, "`eab`", problems);
    let mut text = |key: &str| fields.get(key).and_then(|node| values::text(node, problems)).map(str::to_owned);
    let (id, key) = (text("kid"), text("hmac"));
    fields.finish(&["kid", "hmac"], problems);
    let (Some(id), Some(key)) = (id, key) else {
        let problem = Problem::error(node.place.clone(), "`eab` needs both `kid` and `hmac`");
        problems.0.push(
            problem.with_hint("the authority shows both; keep the key in a file: `hmac: ${file:/run/secrets/eab}`"),
        );
        return None;
    };
    Some(ExternalAccount { id, key: Secret::new(key) })
}

fn challenges(node: &Node, dns: bool, problems: &mut Problems) -> Vec<AcmeChallenge> {
    let known = AcmeChallenge::ALL.map(|challenge| (challenge.as_str(), challenge));
    let mut challenges = Vec::new();
    for item in values::items(node, problems) {
        let Some(challenge) = values::word(&item, "challenge", &known, problems) else { continue };
        if challenge == AcmeChallenge::Dns && !dns {
            let problem = Problem::error(item.place.clone(), "`dns-01` needs something that puts records into the DNS");
            problems.0.push(problem.with_hint(acme_dns::HINT));
        }
        challenges.push(challenge);
    }
    if challenges.is_empty() && !problems.has_errors() {
        problems.0.push(Problem::error(node.place.clone(), "`challenge` names none"));
    }
    challenges
}

/// Each a name, or a list of names for one certificate.
fn certificates(node: &Node, dns: bool, problems: &mut Problems) -> Vec<Vec<String>> {
    let items = match &node.value {
        Value::List(items) => items.clone(),
        Value::Null | Value::Text(_) | Value::Map(_) => values::items(node, problems),
    };
    let mut all = Vec::new();
    for item in items {
        let names: Vec<String> = values::items(&item, problems)
            .iter()
            .filter_map(|name| {
                let pattern: HostPattern = values::parsed(name, problems)?;
                match &pattern {
                    HostPattern::Exact(_) => {}
                    HostPattern::Wildcard(_) if dns => {}
                    HostPattern::Wildcard(_) => {
                        let problem = name.wrong("stands for many hosts, which only `dns-01` can show to be ours");
                        problems.0.push(problem.with_hint(acme_dns::HINT));
                    }
                    HostPattern::FirstLabel(_) | HostPattern::Any => {
                        problems.0.push(name.wrong("is no host that a certificate can be for"));
                    }
                }
                Some(pattern.to_string())
            })
            .collect();
        if !names.is_empty() {
            all.push(names);
        }
    }
    all
}
