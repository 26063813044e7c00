//! The entries of the configuration that name certificates, and what their files give.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    tls_certificate::{Certificate, CertificateSource},
    tls_files::{self, Found},
};
use crate::model::{CertificateFiles, CertificateFolder, Place, Problem, Severity, TlsSettings};

/// An entry of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Pair(CertificateFiles),
    Folder(CertificateFolder),
}

impl Entry {
    /// Those of the settings.
    pub(super) fn all(settings: &TlsSettings) -> impl Iterator<Item = Self> {
        let pairs = settings.certificates.iter().cloned().map(Self::Pair);
        pairs.chain(settings.folders.iter().cloned().map(Self::Folder))
    }

    /// Reads its files.
    pub(super) fn load(&self) -> Found {
        match self {
            Self::Pair(files) => tls_files::pair(files),
            Self::Folder(folder) => tls_files::folder(folder),
        }
    }

    /// Where it is written.
    pub(super) fn place(&self) -> &Place {
        match self {
            Self::Pair(CertificateFiles { place, .. }) | Self::Folder(CertificateFolder { place, .. }) => place,
        }
    }

    /// Whether both name the same files, wherever they are written.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pair(a), Self::Pair(b)) => a.certificate == b.certificate && a.key == b.key,
            (Self::Folder(a), Self::Folder(b)) => a.path == b.path,
            (Self::Pair(_), Self::Folder(_)) | (Self::Folder(_), Self::Pair(_)) => false,
        }
    }

    /// Where a change may be one of its files.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        match self {
            Self::Pair(files) => [&files.certificate, &files.key].into_iter().filter_map(beside).collect(),
            Self::Folder(folder) => tls_files::folders(&folder.path).unwrap_or_default(),
        }
    }
}

/// The directory that a file lies in.
pub(super) fn beside(path: impl AsRef<Path>) -> Option<PathBuf> {
    std::path::absolute(path).ok()?.parent().map(Path::to_owned)
}

/// Loads an entry; in place of what can not be loaded stays what it gave before.
pub(super) fn loaded(entry: Entry, before: &[(Entry, Found)]) -> (Entry, Found) {
    let mut found = entry.load();
    let last = before.iter().find(|(other, _)| other.is_same(&entry)).map(|(_, found)| found);
    for problem in found.problems.iter().filter(|problem| last.is_none_or(|last| !last.problems.contains(problem))) {
        tracing::warn!("{problem:#}");
    }
    if let Some(last) = last.filter(|_| !found.problems.is_empty()) {
        // What is gone from a folder that can be read was taken out.
        let unreadable = found.problems.iter().any(|problem| problem.severity == Severity::Error);
        let missing = |one: &&Arc<Certificate>| !found.certificates.iter().any(|new| new.source == one.source);
        let kept = last.certificates.iter().filter(missing).filter(|one| unreadable || one.is_there());
        let kept: Vec<_> = kept.cloned().collect();
        found.certificates.extend(kept);
    }
    (entry, found)
}

/// A certificate from a file whose end is near: the last third of its time, and not more than three weeks.
pub(super) fn ending(certificate: &Certificate, place: &Place, now: Timestamp) -> Option<Problem> {
    const NOTICE: Duration = Duration::from_secs(21 * 24 * 3600);
    let lifetime = certificate.not_after.duration_since(certificate.not_before).unsigned_abs();
    let left = certificate.not_after.duration_since(now);
    if !left.is_negative() && left.unsigned_abs() > NOTICE.min(lifetime / 3) {
        return None;
    }
    let names = certificate.names.join("`, `");
    let CertificateSource::File(path) = &certificate.source else { return None };
    let what = if left.is_negative() {
        format!("the certificate `{}` of `{names}` ended at {}", path.display(), certificate.not_after)
    } else {
        format!("the certificate `{}` of `{names}` ends at {}", path.display(), certificate.not_after)
    };
    Some(Problem::warning(place.clone(), what).with_hint("put a new one into its place: it is taken at once"))
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::{super::tls_samples::sample, *};

    #[test]
    fn an_end_that_is_near_is_told() {
        let (now, place) = (Timestamp::now(), Place::Host("app.test".to_owned()));
        let mut certificate = sample(&["app.test"]);
        let mut check = |lifetime: i64, left: i64, expected: Option<&str>| {
            certificate.not_after = now + (left * 24).hours();
            certificate.not_before = certificate.not_after - (lifetime * 24).hours();
            let told = ending(&certificate, &place, now).map(|problem| problem.what);
            let told = told.as_deref();
            assert_eq!(told.is_some(), expected.is_some(), "{lifetime} {left}: {told:?}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{told:?}");
        };
        check(90, 22, None);
        check(90, 20, Some(" ends at "));
        check(6, 3, None);
        check(6, 1, Some(" ends at "));
        check(365, -1, Some(" ended at "));
    }
}
