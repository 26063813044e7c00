//! The configuration of each contender for the same work: the same hosts, one upstream, the same limits.

use std::{env, fmt::Write as _, fs, io, path::Path};

use crate::{
    contender::{LOAD_CORE, free_port, host},
    wire::{Identity, Ports},
};

/// Where the module for streams lies, which Debian packages by itself.
const NGINX_STREAMS: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Writes the certificate and its key where the configurations name them.
pub(crate) fn write_identity(directory: &Path) -> io::Result<()> {
    let identity = Identity::get()?;
    fs::write(directory.join("cert.pem"), &identity.certificate)?;
    fs::write(directory.join("key.pem"), &identity.key)?;
    fs::write(directory.join("both.pem"), format!("{}{}", identity.certificate, identity.key))
}

fn dormouse_listens(directory: &Path, ports: Ports) -> String {
    let (place, http, https) = (directory.display(), ports.http, ports.https);
    format!(
        "listen:\n  http: \"127.0.0.1:{http}\"\n  https: \"127.0.0.1:{https}\"\n  api: \"127.0.0.1:0\"\n\
         https_redirect: false\ntls:\n  certificates: [{{ cert: {place}/cert.pem, key: {place}/key.pem }}]\n"
    )
}

pub(crate) fn dormouse(directory: &Path, ports: Ports, upstream: u16, hosts: &[String]) -> String {
    let mut text = format!("{}nodes: {{}}\nroutes:\n", dormouse_listens(directory, ports));
    for (number, host) in hosts.iter().enumerate() {
        let _ = writeln!(text, "  app-{number}: {{ hosts: [\"{host}\"], host: 127.0.0.1, port: {upstream} }}");
    }
    let tcp = ports.tcp;
    let _ = writeln!(text, "  bytes: {{ scheme: tcp, bind: 127.0.0.1, port: \"{tcp}:{upstream}\", host: 127.0.0.1 }}");
    text
}

/// All that is on in earnest: a backend that may sleep, many other routes, and an access log that nothing gets into.
pub(crate) fn everything(directory: &Path, ports: Ports, upstream: u16, hosts: &[String]) -> io::Result<String> {
    let mut text = sleeping(directory, ports)?;
    for (number, host) in hosts.iter().enumerate().skip(1) {
        let _ = writeln!(text, "  app-{number}: {{ hosts: [\"{host}\"], host: 127.0.0.1, port: {upstream} }}");
    }
    let place = directory.display();
    let _ = writeln!(text, "access_log: {{ path: {place}/access.log, filters: {{ status_codes: [500-599] }} }}");
    Ok(text)
}

/// The route leads to a backend that is started by the first request, and is this program again.
pub(crate) fn sleeping(directory: &Path, ports: Ports) -> io::Result<String> {
    let (own, app) = (env::current_exe()?, free_port()?);
    let command = format!("[\"taskset\", \"-c\", \"{LOAD_CORE}\", \"{}\", \"upstream\", \"{app}\"]", own.display());
    let (listens, host) = (dormouse_listens(directory, ports), host(0));
    Ok(format!(
        "{listens}nodes: {{ jobs: process }}\nbackends:\n  jobs/app: {{ command: {command} }}\nroutes:\n  \
         app: {{ hosts: [\"{host}\"], backend: jobs/app, port: {app}, idle: {{ idle_timeout: 1h }} }}\n"
    ))
}

pub(crate) fn nginx(directory: &Path, ports: Ports, upstream: u16, hosts: &[String]) -> String {
    let place = directory.display();
    let Ports { http, https, tcp } = ports;
    let mut map = String::new();
    for host in hosts {
        let _ = writeln!(map, "    {host} app;");
    }
    format!(
        "load_module {NGINX_STREAMS};
daemon off;
worker_processes 1;
user root;
pid {place}/pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_buffer_size 128k;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  map_hash_max_size 262144;
  map_hash_bucket_size 128;
  map $host $target {{
{map}    default none;
  }}
  map $http_upgrade $hop {{ default upgrade; '' ''; }}
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  upstream none {{ server 127.0.0.1:9; }}
  ssl_certificate {place}/cert.pem;
  ssl_certificate_key {place}/key.pem;
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen 127.0.0.1:{http} backlog=4096;
    listen 127.0.0.1:{https} ssl http2 backlog=4096;
    location / {{
      proxy_pass http://$target;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection $hop;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
stream {{
  server {{ listen 127.0.0.1:{tcp} backlog=4096; proxy_pass 127.0.0.1:{upstream}; proxy_timeout 1h; proxy_buffer_size 64k; }}
}}
"
    )
}

pub(crate) fn haproxy(directory: &Path, ports: Ports, upstream: u16) -> String {
    let place = directory.display();
    let Ports { http, https, tcp } = ports;
    format!(
        "global
  nbthread 1
  maxconn 9500
defaults
  mode http
  http-reuse always
  timeout client 1h
  timeout server 1h
  timeout connect 5s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{http} backlog 4096
  bind 127.0.0.1:{https} ssl crt {place}/both.pem alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  option forwardfor
  use_backend %[req.hdr(host),field(1,:),lower,map({place}/hosts.map,none)]
backend app
  server one 127.0.0.1:{upstream}
backend none
  server one 127.0.0.1:9
listen bytes
  mode tcp
  bind 127.0.0.1:{tcp} backlog 4096
  server one 127.0.0.1:{upstream}
"
    )
}

pub(crate) fn caddy(directory: &Path, ports: Ports, upstream: u16, hosts: &[String]) -> String {
    let place = directory.display();
    let sites = |scheme: &str, port: u16| -> String {
        hosts.iter().map(|host| format!("{scheme}://{host}:{port}")).collect::<Vec<_>>().join(", ")
    };
    let (clear, secure) = (sites("http", ports.http), sites("https", ports.https));
    format!(
        "{{
  admin off
  auto_https off
  persist_config off
  storage file_system {place}/storage
  servers {{
    protocols h1 h2
  }}
}}
{clear} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{upstream}
}}
{secure} {{
  bind 127.0.0.1
  tls {place}/cert.pem {place}/key.pem
  reverse_proxy 127.0.0.1:{upstream}
}}
"
    )
}
