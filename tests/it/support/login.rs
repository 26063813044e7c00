//! A browser that logs in at the provider of the tests, and the services that want that.

use super::{
    apps::{App, config},
    dormouse::{Dormouse, Reply, get, request},
    oidc::{CLIENT, Provider},
};

/// What a browser says that wants a page.
pub(crate) const HTML: &str = "Accept: text/html\r\n";

/// An app that sleeps, and lets in whom the provider knows as `mia` or as one of the staff.
pub(crate) fn behind(name: &str, provider: &Provider, more: &str) -> App {
    let (id, secret) = CLIENT;
    let rule = format!(
        "{{ oidc: {{ issuer_url: \"{}\", client_id: \"{id}\", client_secret: \"{secret}\", allowed_users: mia, allowed_groups: staff{more} }} }}",
        provider.issuer
    );
    App::new(name).idle("idle_timeout: 1h").route(&format!(", middlewares: {rule}"))
}

/// A Dormouse with these apps, to which the provider sends browsers back.
pub(crate) async fn start(provider: &Provider, apps: &[&App]) -> Dormouse {
    let dormouse = Dormouse::start(&config(apps)).await;
    provider.conducts(|conduct| {
        conduct.redirect_uris = apps.iter().map(|app| format!("http://{}.test/auth/callback", app.name)).collect();
    });
    dormouse
}

/// The cookies that an answer sets: what a browser sends back of each.
pub(crate) fn cookies(reply: &Reply) -> Vec<String> {
    let lines = reply.head.lines().filter_map(|line| line.split_once(": "));
    let set = lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value);
    set.filter_map(|value| value.split(';').next()).map(str::to_owned).collect()
}

/// Where an answer leads.
pub(crate) fn location(reply: &Reply) -> &str {
    reply.field("location").unwrap_or_else(|| panic!("it leads nowhere: {reply:?}"))
}

/// A login that a browser has begun: what it keeps, and where it is led.
pub(crate) struct Begun {
    pub(crate) cookie: String,
    pub(crate) to: String,
}

/// Where the provider leads it back to: the path and the query.
pub(crate) struct Returned {
    pub(crate) cookie: String,
    pub(crate) path: String,
}

/// A browser comes without a session.
pub(crate) async fn begin(dormouse: &Dormouse, name: &str, path: &str) -> Begun {
    let reply = get(dormouse.http, name, path, HTML).await.unwrap();
    assert_eq!(reply.status, 303, "{reply:?}\n{}", dormouse.log());
    let [cookie] = cookies(&reply).try_into().unwrap();
    assert!(reply.head.contains("; HttpOnly; SameSite=Lax"), "{reply:?}");
    Begun { cookie, to: location(&reply).to_owned() }
}

impl Begun {
    pub(crate) async fn authorize(self, provider: &Provider, name: &str) -> Returned {
        let target = self.to.strip_prefix(&provider.issuer).unwrap_or_else(|| panic!("elsewhere: {}", self.to));
        let head = format!("GET {target} HTTP/1.1\r\nHost: id\r\n\r\n");
        let reply = request(provider.at, &head).await.unwrap();
        assert_eq!(reply.status, 302, "{reply:?}");
        let path = location(&reply).strip_prefix(&format!("http://{name}.test")).expect("the host of the service");
        Returned { cookie: self.cookie, path: path.to_owned() }
    }
}

impl Returned {
    pub(crate) async fn finish(&self, dormouse: &Dormouse, name: &str) -> Reply {
        get(dormouse.http, name, &self.path, &format!("{HTML}Cookie: other=1; {}\r\n", self.cookie)).await.unwrap()
    }
}

/// A login that the provider has agreed to.
pub(crate) async fn returned(dormouse: &Dormouse, provider: &Provider, name: &str) -> Returned {
    begin(dormouse, name, "/").await.authorize(provider, name).await
}

/// The cookie of a session.
pub(crate) async fn log_in(dormouse: &Dormouse, provider: &Provider, name: &str) -> String {
    let reply = returned(dormouse, provider, name).await.finish(dormouse, name).await;
    assert_eq!(reply.status, 303, "{reply:?}\n{}", dormouse.log());
    cookies(&reply).into_iter().find(|cookie| !cookie.ends_with('=')).expect("a session")
}

/// A request with this cookie.
pub(crate) async fn ask(dormouse: &Dormouse, name: &str, cookie: &str) -> Reply {
    get(dormouse.http, name, "/echo", &format!("Cookie: {cookie}\r\n")).await.unwrap()
}

/// The values of a field that the app was given.
pub(crate) fn got(reply: &Reply, name: &str) -> Vec<String> {
    let echo: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("no echo: {reply:?}"));
    let fields = echo["headers"].as_array().unwrap().iter().map(|pair| (pair[0].as_str(), pair[1].as_str()));
    let own = fields.filter(|(own, _)| own.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    own.filter_map(|(_, value)| value.map(str::to_owned)).collect()
}
