//! `oidc`: a provider of OpenID Connect says who somebody is (the code flow with PKCE).
//!
//! Who has no session is led to the provider, and back to a path of the route's own host; what belongs to that login
//! stays with the browser in a cookie that is sealed, so nothing is kept here and a restart ends no login. The session
//! is such a cookie, too. Programs, which can not be led, are told 401.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dashmap::DashMap;
use jiff::Timestamp;

use crate::{
    control::LiveRoute,
    model::{Identity, Oidc},
    proxy::worker::{SessionKey, random},
};

use super::{
    super::{
        answer::Answer,
        navigation::{is_navigation, is_prefetch},
    },
    asker::Asker,
    chain::Refusal,
    oidc_provider::{Fault, Questions},
    oidc_text::{
        self as text, About, Login, challenge, cookie, crumbs, on_this_host, parameter, read_session, with_parameters,
    },
    oidc_token::{self as token, BadToken, Expected},
    path::split,
};

/// A login may take so many seconds.
const LOGIN: u64 = 600;

/// Browsers keep cookies that are no longer than 4096 bytes, name and all.
const LARGEST: usize = 3800;

/// Where somebody wanted to go, if it is no longer than that.
const LONGEST_BACK: usize = 1500;

/// Logins that are over and not to be used again.
const MOST: usize = 10_000;

/// The logins that were used, until they expire: by their states.
#[derive(Debug, Default)]
pub(super) struct Used(DashMap<String, i64>);

impl Used {
    /// Says whether it is used for the first time.
    fn first(&self, login: &Login, now: i64) -> bool {
        if self.0.len() >= MOST {
            self.0.retain(|_, until| *until > now);
        }
        // A flood of logins; no provider takes a code twice, either.
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(login.state.clone(), login.until).is_none()
    }
}

/// One request, as far as it is of interest here.
struct Visit<'a> {
    asker: &'a Asker<'a>,
    rule: &'a Oidc,
    about: About,
    key: &'a SessionKey,
    secure: bool,
    now: i64,
}

/// Lets those in whom the provider knows and the route names. What is returned are fields for the service.
pub(super) async fn check(asker: &Asker<'_>, route: &LiveRoute, rule: &Oidc) -> Result<Vec<(String, String)>, Refusal> {
    let (head, secure) = (asker.head, asker.is_secure());
    let Some(key) = asker.client.worker.shared.session_key() else {
        return Err(Refusal::new("there is no key", Answer::new(500, "Nobody can log in at the moment.")));
    };
    let about = About::new(route.spec.alias.as_str(), rule, head.host(), key.names(secure));
    let visit = Visit { asker, rule, about, key, secure, now: Timestamp::now().as_second() };
    if head.path() == rule.logout_path {
        return Err(visit.logout().await);
    }
    if head.path() == rule.callback_path {
        return Err(visit.callback().await);
    }
    match visit.session() {
        Some(who) if rule.admits(&who) => Ok(text::fields(&who)),
        Some(_) => Err(visit.not_named()),
        None if is_navigation(head) && !is_prefetch(head) => Err(visit.login().await),
        None => Err(refusal(
            "it is not logged in",
            Answer {
                fields: vec![("WWW-Authenticate".to_owned(), "OpenID".to_owned())],
                ..Answer::new(401, "The service asks you to log in.")
            },
        )),
    }
}

fn refusal(reason: &'static str, answer: Answer) -> Refusal {
    Refusal::new(reason, answer)
}

impl Visit<'_> {
    fn cookies<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        crumbs(self.asker.head.all("cookie"), name)
    }

    /// Who is logged in.
    fn session(&self) -> Option<Identity> {
        let about = self.about.session();
        // One that has expired may stand before a good one, set for another path or domain.
        let open = |sealed: &str| {
            let (who, until) = read_session(&self.key.open(&about, sealed)?)?;
            (until > self.now).then_some(who)
        };
        self.cookies(&self.about.name).find_map(open)
    }

    /// Where the provider sends browsers back to: the host that was asked for, whatever else a client says.
    fn back(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", self.asker.head.authority(), self.rule.callback_path)
    }

    fn questions(&self) -> Questions<'_> {
        Questions { worker: &self.asker.client.worker, rule: self.rule }
    }

    /// Leads the browser to the provider.
    async fn login(&self) -> Refusal {
        let said = match self.questions().said().await {
            Ok(said) => said,
            Err(fault) => return self.no_help(&fault),
        };
        let (Some(state), Some(nonce), Some(verifier)) = (random::<16>(), random::<16>(), random::<32>()) else {
            return refusal("there is no chance", Answer::new(500, "Nobody can log in at the moment."));
        };
        let target = Some(self.asker.head.target()).filter(|target| target.len() <= LONGEST_BACK).unwrap_or("/");
        let mut login = Login {
            state: URL_SAFE_NO_PAD.encode(state),
            nonce: URL_SAFE_NO_PAD.encode(nonce),
            verifier: URL_SAFE_NO_PAD.encode(verifier),
            back: on_this_host(target),
            until: self.now + i64::try_from(LOGIN).unwrap_or(0),
        };
        let seal = |login: &Login| self.key.seal(&self.about.login(), login.text().as_bytes());
        let mut sealed = seal(&login);
        if sealed.as_ref().is_some_and(|sealed| sealed.len() > LARGEST) {
            // Some signs take more room in there.
            login.back = on_this_host("/");
            sealed = seal(&login);
        }
        let Some(sealed) = sealed else {
            return refusal("there is no chance", Answer::new(500, "Nobody can log in at the moment."));
        };
        let location = with_parameters(
            &said.authorization,
            &[
                ("response_type", "code"),
                ("client_id", &self.rule.client_id),
                ("redirect_uri", &self.back()),
                ("scope", &said.scopes(self.rule)),
                ("state", &login.state),
                ("nonce", &login.nonce),
                ("code_challenge", &challenge(&login.verifier)),
                ("code_challenge_method", "S256"),
            ],
        );
        let kept = cookie(&self.about.login_name(&login.state), &sealed, LOGIN, self.secure);
        refusal("it is led to log in", leads_to(location, vec![kept]))
    }

    /// The provider has sent the browser back.
    async fn callback(&self) -> Refusal {
        let (_, query) = split(self.asker.head.target());
        let Some(login) = parameter(query, "state").and_then(|state| self.login_of(&state)) else {
            let words = "The login has expired, or was begun in another browser. Go to the service to log in again.";
            return refusal("it belongs to no login", Answer::new(400, words));
        };
        // Whatever comes of it, it is used up.
        let forgotten = cookie(&self.about.login_name(&login.state), "", 0, self.secure);
        let mut refusal = match self.log_in(query, &login).await {
            Ok(session) => leads(login.back.clone(), session),
            Err(refusal) => refusal,
        };
        refusal.answer.fields.push(forgotten);
        refusal
    }

    /// The login that this browser has begun under this state.
    fn login_of(&self, state: &str) -> Option<Login> {
        let (about, name) = (self.about.login(), self.about.login_name(state));
        let open = |sealed: &str| Login::read(&self.key.open(&about, sealed)?);
        let login = self.cookies(&name).filter_map(open).find(|login| login.state == state)?;
        (login.until > self.now && !state.is_empty()).then_some(login)
    }

    /// The cookie of the session of somebody who is let in.
    async fn log_in(&self, query: &str, login: &Login) -> Result<(String, String), Refusal> {
        if !self.asker.client.worker.ledger.logins.first(login, self.now) {
            let words = "This login is over. Go to the service to log in again.";
            return Err(refusal("its login was used before", Answer::new(400, words)));
        }
        let questions = self.questions();
        let said = questions.said().await.map_err(|fault| self.no_help(&fault))?;
        let helped = |fault: Fault| {
            match &fault {
                // Anybody may come with a code of their own making.
                Fault::Refused(why) => tracing::debug!(provider = %self.rule.issuer, "a login is refused: {why}"),
                Fault::Away(_) | Fault::Odd(_) | Fault::Late => {
                    tracing::warn!(provider = %self.rule.issuer, "nobody can log in by the provider of `oidc`: {fault}");
                }
            }
            self.no_help(&fault)
        };
        let named = parameter(query, "iss");
        if named.as_ref().map_or(said.names_itself, |named| *named != said.issuer) {
            return Err(refusal("another provider answers", Answer::new(400, NOT_BELIEVED)));
        }
        if parameter(query, "error").is_some() {
            return Err(refusal("the provider does not agree", Answer::new(403, "The provider does not let you in.")));
        }
        let Some(code) = parameter(query, "code").filter(|code| !code.is_empty()) else {
            return Err(refusal("it has no code", Answer::new(400, NOT_BELIEVED)));
        };
        let tokens = questions.tokens(&said, &code, &login.verifier, &self.back()).await.map_err(helped)?;
        let expected =
            Expected { issuer: &said.issuer, client_id: &self.rule.client_id, nonce: &login.nonce, now: self.now };
        let keys = questions.keys(false).await.map_err(helped)?;
        let claims = match token::claims(&tokens.id, &keys, expected) {
            // It may have changed its keys.
            Err(BadToken::UnknownKey | BadToken::Signature) => {
                let keys = questions.keys(true).await.map_err(helped)?;
                token::claims(&tokens.id, &keys, expected)
            }
            found => found,
        };
        let claims = claims.map_err(|bad| {
            tracing::warn!(provider = %self.rule.issuer, "a token of the provider is not believed: {bad}");
            refusal("its token is not believed", Answer::new(403, NOT_BELIEVED))
        })?;
        let mut who = token::identity(&claims, None);
        // Some providers say little in their tokens. What looks like an address must not be taken for one.
        let lacks_address = who.email.is_empty() && who.user.contains('@');
        if !self.rule.admits(&who) || who.user.is_empty() || lacks_address {
            let more = questions.more(&said, &tokens, claims.get("sub")).await.map_err(helped)?;
            who = token::identity(&claims, more.as_ref());
        }
        if !self.rule.admits(&who) {
            return Err(self.not_named());
        }
        let session = self.new_session(who);
        session.ok_or_else(|| refusal("there is no chance", Answer::new(500, "Nobody can log in at the moment.")))
    }

    fn new_session(&self, mut who: Identity) -> Option<(String, String)> {
        let age = self.rule.session.as_secs().max(1);
        let until = self.now.saturating_add(i64::try_from(age).unwrap_or(i64::MAX));
        let seal = |who: &Identity| self.key.seal(&self.about.session(), text::session(who, until).as_bytes());
        let mut sealed = seal(&who)?;
        if sealed.len() > LARGEST {
            // Browsers would drop it. The groups that matter here are those of the route.
            tracing::warn!(provider = %self.rule.issuer, "somebody is in too many groups for a cookie: the service is told of those that the route names");
            who.groups.retain(|group| self.rule.allowed_groups.contains(group));
            sealed = seal(&who)?;
        }
        if sealed.len() > LARGEST {
            who.name.clear();
            sealed = seal(&who)?;
        }
        Some(cookie(&self.about.name, &sealed, age, self.secure))
    }

    /// Ends the session, here and where the provider has a place for that.
    async fn logout(&self) -> Refusal {
        let forgotten = cookie(&self.about.name, "", 0, self.secure);
        let was_in = self.session().is_some();
        let end = match was_in && is_navigation(self.asker.head) {
            true => self.questions().said().await.ok().and_then(|said| said.end_session.clone()),
            false => None,
        };
        match end {
            Some(end) => {
                let location = with_parameters(&end, &[("client_id", &self.rule.client_id)]);
                refusal("it logs out", leads_to(location, vec![forgotten]))
            }
            None => {
                let body = Some("You are logged out.\n".to_owned());
                refusal("it logs out", Answer { fields: vec![forgotten], body, ..Answer::new(200, "") })
            }
        }
    }

    fn not_named(&self) -> Refusal {
        let words = format!(
            "You are not among those who are let in. To come as somebody else, go to {}.",
            self.rule.logout_path
        );
        refusal("it is not named", Answer::new(403, words))
    }

    /// What is told when the provider was of no help. Nobody is let in then.
    fn no_help(&self, fault: &Fault) -> Refusal {
        match fault {
            Fault::Away(_) => {
                let answer = Answer::new(503, "The provider by which one logs in can not be reached.");
                refusal("the provider is away", answer.retry_after(Duration::from_secs(5)))
            }
            Fault::Odd(_) => {
                let answer = Answer::new(502, "The provider by which one logs in does not answer as it should.");
                refusal("the provider does not answer as it should", answer)
            }
            Fault::Late => {
                let answer = Answer::new(504, "The provider by which one logs in did not answer in time.");
                refusal("the provider takes too long", answer)
            }
            Fault::Refused(_) => refusal("the provider does not take it", Answer::new(403, NOT_BELIEVED)),
        }
    }
}

const NOT_BELIEVED: &str = "What the provider says can not be believed. Go to the service to log in again.";

fn leads_to(location: String, fields: Vec<(String, String)>) -> Answer {
    Answer { location: Some(location), fields, ..Answer::new(303, "Log in there.") }
}

/// Leads the browser to where it wanted to go.
fn leads(back: String, session: (String, String)) -> Refusal {
    refusal(
        "it is logged in",
        Answer { location: Some(back), fields: vec![session], ..Answer::new(303, "Go on there.") },
    )
}
