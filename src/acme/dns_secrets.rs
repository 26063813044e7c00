//! What a DNS provider needs: read from files and from the environment, and checked before anything is ordered.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::{dns_forms, dns_provider};
use crate::{
    model::{AcmeSettings, DnsOption, DnsProvider, DnsValue, Problem, Problems},
    provider::secret_variable,
};

/// A file that is larger holds no secret.
const LARGEST: u64 = 64 << 10;

/// All that a provider needs, by the keys of its options.
#[derive(Clone, Default)]
pub(super) struct Needs {
    values: HashMap<&'static str, String>,
    secrets: Vec<String>,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Needs {
    /// Reads them, or says what is wrong with the first one.
    pub(super) fn read(settings: &DnsProvider) -> Result<Self, String> {
        let mut needs = Self::default();
        for option in settings.kind.options {
            let Some(value) = value_of(settings, option)? else {
                if option.required {
                    return Err(lacks(settings, option));
                }
                continue;
            };
            if option.secret {
                needs.secrets.push(value.clone());
            }
            needs.values.insert(option.key, value);
        }
        Ok(needs)
    }

    /// What was given for an option; nothing when it was not.
    pub(super) fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// The same of one that may be left out.
    pub(super) fn find(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// A text of somebody else's, in one line and without any secret.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            for form in [secret.clone(), encoded(secret, "+"), encoded(secret, "%20")] {
                text = text.replace(&form, "…");
            }
        }
        text.split_whitespace().map(without_query).collect::<Vec<_>>().join(" ")
    }
}

/// As it stands in addresses (WHATWG URL, 5.2), a space written so.
fn encoded(secret: &str, space: &str) -> String {
    let mut out = String::new();
    for byte in secret.bytes() {
        match byte {
            b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(char::from(byte)),
            b' ' => out.push_str(space),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A word, of which, if it is an address, nothing is left of what was asked there.
fn without_query(word: &str) -> String {
    match word.split_once('?').filter(|(address, _)| address.contains("://")) {
        Some((address, query)) => {
            let end = query.trim_end_matches([':', ';', ',', '.', ')', '"', '\'', '`']).len();
            format!("{address}?…{}", query.get(end..).unwrap_or_default())
        }
        None => word.to_owned(),
    }
}

fn value_of(settings: &DnsProvider, option: &DnsOption) -> Result<Option<String>, String> {
    match settings.options.get(option.key) {
        Some(DnsValue::Text(text)) => Ok(Some(text.clone())),
        Some(DnsValue::File(path)) => {
            let failed = |why: String| format!("`{}` of `{}`: {why}", option.written(), settings.kind.name);
            let text = read(path).map_err(|error| failed(format!("can not read `{}`: {error}", path.display())))?;
            if text.is_empty() {
                return Err(failed(format!("`{}` is empty", path.display())));
            }
            if !option.has_lines() && text.chars().any(char::is_control) {
                return Err(failed(format!("`{}` holds more than one line", path.display())));
            }
            Ok(Some(text))
        }
        None => {
            let value = option.variables.iter().find_map(|name| {
                // What is no secret stays with those whom we start.
                if option.secret { secret_variable(name) } else { env::var(name).ok() }
            });
            Ok(value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
        }
    }
}

/// Where a value is from: its key, or its variable.
fn source(settings: &DnsProvider, option: &DnsOption) -> String {
    let given = |name: &&&str| env::var(name).is_ok_and(|value| !value.is_empty());
    let variable = option.variables.iter().find(given).filter(|_| !settings.options.contains_key(option.key));
    format!("`{}`", variable.map_or_else(|| option.written(), |name| (*name).to_owned()))
}

fn lacks(settings: &DnsProvider, option: &DnsOption) -> String {
    let variables = option.variables.join("` or `");
    format!("`{}` lacks `{}`, and there is no variable `{variables}`", settings.kind.name, option.written())
}

/// Reads a file of a secret; a pipe would be waited for.
fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is too large to be a secret"));
    }
    Ok(text.trim().to_owned())
}

/// The variables of the environment in which secrets of these settings may be.
pub(super) fn secret_variables(settings: Option<&AcmeSettings>) -> BTreeSet<&'static str> {
    let provider = settings.and_then(|settings| settings.dns.as_ref()?.provider());
    let unwritten = provider.into_iter().flat_map(|provider| {
        provider.kind.options.iter().filter(|option| option.secret && !provider.options.contains_key(option.key))
    });
    unwritten.flat_map(|option| option.variables).copied().collect()
}

/// Whether what `acme: dns` needs is there: an error where it is not, a warning where others can read a secret.
pub fn check_dns(settings: &AcmeSettings) -> Problems {
    let mut problems = Problems::default();
    let Some(provider) = settings.dns.as_ref().and_then(|dns| dns.provider()) else { return problems };
    let at = || provider.place.clone();
    for option in provider.kind.options {
        match value_of(provider, option) {
            Ok(None) if option.required => {
                let hint = format!("write `{}: …`, or set the variable", option.written());
                problems.0.push(Problem::error(at(), lacks(provider, option)).with_hint(hint));
            }
            Ok(value) => {
                if let Some(Err(why)) = value.map(|value| dns_forms::check(provider.kind, option, &value)) {
                    let what = format!("{} of `{}`: {why}", source(provider, option), provider.kind.name);
                    problems.0.push(Problem::error(at(), what));
                }
            }
            Err(why) => problems.0.push(Problem::error(at(), why)),
        }
        if let Some(DnsValue::File(path)) = provider.options.get(option.key)
            && fs::metadata(path).is_ok_and(|facts| facts.mode() & 0o077 != 0)
        {
            let what = format!("`{}`, which holds a secret, can be read by others", path.display());
            problems.0.push(Problem::warning(at(), what).with_hint(format!("`chmod 600 {}`", path.display())));
        }
    }
    if !problems.has_errors()
        && let Err(why) = Needs::read(provider).and_then(|needs| dns_provider::check(provider, &needs))
    {
        problems.0.push(Problem::error(at(), why));
    }
    // Two certificates for what one of them could be for are as good.
    let both = |names: &Vec<String>| {
        names.iter().any(|name| name.strip_prefix("*.").is_some_and(|bare| names.iter().any(|name| name == bare)))
    };
    if provider.kind.one_value && settings.certificates.iter().any(both) {
        let what = format!("`{}` keeps one record of a name, and a host and all below it need two", provider.kind.name);
        let hint = "write them as two certificates: `certificates: [[example.com], [\"*.example.com\"]]`";
        problems.0.push(Problem::error(at(), what).with_hint(hint));
    }
    problems
}

/// Settings of the tests.
#[cfg(test)]
pub(super) mod samples {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::model::{DnsProviderKind, Place};

    /// A secret that is base64, too.
    pub(in crate::acme) const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

    /// All that a provider needs. The secrets are files of the directory.
    pub(in crate::acme) fn given(kind: &'static DnsProviderKind) -> (DnsProvider, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut options = BTreeMap::new();
        for option in kind.options.iter().filter(|option| option.required) {
            let value = if option.secret {
                let file = directory.path().join(option.key);
                fs::write(&file, format!("{}\n", secret(kind, option))).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                DnsValue::File(file)
            } else if option.key.contains("client_ip") {
                DnsValue::Text("192.0.2.1".to_owned())
            } else {
                DnsValue::Text("127.0.0.1".to_owned())
            };
            options.insert(option.key, value);
        }
        let settings = DnsProvider {
            kind,
            options,
            zone: None,
            resolvers: Vec::new(),
            propagation_timeout: Duration::ZERO,
            place: Place::File { path: "dormouse.yaml".into(), line: None, column: None },
        };
        (settings, directory)
    }

    fn secret(kind: &DnsProviderKind, option: &DnsOption) -> String {
        match (kind.name, option.key) {
            ("transip" | "googlecloud", _) => {
                let key = private_key();
                let account = serde_json::json!({
                    "type": "service_account", "project_id": "a", "private_key_id": "b", "private_key": key,
                    "client_email": "a@b.test", "client_id": "1", "token_uri": "https://b.test/token",
                });
                if kind.name == "transip" { key } else { account.to_string() }
            }
            _ => KEY.to_owned(),
        }
    }

    /// An RSA key that was made for these tests.
    fn private_key() -> String {
        let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
        assert!(made.status.success(), "{made:?} (Debian package openssl)");
        String::from_utf8(made.stdout).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    use super::{samples::given, *};
    use crate::{
        config,
        model::{DNS_PROVIDERS, DnsProviderKind, Severity},
        net::use_one_provider,
    };

    /// What is wrong with these settings: how bad, and what.
    fn told(settings: &str) -> Vec<(Severity, String)> {
        use_one_provider();
        let text = format!("listen: {{ https: \":443\" }}\nacme: {{ {settings} }}\n");
        let loaded = config::check_text(&text, "dormouse.yaml", &|_| None).unwrap();
        let found = check_dns(&loaded.settings.tls.acme.unwrap());
        found.0.into_iter().map(|problem| (problem.severity, problem.what)).collect()
    }

    #[test]
    fn what_a_provider_lacks_is_named_with_its_variable() {
        let found = told("dns: { provider: porkbun, api_key_file: /nonexistent/key }");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(severity, _)| *severity == Severity::Error), "{found:?}");
        assert!(found[0].1.contains("`api_key_file` of `porkbun`: can not read `/nonexistent/key`"), "{found:?}");
        assert!(found[1].1.contains("lacks `secret_key_file`") && found[1].1.contains("`PORKBUN_SECRET_API_KEY`"));
    }

    #[test]
    fn a_secret_that_others_can_read_is_a_warning_and_an_empty_one_an_error() {
        let (settings, _directory) = given(DnsProviderKind::find("cloudflare").unwrap());
        let Some(DnsValue::File(file)) = settings.options.get("token") else { panic!("{settings:?}") };
        let written = format!("dns: {{ provider: cloudflare, token_file: \"{}\" }}", file.display());
        assert_eq!(told(&written), []);
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        let found = told(&written);
        assert!(
            matches!(found.as_slice(), [(Severity::Warning, what)] if what.contains("read by others")),
            "{found:?}"
        );
        fs::write(file, "\n").unwrap();
        let found = told(&written);
        assert!(found.iter().any(|(severity, what)| *severity == Severity::Error && what.contains("is empty")));
    }

    #[test]
    fn a_secret_of_the_wrong_form_is_told_without_it() {
        let (settings, directory) = given(DnsProviderKind::find("rfc2136").unwrap());
        assert!(settings.options.contains_key("key_secret"));
        let file: PathBuf = directory.path().join("key_secret");
        fs::write(&file, "this is not base64!").unwrap();
        let found = told(&format!(
            "dns: {{ provider: rfc2136, server: 127.0.0.1, key_name: a, key_secret_file: \"{}\" }}",
            file.display()
        ));
        assert!(matches!(found.as_slice(), [(Severity::Error, what)] if what.contains("not base64")), "{found:?}");
        assert!(!found[0].1.contains("this is"), "{found:?}");
    }

    #[test]
    fn one_value_of_a_name_is_too_few_for_a_host_and_all_below_it() {
        let (settings, _directory) = given(DnsProviderKind::find("duckdns").unwrap());
        let Some(DnsValue::File(file)) = settings.options.get("token") else { panic!("{settings:?}") };
        let written = |certificates: &str| {
            told(&format!(
                "dns: {{ provider: duckdns, token_file: \"{}\" }}, certificates: {certificates}",
                file.display()
            ))
        };
        let found = written("[[a.duckdns.org, \"*.a.duckdns.org\"]]");
        assert!(
            matches!(found.as_slice(), [(Severity::Error, what)] if what.contains("keeps one record")),
            "{found:?}"
        );
        assert_eq!(written("[[a.duckdns.org], [\"*.a.duckdns.org\"]]"), []);
    }

    #[test]
    fn the_variables_of_a_provider_are_secret_while_it_is_named() {
        let variables = |text: &str| {
            let text = format!("listen: {{ https: \":443\" }}\n{text}\n");
            let loaded = config::check_text(&text, "dormouse.yaml", &|_| None).unwrap();
            secret_variables(loaded.settings.tls.acme.as_ref()).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(variables("acme: { dns: { provider: desec } }"), ["DESEC_TOKEN"]);
        assert_eq!(variables("acme: { dns: { provider: inwx, user: a } }"), ["INWX_PASSWORD"]);
        for none in ["acme: { dns: { provider: desec, token_file: a } }", "acme: { dns: { command: [a] } }", ""] {
            assert!(variables(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn no_two_providers_or_options_have_one_name() {
        for (index, kind) in DNS_PROVIDERS.iter().enumerate() {
            assert!(DNS_PROVIDERS[..index].iter().all(|other| other.name < kind.name), "{}", kind.name);
            for (index, option) in kind.options.iter().enumerate() {
                assert!(kind.options[..index].iter().all(|other| other.written() != option.written()), "{}", kind.name);
                assert!(!option.variables.is_empty(), "{}: {}", kind.name, option.key);
            }
        }
    }
}
