//! What an error of a provider of DNS means: whether it may pass, and what to do.

use dns_update::Error;

use super::failed::Failed;

/// What errors say when a provider was not reached, or could not do it now. The library has them as texts only.
const PASSING: [&str; 6] = [
    "Failed to send request",
    "error sending request",
    "Failed to read response",
    "Failed to deserialize response",
    "HTTP 429",
    "HTTP 5",
];

/// The same of Route 53, which has words of its own.
const PASSING_OF_ROUTE53: [&str; 2] = ["API error: 429", "API error: 5"];

/// What a DNS server answers that could not do it now.
const SERVER_FAILURE: &str = "Server Failure";

/// Words of an error of a DNS server that was reached: what it answered makes no sense, or bears no sound signature.
const REACHED: [&str; 2] = ["protocol error", "DNS error"];

/// What came to nothing, and for what reason. `signed`: a DNS server was told the change, signed.
pub(super) fn failed(what: &str, error: &Error, signed: bool, tell: impl Fn(&str) -> String) -> Failed {
    if passes(error) {
        let why = tell(&error.to_string());
        return Failed::passing(format!("{what}: it was not reached, or could not do it now: {why}"));
    }
    Failed::refused(format!("{what}: {}", tell(&reason(error, signed))))
}

/// Whether it may go well the next time.
fn passes(error: &Error) -> bool {
    if let Error::Client(text) = error {
        return !REACHED.iter().any(|words| text.starts_with(words));
    }
    if let Error::Response(text) = error {
        return text == SERVER_FAILURE;
    }
    // What is not known is not asked again in haste.
    let (Error::Api(text) | Error::Serialize(text)) = error else { return false };
    PASSING.iter().chain(&PASSING_OF_ROUTE53).any(|words| text.contains(words))
}

/// Why it was refused, and what to do where that is known.
fn reason(error: &Error, signed: bool) -> String {
    if matches!(error, Error::Unauthorized) {
        return "it does not accept who asks (hint: has the secret expired, and may it change this zone?)".to_owned();
    }
    if matches!(error, Error::NotFound) {
        return "it does not know this zone (hint: is it another account's? name it with `dns: zone`)".to_owned();
    }
    let hint = if signed {
        " (hint: are `key_name`, `key_algorithm` and the secret those of the server, and may the key change this record?)"
    } else {
        ""
    };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        acme::{dns_ask::Spot, dns_provider::Client, dns_secrets::samples::given},
        model::{DnsProviderKind, DnsValue},
        net::use_one_provider,
    };

    /// Where nobody listens.
    const CLOSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    /// One who answers whatever is asked so, or goes away where there is no answer.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        at
    }

    /// What comes of a record that a provider is to put, which is spoken to there.
    async fn failed(kind: &str, option: &'static str, value: String) -> Failed {
        let (mut settings, _directory) = given(DnsProviderKind::find(kind).unwrap());
        settings.options.insert(option, DnsValue::Text(value));
        let client = Client::open(&settings).await.unwrap();
        let spot = Spot { name: "_acme-challenge.a.test".to_owned(), zone: "a.test".to_owned() };
        client.put(&spot, "v").await.unwrap_err()
    }

    #[tokio::test]
    async fn a_provider_that_is_away_or_unwell_may_be_back_and_one_that_says_no_says_no() {
        use_one_provider();
        let check = async |at: SocketAddr, passes: bool, expected: &str| {
            let failed = failed("powerdns", "endpoint", format!("http://{at}")).await;
            let words = ["`_acme-challenge.a.test`", "at `powerdns`", expected];
            assert!(words.iter().all(|word| failed.why.contains(word)), "{expected}: {failed:?}");
            assert_eq!(failed.passes(), passes, "{failed:?}");
        };
        check(CLOSED, true, "it was not reached").await;
        check(server("").await, true, "it was not reached").await;
        for (status, passes, expected) in [
            ("HTTP/1.1 503 .", true, "it was not reached, or could not do it now"),
            ("HTTP/1.1 429 .", true, "it was not reached, or could not do it now"),
            ("HTTP/1.1 401 .", false, "it does not accept who asks"),
            ("HTTP/1.1 403 .", false, "HTTP 403"),
            ("HTTP/1.1 422 .", false, "HTTP 422"),
        ] {
            let answer = format!("{status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            check(server(answer.leak()).await, passes, expected).await;
        }
    }

    #[tokio::test]
    async fn a_dns_server_that_is_away_may_be_back() {
        for at in [CLOSED, server("").await] {
            let failed = failed("rfc2136", "server", at.to_string()).await;
            let words = ["at `rfc2136`", &at.to_string(), "it was not reached"];
            assert!(failed.passes() && words.iter().all(|word| failed.why.contains(word)), "{failed:?}");
        }
    }

    #[test]
    fn what_a_dns_server_answers_is_its_word_but_for_a_failure_of_its_own() {
        for (error, expected) in [
            (Error::Response("Server Failure".to_owned()), true),
            (Error::Response("Query Refused".to_owned()), false),
            (Error::Client("protocol error: tsig validation error: wrong signature".to_owned()), false),
            (Error::Api("Route53 API error: 503 Service Unavailable - busy".to_owned()), true),
            (Error::Api("Route53 API error: 403 Forbidden - no".to_owned()), false),
        ] {
            assert_eq!(passes(&error), expected, "{error}");
        }
        let signed = super::failed("can not", &Error::Response("Query Refused".to_owned()), true, str::to_owned);
        assert!(signed.why.contains("Query Refused") && signed.why.contains("key_name"), "{signed:?}");
    }
}
