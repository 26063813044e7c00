//! Futures in memory that is held only while they run.
//!
//! A connection waits most of its life, and what it needs for a request is no part of it meanwhile. A request is cut into
//! a few such futures, each below a kilobyte: allocators have shelves for small pieces, where one larger piece costs
//! hundreds of instructions.

use std::pin::Pin;

/// A future that is built where it stays. What is built on the stack and copied costs hundreds of instructions, too.
#[inline(always)]
pub(super) fn held<F: Future>(build: impl FnOnce() -> F) -> Pin<Box<F>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, build()))
}
