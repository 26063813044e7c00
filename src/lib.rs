//! Dormouse: a reverse proxy that lets services sleep and wakes them on the first request.
//!
//! # The map of the rooms, in reading order
//!
//! Arrows point downward only: a room uses rooms of lower levels, and rooms of one level do not know each other. The
//! test `architecture` holds this table and the homes of the outer crates.
//!
//! | level | room | its one job |
//! |---|---|---|
//! | 0 | [`model`] | the checked words of the program: names, addresses, policies |
//! | 1 | [`telemetry`] | logs, metrics, the journal of what happened |
//! | 2 | [`config`] | text and labels in; checked routes and settings out, or all problems at once |
//! | 2 | [`provider`] | talk to engines: Docker, plain processes, a simulated one |
//! | 2 | [`routing`] | find the target of a request |
//! | 2 | [`net`] | accept well |
//! | 2 | [`store`] | what must survive a restart |
//! | 2 | [`web`] | what a browser sees while it waits, or when something went wrong |
//! | 3 | [`acme`] | certificates from an authority |
//! | 3 | [`backend`] | the life of one backend, asleep to awake and back |
//! | 3 | [`catalog`] | what should exist: file and labels merged, compared with before |
//! | 3 | [`ocsp`] | what the authority behind a certificate says of it |
//! | 4 | [`control`] | make it exist: own the backends and the live routes |
//! | 5 | [`proxy`] | the data plane |
//! | 5 | [`api`] | the management interface |
//! | 5 | [`demo`] | three small apps to try it with |
//! | 6 | [`app`], [`cli`] | the composition root that owns every task; the command line |
//!
//! A request goes `net::accept` → `proxy::http` → [`routing::RouteTable::find`] → [`backend::Backend::enter`] → the
//! upstream → the [`backend::Pass`] is dropped. A stream goes `net::accept` → `proxy::tcp` (or a datagram to `proxy::udp`) →
//! [`backend::Backend::enter`] → `net::copy_both_ways`. What always holds: nothing reaches a backend without a pass, and no
//! backend is let down while a pass is out.

pub mod acme;
pub mod api;
pub mod app;
pub mod backend;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod model;
pub mod net;
pub mod ocsp;
pub mod provider;
pub mod proxy;
pub mod routing;
pub mod store;
pub mod telemetry;
pub mod web;
