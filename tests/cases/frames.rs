//! HTTP/2 frame by frame, for what no well-behaved client sends (RFC 9113 §4, RFC 7541).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::PATIENCE;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;

pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
pub(crate) const CANCEL: u32 = 0x8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with these values.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(value).collect::<Vec<u8>>())
}

/// RST_STREAM
pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// WINDOW_UPDATE
pub(crate) fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A header block of literals that no table remembers (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0x00, name.as_bytes(), value.as_bytes())).collect()
}

/// A literal with a name of its own, of the representation that `first` begins.
pub(crate) fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    for text in [name, value] {
        string_length(text.len(), &mut out);
        out.extend_from_slice(text);
    }
    out
}

/// An integer behind a prefix of seven bits (RFC 7541 §5.1).
fn string_length(length: usize, out: &mut Vec<u8>) {
    if length < 127 {
        return out.push(length as u8);
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The fields of a request and what it begins with.
pub(crate) fn request<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)];
    block(&[&pseudo[..], more].concat())
}

/// The HEADERS of a request that has no content.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]))
}

/// The HEADERS of a request whose content follows.
pub(crate) fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path, more))
}

/// A frame that was received.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The status of a response, if it is the first one of its value on the connection.
    pub(crate) fn status(&self) -> Option<u16> {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match (self.kind, self.payload.first()?) {
            (HEADERS, first @ 0x88..=0x8e) => Some(INDEXED[usize::from(first - 0x88)]),
            // A literal whose name is that of an entry for :status, with or without a table that remembers it.
            (HEADERS, 0x08..=0x0e | 0x48..=0x4e) => digits(&self.payload[1..]),
            _ => None,
        }
    }
}

/// Three digits as an HPACK string (RFC 7541 appendix B: 0 to 2 have five bits, the others six).
fn digits(bytes: &[u8]) -> Option<u16> {
    let (&length, text) = bytes.split_first()?;
    if length & 0x80 == 0 {
        return str::from_utf8(text.get(..3)?).ok()?.parse().ok();
    }
    let mut bits = text.iter().take(usize::from(length & 0x7f)).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    bits <<= 32 - 8 * u32::from(length & 0x7f).clamp(1, 4);
    let (mut number, mut left) = (0, 8 * u32::from(length & 0x7f));
    for _ in 0..3 {
        let (digit, length) = if bits >> 27 <= 2 { (bits >> 27, 5) } else { ((bits >> 26).checked_sub(22)?, 6) };
        left = left.checked_sub(length)?;
        number = number * 10 + digit;
        bits <<= length;
    }
    u16::try_from(number).ok()
}

/// A connection to the gateway that speaks in frames.
pub(crate) struct Frames {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Frames {
    /// Connects, and says what every client says first.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address);
        frames.send(&[PREFACE, &settings(&[])].concat());
        frames
    }

    /// Connects, and says nothing.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // Whoever does not read is stopped by this rather than by the test's end.
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, inbox: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes. `false`: the connection has ended.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the gateway neither takes bytes nor ends the connection")
            }
            Err(_) => false,
        }
    }

    /// The next frame. `None`: the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.inbox.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let kind = head[3];
                let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                if self.inbox.len() >= 9 + length {
                    let payload = self.inbox[9..9 + length].to_vec();
                    self.inbox.drain(..9 + length);
                    return Some(Frame { kind, stream, payload });
                }
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing comes and the connection does not end")
                }
                Err(_) => return None,
            }
        }
    }

    /// Frames until one of this kind for this stream. `None`: the connection has ended before.
    pub(crate) fn find(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if (frame.kind, frame.stream) == (kind, stream) {
                return Some(frame);
            }
        }
    }

    /// Takes all that comes until the connection ends. The error code of the last GOAWAY, if there was one.
    pub(crate) fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = frame.code();
            }
        }
        code
    }
}

#[test]
fn a_status_is_read_from_any_form() {
    let status = |payload: &[u8]| Frame { kind: HEADERS, stream: 1, payload: payload.to_vec() }.status();
    assert_eq!(status(&[0x88]), Some(200));
    assert_eq!(status(&[0x48, 3, b'4', b'3', b'1']), Some(431));
    // 4, 3 and 1 are 011010, 011001 and 00001; then ones.
    assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), Some(431));
    assert_eq!(status(&[0x08, 0x82, 0b0110_1100, 0b0001_1111]), None, "two digits and a bit");
    assert_eq!(status(&[]), None);
}
