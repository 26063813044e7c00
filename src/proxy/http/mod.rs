//! HTTP/1.0, 1.1 and 2, in and out: a relay of our own.
//!
//! One current-thread runtime for each worker, each with its own listeners, upstream pool and buffers: a request of what
//! is awake takes no lock and hops to no other thread, unless a middleware of its route remembers something for all
//! workers, or checks a password that is not known yet. The parts, from the client's side on:
//!
//! - `front` reads heads (`request_head`) from a connection and keeps it alive; those that are quiet give their places to
//!   others when there are none left, and `crowded` is what others are told then;
//! - `exchange` does one request: finds the route (`find`), asks its middlewares (`middleware`), goes to its endpoint
//!   (`way_in`), enters the backend (`wake`), or one of several (`balance`), forwards, tries again where that is safe
//!   (`tries`);
//! - `attempt` is one try on one connection from the `pool`, `relay` moves bodies both ways at once (`chunk`
//!   understands them), `remake` says where middlewares want another body or another coding of it (`coding`), `tunnel`
//!   takes over after a 101;
//! - `answer` is what we say ourselves, `tell` what of it a route has a word in, and `call` how gRPC is told.
//!
//! A connection of HTTP/2 (`h2_connection`) is many such clients at once: each stream (`h2_stream`) has its head from
//! `h2_request`, and reads and writes like a connection of HTTP/1.1 of its own. `h2_wire` gathers what all of them
//! send; `h2_frames` sees floods coming, and `h2_faults` mistakes (`h2_split` tells frames apart).
//!
//! Towards services it is the same the other way round: a stream (`h2_upstream`) of a connection that many requests
//! share (`h2_link`) is written and read like a connection of HTTP/1.1 of its own (`h2_asking`, `h2_body`, `h2_answer`,
//! `h2_reading`). `h2_reach` finds or makes one, `h2_hub` keeps those of an endpoint in the pool, and `h2_marks` sees
//! what their frames tell.
//!
//! What always holds: a message is understood whole and written anew, or refused; its body is never delimited
//! differently for the two sides; no request is sent twice unless it may be; what was cut is never shown as whole.

mod answer;
mod arena;
mod attempt;
mod bad_request;
mod balance;
mod begun_body;
mod call;
mod chunk;
mod coding;
mod connect;
mod crowded;
mod exchange;
mod field;
mod find;
mod forwarded;
mod front;
#[cfg(fuzzing)]
pub mod fuzz;
mod h2_answer;
mod h2_asking;
mod h2_body;
mod h2_connection;
mod h2_faults;
mod h2_fields;
mod h2_frames;
mod h2_hub;
mod h2_link;
mod h2_marks;
mod h2_reach;
mod h2_reading;
mod h2_request;
mod h2_split;
mod h2_stream;
mod h2_upstream;
mod h2_wire;
mod h2_writing;
mod leaving;
mod middleware;
mod navigation;
mod noting;
mod pool;
mod progress;
mod relay;
mod remake;
mod request_facts;
mod request_head;
mod request_target;
mod respond;
mod response_head;
mod rewrite;
mod secure;
mod send;
mod shelf;
mod spliced;
mod tell;
mod tries;
mod tunnel;
mod unread;
mod variables;
mod waiting;
mod wake;
mod way_in;
mod worker;

pub(super) use crowded::{turn_away, turn_away_at_once};
pub(super) use front::connection;
pub(super) use middleware::Ledger;
pub(super) use secure::{Https, Serving, tls_to};
pub(super) use worker::HttpWorker;

pub use bad_request::BadRequest;
pub use chunk::{BadChunk, ChunkScanner, Scanned};
pub use request_head::Framing;
pub use response_head::BadResponse;
