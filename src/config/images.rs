//! What is known of images by name: their port and scheme, and which are no services for people.

use crate::model::{Container, Scheme};

/// The parts of an image reference that matter: `registry:5000/author/name:tag@digest`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageName<'a> {
    /// What stands between registry and name; empty for images without.
    pub(super) author: &'a str,
    /// The last part, without tag and digest.
    pub(super) name: &'a str,
}

/// Splits a reference as Docker does: the first part is a registry when it holds a dot or a colon or is `localhost`.
pub(super) fn image_name(reference: &str) -> ImageName<'_> {
    let reference = reference.split('@').next().unwrap_or_default();
    let path = match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => reference,
    };
    let (author, last) = path.rsplit_once('/').unwrap_or(("", path));
    ImageName { author, name: last.split(':').next().unwrap_or_default() }
}

/// The well-known port and scheme of an image.
pub(super) fn well_known(reference: &str) -> Option<(u16, Scheme)> {
    let name = image_name(reference).name;
    WELL_KNOWN.iter().find(|(known, ..)| *known == name).map(|(_, port, scheme)| (*port, *scheme))
}

const WELL_KNOWN: &[(&str, u16, Scheme)] = &[
    ("adguardhome", 3000, Scheme::Http),
    ("bazarr", 6767, Scheme::Http),
    ("calibre-web", 8083, Scheme::Http),
    ("changedetection.io", 3000, Scheme::Http),
    ("dockge", 5001, Scheme::Http),
    ("gitea", 3000, Scheme::Http),
    ("gogs", 3000, Scheme::Http),
    ("grafana", 3000, Scheme::Http),
    ("home-assistant", 8123, Scheme::Http),
    ("homebridge", 8581, Scheme::Http),
    ("httpd", 80, Scheme::Http),
    ("immich", 3001, Scheme::Http),
    ("jellyfin", 8096, Scheme::Http),
    ("lidarr", 8686, Scheme::Http),
    ("microbin", 8080, Scheme::Http),
    ("nginx", 80, Scheme::Http),
    ("nginx-proxy-manager", 81, Scheme::Http),
    ("open-webui", 8080, Scheme::Http),
    ("plex", 32400, Scheme::Http),
    ("prometheus", 9090, Scheme::Http),
    ("prowlarr", 9696, Scheme::Http),
    ("radarr", 7878, Scheme::Http),
    ("radarr-sma", 7878, Scheme::Http),
    ("rsshub", 1200, Scheme::Http),
    ("rss-bridge", 80, Scheme::Http),
    ("sonarr", 8989, Scheme::Http),
    ("sonarr-sma", 8989, Scheme::Http),
    ("uptime-kuma", 3001, Scheme::Http),
    ("whisparr", 6969, Scheme::Http),
    ("portainer-be", 9443, Scheme::Https),
    ("portainer-ce", 9443, Scheme::Https),
    ("mssql", 1433, Scheme::Tcp),
    ("mysql", 3306, Scheme::Tcp),
    ("mariadb", 3306, Scheme::Tcp),
    ("postgres", 5432, Scheme::Tcp),
    ("pgvecto-rs", 5432, Scheme::Tcp),
    ("pgvector", 5432, Scheme::Tcp),
    ("rabbitmq", 5672, Scheme::Tcp),
    ("redis", 6379, Scheme::Tcp),
    ("memcached", 11211, Scheme::Tcp),
    ("mongo", 27017, Scheme::Tcp),
    ("minecraft-server", 25565, Scheme::Tcp),
];

const HIDDEN_NAMES: [&str; 14] = [
    "postgres",
    "mysql",
    "mariadb",
    "redis",
    "memcached",
    "mongo",
    "rabbitmq",
    "couchdb",
    "neo4j",
    "telegraf",
    "elasticsearch",
    "meilisearch",
    "kibana",
    "solr",
];
const HIDDEN_AUTHORS: [&str; 6] = ["selenium", "browserless", "zenika", "zabbix", "moby", "docker"];
const HIDDEN_MOUNTS: [&str; 6] = [
    "/var/lib/postgresql/data",
    "/var/lib/mysql",
    "/var/lib/mongodb",
    "/var/lib/mariadb",
    "/var/lib/memcached",
    "/var/lib/rabbitmq",
];
const HIDDEN_PORTS: [u16; 5] = [5432, 6379, 3306, 11211, 27017];

/// Why a container without labels is no service for people, if it is none.
pub(super) fn hidden(container: &Container) -> Option<String> {
    let image = image_name(&container.image);
    if container.name.starts_with("buildx_") {
        return Some("a builder of images".to_owned());
    }
    if HIDDEN_NAMES.contains(&image.name) {
        return Some(format!("image `{}` is a database or a helper", image.name));
    }
    if HIDDEN_AUTHORS.contains(&image.author) {
        return Some(format!("images of `{}` are helpers", image.author));
    }
    if let Some(mount) = container.mounts.iter().find(|mount| HIDDEN_MOUNTS.contains(&mount.as_str())) {
        return Some(format!("it mounts `{mount}`, the data of a database"));
    }
    let port = container.ports.iter().find(|port| HIDDEN_PORTS.contains(&port.port))?;
    Some(format!("it exposes port {}, that of a database", port.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_as_docker_does() {
        for (reference, author, name) in [
            ("nginx", "", "nginx"),
            ("nginx:1.27", "", "nginx"),
            ("library/nginx@sha256:00", "library", "nginx"),
            ("registry:5000/img:1", "", "img"),
            ("registry:5000/a/b/img:1@sha256:00", "a/b", "img"),
            ("lscr.io/linuxserver/sonarr:latest", "linuxserver", "sonarr"),
            ("localhost/app", "", "app"),
        ] {
            assert_eq!(image_name(reference), ImageName { author, name }, "{reference}");
        }
    }
}
