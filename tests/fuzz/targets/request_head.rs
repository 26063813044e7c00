//! Request heads: what is read and written anew means the same to the next reader, and where the network cuts a head
//! changes nothing.
#![no_main]

use dormouse::proxy::{
    BadRequest,
    fuzz::{ReadRequest, request},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(first)) = request(bytes) else { return };
    // Our own fields may bring a head that is just within the bounds beyond them.
    let second = match request(&first.written) {
        Err(BadRequest::HeadTooLarge) => return,
        written => written.expect("what we write is good").expect("what we write is whole"),
    };
    assert_eq!(second.left, 0, "one head was written, and two can be read");
    assert_eq!(meaning(&first), meaning(&second));
    let hosts = second.written.windows(8).filter(|part| part.eq_ignore_ascii_case(b"\r\nHost: ")).count();
    assert_eq!(hosts, 1);
    let length = bytes.len() - first.left;
    for cut in [1, length / 2, length.saturating_sub(1)] {
        assert_eq!(request(&bytes[..cut.min(length - 1)]), Ok(None), "a part of a good head is not bad, and not whole");
    }
    let alone = request(&bytes[..length]).expect("still good").expect("still whole");
    assert_eq!(meaning(&alone), meaning(&first), "what follows a head does not change it");
});

/// All that must not change.
fn meaning(head: &ReadRequest) -> ReadRequest {
    let fields = head.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    // Without a host the upstream's own address is told.
    let authority = if head.authority.is_empty() { "192.0.2.2:80" } else { &head.authority }.to_owned();
    // Who asks for another protocol is passed on with that word alone in `Connection`: some services know no other.
    let trailers = head.trailers && head.upgrade.is_none();
    ReadRequest { left: 0, trailers, fields, authority, written: Vec::new(), ..head.clone() }
}
