//! What the authority behind a certificate says of it (OCSP, RFC 6960), so that it is shown with the certificate and no
//! client has to ask.
//!
//! - `der` reads and writes the encoding of what is asked and answered, `parts` takes certificates apart; pure;
//! - `question` says whether and what there is to ask of a certificate, `answer` judges what came back; pure;
//! - `schedule` says when to ask again; pure;
//! - `responder` asks by HTTP, `drawer` keeps answers across restarts;
//! - `stapler` is the one task that owns all of it.
//!
//! What always holds: nothing is shown that was not verified, and nothing beyond its end; a handshake waits for nothing
//! of this; a responder that fails is asked ever more rarely.
//!
//! What a responder says of a revoked certificate is told and not shown, and what it said before is not shown any more:
//! shown, every client would refuse the certificate at once, among them those who do not ask; and the old word would be
//! a lie. The peers do the same.

mod answer;
mod der;
mod drawer;
#[cfg(fuzzing)]
pub mod fuzz;
mod parts;
mod question;
mod responder;
#[cfg(test)]
mod samples;
mod schedule;
mod stapler;

pub use stapler::Stapler;
