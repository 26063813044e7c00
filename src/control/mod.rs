//! Make it exist: own the backends and the live route table, carry out changes and orders.
//!
//! Used by `app`, which starts it; by `proxy`, which reads the live table; by `api`, which asks and orders.
//!
//! One task, the keeper, holds what the files and the engines say, merges it into a catalog, and carries out the
//! difference to the catalog before: untouched routes, backends and idle clocks live on. One watcher for each node
//! lists and listens; an engine that is away costs only its own node.

mod absent;
mod access_outputs;
mod carry_out;
mod explain;
mod face;
mod group;
mod health;
mod keeper;
mod lending;
mod live;
mod memory;
mod news;
mod settings;
mod slack;
mod sources;
mod sticky;
#[cfg(test)]
mod tests;
mod watcher;

pub use access_outputs::{access_outputs, tell_of_access_logs};
pub use explain::{Explained, check_alone, explain_alone, load_alone};
pub use face::{Away, Control, NodeView, Reload, ReloadFailed, View};
pub use group::{LiveGroup, LiveMember, UnderWay};
pub use health::{Checked, Health, HealthState};
pub use keeper::{Ended, Keeper, Node};
pub use lending::{Lending, LentBackend};
pub use live::{LiveRoute, LiveTable};
pub use memory::remember;
pub use settings::{SettingChange, Taken};
pub use slack::keep_little;
pub use sources::FileSource;
pub use sticky::{Cookie, StickyKey, crumbs};
