//! The ports of stream routes: opened and closed at run time, as the routes come and go; and who comes to them.
//!
//! One task, `keep_ports`, compares what the routes want with what is open, binds, and tries again what could not be
//! bound; the workers serve what it hands them. A port that stays keeps its sockets, whatever becomes of its routes:
//! those are swapped beneath it, and connections that are open live on with the route that let them in. On the port of
//! HTTPS nothing is bound: its listener asks `listening` whether a stream route is wanted.
//!
//! Whoever came, over TCP or UDP, enters by `entry`; `met` is a client of TCP whose route is known, and `first` what was
//! read of it for that.

mod entry;
mod first;
mod keeper;
mod met;
mod wanted;

pub(super) use entry::{Caller, Closed, Look, Place, Way, enter, entered_by, is_ignored, look, may_wake};
pub(super) use first::First;
pub(super) use met::Met;

pub use keeper::keep_ports;
