//! What those are told for whom there is no place.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::Duration,
};

use tokio::net::TcpStream;

use super::answer::Answer;
use crate::{net::say_last, telemetry::TurnedAway};

/// When it is worth trying again: somebody may have left by then.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Tells a client that there is no place for it, and stays until it has read that, within bounds.
pub(in crate::proxy) async fn turn_away(stream: TcpStream, is_secure: bool, bounds: (Duration, usize)) {
    say_last(stream, &words(is_secure, TurnedAway::Full), bounds).await;
}

/// Tells a client why there is no place for it, without staying: who has not sent its request yet may only see the end.
pub(in crate::proxy) fn turn_away_at_once(stream: TcpStream, is_secure: bool, why: TurnedAway) {
    // A fresh socket takes a short answer, and what has come is read, so that closing is no reset.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write(&words(is_secure, why));
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// A fatal alert of TLS: an internal error (RFC 8446, 6.2). No handshake is spent on those who are turned away.
const CROWDED: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

fn words(is_secure: bool, why: TurnedAway) -> Vec<u8> {
    if is_secure {
        return CROWDED.to_vec();
    }
    let answer = match why {
        TurnedAway::Full => Answer::new(503, "Too many connections are open."),
        TurnedAway::Client | TurnedAway::ClientFlows => {
            Answer::new(429, "Too many connections from your address are open.")
        }
    };
    answer.retry_after(FULL_FOR).write(None, false)
}
