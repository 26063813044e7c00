//! Chunked bodies: the verdict and what passes do not depend on where the network cuts, what passes reads the same
//! again, and the data without framing is the data within. The first bytes say where to cut.
#![no_main]

use dormouse::proxy::ChunkScanner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() < 4 {
        return;
    }
    let (cuts, bytes) = bytes.split_at(4);
    let whole = scan(bytes, &[], false);
    assert_eq!(whole, scan(bytes, cuts, false), "in pieces it is another body");
    assert_eq!(whole, scan(bytes, &[0], false), "byte by byte it is another body");
    let data = scan(bytes, &[], true);
    assert_eq!(data, scan(bytes, cuts, true), "in pieces it is other data");
    assert_eq!(whole.is_some(), data.is_some(), "whether it is good depends on what is wanted of it");
    if let Some(passed) = whole
        && passed.done
    {
        let again = scan(&passed.bytes, cuts, false).expect("what passes is good");
        assert!(again.done && again.consumed == passed.bytes.len(), "what passes is whole");
        assert_eq!(again.bytes, passed.bytes, "what passes passes as it is");
        let again = scan(&passed.bytes, cuts, true).expect("what passes is good");
        assert_eq!(
            again.bytes,
            data.expect("the framing is good").bytes,
            "the data is the same with and without framing"
        );
        assert_eq!(again.bytes, plain(&passed.bytes), "a plain reader sees the same data");
    }
});

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    bytes: Vec<u8>,
    consumed: usize,
    done: bool,
}

/// Scans in pieces of these sizes less one, over and over; no sizes: in one piece.
fn scan(bytes: &[u8], cuts: &[u8], data_only: bool) -> Option<Passed> {
    let mut scanner = ChunkScanner::new(data_only);
    let mut passed = Passed { bytes: Vec::new(), consumed: 0, done: false };
    let mut sizes = cuts.iter().cycle();
    while passed.consumed < bytes.len() && !passed.done {
        let rest = &bytes[passed.consumed..];
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size) + 1).min(rest.len());
        let (mut piece, mut tail) = (rest[..size].to_vec(), Vec::new());
        let scanned = scanner.scan(&mut piece, &mut tail).ok()?;
        assert!(scanned.consumed <= size && scanned.produced <= scanned.consumed);
        assert!(scanned.done || scanned.consumed == size, "a body that goes on takes all there is");
        passed.bytes.extend_from_slice(&piece[..scanned.produced]);
        passed.bytes.extend_from_slice(&tail);
        passed.consumed += scanned.consumed;
        passed.done = scanned.done;
    }
    Some(passed)
}

/// The data of a good body, read the simplest way.
fn plain(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a size line");
        let size = std::str::from_utf8(&bytes[..end]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size and nothing else");
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        assert_eq!(&bytes[end + 2 + size..end + 4 + size], b"\r\n");
        bytes = &bytes[end + 4 + size..];
    }
}
