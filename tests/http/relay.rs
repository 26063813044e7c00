//! dev
use std::{net::*, process::*, io::Write, time::Duration};
#[derive(Debug)]
pub(crate) struct Relay { pub(crate) address: SocketAddr, child: Child }
impl Relay {
    pub(crate) fn start(backend: SocketAddr) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = format!("/tmp/battery-haproxy-{}.cfg", address.port());
        std::fs::File::create(&path).unwrap().write_all(format!("defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 5s\nfrontend f\n bind {address}\n http-request set-header x-forwarded-for 127.0.0.1\n http-request set-header x-real-ip 127.0.0.1\n http-request set-header x-forwarded-proto http\n http-request set-header x-forwarded-host app.test\n http-request return status 404 unless {{ req.hdr(host) -i -m beg app.test }}\n default_backend b\nbackend b\n server s {backend}\n").as_bytes()).unwrap();
        let child = Command::new("haproxy").args(["-f", &path]).stderr(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(address).is_err() { std::thread::sleep(Duration::from_millis(10)); }
        Self { address, child }
    }
}
impl Drop for Relay { fn drop(&mut self) { let _ = self.child.kill(); let _ = self.child.wait(); } }
