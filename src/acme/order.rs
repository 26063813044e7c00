//! One order: from its names to a certificate.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};

use super::{
    records::{Records, Turns},
    schedule::Kind,
    vault::Vault,
};
use crate::{
    model::{AcmeChallenge, AcmeSettings},
    net::{BadCertificate, Challenges, challenge_certificate, signing_request},
    telemetry::chain,
};

/// How long an authority may take to look, and then to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(90));

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    pub(super) why: String,
    /// The authority does not know our account any more.
    pub(super) account_is_gone: bool,
}

impl Failed {
    fn refused(why: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, why: why.into(), account_is_gone: false }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let (kind, account_is_gone) = if let Error::Api(problem) = &error {
            let is = |word: &str| problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(word));
            // A nonce that is not taken says nothing of the order (RFC 8555, 6.5).
            let passes = is(":serverInternal") || is(":badNonce");
            (if passes { Kind::Unreachable } else { Kind::Refused }, is(":accountDoesNotExist"))
        } else if matches!(error, Error::Crypto | Error::KeyRejected | Error::Unsupported(_)) {
            (Kind::Refused, false)
        } else {
            // Whatever else it is did not come from an authority that had made up its mind.
            (Kind::Unreachable, false)
        };
        Self { kind, why: chain(&error), account_is_gone }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::refused(format!("the state directory: {error}"))
    }
}

impl From<BadCertificate> for Failed {
    fn from(error: BadCertificate) -> Self {
        Self::refused(error.to_string())
    }
}

/// Our account with the authority: the one that is kept, else a new one.
pub(super) async fn account(settings: &AcmeSettings, vault: &Vault) -> Result<Account, Failed> {
    let builder = match &settings.root {
        Some(root) => Account::builder_with_root(root)
            .map_err(|error| Failed::refused(format!("can not use `{}`: {}", root.display(), chain(&error))))?,
        None => Account::builder()?,
    };
    if let Some(text) = vault.account()? {
        match serde_json::from_str::<AccountCredentials>(&text) {
            Ok(credentials) => return Ok(builder.from_credentials(credentials).await?),
            Err(error) => tracing::warn!(%error, "the kept account can not be read: a new one is made"),
        }
    }
    let external = match &settings.external {
        Some(external) => {
            let key = BASE64_URL_SAFE_NO_PAD.decode(external.key.reveal().trim().trim_end_matches('='));
            let key = key.map_err(|_| Failed::refused("`eab: hmac` is not base64url"))?;
            Some(ExternalAccountKey::new(external.id.clone(), &key))
        }
        None => None,
    };
    let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
    let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
    let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder.create(&new, settings.directory.clone(), external.as_ref()).await?;
    let text = serde_json::to_string(&credentials).map_err(Error::from)?;
    vault.keep_account(&text)?;
    tracing::info!(authority = settings.directory, "an account was made");
    Ok(account)
}

/// Gets a certificate. Returns its key and its chain, both PEM.
pub(super) async fn order(
    account: &Account,
    names: &[String],
    settings: &AcmeSettings,
    challenges: &Challenges,
    turns: Turns,
) -> Result<(String, String), Failed> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut answers = Answers { challenges, settings, turns, given: Vec::new(), records: None };
    let shown = show(&mut order, &mut answers).await;
    if let Some(records) = &mut answers.records {
        records.take_back().await;
    }
    // Whoever waits for a turn need not wait for the certificate.
    answers.records = None;
    shown?;
    let (key, request) = signing_request(names)?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok((key, chain))
}

/// Shows that every name is ours.
async fn show(order: &mut Order, answers: &mut Answers<'_>) -> Result<(), Failed> {
    let mut chosen = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => {
                chosen.push(None);
                continue;
            }
            status @ (AuthorizationStatus::Invalid
            | AuthorizationStatus::Revoked
            | AuthorizationStatus::Expired
            | AuthorizationStatus::Deactivated) => {
                return Err(Failed::refused(format!("the authority calls a name `{status:?}`")));
            }
        }
        let name = authorization.identifier().to_string();
        let wildcard = authorization.wildcard;
        let wanted = answers.settings.challenges.iter().copied();
        let mut wanted = wanted.filter(|challenge| !wildcard || *challenge == AcmeChallenge::Dns);
        let offered = |challenge: &AcmeChallenge| {
            authorization.challenges.iter().any(|offer| offer.r#type == kind_of(*challenge))
        };
        let Some(challenge) = wanted.find(offered) else {
            let what = format!("the authority offers no challenge for `{name}` that is among ours");
            return Err(Failed::refused(what));
        };
        if let Some(handle) = authorization.challenge(kind_of(challenge)) {
            let proof = handle.key_authorization();
            let host = name.trim_start_matches("*.");
            answers
                .give(challenge, host, &handle.token, proof.as_str(), proof.digest().as_ref(), proof.dns_value())
                .await?;
        }
        chosen.push(Some(challenge));
    }
    if let Some(records) = &answers.records {
        records.settle().await.map_err(Failed::refused)?;
    }
    let mut chosen = chosen.into_iter();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if let Some(challenge) = chosen.next().flatten()
            && let Some(mut handle) = authorization.challenge(kind_of(challenge))
        {
            handle.set_ready().await?;
        }
    }
    match order.poll_ready(&PATIENCE).await? {
        OrderStatus::Ready | OrderStatus::Valid => Ok(()),
        OrderStatus::Pending | OrderStatus::Processing | OrderStatus::Invalid => Err(objection(order).await),
    }
}

/// What the authority has against the order.
async fn objection(order: &mut Order) -> Failed {
    let mut told = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { continue };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        told.extend(errors.map(|error| format!("`{name}`: {error}")));
    }
    if told.is_empty() {
        told.push("the authority refused the order".to_owned());
    }
    Failed::refused(told.join("; "))
}

fn kind_of(challenge: AcmeChallenge) -> ChallengeType {
    match challenge {
        AcmeChallenge::Http => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn => ChallengeType::TlsAlpn01,
        AcmeChallenge::Dns => ChallengeType::Dns01,
    }
}

/// What was put where the authority looks.
enum Given {
    Token(String),
    Certificate(String),
}

struct Answers<'a> {
    challenges: &'a Challenges,
    settings: &'a AcmeSettings,
    turns: Turns,
    given: Vec<Given>,
    /// What is in the DNS; absent until the first.
    records: Option<Records<'a>>,
}

impl Answers<'_> {
    async fn give(
        &mut self,
        challenge: AcmeChallenge,
        host: &str,
        token: &str,
        text: &str,
        digest: &[u8],
        record: String,
    ) -> Result<(), Failed> {
        match challenge {
            AcmeChallenge::Http => {
                self.challenges.put_answer(token, text);
                self.given.push(Given::Token(token.to_owned()));
            }
            AcmeChallenge::TlsAlpn => {
                self.challenges.put_certificate(host, challenge_certificate(host, digest)?);
                self.given.push(Given::Certificate(host.to_owned()));
            }
            AcmeChallenge::Dns => {
                let Some(access) = &self.settings.dns else { return Err(Failed::refused("`acme: dns` is not set")) };
                if self.records.is_none() {
                    let opened = Records::open(access, Arc::clone(&self.turns)).await;
                    self.records = Some(opened.map_err(Failed::refused)?);
                }
                if let Some(records) = &mut self.records {
                    records.put(host, record).await.map_err(Failed::refused)?;
                }
            }
        }
        Ok(())
    }
}

/// Also of an order that breaks off.
impl Drop for Answers<'_> {
    fn drop(&mut self) {
        for given in &self.given {
            match given {
                Given::Token(token) => self.challenges.remove_answer(token),
                Given::Certificate(host) => self.challenges.remove_certificate(host),
            }
        }
    }
}
