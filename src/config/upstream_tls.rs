//! How an `https` endpoint is spoken to: GoDoxy's `no_tls_verify` and `ssl_*`.

use super::{
    idle::Author,
    tree::{Fields, Node},
    values,
};
use crate::model::{Problem, Problems, UpstreamTls};

/// Reads the keys of a route.
pub(super) fn read(fields: &mut Fields<'_>, author: Author, problems: &mut Problems) -> UpstreamTls {
    let mut tls = UpstreamTls::default();
    if let Some(node) = fields.get("no_tls_verify") {
        tls.verify = values::boolean(node, problems) != Some(true);
    }
    if let Some(node) = fields.get("ssl_server_name")
        && let Some(text) = values::text(node, problems)
    {
        match values::parse_bool(text) {
            Some(on) => tls.sends_name = on,
            None => tls.server_name = Some(text.to_ascii_lowercase()),
        }
    }
    let mut path = |key: &str, problems: &mut Problems| {
        let node = fields.get(key)?;
        if author == Author::Labels {
            let problem = Problem::error(node.place.clone(), "a label can not name a file of Dormouse's machine");
            problems.0.push(problem.with_hint(format!("set `{key}` of a route in the configuration file")));
        }
        values::text(node, problems).map(|text| (std::path::PathBuf::from(text), node))
    };
    tls.roots = path("ssl_trusted_certificate", problems).map(|(path, _)| path);
    let certificate = path("ssl_certificate", problems);
    let key = path("ssl_certificate_key", problems);
    match (certificate, key) {
        (Some((certificate, _)), Some((key, _))) => tls.client = Some((certificate, key)),
        (Some((_, node)), None) | (None, Some((_, node))) => {
            let what = "`ssl_certificate` and `ssl_certificate_key` go together";
            problems.0.push(Problem::error(node.place.clone(), what));
        }
        (None, None) => {}
    }
    if let Some(node) = fields.get("ssl_protocols") {
        tls.only_13 = only_13(node, problems);
    }
    tls
}

/// Of the versions named, those that are still safe are spoken.
fn only_13(node: &Node, problems: &mut Problems) -> bool {
    let known = [("tlsv1.0", 0), ("tlsv1", 0), ("tlsv1.1", 1), ("tlsv1.2", 2), ("tlsv1.3", 3)];
    let items = values::items(node, problems);
    let named: Vec<u8> = items.iter().filter_map(|item| values::word(item, "protocol", &known, problems)).collect();
    if !named.is_empty() && named.iter().all(|version| *version < 2) {
        let what = "names only versions of TLS that are not safe any more";
        problems.0.push(node.wrong(what));
    }
    !named.contains(&2) && named.contains(&3)
}
