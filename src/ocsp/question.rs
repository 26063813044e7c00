//! Whether there is anything to ask of a certificate, and what. Pure.

use http::Uri;

use super::{
    der::{BYTES, INTEGER, OID, SEQUENCE, element},
    parts::{Parts, sha1},
};

/// SHA-1, as certificates are named by (RFC 5019, 2.1.1): nearly no responder knows them by anything else.
pub(super) const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];

/// What a certificate says of its responder.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) responder: Option<String>,
    /// Clients are to refuse it without an answer.
    pub(super) must_staple: bool,
    /// What can be asked, or why nothing can.
    pub(super) question: Result<Question, &'static str>,
}

/// What is asked of a responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Where.
    pub(super) responder: Uri,
    /// The certificate that it is about.
    pub(super) leaf: Vec<u8>,
    /// The certificate of its issuer.
    pub(super) issuer: Vec<u8>,
}

impl Facts {
    /// Reads a certificate, which comes first, and those that are shown with it.
    pub(super) fn read(chain: &[&[u8]]) -> Option<Self> {
        let (leaf, others) = chain.split_first()?;
        let parts = Parts::read(leaf)?;
        let responders = parts.responders();
        // A certificate is asked about in clear: an answer is signed, and TLS would have to ask for that of another.
        let usable = |address: &&str| address.parse().ok().filter(|uri: &Uri| is_usable(uri));
        let issuer = others.iter().find(|other| Parts::read(other).is_some_and(|other| parts.is_issued_by(&other)));
        let question = match (responders.iter().find_map(usable), issuer) {
            (None, _) if responders.is_empty() => Err("it names no responder"),
            (None, _) => Err("the address of its responder is not one of plain HTTP"),
            (Some(_), None) => Err("the certificate of its issuer is not in its chain"),
            (Some(responder), Some(issuer)) => Ok(Question { responder, leaf: leaf.to_vec(), issuer: issuer.to_vec() }),
        };
        let responder = match &question {
            Ok(question) => Some(question.responder.to_string()),
            Err(_) => responders.first().map(|address| (*address).to_owned()),
        };
        Some(Self { responder, must_staple: parts.must_staple(), question })
    }
}

fn is_usable(uri: &Uri) -> bool {
    let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    uri.scheme_str() == Some("http") && authority && uri.host().is_some_and(|host| !host.is_empty())
}

impl Question {
    /// The question as it is sent. Without a nonce: answers are made in advance.
    pub(super) fn request(&self) -> Option<Vec<u8>> {
        let (leaf, issuer) = (Parts::read(&self.leaf)?, Parts::read(&self.issuer)?);
        let id = id(&leaf, &issuer);
        let list = element(SEQUENCE, &[&element(SEQUENCE, &[&id])]);
        Some(element(SEQUENCE, &[&element(SEQUENCE, &[&list])]))
    }
}

/// What a certificate is called in questions.
pub(super) fn id(leaf: &Parts<'_>, issuer: &Parts<'_>) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[&element(OID, &[SHA1]), &[5, 0]]);
    let (name, key) = (element(BYTES, &[&sha1(leaf.issuer)]), element(BYTES, &[&sha1(issuer.key.bits)]));
    element(SEQUENCE, &[&algorithm, &name, &key, &element(INTEGER, &[leaf.serial])])
}

#[cfg(test)]
mod tests {
    use super::{super::samples::Authority, *};

    fn read(chain: &[Vec<u8>]) -> Facts {
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        Facts::read(&chain).unwrap()
    }

    #[test]
    fn a_certificate_is_asked_about_where_it_says_so_and_its_issuer_is_known() {
        let (authority, other) = (Authority::new("ours"), Authority::new("ours"));
        let issue = |responders: &[&str], staple| authority.issue("app.test", responders, staple);
        let address = "http://ocsp.test:8080/a/b";
        let facts = read(&[issue(&[address], false), other.der(), authority.der()]);
        let question = facts.question.unwrap();
        assert_eq!((facts.must_staple, facts.responder.as_deref()), (false, Some(address)));
        assert_eq!((question.responder.to_string().as_str(), &question.issuer), (address, &authority.der()));
        assert!(question.request().is_some());
        let facts = read(&[issue(&["https://ocsp.test/", "ldap://x.test/", address], true), authority.der()]);
        assert!(facts.must_staple && facts.question.unwrap().responder == address);
        for (chain, expected) in [
            (vec![issue(&[], true), authority.der()], "it names no responder"),
            (vec![issue(&[address], false)], "the certificate of its issuer is not in its chain"),
            (vec![issue(&[address], false), other.der()], "the certificate of its issuer is not in its chain"),
            (vec![issue(&["https://ocsp.test/"], false)], "the address of its responder is not one of plain HTTP"),
            (vec![issue(&["http://me@ocsp.test/"], false)], "the address of its responder is not one of plain HTTP"),
            (vec![issue(&["ocsp.test"], false)], "the address of its responder is not one of plain HTTP"),
        ] {
            assert_eq!(read(&chain).question, Err(expected));
        }
    }
}
