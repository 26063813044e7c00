//! Accept well: listeners that share a port, a bound on connections, and patience when descriptors run out; what the
//! first bytes of a connection tell; bytes both ways; TLS with the certificate that fits. And sockets towards endpoints,
//! also inside the network namespaces of others.

mod ask;
mod both_ways;
mod client_hello;
mod dial;
mod handed;
mod inside;
mod last_words;
mod listen;
mod minecraft;
mod one_way;
mod opening;
mod own;
mod pipe;
mod proxy_header;
mod stream;
mod tls_accept;
mod tls_any;
mod tls_certificate;
mod tls_certificates;
mod tls_challenges;
mod tls_choice;
mod tls_clients;
mod tls_connect;
mod tls_demand;
mod tls_entries;
mod tls_files;
mod tls_refusals;
#[cfg(test)]
mod tls_samples;
mod tls_self_signed;
mod tls_session;
mod tls_sources;
mod tls_staple;
mod tls_stream;
mod tls_succession;

pub use ask::{NoStatus, Question, ask_http1, ask_http2};
pub use both_ways::{Ended, Moved, copy_both_ways, has_unread, reset_when_dropped};
pub use client_hello::{Hello, LONGEST_HELLO, UNRECOGNIZED_NAME, client_hello};
pub use dial::{connect_tcp, connect_udp, socket_to};
pub use handed::{
    HandedWords, close_unwanted, copies_of_kept, handed_tcp, handed_udp, handed_unix, inode_of, is_handed, take_handed,
    take_over_sockets,
};
pub use inside::may_enter;
pub use last_words::say_last;
pub use listen::{Lack, accept, bind_for, bind_udp, check_free, is_scarcity, listen_advice};
pub use minecraft::{Handshake, handshake, pong, status_answer};
pub use opening::{Judgement, judge};
pub use own::{is_own, is_private, refuse_itself};
pub use pipe::Pipe;
pub use proxy_header::{Carries, Ends, ProxyHeader, proxy_header, take_proxy_header};
pub use stream::{Beneath, ReadHalf, Stream, Within, WriteHalf};
pub use tls_accept::{NoTls, Secured, TlsServer};
pub use tls_any::AnyCertificate;
pub use tls_certificate::{BadCertificate, Certificate, CertificateSource, must_staple, use_one_provider};
pub use tls_certificates::{Asks, Certificates, Serves, check_certificates};
pub use tls_challenges::Challenges;
pub use tls_connect::{NoUpstreamTls, Offer, TlsClients, TlsTarget};
pub use tls_demand::Wish;
pub use tls_self_signed::{challenge_certificate, signing_request};
pub use tls_staple::{Fingerprint, Staple, Stapling};
pub use tls_stream::{Came, TlsBeneath, TlsReadHalf, TlsStream, TlsWriteHalf};
