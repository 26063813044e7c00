//! Memory that only loading needed goes back to the system.

/// A large piece of memory, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// From so many routes on, giving back is worth its time (some milliseconds).
const MANY: usize = 1000;

/// Has memory of large pieces come from the system and go back to it, for the rest of this program's life. The allocator
/// of glibc would otherwise raise these bounds with each large piece that is freed, and keep ever more. It would also
/// keep small pieces apart that are free, and with them all that a reload has left behind beside them.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer, and any thread may call it at any time (mallopt(3)).
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

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
