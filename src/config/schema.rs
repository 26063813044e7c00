//! The JSON Schema of the file, for editors. Made from the same key tables that the reader checks against.

use serde_json::{Value, json};

use super::{
    acme_dns_schema::{DNS, dns_providers},
    schema_form::{Key, Kind, object},
};

/// The schema of the configuration file.
pub fn schema() -> Value {
    let mut schema = object(FILE, "Configuration of Dormouse");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Dormouse");
    schema
}

const FILE: &[Key] = &[
    ("listen", Kind::Object(LISTEN), "Listening addresses"),
    ("domains", Kind::List, "Domains that aliases live under; with none, an alias is the first label of any host"),
    ("nodes", Kind::MapOfEither(NODE), "The engines by name: `docker`, `podman`, `process`, `simulated`, or a mapping"),
    ("defaults", Kind::Object(DEFAULTS), "What routes and containers start from"),
    ("include", Kind::List, "Files of routes, relative to this one; `*` and `?` in the file name"),
    ("routes", Kind::MapOf(ROUTE), "Routes by alias"),
    ("backends", Kind::MapOf(BACKEND), "Backends by `node/name`, where a container's labels are not the place"),
    ("discover", Kind::Either(DISCOVER), "Which containers become routes: `default`, `all`, `labelled`"),
    ("trusted_proxies", Kind::List, "Networks whose `X-Forwarded-*` fields are believed"),
    (
        "proxy_protocol",
        Kind::List,
        "Networks of proxies whose connections begin with a PROXY header (version 1 or 2), for HTTP and TCP",
    ),
    (
        "on_exit",
        Kind::OneOf(&["leave", "wake_all"]),
        "What happens to sleepers when Dormouse ends: they stay down, or are started and waited for up to 20 s",
    ),
    (
        "max_connections",
        Kind::Number,
        "Connections of clients at once, to all HTTP and TCP ports; usually as many as descriptors allow. Flows of UDP \
         have a bound of their own",
    ),
    (
        "max_connections_per_client",
        Kind::Number,
        "Those of one IPv4 address or IPv6 network of 64 bits, that is neither a proxy in front nor loopback; usually half \
         of all. Flows of UDP have a bound of their own",
    ),
    ("max_parallel_wakes", Kind::Number, "Wakes at once for each node"),
    ("wakes_per_client", Kind::Number, "Requests that cause a wake, for each client address and minute"),
    ("shutdown_timeout", Kind::Duration, "How long requests in flight may take to end"),
    ("access_log", Kind::Either(ACCESS_LOG), "What is written down of each request: `on`, a format, or more"),
    ("tls", Kind::Object(TLS), "Certificates, and what browsers are told"),
    ("acme", Kind::Either(ACME), "Certificates from an authority; using it is consent to the authority's terms"),
    (
        "https_redirect",
        Kind::Text,
        "Whether who comes in clear to a host that has a certificate is sent to HTTPS; or the port seen from outside",
    ),
    (
        "middlewares",
        Kind::Any,
        "Middlewares under a name, for routes to use: `{office: {allow: [10.0.0.0/8], rate_limit: {average: 10, burst: 20}}}`",
    ),
];

const NODE: &[Key] = &[
    ("docker", Kind::Text, DOCKER),
    ("podman", Kind::Text, DOCKER),
    ("process", Kind::Any, "Children of Dormouse itself"),
    ("simulated", Kind::Any, "An engine in memory, to try things with"),
    ("tls", Kind::Either(NODE_TLS), "TLS to the engine: the directory of `ca.pem`, `cert.pem` and `key.pem`, or each"),
    ("insecure", Kind::Bool, "Another machine may be spoken to without TLS, where anybody in between rules the engine"),
    ("token", Kind::Any, "Not in this version yet"),
];

const DOCKER: &str =
    "`unix:///path`, `tcp://host:port`, `https://host:port` or `ssh://user@host`; the local one when absent";

const NODE_TLS: &[Key] = &[
    ("ca", Kind::Text, "The authorities that may vouch for the engine: a file, or PEM"),
    ("cert", Kind::Text, "Our own certificate: a file, or PEM"),
    ("key", Kind::Text, "Its key: a file, or PEM"),
];

const LISTEN: &[Key] = &[
    ("http", Kind::List, "Addresses for HTTP, such as `:80`"),
    ("https", Kind::List, "Addresses for HTTPS, such as `:443`"),
    ("api", Kind::Text, "The address of the management API, or `off`"),
];

const TLS: &[Key] = &[
    ("certificates", Kind::Any, "Certificates with their keys: `[{cert: fullchain.pem, key: privkey.pem}]`"),
    ("folder", Kind::List, "Folders in which every certificate with its key is taken"),
    (
        "clients",
        Kind::Any,
        "Authorities whose certificates let clients in, by the name that routes give: `{staff: ca.pem}`",
    ),
    (
        "ocsp",
        Kind::Bool,
        "Whether the authorities behind certificates are asked if these are still good, for clients to be shown that",
    ),
    ("hsts", Kind::Either(HSTS), "How long browsers use nothing but TLS: `180d`"),
];

const ACME: &[Key] = &[
    (
        "directory",
        Kind::Text,
        "The authority: `letsencrypt`, `letsencrypt-staging`, `zerossl`, or its directory's address",
    ),
    ("root", Kind::Text, "A file with the authority behind that address, when this machine does not trust it"),
    ("email", Kind::Text, "Whom the authority writes to"),
    ("eab", Kind::Object(EAB), "An account of the authority that ours belongs to"),
    ("challenge", Kind::List, "How a host is shown to be ours: `http-01`, `tls-alpn-01`, `dns-01`"),
    ("dns", Kind::EitherOr(DNS, dns_providers), "What puts records into the DNS: a provider, or a command"),
    (
        "certificates",
        Kind::Any,
        "Certificates to have: a name, or a list of names for one; `*.example.com` needs `dns`",
    ),
    (
        "on_demand",
        Kind::Bool,
        "Hosts that a route or an alias below `domains` names get a certificate of their own when they are first asked for",
    ),
];

const EAB: &[Key] = &[("kid", Kind::Text, "The id of the key"), ("hmac", Kind::Text, "The key, base64url")];

const ACCESS_LOG: &[Key] = &[
    ("path", Kind::Text, "The file, with its whole path"),
    ("stdout", Kind::Bool, "To standard output"),
    ("format", Kind::OneOf(&["common", "combined", "json"]), "The form of a line"),
    ("rotate_size", Kind::Text, "The file is begun anew at this size: `100 MB`"),
    ("rotate_interval", Kind::Duration, "The file is begun anew at this age"),
    ("keep", Kind::Text, "Full files that are kept: `7`, `30 days` or `500 MB`; all when absent"),
    ("retention", Kind::Text, "GoDoxy's name of `keep`"),
    ("buffer_size", Kind::Any, "Ignored"),
    ("filters", Kind::Object(ACCESS_FILTERS), "Which requests have a line; all conditions must hold"),
    ("fields", Kind::Object(ACCESS_FIELDS), "What of their fields is in it; secrets only where they are named"),
];

const ACCESS_FILTERS: &[Key] = &[
    ("status_codes", Kind::Any, "Statuses: `[404, 500-599, 4xx]`, or `{values: […], negative: true}`"),
    ("method", Kind::Any, "Methods"),
    ("host", Kind::Any, "Hosts"),
    ("headers", Kind::Any, "Header fields: `name` or `name=value`"),
    ("cidr", Kind::Any, "Networks of clients"),
];

const ACCESS_FIELDS: &[Key] = &[
    (
        "headers",
        Kind::Either(ACCESS_RULES),
        "Header fields, in JSON; `drop` when absent. Referer and user agent have places of their own, and are there when nothing is said here",
    ),
    ("query", Kind::Either(ACCESS_RULES), "Parameters of the query; `keep` when absent"),
    ("cookies", Kind::Either(ACCESS_RULES), "Cookies, in JSON; `drop` when absent"),
];

const ACCESS_RULES: &[Key] = &[
    ("default", Kind::OneOf(&["keep", "drop", "redact"]), "What becomes of them"),
    ("config", Kind::Texts, "What becomes of these, by name"),
];

const HSTS: &[Key] = &[
    ("max_age", Kind::Duration, "How long"),
    ("include_subdomains", Kind::Bool, "All hosts below this one too"),
    ("preload", Kind::Bool, "Consent to be put on the lists that browsers ship with"),
];

const DEFAULTS: &[Key] = &[
    ("idle", Kind::Object(IDLE), "The idle settings that routes and containers start from"),
    ("healthcheck", Kind::Either(HEALTH), "The health checks that routes start from; all routes are checked then"),
];

const DISCOVER: &[Key] = &[
    ("mode", Kind::OneOf(&["default", "all", "labelled", "labeled"]), "Which containers become routes"),
    ("prefixes", Kind::List, "Prefixes of labels, best first"),
];

const BACKEND: &[Key] = &[
    ("command", Kind::List, "The command of a process"),
    ("env", Kind::Texts, "Its variables"),
    ("directory", Kind::Text, "Its working directory"),
    ("user", Kind::Text, "The user it runs as"),
    ("network", Kind::Text, "The network whose address is dialled"),
    ("idle", Kind::Object(IDLE), "When and how it sleeps"),
    ("ready", Kind::Either(READY), "When it is ready after a start"),
    ("depends_on", Kind::Any, "Backends that it needs: `[name, other:healthy]`"),
];

const IDLE: &[Key] = &[
    ("idle_timeout", Kind::Duration, "Sleeps after this long without use; `0` never, negative as a dependency only"),
    ("stop_method", Kind::OneOf(&["stop", "pause", "kill"]), "The way down"),
    ("stop_signal", Kind::Text, "The signal of `stop`; the engine's own when absent"),
    ("stop_timeout", Kind::Duration, "The grace time between signal and kill"),
    ("stop_after", Kind::Duration, "With `pause`: stopped after this long paused"),
    ("wake_timeout", Kind::Duration, "From the start call to ready"),
    ("start_endpoint", Kind::Text, "The exact path that alone may wake it"),
    ("depends_on", Kind::Any, "Backends that it needs: `[name, other:healthy]`"),
    ("waiting", Kind::OneOf(WAITING), "What a page load gets meanwhile"),
    ("no_loading_page", Kind::Bool, "GoDoxy's name of `waiting`: `true` is read as `waiting: hold`"),
    ("ready", Kind::Either(READY), "When it is ready after a start"),
    ("settle", Kind::Duration, "How long errors of a half-started app are tried again"),
    ("ignore", Kind::Either(IGNORE), "Requests that neither wake nor keep awake"),
    ("asleep_response", Kind::Either(RESPONSE), "What those get while it sleeps"),
    ("stream_idle", Kind::Duration, "A stream without a byte for this long is closed"),
    ("flow_timeout", Kind::Duration, "A UDP flow without a datagram for this long has ended"),
    ("min_uptime", Kind::Duration, "A fresh backend stays up at least this long"),
    ("schedule", Kind::List, "Windows in which it is kept awake: `Mon-Fri 08:00-18:00 Europe/Berlin`"),
    ("busy", Kind::Text, "A command (exit code 0) or `http://` address (2xx) that says it must not sleep"),
    ("max_held", Kind::Number, "Requests held at once"),
    ("hold_timeout", Kind::Duration, "How long a request is held; `wake_timeout` when absent"),
    ("drain_timeout", Kind::Duration, "How long an ordered sleep waits for those inside"),
    ("on_wake_timeout", Kind::OneOf(&["stop", "leave"]), "What becomes of a backend that did not get ready"),
    (
        "wake_after_manual_stop",
        Kind::Bool,
        "Whether a request wakes what was stopped by hand, or, after 30 seconds, paused",
    ),
];

const WAITING: &[&str] = &["page", "hold", "reject"];

const READY: &[Key] = &[
    ("tcp", Kind::Any, "Its port accepts a connection"),
    ("engine", Kind::Any, "The engine's health check says healthy"),
    ("http", Kind::Either(READY_HTTP), "A GET of a path answers"),
    ("log", Kind::Text, "Its log shows this pattern"),
    ("command", Kind::List, "This command ends with 0"),
    ("delay", Kind::Duration, "This long after the start"),
];

const READY_HTTP: &[Key] = &[
    ("path", Kind::Text, "The path"),
    ("status", Kind::Text, "The statuses that mean ready: `200` or `200-499`"),
    ("host", Kind::Text, "The Host field"),
];

const IGNORE: &[Key] = &[
    ("presets", Kind::List, "`monitors`, `bots`, `favicon`"),
    ("paths", Kind::List, "Exact paths, or prefixes that end in `*`"),
    ("methods", Kind::List, "Methods"),
    ("agents", Kind::List, "Patterns of user agents"),
    ("clients", Kind::List, "Networks of clients"),
];

const RESPONSE: &[Key] = &[("status", Kind::Number, "The status, 200 to 599"), ("body", Kind::Text, "The body")];

const HEALTH: &[Key] = &[
    ("disable", Kind::Bool, "No health checks"),
    ("disabled", Kind::Bool, "Another name of `disable`"),
    ("path", Kind::Text, "The path that is asked for"),
    ("use_get", Kind::Bool, "GET at once, rather than HEAD, and GET only of what knows no HEAD (501)"),
    ("interval", Kind::Duration, "The pause between checks"),
    ("timeout", Kind::Duration, "How long one may take"),
    ("retries", Kind::Number, "Failures in a row before it is unhealthy"),
];

const BALANCE: &[Key] = &[
    ("link", Kind::Text, "The name that all routes with the same link share; they are reached by no other"),
    ("mode", Kind::Text, "`round_robin`, `least_conn`, `ip_hash`, `random_two`"),
    ("weight", Kind::Number, "The share of this member, 0 to 1000; 0: it gets no requests"),
    ("sticky", Kind::Bool, "A client stays with its member, by a cookie"),
    ("sticky_max_age", Kind::Duration, "How long, 1h when absent"),
    ("options", Kind::Any, "Without effect"),
    (
        "wake_more_at",
        Kind::Number,
        "Requests under way for each awake member beyond which another one is woken, 20 when absent",
    ),
];

const ROUTE: &[Key] = &[
    ("scheme", Kind::OneOf(&["http", "https", "h2c", "tcp", "udp", "tcp+udp"]), "What is spoken on the endpoint"),
    ("host", Kind::Text, "A host to dial; it is never slept"),
    ("port", Kind::Text, "The port of the endpoint, or `listen:target`"),
    ("bind", Kind::List, "The addresses where a stream route listens; those of HTTP when absent"),
    ("backend", Kind::Text, "The backend, as `node/name`"),
    ("hosts", Kind::List, "Further hosts, beside the alias; `*.example.org` and `*` too"),
    ("paths", Kind::List, "Paths: `/api` with all below, or `=/api` alone"),
    ("methods", Kind::List, "Methods"),
    ("headers", Kind::Any, "Header fields that must be there, with or without a value"),
    ("strip_prefix", Kind::Text, "Cut from the path before it is forwarded"),
    (
        "sni",
        Kind::Any,
        "Names in the TLS hello by which stream routes share a port; `true` for the names of the alias. Nothing is decrypted",
    ),
    (
        "endpoints",
        Kind::Any,
        "Several targets: each `node/name:port`, `host:port`, or a mapping with `backend` or `host`, `port`, `scheme`, `weight`",
    ),
    ("root", Kind::Any, "Not in this version yet"),
    ("spa", Kind::Any, "Not in this version yet"),
    ("index", Kind::Any, "Not in this version yet"),
    ("no_tls_verify", Kind::Bool, "Any certificate of an `https` endpoint is taken"),
    ("response_header_timeout", Kind::Duration, "From the request's last byte to the head of the response"),
    ("connect_timeout", Kind::Duration, "How long a connect may take"),
    ("max_conns_per_host", Kind::Number, "Connections to the endpoint at once, for each worker; `0`: no bound"),
    (
        "disable_compression",
        Kind::Bool,
        "Without effect: services are asked for no coding that their clients did not ask for",
    ),
    (
        "ssl_server_name",
        Kind::Text,
        "The name that the certificate of an `https` endpoint must bear; `off`: it is not told the name",
    ),
    ("ssl_trusted_certificate", Kind::Text, "A file with the authorities that are trusted for an `https` endpoint"),
    ("ssl_certificate", Kind::Text, "A file with our own certificate for an `https` endpoint"),
    ("ssl_certificate_key", Kind::Text, "A file with its key"),
    ("ssl_protocols", Kind::List, "Versions of TLS that are spoken to an `https` endpoint: `TLSv1.2`, `TLSv1.3`"),
    ("inbound_mtls_profile", Kind::Text, "Only clients with a certificate of this profile (`tls: clients`) are let in"),
    ("rules", Kind::Any, "Not in this version yet"),
    ("rule_file", Kind::Any, "Not in this version yet"),
    ("healthcheck", Kind::Either(HEALTH), "Health checks of the endpoint; they never wake. `off` for none"),
    ("load_balance", Kind::Object(BALANCE), "How requests are spread over several routes that share a name"),
    (
        "middlewares",
        Kind::Any,
        "Middlewares, in order: names of sets, or each with its options. Who is let in: `allow`, `deny`, `cidr_whitelist`, \
         `rate_limit`, `in_flight_limit`, `max_body`, `basic_auth`, `forward_auth`, `oidc`, `cors`, `real_ip`; where to: \
         `redirect_http`, `redirect`, `strip_prefix`, `add_prefix`, `rewrite`; header fields: `set_headers`, \
         `add_headers`, `hide_headers`, `modify_request`, `modify_response`, `secure_headers`, `cache_nothing`; answers: `compress`, `retry`, `custom_error_page` (a folder, in the file alone)",
    ),
    ("homepage", Kind::Any, "Ignored"),
    ("webui", Kind::Any, "Ignored"),
    (
        "access_log",
        Kind::Either(ACCESS_LOG),
        "What is written down of its requests, instead of what is for all; `off`: nothing",
    ),
    ("relay_proxy_protocol_header", Kind::Bool, "Connections and datagrams begin with a PROXY header (version 2)"),
    (
        "wake_on",
        Kind::OneOf(&["connect", "data"]),
        "What of a stream wakes its backend: the connection, or its first bytes",
    ),
    ("match", Kind::List, "Only clients that begin so wake: `tls`, `http`, `postgres`, `minecraft`"),
    ("tls_termination", Kind::Bool, "TLS ends here: what is within goes to the endpoint of this stream in clear"),
    ("agent", Kind::Any, "Not in this version yet"),
    ("proxmox", Kind::Any, "Not in this version yet"),
    ("idle", Kind::Object(IDLE), "When and how its backend sleeps"),
    ("idlewatcher", Kind::Any, "GoDoxy's name of `idle`"),
    ("ready", Kind::Either(READY), "When its backend is ready after a start"),
    ("depends_on", Kind::Any, "Backends that its backend needs"),
    ("waiting", Kind::OneOf(WAITING), "What a page load gets while the backend wakes"),
    ("waiting_page", Kind::Text, "A file with an own waiting page"),
    ("title", Kind::Text, "The title of the waiting page"),
    ("ignore", Kind::Either(IGNORE), "Requests that neither wake nor keep awake"),
    ("asleep_response", Kind::Either(RESPONSE), "What those get while it sleeps"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{
        idle::IDLE_KEYS,
        nodes::{NODE_KEYS, NODE_TLS_KEYS},
        route::ROUTE_KEYS,
        settings::FILE_KEYS,
        static_backends::BACKEND_KEYS,
    };

    fn properties(schema: &Value) -> BTreeSet<&str> {
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_schema_holds_every_key_that_is_read_and_no_other() {
        let schema = schema();
        let known = |keys: &[&'static str]| keys.iter().copied().collect::<BTreeSet<&str>>();
        assert_eq!(properties(&schema), known(FILE_KEYS));
        let file = &schema["properties"];
        assert_eq!(properties(&file["routes"]["additionalProperties"]), known(ROUTE_KEYS));
        let nodes = &file["nodes"]["additionalProperties"]["anyOf"][2];
        assert_eq!(properties(nodes), known(NODE_KEYS));
        assert_eq!(properties(&nodes["properties"]["tls"]["anyOf"][2]), known(NODE_TLS_KEYS));
        assert_eq!(properties(&file["backends"]["additionalProperties"]), known(BACKEND_KEYS));
        assert_eq!(properties(&file["defaults"]["properties"]["idle"]), known(IDLE_KEYS));
    }

    /// Each key alone: the reader must not call it unknown.
    #[test]
    fn the_reader_knows_every_key_of_the_schema() {
        fn check(schema: &Value, path: &mut Vec<String>, seen: &mut usize) {
            let nested =
                schema.get("anyOf").and_then(|any| any.as_array()?.iter().find(|s| s.get("properties").is_some()));
            let Some(properties) = nested.unwrap_or(schema).get("properties").and_then(Value::as_object) else {
                return;
            };
            for (key, below) in properties {
                path.push(key.clone());
                let text = path.iter().rev().fold("~".to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
                let problems = match crate::config::check_text(&text, "key.yaml", &|_| None) {
                    Ok(loaded) => loaded.problems,
                    Err(problems) => problems,
                };
                let unknown = format!("key `{key}` is unknown");
                assert!(problems.0.iter().all(|p| !p.what.contains(&unknown)), "{path:?}: {problems}");
                *seen += 1;
                check(below, path, seen);
                if let Some(each) = below.get("additionalProperties").filter(|each| each.is_object()) {
                    path.push(if key == "backends" { "local/a".to_owned() } else { "a".to_owned() });
                    check(each, path, seen);
                    path.pop();
                }
                path.pop();
            }
        }
        let mut seen = 0;
        check(&schema(), &mut Vec::new(), &mut seen);
        assert!(seen > 150, "only {seen} keys");
    }
}
