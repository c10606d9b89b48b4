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
/// As [`request()`].
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::h1::body::{Framing, request_framing, response_framing};
    use crate::h1::parse::{self, Progress};
    use crate::head::Request;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 1024, fields: 12, line_bytes: 200 };
    const WIDE: HeadLimits = HeadLimits { head_bytes: HEAD_BYTES_MAX, fields: FIELDS_MAX, line_bytes: 8192 };
    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn map(fields: Fields<'_>) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn request_parts(method: &str, uri: &str, fields: Fields<'_>) -> request::Parts {
        let mut request = http::Request::builder().method(method).body(()).unwrap();
        *request.uri_mut() = uri.parse().unwrap_or_else(|_| {
            let mut parts = http::uri::Parts::default();
            parts.path_and_query = Some(uri.parse().unwrap());
            http::Uri::from_parts(parts).unwrap()
        });
        *request.headers_mut() = map(fields);
        request.into_parts().0
    }

    fn response_parts(status: u16, fields: Fields<'_>) -> response::Parts {
        let mut response = http::Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = map(fields);
        response.into_parts().0
    }

    /// Writes the request, and holds the table against what the parser of HTTP/1.1 makes of the bytes.
    fn written(
        parts: &request::Parts,
        protocol: Option<&str>,
        ends: bool,
        limits: HeadLimits,
    ) -> Result<(String, RequestHead), Malformed> {
        let (mut out, mut head) = (b"left over".to_vec(), RequestHead::default());
        request(parts, protocol, ends, Some(KEY), &mut out, &mut head, limits)?;
        let mut parsed = RequestHead::default();
        assert_eq!(parse::request(&out, &mut Progress::default(), WIDE, &mut parsed), Ok(true));
        parsed.version = Version::Http2;
        assert_eq!(parsed, head);
        assert_eq!(head.length, out.len());
        Ok((String::from_utf8_lossy(&out).into_owned(), head))
    }

    fn written_response(
        parts: &response::Parts,
        ends: bool,
        no_content: bool,
        accept: Option<&str>,
    ) -> Result<(String, ResponseHead), Malformed> {
        let (mut out, mut head) = (b"left over".to_vec(), ResponseHead::default());
        response(parts, ends, no_content, accept, &mut out, &mut head, LIMITS)?;
        let mut parsed = ResponseHead::default();
        assert_eq!(parse::response(&out, &mut Progress::default(), WIDE, &mut parsed), Ok(true));
        parsed.version = Version::Http2;
        assert_eq!(parsed, head);
        Ok((String::from_utf8_lossy(&out).into_owned(), head))
    }

    #[test]
    fn a_request_becomes_a_head() {
        let cases: &[(&str, &str, Fields<'_>, bool, &str)] = &[
            ("GET", "https://a.example/b?c", &[], true, "GET /b?c HTTP/1.1\r\nhost: a.example\r\n\r\n"),
            ("GET", "/b", &[("host", "a")], true, "GET /b HTTP/1.1\r\nhost: a\r\n\r\n"),
            ("GET", "http://A/b", &[("x", ""), ("host", "a")], true, "GET /b HTTP/1.1\r\nhost: A\r\nx: \r\n\r\n"),
            ("POST", "http://a/", &[], false, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
            (
                "POST",
                "http://a/",
                &[("content-length", "3")],
                false,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
            ),
            (
                "POST",
                "http://a/",
                &[("content-length", "0")],
                true,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                "PUT",
                "http://a/",
                &[("expect", "100-continue"), ("te", "trailers")],
                false,
                "PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nte: trailers\r\n\
                 transfer-encoding: chunked\r\n\r\n",
            ),
            ("CONNECT", "a:443", &[], false, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"),
            (
                "GET",
                "http://a/",
                &[("cookie", "a=1"), ("x", "y"), ("cookie", ""), ("cookie", "b=2; c=3"), ("z", "\u{e4}")],
                true,
                "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2; c=3\r\nx: y\r\nz: \u{e4}\r\n\r\n",
            ),
            (
                "GET",
                "http://a/",
                &[("cookie", ""), ("cookie", "")],
                true,
                "GET / HTTP/1.1\r\nhost: a\r\ncookie: \r\n\r\n",
            ),
        ];
        for (method, uri, fields, ends, expected) in cases {
            let (text, _) = written(&request_parts(method, uri, fields), None, *ends, LIMITS).unwrap();
            assert_eq!(text, *expected);
        }
        let parts = request_parts("OPTIONS", "*", &[("host", "a")]);
        assert_eq!(written(&parts, None, true, LIMITS).unwrap().0, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    }

    #[test]
    fn the_framing_is_that_of_the_stream() {
        for (fields, ends, framing) in [
            (&[][..], true, Framing::Empty),
            (&[], false, Framing::Chunked),
            (&[("content-length", "7")], false, Framing::Length(7)),
            (&[("content-length", "0")], false, Framing::Empty),
        ] {
            let (text, head) = written(&request_parts("POST", "http://a/", fields), None, ends, LIMITS).unwrap();
            assert_eq!(request_framing(text.as_bytes(), &head), Ok(framing));
        }
    }

    /// RFC 9113 §8.1 to §8.5.
    #[test]
    fn a_malformed_request_is_refused() {
        use Malformed::*;
        let cases: &[(&str, &str, Fields<'_>, Malformed)] = &[
            ("GET", "/", &[], Authority),
            ("GET", "/", &[("host", "")], Authority),
            ("GET", "http://a/", &[("host", "b")], Authority),
            ("GET", "http://a/", &[("host", "a"), ("host", "a")], Authority),
            ("GET", "http://u@a/", &[], Authority),
            ("GET", "/", &[("host", "u@a")], Authority),
            ("GET", "ftp://a/", &[], Scheme),
            ("GET", "/\u{e4}", &[("host", "a")], Path),
            ("GET", "?q", &[("host", "a")], Path),
            ("GET", "*", &[("host", "a")], Path),
            ("GET", "a", &[("host", "a")], Path),
            ("GET", "http://a/", &[("connection", "close")], Connection),
            ("GET", "http://a/", &[("connection", "")], Connection),
            ("GET", "http://a/", &[("proxy-connection", "x")], Connection),
            ("GET", "http://a/", &[("keep-alive", "x")], Connection),
            ("GET", "http://a/", &[("transfer-encoding", "chunked")], Connection),
            ("GET", "http://a/", &[("upgrade", "websocket")], Connection),
            ("GET", "http://a/", &[("http2-settings", "x")], Connection),
            ("GET", "http://a/", &[("te", "gzip")], Connection),
            ("GET", "http://a/", &[("te", "trailers"), ("te", "gzip")], Connection),
            ("GET", "http://a/", &[("x", " y")], FieldValue),
            ("GET", "http://a/", &[("x", "y\t")], FieldValue),
            ("GET", "http://a/", &[("x", " ")], FieldValue),
            ("GET", "http://a/", &[("content-length", "1")], ContentLength),
            ("GET", "http://a/", &[("content-length", "")], ContentLength),
            ("GET", "http://a/", &[("content-length", "+0")], ContentLength),
            ("GET", "http://a/", &[("content-length", "0, 0")], ContentLength),
            ("GET", "http://a/", &[("content-length", "0"), ("content-length", "0")], ContentLength),
            ("GET", "http://a/", &[("content-length", "9223372036854775808")], ContentLength),
            ("CONNECT", "a:1", &[("content-length", "0")], ContentLength),
        ];
        for (method, uri, fields, expected) in cases {
            let parts = request_parts(method, uri, fields);
            assert_eq!(written(&parts, None, true, LIMITS).err(), Some(*expected), "{uri} {fields:?}");
        }
    }

    #[test]
    fn each_bound_counts_what_came() {
        let bound = |error| Err(Malformed::Bound(error));
        let fill =
            |fields: Fields<'_>| written(&request_parts("GET", "http://a/", fields), None, true, LIMITS).map(|_| ());
        assert_eq!(fill(&[("x", "y"); 8]), Ok(()));
        assert_eq!(fill(&[("x", "y"); 9]), bound(HeadError::TooManyFields { limit: 12 }));
        assert_eq!(fill(&[("cookie", "y"); 9]), bound(HeadError::TooManyFields { limit: 12 }));
        // Four pseudo-header fields: 42, 43, 43 and 38 bytes.
        let value = "y".repeat(1024 - 166 - 33);
        assert_eq!(fill(&[("x", &value)]), Ok(()));
        assert_eq!(fill(&[("xx", &value)]), bound(HeadError::HeadTooLong { limit: 1024 }));
        let long = format!("http://a/{}", "x".repeat(200 - "GET / HTTP/1.1".len()));
        let line = |uri: &str| written(&request_parts("GET", uri, &[]), None, true, LIMITS).map(|_| ());
        assert_eq!(line(&long), Ok(()));
        assert_eq!(line(&format!("{long}x")), bound(HeadError::LineTooLong { limit: 200 }));
        // No table has more lines than edits can name, whatever is added.
        let names: Vec<String> = (0..FIELDS_MAX).map(|number| format!("x{number}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        let parts = response_parts(200, &fields[..FIELDS_MAX - 1]);
        let (mut out, mut head) = (Vec::new(), ResponseHead::default());
        assert_eq!(response(&parts, true, true, None, &mut out, &mut head, WIDE), Ok(()));
        let switched = response(&parts, false, false, Some("x"), &mut out, &mut head, WIDE);
        assert_eq!(switched, bound(HeadError::TooManyFields { limit: FIELDS_MAX }));
    }

    /// RFC 8441 §5.
    #[test]
    fn an_extended_connect_is_a_websocket_handshake() {
        let fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("sec-websocket-key", "x")];
        let parts = request_parts("CONNECT", "https://a/ws?x", &fields);
        let (text, head) = written(&parts, Some("websocket"), false, LIMITS).unwrap();
        assert_eq!(
            text,
            "GET /ws?x HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\n\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        assert_eq!(Request { bytes: text.as_bytes(), head: &head }.method(), "GET");
        assert_eq!(request_framing(text.as_bytes(), &head), Ok(Framing::Empty));
        for (method, protocol) in [("CONNECT", "connect-udp"), ("CONNECT", "WebSocket"), ("GET", "websocket")] {
            let parts = request_parts(method, "https://a/", &[]);
            assert_eq!(written(&parts, Some(protocol), false, LIMITS).err(), Some(Malformed::Protocol), "{protocol}");
        }
        let parts = request_parts("CONNECT", "https://a/", &[("content-length", "0")]);
        assert_eq!(written(&parts, Some("websocket"), false, LIMITS).err(), Some(Malformed::ContentLength));
    }

    #[test]
    fn a_response_becomes_a_head() {
        let text = |status, fields: Fields<'_>, ends, no_content| {
            written_response(&response_parts(status, fields), ends, no_content, None).unwrap().0
        };
        assert_eq!(text(200, &[], false, false), "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(text(404, &[], true, false), "HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n");
        assert_eq!(text(200, &[("content-length", "5")], false, false), "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n");
        assert_eq!(text(200, &[("content-length", "5")], true, true), "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n");
        assert_eq!(text(304, &[("content-length", "5")], true, false), "HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n");
        assert_eq!(text(200, &[], true, true), "HTTP/1.1 200 \r\n\r\n");
        assert_eq!(text(204, &[], true, false), "HTTP/1.1 204 \r\n\r\n");
        assert_eq!(text(103, &[("link", "<a>")], false, false), "HTTP/1.1 103 \r\nlink: <a>\r\n\r\n");
        assert_eq!(
            text(200, &[("set-cookie", "a"), ("set-cookie", "b"), ("cookie", "c")], true, true),
            "HTTP/1.1 200 \r\nset-cookie: a\r\nset-cookie: b\r\ncookie: c\r\n\r\n"
        );
        let (text, head) = written_response(&response_parts(200, &[]), true, false, None).unwrap();
        assert_eq!(response_framing(text.as_bytes(), &head, false), Ok(Framing::Empty));
    }

    #[test]
    fn a_malformed_response_is_refused() {
        for (status, fields, ends, expected) in [
            (101, &[][..], false, Malformed::Status),
            (600, &[], false, Malformed::Status),
            (200, &[("content-length", "5")][..], true, Malformed::ContentLength),
            (200, &[("content-length", "x")], false, Malformed::ContentLength),
            (304, &[("content-length", "5"), ("content-length", "5")], true, Malformed::ContentLength),
            (200, &[("connection", "x")], false, Malformed::Connection),
            (200, &[("transfer-encoding", "chunked")], false, Malformed::Connection),
            (200, &[("x", "y ")], false, Malformed::FieldValue),
        ] {
            let result = written_response(&response_parts(status, fields), ends, false, None);
            assert_eq!(result.err(), Some(expected), "{status} {fields:?}");
        }
    }

    #[test]
    fn the_answer_to_an_extended_connect_is_a_101() {
        let fields = [("sec-websocket-protocol", "chat"), ("sec-websocket-accept", "forged"), ("content-length", "0")];
        let (text, head) = written_response(&response_parts(200, &fields), false, false, Some("right")).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 101 \r\nsec-websocket-protocol: chat\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: right\r\n\r\n"
        );
        assert_eq!(head.status, 101);
        let refused = written_response(&response_parts(403, &[]), true, false, Some("right")).unwrap();
        assert_eq!(refused.0, "HTTP/1.1 403 \r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn trailers_become_a_section() {
        let mut out = b"left over".to_vec();
        let given = map(&[("grpc-status", "0"), ("content-length", "5"), ("host", "x"), ("upgrade", "y"), ("x", "")]);
        assert_eq!(trailers(&given, &mut out), Ok(()));
        assert_eq!(out, b"grpc-status: 0\r\nx: \r\n\r\n");
        assert_eq!(parse::trailers(&out, 8, &mut FieldTable::default()), Ok(()));
        assert_eq!(trailers(&map(&[("host", "x")]), &mut out), Ok(()));
        assert_eq!(out, b"");
        assert_eq!(trailers(&map(&[("x", " y")]), &mut out), Err(Malformed::FieldValue));
        let long = "y".repeat(OVERHEAD_BYTES_MAX);
        let over = HeadError::HeadTooLong { limit: OVERHEAD_BYTES_MAX };
        assert_eq!(trailers(&map(&[("x", &long)]), &mut out), Err(Malformed::Bound(over)));
    }

    fn any_fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let name = prop_oneof![
            3 => "[!#$%&'*+.^_`|~0-9a-z-]{1,12}",
            1 => proptest::sample::select(vec!["cookie", "host", "te", "content-length", "expect", "upgrade"])
                .prop_map(str::to_owned),
        ];
        let value = prop_oneof![
            3 => proptest::collection::vec(any::<u8>(), 0..20),
            1 => proptest::sample::select(vec!["a", "0", "trailers", "chunked"]).prop_map(|text| text.into()),
        ];
        proptest::collection::vec((name, value), 0..12).prop_map(|pairs| {
            pairs
                .into_iter()
                .filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_bytes(&value).ok()?)))
                .collect()
        })
    }

    proptest! {
        /// Whatever fields come, the bytes are one head with these fields and no others.
        #[test]
        fn hostile_fields_stay_fields(fields in any_fields(), ends in any::<bool>(), path in "/[!-~]{0,20}") {
            let Ok(uri) = format!("http://a{path}").parse::<http::Uri>() else { return Ok(()) };
            let mut request = http::Request::builder().method("POST").uri(uri).body(()).unwrap();
            request.headers_mut().extend(fields.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
            let (parts, ()) = request.into_parts();
            let (mut out, mut head) = (Vec::new(), RequestHead::default());
            if super::request(&parts, None, ends, None, &mut out, &mut head, WIDE).is_err() {
                return Ok(());
            }
            let mut parsed = RequestHead::default();
            prop_assert_eq!(parse::request(&out, &mut Progress::default(), WIDE, &mut parsed), Ok(true));
            prop_assert_eq!(parsed.length, out.len());
            let framing = request_framing(&out, &parsed);
            prop_assert!(framing.is_ok() && (!ends || framing == Ok(Framing::Empty)));
            parsed.version = Version::Http2;
            prop_assert_eq!(&parsed, &head);
            for (name, value) in &parts.headers {
                if name != header::COOKIE && name != header::HOST {
                    prop_assert!(head.fields.values_of(&out, name.as_str()).any(|held| held == value.as_bytes()));
                }
            }
            let added = usize::from(!parts.headers.contains_key(header::HOST))
                + usize::from(head.fields.has(Name::TransferEncoding));
            let crumbs = parts.headers.get_all(header::COOKIE).iter().count();
            prop_assert_eq!(head.fields.lines().len(), parts.headers.len() + added - crumbs.saturating_sub(1));
        }
    }
}
