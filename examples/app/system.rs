//! What the standard library lacks: signals and the length of the listen queue.
#![allow(unsafe_code)]

use std::{net::TcpListener, os::fd::AsRawFd};

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGTERM: i32 = 15;
const SIG_BLOCK: i32 = 0;

/// At least as large and as aligned as any C library's signal set.
#[repr(C, align(16))]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn listen(socket: i32, backlog: i32) -> i32;
    fn sigemptyset(set: *mut SignalSet) -> i32;
    fn sigaddset(set: *mut SignalSet, signal: i32) -> i32;
    fn pthread_sigmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
}

fn ours() -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: the set is ours and large enough.
    unsafe {
        sigemptyset(&mut set);
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            sigaddset(&mut set, signal);
        }
    }
    set
}

/// For this thread and those that it starts. Signals that are held back also reach the first process of a
/// container, which gets no others that it does not handle.
pub(crate) fn hold_back_signals() {
    // SAFETY: the set is valid, and no old set is asked for.
    unsafe { pthread_sigmask(SIG_BLOCK, &ours(), std::ptr::null_mut()) };
}

pub(crate) fn next_signal() -> i32 {
    let mut signal = 0;
    // SAFETY: both are valid, and the signals are held back.
    unsafe { sigwait(&ours(), &mut signal) };
    signal
}

pub(crate) fn set_backlog(listener: &TcpListener, backlog: i32) {
    // SAFETY: the socket is open and listens already; listening again only changes the length of its queue.
    unsafe { listen(listener.as_raw_fd(), backlog) };
}
