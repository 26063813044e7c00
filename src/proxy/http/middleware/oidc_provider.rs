//! A provider of OpenID Connect: what it says of itself, its keys, and the questions that are asked of it.
//!
//! What it says of itself is asked for when somebody first wants in, and again now and then. One asks at a time; who
//! comes meanwhile has the same answer.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use dashmap::DashMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    model::{Oidc, Secret},
    net::{Offer, Stream, TlsTarget},
};

use super::{super::worker::HttpWorker, auth_server::driven, oidc_text::encoded, oidc_token::Keys};

/// An answer is at most so long.
const LONGEST: usize = 512 * 1024;

/// How long it is believed what a provider says of itself, and its keys.
const KEPT: Duration = Duration::from_secs(3600);

/// Keys are not asked for again before that, whatever somebody shows us.
const KEYS: Duration = Duration::from_secs(1);

/// After a failure nobody asks for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a provider was of no help.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    /// It is away, or not what it should be. The words are for the log.
    #[error("{0}")]
    Away(String),
    /// It answers, though not as it should. The words are for the log.
    #[error("{0}")]
    Odd(String),
    /// It takes too long.
    #[error("it did not answer in time")]
    Late,
    /// It does not take what it was shown. The words are for the log.
    #[error("{0}")]
    Refused(String),
}

fn away(why: impl std::fmt::Display) -> Fault {
    Fault::Away(why.to_string())
}

/// The providers that were asked, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Providers(DashMap<Address, Arc<Known>>);

/// What sets one provider apart from another: its address, and how its TLS is checked.
type Address = (String, crate::model::UpstreamTls);

/// What is known of a provider. Each of both is asked for by one at a time; who needs what it says of itself alone does
/// not wait for its keys.
#[derive(Debug, Default)]
struct Known {
    said: Mutex<Asked<Said>>,
    keys: Mutex<Asked<Keys>>,
}

/// What it was asked for, and what came of it last.
#[derive(Debug)]
struct Asked<T> {
    found: Option<(Arc<T>, Instant)>,
    failed: Option<(Fault, Instant)>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { found: None, failed: None }
    }
}

impl<T> Asked<T> {
    /// What is known without asking: what was found so lately, or that it failed a moment ago.
    fn known(&self, kept: Duration) -> Option<Result<Arc<T>, Fault>> {
        if let Some((found, since)) = &self.found
            && since.elapsed() < kept
        {
            return Some(Ok(Arc::clone(found)));
        }
        let (fault, since) = self.failed.as_ref()?;
        (since.elapsed() < PAUSE).then(|| Err(fault.clone()))
    }

    fn note(&mut self, asked: Result<T, Fault>) -> Result<Arc<T>, Fault> {
        match asked {
            Ok(found) => {
                let found = Arc::new(found);
                self.failed = None;
                self.found = Some((Arc::clone(&found), Instant::now()));
                Ok(found)
            }
            Err(fault) => {
                self.failed = Some((fault.clone(), Instant::now()));
                Err(fault)
            }
        }
    }
}

/// What a provider says of itself (OpenID Connect Discovery 1.0).
#[derive(Debug)]
pub(super) struct Said {
    /// As it stands in its tokens.
    pub(super) issuer: String,
    pub(super) authorization: String,
    token: String,
    keys: String,
    userinfo: Option<String>,
    /// Where one logs out.
    pub(super) end_session: Option<String>,
    scopes: Option<Vec<String>>,
    /// It wants the secret in the body.
    posts_secret: bool,
    /// It says in its answers who it is (RFC 9207).
    pub(super) names_itself: bool,
}

/// What was given for a code.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) id: String,
    access: Option<String>,
}

impl Said {
    fn read(rule: &Oidc, document: &Value) -> Result<Self, Fault> {
        let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        let texts = |name: &str| {
            let list = document.get(name)?.as_array()?;
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
        };
        let issuer = text("issuer").unwrap_or_default();
        if issuer.trim_end_matches('/') != rule.issuer {
            return Err(away(format!("it calls itself `{issuer}`")));
        }
        let secure = rule.issuer.starts_with("https:");
        let sound = |url: &String| {
            let parsed = url.parse::<Uri>().ok();
            let scheme = parsed.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
            (scheme == "https" || (scheme == "http" && !secure)) && parsed.is_some_and(|url| url.host().is_some())
        };
        let endpoint = |name: &str| text(name).filter(sound);
        let needed = |name: &str| endpoint(name).ok_or_else(|| away(format!("it names no sound `{name}`")));
        let ways = texts("token_endpoint_auth_methods_supported").unwrap_or_default();
        let has = |way: &str| ways.iter().any(|own| own == way);
        Ok(Self {
            authorization: needed("authorization_endpoint")?,
            token: needed("token_endpoint")?,
            keys: needed("jwks_uri")?,
            userinfo: endpoint("userinfo_endpoint"),
            end_session: endpoint("end_session_endpoint"),
            scopes: texts("scopes_supported"),
            posts_secret: has("client_secret_post") && !has("client_secret_basic"),
            names_itself: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            issuer,
        })
    }

    /// What is asked for: what the route wants, or all that is of use and that the provider has.
    pub(super) fn scopes(&self, rule: &Oidc) -> String {
        if !rule.scopes.is_empty() {
            return rule.scopes.join(" ");
        }
        let has = |scope: &&str| self.scopes.as_ref().is_none_or(|all| all.iter().any(|own| own == scope));
        ["openid", "profile", "email", "groups"]
            .into_iter()
            .filter(|scope| *scope == "openid" || has(scope))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// One who asks a provider.
#[derive(Clone, Copy)]
pub(super) struct Questions<'a> {
    pub(super) worker: &'a HttpWorker,
    pub(super) rule: &'a Oidc,
}

impl Questions<'_> {
    fn known(&self) -> Arc<Known> {
        let providers = &self.worker.ledger.providers.0;
        let key = (self.rule.issuer.clone(), self.rule.tls.clone());
        Arc::clone(&providers.entry(key).or_default())
    }

    /// What it says of itself.
    pub(super) async fn said(&self) -> Result<Arc<Said>, Fault> {
        self.in_time(self.said_of(&self.known())).await
    }

    async fn said_of(&self, known: &Known) -> Result<Arc<Said>, Fault> {
        let mut own = known.said.lock().await;
        if let Some(known) = own.known(KEPT) {
            return known;
        }
        let asked = self.nearly_in_time(async {
            let document = self.get(&format!("{}/.well-known/openid-configuration", self.rule.issuer), None).await?;
            Said::read(self.rule, &document)
        });
        let asked = asked.await.inspect_err(|fault| {
            let provider = &self.rule.issuer;
            tracing::warn!(%provider, "nobody can log in by the provider of `oidc`: {fault}");
        });
        own.note(asked)
    }

    /// Its keys; with `again` those of now, unless they were asked for a moment ago.
    pub(super) async fn keys(&self, again: bool) -> Result<Arc<Keys>, Fault> {
        self.in_time(async {
            let known = self.known();
            let mut own = known.keys.lock().await;
            if let Some(known) = own.known(if again { KEYS } else { KEPT }) {
                return known;
            }
            let asked = self.nearly_in_time(async {
                let said = self.said_of(&known).await?;
                Ok(Keys::read(&self.get(&said.keys, None).await?))
            });
            own.note(asked.await)
        })
        .await
    }

    /// Whoever waits behind us has some of its own time left for the answer.
    async fn nearly_in_time<T>(&self, asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        tokio::time::timeout(self.rule.timeout.mul_f32(0.9), asked).await.unwrap_or(Err(Fault::Late))
    }

    /// Gives a code for tokens (RFC 6749, 4.1.3; RFC 7636, 4.5).
    pub(super) async fn tokens(&self, said: &Said, code: &str, verifier: &str, back: &str) -> Result<Tokens, Fault> {
        let rule = self.rule;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", back),
            ("code_verifier", verifier),
        ];
        let secret = rule.client_secret.as_ref().map(Secret::reveal);
        let basic = secret.filter(|_| !said.posts_secret);
        if basic.is_none() {
            form.push(("client_id", &rule.client_id));
            form.extend(secret.map(|secret| ("client_secret", secret)));
        }
        let form: Vec<_> = form.into_iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut request =
            Request::post(said.token.as_str()).header("Content-Type", "application/x-www-form-urlencoded");
        if let Some(secret) = basic {
            let pair = STANDARD.encode(format!("{}:{}", encoded(&rule.client_id), encoded(secret)));
            request = request.header("Authorization", format!("Basic {pair}"));
        }
        let (status, answer) = self.in_time(self.ask(request, form.join("&"))).await?;
        if status != 200 {
            let error = answer.get("error").and_then(Value::as_str).unwrap_or_default();
            let why = format!("it gives no token: status {status}, `{}`", error.escape_debug());
            return Err(if (400..500).contains(&status) { Fault::Refused(why) } else { Fault::Away(why) });
        }
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("id_token").ok_or_else(|| Fault::Refused("it gives no `id_token`".to_owned()))?;
        Ok(Tokens { id, access: text("access_token") })
    }

    /// What it says beyond the token, if it does; of that subject alone.
    pub(super) async fn more(
        &self,
        said: &Said,
        tokens: &Tokens,
        subject: Option<&Value>,
    ) -> Result<Option<Value>, Fault> {
        let Some((at, access)) = said.userinfo.as_deref().zip(tokens.access.as_deref()) else { return Ok(None) };
        let more = self.in_time(self.get(at, Some(access))).await?;
        if more.get("sub") != subject {
            return Err(Fault::Refused("what it says of somebody is about another".to_owned()));
        }
        Ok(Some(more))
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        tokio::time::timeout(self.rule.timeout, asked).await.unwrap_or(Err(Fault::Late))
    }

    async fn get(&self, at: &str, access: Option<&str>) -> Result<Value, Fault> {
        let mut request = Request::get(at);
        if let Some(access) = access {
            request = request.header("Authorization", format!("Bearer {access}"));
        }
        match self.ask(request, String::new()).await? {
            (200, document) => Ok(document),
            (status @ 400..500, _) if access.is_some() => {
                Err(Fault::Odd(format!("its own `userinfo_endpoint` `{at}` answers with status {status}")))
            }
            (status, _) => Err(away(format!("`{at}` answers with status {status}"))),
        }
    }

    /// One question on a connection of its own, and the JSON of its answer. Nobody is sent elsewhere.
    async fn ask(&self, request: hyper::http::request::Builder, body: String) -> Result<(u16, Value), Fault> {
        let mut request =
            request.header("Accept", "application/json").body(Full::new(Bytes::from(body))).map_err(away)?;
        let at = request.uri().clone();
        let host = at.host().unwrap_or_default().to_owned();
        let authority = at.authority().map(|at| at.as_str()).unwrap_or_default();
        request.headers_mut().insert("Host", authority.parse().map_err(away)?);
        *request.uri_mut() = at.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(away)?;
        let stream = self.connect(&at, &host).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(away)?;
        let work = async {
            let (head, body) = sender.send_request(request).await.map_err(away)?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(away)?.to_bytes();
            // What says nothing in JSON may still have a status that tells.
            Ok((head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default()))
        };
        driven(connection, work).await
    }

    async fn connect(&self, at: &Uri, host: &str) -> Result<Stream, Fault> {
        let secure = at.scheme_str() == Some("https");
        let port = at.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let told = |error: io::Error| away(format!("`{host}:{port}` can not be reached: {error}"));
        let address = self.worker.names.resolve(host, port).await.map_err(told)?;
        let tcp =
            self.worker.connect(address.into(), self.rule.timeout).await.inspect_err(|_| self.worker.names.forget());
        let tcp = tcp.map_err(told)?;
        if !secure {
            return Ok(Stream::Plain(tcp));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let target = TlsTarget::new(bare, &self.rule.tls).map_err(away)?;
        let clients = &self.worker.shared.tls_clients;
        let (tls, _) = clients.connect(tcp, &target, &self.rule.tls, Offer::Http1).await.map_err(away)?;
        Ok(Stream::Tls(tls))
    }
}
