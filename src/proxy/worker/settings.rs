//! What of the settings concerns the data plane.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use super::limits::Limits;
use crate::model::AccessLog;

/// What of the settings concerns the data plane; swapped as a whole on reload.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Networks whose `X-Forwarded-*` fields are believed and extended.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Requests that cause a wake, for each client address and minute.
    pub wakes_per_client: u32,
    /// Limits and time-outs of the front.
    pub limits: Limits,
    /// How long requests in flight may take to end at a shutdown.
    pub shutdown_timeout: Duration,
    /// Those who come in clear to a host that has a certificate are sent to this port; absent: they are not.
    pub https_redirect: Option<u16>,
    /// What browsers are told to remember; absent: nothing.
    pub hsts: Option<String>,
    /// What is written down of requests; absent: nothing.
    pub access_log: Option<Arc<AccessLog>>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            wakes_per_client: 30,
            limits: Limits::default(),
            shutdown_timeout: Duration::from_secs(30),
            https_redirect: None,
            hsts: None,
            access_log: None,
        }
    }
}
