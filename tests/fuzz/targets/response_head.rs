//! Response heads: what is read and written anew means the same to the client, and where the network cuts a head
//! changes nothing. The first byte says whether the request was HEAD.
#![no_main]

use dormouse::proxy::{
    Framing,
    fuzz::{MAX_FIELDS, ReadResponse, response},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let to_head = first & 1 == 1;
    let Ok(Some(first)) = response(bytes, to_head) else { return };
    let second = match response(&first.written, to_head) {
        // Our own fields may bring a head that is just within the bounds beyond them.
        Err(_) if lines(&first.written) > lines(&bytes[..first.length]).max(MAX_FIELDS) => return,
        written => written.expect("what we write is good").expect("what we write is whole"),
    };
    assert_eq!(second.length, first.written.len(), "one head was written, and two can be read");
    assert_eq!(meaning(&first), meaning(&second));
    for cut in [first.length / 2, first.length - 1] {
        assert_eq!(response(&bytes[..cut], to_head), Ok(None), "a part of a good head is not bad, and not whole");
    }
    let alone = response(&bytes[..first.length], to_head).expect("still good").expect("still whole");
    assert_eq!(alone, first, "what follows a head does not change it");
});

fn lines(head: &[u8]) -> usize {
    head.iter().filter(|byte| **byte == b'\n').count()
}

/// All that must not change. A body that ended with its connection goes on in chunks.
fn meaning(head: &ReadResponse) -> ReadResponse {
    let fields = head.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let framing = if head.framing == Framing::UntilClose { Framing::Chunked } else { head.framing };
    ReadResponse { length: 0, framing, fields, written: Vec::new(), ..head.clone() }
}
