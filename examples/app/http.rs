//! Requests as they are read.

use std::io::{self, BufRead, Read};

use crate::digest::Sha256;

/// What stands before the body of a request.
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) path: String,
    is_old: bool,
    pub(crate) headers: Vec<(String, String)>,
}

/// A body that was read.
pub(crate) struct Body {
    pub(crate) length: u64,
    pub(crate) sha256: String,
}

impl Head {
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(input)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut words = first.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target, version) = (word(), word(), word());
        let mut headers = Vec::new();
        loop {
            let line = line(input)?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let path = target.split('?').next().unwrap_or_default().to_owned();
        Ok(Some(Self { method, path, is_old: version == "HTTP/1.0", target, headers }))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.target.split_once('?')?.1.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(crate) fn closes(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        connection.contains("close") || (self.is_old && !connection.contains("keep-alive"))
    }

    pub(crate) fn body(&self, input: &mut impl BufRead) -> io::Result<Body> {
        let mut hash = Sha256::new();
        let mut length = 0;
        if self.header("transfer-encoding").is_some() {
            loop {
                let size = line(input)?;
                let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
                let size = size.map_err(|_| io::Error::other("a chunk without a size"))?;
                length += copy(input, size, &mut hash)?;
                if size == 0 {
                    while !line(input)?.is_empty() {}
                    break;
                }
                line(input)?;
            }
        } else {
            let size = self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            length = copy(input, size, &mut hash)?;
        }
        Ok(Body { length, sha256: hash.finish() })
    }
}

fn copy(input: &mut impl BufRead, size: u64, hash: &mut Sha256) -> io::Result<u64> {
    let mut piece = [0; 16 << 10];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        let length = input.read(piece.get_mut(..most).unwrap_or_default())?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.add(piece.get(..length).unwrap_or_default());
        left -= length as u64;
    }
    Ok(size)
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.by_ref().take(64 << 10).read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}
