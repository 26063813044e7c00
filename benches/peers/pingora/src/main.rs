//! A proxy made with Pingora that does what the other contenders do: `peers-pingora PORT UPSTREAM HOSTS`.
//!
//! `HOSTS` is a file with a host name a line, all of which lead to the one upstream.

use std::{collections::HashMap, env, error::Error, fs, net::SocketAddr};

use async_trait::async_trait;
use pingora_core::{
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_error::{Error as Failure, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Of the library; `Cargo.toml` says the same.
const VERSION: &str = "0.9.1";

/// Where each host leads.
struct Hosts(HashMap<String, SocketAddr>);

#[async_trait]
impl ProxyHttp for Hosts {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let host = session.req_header().headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let unknown = || Failure::explain(ErrorType::HTTPStatus(404), "unknown host");
        let upstream = self.0.get(&name).ok_or_else(unknown)?;
        Ok(Box::new(HttpPeer::new(*upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet()).map(|inet| inet.ip().to_string());
        request.insert_header("X-Forwarded-For", client.unwrap_or_default())?;
        request.insert_header("X-Forwarded-Proto", "http")
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, upstream, hosts] = arguments.as_slice() else {
        println!("pingora {}", VERSION);
        return Ok(());
    };
    let upstream: SocketAddr = format!("127.0.0.1:{upstream}").parse()?;
    let hosts = fs::read_to_string(hosts)?.lines().map(|host| (host.to_owned(), upstream)).collect();
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Hosts(hosts));
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever()
}
