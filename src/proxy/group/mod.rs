//! Several members under one name, for requests and streams alike: which one is next, who is woken, and who waits for
//! whichever is awake first. What each of them is asked for, and what counts as a failure, is for those who ask.

mod door;
mod turn;

pub(super) use door::Door;
pub(super) use turn::{Asker, Turn};
