//! Makes containers of our own on a Docker-compatible engine, and takes them away again: what the demo needs.
//!
//! What always holds: nothing is removed but what carries the label of a workshop, and of those only what belongs to
//! this one, or to one whose process has ended on this very machine.

use std::{fs, time::Duration};

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::{Value, json};

use super::{
    BadPlace, ProviderError,
    docker_client::{Answer, Client, escape},
    docker_place::Place,
    docker_translate::text,
    process_os::{Activity, Identity, boot_id},
};

/// The label of everything that a workshop makes; its value tells whose it is.
const LABEL: &str = "dormouse-workshop";
/// For small requests.
const SOON: Duration = Duration::from_secs(30);
/// For an image that is sent and unpacked.
const IMPORT: Duration = Duration::from_secs(180);

/// A place to make containers, of this process alone.
#[derive(Debug)]
pub struct Workshop {
    client: Client,
    owner: Owner,
}

/// A process, known over restarts of the machine and of process numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    host: String,
    boot: String,
    /// The namespace in which the process number counts.
    space: String,
    process: Identity,
}

impl Workshop {
    /// On the engine at this address; absent: that of this machine. Does not connect yet.
    pub fn open(address: Option<&str>) -> Result<Self, BadPlace> {
        Ok(Self { client: Client::new(Place::find(address, false)?), owner: Owner::us() })
    }

    /// The engine's address.
    pub fn engine(&self) -> String {
        self.client.engine()
    }

    /// Makes an image of one layer, an archive in the form of `tar`, with these variables in its environment.
    pub async fn import(&self, image: &str, layer: Vec<u8>, environment: &[&str]) -> Result<(), ProviderError> {
        let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let label = format!("LABEL {LABEL}=\"{}\"", self.owner.text());
        let variables = environment.iter().map(|variable| format!("ENV {variable}"));
        let changes: String = variables.chain([label]).map(|change| format!("&changes={}", escape(&change))).collect();
        let path = format!("/images/create?fromSrc=-&repo={}&tag={}{changes}", escape(repository), escape(tag));
        let answer = self.client.send_body(Method::POST, &path, "application/x-tar", layer.into(), IMPORT).await?;
        // A failure after the head of the answer is told in its body.
        let failure = answer.lines().find_map(|line| Some(line.get("error")?.as_str()?.to_owned()));
        match failure {
            None => done("import", image, &answer),
            Some(reason) => Err(ProviderError::Refused { verb: "import", unit: image.to_owned(), reason }),
        }
    }

    /// Makes a container that is not started.
    pub async fn create(&self, name: &str, image: &str, command: &[&str], port: u16) -> Result<(), ProviderError> {
        let mut exposed = serde_json::Map::new();
        exposed.insert(format!("{port}/tcp"), json!({}));
        let mut labels = serde_json::Map::new();
        labels.insert(LABEL.to_owned(), Value::String(self.owner.text()));
        let body = json!({ "Image": image, "Cmd": command, "ExposedPorts": exposed, "Labels": labels });
        let (path, body) = (format!("/containers/create?name={}", escape(name)), Bytes::from(body.to_string()));
        let answer = self.client.send_body(Method::POST, &path, "application/json", body, SOON).await?;
        done("create", name, &answer)
    }

    /// Removes what this workshop has made, and what was left by those whose process has been killed.
    pub async fn clear(&self) -> Result<(), ProviderError> {
        let filter = escape(&json!({ "label": [LABEL] }).to_string());
        for (list, one) in [("/containers/json?all=1&", "/containers"), ("/images/json?", "/images")] {
            let answer = self.client.call(Method::GET, &format!("{list}filters={filter}"), SOON).await?;
            done("list", LABEL, &answer)?;
            let found = answer.json().and_then(|found| found.as_array().cloned()).unwrap_or_default();
            for thing in found.iter().filter(|thing| self.may_remove(thing)) {
                let id = text(thing, "/Id");
                let volumes = if one == "/containers" { "&v=1" } else { "" };
                let path = format!("{one}/{}?force=1{volumes}", escape(id));
                let answer = self.client.call(Method::DELETE, &path, SOON).await?;
                if answer.status != StatusCode::NOT_FOUND {
                    done("remove", id, &answer)?;
                }
            }
        }
        Ok(())
    }

    fn may_remove(&self, thing: &Value) -> bool {
        let label = thing.get("Labels").and_then(|labels| labels.get(LABEL)).and_then(Value::as_str);
        label.and_then(Owner::parse).is_some_and(|owner| owner == self.owner || owner.is_over(&self.owner))
    }
}

fn done(verb: &'static str, what: &str, answer: &Answer) -> Result<(), ProviderError> {
    if answer.status.is_success() {
        return Ok(());
    }
    Err(ProviderError::Refused { verb, unit: what.to_owned(), reason: answer.words() })
}

impl Owner {
    fn us() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
        Self {
            host: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            boot: boot_id().unwrap_or_default(),
            space: space.unwrap_or_default(),
            process: Identity::of(pid).unwrap_or(Identity { pid, start_time: 0 }),
        }
    }

    fn text(&self) -> String {
        let Self { host, boot, space, process: Identity { pid, start_time } } = self;
        format!("{host}/{boot}/{space}/{pid}/{start_time}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut next = || parts.next();
        let (host, boot, space) = (next()?.to_owned(), next()?.to_owned(), next()?.to_owned());
        let process = Identity { pid: next()?.parse().ok()?, start_time: next()?.parse().ok()? };
        Some(Self { host, boot, space, process })
    }

    /// Whether it is known, from where `we` are, that this one has ended. Nothing is known of other machines.
    fn is_over(&self, we: &Self) -> bool {
        if self.host != we.host {
            return false;
        }
        self.boot != we.boot || (self.space == we.space && self.process.activity() == Activity::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_or_of_the_dead_is_removed() {
        let us = Owner::us();
        assert_eq!(Owner::parse(&us.text()), Some(us.clone()));
        assert!(!us.is_over(&us));
        let later = Identity { start_time: us.process.start_time + 1, ..us.process };
        assert!(Owner { process: later, ..us.clone() }.is_over(&us), "another process with its number");
        assert!(Owner { boot: "before".into(), ..us.clone() }.is_over(&us));
        assert!(!Owner { host: "elsewhere".into(), boot: "x".into(), ..us.clone() }.is_over(&us));
        assert!(!Owner { space: "pid:[1]".into(), process: later, ..us.clone() }.is_over(&us));
        let workshop = Workshop::open(Some("unix:///nowhere")).unwrap();
        assert!(workshop.may_remove(&json!({ "Labels": { LABEL: us.text() } })));
        for other in [json!({ "Labels": null }), json!({}), json!({ "Labels": { LABEL: "yes" } })] {
            assert!(!workshop.may_remove(&other), "{other}");
        }
    }
}
