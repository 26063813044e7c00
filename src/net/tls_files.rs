//! Certificates from files and folders.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{crypto::CryptoProvider, pki_types::PrivateKeyDer, sign::CertifiedKey};

use super::tls_certificate::{BadCertificate, Certificate, CertificateSource, Facts, chain, private_key, provider};
use crate::model::{CertificateFiles, CertificateFolder, Place, Problem};

/// What one entry of the configuration gave.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) certificates: Vec<Arc<Certificate>>,
    /// An error among them means that the entry gave nothing.
    pub(super) problems: Vec<Problem>,
}

/// Ends of file names that are looked into.
const ENDINGS: [&str; 5] = ["pem", "crt", "cer", "cert", "key"];

/// A file that is larger holds no certificates.
const LARGEST: u64 = 1024 * 1024;

/// The certificate of two files.
pub(super) fn pair(entry: &CertificateFiles) -> Found {
    match load_pair(&entry.certificate, &entry.key) {
        Ok(certificate) => Found { certificates: vec![Arc::new(certificate)], problems: Vec::new() },
        Err(what) => Found { certificates: Vec::new(), problems: vec![Problem::error(entry.place.clone(), what)] },
    }
}

fn load_pair(certificate: &Path, key: &Path) -> Result<Certificate, String> {
    let told = |path: &Path, error: BadCertificate| format!("`{}` {error}", path.display());
    let chain = chain(&read(certificate)?).map_err(|error| told(certificate, error))?;
    let private = private_key(&read(key)?).map_err(|error| told(key, error))?;
    let source = CertificateSource::File(certificate.to_owned());
    Certificate::new(chain, private, source).map_err(|error| match &error {
        BadCertificate::Key(_) => told(key, error),
        BadCertificate::OtherKey => format!("`{}` {error} than that in `{}`", certificate.display(), key.display()),
        BadCertificate::Pem(_)
        | BadCertificate::NoCertificate
        | BadCertificate::NoKey
        | BadCertificate::Certificate(_)
        | BadCertificate::NoHost => told(certificate, error),
    })
}

/// A file of certificates or keys.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: &io::Error| format!("can not read `{}`: {error}", path.display());
    let facts = std::fs::metadata(path).map_err(|error| told(&error))?;
    // A pipe would be waited for.
    if !facts.is_file() {
        return Err(told(&io::Error::other("it is no regular file")));
    }
    if facts.len() > LARGEST {
        return Err(format!("`{}` is too large to hold certificates or a key", path.display()));
    }
    std::fs::read(path).map_err(|error| told(&error))
}

/// Every certificate of a folder and of its direct folders that has its key in the same folder.
pub(super) fn folder(entry: &CertificateFolder) -> Found {
    let mut found = Found::default();
    let folders = match folders(&entry.path) {
        Ok(folders) => folders,
        Err(error) => {
            let what = format!("can not read the folder `{}`: {error}", entry.path.display());
            found.problems.push(Problem::error(entry.place.clone(), what));
            return found;
        }
    };
    for folder in folders {
        one_folder(&folder, &entry.place, &mut found);
    }
    found
}

/// The folders that are looked into, this one first. For their watcher too.
pub(super) fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.insert(0, path.to_owned());
    Ok(folders)
}

fn one_folder(folder: &Path, place: &Place, found: &mut Found) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_pem(path)).collect();
    files.sort();
    let provider = provider();
    let (mut keys, mut chains) = (Vec::new(), Vec::new());
    let mut warn = |what: String| found.problems.push(Problem::warning(place.clone(), what));
    for path in files {
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(what) => {
                warn(what);
                continue;
            }
        };
        match private_key(&bytes) {
            Ok(key) => keys.push(key),
            Err(BadCertificate::NoKey) => {}
            Err(error) => warn(format!("`{}` {error}", path.display())),
        }
        match chain(&bytes) {
            Ok(chain) if chain.is_empty() => {}
            Ok(chain) => chains.push((path, chain)),
            Err(error) => warn(format!("`{}` {error}", path.display())),
        }
    }
    let mut best: BTreeMap<Vec<u8>, Arc<Certificate>> = BTreeMap::new();
    for (path, chain) in chains {
        let facts = chain.first().map(Facts::read);
        if matches!(facts, Some(Ok(Facts { is_authority: true, .. }))) {
            continue;
        }
        let Some(key) = keys.iter().find(|key| belongs(&chain, key, &provider)) else {
            match facts {
                Some(Err(error)) => warn(format!("`{}` {error}", path.display())),
                _ => warn(format!("`{}`: its private key is not in the same folder", path.display())),
            }
            continue;
        };
        match Certificate::new(chain, key.clone_key(), CertificateSource::File(path.clone())) {
            Ok(certificate) => {
                let known = best.get(certificate.leaf());
                // The same certificate may lie there alone and with its chain.
                if known.is_none_or(|known| known.chain_length() < certificate.chain_length()) {
                    best.insert(certificate.leaf().to_vec(), Arc::new(certificate));
                }
            }
            Err(error) => warn(format!("`{}` {error}", path.display())),
        }
    }
    found.certificates.extend(best.into_values());
}

fn is_pem(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && path.is_file()
}

fn belongs(
    chain: &[rustls::pki_types::CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> bool {
    let key = provider.key_provider.load_private_key(key.clone_key());
    key.is_ok_and(|key| CertifiedKey::new(chain.to_vec(), key).keys_match().is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::tls_samples::pem, *};
    use crate::model::Severity;

    fn place() -> Place {
        Place::File { path: "dormouse.yaml".into(), line: Some(3), column: Some(5) }
    }

    fn names(found: &Found) -> Vec<String> {
        let mut names: Vec<String> = found.certificates.iter().flat_map(|one| one.names.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_pair_is_taken_or_refused_with_place_and_cause() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (certificate, key) = pem(&["App.example.com", "*.example.com"]);
        fs::write(at("a.pem"), &certificate).unwrap();
        fs::write(at("a.key"), &key).unwrap();
        fs::write(at("other.key"), pem(&["x.test"]).1).unwrap();
        fs::write(at("broken.key"), key.replace("MI", "??")).unwrap();
        let check = |certificate: &str, key: &str, expected: &str| {
            let found = pair(&CertificateFiles { certificate: at(certificate), key: at(key), place: place() });
            let said: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
            let said = said.join("\n");
            assert!(said.starts_with("error: dormouse.yaml:3:5: ") && said.contains(expected), "{expected}: {said}");
            assert!(found.certificates.is_empty());
        };
        let found = pair(&CertificateFiles { certificate: at("a.pem"), key: at("a.key"), place: place() });
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(names(&found), ["*.example.com", "app.example.com"]);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        check("gone.pem", "a.key", "can not read");
        check("pipe", "a.key", "it is no regular file");
        check("a.key", "a.key", "holds no certificate");
        check("a.pem", "a.pem", "holds no private key");
        check("a.pem", "other.key", "is for another private key than that in");
        check("a.pem", "broken.key", "private key can not be read");
    }

    #[test]
    fn a_folder_gives_each_certificate_once_with_its_longest_chain() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (first, first_key) = pem(&["one.test"]);
        let (second, second_key) = pem(&["two.test"]);
        let (lonely, _) = pem(&["three.test"]);
        fs::create_dir(at("live")).unwrap();
        fs::write(at("live/cert.pem"), &first).unwrap();
        fs::write(at("live/fullchain.pem"), first.clone() + &second).unwrap();
        fs::write(at("live/privkey.pem"), &first_key).unwrap();
        fs::write(at("both.pem"), second_key + &second).unwrap();
        fs::write(at("lonely.crt"), lonely).unwrap();
        fs::write(at("notes.txt"), "nothing").unwrap();
        let found = folder(&CertificateFolder { path: directory.path().to_owned(), place: place() });
        assert_eq!(names(&found), ["one.test", "two.test"]);
        let one = found.certificates.iter().find(|one| one.names == ["one.test"]).unwrap();
        assert_eq!(one.chain_length(), 2);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert_eq!(found.problems[0].severity, Severity::Warning);
        assert!(found.problems[0].what.ends_with("its private key is not in the same folder"), "{:?}", found.problems);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let found = folder(&CertificateFolder { path: "/nowhere/at/all".into(), place: place() });
        assert!(
            found.problems[0].what.starts_with("can not read the folder `/nowhere/at/all`"),
            "{:?}",
            found.problems
        );
    }
}
