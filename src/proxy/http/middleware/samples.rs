//! Heads for tests.

use std::rc::Rc;

use crate::proxy::carry::Buffers;

use super::super::request_head;

/// A head with these fields.
pub(in crate::proxy::http) fn head(method: &str, target: &str, fields: &str) -> request_head::RequestHead {
    let mut buf = Rc::new(Buffers::default()).lend();
    buf.push(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    request_head::take(&mut buf, &Rc::default(), 8192, 32768).unwrap().unwrap()
}
