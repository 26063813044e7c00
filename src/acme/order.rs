//! One order: from its names to a certificate.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};

use super::{
    failed::Failed,
    notes::Notes,
    records::{Records, Turns},
    vault::Vault,
};
use crate::{
    model::{AcmeChallenge, AcmeSettings},
    net::{Challenges, challenge_certificate, signing_request},
    telemetry::chain,
};

/// How long an authority may take to look, and then to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(90));

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
    (turns, notes): (Turns, &Notes),
) -> Result<(String, String), Failed> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut answers = Answers { challenges, settings, turns, notes, given: Vec::new(), records: None };
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
        records.settle().await?;
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
    notes: &'a Notes,
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
                    self.records = Some(Records::open(access, Arc::clone(&self.turns), self.notes).await?);
                }
                if let Some(records) = &mut self.records {
                    records.put(host, record).await?;
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
