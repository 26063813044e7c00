//! A quick hash for host names, keyed with a random secret.
//!
//! The keys of the table come from its owner; strangers only look up, and can not make two of them collide. The secret
//! keeps them from finding out by time which hosts do.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An odd number without a pattern: the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// The secret of one map.
#[derive(Debug, Clone)]
pub(super) struct HostHash(u64);

/// One name being hashed, eight bytes at a time.
#[derive(Debug)]
pub(super) struct HostHasher(u64);

impl Default for HostHash {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for HostHash {
    type Hasher = HostHasher;

    fn build_hasher(&self) -> HostHasher {
        HostHasher(self.0)
    }
}

impl HostHasher {
    /// Both halves of the product: every bit reaches every other.
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(MIX);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for HostHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        // The length tells apart what zeroes at the end do not.
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.mix(u64::from_le_bytes(last));
        self.0 = self.0.wrapping_add(bytes.len() as u64);
    }

    fn write_u8(&mut self, value: u8) {
        self.0 = self.0.rotate_left(17) ^ u64::from(value);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.0) * u128::from(MIX);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_that_differ_little_hash_apart() {
        let hash = HostHash::default();
        let names: Vec<String> = (0..50_000).map(|n| format!("app-{n:05}.apps.example.com")).collect();
        let all: HashSet<u64> = names.iter().map(|name| hash.hash_one(name.as_str())).collect();
        assert_eq!(all.len(), names.len());
        // The bits that choose a place and the bits that are compared there, each by themselves.
        for shift in [0, 48] {
            let parts: HashSet<u64> = all.iter().map(|hash| (hash >> shift) & 0xFFFF).collect();
            assert!(parts.len() > 30_000, "{} of about 35,000 at {shift}", parts.len());
        }
        assert_ne!(hash.hash_one("a"), hash.hash_one("a\0"));
        assert_ne!(hash.hash_one("a"), HostHash::default().hash_one("a"));
    }
}
