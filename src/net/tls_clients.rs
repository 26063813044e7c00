//! Who lets clients in: profiles of authorities, and what checks the certificates that clients show.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    tls_certificate::provider,
    tls_connect::{add_pem, add_system},
    tls_files,
};
use crate::model::{ClientProfile, Problem};

/// The profiles in force.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    by_name: BTreeMap<String, Profile>,
}

#[derive(Debug)]
struct Profile {
    settings: ClientProfile,
    /// What the files of its authorities held when the verifier was made.
    texts: Vec<Vec<u8>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Why its files can not be used as they are now.
    problem: Option<String>,
}

impl Profiles {
    /// Reads the authorities. What is as it was before keeps its verifier, and with that the sessions of its clients;
    /// in place of what can not be used stays what there was before.
    pub(super) fn new(settings: &BTreeMap<String, ClientProfile>, before: &Self) -> Self {
        let read = |(name, settings): (&String, &ClientProfile)| {
            (name.clone(), Profile::read(settings, before.by_name.get(name)))
        };
        Self { by_name: settings.iter().map(read).collect() }
    }

    /// Reads the files again.
    pub(super) fn again(&self) -> Self {
        let read =
            |(name, profile): (&String, &Profile)| (name.clone(), Profile::read(&profile.settings, Some(profile)));
        Self { by_name: self.by_name.iter().map(read).collect() }
    }

    /// What checks the certificates of a profile; absent: it can not be used, and nobody comes in by it.
    pub(super) fn verifier(&self, name: &str) -> Option<Arc<dyn ClientCertVerifier>> {
        self.by_name.get(name)?.verifier.clone()
    }

    /// What is wrong with them.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let wrong = |profile: &Profile| {
            let what = profile.problem.clone()?;
            Some(Problem::error(profile.settings.place.clone(), what))
        };
        self.by_name.values().filter_map(wrong).collect()
    }

    /// The files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.by_name.values().flat_map(|profile| &profile.settings.authorities).map(PathBuf::as_path)
    }
}

impl Profile {
    fn read(settings: &ClientProfile, before: Option<&Self>) -> Self {
        let is_same = |before: &&Self| {
            (&before.settings.authorities, before.settings.system) == (&settings.authorities, settings.system)
        };
        let before = before.filter(is_same);
        let texts: Result<Vec<_>, _> = settings.authorities.iter().map(|path| tls_files::read(path)).collect();
        let made = texts.and_then(|texts| {
            let known = before.filter(|before| before.texts == texts).and_then(|before| before.verifier.clone());
            let verifier = known.map_or_else(|| verifier(settings, &texts), Ok)?;
            Ok((texts, verifier))
        });
        let settings = settings.clone();
        match made {
            Ok((texts, verifier)) => Self { settings, texts, verifier: Some(verifier), problem: None },
            Err(what) => {
                let (texts, verifier) =
                    before.map(|before| (before.texts.clone(), before.verifier.clone())).unwrap_or_default();
                Self { settings, texts, verifier, problem: Some(what) }
            }
        }
    }
}

/// One without a certificate gets as far as an answer that says so: browsers are better at showing that than at
/// showing why a handshake failed.
fn verifier(profile: &ClientProfile, texts: &[Vec<u8>]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for (path, text) in profile.authorities.iter().zip(texts) {
        add_pem(&mut roots, path, text)?;
    }
    if profile.system {
        add_system(&mut roots)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier: Arc<dyn ClientCertVerifier> =
        builder.allow_unauthenticated().build().map_err(|error| error.to_string())?;
    Ok(verifier)
}
