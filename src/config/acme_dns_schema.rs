//! The forms that `acme: dns` has in the schema: a command, or a provider with what that one needs.

use serde_json::{Value, json};

use super::schema_form::{Key, Kind, object, property};
use crate::model::{DNS_PROVIDERS, DnsProviderKind};

/// What stands below `dns` where no provider is named.
pub(super) const DNS: &[Key] = &[
    ("command", Kind::List, "Run with `present NAME VALUE` and `cleanup NAME VALUE`"),
    ("wait", Kind::Duration, "How long a record takes until everybody sees it"),
];

/// What may stand beside what a DNS provider needs.
const WITH_PROVIDER: &[Key] = &[
    ("zone", Kind::Text, "The zone in which the records are; looked for when absent"),
    (
        "resolvers",
        Kind::List,
        "Who is asked for records and zones, as `address` or `address:port`; the zone's own servers when absent",
    ),
    ("propagation_timeout", Kind::Duration, "So long it may take until a record is seen; `0s`: nobody looks"),
];

/// A form for each provider.
pub(super) fn dns_providers() -> Vec<Value> {
    DNS_PROVIDERS.iter().map(dns_provider).collect()
}

/// A provider of DNS, and what it needs.
fn dns_provider(kind: &DnsProviderKind) -> Value {
    let mut schema = object(WITH_PROVIDER, "A provider of DNS");
    schema["required"] = json!(["provider"]);
    schema["properties"]["provider"] = json!({ "const": kind.name });
    for option in kind.options {
        let what = if option.secret { "A file that holds the secret; or" } else { "Or" };
        let text = format!("{what} the variable `{}`", option.variables.join("` or `"));
        schema["properties"][option.written()] = property(Kind::Text, &text);
    }
    schema
}
