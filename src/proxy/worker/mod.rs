//! What a worker has, whatever its clients speak: a thread's own things, and what it shares with the other workers.
//!
//! - `settings` and their `limits` are swapped as a whole on reload; `shared` is one for all workers;
//! - `own` is what each has for itself: buffers, the addresses of named endpoints (`dial`), and places for connections,
//!   which those who are quiet (`guests`) give up when there are none left; `crowd` counts who is connected, and the
//!   `house` bounds how many are.
//!
//! What HTTP has besides is its own business.

mod crowd;
mod dial;
mod guests;
mod house;
mod limits;
mod own;
mod session_key;
mod settings;
mod shared;

pub(super) use crowd::{enter, enter_flow, subscriber};
pub(super) use guests::Guest;
pub(super) use limits::HeadLimits;
pub(super) use own::{GiveWay, Worker};
pub(super) use session_key::random;
pub(super) use shared::causes_wake;

pub use limits::Limits;
pub use session_key::SessionKey;
pub use settings::ProxySettings;
pub use shared::Shared;
