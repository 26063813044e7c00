//! Text and labels in; checked routes, backends and settings out, or all problems at once.
//!
//! Three faces: [`load`] (and [`check_text`]) for the file and what it includes, [`from_container`] for labels, ports
//! and networks of one container, and [`resolve_dependencies`] for the services that containers name to each other.
//! Rules that need more than one source are those of `catalog`.
//!
//! Every source becomes the same tree of texts with places; fields are then read one by one, so that one look tells
//! everything that is wrong. What always holds:
//! - A field that can not be understood refuses its route; nothing else is served in its stead.
//! - An unknown key is an error with the nearest known spelling.
//! - What restricts access and is not built yet refuses the route; other keys of later versions are warnings.
//! - No message quotes a secret.

mod access_log;
mod acme;
mod acme_dns;
mod acme_dns_schema;
mod balance;
mod command;
mod compose;
mod container;
mod expand;
mod file;
mod finish;
mod idle;
mod images;
mod include;
mod keys;
mod label_prefix;
mod labels;
mod later;
mod middleware_access;
mod middleware_bodies;
mod middleware_headers;
mod middleware_oidc;
mod middleware_paths;
mod middlewares;
mod nodes;
mod own_address;
mod ports;
mod presets;
mod read_text;
mod ready;
mod route;
mod sample;
mod schema;
mod schema_form;
mod settings;
mod static_backends;
mod static_routes;
mod stream;
mod tls;
mod tree;
mod upstream_tls;
mod values;
mod written;
mod yaml;

pub use compose::resolve_dependencies;
pub use container::{FromContainer, from_container};
pub use file::{Loaded, check_sent, check_text, load, text_of};
pub use keys::{Fate, KeyChange, WrittenKeys};
pub use sample::SAMPLE;
pub use schema::schema;
pub use written::Written;
