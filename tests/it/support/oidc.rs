//! A small provider of OpenID Connect: the code flow with PKCE, over real HTTP, with keys that change, and with lies that
//! a test has it tell.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// The one client that it knows.
pub(crate) const CLIENT: (&str, &str) = ("shop & co", "s3cret:+%");

/// A key that it signs with.
pub(crate) enum SigningKey {
    Rs256(Box<RsaKeyPair>),
    Es256(Box<EcdsaKeyPair>),
}

/// How it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// With its key.
    Good,
    /// Not at all, and says so.
    None,
    /// With its public key as a secret.
    PublicAsSecret,
    /// With a key that it does not show, under the name of its own.
    Stranger,
}

/// What is given for a code.
struct Grant {
    redirect_uri: String,
    challenge: String,
    nonce: String,
}

/// What it does.
pub(crate) struct Conduct {
    /// Where it sends browsers back to, and nowhere else.
    pub(crate) redirect_uris: Vec<String>,
    /// More claims, or others than those that would be right.
    pub(crate) claims: Vec<(&'static str, Value)>,
    /// Claims that are told only when they are asked for; `null`: nothing is there.
    pub(crate) userinfo: Value,
    pub(crate) signature: Signature,
    /// How long it thinks before each answer.
    pub(crate) thinks: Duration,
    /// How long it thinks of its keys besides.
    pub(crate) thinks_of_keys: Duration,
    /// How often it was asked for them.
    pub(crate) asked_for_keys: usize,
    key: (u32, SigningKey),
    grants: HashMap<String, Grant>,
    /// Codes that were given tokens for.
    pub(crate) tokens: usize,
}

/// The provider. Ends when dropped.
pub(crate) struct Provider {
    pub(crate) at: SocketAddr,
    pub(crate) issuer: String,
    pub(crate) conduct: Arc<Mutex<Conduct>>,
    task: AbortHandle,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn random() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Undoes the escapes of a form.
fn plain(text: &str) -> String {
    String::from_utf8(dormouse::model::without_escapes(&text.replace('+', " "))).unwrap()
}

/// The parameters of a query or form.
pub(crate) fn parameters(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

impl SigningKey {
    pub(crate) fn rs256() -> Self {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"])
            .output()
            .expect("openssl");
        // It writes PKCS#8, or what stands inside of that.
        let key = RsaKeyPair::from_pkcs8(&made.stdout).or_else(|_| RsaKeyPair::from_der(&made.stdout));
        Self::Rs256(Box::new(key.expect("a key")))
    }

    pub(crate) fn es256() -> Self {
        let chance = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &chance);
        Self::Es256(Box::new(key.unwrap()))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    fn public(&self, id: u32) -> Value {
        match self {
            Self::Rs256(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "kid": id.to_string(), "use": "sig", "alg": "RS256", "n": coded(n), "e": coded(e) })
            }
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": id.to_string(), "use": "sig", "alg": "ES256",
                    "x": coded(&point[1..33]), "y": coded(&point[33..]) })
            }
        }
    }

    fn sign(&self, text: &str) -> String {
        let chance = SystemRandom::new();
        match self {
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &chance, text.as_bytes(), &mut signature).unwrap();
                coded(signature)
            }
            Self::Es256(key) => coded(key.sign(&chance, text.as_bytes()).unwrap()),
        }
    }
}

impl Conduct {
    /// From now on it signs with another key, and shows that one alone.
    pub(crate) fn change_key(&mut self, key: SigningKey) {
        self.key = (self.key.0 + 1, key);
    }

    fn token(&self, issuer: &str, nonce: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "iss": issuer, "aud": CLIENT.0, "sub": "id-of-mia", "nonce": nonce, "iat": now,
            "exp": now + 300, "preferred_username": "mia", "name": "Mia M\u{fc}ller" });
        for (name, value) in &self.claims {
            claims[*name] = value.clone();
        }
        let (id, key) = &self.key;
        let text = |algorithm: &str| {
            let head = json!({ "alg": algorithm, "kid": id.to_string(), "typ": "JWT" });
            format!("{}.{}", coded(head.to_string()), coded(claims.to_string()))
        };
        let (text, signature) = match self.signature {
            Signature::Good => (text(key.algorithm()), key.sign(&text(key.algorithm()))),
            Signature::None => (text("none"), String::new()),
            Signature::PublicAsSecret => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public(*id).to_string().as_bytes());
                (text("HS256"), coded(hmac::sign(&secret, text("HS256").as_bytes())))
            }
            Signature::Stranger => (text("ES256"), SigningKey::es256().sign(&text("ES256"))),
        };
        format!("{text}.{signature}")
    }

    /// An answer: status, where to, body.
    fn answer(&mut self, issuer: &str, (method, target): (&str, &str), head: &str, body: &str) -> (u16, String, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let refused = |why: &str| (400, String::new(), json!({ "error": why }));
        match (method, path) {
            ("GET", "/.well-known/openid-configuration") => {
                let at = |path: &str| format!("{issuer}{path}");
                let said = json!({ "issuer": issuer, "authorization_endpoint": at("/authorize?tenant=1"),
                    "token_endpoint": at("/token"), "jwks_uri": at("/jwks"), "userinfo_endpoint": at("/userinfo"),
                    "end_session_endpoint": at("/end"), "authorization_response_iss_parameter_supported": true,
                    "scopes_supported": ["openid", "profile", "groups"] });
                (200, String::new(), said)
            }
            ("GET", "/jwks") => (200, String::new(), json!({ "keys": [self.key.1.public(self.key.0)] })),
            ("GET", "/authorize") => {
                let given = parameters(query);
                let get = |name: &str| given.get(name).cloned().unwrap_or_default();
                let sound = get("tenant") == "1"
                    && get("response_type") == "code"
                    && get("client_id") == CLIENT.0
                    && get("scope") == "openid profile groups"
                    && get("code_challenge_method") == "S256"
                    && get("code_challenge").len() == 43
                    && get("nonce").len() > 20
                    && get("state").len() > 20;
                if !sound || !self.redirect_uris.contains(&get("redirect_uri")) {
                    return refused("invalid_request");
                }
                let code = random();
                let back = format!("{}?code={code}&state={}&iss={issuer}", get("redirect_uri"), get("state"));
                let grant =
                    Grant { redirect_uri: get("redirect_uri"), challenge: get("code_challenge"), nonce: get("nonce") };
                self.grants.insert(code, grant);
                (302, back, Value::Null)
            }
            ("POST", "/token") => {
                let given = parameters(body);
                let get = |name: &str| given.get(name).cloned().unwrap_or_default();
                let field = |line: &str| line.strip_prefix("authorization: Basic ").map(str::to_owned);
                let pair = head.lines().find_map(field).and_then(|pair| STANDARD.decode(pair).ok());
                let pair = pair.and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
                if pair.split_once(':').map(|(id, secret)| (plain(id), plain(secret)))
                    != Some((CLIENT.0.to_owned(), CLIENT.1.to_owned()))
                {
                    return (401, String::new(), json!({ "error": "invalid_client" }));
                }
                let Some(grant) = self.grants.remove(&get("code")) else { return refused("invalid_grant") };
                let shown = coded(digest(&SHA256, get("code_verifier").as_bytes()));
                if get("grant_type") != "authorization_code"
                    || grant.redirect_uri != get("redirect_uri")
                    || grant.challenge != shown
                {
                    return refused("invalid_grant");
                }
                self.tokens += 1;
                let token = self.token(issuer, &grant.nonce);
                (200, String::new(), json!({ "id_token": token, "access_token": "mias", "token_type": "Bearer" }))
            }
            ("GET", "/userinfo") if head.contains("authorization: Bearer mias\r\n") && !self.userinfo.is_null() => {
                (200, String::new(), self.userinfo.clone())
            }
            _ => (404, String::new(), Value::Null),
        }
    }
}

impl Provider {
    /// One that signs with this key.
    pub(crate) async fn start(key: SigningKey) -> Self {
        Self::start_as(key, None).await
    }

    /// One that is reached under this address, by way of somebody else.
    pub(crate) async fn start_as(key: SigningKey, issuer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let issuer = issuer.unwrap_or_else(|| format!("http://{at}"));
        let conduct = Arc::new(Mutex::new(Conduct {
            redirect_uris: Vec::new(),
            claims: Vec::new(),
            userinfo: json!({ "sub": "id-of-mia" }),
            signature: Signature::Good,
            thinks: Duration::ZERO,
            thinks_of_keys: Duration::ZERO,
            asked_for_keys: 0,
            key: (1, key),
            grants: HashMap::new(),
            tokens: 0,
        }));
        let (own, all) = (issuer.clone(), Arc::clone(&conduct));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (issuer, conduct) = (own.clone(), Arc::clone(&all));
                // Whoever leaves early is no concern of it.
                tokio::spawn(async move { serve(stream, &issuer, &conduct).await });
            }
        });
        Self { at, issuer, conduct, task: task.abort_handle() }
    }

    pub(crate) fn conducts(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.conduct.lock().unwrap());
    }
}

/// One request.
async fn serve(mut stream: TcpStream, issuer: &str, conduct: &Mutex<Conduct>) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = |line: &str| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        };
        let head = head.lines().map(lower).collect::<Vec<_>>().join("\r\n");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            break (format!("{head}\r\n"), body.to_owned());
        }
    };
    let mut line = head.split_whitespace();
    let what = (line.next()?, line.next()?);
    let (thinks, of_keys) = {
        let mut conduct = conduct.lock().unwrap();
        let of_keys = what.1 == "/jwks";
        conduct.asked_for_keys += usize::from(of_keys);
        (conduct.thinks, if of_keys { conduct.thinks_of_keys } else { Duration::ZERO })
    };
    tokio::time::sleep(thinks + of_keys).await;
    let (status, to, answer) = conduct.lock().unwrap().answer(issuer, what, &head, &body);
    let answer = answer.to_string();
    let to = if to.is_empty() { to } else { format!("Location: {to}\r\n") };
    let length = answer.len();
    let text = format!("HTTP/1.1 {status} Said\r\n{to}Content-Length: {length}\r\nConnection: close\r\n\r\n{answer}");
    stream.write_all(text.as_bytes()).await.ok()
}
