//! `certificates`.

use super::{
    client::Client,
    output::{Output, Tone},
    table::Table,
    trouble::Trouble,
};
use crate::api::wire;

/// Lists the certificates, and the hosts that have none.
pub(super) async fn certificates(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let all: wire::Certificates = client.get("/api/v1/certificates").await?;
    if json {
        return output.json(&all);
    }
    let mut table = Table::new(&["HOSTS", "GOOD UNTIL", "OCSP", "ISSUER", "FROM"]);
    let plain = |text: String| (text, Tone::Plain);
    for certificate in &all.certificates {
        let tone = if certificate.expired { Tone::Bad } else { Tone::Plain };
        table.row(vec![
            plain(certificate.names.join(", ")),
            (certificate.not_after.clone(), tone),
            ocsp(certificate.ocsp.as_ref()),
            plain(certificate.issuer.clone()),
            plain(certificate.from.clone()),
        ]);
    }
    for host in &all.self_signed {
        table.row(vec![
            plain(host.clone()),
            ("-".to_owned(), Tone::Busy),
            plain("-".to_owned()),
            plain("self-signed".to_owned()),
            plain("-".to_owned()),
        ]);
    }
    table.print(output)
}

/// Where a certificate stands with its responder.
fn ocsp(ocsp: Option<&wire::Ocsp>) -> (String, Tone) {
    let Some(ocsp) = ocsp else { return ("-".to_owned(), Tone::Plain) };
    let tone = match ocsp.status.as_str() {
        "stapled" => Tone::Plain,
        "none" if !ocsp.must_staple => Tone::Busy,
        _ => Tone::Bad,
    };
    (ocsp.status.clone(), tone)
}
