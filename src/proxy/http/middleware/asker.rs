//! A request and who sends it, as far as the middlewares have found out.

use std::{net::IpAddr, rc::Rc};

use super::super::{forwarded::Peer, front::Client, request_head::RequestHead};

/// Who wants to be let in. The client itself is not touched, so that it can be watched meanwhile.
pub(in crate::proxy::http) struct Asker<'a> {
    pub(super) client: &'a Client,
    pub(super) head: &'a RequestHead,
    /// Whom a proxy in front names, where one does that is believed.
    pub(in crate::proxy::http) peer: Rc<Peer>,
}

impl<'a> Asker<'a> {
    /// Nothing is known yet but what the connection tells.
    pub(in crate::proxy::http) fn new(client: &'a Client, head: &'a RequestHead) -> Self {
        Self { client, head, peer: Rc::clone(&client.peer) }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.peer.client(self.head, &self.client.settings.trusted_proxies)
    }

    /// Whether it came by TLS, to us or to a proxy whose word counts.
    pub(super) fn is_secure(&self) -> bool {
        self.client.secured.is_some() || self.peer.is_secure(self.head)
    }
}
