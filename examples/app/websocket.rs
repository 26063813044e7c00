//! A WebSocket that answers.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

use crate::{digest::accept_key, http::Head};

/// Sends every message back, answers pings and the closing handshake.
pub(crate) fn web_socket(request: &Head, input: &mut impl Read, output: &mut TcpStream) -> io::Result<()> {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let accept = accept_key(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    output.write_all(head.as_bytes())?;
    loop {
        let mut start = [0; 2];
        input.read_exact(&mut start)?;
        let [first, second] = start;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(input)?)),
            127 => u64::from_be_bytes(take(input)?),
            short => u64::from(short),
        };
        let mask: [u8; 4] = if second & 0x80 == 0 { [0; 4] } else { take(input)? };
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        input.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let first = if first & 0x0f == 9 { 0x8a } else { first };
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(u8::try_from(short).unwrap_or(0)),
            middle @ 126..65536 => {
                frame.push(126);
                frame.extend(u16::try_from(middle).unwrap_or(0).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        output.write_all(&frame)?;
        if first & 0x0f == 8 {
            return output.shutdown(Shutdown::Write);
        }
    }
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
