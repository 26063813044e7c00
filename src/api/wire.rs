//! The wire types: what is sent and read as JSON. The only place of `serde` in this room.
//!
//! These shapes are also what `--json` of the command line prints. Fields are added, never renamed. Times are RFC 3339
//! in UTC, durations whole numbers of the unit in the field's name, absent facts `null`.

pub(super) use super::wire_event::{millis, seconds};
pub use super::{
    wire_backend::{Backend, Backends, LastWake, LeftOut, Policy, WakeMillis, Wakes},
    wire_catalog::{Change, Excluded, Explained, Explanations, Member, Node, Nodes, Route, Routes},
    wire_certificate::{Certificate, Certificates, Ocsp},
    wire_event::{Cause, Event, PhaseMillis, Request},
    wire_order::{Done, Pin, Sleep, Upgraded},
    wire_problem::{Checked, Problem, ProblemDetails, Reloaded, Standing},
};
