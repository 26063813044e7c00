//! Forms of the JSON Schema: what a key holds, and how that is said.

use serde_json::{Map, Value, json};

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Bool,
    Number,
    Duration,
    /// One item, several as a list, or `a, b`.
    List,
    /// A mapping of names to texts.
    Texts,
    OneOf(&'static [&'static str]),
    Object(&'static [Key]),
    /// An object, or one of its short forms.
    Either(&'static [Key]),
    /// A mapping of names to such objects.
    MapOf(&'static [Key]),
    /// A mapping of names to such objects, or to a word each.
    MapOfEither(&'static [Key]),
    /// An object, one of its short forms, or one of these.
    EitherOr(&'static [Key], fn() -> Vec<Value>),
    /// Checked by the program only.
    Any,
}

/// A key, what it holds, and what it means.
pub(super) type Key = (&'static str, Kind, &'static str);

/// The form of a mapping with these keys.
pub(super) fn object(keys: &[Key], description: &str) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|(key, kind, text)| ((*key).to_owned(), property(*kind, text))).collect();
    json!({
        "type": ["object", "null"],
        "description": description,
        "properties": properties,
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    })
}

/// The form of what a key holds.
pub(super) fn property(kind: Kind, text: &str) -> Value {
    let scalar = json!(["string", "number", "boolean", "null"]);
    match kind {
        Kind::Text => json!({ "type": scalar, "description": text }),
        Kind::Bool => json!({ "type": ["boolean", "string", "integer"], "description": text }),
        Kind::Number => json!({ "type": ["integer", "string"], "description": text }),
        Kind::Duration => json!({
            "type": ["string", "integer"],
            "description": format!("{text}. A duration such as `90s`, `15m`, `12h`, `2d`."),
        }),
        Kind::List => json!({
            "anyOf": [{ "type": scalar }, { "type": "array", "items": { "type": scalar } }],
            "description": text,
        }),
        Kind::Texts => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": scalar },
            "description": text,
        }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words, "description": text }),
        Kind::Object(keys) => object(keys, text),
        Kind::Either(keys) => json!({
            "anyOf": [{ "type": scalar }, { "type": "array" }, object(keys, text)],
            "description": text,
        }),
        Kind::MapOf(keys) => json!({
            "type": ["object", "null"],
            "patternProperties": { "^x-": {} },
            "additionalProperties": object(keys, text),
            "description": text,
        }),
        Kind::MapOfEither(keys) => json!({
            "type": ["object", "null"],
            "patternProperties": { "^x-": {} },
            "additionalProperties": property(Kind::Either(keys), text),
            "description": text,
        }),
        Kind::EitherOr(keys, others) => {
            let mut schema = property(Kind::Either(keys), text);
            let forms = schema.get_mut("anyOf").and_then(Value::as_array_mut);
            forms.into_iter().for_each(|forms| forms.extend(others()));
            schema
        }
        Kind::Any => json!({ "description": text }),
    }
}
