//! The key of texts that browsers keep for us: nobody else can read, make or change them.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

use crate::model::Oidc;

/// Bytes of a key.
const LENGTH: usize = 32;

/// The key. Each text is sealed under a number of its own, which is drawn by lot.
pub struct SessionKey {
    bytes: [u8; LENGTH],
    key: LessSafeKey,
    /// How the names of our cookies begin: in clear and with TLS. Another Dormouse in front or behind has other ones.
    names: [String; 2],
}

impl SessionKey {
    /// A key that nobody knows; nothing when the operating system has no chance to give.
    pub fn random() -> Option<Self> {
        Self::of(random()?)
    }

    /// The key of a text that [`SessionKey::text`] made.
    pub fn read(text: &str) -> Option<Self> {
        Self::of(URL_SAFE_NO_PAD.decode(text.trim()).ok()?.try_into().ok()?)
    }

    /// As a text, to be kept.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes) + "\n"
    }

    fn of(bytes: [u8; LENGTH]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok()?;
        let hash = digest(&SHA256, &[b"names of cookies\0", bytes.as_slice()].concat());
        let mark: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let names = Oidc::COOKIES.map(|kind| format!("{kind}{mark}"));
        Some(Self { bytes, key: LessSafeKey::new(key), names })
    }

    /// How the names of our cookies begin.
    pub(in crate::proxy) fn names(&self, secure: bool) -> &str {
        let [clear, with_tls] = &self.names;
        if secure { with_tls } else { clear }
    }

    /// Whether a cookie is named by us: it lets somebody in, maybe to another route of the host, and no service is to
    /// see it.
    pub(in crate::proxy) fn has_named(&self, crumb: &[u8]) -> bool {
        self.names.iter().any(|name| crumb.starts_with(name.as_bytes()))
    }

    /// Seals a text. It can be opened only by who says the same of what it is about.
    pub(in crate::proxy) fn seal(&self, about: &[u8], plain: &[u8]) -> Option<String> {
        let number: [u8; NONCE_LEN] = random()?;
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(number);
        self.key.seal_in_place_append_tag(nonce, Aad::from(about), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([number.as_slice(), &sealed].concat()))
    }

    /// What was sealed, if it was by us and about this.
    pub(in crate::proxy) fn open(&self, about: &[u8], text: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (number, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(number).ok()?;
        let mut sealed = sealed.to_vec();
        Some(self.key.open_in_place(nonce, Aad::from(about), &mut sealed).ok()?.to_vec())
    }
}

/// Bytes that nobody can guess.
pub(in crate::proxy) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_names_its_cookies_otherwise() {
        let (key, other) = (SessionKey::random().unwrap(), SessionKey::random().unwrap());
        for secure in [false, true] {
            let cookie = format!("{}0123=x", key.names(secure));
            assert!(key.has_named(cookie.as_bytes()) && !other.has_named(cookie.as_bytes()), "{cookie}");
            assert_eq!(SessionKey::read(&key.text()).unwrap().names(secure), key.names(secure));
        }
    }

    #[test]
    fn only_what_was_sealed_by_the_same_key_about_the_same_is_opened() {
        let key = SessionKey::random().unwrap();
        let sealed = key.seal(b"a", b"text").unwrap();
        assert_eq!(key.open(b"a", &sealed).as_deref(), Some(b"text".as_slice()));
        let kept = SessionKey::read(&key.text()).unwrap();
        assert_eq!(kept.open(b"a", &sealed).as_deref(), Some(b"text".as_slice()));
        assert_ne!(key.seal(b"a", b"text").unwrap(), sealed);
        assert!(key.open(b"b", &sealed).is_none());
        assert!(SessionKey::random().unwrap().open(b"a", &sealed).is_none());
        // Every byte counts.
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(key.open(b"a", &URL_SAFE_NO_PAD.encode(&other)).is_none(), "{at}");
            assert!(key.open(b"a", &URL_SAFE_NO_PAD.encode(&bytes[..at])).is_none(), "{at}");
        }
        for text in ["", "?", "AAAA", "nonsense"] {
            assert!(key.open(b"a", text).is_none() && SessionKey::read(text).is_none(), "{text}");
        }
    }
}
