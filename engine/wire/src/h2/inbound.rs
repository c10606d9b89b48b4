//! Messages that came by HTTP/2, written as heads of HTTP/1.1 with the table over them.
//!
//! The types of `http` already rule much out: a `HeaderName` is a token in lower case, a `HeaderValue` has no control
//! character but the tab, pseudo-header fields stand apart and once. What they do not rule out is checked here.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, request, response};

use super::{Malformed, WEBSOCKET};
use crate::fields;
use crate::h1::body::{OVERHEAD_BYTES_MAX, number};
use crate::h1::parse::{FIELDS_MAX, HEAD_BYTES_MAX, HeadError, HeadLimits};
use crate::head::{FieldLine, FieldTable, Name, NameSet, RequestHead, ResponseHead, Span, Version};

/// RFC 9113 §8.2.2, and `TE`, which may only say `trailers`.
const CONNECTION_SPECIFIC: NameSet = NameSet::of(&[
    Name::Connection,
    Name::ProxyConnection,
    Name::KeepAlive,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::Http2Settings,
]);

/// What each field counts for beside its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Writes a request as a head of HTTP/1.1 to `out`, which is cleared first, and fills the table over it.
///
/// `protocol` is `:protocol` of an extended CONNECT (RFC 8441), `ends` whether the head ends the stream. A request
/// with content of unknown length is announced as chunked, so that its framing is found as for any other. An
/// extended CONNECT for a WebSocket becomes the handshake of RFC 6455 with `key`: sixteen random bytes in base64.
/// An ordinary CONNECT stays one.
///
/// `http` does not keep a `:scheme` without `:authority`, so it is checked only beside one. The limits hold for the
/// fields as they came: crumbs of cookies and pseudo-header fields count one by one, with 32 bytes each.
///
/// # Errors
/// What RFC 9113 §8 calls malformed, and the bounds; `out` and `head` are then unspecified.
pub fn request(
    parts: &request::Parts,
    protocol: Option<&str>,
    ends: bool,
    key: Option<&str>,
    out: &mut Vec<u8>,
    head: &mut RequestHead,
    limits: HeadLimits,
) -> Result<(), Malformed> {
    let key = match (protocol, key) {
        (None, _) => None,
        (Some(WEBSOCKET), Some(key)) if parts.method == Method::CONNECT => Some(key),
        (Some(_), _) => return Err(Malformed::Protocol),
    };
    let tunnels = parts.method == Method::CONNECT && key.is_none();
    let authority = authority(parts)?;
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Malformed::Scheme);
    }
    let method = if key.is_some() { "GET" } else { parts.method.as_str() };
    let target = if tunnels { authority } else { path(parts)? };
    let mut size = Size::new(limits);
    size.add(":method".len(), parts.method.as_str().len())?;
    if let Some(authority) = parts.uri.authority() {
        size.add(":authority".len(), authority.as_str().len())?;
    }
    if !tunnels {
        size.add(":scheme".len(), parts.uri.scheme_str().map_or("http".len(), str::len))?;
        size.add(":path".len(), target.len())?;
    }
    if let Some(protocol) = protocol {
        size.add(":protocol".len(), protocol.len())?;
    }
    check_fields(&parts.headers, &mut size)?;
    let has_length = content_length(&parts.headers, ends, false)?;
    if has_length && parts.method == Method::CONNECT {
        // RFC 9110 §9.3.6: a CONNECT has no content.
        return Err(Malformed::ContentLength);
    }

    out.clear();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    let line_bytes = out.len() + " HTTP/1.1".len();
    if line_bytes > limits.line_bytes {
        return Err(Malformed::Bound(HeadError::LineTooLong { limit: limits.line_bytes }));
    }
    head.method = Span::new(0..method.len());
    head.target = Span::new(method.len() + 1..out.len());
    head.version = Version::Http2;
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let table = &mut head.fields;
    table.clear();
    put_line(out, table, Name::Host, b"host", authority);
    for (name, value) in &parts.headers {
        match Name::of(name.as_str().as_bytes()) {
            Name::Host => {}
            Name::Cookie if table.has(Name::Cookie) => {}
            Name::Cookie => put_cookies(out, table, &parts.headers),
            Name::SecWebSocketKey if key.is_some() => {}
            known => put_line(out, table, known, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if let Some(key) = key {
        put_line(out, table, Name::Connection, b"connection", b"upgrade");
        put_line(out, table, Name::Upgrade, b"upgrade", WEBSOCKET.as_bytes());
        put_line(out, table, Name::SecWebSocketKey, b"sec-websocket-key", key.as_bytes());
    } else if !ends && !has_length && !tunnels {
        put_line(out, table, Name::TransferEncoding, b"transfer-encoding", b"chunked");
    }
    head.length = finish(out, table)?;
    Ok(())
}

/// Writes a response as a head of HTTP/1.1 to `out`, which is cleared first, and fills the table over it.
///
/// `ends` says whether the head ends the stream, `no_content` whether the request was HEAD. Content of unknown
/// length is announced as chunked, none where there might be some as a length of 0. `accept` is what
/// `Sec-WebSocket-Accept` must say if the request was an extended CONNECT for a WebSocket: a 2xx is then written as
/// the 101 that it stands for.
///
/// # Errors
/// As [`request`].
pub fn response(
    parts: &response::Parts,
    ends: bool,
    no_content: bool,
    accept: Option<&str>,
    out: &mut Vec<u8>,
    head: &mut ResponseHead,
    limits: HeadLimits,
) -> Result<(), Malformed> {
    let status = parts.status.as_u16();
    if status == 101 || !(100..=599).contains(&status) {
        return Err(Malformed::Status);
    }
    let accept = accept.filter(|_| parts.status.is_success());
    let no_content = no_content || matches!(status, 100..=199 | 204 | 304) || accept.is_some();
    let mut size = Size::new(limits);
    size.add(":status".len(), "200".len())?;
    check_fields(&parts.headers, &mut size)?;
    let has_length = content_length(&parts.headers, ends, no_content)?;

    out.clear();
    head.status = if accept.is_some() { 101 } else { status };
    head.version = Version::Http2;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(if accept.is_some() { b"101" } else { parts.status.as_str().as_bytes() });
    out.extend_from_slice(b" \r\n");
    head.reason = Span::default();
    let table = &mut head.fields;
    table.clear();
    for (name, value) in &parts.headers {
        match Name::of(name.as_str().as_bytes()) {
            // RFC 9113 §8.5: a tunnel has no length, and these are what the 101 is made of.
            Name::ContentLength | Name::SecWebSocketAccept if accept.is_some() => {}
            known => put_line(out, table, known, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if let Some(accept) = accept {
        put_line(out, table, Name::Connection, b"connection", b"upgrade");
        put_line(out, table, Name::Upgrade, b"upgrade", WEBSOCKET.as_bytes());
        put_line(out, table, Name::SecWebSocketAccept, b"sec-websocket-accept", accept.as_bytes());
    } else if !has_length && !no_content {
        if ends {
            put_line(out, table, Name::ContentLength, b"content-length", b"0");
        } else {
            put_line(out, table, Name::TransferEncoding, b"transfer-encoding", b"chunked");
        }
    }
    head.length = finish(out, table)?;
    Ok(())
}

/// Writes trailers as a trailer section of HTTP/1.1 with its empty line to `out`, which is cleared first and stays
/// empty if there are none. Fields that may never be trailers are left out.
///
/// # Errors
/// A value with white space around it, and the bound that trailers have in chunked content.
pub fn trailers(trailers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.clear();
    for (name, value) in trailers {
        check_blank(value)?;
        let known = Name::of(name.as_str().as_bytes());
        if CONNECTION_SPECIFIC.contains(known) || fields::NEVER_TRAILERS.contains(&name.as_str()) {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
        if out.len() > OVERHEAD_BYTES_MAX {
            return Err(Malformed::Bound(HeadError::HeadTooLong { limit: OVERHEAD_BYTES_MAX }));
        }
    }
    if !out.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Number and size of the fields of a message, held against its limits.
struct Size {
    limits: HeadLimits,
    fields: usize,
    bytes: usize,
}

impl Size {
    fn new(limits: HeadLimits) -> Self {
        Size { limits, fields: 0, bytes: 0 }
    }

    fn add(&mut self, name: usize, value: usize) -> Result<(), Malformed> {
        self.fields += 1;
        self.bytes += name + value + FIELD_OVERHEAD;
        let bytes_max = self.limits.head_bytes.min(HEAD_BYTES_MAX);
        if self.fields > self.limits.fields.min(FIELDS_MAX) {
            Err(Malformed::Bound(HeadError::TooManyFields { limit: self.limits.fields }))
        } else if self.bytes > bytes_max {
            Err(Malformed::Bound(HeadError::HeadTooLong { limit: bytes_max }))
        } else {
            Ok(())
        }
    }
}

/// The one authority that `:authority` and `Host` name (RFC 9113 §8.3.1).
fn authority(parts: &request::Parts) -> Result<&[u8], Malformed> {
    let mut hosts = parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let (host, second) = (hosts.next(), hosts.next());
    let given = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let authority = match (given, host, second) {
        (Some(given), None, None) => given,
        (Some(given), Some(host), None) if given.eq_ignore_ascii_case(host) => given,
        (None, Some(host), None) => host,
        _ => return Err(Malformed::Authority),
    };
    if authority.is_empty() || memchr::memchr(b'@', authority).is_some() {
        return Err(Malformed::Authority);
    }
    Ok(authority)
}

/// `:path` (RFC 9113 §8.3.1).
fn path(parts: &request::Parts) -> Result<&[u8], Malformed> {
    let path = parts.uri.path_and_query().ok_or(Malformed::Path)?.as_str().as_bytes();
    let has_form = path.starts_with(b"/") || (path == b"*" && parts.method == Method::OPTIONS);
    // What is not visible ASCII, or begins a fragment, may not stand in a target.
    if has_form && path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        Ok(path)
    } else {
        Err(Malformed::Path)
    }
}

/// Counts the fields and refuses those that HTTP/2 forbids.
fn check_fields(headers: &HeaderMap, size: &mut Size) -> Result<(), Malformed> {
    for (name, value) in headers {
        size.add(name.as_str().len(), value.len())?;
        check_blank(value)?;
        let known = Name::of(name.as_str().as_bytes());
        if CONNECTION_SPECIFIC.contains(known) || (known == Name::Te && value != "trailers") {
            return Err(Malformed::Connection);
        }
    }
    Ok(())
}

/// RFC 9113 §8.2.1: no white space before or behind a value.
fn check_blank(value: &HeaderValue) -> Result<(), Malformed> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    debug_assert!(fields::is_value(bytes));
    if blank(bytes.first()) || blank(bytes.last()) { Err(Malformed::FieldValue) } else { Ok(()) }
}

/// Whether there is a `Content-Length`: one plain number, and 0 if the stream ends with the head, unless the number
/// is only what content there would have been (RFC 9113 §8.1.1).
fn content_length(headers: &HeaderMap, ends: bool, no_content: bool) -> Result<bool, Malformed> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(false) };
    match (number(value.as_bytes()), values.next()) {
        (Some(length), None) if length == 0 || !ends || no_content => Ok(true),
        _ => Err(Malformed::ContentLength),
    }
}

/// Appends a field line and its place in the table.
fn put_line(out: &mut Vec<u8>, table: &mut FieldTable, known: Name, name: &[u8], value: &[u8]) {
    let start = out.len();
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    end_line(out, table, known, start, name.len());
}

/// Appends the crumbs of all cookies as one line (RFC 9113 §8.2.3).
fn put_cookies(out: &mut Vec<u8>, table: &mut FieldTable, headers: &HeaderMap) {
    let start = out.len();
    out.extend_from_slice(b"cookie: ");
    let value_start = out.len();
    for crumb in headers.get_all(header::COOKIE).iter().filter(|crumb| !crumb.is_empty()) {
        if out.len() > value_start {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb.as_bytes());
    }
    end_line(out, table, Name::Cookie, start, "cookie".len());
}

fn end_line(out: &mut Vec<u8>, table: &mut FieldTable, known: Name, start: usize, name_bytes: usize) {
    let name_end = start + name_bytes;
    let value_span = Span::new(name_end + 2..out.len());
    out.extend_from_slice(b"\r\n");
    let line = Span::new(start..out.len());
    table.push(FieldLine { name: known, name_span: Span::new(start..name_end), value_span, line });
}

/// Ends the head and returns its length. Lines that we added may have passed what a table can hold.
fn finish(out: &mut Vec<u8>, table: &FieldTable) -> Result<usize, Malformed> {
    if table.lines().len() > FIELDS_MAX {
        return Err(Malformed::Bound(HeadError::TooManyFields { limit: FIELDS_MAX }));
    }
    out.extend_from_slice(b"\r\n");
    Ok(out.len())
}
