//! What should exist: the file and the labels of all containers merged into one catalog, and compared with before.
//!
//! Pure. `config` says what each source means by itself; this room holds the rules that need more than one source.
//! `control` carries out the changes. What always holds of a catalog: each alias leads to one place, each dependency
//! is in it, no backend needs itself by any way round, and each thing left out has a problem or a reason that says so.

mod change;
mod claims;
mod dependencies;
mod diff;
mod difference;
mod groups;
mod merge;
mod overlay;
mod parts;
#[cfg(test)]
mod samples;
mod sources;

pub use change::{Aspect, Change};
pub use diff::diff;
pub use parts::{Catalog, DiscoveredPart, FilePart};
pub use sources::{discover, own_networks};
