//! Who is let in because a provider says who it is: with a provider of the tests, over real HTTP, in front of services
//! that sleep.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::{Dormouse, Reply, get, request},
    login::{Begun, HTML, ask, begin, behind, cookies, got, location, log_in, returned, start},
    oidc::{CLIENT, Provider, Signature, SigningKey, parameters},
    tls::{Authority, YEAR},
    wait::until,
};

#[tokio::test]
async fn who_has_logged_in_is_let_in_and_nobody_else_wakes_anything() {
    let provider = Provider::start(SigningKey::rs256()).await;
    let app = behind("app", &provider, "");
    let dormouse = start(&provider, &[&app]).await;
    // Programs are told, browsers are led.
    for (method, fields) in [
        ("GET", ""),
        ("POST", "Accept: text/html\r\nContent-Length: 0\r\n"),
        ("GET", "Accept: */*\r\n"),
        ("GET", "Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"),
        // Who only calls itself a call is told so in HTTP: any 200 might be taken for a yes.
        ("GET", "Content-Type: application/grpc-web\r\n"),
        ("POST", "Content-Type: application/grpc-web+proto\r\nContent-Length: 0\r\n"),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{fields}\r\n");
        let reply = request(dormouse.http, &head).await.unwrap();
        assert_eq!((reply.status, reply.field("location")), (401, None), "{method} {fields}: {reply:?}");
        assert!(reply.field("www-authenticate").is_some() && cookies(&reply).is_empty(), "{reply:?}");
    }
    // What leads back leads to the same host, whatever was asked for and whoever is said to have been asked.
    let lies =
        "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example;proto=https\r\nX-Forwarded-Proto: https\r\n";
    let reply = get(dormouse.http, "app", "//evil.example/x?y=1", &format!("{HTML}{lies}")).await.unwrap();
    let query = parameters(location(&reply).split_once('?').unwrap().1);
    assert_eq!(query["redirect_uri"], "http://app.test/auth/callback");
    assert!(!location(&reply).contains(CLIENT.1) && !location(&reply).contains("evil"), "{reply:?}");
    let [cookie] = cookies(&reply).try_into().unwrap();
    let begun = Begun { cookie, to: location(&reply).to_owned() };
    let back = begun.authorize(&provider, "app").await;
    let reply = back.finish(&dormouse, "app").await;
    assert_eq!((reply.status, location(&reply)), (303, "/evil.example/x?y=1"), "{reply:?}");
    assert_eq!(cookies(&reply).len(), 2, "a session, and the login is over: {reply:?}");
    assert_eq!(app.journal().starts(), 0, "nothing was woken yet");
    let session = cookies(&reply).into_iter().find(|cookie| !cookie.ends_with('=')).unwrap();
    // Now it is woken, and told who comes by nobody else.
    let told =
        format!("Cookie: a=1; {session}; b=2\r\nRemote-User: root\r\nremote-groups: admins\r\nRemote_Email: x\r\n");
    let reply = get(dormouse.http, "app", "/echo", &told).await.unwrap();
    assert_eq!((reply.status, app.journal().starts()), (200, 1), "{reply:?}");
    assert_eq!(got(&reply, "remote-user"), ["mia"]);
    assert_eq!(got(&reply, "remote-name"), ["Mia M\u{fc}ller"]);
    assert!(got(&reply, "remote-groups").is_empty() && got(&reply, "remote-email").is_empty(), "{reply:?}");
    assert_eq!(got(&reply, "cookie"), ["a=1; b=2"]);
    // A WebSocket has no page to be led to.
    let shake = async |cookie: Option<&str>| {
        let mut head = tungstenite::client::IntoClientRequest::into_client_request("ws://app.test/ws").unwrap();
        if let Some(cookie) = cookie {
            head.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        client_async(head, TcpStream::connect(dormouse.http).await.unwrap()).await.map(|_| ())
    };
    assert!(shake(Some(&session)).await.is_ok());
    match shake(None).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status().as_u16(), 401),
        other => panic!("{other:?}"),
    }
    // Going back in the browser begins nothing anew, and logging out ends it.
    let reply = back.finish(&dormouse, "app").await;
    assert_eq!(reply.status, 400, "{reply:?}");
    let reply = get(dormouse.http, "app", "/auth/logout", &format!("{HTML}Cookie: {session}\r\n")).await.unwrap();
    assert_eq!(location(&reply), format!("{}/end?client_id=shop%20%26%20co", provider.issuer));
    let forgotten = format!("{}=", session.split('=').next().unwrap());
    assert_eq!(cookies(&reply), [forgotten]);
    let reply = get(dormouse.http, "app", "/auth/logout", "").await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "You are logged out.\n"), "{reply:?}");
    let log = dormouse.log();
    assert!(!log.contains(CLIENT.1) && !log.contains("mias"), "{log}");
}

#[tokio::test]
async fn what_is_not_from_the_provider_or_not_for_this_login_lets_nobody_in() {
    let provider = Provider::start(SigningKey::es256()).await;
    let (app, other) = (behind("app", &provider, ""), behind("other", &provider, ""));
    let dormouse = start(&provider, &[&app, &other]).await;
    // Tokens that lie.
    let long_ago = json!(1_000_000_000);
    for (what, claims, signature) in [
        ("nonce", Some(("nonce", json!("another"))), Signature::Good),
        ("audience", Some(("aud", json!("another"))), Signature::Good),
        ("audiences", Some(("aud", json!([CLIENT.0, "another"]))), Signature::Good),
        ("party", Some(("azp", json!("another"))), Signature::Good),
        ("issuer", Some(("iss", json!("https://evil.example"))), Signature::Good),
        ("expired", Some(("exp", long_ago)), Signature::Good),
        ("none", None, Signature::None),
        ("HS256", None, Signature::PublicAsSecret),
        ("stranger", None, Signature::Stranger),
    ] {
        provider.conducts(|conduct| {
            (conduct.claims, conduct.signature) = (claims.into_iter().collect(), signature);
        });
        let reply = returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await;
        assert_eq!(reply.status, 403, "{what}: {reply:?}");
        assert!(cookies(&reply).iter().all(|cookie| cookie.ends_with('=')), "{what}: {reply:?}");
    }
    // Somebody else whom the provider knows.
    for claims in [
        vec![("preferred_username", json!("tom"))],
        vec![("preferred_username", json!("tom")), ("email", json!("mia")), ("email_verified", json!(false))],
        vec![("preferred_username", json!("tom")), ("groups", json!(["guests", "staff\n"]))],
    ] {
        provider.conducts(|conduct| (conduct.claims, conduct.signature) = (claims, Signature::Good));
        let reply = returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await;
        assert_eq!(reply.status, 403, "{reply:?}");
        assert!(reply.body.contains("not among those who are let in"), "{reply:?}");
    }
    provider.conducts(|conduct| conduct.claims.clear());
    let before = provider.conduct.lock().unwrap().tokens;
    // Logins of others, or of nobody.
    let good = returned(&dormouse, &provider, "app").await;
    let foreign = returned(&dormouse, &provider, "other").await;
    let value = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    let name = |cookie: &str| cookie.split_once('=').unwrap().0.to_owned();
    let state = |path: &str| parameters(path.split_once('?').unwrap().1)["state"].clone();
    let changed = good.path.replace(&state(&good.path), &state(&foreign.path));
    let other_iss = good.path.replace("&iss=http", "&iss=https");
    let twice = format!("{}&state=x", good.path);
    let renamed = format!("{}={}", name(&good.cookie), value(&foreign.cookie));
    let mut bent = good.cookie.clone();
    let last = if bent.pop() == Some('A') { 'Q' } else { 'A' };
    bent.push(last);
    for (what, path, cookie) in [
        ("no cookie", &good.path, ""),
        ("another state", &changed, good.cookie.as_str()),
        ("no state", &"/auth/callback?code=x".to_owned(), &good.cookie),
        ("two states", &twice, &good.cookie),
        ("another route's login", &foreign.path, &renamed),
        ("another route's login, under its own name", &foreign.path, &foreign.cookie),
        ("a cookie that was changed", &good.path, &bent),
    ] {
        let fields = format!("{HTML}Cookie: {cookie}\r\n");
        let reply = get(dormouse.http, "app", path, &fields).await.unwrap();
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
    }
    assert_eq!(provider.conduct.lock().unwrap().tokens, before, "no code was used");
    // That one counts still; what it was given for is used up then.
    let reply = get(dormouse.http, "app", &good.path, &format!("Cookie: {}\r\n", good.cookie)).await.unwrap();
    assert_eq!(reply.status, 303, "{reply:?}");
    let session = cookies(&reply).into_iter().find(|cookie| !cookie.ends_with('=')).unwrap();
    assert_eq!(good.finish(&dormouse, "app").await.status, 400, "the same login again");
    let mixed = returned(&dormouse, &provider, "app").await;
    let path = other_iss.replace(&state(&good.path), &state(&mixed.path));
    let reply = get(dormouse.http, "app", &path, &format!("Cookie: {}\r\n", mixed.cookie)).await.unwrap();
    assert_eq!(reply.status, 400, "another provider answers: {reply:?}");
    // A code of another login does not fit the proof of this one, be it used or not.
    let (victim, attacker) = (returned(&dormouse, &provider, "app").await, returned(&dormouse, &provider, "app").await);
    let code = |path: &str| parameters(path.split_once('?').unwrap().1)["code"].clone();
    for foreign in [code(&attacker.path), code(&good.path)] {
        let injected = victim.path.replace(&code(&victim.path), &foreign);
        let victim = returned(&dormouse, &provider, "app").await;
        let injected = injected.replace(&state(&injected), &state(&victim.path));
        let reply = get(dormouse.http, "app", &injected, &format!("Cookie: {}\r\n", victim.cookie)).await.unwrap();
        assert_eq!(reply.status, 403, "{reply:?}");
    }
    let denied = returned(&dormouse, &provider, "app").await;
    let path = format!("/auth/callback?error=access_denied&state={}&iss={}", state(&denied.path), provider.issuer);
    let reply = get(dormouse.http, "app", &path, &format!("Cookie: {}\r\n", denied.cookie)).await.unwrap();
    assert_eq!(reply.status, 403, "{reply:?}");
    // Sessions of others.
    let foreign = log_in(&dormouse, &provider, "other").await;
    let mut bent = session.clone();
    let last = if bent.pop() == Some('A') { 'Q' } else { 'A' };
    bent.push(last);
    for cookie in [
        foreign.clone(),
        format!("{}={}", name(&session), value(&foreign)),
        bent,
        format!("{}={}", name(&session), value(&good.cookie)),
        format!("{}=", name(&session)),
        String::new(),
    ] {
        assert_eq!(ask(&dormouse, "app", &cookie).await.status, 401, "{cookie}");
    }
    assert_eq!((app.journal().starts(), other.journal().starts()), (0, 0), "{}", dormouse.log());
    assert_eq!(ask(&dormouse, "app", &session).await.status, 200);
}

#[tokio::test]
async fn a_provider_that_is_away_or_slow_lets_nobody_in_and_may_change_its_keys() {
    let provider = Provider::start(SigningKey::es256()).await;
    let app = behind("app", &provider, ", timeout: 500ms");
    let dormouse = start(&provider, &[&app]).await;
    provider.conducts(|conduct| conduct.thinks = Duration::from_secs(30));
    let reply = get(dormouse.http, "app", "/", HTML).await.unwrap();
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.body.contains("did not answer in time"), "{reply:?}");
    provider.conducts(|conduct| conduct.thinks = Duration::ZERO);
    let led = async || get(dormouse.http, "app", "/", HTML).await.unwrap().status;
    until("it is asked again", led, |status| *status == 303).await;
    let session = log_in(&dormouse, &provider, "app").await;
    // What was signed with a new key is believed once the new keys were seen.
    provider.conducts(|conduct| conduct.change_key(SigningKey::rs256()));
    let again = async || returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await.status;
    until("the new key is known", again, |status| *status == 303).await;
    // A provider whose tokens say little is asked for more.
    provider.conducts(|conduct| {
        conduct.claims = vec![("preferred_username", json!(null)), ("name", json!(null))];
        conduct.userinfo = json!({ "sub": "id-of-tom", "preferred_username": "mia" });
    });
    let reply = returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await;
    assert_eq!(reply.status, 403, "what is said is about another: {reply:?}");
    provider.conducts(|conduct| conduct.userinfo = json!(null));
    let reply = returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await;
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(reply.body.contains("does not answer as it should"), "it can be reached: {reply:?}");
    assert!(dormouse.log().contains("/userinfo` answers with status 404"), "{}", dormouse.log());
    provider.conducts(|conduct| {
        conduct.userinfo = json!({ "sub": "id-of-mia", "preferred_username": "M", "email": "mia@test", "groups": ["x,staff", "staff"] });
    });
    let named = log_in(&dormouse, &provider, "app").await;
    // Half-way through a login, it goes away; sessions go on without it, also in the next run.
    let late = returned(&dormouse, &provider, "app").await;
    drop(provider);
    let reply = late.finish(&dormouse, "app").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.body.contains("can not be reached") && reply.field("retry-after").is_some(), "{reply:?}");
    assert_eq!(app.journal().starts(), 0);
    let mut dormouse = dormouse;
    assert!(dormouse.end().await.success());
    dormouse.start_again().await;
    assert_eq!(get(dormouse.http, "app", "/", HTML).await.unwrap().status, 503);
    assert_eq!(app.journal().starts(), 0);
    assert_eq!(ask(&dormouse, "app", &session).await.status, 200);
    let reply = ask(&dormouse, "app", &named).await;
    assert_eq!(
        (got(&reply, "remote-user"), got(&reply, "remote-groups")),
        (vec!["M".to_owned()], vec!["staff".to_owned()])
    );
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn all_who_need_the_keys_of_a_slow_provider_fail_together_by_one_question() {
    let provider = Provider::start(SigningKey::es256()).await;
    let app = behind("app", &provider, ", timeout: 2s");
    let dormouse = start(&provider, &[&app]).await;
    let mut late = Vec::new();
    for _ in 0..4 {
        late.push(returned(&dormouse, &provider, "app").await);
    }
    provider.conducts(|conduct| conduct.thinks_of_keys = Duration::from_secs(30));
    let replies = join_all(late.iter().map(|late| late.finish(&dormouse, "app"))).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [504; 4]);
    provider.conducts(|conduct| assert_eq!(conduct.asked_for_keys, 1));
}

#[tokio::test]
async fn who_is_to_log_in_does_not_wait_for_the_keys_that_others_need() {
    let provider = Provider::start(SigningKey::es256()).await;
    let app = behind("app", &provider, ", timeout: 2s");
    let dormouse = start(&provider, &[&app]).await;
    let late = returned(&dormouse, &provider, "app").await;
    provider.conducts(|conduct| conduct.thinks_of_keys = Duration::from_secs(30));
    let led = async || get(dormouse.http, "app", "/", HTML).await.unwrap().status;
    let others = async {
        for _ in 0..20 {
            assert_eq!(led().await, 303, "{}", dormouse.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (reply, ()) = tokio::join!(late.finish(&dormouse, "app"), others);
    assert_eq!(reply.status, 504, "{reply:?}");
    provider.conducts(|conduct| conduct.thinks_of_keys = Duration::ZERO);
    let again = async || returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await.status;
    until("the keys are asked for again", again, |status| *status == 303).await;
}

#[tokio::test]
async fn what_browsers_keep_is_never_too_long_for_them() {
    let provider = Provider::start(SigningKey::es256()).await;
    let (app, open) = (behind("app", &provider, ""), App::new("open").idle("idle_timeout: 1h"));
    let dormouse = start(&provider, &[&app, &open]).await;
    let kept = |reply: &Reply| {
        let cookies = cookies(reply);
        assert!(!cookies.is_empty() && cookies.iter().all(|cookie| cookie.len() <= 4096), "{reply:?}");
    };
    // Each of them takes two bytes where the way back is kept.
    let path = format!("/?{}", "\"".repeat(1490));
    kept(&get(dormouse.http, "app", &path, HTML).await.unwrap());
    let login = begin(&dormouse, "app", &path).await.authorize(&provider, "app").await;
    assert_eq!(location(&login.finish(&dormouse, "app").await), "/");
    let login = begin(&dormouse, "app", "/?\"").await.authorize(&provider, "app").await;
    assert_eq!(location(&login.finish(&dormouse, "app").await), "/?\"");
    provider.conducts(|conduct| {
        let groups: Vec<_> = (0..200).map(|number| format!("group {number}")).chain(["staff".to_owned()]).collect();
        conduct.claims = vec![("name", json!("Mia ".repeat(1000))), ("groups", json!(groups))];
    });
    let reply = returned(&dormouse, &provider, "app").await.finish(&dormouse, "app").await;
    kept(&reply);
    let session = cookies(&reply).into_iter().find(|cookie| !cookie.ends_with('=')).unwrap();
    let reply = ask(&dormouse, "app", &session).await;
    let told = ["remote-user", "remote-groups", "remote-name"].map(|name| got(&reply, name).concat());
    assert_eq!(told, ["mia", "staff", ""]);
    // Another route of the host is not shown it, either.
    let reply = ask(&dormouse, "open", &format!("a=1; {session};__Host-{session}; b=dormouse_oidc_")).await;
    assert_eq!(got(&reply, "cookie"), ["a=1; b=dormouse_oidc_"]);
    // Browsers keep this under a name that is not ours.
    assert_eq!(ask(&dormouse, "app", &format!("\u{2000}{session}")).await.status, 401);
}

#[tokio::test]
async fn a_session_ends_and_those_who_are_named_no_longer_are_out_at_once() {
    let provider = Provider::start(SigningKey::es256()).await;
    let app = behind("app", &provider, ", session: 5s");
    let dormouse = start(&provider, &[&app]).await;
    let session = log_in(&dormouse, &provider, "app").await;
    assert_eq!(ask(&dormouse, "app", &session).await.status, 200);
    until("the session is over", async || ask(&dormouse, "app", &session).await.status, |status| *status == 401).await;
    let expired = session;
    let session = log_in(&dormouse, &provider, "app").await;
    let reply = ask(&dormouse, "app", &format!("{expired}; {session}")).await;
    assert_eq!(reply.status, 200, "one that is over says nothing of another: {reply:?}");
    let session = log_in(&dormouse, &provider, "app").await;
    dormouse.configure(&config(&[&app]).replace("allowed_users: mia", "allowed_users: tom"));
    let status = async || ask(&dormouse, "app", &session).await.status;
    until("the change is in force", status, |status| *status == 403).await;
}

#[tokio::test]
async fn through_tls_and_http_2_and_with_the_provider_behind_the_same_program() {
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    authority.issue("id", &["localhost"], YEAR);
    let [http, https] = [free_port(), free_port()].map(|port| ([127, 0, 0, 1], port).into());
    let https: std::net::SocketAddr = https;
    let provider = Provider::start_as(SigningKey::es256(), Some(format!("https://localhost:{}", https.port()))).await;
    let trusted = format!(", ssl_trusted_certificate: {}", authority.path("ca.pem").display());
    let app = behind("app", &provider, &trusted);
    let id = format!("  id: {{ hosts: [localhost], host: 127.0.0.1, port: {}, scheme: http }}\n", provider.at.port());
    let text = config(&[&app]).replace("routes:\n", &format!("routes:\n{id}"));
    let entries = [authority.entry("app"), authority.entry("id")].join(", ");
    let dormouse = Dormouse::start_at(&format!("{text}tls: {{ certificates: [{entries}] }}\n"), http, https).await;
    let back = format!("https://app.test:{}/auth/callback", https.port());
    provider.conducts(|conduct| conduct.redirect_uris = vec![back.clone()]);
    let ask = async |host: &str, path: &str, cookie: &str, accept: &str| {
        let cookie = format!("Cookie: {}a=1", if cookie.is_empty() { String::new() } else { format!("{cookie}; ") });
        authority.curl(host, https, path, &["--http2", "-H", accept, "-H", &cookie]).await
    };
    let set = |head: &str| {
        let set = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        set.map(|(_, value)| value.to_owned()).find(|value| !value.contains("=;")).unwrap_or_default()
    };
    let led = ask("app.test", "/a?b", "", HTML.trim()).await;
    assert_eq!(led.status, 303, "{led:?}\n{}", dormouse.log());
    let kept = set(&led.head);
    assert!(kept.starts_with("__Host-dormouse_oidc_") && kept.ends_with("; Secure"), "{led:?}");
    let to = led.field("location").unwrap().strip_prefix(&provider.issuer).unwrap();
    let agreed = ask("localhost", to, "", HTML.trim()).await;
    let path = agreed.field("location").and_then(|to| to.strip_prefix(&format!("https://app.test:{}", https.port())));
    let path = path.unwrap_or_else(|| panic!("{agreed:?}"));
    let returned = ask("app.test", path, kept.split(';').next().unwrap(), HTML.trim()).await;
    assert_eq!((returned.status, returned.field("location")), (303, Some("/a?b")), "{returned:?}\n{}", dormouse.log());
    let session = set(&returned.head);
    assert!(
        session.starts_with("__Host-dormouse_oidc_")
            && session.ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure")
    );
    assert_eq!(app.journal().starts(), 0);
    let session = session.split(';').next().unwrap();
    let let_in = ask("app.test", "/echo", session, "Accept: */*").await;
    assert!(
        let_in.status == 200 && let_in.body.contains("Remote-User") && !let_in.body.contains("dormouse_oidc"),
        "{let_in:?}"
    );
    // What was made for HTTPS counts for nothing in clear.
    let reply = get(dormouse.http, "app", "/echo", &format!("X-Forwarded-Proto: https\r\nCookie: {session}\r\n")).await;
    assert_ne!(reply.unwrap().status, 200);
}
