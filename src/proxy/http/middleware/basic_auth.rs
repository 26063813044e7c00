//! `basic_auth`: a name and a password.
//!
//! A hash takes tenths of a second by design, so it is computed apart from the workers, by few at a time; a password
//! that was right is known from then on. A name that nobody has takes as long as one that somebody has.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use dashmap::DashSet;
use tokio::sync::Semaphore;

use crate::model::BasicAuth;

use super::{super::answer::Answer, chain::Refusal};

/// Passwords that are known at most.
const MOST: usize = 10_000;

/// How long one may wait for those who compute.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which passwords were right, and who computes.
#[derive(Debug)]
pub(super) struct Passwords {
    /// By what nobody outside can compute.
    right: DashSet<u128>,
    seeds: [RandomState; 2],
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            right: DashSet::new(),
            seeds: [RandomState::new(), RandomState::new()],
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }
}

impl Passwords {
    fn mark(&self, hash: &str, password: &[u8]) -> u128 {
        let [high, low] = &self.seeds;
        u128::from(high.hash_one((hash, password))) << 64 | u128::from(low.hash_one((hash, password)))
    }

    /// Whether a password is that of a hash; `None`: too many want to know. What is only to take its time is neither
    /// looked up nor remembered, or the time would tell what is right.
    async fn is_right(&self, password: Vec<u8>, hash: &str, in_earnest: bool) -> Option<bool> {
        let mark = self.mark(hash, &password);
        if in_earnest && self.right.contains(&mark) {
            return Some(true);
        }
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()?;
        let hash = hash.to_owned();
        let computed = tokio::task::spawn_blocking(move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false);
            drop(turn);
            right
        });
        let right = computed.await.unwrap_or(false);
        if right && in_earnest {
            if self.right.len() >= MOST {
                self.right.clear();
            }
            self.right.insert(mark);
        }
        Some(right)
    }
}

/// Lets those in who know a password. `credentials` is what stands in `Authorization`.
pub(super) async fn check(passwords: &Passwords, auth: &BasicAuth, credentials: Option<&str>) -> Result<(), Refusal> {
    let ask = |reason| {
        let field = format!("Basic realm=\"{}\", charset=\"UTF-8\"", auth.realm);
        let answer = Answer::new(401, "The service asks for a name and a password.");
        Refusal::new(reason, Answer { fields: vec![("WWW-Authenticate".to_owned(), field)], ..answer })
    };
    let Some((name, password)) = credentials.and_then(read) else { return Err(ask("it names no user")) };
    let known = auth.users.iter().find(|(own, _)| own.as_bytes() == name);
    let Some((_, hash)) = known.or(auth.users.first()) else { return Err(ask("there are no users")) };
    match passwords.is_right(password, hash.reveal(), known.is_some()).await {
        Some(true) if known.is_some() => Ok(()),
        Some(_) => Err(ask("name or password are wrong")),
        None => {
            let answer = Answer::new(503, "Too many passwords are being checked.").retry_after(PATIENCE);
            Err(Refusal::new("too many passwords are being checked", answer))
        }
    }
}

/// Name and password (RFC 7617).
fn read(credentials: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, coded) = credentials.split_once(' ')?;
    let text = STANDARD.decode(coded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = text.iter().position(|b| *b == b':')?;
    let (name, password) = text.split_at(colon);
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn auth() -> BasicAuth {
        let users = [("mia", "secret"), ("tom", "other")];
        let users = users.map(|(name, password)| (name.to_owned(), Secret::new(bcrypt::hash(password, 4).unwrap())));
        BasicAuth { users: users.into(), realm: "house".to_owned(), remove_header: false }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn only_the_right_password_of_that_name_lets_in() {
        let (auth, passwords) = (auth(), Passwords::default());
        for (credentials, right) in [
            (Some(basic("mia:secret")), true),
            (Some(basic("tom:other")), true),
            (Some(basic("tom:secret")), false),
            (Some(basic("mia:secret").replace("Basic", "basic")), true),
            (Some(basic("mia:Secret")), false),
            (Some(basic("mia:")), false),
            (Some(basic("mia")), false),
            (Some(basic("Mia:secret")), false),
            (Some(basic("zoe:secret")), false),
            (Some(basic("mia:secret").replace("Basic", "Bearer")), false),
            (Some("Basic ???".to_owned()), false),
            (Some("Basic".to_owned()), false),
            (Some(String::new()), false),
            (None, false),
        ] {
            let checked = check(&passwords, &auth, credentials.as_deref()).await;
            assert_eq!(checked.is_ok(), right, "{credentials:?}");
            if let Err(refusal) = checked {
                let asked = [("WWW-Authenticate".to_owned(), "Basic realm=\"house\", charset=\"UTF-8\"".to_owned())];
                assert_eq!((refusal.answer.status, refusal.answer.fields.as_slice()), (401, asked.as_slice()));
            }
        }
        // Nobody who has no name learns what is right; once that is known, nothing is computed any more.
        let known = passwords.right.len();
        assert!(check(&passwords, &auth, Some(&basic("zoe:secret"))).await.is_err());
        assert_eq!((known, passwords.right.len()), (2, 2));
        passwords.turns.close();
        assert!(check(&passwords, &auth, Some(&basic("mia:secret"))).await.is_ok());
        assert_eq!(check(&passwords, &auth, Some(&basic("mia:wrong"))).await.err().map(|r| r.answer.status), Some(503));
    }
}
