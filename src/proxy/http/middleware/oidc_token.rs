//! What a provider has signed: its keys (RFC 7517), and the tokens that say who somebody is (RFC 7519; OpenID Connect
//! Core, 3.1.3.7). Pure: the time is passed in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

use crate::model::Identity;

/// Clocks may differ by so many seconds.
const SKEW: i64 = 60;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadToken {
    #[error("it is no token")]
    Malformed,
    #[error("it is signed in a way that is not taken")]
    Algorithm,
    #[error("it is signed with a key that the provider does not have")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is from another provider")]
    Issuer,
    #[error("it is for another client")]
    Audience,
    #[error("it has expired, or holds from later on")]
    Time,
    #[error("it belongs to another login")]
    Nonce,
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// The keys of a provider.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// How a signature is looked at, and with which kind of key. Secrets that two share, and no signature at all, are not
/// among them.
enum Way {
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

impl Keys {
    /// Those of a document that are for signatures of a kind that we know.
    pub(super) fn read(document: &Value) -> Self {
        let keys = document.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self(keys.iter().filter_map(Key::read).collect())
    }

    fn verify(&self, (algorithm, id): (&str, Option<&str>), text: &[u8], signature: &[u8]) -> Result<(), BadToken> {
        let mut fitting = self.0.iter().filter(|key| key.fits(algorithm, id)).peekable();
        if fitting.peek().is_none() {
            let known = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
            return Err(if known.contains(&algorithm) { BadToken::UnknownKey } else { BadToken::Algorithm });
        }
        let good = fitting.any(|key| key.has_signed(algorithm, text, signature));
        if good { Ok(()) } else { Err(BadToken::Signature) }
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|used| used != "sig") {
            return None;
        }
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), &y].concat())
        };
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Public::P256(point(32)?),
            ("EC", Some("P-384")) => Public::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), public })
    }

    fn way(&self, algorithm: &str) -> Option<Way> {
        Some(match (algorithm, &self.public) {
            ("RS256", Public::Rsa { .. }) => Way::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            ("RS384", Public::Rsa { .. }) => Way::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            ("RS512", Public::Rsa { .. }) => Way::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            ("PS256", Public::Rsa { .. }) => Way::Rsa(&RSA_PSS_2048_8192_SHA256),
            ("PS384", Public::Rsa { .. }) => Way::Rsa(&RSA_PSS_2048_8192_SHA384),
            ("PS512", Public::Rsa { .. }) => Way::Rsa(&RSA_PSS_2048_8192_SHA512),
            ("ES256", Public::P256(_)) => Way::Curve(&ECDSA_P256_SHA256_FIXED),
            ("ES384", Public::P384(_)) => Way::Curve(&ECDSA_P384_SHA384_FIXED),
            ("EdDSA", Public::Ed25519(_)) => Way::Curve(&ED25519),
            _ => return None,
        })
    }

    fn fits(&self, algorithm: &str, id: Option<&str>) -> bool {
        let named = id.is_none_or(|id| self.id.as_deref().is_none_or(|own| own == id));
        let meant = self.algorithm.as_deref().is_none_or(|own| own == algorithm);
        named && meant && self.way(algorithm).is_some()
    }

    fn has_signed(&self, algorithm: &str, text: &[u8], signature: &[u8]) -> bool {
        match (self.way(algorithm), &self.public) {
            (Some(Way::Rsa(parameters)), Public::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, text, signature).is_ok()
            }
            (Some(Way::Curve(curve)), Public::P256(point) | Public::P384(point) | Public::Ed25519(point)) => {
                UnparsedPublicKey::new(curve, point).verify(text, signature).is_ok()
            }
            (Some(_) | None, _) => false,
        }
    }
}

/// What a token says, if it is believed.
pub(super) fn claims(token: &str, keys: &Keys, expected: Expected<'_>) -> Result<Value, BadToken> {
    let (text, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
    let (head, body) = text.split_once('.').ok_or(BadToken::Malformed)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Malformed);
    let object = |part: &str| match serde_json::from_slice(&bytes(part)?) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) | Err(_) => Err(BadToken::Malformed),
    };
    let head = object(head)?;
    // What we do not understand and must.
    if head.get("crit").is_some() {
        return Err(BadToken::Algorithm);
    }
    let algorithm = head.get("alg").and_then(Value::as_str).ok_or(BadToken::Malformed)?;
    let id = head.get("kid").and_then(Value::as_str);
    keys.verify((algorithm, id), text.as_bytes(), &bytes(signature)?)?;
    let claims = object(body)?;
    check(&claims, expected)?;
    Ok(claims)
}

fn check(claims: &Value, Expected { issuer, client_id, nonce, now }: Expected<'_>) -> Result<(), BadToken> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(issuer) {
        return Err(BadToken::Issuer);
    }
    let audience = claims.get("aud");
    let several = audience.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ours = audience.and_then(Value::as_str) == Some(client_id) || several.iter().any(|one| one == client_id);
    let party = text("azp");
    if !ours || party.is_some_and(|party| party != client_id) || (several.len() > 1 && party.is_none()) {
        return Err(BadToken::Audience);
    }
    let time = |name: &str| claims.get(name).and_then(|value| value.as_f64()).map(|time| time as i64);
    let until = time("exp").ok_or(BadToken::Malformed)?;
    if until <= now.saturating_sub(SKEW)
        || [time("nbf"), time("iat")].into_iter().flatten().any(|from| from > now + SKEW)
    {
        return Err(BadToken::Time);
    }
    if text("nonce") != Some(nonce) {
        return Err(BadToken::Nonce);
    }
    text("sub").filter(|subject| !subject.is_empty()).map(|_| ()).ok_or(BadToken::Malformed)
}

/// Who somebody is by these claims, and by those that the provider adds.
pub(super) fn identity(claims: &Value, more: Option<&Value>) -> Identity {
    let find = |name: &str| claims.get(name).filter(|value| !value.is_null()).or_else(|| more?.get(name));
    let text = |name: &str| find(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let groups = find("groups").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The mark belongs to the address beside which it stands.
    let with_address = [Some(claims), more].into_iter().flatten().find(|all| all.get("email").is_some());
    Identity {
        subject: text("sub"),
        user: text("preferred_username"),
        name: text("name"),
        email: text("email"),
        email_verified: with_address.and_then(|all| all.get("email_verified")?.as_bool()).unwrap_or(false),
        groups: groups.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ring::{
        hmac,
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn coded(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    struct Signer {
        key: EcdsaKeyPair,
        id: &'static str,
    }

    impl Signer {
        fn new(id: &'static str) -> Self {
            let document =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
            let key =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &SystemRandom::new());
            Self { key: key.unwrap(), id }
        }

        fn public(&self) -> Value {
            let point = self.key.public_key().as_ref();
            json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "alg": "ES256", "use": "sig",
                "x": coded(&point[1..33]), "y": coded(&point[33..]) })
        }

        fn sign(&self, head: &Value, claims: &Value) -> String {
            let text = format!("{}.{}", coded(head.to_string()), coded(claims.to_string()));
            let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            format!("{text}.{}", coded(signature))
        }
    }

    fn good() -> Value {
        json!({ "iss": "https://id.example", "aud": "shop", "sub": "7", "nonce": "n", "exp": NOW + 300, "iat": NOW })
    }

    fn expected() -> Expected<'static> {
        Expected { issuer: "https://id.example", client_id: "shop", nonce: "n", now: NOW }
    }

    fn with(key: &str, value: Value) -> Value {
        let mut claims = good();
        claims[key] = value;
        claims
    }

    #[test]
    fn what_a_token_says_must_be_as_expected() {
        let signer = Signer::new("1");
        let keys = Keys::read(&json!({ "keys": [signer.public()] }));
        let mut without = good();
        without.as_object_mut().unwrap().remove("exp");
        for (claims, found) in [
            (good(), Ok(())),
            (with("aud", json!(["shop"])), Ok(())),
            (with("exp", json!(NOW - SKEW + 1)), Ok(())),
            (with("exp", json!(f64::from(1_800_000_300) + 0.5)), Ok(())),
            (with("azp", json!("shop")), Ok(())),
            (with("iss", json!("https://id.example/")), Err(BadToken::Issuer)),
            (with("iss", json!("https://evil.example")), Err(BadToken::Issuer)),
            (with("iss", json!(null)), Err(BadToken::Issuer)),
            (with("aud", json!("other")), Err(BadToken::Audience)),
            (with("aud", json!([])), Err(BadToken::Audience)),
            (with("aud", json!(["shop", "other"])), Err(BadToken::Audience)),
            (with("azp", json!("other")), Err(BadToken::Audience)),
            (with("exp", json!(NOW - SKEW)), Err(BadToken::Time)),
            (with("exp", json!("soon")), Err(BadToken::Malformed)),
            (without, Err(BadToken::Malformed)),
            (with("nbf", json!(NOW + SKEW + 1)), Err(BadToken::Time)),
            (with("iat", json!(NOW + SKEW + 1)), Err(BadToken::Time)),
            (with("nonce", json!("m")), Err(BadToken::Nonce)),
            (with("nonce", json!(null)), Err(BadToken::Nonce)),
            (with("sub", json!("")), Err(BadToken::Malformed)),
        ] {
            let token = signer.sign(&json!({ "alg": "ES256", "kid": "1" }), &claims);
            assert_eq!(super::claims(&token, &keys, expected()).map(|_| ()), found, "{claims}");
        }
        let mut two = with("aud", json!(["shop", "other"]));
        two["azp"] = json!("shop");
        let token = signer.sign(&json!({ "alg": "ES256" }), &two);
        assert!(super::claims(&token, &keys, expected()).is_ok(), "for us in the first place");
    }

    #[test]
    fn only_signatures_of_the_providers_keys_count() {
        let (signer, stranger) = (Signer::new("1"), Signer::new("1"));
        let public = signer.public();
        let keys = Keys::read(&json!({ "keys": [public] }));
        let head = |algorithm: &str, id: &str| json!({ "alg": algorithm, "kid": id });
        let found = |token: &str| super::claims(token, &keys, expected()).map(|_| ());
        let token = signer.sign(&head("ES256", "1"), &good());
        assert_eq!(found(&token), Ok(()));
        assert_eq!(found(&signer.sign(&json!({ "alg": "ES256" }), &good())), Ok(()));
        assert_eq!(found(&signer.sign(&head("ES256", "2"), &good())), Err(BadToken::UnknownKey));
        assert_eq!(found(&stranger.sign(&head("ES256", "1"), &good())), Err(BadToken::Signature));
        for algorithm in ["none", "None", "", "HS256", "ES256K"] {
            assert_eq!(found(&signer.sign(&head(algorithm, "1"), &good())), Err(BadToken::Algorithm), "{algorithm}");
        }
        for algorithm in ["RS256", "ES384", "EdDSA"] {
            assert_eq!(found(&signer.sign(&head(algorithm, "1"), &good())), Err(BadToken::UnknownKey), "{algorithm}");
        }
        let critical = json!({ "alg": "ES256", "kid": "1", "crit": ["b64"], "b64": false });
        assert_eq!(found(&signer.sign(&critical, &good())), Err(BadToken::Algorithm));
        // Not signed at all, and signed with what everybody knows as if it were a secret.
        let text =
            |algorithm: &str| format!("{}.{}", coded(head(algorithm, "1").to_string()), coded(good().to_string()));
        assert_eq!(found(&format!("{}.", text("none"))), Err(BadToken::Algorithm));
        assert_eq!(found(&format!("{}.", text("ES256"))), Err(BadToken::Signature));
        for secret in
            [signer.key.public_key().as_ref(), public.to_string().as_bytes(), public["x"].to_string().as_bytes()]
        {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text("HS256").as_bytes());
            assert_eq!(found(&format!("{}.{}", text("HS256"), coded(tag))), Err(BadToken::Algorithm));
        }
        // Every part counts.
        let (text, signature) = token.rsplit_once('.').unwrap();
        let other = text.split_once('.').unwrap().0.to_owned() + "." + &coded(with("sub", json!("8")).to_string());
        assert_eq!(found(&format!("{other}.{signature}")), Err(BadToken::Signature));
        for broken in ["", ".", "..", "a.b", "a.b.c", &format!("{token}.x"), &STANDARD.encode(&token)] {
            assert!(found(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn keys_that_are_not_for_signatures_or_not_understood_are_left_out() {
        let signer = Signer::new("1");
        let (mut coding, mut cut) = (signer.public(), signer.public());
        coding["use"] = json!("enc");
        cut["x"] = json!("AAAA");
        let seed = [7; 32];
        let edwards = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let okp = json!({ "kty": "OKP", "crv": "Ed25519", "x": coded(edwards.public_key()) });
        let odd = json!({ "keys": [coding, cut, { "kty": "oct", "k": "AAAA" }, {}, 7, null, okp] });
        let keys = Keys::read(&odd);
        assert_eq!(keys.0.len(), 1, "{keys:?}");
        let text = format!("{}.{}", coded(json!({ "alg": "EdDSA" }).to_string()), coded(good().to_string()));
        let token = format!("{text}.{}", coded(edwards.sign(text.as_bytes())));
        assert!(super::claims(&token, &keys, expected()).is_ok());
        for document in [json!(null), json!([]), json!({ "keys": 7 })] {
            assert!(Keys::read(&document).0.is_empty(), "{document}");
        }
    }

    #[test]
    fn an_address_is_verified_only_where_it_stands() {
        let token = json!({ "sub": "7", "email": "a@example.org", "groups": ["x", 7, "y"] });
        let more =
            json!({ "email": "b@example.org", "email_verified": true, "name": "Mia", "preferred_username": "mia" });
        let who = identity(&token, Some(&more));
        assert_eq!((who.email.as_str(), who.email_verified), ("a@example.org", false));
        assert_eq!(
            (who.name.as_str(), who.user.as_str(), who.groups),
            ("Mia", "mia", vec!["x".to_owned(), "y".to_owned()])
        );
        let who = identity(&json!({ "sub": "7" }), Some(&more));
        assert_eq!((who.email.as_str(), who.email_verified), ("b@example.org", true));
    }
}
