//! Who is let in because a provider of OpenID Connect says who it is.

use std::time::Duration;

use super::{Secret, UpstreamTls};

/// A provider that says who somebody is, and who of them is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The provider, as it names itself; `https://…`, without a slash at its end.
    pub issuer: String,
    /// How its TLS is checked.
    pub tls: UpstreamTls,
    /// Who we are to it.
    pub client_id: String,
    /// How we show that; absent: by the proof of the request alone.
    pub client_secret: Option<Secret>,
    /// What we ask to be told; empty: all that is of use, as far as the provider has it.
    pub scopes: Vec<String>,
    /// Names and addresses of those who are let in; `*` for everybody whom the provider knows.
    pub allowed_users: Vec<String>,
    /// Groups whose members are let in.
    pub allowed_groups: Vec<String>,
    /// The path to which the provider sends browsers back.
    pub callback_path: String,
    /// The path under which one logs out.
    pub logout_path: String,
    /// How long one stays logged in.
    pub session: Duration,
    /// How long the provider may take.
    pub timeout: Duration,
}

/// Somebody, as the provider has told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// What the provider never gives to another.
    pub subject: String,
    /// The name by which somebody logs in.
    pub user: String,
    /// The name in full.
    pub name: String,
    /// The address for e-mail.
    pub email: String,
    /// The provider has seen that the address is theirs.
    pub email_verified: bool,
    /// The groups.
    pub groups: Vec<String>,
}

impl Oidc {
    /// Header fields of requests that say who somebody is. Those of clients are not believed.
    pub const FIELDS: [&str; 4] = ["Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups"];

    /// The cookies of a Dormouse have names that begin so, and go on with a mark of its key: only those of that key are
    /// ours, and not for services. The second has none of them set by another host.
    pub const COOKIES: [&str; 2] = ["dormouse_oidc_", "__Host-dormouse_oidc_"];

    /// Whether somebody is let in. An address counts only when the provider has seen that it is theirs. A user name that
    /// looks like one, which at some providers everybody chooses, counts only where the provider gives no address.
    pub fn admits(&self, who: &Identity) -> bool {
        let is = |allowed: &String| {
            let may_be_name = !allowed.contains('@') || who.email.is_empty();
            let user = may_be_name && !who.user.is_empty() && *allowed == who.user;
            let email = who.email_verified && !who.email.is_empty() && allowed.eq_ignore_ascii_case(&who.email);
            allowed == "*" || user || email
        };
        self.allowed_users.iter().any(is) || self.allowed_groups.iter().any(|group| who.groups.contains(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_is_let_in_and_nobody_else() {
        let rule = |users: &[&str], groups: &[&str]| Oidc {
            issuer: "https://id.example".to_owned(),
            tls: UpstreamTls::default(),
            client_id: "a".to_owned(),
            client_secret: None,
            scopes: Vec::new(),
            allowed_users: users.iter().map(|user| (*user).to_owned()).collect(),
            allowed_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            callback_path: "/auth/callback".to_owned(),
            logout_path: "/auth/logout".to_owned(),
            session: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        let mia = Identity {
            subject: "1".to_owned(),
            user: "mia".to_owned(),
            email: "mia@example.org".to_owned(),
            groups: vec!["staff".to_owned()],
            ..Identity::default()
        };
        let verified = Identity { email_verified: true, ..mia.clone() };
        for (users, groups, admitted, with_address) in [
            (&["mia"][..], &[][..], true, true),
            (&["Mia"], &[], false, false),
            (&["Mia@Example.org"], &[], false, true),
            (&["1"], &[], false, false),
            (&[""], &[""], false, false),
            (&["*"], &[], true, true),
            (&[], &["*"], false, false),
            (&["tom"], &["staff"], true, true),
            (&["tom"], &["admins"], false, false),
            (&[], &[], false, false),
        ] {
            let rule = rule(users, groups);
            assert_eq!([rule.admits(&mia), rule.admits(&verified)], [admitted, with_address], "{users:?} {groups:?}");
        }
        assert!(!rule(&[""], &[""]).admits(&Identity::default()));
        // A name that is somebody's address.
        let rule = rule(&["tom@example.org"], &[]);
        for (email, email_verified, admitted) in [
            ("", false, true),
            ("eve@example.org", true, false),
            ("eve@example.org", false, false),
            ("tom@example.org", false, false),
            ("Tom@example.org", true, true),
        ] {
            let user = "tom@example.org".to_owned();
            let who = Identity { user, email: email.to_owned(), email_verified, ..Identity::default() };
            assert_eq!(rule.admits(&who), admitted, "{email} {email_verified}");
        }
    }
}
