//! `tls`, `https_redirect`: certificates from files, and what is told to browsers.

use std::{collections::BTreeMap, path::Path};

use super::{
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{
    CertificateFiles, CertificateFolder, ClientProfile, Hsts, HttpsRedirect, OcspStapling, Problem, Problems,
    TlsSettings,
};

/// Every key of `tls`.
pub(super) const TLS_KEYS: &[&str] = &["certificates", "folder", "hsts", "clients", "ocsp"];

/// Reads `tls`; relative paths start at `base`.
pub(super) fn read(node: &Node, base: &Path, problems: &mut Problems) -> TlsSettings {
    let mut settings = TlsSettings::default();
    let mut fields = Fields::open(node, "`tls`", problems);
    if let Some(node) = fields.get("certificates") {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Text(_) | Value::Map(_) => std::slice::from_ref(node),
        };
        settings.certificates = items.iter().filter_map(|item| files(item, base, problems)).collect();
    }
    if let Some(node) = fields.get("folder") {
        for item in values::items(node, problems) {
            let path = values::text(&item, problems).filter(|path| !path.is_empty());
            settings
                .folders
                .extend(path.map(|path| CertificateFolder { path: base.join(path), place: item.place.clone() }));
        }
    }
    if let Some(node) = fields.get("clients") {
        settings.clients = clients(node, base, problems);
    }
    if fields.get("ocsp").and_then(|node| values::boolean(node, problems)) == Some(false) {
        settings.ocsp = OcspStapling::Off;
    }
    settings.hsts = fields.get("hsts").and_then(|node| hsts(node, problems));
    fields.finish(TLS_KEYS, problems);
    settings
}

/// `{cert: fullchain.pem, key: privkey.pem}`, or one file that holds both.
fn files(node: &Node, base: &Path, problems: &mut Problems) -> Option<CertificateFiles> {
    if let Some(path) = node.as_text() {
        let path = base.join(path.trim());
        return Some(CertificateFiles { certificate: path.clone(), key: path, place: node.place.clone() });
    }
    let mut fields = Fields::open(node, "certificate", problems);
    let mut path = |key: &str| {
        let node = fields.get(key)?;
        values::text(node, problems).filter(|path| !path.is_empty()).map(|path| base.join(path))
    };
    let (certificate, key) = (path("cert"), path("key"));
    fields.finish(&["cert", "key"], problems);
    let Some(certificate) = certificate else {
        let problem = Problem::error(node.place.clone(), "a certificate names no file");
        problems.0.push(problem.with_hint("write `{cert: fullchain.pem, key: privkey.pem}`"));
        return None;
    };
    Some(CertificateFiles { key: key.unwrap_or_else(|| certificate.clone()), certificate, place: node.place.clone() })
}

/// `name: ca.pem`, or GoDoxy's `name: {use_system_cas, ca_files}`.
pub(super) fn clients(node: &Node, base: &Path, problems: &mut Problems) -> BTreeMap<String, ClientProfile> {
    let mut profiles = BTreeMap::new();
    let Value::Map(entries) = &node.value else {
        problems.0.push(node.wrong("is no mapping of names to authorities"));
        return profiles;
    };
    for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
        let mut profile = ClientProfile { authorities: Vec::new(), system: false, place: entry.place.clone() };
        let files = |node: &Node, problems: &mut Problems| {
            values::texts(node, problems).into_iter().map(|path| base.join(path)).collect::<Vec<_>>()
        };
        if matches!(entry.node.value, Value::Map(_)) {
            let mut fields = Fields::open(&entry.node, "profile", problems);
            if let Some(node) = fields.get("use_system_cas") {
                profile.system = values::boolean(node, problems).unwrap_or(false);
            }
            for key in ["ca", "ca_files"] {
                if let Some(node) = fields.get(key) {
                    profile.authorities.extend(files(node, problems));
                }
            }
            fields.finish(&["ca", "ca_files", "use_system_cas"], problems);
        } else {
            profile.authorities = files(&entry.node, problems);
        }
        if profile.authorities.is_empty() && !profile.system {
            let what = format!("`{}` names no authority: nobody could come in", entry.key);
            problems.0.push(Problem::error(entry.place.clone(), what).with_hint("write `{ca: [clients.pem]}`"));
        }
        profiles.insert(entry.key.clone(), profile);
    }
    profiles
}

/// `off`, a duration, or a mapping.
fn hsts(node: &Node, problems: &mut Problems) -> Option<Hsts> {
    match node.as_text().map(values::parse_bool) {
        Some(Some(false)) => return None,
        Some(Some(true)) => {
            problems.0.push(not_for_how_long(node).with_hint("write `180d`, or `off`"));
            return None;
        }
        Some(None) | None => {}
    }
    if node.as_text().is_some() {
        let max_age = values::duration(node, problems)?;
        return Some(Hsts { max_age, include_subdomains: false, preload: false });
    }
    let mut fields = Fields::open(node, "`hsts`", problems);
    let max_age = fields.get("max_age").map(|node| values::duration(node, problems));
    let mut flag = |key: &str| fields.get(key).and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    let (include_subdomains, preload) = (flag("include_subdomains"), flag("preload"));
    fields.finish(&["max_age", "include_subdomains", "preload"], problems);
    let Some(max_age) = max_age else {
        problems.0.push(not_for_how_long(node).with_hint("write `max_age: 180d`"));
        return None;
    };
    Some(Hsts { max_age: max_age?, include_subdomains, preload })
}

fn not_for_how_long(node: &Node) -> Problem {
    Problem::error(node.place.clone(), "`hsts` says not for how long")
}

/// `true`, `false`, or the port that is seen from outside.
pub(super) fn redirect(node: &Node, problems: &mut Problems) -> HttpsRedirect {
    let text = node.as_text().unwrap_or_default();
    match (text.trim().parse::<u16>(), values::parse_bool(text)) {
        (Ok(port), _) if port > 1 => HttpsRedirect::Port(port),
        (_, Some(true)) => HttpsRedirect::On,
        (_, Some(false)) => HttpsRedirect::Off,
        (Ok(_) | Err(_), None) => {
            problems.0.push(node.wrong("is neither `true` nor `false` nor a port"));
            HttpsRedirect::Off
        }
    }
}
