//! Large bodies go from socket to socket through pipes of the kernel, which can be seen while one stands still.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::support::{
    dormouse::Dormouse,
    tls::{Authority, YEAR, client_config},
    wait::until,
};

/// Far more than all buffers between two sockets hold.
const LARGE: usize = 32 << 20;

/// As much as goes through no pipe.
const SMALL: usize = 24 << 10;

/// Descriptors of one pipe.
const PIPE: usize = 2;

/// A service that sends as many bytes as the path says, and takes whatever it is sent only when it is told to.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    loop {
        let Some(head) = head(&mut stream) else { return };
        let (method, rest) = head.split_once(" /").unwrap();
        let size: usize = rest.split(' ').next().unwrap().parse().unwrap();
        if method == "POST" {
            // Half of it, and no more: what is behind that has to wait where it is.
            take(&mut stream, size / 2);
            return thread::sleep(Duration::from_secs(3600));
        }
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        if stream.write_all(&vec![b'x'; size]).is_err() {
            return;
        }
    }
}

/// A head, up to and with the empty line.
fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    String::from_utf8(head).ok()
}

/// So many bytes of a body.
fn take(stream: &mut impl Read, count: usize) {
    let mut body = vec![0; count];
    stream.read_exact(&mut body).unwrap();
}

/// Asks for so many bytes, and takes half of them.
fn half(stream: &mut (impl Read + Write), size: usize) {
    write!(stream, "GET /{size} HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let head = head(stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    take(stream, size / 2);
}

/// The descriptors of pipes that it holds.
fn pipes(dormouse: &Dormouse) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", dormouse.pid())).unwrap().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

fn client(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[tokio::test]
async fn a_large_body_in_clear_goes_through_a_pipe_and_no_other_one_does() {
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let route = format!("app: {{ hosts: [app.test], host: 127.0.0.1, port: {} }}", service().port());
    let dormouse = Dormouse::start_secure(&format!(
        "https_redirect: false\ntls: {{ certificates: [{}] }}\nroutes:\n  {route}\n",
        authority.entry("app")
    ))
    .await;
    let before = pipes(&dormouse);

    let mut small = client(dormouse.http);
    half(&mut small, SMALL);
    assert_eq!(pipes(&dormouse), before, "a small body");
    take(&mut small, SMALL - SMALL / 2);

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let trusts = client_config().with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(trusts), "app.test".try_into().unwrap()).unwrap();
    let mut secure = StreamOwned::new(session, client(dormouse.https.unwrap()));
    half(&mut secure, LARGE);
    assert_eq!(pipes(&dormouse), before, "through TLS");
    take(&mut secure, LARGE - LARGE / 2);

    // What is not taken stays in the pipe.
    let mut large = client(dormouse.http);
    half(&mut large, LARGE);
    until("a pipe", async || pipes(&dormouse), |now| *now == before + PIPE).await;

    let upload = client(dormouse.http);
    let mut sending = upload.try_clone().unwrap();
    write!(sending, "POST /{LARGE} HTTP/1.1\r\nHost: app.test\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
    // Nobody takes all of it: this ends when the connection does.
    let sender = thread::spawn(move || sending.write_all(&vec![b'x'; LARGE]));
    until("a pipe of its own", async || pipes(&dormouse), |now| *now == before + 2 * PIPE).await;

    take(&mut large, LARGE - LARGE / 2);
    upload.shutdown(Shutdown::Both).unwrap();
    assert!(sender.join().unwrap().is_err(), "more was taken than the service took");
}
