//! A provider of DNS: its records put in and taken out.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use dns_update::{
    DnsRecord, DnsRecordType, DnsUpdater, Error, TsigAlgorithm,
    providers::{
        azuredns::{AzureDnsConfig, AzureEnvironment},
        google_cloud_dns::GoogleCloudDnsConfig,
        route53::Route53Config,
    },
};
use tokio::{net::lookup_host, time::timeout};

use super::{
    dns_ask::{self, Spot},
    dns_error,
    dns_secrets::Needs,
    failed::Failed,
};
use crate::model::{DnsProvider, DnsServer, NoDnsServer, TSIG_ALGORITHMS};

/// So long a provider may take for one request, and for all that a record needs.
const REQUEST: Option<Duration> = Some(Duration::from_secs(30));
const PATIENCE: Duration = Duration::from_secs(120);

/// So much of what it said is told when it fails.
const TOLD: usize = 300;

/// A provider that can be asked.
pub(super) struct Client<'a> {
    settings: &'a DnsProvider,
    needs: Needs,
    updater: DnsUpdater,
    /// The server that is told the changes, where there is one.
    server: Option<SocketAddr>,
}

impl<'a> Client<'a> {
    /// Reads what it needs.
    pub(super) async fn open(settings: &'a DnsProvider) -> Result<Self, Failed> {
        let needs = Needs::read(settings).map_err(Failed::refused)?;
        let server = match needs.find("server") {
            Some(server) => Some(address_of(server).await?),
            None => None,
        };
        let updater = updater(settings, &needs, server).map_err(Failed::refused)?;
        Ok(Self { settings, needs, updater, server })
    }

    /// Where a record belongs.
    pub(super) async fn locate(&self, name: &str) -> Result<Spot, Failed> {
        let resolvers = self.resolvers();
        let servers = self.server.map_or_else(|| resolvers.clone(), |server| vec![server]);
        let found = dns_ask::locate(name, self.settings.zone.as_deref(), &resolvers, &servers).await;
        found.map_err(|failed| {
            let (name, at) = (name.trim_end_matches('.'), self.name());
            Failed { why: format!("can not put the record `{name}` at `{at}`: {}", failed.why), ..failed }
        })
    }

    /// Puts a value beside those that a name has.
    pub(super) async fn put(&self, spot: &Spot, value: &str) -> Result<(), Failed> {
        let (kind, ttl) = (DnsRecordType::TXT, self.settings.kind.ttl);
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let (name, zone) = (spot.name.as_str(), spot.zone.as_str());
        let done = if self.settings.kind.one_value {
            timeout(PATIENCE, self.updater.set_rrset(name, kind, ttl, records, zone)).await
        } else {
            timeout(PATIENCE, self.updater.add_to_rrset(name, kind, ttl, records, zone)).await
        };
        self.told("put", spot, done)
    }

    /// Takes this value out, and no other.
    pub(super) async fn take(&self, spot: &Spot, value: &str) -> Result<(), Failed> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let (name, zone) = (spot.name.as_str(), spot.zone.as_str());
        let done = if self.settings.kind.one_value {
            // There is no other.
            timeout(PATIENCE, self.updater.set_rrset(name, DnsRecordType::TXT, 0, Vec::new(), zone)).await
        } else {
            timeout(PATIENCE, self.updater.remove_from_rrset(name, DnsRecordType::TXT, records, zone)).await
        };
        self.told("take out", spot, done)
    }

    /// Waits until a record is seen, unless nobody is to look.
    pub(super) async fn wait_for(&self, spot: &Spot, value: &str) -> Result<(), Failed> {
        if self.settings.propagation_timeout.is_zero() {
            return Ok(());
        }
        dns_ask::wait_for(spot, value, &self.settings.resolvers, self.settings.propagation_timeout).await
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        if self.settings.resolvers.is_empty() { dns_ask::usual_resolvers() } else { self.settings.resolvers.clone() }
    }

    fn told<E>(&self, what: &str, spot: &Spot, done: Result<Result<(), Error>, E>) -> Result<(), Failed> {
        let at = self.server.map(|server| format!(" (`{server}`)")).unwrap_or_default();
        let what =
            format!("can not {what} the record `{}` of the zone `{}` at `{}`{at}", spot.name, spot.zone, self.name());
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(dns_error::failed(&what, &error, self.server.is_some(), |why| {
                self.needs.without_secrets(why).chars().take(TOLD).collect()
            })),
            Err(_) => Err(Failed::passing(format!("{what}: it took longer than {} s", PATIENCE.as_secs()))),
        }
    }

    fn name(&self) -> &'static str {
        self.settings.kind.name
    }
}

/// Whether all that is given has the right form.
pub(super) fn check(settings: &DnsProvider, needs: &Needs) -> Result<(), String> {
    let anywhere = needs.find("server").map(|_| SocketAddr::from(([127, 0, 0, 1], 53)));
    updater(settings, needs, anywhere).map(drop)
}

async fn address_of(server: &str) -> Result<SocketAddr, Failed> {
    let failed = |why: &dyn Display| Failed::passing(format!("can not look up the DNS server `{server}`: {why}"));
    let DnsServer { host, port } = server.parse().map_err(|wrong: NoDnsServer| Failed::refused(wrong.to_string()))?;
    let mut found = lookup_host((host, port)).await.map_err(|error| failed(&error))?;
    found.next().ok_or_else(|| failed(&"it has no address"))
}

fn updater(settings: &DnsProvider, needs: &Needs, server: Option<SocketAddr>) -> Result<DnsUpdater, String> {
    let name = settings.kind.name;
    let failed = |error: &dyn Display| {
        format!("what `{name}` needs is not as it should be: {}", needs.without_secrets(&error.to_string()))
    };
    let get = |key: &str| needs.get(key);
    let made = match name {
        "arvancloud" => DnsUpdater::new_arvancloud(get("api_key"), REQUEST),
        "azure" => DnsUpdater::new_azuredns(AzureDnsConfig {
            tenant_id: get("tenant_id").to_owned(),
            client_id: get("client_id").to_owned(),
            client_secret: get("client_secret").to_owned(),
            subscription_id: get("subscription_id").to_owned(),
            resource_group: get("resource_group").to_owned(),
            environment: AzureEnvironment::Public,
            request_timeout: REQUEST,
        }),
        "bunny" => DnsUpdater::new_bunny(get("api_key"), REQUEST),
        "cloudflare" => DnsUpdater::new_cloudflare(get("token"), REQUEST),
        "cloudns" => DnsUpdater::new_cloudns(Some(get("auth_id")), None::<&str>, get("password"), REQUEST),
        "constellix" => DnsUpdater::new_constellix(get("api_key"), get("secret_key"), REQUEST),
        "ddnss" => DnsUpdater::new_ddnss(get("key"), REQUEST),
        "desec" => DnsUpdater::new_desec(get("token"), REQUEST),
        "digitalocean" => DnsUpdater::new_digitalocean(get("token"), REQUEST),
        "dnsimple" => DnsUpdater::new_dnsimple(get("token"), get("account_id"), REQUEST),
        "dnsmadeeasy" => DnsUpdater::new_dnsmadeeasy(get("api_key"), get("api_secret"), REQUEST),
        "domeneshop" => DnsUpdater::new_domeneshop(get("token"), get("api_secret"), REQUEST),
        "dreamhost" => DnsUpdater::new_dreamhost(get("api_key"), REQUEST),
        "duckdns" => DnsUpdater::new_duckdns(get("token"), REQUEST),
        "dynu" => DnsUpdater::new_dynu(get("api_key"), REQUEST),
        "easydns" => DnsUpdater::new_easydns(get("token"), get("key"), REQUEST),
        "exoscale" => DnsUpdater::new_exoscale(get("api_key"), get("api_secret"), REQUEST),
        "freemyip" => DnsUpdater::new_freemyip(get("token"), REQUEST),
        "gandi" => DnsUpdater::new_gandiv5(get("token"), REQUEST),
        "gcore" => DnsUpdater::new_gcore(get("token"), REQUEST),
        "glesys" => DnsUpdater::new_glesys(get("user"), get("api_key"), REQUEST),
        "godaddy" => DnsUpdater::new_godaddy(get("api_key"), get("api_secret"), REQUEST),
        "googlecloud" => DnsUpdater::new_google_cloud_dns(GoogleCloudDnsConfig {
            service_account_json: get("service_account").to_owned(),
            project_id: get("project").to_owned(),
            managed_zone: None,
            private_zone: false,
            impersonate_service_account: None,
            request_timeout: REQUEST,
        }),
        "hetzner" => DnsUpdater::new_hetzner(get("token"), REQUEST),
        "hostingde" => DnsUpdater::new_hostingde(get("api_key"), REQUEST),
        "hostinger" => DnsUpdater::new_hostinger(get("token"), REQUEST),
        "infomaniak" => DnsUpdater::new_infomaniak(get("token"), REQUEST),
        "inwx" => DnsUpdater::new_inwx(get("user"), get("password"), false, REQUEST),
        "ionos" => DnsUpdater::new_ionos(get("api_key"), REQUEST),
        "ipv64" => DnsUpdater::new_ipv64(get("api_key"), REQUEST),
        "linode" => DnsUpdater::new_linode(get("token"), REQUEST),
        "luadns" => DnsUpdater::new_luadns(get("user"), get("token"), REQUEST),
        "mythicbeasts" => DnsUpdater::new_mythicbeasts(get("user"), get("password"), REQUEST),
        "namecheap" => DnsUpdater::new_namecheap(get("user"), get("api_key"), get("client_ip"), None::<&str>, REQUEST),
        "namedotcom" => DnsUpdater::new_namedotcom(get("user"), get("token"), REQUEST),
        "namesilo" => DnsUpdater::new_namesilo(get("api_key"), REQUEST),
        "netcup" => DnsUpdater::new_netcup(get("customer_number"), get("api_key"), get("password"), REQUEST),
        "netlify" => DnsUpdater::new_netlify(get("token"), REQUEST),
        "ns1" => DnsUpdater::new_ns1(get("api_key"), REQUEST),
        "ovh" => {
            let endpoint = needs.find("endpoint").unwrap_or("ovh-eu").parse().map_err(|error: Error| failed(&error))?;
            let [key, secret, consumer] = ["application_key", "application_secret", "consumer_key"].map(get);
            DnsUpdater::new_ovh(key, secret, consumer, endpoint, REQUEST)
        }
        "porkbun" => DnsUpdater::new_porkbun(get("api_key"), get("secret_key"), REQUEST),
        "powerdns" => DnsUpdater::new_pdns(get("api_key"), Some(get("endpoint")), needs.find("server_name"), REQUEST),
        "rfc2136" => {
            let key = BASE64_STANDARD.decode(get("key_secret")).map_err(|_| failed(&"the secret is not base64"))?;
            let server = server.map(|server| format!("tcp://{server}")).unwrap_or_default();
            DnsUpdater::new_rfc2136_tsig(server, get("key_name"), key, algorithm(needs.find("key_algorithm"))?)
        }
        "route53" => {
            let owned = |key: &str| needs.find(key).map(str::to_owned);
            DnsUpdater::new_route53(Route53Config {
                access_key_id: get("access_key_id").to_owned(),
                secret_access_key: get("secret_access_key").to_owned(),
                session_token: owned("session_token"),
                region: owned("region"),
                hosted_zone_id: owned("hosted_zone_id"),
                private_zone_only: None,
                endpoint: None,
            })
        }
        "safedns" => DnsUpdater::new_safedns(get("token"), REQUEST),
        "scaleway" => DnsUpdater::new_scaleway(get("token"), REQUEST),
        "simplycom" => DnsUpdater::new_simplycom(get("account"), get("api_key"), REQUEST),
        "spaceship" => DnsUpdater::new_spaceship(get("api_key"), get("api_secret"), REQUEST),
        "transip" => DnsUpdater::new_transip(get("account"), get("private_key"), true, REQUEST),
        "vercel" => DnsUpdater::new_vercel(get("token"), needs.find("team_id"), REQUEST),
        "vultr" => DnsUpdater::new_vultr(get("api_key"), REQUEST),
        "websupport" => DnsUpdater::new_websupport(get("api_key"), get("secret"), REQUEST),
        "zoneeu" => DnsUpdater::new_zoneeu(get("user"), get("api_key"), REQUEST),
        _ => return Err(format!("`{name}` is no provider of this build")),
    };
    made.map_err(|error| failed(&error))
}

/// Other programs write the name with a dot behind it.
fn algorithm(name: Option<&str>) -> Result<TsigAlgorithm, String> {
    match name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).as_deref() {
        Some("hmac-sha384") => Ok(TsigAlgorithm::HmacSha384),
        Some("hmac-sha512") => Ok(TsigAlgorithm::HmacSha512),
        Some("hmac-sha256") | None => Ok(TsigAlgorithm::HmacSha256),
        Some(other) => {
            let known = TSIG_ALGORITHMS.join("`, `");
            Err(format!("`{other}` is no `key_algorithm` that `rfc2136` can sign with (hint: one of `{known}`)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        acme::dns_secrets::samples::{KEY, given},
        model::{DNS_PROVIDERS, DnsValue},
        net::use_one_provider,
    };

    #[test]
    fn every_provider_that_can_be_written_can_be_spoken_to() {
        use_one_provider();
        for kind in DNS_PROVIDERS {
            let (settings, _directory) = given(kind);
            let needs = Needs::read(&settings).unwrap();
            check(&settings, &needs).unwrap_or_else(|why| panic!("{}: {why}", kind.name));
        }
    }

    #[tokio::test]
    async fn a_dns_server_may_be_one_of_the_next_link() {
        let address = async |text| address_of(text).await.unwrap().to_string();
        assert_eq!(address("[fe80::1%2]:5353").await, "[fe80::1%2]:5353");
        assert_eq!(address("fe80::1%2").await, "[fe80::1%2]:53");
        assert_eq!(address("192.0.2.1").await, "192.0.2.1:53");
    }

    #[test]
    fn every_algorithm_that_can_be_written_is_one_of_its_own_and_signs() {
        use_one_provider();
        let (mut settings, _directory) = given(DNS_PROVIDERS.iter().find(|kind| kind.name == "rfc2136").unwrap());
        let mut known = Vec::new();
        for name in TSIG_ALGORITHMS {
            let one = std::mem::discriminant(&algorithm(Some(name)).unwrap());
            assert!(!known.contains(&one), "{name}");
            known.push(one);
            settings.options.insert("key_algorithm", DnsValue::Text(format!("{}.", name.to_uppercase())));
            check(&settings, &Needs::read(&settings).unwrap()).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        settings.options.insert("key_algorithm", DnsValue::Text("hmac-md5".to_owned()));
        let why = check(&settings, &Needs::read(&settings).unwrap()).unwrap_err();
        assert!(why.contains("`hmac-md5`") && why.contains("`hmac-sha512`"), "{why}");
    }

    #[test]
    fn what_is_told_of_a_failure_is_one_line_without_secrets() {
        let (settings, directory) = given(DNS_PROVIDERS.iter().find(|kind| kind.name == "duckdns").unwrap());
        let needs = Needs::read(&settings).unwrap();
        let said = format!("Failed to send request to https://example.test/?token={KEY}:\n  refused");
        let told = needs.without_secrets(&said);
        assert_eq!(told, "Failed to send request to https://example.test/?…: refused");
        assert!(!format!("{needs:?}").contains(KEY));
        let file = directory.path().join("token");
        std::fs::write(&file, "My p@ss+word/1").unwrap();
        let needs = Needs::read(&settings).unwrap();
        for form in ["My p@ss+word/1", "My+p%40ss%2Bword%2F1", "My%20p%40ss%2Bword%2F1"] {
            let told = needs.without_secrets(&format!("https://example.test/{form}/x, body {form}"));
            assert_eq!(told, "https://example.test/…/x, body …", "{form}");
        }
    }
}
