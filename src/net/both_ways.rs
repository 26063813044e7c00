//! Bytes both ways between two connections, each direction with its own end.
//!
//! What always holds: bytes arrive in order and none is lost; the end of one direction (`one_way`) is passed on and
//! leaves the other as it is; what was cut is passed on as a cut (a reset), never as an end.

use std::{
    future::{Future, poll_fn},
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::one_way::Direction;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both directions, each by its sender.
    Whole,
    /// The client's connection was cut.
    ClientCut,
    /// The upstream's connection was cut.
    UpstreamCut,
    /// Nothing moved for the time given.
    Silent,
}

/// Bytes that moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client to the upstream.
    pub up: u64,
    /// From the upstream to the client.
    pub down: u64,
}

/// Carries bytes until both directions have ended, one side was cut, or nothing moved for `idle`. `begun` goes to the
/// upstream first. `moved` is told what was read since it was told last. Where something was cut short, also by
/// dropping this future or by silence while bytes were under way, dropping either connection resets it.
pub async fn copy_both_ways(
    client: &TcpStream,
    upstream: &TcpStream,
    begun: Vec<u8>,
    idle: Option<Duration>,
    mut moved: impl FnMut(Moved),
) -> Ended {
    let mut up = Direction::new(client, upstream, begun);
    let mut down = Direction::new(upstream, client, Vec::new());
    let mut silence = idle.map(Silence::new);
    let mut short = Short { ends: [client, upstream], is_whole: false };
    let ended = poll_fn(|cx| {
        let polled = (up.poll(cx), down.poll(cx));
        let now = Moved { up: mem::take(&mut up.received), down: mem::take(&mut down.received) };
        if now != Moved::default() {
            moved(now);
            if let Some(silence) = &mut silence {
                silence.broken();
            }
        }
        match polled {
            (Poll::Ready(Err(side)), _) => Poll::Ready(side.of(Ended::ClientCut, Ended::UpstreamCut)),
            (_, Poll::Ready(Err(side))) => Poll::Ready(side.of(Ended::UpstreamCut, Ended::ClientCut)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Whole),
            _ => silence.as_mut().map_or(Poll::Pending, |silence| silence.poll(cx).map(|()| Ended::Silent)),
        }
    })
    .await;
    short.is_whole = match ended {
        Ended::Whole => true,
        Ended::ClientCut | Ended::UpstreamCut => false,
        Ended::Silent => up.holds_nothing() && down.holds_nothing(),
    };
    ended
}

/// Neither side must take what it got for the whole, unless that was said meanwhile.
struct Short<'a> {
    ends: [&'a TcpStream; 2],
    is_whole: bool,
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.ends.into_iter().for_each(reset_when_dropped);
        }
    }
}

/// From now on, dropping the connection resets it: the other side must not take what it got for the whole.
pub fn reset_when_dropped(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether something came that was not read yet, whatever the runtime has heard of.
pub fn has_unread(stream: &TcpStream) -> bool {
    // It does not wait: none of the runtime's sockets does.
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0)
}

/// The time without a byte. Its timer is set anew only when it fires, not for each byte.
struct Silence {
    most: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(most: Duration) -> Self {
        let since = Instant::now();
        Self { most, since, timer: Box::pin(sleep_until(since + most)) }
    }

    fn broken(&mut self) {
        self.since = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let until = self.since + self.most;
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{
        super::{one_way::SIZE, pipe::Pipe},
        *,
    };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_came_is_seen_before_the_runtime_hears_of_it() {
        let (near, far) = pair().await;
        assert!(!has_unread(&far));
        let mut near = near.into_std().unwrap();
        near.set_nonblocking(false).unwrap();
        std::io::Write::write_all(&mut near, b"ab").unwrap();
        assert!(has_unread(&far) && has_unread(&far), "it is left there");
        let mut far = far;
        far.read_exact(&mut [0; 2]).await.unwrap();
        assert!(!has_unread(&far));
        drop(near);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert!(!has_unread(&far), "an end is nothing to read");
    }

    /// A client, an upstream, and what stands between them.
    struct Four {
        client: TcpStream,
        ours: [TcpStream; 2],
        upstream: TcpStream,
    }

    async fn four() -> Four {
        let ((client, near), (far, upstream)) = (pair().await, pair().await);
        Four { client, ours: [near, far], upstream }
    }

    fn bytes(seed: u32, count: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    /// Writes all, ends, and returns what came until the other side's end.
    async fn exchange(stream: TcpStream, said: &[u8]) -> Vec<u8> {
        let (mut read, mut write) = stream.into_split();
        let mut got = Vec::new();
        let write = async {
            write.write_all(said).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(write, read.read_to_end(&mut got));
        read.unwrap();
        got
    }

    /// As FTP and Telnet send them: the read before them ends there, however much has come by then.
    #[tokio::test]
    async fn what_follows_urgent_data_is_not_left_behind() {
        let Four { client, ours: [near, far], mut upstream } = four().await;
        let (urgent, mut got) = (socket2::SockRef::from(&client), [0; 6]);
        assert_eq!(urgent.send(b"abc").unwrap(), 3);
        assert_eq!(urgent.send_out_of_band(b"!").unwrap(), 1);
        assert_eq!(urgent.send(b"def").unwrap(), 3);
        tokio::select! {
            _ = copy_both_ways(&near, &far, Vec::new(), None, |_| ()) => panic!("nobody has ended"),
            read = tokio::time::timeout(Duration::from_secs(60), upstream.read_exact(&mut got)) => {
                read.expect("what follows").unwrap();
            }
        }
        assert_eq!(&got, b"abcdef");
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order_in_both_directions_at_once() {
        // Around the size of a buffer, and far into what goes through the pipe.
        for (up, down) in [(0, 0), (1, 0), (0, SIZE), (SIZE + 1, SIZE - 1), (3 << 20, 1), (5 << 20, 5 << 20)] {
            let Four { client, ours: [near, far], upstream } = four().await;
            let (says, answers) = (bytes(1, up), bytes(2, down));
            let mut all = Moved::default();
            let begun = bytes(3, up.min(70_000));
            let carry = copy_both_ways(&near, &far, begun.clone(), None, |moved| {
                all.up += moved.up;
                all.down += moved.down;
            });
            let ends = async {
                let ends = tokio::join!(exchange(client, &says), exchange(upstream, &answers));
                (ends.0 == answers, ends.1 == [&begun[..], &says].concat())
            };
            let (ended, whole) = tokio::join!(carry, ends);
            assert_eq!((ended, whole), (Ended::Whole, (true, true)), "{up} up, {down} down");
            assert_eq!(all, Moved { up: up as u64, down: down as u64 });
        }
    }

    #[tokio::test]
    async fn an_end_is_passed_on_and_leaves_the_other_direction_open() {
        let Four { mut client, ours: [near, far], mut upstream } = four().await;
        let carry = copy_both_ways(&near, &far, Vec::new(), None, |_| ());
        let talk = async {
            client.shutdown().await.unwrap();
            assert_eq!(upstream.read(&mut [0; 9]).await.unwrap(), 0);
            for part in [&b"late"[..], b"later"] {
                upstream.write_all(part).await.unwrap();
                let mut room = vec![0; part.len()];
                client.read_exact(&mut room).await.unwrap();
                assert_eq!(room, part);
            }
            drop(upstream);
            assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
        };
        assert_eq!(tokio::join!(carry, talk).0, Ended::Whole);
    }

    #[tokio::test]
    async fn a_cut_is_passed_on_as_one_also_after_an_end() {
        for after_an_end in [false, true] {
            let Four { mut client, ours: [near, far], mut upstream } = four().await;
            let carry = async {
                let ended = copy_both_ways(&near, &far, Vec::new(), None, |_| ()).await;
                drop((near, far));
                ended
            };
            let cut = async {
                if after_an_end {
                    client.shutdown().await.unwrap();
                    assert_eq!(upstream.read(&mut [0; 9]).await.unwrap(), 0);
                }
                reset_when_dropped(&client);
                drop(client);
                let error = match upstream.read(&mut [0; 9]).await {
                    // The end that came before is read once more; the cut shows in what is written.
                    Ok(0) if after_an_end => loop {
                        if let Err(error) = upstream.write_all(b"x").await {
                            break error;
                        }
                        tokio::task::yield_now().await;
                    },
                    other => other.unwrap_err(),
                };
                let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                assert!(kinds.contains(&error.kind()), "{error}");
            };
            assert_eq!(tokio::join!(carry, cut).0, Ended::ClientCut);
        }
    }

    #[tokio::test]
    async fn who_does_not_read_holds_its_sender_back() {
        let Four { mut client, ours: [near, far], mut upstream } = four().await;
        let carry = copy_both_ways(&near, &far, Vec::new(), None, |_| ());
        let all = bytes(1, 64 << 20);
        let talk = async {
            // All that lies between are the buffers of sockets and pipes.
            let mut written = 0;
            let write = async {
                loop {
                    let rest = &all[written..];
                    written += client.write(&rest[..rest.len().min(1 << 20)]).await.unwrap();
                }
            };
            assert!(tokio::time::timeout(Duration::from_millis(500), write).await.is_err());
            assert!(written < 40 << 20, "{written} bytes were taken of a client that nobody reads");
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            upstream.read_to_end(&mut got).await.unwrap();
            assert!(got == all[..written]);
            drop(upstream);
        };
        assert_eq!(tokio::join!(carry, talk).0, Ended::Whole);
    }

    #[tokio::test]
    async fn silence_ends_it_and_bytes_put_that_off() {
        let Four { mut client, ours: [near, far], mut upstream } = four().await;
        let begun = Instant::now();
        let carry = copy_both_ways(&near, &far, Vec::new(), Some(Duration::from_millis(300)), |_| ());
        let talk = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                client.write_all(b"x").await.unwrap();
                upstream.read_exact(&mut [0]).await.unwrap();
            }
        };
        assert_eq!(tokio::join!(carry, talk).0, Ended::Silent);
        assert!(begun.elapsed() >= Duration::from_millis(700));
    }

    #[tokio::test]
    async fn who_did_not_get_all_of_it_is_told_that_it_was_cut() {
        // The client does not read, and the time is over; or the future is dropped in the middle.
        for idle in [Some(Duration::from_millis(300)), None] {
            let Four { mut client, ours: [near, far], mut upstream } = four().await;
            let carry = async {
                let carry = copy_both_ways(&near, &far, Vec::new(), idle, |_| ());
                let ended = tokio::time::timeout(Duration::from_secs(if idle.is_some() { 60 } else { 1 }), carry).await;
                drop((near, far));
                ended.ok()
            };
            let all = bytes(1, 64 << 20);
            let talk = async {
                assert!(upstream.write_all(&all).await.is_err());
                let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            };
            assert_eq!(tokio::join!(carry, talk).0, idle.map(|_| Ended::Silent));
        }
    }

    #[tokio::test]
    async fn silence_after_the_last_byte_is_a_clean_end() {
        let Four { mut client, ours: [near, far], mut upstream } = four().await;
        let carry = async {
            let ended = copy_both_ways(&near, &far, Vec::new(), Some(Duration::from_millis(300)), |_| ()).await;
            drop((near, far));
            ended
        };
        upstream.write_all(b"hello").await.unwrap();
        assert_eq!(carry.await, Ended::Silent);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
        assert_eq!(upstream.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_waits_holds_no_pipe() {
        let Four { mut client, ours: [near, far], mut upstream } = four().await;
        let carry = copy_both_ways(&near, &far, Vec::new(), None, |_| ());
        let given_back = async || {
            while Pipe::lent() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let talk = async {
            let much = bytes(1, 4 << 20);
            let mut got = vec![0; much.len()];
            let (written, read) = tokio::join!(client.write_all(&much), upstream.read_exact(&mut got));
            written.unwrap();
            read.unwrap();
            assert!(got == much);
            given_back().await;
            // An end right behind the bytes: the other direction stays open, and no pipe with it.
            let half_close = async {
                client.write_all(&much).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let mut rest = Vec::new();
            let ((), read) = tokio::join!(half_close, upstream.read_to_end(&mut rest));
            read.unwrap();
            assert!(rest == much);
            given_back().await;
            drop((client, upstream));
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(carry, talk) }).await.unwrap();
    }
}
