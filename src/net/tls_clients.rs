//! Who lets clients in: profiles of authorities, and what checks the certificates that clients show.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    tls_certificate::provider,
    tls_connect::{add_file, add_system},
};
use crate::model::{ClientProfile, Problem};

/// The profiles in force.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    pub(super) settings: BTreeMap<String, ClientProfile>,
    verifiers: BTreeMap<String, Result<Arc<dyn ClientCertVerifier>, String>>,
}

impl Profiles {
    pub(super) fn new(settings: &BTreeMap<String, ClientProfile>) -> Self {
        let verifiers = settings.iter().map(|(name, profile)| (name.clone(), verifier(profile))).collect();
        Self { settings: settings.clone(), verifiers }
    }

    /// What checks the certificates of a profile; absent: it can not be used, and nobody comes in by it.
    pub(super) fn verifier(&self, name: &str) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifiers.get(name)?.as_ref().ok().cloned()
    }

    /// What is wrong with them.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let wrong = |(name, profile): (&String, &ClientProfile)| {
            let what = self.verifiers.get(name)?.as_ref().err()?;
            Some(Problem::error(profile.place.clone(), what.clone()))
        };
        self.settings.iter().filter_map(wrong).collect()
    }
}

/// One without a certificate gets as far as an answer that says so: browsers are better at showing that than at
/// showing why a handshake failed.
fn verifier(profile: &ClientProfile) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for path in &profile.authorities {
        add_file(&mut roots, path)?;
    }
    if profile.system {
        add_system(&mut roots)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier: Arc<dyn ClientCertVerifier> =
        builder.allow_unauthenticated().build().map_err(|error| error.to_string())?;
    Ok(verifier)
}
