//! Memory that only the start needed is given back to the system.
//!
//! A start runs through much code once, and leaves holes in the heap. The code stays mapped until memory runs short
//! elsewhere, three quarters of all that the program holds; what serving needs of it is mapped again as it is used.

use std::{fs, ops::Range, time::Duration};

use tokio_util::sync::CancellationToken;

/// The start is over by then, also what it has begun beside.
const SOON: Duration = Duration::from_millis(200);

/// Gives it back, soon.
pub(super) async fn give_back(end: CancellationToken) {
    if end.run_until_cancelled(tokio::time::sleep(SOON)).await.is_some() {
        let given = tokio::task::spawn_blocking(|| {
            trim_heap();
            unmap_code();
        });
        let _ = given.await;
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "a call of the C library")]
fn trim_heap() {
    // SAFETY: it takes the allocator's own locks, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

/// Lets go of the pages of the program's code: they are those of its file, and come back from there.
#[allow(unsafe_code, reason = "a call of the kernel")]
fn unmap_code() {
    let here = unmap_code as fn() as usize;
    let Some(code) = fs::read_to_string("/proc/self/smaps").ok().and_then(|maps| clean_code(&maps, here)) else {
        return;
    };
    // SAFETY: the range is a private mapping of a file that may not be written to, of which no page differs from the
    // file: whatever is read or run there later is read from the file again.
    let result = unsafe { libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED) };
    tracing::debug!(bytes = code.len(), result, "the pages of the program's code were let go");
}

/// What tells of pages of a mapping that are not those of its file. (`Private_Dirty` tells of the file's own, too, as long
/// as a fresh one is not on the disk.)
const CHANGED: [&str; 2] = ["Anonymous", "Swap"];

/// The mapping around an address, in the form of `/proc/self/smaps` (proc(5)), where it is of code and nothing in it was
/// changed, as debuggers do.
fn clean_code(maps: &str, within: usize) -> Option<Range<usize>> {
    let mut lines = maps.lines();
    let range = lines.by_ref().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        (rest.starts_with("r-xp ") && range.contains(&within)).then_some(range)
    })?;
    // Changed pages are dirty or, where memory is short, swapped out. The next mapping begins with its range.
    let own = lines.take_while(|line| line.split(' ').next().is_some_and(|name| name.ends_with(':')));
    let changed = own.filter_map(|line| line.split_once(':')).filter(|(name, _)| CHANGED.contains(name));
    let amounts: Vec<_> = changed.map(|(_, amount)| amount.trim()).collect();
    (amounts.len() == CHANGED.len() && amounts.iter().all(|amount| *amount == "0 kB")).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d000000000-55d000002000 r--p 00000000 fe:00 12 /usr/bin/dormouse
Size:                  8 kB
Private_Dirty:         0 kB
55d000002000-55d000009000 r-xp 00002000 fe:00 12 /usr/bin/dormouse
Size:                 28 kB
Private_Clean:        20 kB
Private_Dirty:         4 kB
Referenced:           20 kB
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               4 kB
VmFlags: rd ex mr mw me
55d000009000-55d00000a000 rw-p 00009000 fe:00 12 /usr/bin/dormouse
Private_Dirty:         4 kB
Anonymous:             0 kB
Swap:                  0 kB
";

    #[test]
    fn code_that_is_as_in_its_file_is_found() {
        assert_eq!(clean_code(MAPS, 0x55d0_0000_3000), Some(0x55d0_0000_2000..0x55d0_0000_9000));
        assert_eq!(clean_code(MAPS, 0x55d0_0000_1000), None, "no code");
        assert_eq!(clean_code(MAPS, 0x1000), None, "nothing there");
        for name in ["Anonymous", "Swap"] {
            let line = format!("{name}:{:1$}0 kB\n", "", 22 - name.len());
            assert!(MAPS.contains(&line));
            for other in [line.replace('0', "4"), String::new()] {
                assert_eq!(clean_code(&MAPS.replacen(&line, &other, 1), 0x55d0_0000_3000), None, "{other}");
            }
        }
        assert_eq!(clean_code("", 0), None);
        assert_eq!(clean_code("r-xp\n-\nx-y r-xp \n", 0), None);
    }

    #[test]
    fn this_program_runs_on_without_its_pages() {
        let here = this_program_runs_on_without_its_pages as fn() as usize;
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let code = clean_code(&maps, here).expect("our own code");
        assert!(code.contains(&here));
        unmap_code();
        trim_heap();
        assert_eq!(clean_code(&maps, here), Some(code));
    }
}
