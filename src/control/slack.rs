//! Memory that only loading needed goes back to the system.

/// From so many changes at once on, giving back is worth its time (some milliseconds).
const MANY: usize = 1000;

/// Gives back what carrying out so many changes has left unused. The allocator of glibc would keep it, two thirds of
/// what a large file takes; that of musl gives it back by itself.
#[allow(unsafe_code)]
pub(super) fn give_back(changes: usize) {
    if changes < MANY {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
