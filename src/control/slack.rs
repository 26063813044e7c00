//! Memory that only loading needed goes back to the system.

/// From so many routes on, giving back is worth its time (some milliseconds).
const MANY: usize = 1000;

/// Gives back what loading so many routes has left unused, beside everything else. The allocator of glibc would keep it;
/// that of musl gives it back by itself.
pub(super) fn give_back(routes: usize) {
    if routes >= MANY {
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking(trim));
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
