//! What `docker inspect` has printed into a file, for those who want to know what would be made of it.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::docker_translate::{View, container, host_of, is_named, text};
use crate::model::{Container, NodeName};

/// Why a text is no output of `docker inspect`.
#[derive(Debug, thiserror::Error)]
pub enum BadInspect {
    /// It is no JSON.
    #[error("it is no JSON")]
    Syntax(#[from] serde_json::Error),
    /// It is something else.
    #[error("{0}")]
    Shape(String),
}

/// Reads one object, or an array of them, in the form of `docker inspect`.
pub fn parse_inspect(json: &str, node: &NodeName) -> Result<Vec<Container>, BadInspect> {
    let objects = match serde_json::from_str(json)? {
        Value::Array(objects) => objects,
        object @ Value::Object(_) => vec![object],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(BadInspect::Shape("it is neither an object nor an array of objects".to_owned()));
        }
    };
    let view = View { node: node.clone(), machine: IpAddr::V4(Ipv4Addr::LOCALHOST), own_networks: Vec::new() };
    let mut found = Vec::with_capacity(objects.len());
    for (index, object) in objects.iter().enumerate() {
        let host = host_of(object).and_then(|host| objects.iter().find(|other| is_named(other, host)));
        let missing = missing(object);
        let made = container(object, &view, None, host).filter(|_| missing.is_empty());
        found.push(made.ok_or_else(|| {
            let (number, missing) = (index + 1, missing.join("`, `"));
            let shape = "it is not in the form of `docker inspect CONTAINER`";
            BadInspect::Shape(format!("object {number} has no `{missing}`: {shape}"))
        })?);
    }
    Ok(found)
}

/// What an object lacks that each container has.
fn missing(object: &Value) -> Vec<&'static str> {
    let is_there = |key: &&str| match *key {
        "Id" | "Name" => !text(object, &format!("/{key}")).trim_start_matches('/').is_empty(),
        _ => object.get(key).is_some_and(Value::is_object),
    };
    ["Id", "Name", "Config", "State"].into_iter().filter(|key| !is_there(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::docker_samples::{address_of, here, web, with},
        *,
    };
    use crate::model::ContainerState;

    #[test]
    fn nothing_that_is_missing_or_of_another_type_hides_a_container() {
        let found = parse_inspect(r#"{"Id":"b","Name":"/bare","Config":{},"State":{}}"#, &here().node).unwrap();
        assert_eq!(found[0].name, "bare");
        assert_eq!(found[0].state, ContainerState::Stopped { exit_code: None, error: None });
        let odd = r#"[{"Name":"odd","Id":"7","Config":{"Labels":null,"ExposedPorts":[1]},"State":{"Status":1},"Mounts":{},
            "HostConfig":null,"NetworkSettings":{"Ports":{"80/tcp":{"HostPort":1}},"Networks":[]},"Created":0}]"#;
        assert_eq!(parse_inspect(odd, &here().node).unwrap().len(), 1);
    }

    #[test]
    fn an_inspect_file_is_one_object_or_an_array() {
        let node = here().node;
        assert_eq!(parse_inspect(&web().to_string(), &node).unwrap().len(), 1);
        let guest = with(&[
            ("/Name", "/guest".into()),
            ("/Id", "f".into()),
            ("/HostConfig/NetworkMode", "container:web".into()),
        ]);
        let both = parse_inspect(&serde_json::json!([web(), guest]).to_string(), &node).unwrap();
        let ContainerState::Running(how) = &both[1].state else { panic!("it runs") };
        assert_eq!(address_of(how).as_deref(), Some("172.19.0.2"), "as the container whose network it shares");
        assert!(matches!(parse_inspect("{", &node), Err(BadInspect::Syntax(_))));
        assert!(matches!(parse_inspect("7", &node), Err(BadInspect::Shape(_))));
        // What other commands print.
        let listed = r#"{"ID":"c0ffee","Names":"web","State":"running"}"#;
        let image = r#"{"Id":"sha256:c0ffee","Config":{},"RepoTags":["web:1"]}"#;
        for (text, missing) in [
            ("[{}]", "`Id`, `Name`, `Config`, `State`"),
            (listed, "`Id`, `Name`, `Config`, `State`"),
            (image, "`Name`, `State`"),
        ] {
            let told = parse_inspect(text, &node).unwrap_err().to_string();
            let shape = "it is not in the form of `docker inspect CONTAINER`";
            assert_eq!(told, format!("object 1 has no {missing}: {shape}"));
        }
    }
}
