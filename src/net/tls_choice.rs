//! Which certificate a host is shown. Pure.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::tls_certificate::Certificate;

/// Certificates by host: exact names before wildcards.
#[derive(Debug, Default)]
pub(super) struct Choice {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
    first: Option<Arc<Certificate>>,
}

impl Choice {
    /// Of several for one name, the first that has not expired; else that with the latest end.
    pub(super) fn build<'a>(certificates: impl IntoIterator<Item = &'a Arc<Certificate>>, now: Timestamp) -> Self {
        let mut choice = Self::default();
        for certificate in certificates {
            choice.first.get_or_insert_with(|| Arc::clone(certificate));
            for name in &certificate.names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut choice.wildcard, suffix),
                    None => (&mut choice.exact, name.as_str()),
                };
                let better = map.get(key).is_none_or(|other| {
                    other.has_expired(now) && (!certificate.has_expired(now) || certificate.not_after > other.not_after)
                });
                if better {
                    map.insert(key.into(), Arc::clone(certificate));
                }
            }
        }
        choice
    }

    /// The certificate of a host in canonical spelling.
    pub(super) fn find(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.exact.get(host).or_else(|| self.wildcard.get(host.split_once('.')?.1))
    }

    /// For those who name no host.
    pub(super) fn first(&self) -> Option<&Arc<Certificate>> {
        self.first.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::{super::tls_samples::sample, *};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn certificate(names: &[&str], days: i64) -> Arc<Certificate> {
        let mut certificate = sample(names);
        certificate.not_after = now() + (days * 24).hours();
        Arc::new(certificate)
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_which_stands_for_one_label() {
        let (wild, exact) = (certificate(&["*.a.test"], 10), certificate(&["x.a.test"], 10));
        let choice = Choice::build([&wild, &exact], now());
        let is = |host: &str, expected: Option<&Arc<Certificate>>| {
            assert_eq!(choice.find(host).map(Arc::as_ptr), expected.map(Arc::as_ptr), "{host}");
        };
        is("x.a.test", Some(&exact));
        is("y.a.test", Some(&wild));
        is("z.y.a.test", None);
        is("a.test", None);
        is("test", None);
    }

    #[test]
    fn the_first_that_is_still_good_wins() {
        let (old, first, second) =
            (certificate(&["a.test"], -1), certificate(&["a.test"], 5), certificate(&["a.test"], 50));
        let choice = Choice::build([&old, &first, &second], now());
        assert!(Arc::ptr_eq(choice.find("a.test").unwrap(), &first));
        let older = certificate(&["a.test"], -9);
        let choice = Choice::build([&older, &old], now());
        assert!(Arc::ptr_eq(choice.find("a.test").unwrap(), &old));
    }
}
