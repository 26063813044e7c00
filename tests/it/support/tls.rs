//! An authority of the tests, and clients that trust it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use tempfile::TempDir;

/// An authority, and the directory in which its certificates lie.
#[derive(Debug)]
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says of whom to ask about it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The responder's address.
    pub(crate) at: String,
    /// Clients are to refuse it without an answer.
    pub(crate) must_staple: bool,
}

/// What `curl` got.
#[derive(Debug)]
pub(crate) struct Curled {
    pub(crate) status: u16,
    /// All heads, with their status lines.
    pub(crate) head: String,
    pub(crate) body: String,
    /// What it said beside that.
    pub(crate) said: String,
    pub(crate) ok: bool,
}

/// A client that has yet to be told whom it trusts.
pub(crate) fn client_config() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = rustls::crypto::ring::default_provider().into();
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions")
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        fs::write(directory.path().join("ca.pem"), own.pem()).expect("a file");
        fs::write(directory.path().join("ca.key"), key.serialize_pem()).expect("a file");
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// A file of it, there or not.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate for these hosts, good for so long from now on.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str], good: Duration) {
        self.issue_in(self.directory.path(), name, hosts, good);
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate by which a client shows who it is.
    pub(crate) fn issue_to_client(&self, name: &str) {
        self.issue_to_client_as(name, |_| ());
    }

    /// The same, with something else in it.
    pub(crate) fn issue_to_client_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(vec![format!("{name}.client.test")]).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
    }

    /// A number for a certificate, as it is written in an authority's index.
    pub(crate) fn serial(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        format!("{:016X}", 1 << 62 | u64::try_from(now.as_nanos()).expect("a time"))
    }

    /// As [`Self::issue`], a certificate that says whom to ask about it, with this authority's own one behind it in the
    /// file. Its number is returned.
    pub(crate) fn issue_asked(&self, name: &str, hosts: &[&str], good: Duration, asked: &Asked) -> String {
        let serial = self.serial();
        self.issue_numbered(name, hosts, good, asked, &serial);
        serial
    }

    /// As [`Self::issue_asked`], with this number.
    pub(crate) fn issue_numbered(&self, name: &str, hosts: &[&str], good: Duration, asked: &Asked, serial: &str) {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).expect("names");
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + good).into();
        params.serial_number = Some(SerialNumber::from(u64::from_str_radix(serial, 16).expect("a number")));
        // `id-ad-ocsp`, and where that is.
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short text");
        let at = asked.at.as_bytes();
        let method = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, length(at)];
        let one = [&method[..], at].concat();
        let all = [&[0x30, length(&one) + 2, 0x30, length(&one)], &one[..]].concat();
        let own = &mut params.custom_extensions;
        own.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], all));
        if asked.must_staple {
            own.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = certificate.pem() + &fs::read_to_string(self.path("ca.pem")).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        fs::write(self.path(&format!("{name}.pem")), chain).expect("a file");
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate by which somebody may answer for this authority.
    pub(crate) fn issue_responder(&self, name: &str) {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
    }

    /// As [`Self::issue`], into a directory of its own.
    pub(crate) fn issue_in(&self, directory: &Path, name: &str, hosts: &[&str], good: Duration) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + good).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        // The key first: who sees the new certificate finds its key.
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).expect("a file");
    }

    /// An entry of `tls: certificates` for what [`Self::issue`] wrote.
    pub(crate) fn entry(&self, name: &str) -> String {
        let path = |ending: &str| self.path(&format!("{name}.{ending}")).display().to_string();
        format!("{{ cert: \"{}\", key: \"{}\" }}", path("pem"), path("key"))
    }

    /// Asks a host at an address with `curl`, which trusts this authority and no other.
    pub(crate) async fn curl(&self, host: &str, at: SocketAddr, path: &str, options: &[&str]) -> Curled {
        let mut words = vec!["--cacert".to_owned(), self.path("ca.pem").display().to_string()];
        words.extend(options.iter().map(|option| (*option).to_owned()));
        curl(&format!("https://{host}:{}{path}", at.port()), host, at, words).await
    }
}

/// As long as any certificate of a test needs to be good.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Asks with `curl`; the host is found at the address.
pub(crate) async fn curl(url: &str, host: &str, at: SocketAddr, options: Vec<String>) -> Curled {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--include", "--noproxy", "*"]);
    command.arg("--resolve").arg(format!("{host}:{}:{}", at.port(), at.ip())).args(options).arg(url);
    let output = run(command, Vec::new()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Curled {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        ok: output.status.success(),
    }
}

impl Curled {
    /// A field of its head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        super::dormouse::field(&self.head, name)
    }
}

/// Runs `openssl s_client` against an address with this input, and returns all that it says.
pub(crate) async fn s_client(at: SocketAddr, options: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &at.to_string()]).args(options);
    let output = run(command, input.as_bytes().to_vec()).await;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn run(mut command: Command, input: Vec<u8>) -> std::process::Output {
    let ran = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // One that ends early takes no input.
        let _ = std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), &input);
        child.wait_with_output().expect("a program's output")
    });
    ran.await.expect("a program")
}
