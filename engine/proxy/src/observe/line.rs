//! A line of the access log, made of the record of a request. Nothing that a peer has sent can end it, forge a part of
//! it or reach a terminal raw.

use std::io::Write;
use std::net::IpAddr;

use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{AccessFormat, AccessLog};
use sluice_wire::Version;
use sluice_wire::head::Request;

use super::clock::Clock;
use super::record::{Nanos, Record};

/// What stands for a value that is never logged.
const MASK: &[u8] = b"***";

/// Appends the line of `record` to `out`, with its line feed.
pub(crate) fn put(out: &mut Vec<u8>, clock: &Clock, config: &AccessLog, record: &Record<'_>) {
    match config.format {
        AccessFormat::Json => json(out, clock, config, record),
        AccessFormat::Combined => combined(out, clock, config, record),
    }
    out.push(b'\n');
}

/// One object. Every key is always there, but for those of `fields`; what is not known is null.
fn json(out: &mut Vec<u8>, clock: &Clock, config: &AccessLog, record: &Record<'_>) {
    let request = record.request;
    out.extend_from_slice(b"{\"time\":\"");
    clock.put_rfc3339(out, record.times.began);
    out.extend_from_slice(b"\",\"client\":\"");
    put_ip(out, record.client.ip());
    out.extend_from_slice(b"\",\"client_port\":");
    put_number(out, record.client.port().into());
    put_text(out, b",\"listener\":", Some(record.listener.as_bytes()));
    put_word(out, b",\"protocol\":", request.map(|_| protocol(record.version)));
    put_text(out, b",\"method\":", request.map(|request| request.head.method.of(request.bytes)));
    put_text(out, b",\"host\":", record.host.map(str::as_bytes));
    out.extend_from_slice(b",\"target\":");
    match request {
        Some(request) => put_quoted(out, |out| put_masked(out, request.target(), config, put_escaped)),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"status\":");
    put_number(out, record.status.into());
    put_text(out, b",\"route\":", record.route_name.map(str::as_bytes));
    put_text(out, b",\"upstream\":", record.upstream_name.map(str::as_bytes));
    out.extend_from_slice(b",\"endpoint\":");
    match record.destination.and_then(|destination| destination.endpoint) {
        Some(endpoint) => put_quoted(out, |out| {
            let (open, close) = if endpoint.is_ipv6() { ("[", "]") } else { ("", "") };
            out.extend_from_slice(open.as_bytes());
            put_ip(out, endpoint.ip());
            out.extend_from_slice(close.as_bytes());
            out.push(b':');
            put_number(out, endpoint.port().into());
        }),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"reused\":");
    let reused = record.destination.is_some_and(|destination| destination.reused);
    out.extend_from_slice(if reused { b"true" } else { b"false" });
    out.extend_from_slice(b",\"attempts\":");
    put_number(out, record.attempts.into());
    put_word(out, b",\"limit\":", record.limit.map(str::as_bytes));
    put_word(out, b",\"cache\":", record.cache.map(|note| note.word().as_bytes()));
    put_word(out, b",\"cause\":", record.failure.map(|failure| Failure::label(failure).as_bytes()));
    put_word(out, b",\"phase\":", Some(record.phase.word().as_bytes()));
    put_word(out, b",\"ended_by\":", Some(record.ended_by.word().as_bytes()));
    for (key, bytes) in [
        (&b",\"received_bytes\":"[..], record.bytes.received),
        (b",\"sent_bytes\":", record.bytes.sent),
        (b",\"request_content_bytes\":", record.bytes.request_content),
        (b",\"response_content_bytes\":", record.bytes.response_content),
    ] {
        out.extend_from_slice(key);
        put_number(out, bytes);
    }
    for (key, nanos) in [
        (&b",\"head_us\":"[..], Some(record.times.reading())),
        (b",\"queue_us\":", record.times.queue),
        (b",\"connect_us\":", record.times.connect),
        (b",\"first_byte_us\":", record.times.upstream_first_byte()),
        (b",\"total_us\":", Some(record.times.total())),
        (b",\"gateway_us\":", Some(record.times.gateway())),
    ] {
        put_micros(out, key, nanos);
    }
    out.extend_from_slice(b",\"fields\":{");
    let mut comma: &[u8] = b"";
    for name in &config.request_fields {
        let Some(value) = request.and_then(|request| field(request, name)) else { continue };
        out.extend_from_slice(comma);
        comma = b",";
        put_quoted(out, |out| put_escaped(out, name.as_bytes()));
        out.push(b':');
        put_quoted(out, |out| put_field(out, name, value, config, put_escaped));
    }
    out.extend_from_slice(b"}}");
}

/// The combined format, with the escapes that its readers know.
fn combined(out: &mut Vec<u8>, clock: &Clock, config: &AccessLog, record: &Record<'_>) {
    put_ip(out, record.client.ip());
    out.extend_from_slice(b" - - [");
    clock.put_combined(out, record.times.began);
    out.extend_from_slice(b"] \"");
    match record.request {
        Some(request) => {
            put_hex_escaped(out, request.head.method.of(request.bytes));
            out.push(b' ');
            put_masked(out, request.target(), config, put_hex_escaped);
            out.push(b' ');
            out.extend_from_slice(protocol(record.version));
        }
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    put_number(out, record.status.into());
    out.push(b' ');
    put_number(out, record.bytes.response_content);
    for name in ["referer", "user-agent"] {
        out.extend_from_slice(b" \"");
        match record.request.and_then(|request| field(request, name)) {
            Some(value) => put_field(out, name, value, config, put_hex_escaped),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
        Version::Http2 => b"HTTP/2.0",
    }
}

/// The value of the first line of this name.
fn field<'a>(request: Request<'a>, name: &str) -> Option<&'a [u8]> {
    let is_it =
        |line: &&sluice_wire::head::FieldLine| line.name_span.of(request.bytes).eq_ignore_ascii_case(name.as_bytes());
    request.head.fields.lines().iter().find(is_it).map(|line| line.value_span.of(request.bytes))
}

type Escape = fn(&mut Vec<u8>, &[u8]);

/// A field's value, unless it is a secret. One that is a URL, as a referrer is, has secrets of its own.
fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8], config: &AccessLog, escape: Escape) {
    if config.mask.iter().any(|masked| masked.eq_ignore_ascii_case(name)) {
        out.extend_from_slice(MASK);
    } else {
        put_masked(out, value, config, escape);
    }
}

/// A target or URL without the values of those query parameters that are secrets.
fn put_masked(out: &mut Vec<u8>, target: &[u8], config: &AccessLog, escape: Escape) {
    let Some(mark) = memchr::memchr(b'?', target) else { return escape(out, target) };
    escape(out, &target[..=mark]);
    // A semicolon parts parameters for some applications; what it parts is looked at as well.
    for pair in target[mark + 1..].split_inclusive(|byte| matches!(byte, b'&' | b';')) {
        let equals = memchr::memchr(b'=', pair);
        let is_secret = |name: &[u8]| {
            let name = decoded(name);
            config.mask_query.iter().any(|masked| name.eq_ignore_ascii_case(masked.as_bytes()))
        };
        match equals.filter(|equals| is_secret(&pair[..*equals])) {
            Some(equals) => {
                escape(out, &pair[..=equals]);
                out.extend_from_slice(MASK);
                if let Some(end @ (b'&' | b';')) = pair.last() {
                    out.push(*end);
                }
            }
            None => escape(out, pair),
        }
    }
}

/// A parameter's name without percent-encoding, since applications read it so.
fn decoded(name: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if !name.contains(&b'%') {
        return name.into();
    }
    let digit = |at: usize| name.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while at < name.len() {
        match (name[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out.into()
}

fn put_quoted(out: &mut Vec<u8>, with: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    with(out);
    out.push(b'"');
}

fn put_text(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(key);
    match value {
        Some(value) => put_quoted(out, |out| put_escaped(out, value)),
        None => out.extend_from_slice(b"null"),
    }
}

/// A word of our own, which has nothing to escape.
fn put_word(out: &mut Vec<u8>, key: &[u8], word: Option<&[u8]>) {
    out.extend_from_slice(key);
    match word {
        Some(word) => put_quoted(out, |out| out.extend_from_slice(word)),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn put_micros(out: &mut Vec<u8>, key: &[u8], nanos: Option<Nanos>) {
    out.extend_from_slice(key);
    match nanos {
        Some(nanos) => put_number(out, nanos / 1000),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            put_number(out, a.into());
            for octet in [b, c, d] {
                out.push(b'.');
                put_number(out, octet.into());
            }
        }
        // A vector takes everything.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

/// Whether text stands for itself between the quotes of both formats.
fn is_plain(text: &[u8]) -> bool {
    // In bytes and without leaving early, so that it is done for sixteen of them at a time.
    let odd = |byte: u8| u8::from(byte.wrapping_sub(0x20) > 0x5e) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    text.iter().fold(0, |found, byte| found | odd(*byte)) == 0
}

/// Text inside a JSON string (RFC 8259 §7). What a terminal or a reader of lines could take for a control character is
/// escaped too; bytes that are no UTF-8 become the replacement character.
fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    for part in text.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    drop(write!(out, "\\u{:04x}", u32::from(character)));
                }
                _ if character.is_control() => drop(write!(out, "\\u{:04x}", u32::from(character))),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !part.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Text inside the quotes of the combined format: what is not plain is `\xHH`, byte by byte.
fn put_hex_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    for byte in text {
        match byte {
            b'"' | b'\\' | ..0x20 | 0x7f.. => drop(write!(out, "\\x{byte:02X}")),
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_rules::snapshot::LogTarget;

    use super::*;

    fn config() -> AccessLog {
        AccessLog {
            to: LogTarget::Stdout,
            format: AccessFormat::Json,
            buffer_bytes: 1 << 16,
            mask: vec!["cookie".to_owned()],
            mask_query: vec!["token".to_owned()],
            request_fields: Vec::new(),
        }
    }

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn secrets_of_a_query_are_masked_however_their_name_is_written() {
        for (target, expected) in [
            ("/x", "/x"),
            ("/x?token=secret", "/x?token=***"),
            ("/x?a=1&TOKEN=secret&b=2", "/x?a=1&TOKEN=***&b=2"),
            ("/x?t%6Fken=secret;b", "/x?t%6Fken=***;b"),
            ("/x?tokens=1&token&=2", "/x?tokens=1&token&=2"),
            ("https://a.test/?x=%zz&token=", "https://a.test/?x=%zz&token=***"),
        ] {
            assert_eq!(text(|out| put_masked(out, target.as_bytes(), &config(), put_escaped)), expected);
        }
        assert_eq!(text(|out| put_field(out, "cookie", b"a=b", &config(), put_escaped)), "***");
    }

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        let hostile = b"a\"\\\n\x1b[31m\x7f\xc2\x9b\xe2\x80\xa8\xff\xc3\xa9";
        let json = text(|out| put_escaped(out, hostile));
        assert_eq!(json, "a\\\"\\\\\\u000a\\u001b[31m\\u007f\\u009b\\u2028\\ufffdé");
        let combined = text(|out| put_hex_escaped(out, hostile));
        assert_eq!(combined, "a\\x22\\x5C\\x0A\\x1B[31m\\x7F\\xC2\\x9B\\xE2\\x80\\xA8\\xFF\\xC3\\xA9");
    }

    proptest! {
        /// Whatever the bytes, the string ends where we end it, and has nothing that moves a terminal.
        #[test]
        fn nothing_leaves_its_quotes(bytes: Vec<u8>) {
            for escape in [put_escaped as Escape, put_hex_escaped] {
                let mut out = Vec::new();
                escape(&mut out, &bytes);
                let escaped = String::from_utf8(out).expect("it is UTF-8");
                prop_assert!(!escaped.chars().any(char::is_control));
                let mut backslash = false;
                for character in escaped.chars() {
                    prop_assert!(character != '"' || backslash);
                    backslash = character == '\\' && !backslash;
                }
                prop_assert!(!backslash);
            }
        }
    }
}
