//! Bodies so large that the kernel carries them by itself: whole, in order, and with an end of their own.

use std::{io::Write, sync::mpsc, thread, time::Duration};

use socket2::SockRef;

use crate::support::*;

/// Far more than all buffers between two sockets hold.
const LARGE: usize = (32 << 20) + 4_321;

fn body(seed: usize, size: usize) -> Vec<u8> {
    // Repeats at a distance that is no size of any buffer.
    let block: Vec<u8> = (0..65_521).map(|at| u8::try_from((at / 3 + at * seed) % 251).unwrap()).collect();
    block.iter().copied().cycle().take(size).collect()
}

fn answer(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn what_is_behind_a_large_body_is_the_next_request_or_answer() {
    let proxy = proxy(upstream(|_, stream| {
        for seed in 1.. {
            let head = read_head(stream);
            if head.is_empty() {
                return;
            }
            assert!(read_body(&head, stream) == body(seed, LARGE), "the upload was changed");
            stream.write_all(&answer(&body(seed + 100, LARGE))).unwrap();
        }
    }));
    let mut client = connect(&proxy);
    let mut writer = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        // In one stream, without waiting for any answer.
        for seed in 1..=2 {
            write!(writer, "POST /{seed} HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
            writer.write_all(&body(seed, LARGE)).unwrap();
        }
    });
    for seed in 1..=2 {
        let head = read_head(&mut client);
        assert!(read_body(&head, &mut client) == body(seed + 100, LARGE), "answer {seed} was changed");
    }
    sender.join().unwrap();
    assert_eq!(proxy.route.counters.class(2), 2);
}

#[test]
fn a_reader_that_waits_holds_up_the_sender_and_gets_all() {
    let (said, heard) = mpsc::channel();
    let proxy = proxy(upstream(move |_, stream| {
        read_head(stream);
        let all = answer(&body(5, LARGE));
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Until nothing more is taken: all that lies between is full.
        let mut sent = 0;
        while let Ok(count @ 1..) = stream.write(&all[sent..]) {
            sent += count;
        }
        said.send(sent).unwrap();
        stream.set_write_timeout(None).unwrap();
        stream.write_all(&all[sent..]).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(heard.recv_timeout(Duration::from_secs(60)).unwrap() < LARGE, "nothing held it up");
    let head = read_head(&mut client);
    assert!(read_body(&head, &mut client) == body(5, LARGE));
}

#[test]
fn a_large_body_that_was_cut_is_not_shown_as_whole() {
    let proxy = proxy(upstream(|_, stream| {
        read_head(stream);
        let all = answer(&body(7, LARGE));
        stream.write_all(&all[..LARGE / 2]).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut client);
    assert_eq!(header(&head, "content-length"), Some(LARGE.to_string().as_str()));
    let (got, _) = read_all(&mut client);
    assert!(got.len() < LARGE / 2 && body(7, LARGE).starts_with(&got), "{} bytes", got.len());
}

#[test]
fn a_client_that_leaves_amid_a_large_body_ends_it() {
    let (said, heard) = mpsc::channel();
    let proxy = proxy(upstream(move |_, stream| {
        read_head(stream);
        said.send(stream.write_all(&answer(&body(9, LARGE))).is_err()).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_exactly(&mut client, 1 << 20);
    drop(client);
    assert!(heard.recv_timeout(Duration::from_secs(60)).unwrap(), "the service was not told");
}

/// The kernel splices nothing that lies behind urgent data.
#[test]
fn urgent_data_amid_a_large_body_does_not_stop_it() {
    let proxy = proxy(upstream(|_, stream| {
        read_head(stream);
        let all = answer(&body(11, LARGE));
        let (first, second) = all.split_at(LARGE / 2);
        stream.write_all(first).unwrap();
        // It is no part of the stream of bytes.
        while SockRef::from(&*stream).send_out_of_band(b"!").is_err() {}
        stream.write_all(second).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut client);
    assert!(read_body(&head, &mut client) == body(11, LARGE));
}
