//! Bodies of all sizes around those of the buffers, sent in one piece with their head, in each framing.

use std::{fmt::Write as _, io::Write, net::TcpStream};

use crate::support::*;

/// Around the room for a head and what comes with it, and around that for bulk.
const SIZES: [usize; 20] = [
    1, 4000, 16_000, 16_200, 16_300, 16_350, 16_380, 16_384, 16_390, 16_500, 17_000, 32_000, 32_768, 33_000, 49_152,
    65_536, 131_000, 131_072, 131_300, 300_000,
];

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + u8::try_from(at * 7 % 23).unwrap()).collect()
}

/// The body framed as the word says: with its length, in two chunks, or until the connection ends.
fn framed(framing: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match framing {
        "length" => write!(out, "Content-Length: {}\r\n\r\n", body.len()).unwrap(),
        "chunked" => out.extend(b"Transfer-Encoding: chunked\r\n\r\n"),
        _ => out.extend(b"Connection: close\r\n\r\n"),
    }
    if framing != "chunked" {
        out.extend(body);
        return out;
    }
    let (first, second) = body.split_at(body.len() / 3);
    for chunk in [first, second, b""] {
        if chunk.is_empty() && std::ptr::eq(chunk, first) {
            continue;
        }
        out.extend(format!("{:x};kind=test\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(if chunk.is_empty() { &b""[..] } else { b"\r\n" });
    }
    out.extend(b"\r\n");
    out
}

/// Sends the body of the request back, framed as the path says, in one piece with its head.
fn send_back(_: usize, stream: &mut TcpStream) {
    loop {
        let head = read_head(stream);
        let Some(framing) = head.split([' ', '/']).nth(2) else { return };
        let body = read_body(&head, stream);
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        answer.extend(framed(framing, &body));
        stream.write_all(&answer).unwrap();
        if framing == "close" {
            return;
        }
    }
}

#[test]
fn each_arrives_whole_and_what_is_behind_it_is_the_next_request() {
    let proxy = proxy(upstream(send_back));
    for there in ["length", "chunked"] {
        for back in ["length", "chunked", "close"] {
            let mut client = connect(&proxy);
            for size in SIZES {
                let body = body(size);
                let mut sent = format!("POST /{back} HTTP/1.1\r\nHost: a\r\n").into_bytes();
                sent.extend(framed(there, &body));
                sent.extend(b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n");
                client.write_all(&sent).unwrap();
                let head = read_head(&mut client);
                let came = read_body(&head, &mut client);
                assert!(came == body, "{there} {back} {size}: {} bytes came", came.len());
                let next = read_head(&mut client);
                assert!(next.starts_with("HTTP/1.1 200 "), "{there} {back} {size}: {next}");
                assert_eq!(header(&next, "content-length"), Some("0"), "{there} {back} {size}");
            }
        }
    }
}

#[test]
fn what_came_before_a_cut_is_passed_on_and_the_cut_is_seen() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        let size: usize = head.split([' ', '/']).nth(2).unwrap().parse().unwrap();
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size + 1);
        answer.write_str(&text(body(size))).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    }));
    for size in SIZES {
        let mut client = connect(&proxy);
        write!(client, "GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = read_head(&mut client);
        assert_eq!(header(&head, "content-length"), Some((size + 1).to_string().as_str()), "{size}");
        let (came, _) = read_all(&mut client);
        assert!(came.len() <= size && body(size).starts_with(&came), "{size}: {} bytes came", came.len());
        assert!(size < 1000 || !came.is_empty(), "{size}: nothing came");
    }
}
