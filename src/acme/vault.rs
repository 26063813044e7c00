//! What of authorities survives: accounts and certificates, in the state directory.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::net::{Certificate, CertificateSource};

/// The files of one authority.
#[derive(Debug, Clone)]
pub(super) struct Vault {
    directory: PathBuf,
    authority: String,
}

/// The end of a file's name while it is written.
pub(super) const UNFINISHED: &str = "new";

impl Vault {
    /// The vault of an authority, made where there is none.
    pub(super) fn open(state_dir: &Path, authority: &str) -> io::Result<Self> {
        let name: String = authority
            .trim_start_matches("https://")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
            .collect();
        let directory = state_dir.join("certificates").join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory, authority: host_of(authority).to_owned() })
    }

    /// The account, as text.
    pub(super) fn account(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.account_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// Keeps the account.
    pub(super) fn keep_account(&self, text: &str) -> io::Result<()> {
        write(&self.account_file(), text.as_bytes())
    }

    /// The account is not known to the authority any more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        fs::remove_file(self.account_file())
    }

    /// Keeps a certificate with its chain and its key.
    pub(super) fn keep(&self, names: &[String], key: &str, chain: &str) -> io::Result<Certificate> {
        let text = format!("{key}{chain}");
        let certificate = self.read(text.as_bytes()).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        write(&self.directory.join(file_name(names)), text.as_bytes())?;
        Ok(certificate)
    }

    /// All certificates. One that can not be read is told and left out.
    pub(super) fn certificates(&self) -> Vec<Certificate> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "pem")).collect();
        paths.sort();
        let read = |path: &PathBuf| {
            let found = fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| self.read(&bytes));
            found.inspect_err(|why| tracing::warn!(path = %path.display(), why, "a kept certificate is left out")).ok()
        };
        paths.iter().filter_map(read).collect()
    }

    fn read(&self, bytes: &[u8]) -> Result<Certificate, String> {
        let source = CertificateSource::Authority(self.authority.clone());
        Certificate::from_pem(bytes, bytes, source).map_err(|error| error.to_string())
    }

    fn account_file(&self) -> PathBuf {
        self.directory.join("account.json")
    }
}

/// The host in the address of a directory.
fn host_of(address: &str) -> &str {
    let rest = address.trim_start_matches("https://");
    rest.split('/').next().unwrap_or(rest)
}

/// The file of a certificate: named by its first host, and by all of them when there are several.
fn file_name(names: &[String]) -> String {
    let first = names.first().map_or("", String::as_str).replace('*', "_");
    if names.len() < 2 {
        return format!("{first}.pem");
    }
    format!("{first}-{:016x}.pem", hash(&names.join(",")))
}

/// A number for the name of a file: FNV-1a, the same in every build.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes a file that nobody else may read, whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::signing_request;

    #[test]
    fn what_is_kept_is_read_by_nobody_else_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::open(directory.path(), "https://ca.example.com:14000/dir").unwrap();
        assert_eq!(vault.account().unwrap(), None);
        vault.keep_account("{}").unwrap();
        vault.keep_account("{\"id\":1}").unwrap();
        assert_eq!(vault.account().unwrap().as_deref(), Some("{\"id\":1}"));
        let names = vec!["a.test".to_owned(), "*.a.test".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap().pem();
        vault.keep(&names, &key.serialize_pem(), &chain).unwrap();
        let other = signing_request(&names).unwrap().0;
        assert!(vault.keep(&names, &other, &chain).is_err(), "a key of another certificate");
        let kept = directory.path().join("certificates/ca.example.com_14000_dir");
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
        let files: Vec<PathBuf> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        fs::write(kept.join("broken.pem"), "rubbish").unwrap();
        let found = Vault::open(directory.path(), "https://ca.example.com:14000/dir").unwrap().certificates();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].names, names);
        assert_eq!(found[0].source, CertificateSource::Authority("ca.example.com:14000".to_owned()));
    }

    #[test]
    fn each_set_of_names_has_a_file_of_its_own() {
        let names = |names: &[&str]| file_name(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["app.example.com"]), "app.example.com.pem");
        assert_eq!(names(&["*.example.com"]), "_.example.com.pem");
        assert_ne!(names(&["a.test", "b.test"]), names(&["a.test", "c.test"]));
    }
}
