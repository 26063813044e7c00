//! By which cookie a client stays with its member.

use std::{
    fmt,
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    sync::OnceLock,
};

use crate::model::Alias;

/// What the values of cookies are made with. Nobody can tell from a value which member it means, nor make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StickyKey(u128);

impl StickyKey {
    /// A key that nobody knows, seeded by the operating system.
    pub fn random() -> Self {
        let half = || u128::from(RandomState::new().hash_one(0));
        Self(half() << 64 | half())
    }

    /// The key of a text that [`StickyKey::text`] made.
    pub fn read(text: &str) -> Option<Self> {
        u128::from_str_radix(text.trim(), 16).ok().filter(|key| *key != 0).map(Self)
    }

    /// As a text, to be kept.
    pub fn text(self) -> String {
        format!("{:032x}\n", self.0)
    }

    /// The name of the cookie of this group: one for each, since several may share a host.
    pub(super) fn name(self, group: &Alias) -> Box<str> {
        format!("dormouse_{:08x}", self.hash(group, 0, 0) >> 32).into()
    }

    /// The value that stands for a member.
    pub(super) fn value(self, group: &Alias, member: u64) -> Box<str> {
        format!("{:016x}{:016x}", self.hash(group, 1, member), self.hash(group, 2, member)).into()
    }

    fn hash(self, group: &Alias, part: u64, member: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u128(self.0);
        hasher.write(group.as_str().as_bytes());
        hasher.write_u64(part);
        hasher.write_u64(member);
        hasher.write_u128(self.0);
        hasher.finish()
    }
}

impl Default for StickyKey {
    fn default() -> Self {
        Self::random()
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey")
    }
}

/// Who has the key, once somebody has needed it.
#[derive(Default)]
pub(super) struct StickyKeeper {
    key: OnceLock<StickyKey>,
    kept: OnceLock<Box<dyn Fn() -> StickyKey + Send + Sync>>,
}

impl StickyKeeper {
    /// From here on the key is had from this, unless there is one already.
    pub(super) fn ask(&self, kept: Box<dyn Fn() -> StickyKey + Send + Sync>) {
        // A second key would tear clients from their members: the first stays.
        let _ = self.kept.set(kept);
    }

    /// The key, the same each time.
    pub(super) fn key(&self) -> StickyKey {
        *self.key.get_or_init(|| self.kept.get().map_or_else(StickyKey::random, |kept| kept()))
    }
}

impl fmt::Debug for StickyKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKeeper")
    }
}

/// The cookie of a group.
#[derive(Debug)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// What it reads for each member.
    pub values: Vec<Box<str>>,
    /// How long it holds, in seconds.
    pub max_age: u64,
}

impl Cookie {
    /// The member that a request asks for by this cookie.
    pub fn member<'a>(&self, fields: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        let value = |field: &'a [u8]| crumbs(field).find_map(|crumb| self.value(crumb));
        let given = fields.into_iter().find_map(value)?;
        self.values.iter().position(|value| value.as_bytes() == given)
    }

    /// What a crumb reads, if it is one of this cookie.
    fn value<'a>(&self, crumb: &'a [u8]) -> Option<&'a [u8]> {
        crumb.strip_prefix(self.name.as_bytes())?.strip_prefix(b"=")
    }

    /// Whether a crumb of a `Cookie` field is ours.
    pub fn has_set(&self, crumb: &[u8]) -> bool {
        self.value(crumb).is_some()
    }

    /// The `Set-Cookie` field that asks a client to stay with this member.
    pub fn set(&self, member: usize, secure: bool) -> Option<String> {
        let (name, value, age) = (&self.name, self.values.get(member)?, self.max_age);
        let secure = if secure { "; Secure" } else { "" };
        Some(format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"))
    }
}

/// The crumbs of a `Cookie` field.
pub fn crumbs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|crumb| !crumb.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(key: StickyKey) -> Cookie {
        let group: Alias = "web".parse().unwrap();
        Cookie { name: key.name(&group), values: vec![key.value(&group, 10), key.value(&group, 11)], max_age: 60 }
    }

    #[test]
    fn a_client_comes_back_with_what_it_was_given() {
        let cookie = cookie(StickyKey::random());
        let set = cookie.set(1, true).unwrap();
        assert!(set.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"), "{set}");
        let crumb = set.split(';').next().unwrap();
        let field = format!("a=1; {crumb};b=2");
        assert_eq!(cookie.member([b"x=y".as_slice(), field.as_bytes()].into_iter()), Some(1));
        let others: Vec<_> = crumbs(field.as_bytes()).filter(|crumb| !cookie.has_set(crumb)).collect();
        assert_eq!(others, [b"a=1", b"b=2"]);
        assert_eq!(cookie.member([format!("{}=nonsense", cookie.name).as_bytes()].into_iter()), None);
        assert!(!cookie.set(0, false).unwrap().contains("Secure"));
    }

    #[test]
    fn a_key_outlives_the_program_and_others_make_other_values() {
        let key = StickyKey::random();
        let again = StickyKey::read(&key.text()).unwrap();
        assert_eq!(cookie(again).values, cookie(key).values);
        let other = cookie(StickyKey::random());
        assert_ne!(other.values, cookie(key).values);
        assert_ne!(other.values[0], other.values[1]);
        assert_eq!((StickyKey::read("zz"), StickyKey::read("0")), (None, None));
    }
}
