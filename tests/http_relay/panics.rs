//! A fault of our own while a request is answered: it costs that connection, and nothing else.

use std::{
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::*;

/// Panics in the task that tells of a try that failed, once armed.
struct Trap(Arc<AtomicBool>);

impl<S: tracing::Subscriber> Layer<S> for Trap {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let is_try = event.metadata().target() == "dormouse::proxy::http::tries";
        assert!(!(is_try && self.0.swap(false, Ordering::SeqCst)), "the trap was stepped into");
    }
}

#[test]
fn a_panic_in_one_connection_ends_that_one_and_the_worker_goes_on() {
    let armed = Arc::new(AtomicBool::new(true));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Trap(Arc::clone(&armed)))).unwrap();
    let nobody = {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = proxy(nobody);
    // The one worker has another connection open meanwhile.
    let mut other = connect(&proxy);
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut struck = connect(&proxy);
    std::io::Write::write_all(&mut struck, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = struck.read_to_end(&mut answer);
    assert!(!armed.load(Ordering::SeqCst), "nothing was told of the try");
    assert!(answer.is_empty(), "half an answer: {}", String::from_utf8_lossy(&answer));
    for client in [&mut other, &mut connect(&proxy)] {
        let (head, _) = ask(client, request);
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    }
}
