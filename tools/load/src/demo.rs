//! The site behind `sluice demo`: one path for each thing that a gateway should carry unharmed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;

use crate::origin::{Conn, Origin, Reply, Request, Then};

/// The largest WebSocket message that is echoed, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How many bytes `/large` has.
const LARGE_BYTES: usize = 10 << 20;

/// The paths of the site with a word on each, for printing.
pub const PATHS: [(&str, &str); 9] = [
    ("/", "plain text"),
    ("/json", "a JSON document"),
    ("/echo", "your request as the origin saw it, as JSON"),
    ("/stream", "Server-Sent Events, one a second, ten in all"),
    ("/ws", "a WebSocket that echoes"),
    ("/slow", "an answer after two seconds"),
    ("/large", "ten mebibytes"),
    ("/status/503", "an answer with any status from 200 to 599"),
    ("/upload", "the length of what you send"),
];

/// Starts the site on `address`; port 0 takes a free one.
pub fn serve(address: SocketAddr) -> io::Result<Origin> {
    Origin::bind(address, answer)
}

fn answer(request: &Request) -> Reply {
    let text = |reply: Reply| reply.with("Content-Type", "text/plain; charset=utf-8");
    match request.head.path() {
        "/" => {
            let mut page = String::from("Sluice demo origin. Try:\n");
            for (path, what) in PATHS {
                page.push_str(&format!("  {path:<12} {what}\n"));
            }
            text(Reply::ok(page))
        }
        "/json" => json(r#"{"name":"sluice demo","ok":true,"numbers":[1,2,3]}"#),
        "/echo" => json(&echo(request)),
        "/stream" => Reply::stream(|chunks| {
            for n in 1..=10 {
                chunks.send(format!("id: {n}\nevent: tick\ndata: {{\"n\":{n}}}\n\n").as_bytes())?;
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        })
        .with("Content-Type", "text/event-stream")
        .with("Cache-Control", "no-cache"),
        "/ws" => websocket(request),
        "/slow" => {
            std::thread::sleep(Duration::from_secs(2));
            text(Reply::ok("slow, but here\n"))
        }
        "/large" => Reply::ok(large()).with("Content-Type", "application/octet-stream"),
        "/upload" => text(Reply::ok(format!("{} bytes\n", request.body.data.len()))),
        path => match path.strip_prefix("/status/").and_then(|s| s.parse().ok()) {
            Some(status @ 200..=599) => text(Reply::new(status, format!("status {status}\n"))),
            _ => text(Reply::new(404, "nothing here; see /\n")),
        },
    }
}

fn json(body: &str) -> Reply {
    Reply::ok(format!("{body}\n")).with("Content-Type", "application/json")
}

/// Bytes that are cheap to make and do not compress to nothing.
fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|n| (n ^ (n >> 8)) as u8).collect()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn echo(request: &Request) -> String {
    let fields: Vec<String> = request
        .head
        .fields
        .0
        .iter()
        .map(|(name, value)| format!("[{},{}]", quoted(name), quoted(&String::from_utf8_lossy(value))))
        .collect();
    format!(
        r#"{{"method":{},"target":{},"fields":[{}],"body":{}}}"#,
        quoted(&request.head.method),
        quoted(&request.head.target),
        fields.join(","),
        quoted(&String::from_utf8_lossy(&request.body.data)),
    )
}

/// Answers an RFC 6455 opening handshake, then echoes messages.
pub fn websocket(request: &Request) -> Reply {
    let Some(key) = request.field("sec-websocket-key").filter(|_| request.head.fields.lists("upgrade", "websocket"))
    else {
        return Reply::new(426, "this is a WebSocket\n").with("Upgrade", "websocket").with("Connection", "Upgrade");
    };
    // RFC 6455 §4.2.2: the fixed GUID shows that the server understood the handshake.
    let digest = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")).digest().bytes();
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    Reply::upgrade("websocket", echo_messages).with("Sec-WebSocket-Accept", &accept).then(Then::Close)
}

struct Frame {
    first: u8,
    payload: Vec<u8>,
}

/// Reads one frame from a client; none at the end, or if the frame is not allowed.
fn read_frame(conn: &mut Conn) -> Option<Frame> {
    let head = conn.bytes(2);
    let [first, second] = head[..] else { return None };
    // RFC 6455 §5.1: frames of a client are masked, those of a server are not.
    if second & 0x80 == 0 || first & 0x70 != 0 {
        return None;
    }
    let length = match second & 0x7f {
        126 => u16::from_be_bytes(conn.bytes(2).try_into().ok()?) as usize,
        127 => usize::try_from(u64::from_be_bytes(conn.bytes(8).try_into().ok()?)).ok()?,
        short => short as usize,
    };
    if length > MESSAGE_BYTES_MAX {
        return None;
    }
    let mask = conn.bytes(4);
    let mut payload = conn.bytes(length);
    if mask.len() < 4 || payload.len() < length {
        return None;
    }
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some(Frame { first, payload })
}

/// A frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = vec![first];
    match payload.len() {
        n @ 0..126 => wire.push(n as u8),
        n @ 126..65536 => {
            wire.push(126);
            wire.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            wire.push(127);
            wire.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    wire.extend_from_slice(payload);
    wire
}

fn echo_messages(conn: &mut Conn) {
    const CLOSE: u8 = 0x8;
    const PING: u8 = 0x9;
    const PONG: u8 = 0xA;
    while let Some(received) = read_frame(conn) {
        let (opcode, fin) = (received.first & 0xF, received.first & 0x80);
        let sent = match opcode {
            PING => conn.write(&frame(0x80 | PONG, &received.payload)),
            PONG => Ok(()),
            // Text, binary and continuations go back as they came, fragment by fragment.
            0x0..=0x2 => conn.write(&frame(fin | opcode, &received.payload)),
            CLOSE => {
                // Whether it arrives or not, this side is done.
                let _ = conn.write(&frame(0x80 | CLOSE, &received.payload));
                return;
            }
            _ => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
