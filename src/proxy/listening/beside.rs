//! Stream routes on the port of HTTPS: told by the name in the TLS hello, before HTTPS takes the rest.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::port::PortRoutes;
use crate::{
    control::LiveRoute,
    net::{Hello, TlsServer},
};

/// The stream routes that share a listener's port with HTTPS.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Beside(ArcSwapOption<PortRoutes>);

impl Beside {
    /// These from now on.
    pub(in crate::proxy) fn set(&self, routes: Option<PortRoutes>) {
        self.0.store(routes.map(Arc::new));
    }

    /// Whether HTTPS has the port to itself: then nobody's hello is looked at.
    pub(in crate::proxy) fn has_none(&self) -> bool {
        self.0.load().is_none()
    }

    /// Whether a stream route answers to this name.
    pub(in crate::proxy) fn names(&self, host: &str) -> bool {
        self.0.load().as_ref().is_some_and(|routes| routes.named(host).is_some())
    }

    /// The stream route that a client wants; none: HTTPS answers it. So it does an authority that wants to see that a
    /// name is ours; where it is the service that has asked for that, the service does.
    pub(in crate::proxy) fn route(&self, hello: &Hello, tls: &TlsServer) -> Option<Arc<LiveRoute>> {
        let Hello::Whole { name: Some(name), is_challenge } = hello else { return None };
        let route = self.0.load().as_ref()?.named(name).cloned()?;
        let is_ours = || route.spec.options.tls_termination || tls.certificates().challenges().expects(name);
        (!is_challenge || !is_ours()).then_some(route)
    }
}
