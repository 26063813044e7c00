//! Questions to the DNS: in which zone a name is, and whether everybody sees a record.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, lookup_host},
    time::{Instant, sleep, timeout},
};

use super::failed::Failed;

/// A server has so long to answer, each time that it is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// So often a server is asked that does not answer.
const TRIES: usize = 2;

/// A name may be another one's so many times over.
const ALIASES: usize = 8;

/// Between two looks at a record; it grows up to the second.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The largest datagram that is taken.
const DATAGRAM: usize = 4096;

/// Where a record belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Its name, without a dot at its end; another one than asked for where that one stands for it.
    pub(super) name: String,
    /// The zone that it is in, likewise.
    pub(super) zone: String,
}

/// Those whom this machine asks: of `/etc/resolv.conf`.
pub(super) fn usual_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let found = named_in(&text);
    // As resolv.conf(5) has it.
    if found.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], 53))] } else { found }
}

fn named_in(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|words| Some((words.split_whitespace().next()?.parse::<IpAddr>().ok()?, 53).into())).collect()
}

/// Looks where a record belongs. The name may stand for another one, which `resolvers` tell; the zone is asked of
/// `servers`, upwards from the name, unless it is known.
pub(super) async fn locate(
    name: &str,
    known: Option<&str>,
    resolvers: &[SocketAddr],
    servers: &[SocketAddr],
) -> Result<Spot, Failed> {
    let mut name = parsed(name).map_err(Failed::refused)?;
    for _ in 0..ALIASES {
        let answer = ask_any(resolvers, &name, RecordType::CNAME).await.ok();
        let records = answer.into_iter().flat_map(|answer| answer.answers);
        let aliases = records.filter(|record| record.name.eq_ignore_root(&name));
        let alias = aliases
            .into_iter()
            .find_map(|record| if let RData::CNAME(alias) = record.data { Some(alias.0) } else { None });
        match alias {
            Some(alias) => name = alias,
            None => break,
        }
    }
    let zone = match known {
        Some(zone) => zone.to_owned(),
        None => zone_of(&name, servers).await?,
    };
    Ok(Spot { name: told(&name), zone })
}

/// The zone that a name is in, which the record of its authority tells (RFC 2308, 3).
async fn zone_of(name: &Name, servers: &[SocketAddr]) -> Result<String, Failed> {
    let mut silent = None;
    let mut candidate = name.clone();
    while !candidate.is_root() {
        match ask_any(servers, &candidate, RecordType::SOA).await {
            Ok(answer) => {
                let mut records = answer.answers.iter().chain(&answer.authorities);
                let zone =
                    records.find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(&candidate));
                if let Some(zone) = zone.filter(|zone| !zone.name.is_root()) {
                    return Ok(told(&zone.name));
                }
            }
            Err(why) => silent = Some(why),
        }
        candidate = candidate.base_name();
    }
    let (name, servers) = (told(name), listed(servers));
    let hint = "(hint: name it with `dns: zone`, or who knows it with `dns: resolvers`)";
    Err(match silent {
        Some(why) => Failed::passing(format!("the zone of `{name}` is not found at {servers}: {why} {hint}")),
        None => Failed::refused(format!("the zone of `{name}` is not found at {servers} {hint}")),
    })
}

/// Waits until a record is seen: by `resolvers`, or else at all servers of its zone that answer.
pub(super) async fn wait_for(
    spot: &Spot,
    value: &str,
    resolvers: &[SocketAddr],
    patience: Duration,
) -> Result<(), Failed> {
    let (name, zone) = (parsed(&spot.name).map_err(Failed::refused)?, parsed(&spot.zone).map_err(Failed::refused)?);
    let since = Instant::now();
    let mut pause = LOOKS.0;
    loop {
        let usual = usual_resolvers();
        let lacking = if resolvers.is_empty() {
            let servers = servers_of(&zone, &usual).await;
            match look(&servers, &name, value).await {
                // None of them can be reached from here: who else asks them?
                Seen::Unknown => look(&usual, &name, value).await,
                seen @ (Seen::Everywhere | Seen::NotAt(_)) => seen,
            }
        } else {
            look(resolvers, &name, value).await
        };
        let why = match lacking {
            Seen::Everywhere => return Ok(()),
            Seen::NotAt(server) => format!("`{server}` does not have it"),
            Seen::Unknown => "no server answers".to_owned(),
        };
        if since.elapsed() + pause > patience {
            return Err(Failed::passing(format!(
                "the record `{}` was not seen within {} s: {why} (hint: raise `dns: propagation_timeout`, or name who is asked with `dns: resolvers`)",
                spot.name,
                patience.as_secs()
            )));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

enum Seen {
    Everywhere,
    NotAt(SocketAddr),
    /// Nobody answers.
    Unknown,
}

async fn look(servers: &[SocketAddr], name: &Name, value: &str) -> Seen {
    let mut seen = Seen::Unknown;
    for server in servers {
        let Ok(answer) = answer(*server, name, RecordType::TXT).await else { continue };
        let texts = answer
            .answers
            .iter()
            .filter_map(|record| if let RData::TXT(text) = &record.data { Some(text.txt_data.concat()) } else { None });
        if texts.into_iter().any(|text| text == value.as_bytes()) {
            seen = Seen::Everywhere;
        } else {
            return Seen::NotAt(*server);
        }
    }
    seen
}

/// The addresses of a zone's own servers.
async fn servers_of(zone: &Name, resolvers: &[SocketAddr]) -> Vec<SocketAddr> {
    let Ok(answer) = ask_any(resolvers, zone, RecordType::NS).await else { return Vec::new() };
    let mut found = Vec::new();
    for record in answer.answers {
        let RData::NS(server) = record.data else { continue };
        if let Ok(addresses) = lookup_host((server.0.to_ascii(), 53)).await {
            found.extend(addresses);
        }
    }
    found
}

/// Asks one after the other until one answers.
async fn ask_any(servers: &[SocketAddr], name: &Name, kind: RecordType) -> Result<Message, String> {
    let mut why = "there is nobody to ask".to_owned();
    for server in servers {
        match answer(*server, name, kind).await {
            Ok(answer) => return Ok(answer),
            Err(error) => why = format!("`{server}`: {error}"),
        }
    }
    Err(why)
}

/// An answer that says something: whether there is such a name, and what it has.
async fn answer(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let answer = ask(server, name, kind).await?;
    let code = answer.metadata.response_code;
    if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        Ok(answer)
    } else {
        Err(io::Error::other(format!("the answer is `{code}`")))
    }
}

async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.op_code = OpCode::Query;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let fits = |answer: &Message| answer.metadata.id == question.metadata.id && answer.queries == question.queries;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        match timeout(PATIENCE, by_udp(server, &bytes, fits)).await {
            Ok(Ok(answer)) if answer.metadata.truncation => {
                return timeout(PATIENCE, by_tcp(server, &bytes)).await?;
            }
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

async fn by_udp(server: SocketAddr, question: &[u8], fits: impl Fn(&Message) -> bool) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What answers no question of ours is not for us.
        if let Some(answer) = Message::from_vec(&buffer[..length]).ok().filter(&fits) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

fn parsed(name: &str) -> Result<Name, String> {
    let whole = format!("{}.", name.trim_end_matches('.'));
    Name::from_ascii(whole).map_err(|error| format!("`{name}` is no name of the DNS: {error}"))
}

fn told(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn listed(servers: &[SocketAddr]) -> String {
    servers.iter().map(|server| format!("`{server}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::{Record, rdata};

    use super::*;

    /// A server that answers each question as the function has it, until it is dropped with the runtime.
    async fn server(answer: impl Fn(&Name, RecordType, &mut Message) + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let asked = question.queries[0].clone();
                let mut message = Message::response(question.metadata.id, OpCode::Query);
                message.add_query(asked.clone());
                answer(asked.name(), asked.query_type(), &mut message);
                // What has another number is no answer.
                let mut forged = message.clone();
                forged.metadata.id = !forged.metadata.id;
                forged.answers.clear();
                socket.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        });
        at
    }

    fn name(text: &str) -> Name {
        parsed(text).unwrap()
    }

    fn authority(zone: &str) -> Record {
        let soa = rdata::SOA::new(name("ns.test"), name("hostmaster.test"), 1, 60, 60, 60, 60);
        Record::from_rdata(name(zone), 60, RData::SOA(soa))
    }

    #[tokio::test]
    async fn the_zone_is_found_upwards_and_an_alias_leads_to_another_one() {
        let at = server(|asked, kind, answer| {
            let asked = told(asked);
            if kind == RecordType::CNAME && asked == "_acme-challenge.a.example.test" {
                let alias = RData::CNAME(rdata::CNAME(name("a.Elsewhere.test")));
                answer.add_answer(Record::from_rdata(name(&asked), 60, alias));
            } else if kind == RecordType::SOA && asked == "elsewhere.test" {
                answer.add_answer(authority("elsewhere.test"));
            } else if kind == RecordType::SOA && asked == "b.sub.example.test" {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(authority("example.test"));
            } else {
                answer.metadata.response_code = ResponseCode::Refused;
            }
        })
        .await;
        let found =
            |text: &'static str, known: Option<&'static str>| async move { locate(text, known, &[at], &[at]).await };
        let spot = |name: &str, zone: &str| Ok(Spot { name: name.to_owned(), zone: zone.to_owned() });
        assert_eq!(found("_acme-challenge.a.example.test.", None).await, spot("a.elsewhere.test", "elsewhere.test"));
        assert_eq!(found("b.sub.example.test", None).await, spot("b.sub.example.test", "example.test"));
        assert_eq!(found("c.other.test", Some("other.test")).await, spot("c.other.test", "other.test"));
        let why = found("c.other.test", None).await.unwrap_err();
        let words = ["`c.other.test`", &at.to_string(), "dns: zone"];
        assert!(why.passes() && words.iter().all(|word| why.why.contains(word)), "{why:?}");
    }

    #[tokio::test]
    async fn a_zone_that_nobody_has_is_a_refusal_and_one_that_nobody_is_there_to_tell_of_is_none() {
        let at = server(|_, _, answer| answer.metadata.response_code = ResponseCode::NXDomain).await;
        let why = locate("c.other.test", None, &[at], &[at]).await.unwrap_err();
        assert!(!why.passes() && why.why.contains("is not found at"), "{why:?}");
        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let why = locate("c.other.test", None, &[closed], &[closed]).await.unwrap_err();
        assert!(why.passes() && why.why.contains("`127.0.0.1:1`: "), "{why:?}");
    }

    #[tokio::test]
    async fn a_record_is_waited_for_until_all_who_are_asked_have_it() {
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let texts = |values: &'static [&'static str]| {
            move |asked: &Name, answer: &mut Message| {
                for value in values {
                    let text = RData::TXT(rdata::TXT::new(vec![(*value).to_owned()]));
                    answer.add_answer(Record::from_rdata(asked.clone(), 60, text));
                }
            }
        };
        let both = texts(&["another", "ours"]);
        let early = server(move |asked, _, answer| both(asked, answer)).await;
        let both = texts(&["ours"]);
        let late = server(move |asked, _, answer| {
            if looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 {
                both(asked, answer);
            }
        })
        .await;
        let spot = Spot { name: "_acme-challenge.a.test".to_owned(), zone: "a.test".to_owned() };
        wait_for(&spot, "ours", &[early, late], Duration::from_secs(60)).await.unwrap();
        let why = wait_for(&spot, "nobody's", &[early, late], Duration::ZERO).await.unwrap_err();
        let words = [&early.to_string(), "propagation_timeout"];
        assert!(why.passes() && words.iter().all(|word| why.why.contains(word)), "{why:?}");
    }

    #[test]
    fn the_usual_resolvers_are_those_of_the_file() {
        let text = "# nameserver 192.0.2.9\nsearch lan\nnameserver 192.0.2.1\n nameserver 2001:db8::1\nnameserver x\n";
        let wanted: [SocketAddr; 2] = ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(named_in(text), wanted);
    }
}
