//! What carries bytes between two connections, whatever they mean.
//!
//! - `buffer` lends room for them, `pieces` are several such rooms that are written together;
//! - `carrier` takes a stream to its end, both ways (`direction`), where one side at least is no plain socket;
//! - `leaving` sees a client go, and `deadline` is the one timer of a connection.

mod buffer;
mod carrier;
mod deadline;
mod direction;
mod leaving;
mod pieces;

pub(super) use buffer::{Buf, Buffers, SIZE};
pub(super) use carrier::{Carrier, carry};
pub(super) use deadline::Deadline;
pub(super) use direction::Direction;
pub(super) use leaving::{Leaving, gone};
pub(super) use pieces::Pieces;
