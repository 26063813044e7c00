//! Two Dormouses, one before the other, each of which wants to know who it is.

use crate::support::{
    dormouse::{Dormouse, get},
    login::{Begun, HTML, ask, behind, cookies, got, location, log_in, start},
    oidc::{CLIENT, Provider, SigningKey},
};

#[tokio::test]
async fn one_logs_in_through_a_dormouse_before_another() {
    let provider = Provider::start(SigningKey::es256()).await;
    let app = behind("app", &provider, "");
    let inner = start(&provider, &[&app]).await;
    let (id, secret) = CLIENT;
    let rule = format!(
        "{{ oidc: {{ issuer_url: \"{}\", client_id: \"{id}\", client_secret: \"{secret}\", allowed_users: mia, \
         callback_path: /outer/callback, logout_path: /outer/logout }} }}",
        provider.issuer
    );
    let (host, port) = (inner.http.ip(), inner.http.port());
    let outer = Dormouse::start(&format!(
        "nodes: {{ jobs: process }}\nroutes:\n  app: {{ host: {host}, port: {port}, middlewares: {rule} }}\n"
    ))
    .await;
    let paths = ["/auth/callback", "/outer/callback"];
    provider.conducts(|conduct| conduct.redirect_uris = paths.map(|path| format!("http://app.test{path}")).into());
    let of_outer = log_in(&outer, &provider, "app").await;
    let mut jar = vec![of_outer];
    let visit = async |jar: &[String], path: &str| {
        get(outer.http, "app", path, &format!("{HTML}Cookie: {}\r\n", jar.join("; "))).await.unwrap()
    };
    let led = visit(&jar, "/echo").await;
    assert_eq!(led.status, 303, "the inner one asks, too: {led:?}");
    let begun = Begun { cookie: cookies(&led).concat(), to: location(&led).to_owned() };
    let back = begun.authorize(&provider, "app").await;
    assert!(back.path.starts_with(paths[0]), "{}", back.path);
    jar.push(back.cookie);
    let reply = visit(&jar, &back.path).await;
    assert_eq!((reply.status, location(&reply)), (303, "/echo"), "{reply:?}\n{}", inner.log());
    jar.extend(cookies(&reply).into_iter().filter(|cookie| !cookie.ends_with('=')));
    let reply = ask(&outer, "app", &jar.join("; ")).await;
    assert_eq!((reply.status, got(&reply, "remote-user")), (200, vec!["mia".to_owned()]), "{reply:?}");
    assert!(got(&reply, "cookie").is_empty(), "each has taken its own ones out: {reply:?}");
}
