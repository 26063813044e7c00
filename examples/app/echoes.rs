//! What is no HTTP: what comes goes back.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, UdpSocket},
};

use crate::{
    App,
    journal::{InHand, note},
    options::Options,
};

/// Every byte comes back, and at the end how many there were.
pub(crate) fn stream(app: &App, mut stream: TcpStream) -> io::Result<()> {
    let _in_hand = InHand::take();
    note(&app.options, "open");
    stream.set_nodelay(true)?;
    if let Some(text) = app.options.get("greet") {
        stream.write_all(text.as_bytes())?;
    }
    let mut bytes = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                stream.write_all(bytes.get(..count).unwrap_or_default())?;
            }
            Err(error) => {
                note(&app.options, &format!("cut {total}"));
                return Err(error);
            }
        }
    }
    stream.write_all(format!("end {total}").as_bytes())?;
    note(&app.options, &format!("end {total}"));
    Ok(())
}

/// Every datagram comes back.
pub(crate) fn datagrams(options: &Options, socket: &UdpSocket) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok((count, client)) = socket.recv_from(&mut bytes) {
        if bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            note(options, "datagram with a header");
        }
        let greeting = options.get("greet").map(String::as_bytes).unwrap_or_default();
        let _ = socket.send_to(&[greeting, bytes.get(..count).unwrap_or_default()].concat(), client);
    }
}
