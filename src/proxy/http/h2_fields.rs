//! The fields of a head as it is written to a connection of HTTP/1.1, for one of HTTP/2.

use std::io;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// A head that we wrote. One copy of it holds the values of all its fields.
pub(super) struct Written {
    copy: Bytes,
    base: usize,
}

impl Written {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { copy: Bytes::copy_from_slice(bytes), base: bytes.as_ptr() as usize }
    }

    /// A field that was read from just that head.
    pub(super) fn field(&self, field: &httparse::Header<'_>) -> io::Result<(HeaderName, HeaderValue)> {
        let start = (field.value.as_ptr() as usize).wrapping_sub(self.base);
        let value =
            if field.value.is_empty() { Bytes::new() } else { self.copy.slice(start..start + field.value.len()) };
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad())?;
        Ok((name, HeaderValue::from_maybe_shared(value).map_err(|_| bad())?))
    }
}

/// What is told of a head that can not be one of HTTP/2.
pub(super) fn bad() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
