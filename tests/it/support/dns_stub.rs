//! Two DNS providers of the loopback, spoken to as the real ones are: through a proxy that leads every host here.

use std::{
    fs,
    io::BufReader,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    pebble,
    tls::{Authority, YEAR},
};

/// The hosts of the providers.
const HOSTS: [&str; 2] = ["api.cloudflare.com", "desec.io"];

/// The zone that they have, and the one name in it that has texts.
const ZONE: &str = "wild.test";
const NAME: &str = "_acme-challenge.wild.test";

/// A record that was there before, in the quotes that are part of it here.
pub(crate) const FOREIGN: &str = "\"somebody else's\"";

/// What was asked: method and path, who asked, and the body.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) who: String,
    pub(crate) body: Value,
}

/// The providers. What they hold is in the DNS of `pebble`.
#[derive(Debug)]
pub(crate) struct DnsStub {
    authority: Authority,
    at: SocketAddr,
    world: Arc<World>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct World {
    secret: &'static str,
    asked: Mutex<Vec<Asked>>,
    texts: Mutex<Vec<String>>,
    /// Where the DNS is told.
    dns: SocketAddr,
    /// Nobody is answered.
    is_away: AtomicBool,
}

impl DnsStub {
    /// Starts them. They do what is asked by who knows this secret.
    pub(crate) async fn start(secret: &'static str, dns: SocketAddr) -> Self {
        let authority = Authority::new("the authority behind the providers");
        authority.issue("api", &HOSTS, YEAR);
        let acceptor = acceptor(&authority);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let texts = Mutex::new(vec![FOREIGN.to_owned()]);
        let world = Arc::new(World { secret, asked: Mutex::default(), texts, dns, is_away: AtomicBool::default() });
        let inside = Arc::clone(&world);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, world) = (acceptor.clone(), Arc::clone(&inside));
                // Whoever goes away has been told enough.
                tokio::spawn(async move { world.serve(client, acceptor).await });
            }
        });
        Self { authority, at, world, task }
    }

    /// The variables of a program that reaches them.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        let roots = self.authority.path("ca.pem").display().to_string();
        [("HTTPS_PROXY", format!("http://{}", self.at)), ("NO_PROXY", String::new()), ("SSL_CERT_FILE", roots)]
    }

    /// Writes a file that holds a secret.
    pub(crate) fn secret(&self, secret: &str) -> PathBuf {
        let file = self.authority.path("secret");
        fs::write(&file, format!("{secret}\n")).expect("a file");
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a file of ours");
        file
    }

    /// From now on nobody is answered.
    pub(crate) fn goes_away(&self) {
        self.world.is_away.store(true, Ordering::SeqCst);
    }

    /// Who asks is answered again.
    pub(crate) fn comes_back(&self) {
        self.world.is_away.store(false, Ordering::SeqCst);
    }

    /// All that was asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.world.asked.lock().expect("a list").clone()
    }

    /// The texts that are there.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.world.texts.lock().expect("a list").clone()
    }
}

impl Drop for DnsStub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let open = |name: &str| BufReader::new(fs::File::open(authority.path(name)).expect("a file"));
    let certificates = rustls::pki_types::pem::PemObject::pem_reader_iter(open("api.pem"));
    let chain = certificates.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = rustls::pki_types::pem::PemObject::from_pem_reader(open("api.key")).expect("a key");
    let provider = rustls::crypto::ring::default_provider().into();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.expect("a certificate")))
}

impl World {
    async fn serve(&self, mut client: TcpStream, acceptor: TlsAcceptor) -> Option<()> {
        if self.is_away.load(Ordering::SeqCst) {
            return None;
        }
        let (head, _) = read_request(&mut client).await?;
        let host = head.strip_prefix("CONNECT ")?.split(':').next()?.to_owned();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        let mut client = acceptor.accept(client).await.ok()?;
        loop {
            let (head, body) = read_request(&mut client).await?;
            let what = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let who = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
            });
            let asked =
                Asked { what, who: who.unwrap_or_default(), body: serde_json::from_slice(&body).unwrap_or_default() };
            self.asked.lock().expect("a list").push(asked.clone());
            let (status, answer) = if !asked.who.ends_with(&format!(" {}", self.secret)) {
                // Some tell whoever asks what they asked with.
                (403, json!({ "errors": [{ "code": 9109, "message": format!("no such token: {}", asked.who) }] }))
            } else if host == HOSTS[0] {
                self.cloudflare(&asked)
            } else {
                self.desec(&asked)
            };
            if !asked.what.starts_with("GET ") {
                self.publish().await;
            }
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            client.write_all(format!("{head}{answer}").as_bytes()).await.ok()?;
        }
    }

    fn cloudflare(&self, asked: &Asked) -> (u16, Value) {
        let mut texts = self.texts.lock().expect("a list");
        let done = |result: Value| (200, json!({ "success": true, "errors": [], "result": result }));
        let records = "/client/v4/zones/zone-1/dns_records";
        if asked.what == format!("GET /client/v4/zones?name={ZONE}") {
            return done(json!([{ "id": "zone-1", "name": ZONE }]));
        }
        if asked.what.starts_with(&format!("GET {records}?name={NAME}&type=TXT")) {
            let all = texts.iter().map(|text| json!({ "id": id(text), "type": "TXT", "name": NAME, "content": text }));
            return done(all.collect());
        }
        if asked.what == format!("POST {records}") && asked.body["name"] == NAME && asked.body["type"] == "TXT" {
            texts.push(asked.body["content"].as_str().unwrap_or_default().to_owned());
            return done(json!({}));
        }
        if let Some(wanted) = asked.what.strip_prefix(&format!("DELETE {records}/")) {
            texts.retain(|text| id(text) != wanted);
            return done(json!({}));
        }
        (404, json!({ "success": false, "errors": [], "result": null }))
    }

    fn desec(&self, asked: &Asked) -> (u16, Value) {
        let mut texts = self.texts.lock().expect("a list");
        let set = format!("/api/v1/domains/{ZONE}/rrsets/_acme-challenge/TXT/");
        let told = |texts: &[String]| {
            json!({ "created": "", "touched": "", "domain": ZONE, "subname": "_acme-challenge", "name": NAME,
                    "type": "TXT", "ttl": 3600, "records": texts })
        };
        match asked.what.split_once(' ') {
            Some(("GET", path)) if path == format!("/api/v1/domains/{ZONE}/") => (200, json!({})),
            Some(("GET", path)) if path == set => (200, told(&texts)),
            Some(("PUT", path)) if path == set => {
                *texts = serde_json::from_value(asked.body["records"].clone()).unwrap_or_default();
                (200, told(&texts))
            }
            _ => (404, json!({})),
        }
    }

    /// Has the DNS hold what is there.
    async fn publish(&self) {
        let host = format!("{NAME}.");
        pebble::tell(self.dns, "clear-txt", &json!({ "host": host })).await;
        let texts = self.texts.lock().expect("a list").clone();
        for text in texts {
            pebble::tell(self.dns, "set-txt", &json!({ "host": host, "value": text.trim_matches('"') })).await;
        }
    }
}

/// A name of a record that is no secret of it.
fn id(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A head and the body that it tells of.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}
