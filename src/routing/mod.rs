//! Finds the target of a request: host, path, method and headers in, the target out.
//!
//! Used by `proxy` for each request, and by `control`, which builds the table whole and swaps it. Pure, generic
//! over the target, and immutable once built. What always holds:
//!
//! - An exact host is looked at before a host known by its first label, that before wildcards (the longest suffix
//!   first), and those before `*`. Among the rules of one host, a longer path comes before a shorter one, an exact
//!   path before a prefix of the same length, more conditions before fewer, and what was given first before what
//!   was given later.
//! - A host whose rules all turn the request down leaves it to the next, less specific host.
//! - Where several share a route's name, `seats` decides which of them take part now, and `balance` which one of those
//!   gets the request. Both are functions of what they are told, and neither allocates.
//! - A look-up costs one hash of the host where an exact host answers, does not allocate, and does not depend on
//!   how many hosts there are.

mod balance;
mod hash;
mod host;
mod members;
mod outlier;
mod path;
mod rule;
mod seats;
mod table;

pub use balance::{Candidate, Turn, choose, mixed};
pub use host::Host;
pub use members::Members;
pub use outlier::Outlier;
pub use path::{behind_prefix, plain_path};
pub use seats::{Seat, SeatState, Step, late_after, plan};
pub use table::{Query, RouteTable};
