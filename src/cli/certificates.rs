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
    let mut table = Table::new(&["HOSTS", "GOOD UNTIL", "ISSUER", "FROM"]);
    let plain = |text: String| (text, Tone::Plain);
    for certificate in &all.certificates {
        let tone = if certificate.expired { Tone::Bad } else { Tone::Plain };
        table.row(vec![
            plain(certificate.names.join(", ")),
            (certificate.not_after.clone(), tone),
            plain(certificate.issuer.clone()),
            plain(certificate.from.clone()),
        ]);
    }
    for host in &all.self_signed {
        table.row(vec![
            plain(host.clone()),
            ("-".to_owned(), Tone::Busy),
            plain("self-signed".to_owned()),
            plain("-".to_owned()),
        ]);
    }
    table.print(output)
}
