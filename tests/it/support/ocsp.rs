//! A responder on loopback: it speaks HTTP itself and has `openssl ocsp` answer.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Answers for an authority, until it is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    address: SocketAddr,
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Desk {
    /// Where the authority's files are, and those that come and go.
    directory: PathBuf,
    /// The names of the files of who signs.
    signer: String,
    /// Lines of the index, by serial number.
    known: Mutex<BTreeMap<String, String>>,
    asked: Mutex<usize>,
    answered: Mutex<usize>,
    has_held: Mutex<bool>,
    /// Who asks waits for the answer.
    is_held: watch::Sender<bool>,
}

impl Responder {
    /// For the authority whose files are there; `signer` is `ca`, or whom it has told to answer.
    pub(crate) async fn start(directory: &Path, signer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let desk = Arc::new(Desk {
            directory: directory.to_owned(),
            signer: signer.to_owned(),
            known: Mutex::default(),
            asked: Mutex::default(),
            answered: Mutex::default(),
            has_held: Mutex::default(),
            is_held: watch::Sender::new(false),
        });
        let at_work = Arc::clone(&desk);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&at_work);
                tokio::spawn(async move {
                    let served = Arc::clone(&desk).serve(stream).await;
                    // Who is held may lose patience.
                    assert!(served.is_ok() || *desk.has_held.lock().unwrap(), "{served:?}");
                });
            }
        });
        Self { address, desk, task }
    }

    /// What certificates are to say.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/ocsp", self.address)
    }

    /// This certificate is good.
    pub(crate) fn knows(&self, serial: &str) {
        self.is(serial, "V\t491231235959Z\t");
    }

    /// This certificate is revoked.
    pub(crate) fn has_revoked(&self, serial: &str) {
        self.is(serial, "R\t491231235959Z\t200101000000Z");
    }

    fn is(&self, serial: &str, state: &str) {
        let line = format!("{state}\t{serial}\tunknown\t/CN={serial}\n");
        self.desk.known.lock().unwrap().insert(serial.to_owned(), line);
    }

    /// Whoever asks waits, until it answers again.
    pub(crate) fn holds_its_answers(&self) {
        *self.desk.has_held.lock().unwrap() = true;
        self.desk.is_held.send_replace(true);
    }

    pub(crate) fn answers_again(&self) {
        self.desk.is_held.send_replace(false);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        *self.desk.asked.lock().unwrap()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Desk {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
        let mut seen = Vec::new();
        let question = loop {
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
            let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&seen[..end + 2]).into_owned();
            assert!(head.starts_with("POST /ocsp HTTP/1.1\r\n"), "{head}");
            let length = super::dormouse::field(&head, "content-length").expect("a length");
            let length: usize = length.parse().expect("a length");
            if let Some(body) = seen.get(end + 4..end + 4 + length) {
                break body.to_vec();
            }
        };
        *self.asked.lock().unwrap() += 1;
        self.is_held.subscribe().wait_for(|is_held| !is_held).await.expect("it is held or not");
        let answer = tokio::task::spawn_blocking(move || self.answer(&question)).await.expect("an answer");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all(&[head.as_bytes(), &answer].concat()).await?;
        stream.shutdown().await
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let number = {
            let mut answered = self.answered.lock().unwrap();
            *answered += 1;
            *answered
        };
        let file = |name: String| self.directory.join(name).display().to_string();
        let [index, request, response] =
            ["index", "request", "response"].map(|what| file(format!("{what}-{}-{number}", self.signer)));
        fs::write(&index, self.known.lock().unwrap().values().map(String::as_str).collect::<String>()).unwrap();
        fs::write(&request, question).unwrap();
        let (ca, signer, key) =
            (file("ca.pem".into()), file(format!("{}.pem", self.signer)), file(format!("{}.key", self.signer)));
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-index", &index, "-CA", &ca, "-rsigner", &signer, "-rkey", &key, "-ndays", "4"]);
        let output = command.args(["-reqin", &request, "-respout", &response]).output().expect("openssl");
        assert!(output.status.success(), "{output:?}");
        fs::read(response).unwrap()
    }
}
