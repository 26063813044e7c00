//! What puts records into the DNS: a command, or one of the providers that are known.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::Place;

/// What puts records into the DNS, and takes them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAccess {
    /// A command of one's own.
    Hook(DnsHook),
    /// A provider, by its interface.
    Provider(DnsProvider),
}

/// A command that puts records into the DNS and takes them out: `command present NAME VALUE`, `command cleanup …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHook {
    /// The program and its first arguments.
    pub command: Vec<String>,
    /// How long a record takes until everybody sees it.
    pub wait: Duration,
}

/// A provider of DNS, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsProvider {
    /// Which one.
    pub kind: &'static DnsProviderKind,
    /// What is written of what it needs, by the keys of its options. The rest is in the environment.
    pub options: BTreeMap<&'static str, DnsValue>,
    /// The zone in which the records are; absent: it is looked for.
    pub zone: Option<String>,
    /// Who is asked for records instead of the servers of the zone.
    pub resolvers: Vec<SocketAddr>,
    /// So long it may take until a record is seen; zero: nobody looks.
    pub propagation_timeout: Duration,
    /// Where it was written.
    pub place: Place,
}

/// The value of an option that is written. Secrets are where the configuration is not, and are read when they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsValue {
    /// As written.
    Text(String),
    /// In this file.
    File(PathBuf),
}

/// A provider that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsProviderKind {
    /// As it is written.
    pub name: &'static str,
    /// What it needs to be told.
    pub options: &'static [DnsOption],
    /// It keeps one value of a name, so that a host and all hosts below it need a certificate each.
    pub one_value: bool,
    /// So many seconds a record may be kept by those who have asked for it: the least that is taken.
    pub ttl: u32,
}

/// Something that a provider needs to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsOption {
    /// Its key; that of a secret has `_file` behind it.
    pub key: &'static str,
    /// Whether it is read from a file or the environment only.
    pub secret: bool,
    /// Whether it has to be there.
    pub required: bool,
    /// Variables of the environment that hold it, first come first served.
    pub variables: &'static [&'static str],
}

const fn secret(key: &'static str, variables: &'static [&'static str]) -> DnsOption {
    DnsOption { key, secret: true, required: true, variables }
}

const fn plain(key: &'static str, variables: &'static [&'static str]) -> DnsOption {
    DnsOption { key, secret: false, required: true, variables }
}

const fn optional(option: DnsOption) -> DnsOption {
    DnsOption { required: false, ..option }
}

const fn kind(name: &'static str, options: &'static [DnsOption]) -> DnsProviderKind {
    DnsProviderKind { name, options, one_value: false, ttl: 120 }
}

/// One that takes no records of a shorter life.
const fn slow(ttl: u32, kind: DnsProviderKind) -> DnsProviderKind {
    DnsProviderKind { ttl, ..kind }
}

const fn of_one_value(name: &'static str, options: &'static [DnsOption]) -> DnsProviderKind {
    DnsProviderKind { name, options, one_value: true, ttl: 120 }
}

/// The providers, by name. The variables are those that other programs read, too.
pub const DNS_PROVIDERS: &[DnsProviderKind] = &[
    kind("arvancloud", &[secret("api_key", &["ARVANCLOUD_API_KEY"])]),
    kind(
        "azure",
        &[
            plain("tenant_id", &["AZURE_TENANT_ID"]),
            plain("client_id", &["AZURE_CLIENT_ID"]),
            secret("client_secret", &["AZURE_CLIENT_SECRET"]),
            plain("subscription_id", &["AZURE_SUBSCRIPTION_ID"]),
            plain("resource_group", &["AZURE_RESOURCE_GROUP"]),
        ],
    ),
    kind("bunny", &[secret("api_key", &["BUNNY_API_KEY"])]),
    kind("cloudflare", &[secret("token", &["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN"])]),
    kind("cloudns", &[plain("auth_id", &["CLOUDNS_AUTH_ID"]), secret("password", &["CLOUDNS_AUTH_PASSWORD"])]),
    kind("constellix", &[secret("api_key", &["CONSTELLIX_API_KEY"]), secret("secret_key", &["CONSTELLIX_SECRET_KEY"])]),
    of_one_value("ddnss", &[secret("key", &["DDNSS_KEY"])]),
    slow(3600, kind("desec", &[secret("token", &["DESEC_TOKEN"])])),
    kind("digitalocean", &[secret("token", &["DO_AUTH_TOKEN", "DIGITALOCEAN_TOKEN"])]),
    kind("dnsimple", &[secret("token", &["DNSIMPLE_OAUTH_TOKEN"]), plain("account_id", &["DNSIMPLE_ACCOUNT_ID"])]),
    kind(
        "dnsmadeeasy",
        &[secret("api_key", &["DNSMADEEASY_API_KEY"]), secret("api_secret", &["DNSMADEEASY_API_SECRET"])],
    ),
    slow(
        300,
        kind(
            "domeneshop",
            &[secret("token", &["DOMENESHOP_API_TOKEN"]), secret("api_secret", &["DOMENESHOP_API_SECRET"])],
        ),
    ),
    kind("dreamhost", &[secret("api_key", &["DREAMHOST_API_KEY"])]),
    of_one_value("duckdns", &[secret("token", &["DUCKDNS_TOKEN"])]),
    kind("dynu", &[secret("api_key", &["DYNU_API_KEY"])]),
    kind("easydns", &[secret("token", &["EASYDNS_TOKEN"]), secret("key", &["EASYDNS_KEY"])]),
    kind("exoscale", &[secret("api_key", &["EXOSCALE_API_KEY"]), secret("api_secret", &["EXOSCALE_API_SECRET"])]),
    of_one_value("freemyip", &[secret("token", &["FREEMYIP_TOKEN"])]),
    slow(300, kind("gandi", &[secret("token", &["GANDIV5_PERSONAL_ACCESS_TOKEN", "GANDI_BEARER_TOKEN"])])),
    kind("gcore", &[secret("token", &["GCORE_PERMANENT_API_TOKEN"])]),
    kind("glesys", &[plain("user", &["GLESYS_API_USER"]), secret("api_key", &["GLESYS_API_KEY"])]),
    slow(
        600,
        kind("godaddy", &[secret("api_key", &["GODADDY_API_KEY"]), secret("api_secret", &["GODADDY_API_SECRET"])]),
    ),
    kind("googlecloud", &[secret("service_account", &["GCE_SERVICE_ACCOUNT"]), plain("project", &["GCE_PROJECT"])]),
    kind("hetzner", &[secret("token", &["HETZNER_API_TOKEN"])]),
    kind("hostingde", &[secret("api_key", &["HOSTINGDE_API_KEY"])]),
    kind("hostinger", &[secret("token", &["HOSTINGER_API_TOKEN"])]),
    slow(300, kind("infomaniak", &[secret("token", &["INFOMANIAK_ACCESS_TOKEN"])])),
    slow(300, kind("inwx", &[plain("user", &["INWX_USERNAME"]), secret("password", &["INWX_PASSWORD"])])),
    slow(300, kind("ionos", &[secret("api_key", &["IONOS_API_KEY"])])),
    kind("ipv64", &[secret("api_key", &["IPV64_API_KEY"])]),
    slow(300, kind("linode", &[secret("token", &["LINODE_TOKEN"])])),
    slow(300, kind("luadns", &[plain("user", &["LUADNS_API_USERNAME"]), secret("token", &["LUADNS_API_TOKEN"])])),
    slow(
        300,
        kind(
            "mythicbeasts",
            &[plain("user", &["MYTHICBEASTS_USERNAME"]), secret("password", &["MYTHICBEASTS_PASSWORD"])],
        ),
    ),
    kind(
        "namecheap",
        &[
            plain("user", &["NAMECHEAP_API_USER"]),
            secret("api_key", &["NAMECHEAP_API_KEY"]),
            plain("client_ip", &["NAMECHEAP_CLIENT_IP"]),
        ],
    ),
    slow(300, kind("namedotcom", &[plain("user", &["NAMECOM_USERNAME"]), secret("token", &["NAMECOM_API_TOKEN"])])),
    kind("namesilo", &[secret("api_key", &["NAMESILO_API_KEY"])]),
    kind(
        "netcup",
        &[
            plain("customer_number", &["NETCUP_CUSTOMER_NUMBER"]),
            secret("api_key", &["NETCUP_API_KEY"]),
            secret("password", &["NETCUP_API_PASSWORD"]),
        ],
    ),
    kind("netlify", &[secret("token", &["NETLIFY_TOKEN"])]),
    kind("ns1", &[secret("api_key", &["NS1_API_KEY"])]),
    kind(
        "ovh",
        &[
            secret("application_key", &["OVH_APPLICATION_KEY"]),
            secret("application_secret", &["OVH_APPLICATION_SECRET"]),
            secret("consumer_key", &["OVH_CONSUMER_KEY"]),
            optional(plain("endpoint", &["OVH_ENDPOINT"])),
        ],
    ),
    slow(
        600,
        kind("porkbun", &[secret("api_key", &["PORKBUN_API_KEY"]), secret("secret_key", &["PORKBUN_SECRET_API_KEY"])]),
    ),
    kind(
        "powerdns",
        &[
            secret("api_key", &["PDNS_API_KEY"]),
            plain("endpoint", &["PDNS_API_URL"]),
            optional(plain("server_name", &["PDNS_SERVER_NAME"])),
        ],
    ),
    kind(
        "rfc2136",
        &[
            plain("server", &["RFC2136_NAMESERVER"]),
            plain("key_name", &["RFC2136_TSIG_KEY"]),
            secret("key_secret", &["RFC2136_TSIG_SECRET"]),
            optional(plain("key_algorithm", &["RFC2136_TSIG_ALGORITHM"])),
        ],
    ),
    kind(
        "route53",
        &[
            secret("access_key_id", &["AWS_ACCESS_KEY_ID"]),
            secret("secret_access_key", &["AWS_SECRET_ACCESS_KEY"]),
            optional(secret("session_token", &["AWS_SESSION_TOKEN"])),
            optional(plain("region", &["AWS_REGION"])),
            optional(plain("hosted_zone_id", &["AWS_HOSTED_ZONE_ID"])),
        ],
    ),
    kind("safedns", &[secret("token", &["SAFEDNS_AUTH_TOKEN"])]),
    kind("scaleway", &[secret("token", &["SCW_SECRET_KEY", "SCALEWAY_API_TOKEN"])]),
    kind("simplycom", &[plain("account", &["SIMPLY_ACCOUNT_NAME"]), secret("api_key", &["SIMPLY_API_KEY"])]),
    slow(
        300,
        kind(
            "spaceship",
            &[secret("api_key", &["SPACESHIP_API_KEY"]), secret("api_secret", &["SPACESHIP_API_SECRET"])],
        ),
    ),
    slow(
        300,
        kind(
            "transip",
            &[plain("account", &["TRANSIP_ACCOUNT_NAME"]), secret("private_key", &["TRANSIP_PRIVATE_KEY"])],
        ),
    ),
    kind("vercel", &[secret("token", &["VERCEL_API_TOKEN"]), optional(plain("team_id", &["VERCEL_TEAM_ID"]))]),
    kind("vultr", &[secret("api_key", &["VULTR_API_KEY"])]),
    slow(
        600,
        kind("websupport", &[secret("api_key", &["WEBSUPPORT_API_KEY"]), secret("secret", &["WEBSUPPORT_SECRET"])]),
    ),
    kind("zoneeu", &[plain("user", &["ZONEEU_API_USER"]), secret("api_key", &["ZONEEU_API_KEY"])]),
];

/// The ways in which RFC 2136 is signed, best known first.
pub const TSIG_ALGORITHMS: &[&str] = &["hmac-sha256", "hmac-sha512", "hmac-sha384"];

impl DnsAccess {
    /// What it is called: the provider's name, or `command`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Provider(provider) => provider.kind.name,
            Self::Hook(_) => "command",
        }
    }

    /// The provider, if it is one.
    pub fn provider(&self) -> Option<&DnsProvider> {
        match self {
            Self::Provider(provider) => Some(provider),
            Self::Hook(_) => None,
        }
    }
}

impl DnsProviderKind {
    /// The provider of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        DNS_PROVIDERS.iter().find(|kind| kind.name.eq_ignore_ascii_case(name))
    }
}

impl DnsOption {
    /// Whether its text may have several lines.
    pub fn has_lines(&self) -> bool {
        matches!(self.key, "private_key" | "service_account")
    }

    /// The key that is written.
    pub fn written(&self) -> String {
        if self.secret { format!("{}_file", self.key) } else { self.key.to_owned() }
    }
}
