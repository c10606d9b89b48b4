//! Messages that leave by HTTP/2, taken out of their heads with the edits laid over.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode};

use super::WEBSOCKET;
use crate::fields::Trailers;
use crate::h1::encode::Edits;
use crate::head::{FieldTable, Name, NameSet, Request, Response};

/// Fields of HTTP/1.1 that have no place in HTTP/2 (RFC 9113 §8.2.2), and `Host`, which `:authority` stands for.
const LEFT_OUT: NameSet = NameSet::of(&[
    Name::Connection,
    Name::Host,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// What is left out besides when a WebSocket is opened: extended CONNECT needs no proof of understanding
/// (RFC 8441 §5), and a tunnel has no length.
const LEFT_OUT_OF_WEBSOCKET: NameSet =
    NameSet::of(&[Name::ContentLength, Name::SecWebSocketAccept, Name::SecWebSocketKey]);

/// Why a request cannot leave by HTTP/2. What was admitted always can; what the configuration made of it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// The method is not a token.
    #[error("invalid method")]
    Method,
    /// The scheme is neither http nor https.
    #[error("invalid scheme")]
    Scheme,
    /// The host is no authority.
    #[error("invalid authority")]
    Authority,
    /// The target is no path and query.
    #[error("invalid request target")]
    Target,
}

/// A request as HTTP/2 sends it.
#[derive(Debug)]
pub struct Opening {
    /// Pseudo-header fields and fields.
    pub request: http::Request<()>,
    /// `:protocol`, if this is an extended CONNECT (RFC 8441). The peer must have allowed it by its settings.
    pub protocol: Option<&'static str>,
}

/// Takes a request out of its head. One that is to be upgraded to a WebSocket becomes an extended CONNECT; any
/// other upgrade has no form in HTTP/2, and the request goes without it (RFC 9110 §7.8).
///
/// # Errors
/// [`Untranslatable`]
pub fn request(
    request: Request<'_>,
    target: &str,
    host: &str,
    scheme: &str,
    edits: &Edits,
) -> Result<Opening, Untranslatable> {
    let table = &request.head.fields;
    let opens_websocket = opens_websocket(request.bytes, table, edits);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(match scheme {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        _ => return Err(Untranslatable::Scheme),
    });
    uri.authority = Some(Authority::try_from(host).map_err(|_| Untranslatable::Authority)?);
    // A fragment would be cut off by the conversion without a word.
    let path = PathAndQuery::try_from(target).ok().filter(|path| path.as_str() == target);
    uri.path_and_query = Some(path.ok_or(Untranslatable::Target)?);
    let mut translated = http::Request::new(());
    *translated.version_mut() = http::Version::HTTP_2;
    *translated.uri_mut() = Uri::from_parts(uri).map_err(|_| Untranslatable::Target)?;
    *translated.method_mut() = if opens_websocket {
        Method::CONNECT
    } else {
        Method::from_bytes(request.method().as_bytes()).map_err(|_| Untranslatable::Method)?
    };
    let left_out = if opens_websocket { LEFT_OUT.union(LEFT_OUT_OF_WEBSOCKET) } else { LEFT_OUT };
    *translated.headers_mut() = fields(request.bytes, table, edits, left_out);
    Ok(Opening { request: translated, protocol: opens_websocket.then_some(WEBSOCKET) })
}

/// Takes a response out of its head. A 101, which HTTP/2 does not have (RFC 9113 §8.6), can only be the answer to
/// an extended CONNECT and becomes a 200 (RFC 8441 §5).
pub fn response(response: Response<'_>, edits: &Edits) -> http::Response<()> {
    let switches = response.head.status == 101;
    let status = if switches { 200 } else { response.head.status };
    let left_out = if switches { LEFT_OUT.union(LEFT_OUT_OF_WEBSOCKET) } else { LEFT_OUT };
    let mut translated = http::Response::new(());
    *translated.version_mut() = http::Version::HTTP_2;
    // A status that was parsed is between 100 and 599.
    *translated.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *translated.headers_mut() = fields(response.bytes, &response.head.fields, edits, left_out);
    translated
}

/// Takes the trailers that may pass out of a trailer section of HTTP/1.1, with or without its empty line.
pub fn trailers(section: &[u8], allowed: Trailers<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines(section) {
        if allowed.allow(name) {
            append(&mut map, Name::of(name), name, value, LEFT_OUT);
        }
    }
    map
}

/// Whether the edited request asks for a WebSocket.
fn opens_websocket(bytes: &[u8], table: &FieldTable, edits: &Edits) -> bool {
    let is_upgrade = |name: Name, value: &[u8]| {
        name == Name::Upgrade && crate::fields::list(value).any(|one| one.eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
    };
    let kept =
        table.has(Name::Upgrade)
            && table.lines().iter().enumerate().any(|(position, line)| {
                is_upgrade(line.name, line.value_span.of(bytes)) && edits.keeps(position, table)
            });
    kept || lines(edits.added()).any(|(name, value)| is_upgrade(Name::of(name), value))
}

/// The lines that stay and those that were added, without the names that are left out.
fn fields(bytes: &[u8], table: &FieldTable, edits: &Edits, left_out: NameSet) -> HeaderMap {
    let added = memchr::memchr_iter(b'\n', edits.added()).count();
    let mut map = HeaderMap::with_capacity(table.lines().len() + added);
    for (position, line) in table.lines().iter().enumerate() {
        if edits.keeps(position, table) {
            append(&mut map, line.name, line.name_span.of(bytes), line.value_span.of(bytes), left_out);
        }
    }
    for (name, value) in lines(edits.added()) {
        append(&mut map, Name::of(name), name, value, left_out);
    }
    map
}

/// Names and values of lines of HTTP/1.1.
fn lines(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Appends a field unless it is left out. RFC 9113 §8.2.2: `TE` may only say `trailers`.
fn append(map: &mut HeaderMap, known: Name, name: &[u8], value: &[u8], left_out: NameSet) {
    if left_out.contains(known) || (known == Name::Te && !value.eq_ignore_ascii_case(b"trailers")) {
        return;
    }
    // The one value that is left is sensitive to case to some.
    let value = if known == Name::Te { b"trailers" } else { value };
    // The line was parsed or checked before, and `http` takes all that is a token and a value.
    let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
        debug_assert!(false, "a line that is not strictly valid");
        return;
    };
    // There are never as many fields as a map has room for: a section has 256 lines, and edits add a few.
    let _ = map.try_append(name, value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use proptest::prelude::*;

    use super::*;
    use crate::fields::HOP_BY_HOP;
    use crate::h1::parse::{self, HeadLimits, Progress};
    use crate::h2::inbound;
    use crate::head::{RequestHead, ResponseHead, Version};
    use crate::target::{Policy, Target};

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, fields: 100, line_bytes: 8192 };

    fn parsed(bytes: &[u8]) -> RequestHead {
        let mut head = RequestHead::default();
        assert_eq!(parse::request(bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true));
        head
    }

    fn parsed_response(bytes: &[u8]) -> ResponseHead {
        let mut head = ResponseHead::default();
        assert_eq!(parse::response(bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true));
        head
    }

    fn opening(bytes: &[u8], target: &str, edits: &Edits) -> Result<Opening, Untranslatable> {
        request(Request { bytes, head: &parsed(bytes) }, target, "a.example:80", "https", edits)
    }

    /// The fields as lines, in order.
    fn shown(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        headers.iter().map(line).collect()
    }

    #[test]
    fn a_request_is_what_the_edits_leave_and_add() {
        let bytes = b"POST /old HTTP/1.1\r\nHost: old\r\nX-A: 1\r\nX-B: 2\r\nConnection: close, x-c\r\nX-C: 3\r\n\
            Keep-Alive: 5\r\nTE: gzip\r\nTE: Trailers\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
        let mut edits = Edits::default();
        edits.remove_line(4);
        edits.remove(NameSet::of(&[Name::Expect]));
        edits.add_lines(b"Via: 1.1 sluice\r\nTransfer-Encoding: chunked\r\nX-A:\t4 \r\n");
        let Opening { request, protocol } = opening(bytes, "/new?q", &edits).unwrap();
        assert_eq!((request.method(), protocol), (&Method::POST, None));
        assert_eq!(*request.uri(), "https://a.example:80/new?q");
        assert_eq!(shown(request.headers()), ["x-a: 1", "x-a: 4", "x-b: 2", "te: trailers", "via: 1.1 sluice"]);
    }

    #[test]
    fn the_length_stays_and_the_asterisk_too() {
        let bytes = b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n";
        let Opening { request, .. } = opening(bytes, "*", &Edits::default()).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "*");
        assert_eq!(shown(request.headers()), ["content-length: 7"]);
    }

    /// RFC 8441 §5.
    #[test]
    fn a_websocket_handshake_becomes_an_extended_connect() {
        let bytes = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, WebSocket\r\n\
            Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let mut edits = Edits::default();
        for lines in [&b""[..], b"Connection: upgrade\r\nUpgrade: websocket\r\n"] {
            edits.add_lines(lines);
            let Opening { request, protocol } = opening(bytes, "/ws", &edits).unwrap();
            assert_eq!((request.method(), protocol), (&Method::CONNECT, Some("websocket")));
            assert_eq!(shown(request.headers()), ["sec-websocket-version: 13"]);
            // What the client wished does not count once it was removed.
            edits.remove(HOP_BY_HOP);
        }
        edits.clear();
        edits.remove(HOP_BY_HOP);
        let Opening { request, protocol } = opening(bytes, "/ws", &edits).unwrap();
        assert_eq!((request.method(), protocol), (&Method::GET, None));
        edits.add_lines(b"Upgrade: other\r\n");
        assert_eq!(opening(bytes, "/ws", &edits).unwrap().protocol, None);
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = parsed(bytes);
        let translate = |target, host, scheme| {
            request(Request { bytes, head: &head }, target, host, scheme, &Edits::default()).err()
        };
        assert_eq!(translate("/", "a", "http"), None);
        assert_eq!(translate("/", "a", "ws"), Some(Untranslatable::Scheme));
        assert_eq!(translate("/", "a b", "http"), Some(Untranslatable::Authority));
        assert_eq!(translate("/", "", "http"), Some(Untranslatable::Authority));
        for target in ["", "x", "/a b", "/a#b", "/\r\n"] {
            assert_eq!(translate(target, "a", "http"), Some(Untranslatable::Target), "{target:?}");
        }
    }

    #[test]
    fn a_response_is_what_the_edits_leave_and_add() {
        let bytes = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
            Content-Length: 4\r\nUpgrade: h2c\r\n\r\n";
        let mut edits = Edits::default();
        edits.remove_line(1);
        edits.add("Via", &[b"1.1 sluice"]);
        let translated = response(Response { bytes, head: &parsed_response(bytes) }, &edits);
        assert_eq!(translated.status(), 404);
        let expected = ["set-cookie: a", "set-cookie: b", "content-length: 4", "via: 1.1 sluice"];
        assert_eq!(shown(translated.headers()), expected);
    }

    #[test]
    fn a_101_becomes_a_200() {
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        let translated = response(Response { bytes, head: &parsed_response(bytes) }, &Edits::default());
        assert_eq!(translated.status(), 200);
        assert_eq!(shown(translated.headers()), ["sec-websocket-protocol: chat"]);
    }

    #[test]
    fn only_allowed_trailers_pass() {
        let allowed = ["grpc-status".to_owned(), "connection".to_owned()];
        for section in [&b"X: y\r\nGrpc-Status: 0 \r\nConnection: x\r\n\r\n"[..], b"Grpc-Status: 0\r\n"] {
            assert_eq!(shown(&trailers(section, Trailers::Named(&allowed))), ["grpc-status: 0"]);
        }
        assert!(trailers(b"", Trailers::Metadata).is_empty());
    }

    /// The types of `http` take every byte that a strict head may have, so no line is ever lost.
    #[test]
    fn every_valid_byte_has_a_form() {
        for byte in 0..=255u8 {
            assert_eq!(HeaderName::from_bytes(&[byte]).is_ok(), crate::fields::is_token(&[byte]), "{byte}");
            assert_eq!(HeaderValue::from_bytes(&[byte]).is_ok(), crate::fields::is_value(&[byte]), "{byte}");
        }
    }

    proptest! {
        /// From a table to HTTP/2 and back is the identity on the fields, but for the order of names that repeat.
        #[test]
        fn a_request_survives_the_way(
            fields in proptest::collection::vec(("[A-Za-z][A-Za-z0-9_-]{0,20}", "[!-~]?|[!-~][\t -~\u{e4}]{0,30}[!-~]"), 0..20),
            length in proptest::option::of(any::<u32>()),
        ) {
            let mut bytes = b"POST /a?b HTTP/1.1\r\nhost: example.com\r\n".to_vec();
            for (name, value) in &fields {
                bytes.extend_from_slice(format!("x{name}: {value}\r\n").as_bytes());
            }
            if let Some(length) = length {
                bytes.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            let before = parsed(&bytes);
            let opening = request(Request { bytes: &bytes, head: &before }, "/a?b", "example.com", "http", &Edits::default());
            let (parts, ()) = opening.unwrap().request.into_parts();
            let (mut out, mut after) = (Vec::new(), RequestHead::default());
            let ends = length == Some(0);
            prop_assert_eq!(inbound::request(&parts, None, ends, None, &mut out, &mut after, LIMITS), Ok(()));
            prop_assert_eq!(after.version, Version::Http2);
            let pairs = |head: &RequestHead, bytes: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
                let pair = |line: &crate::head::FieldLine| {
                    (line.name_span.of(bytes).to_ascii_lowercase(), line.value_span.of(bytes).to_vec())
                };
                let mut pairs: Vec<_> = head.fields.lines().iter().map(pair).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs
            };
            let mut expected = pairs(&before, &bytes);
            if length.is_none() {
                expected.push((b"transfer-encoding".to_vec(), b"chunked".to_vec()));
                expected.sort_by(|a, b| a.0.cmp(&b.0));
            }
            prop_assert_eq!(pairs(&after, &out), expected);
            prop_assert_eq!(after.target.of(&out), before.target.of(&bytes));
        }

        /// Whatever target and authority are admitted have a form in HTTP/2.
        #[test]
        fn a_normalised_target_has_a_form(raw in "/[!-~]{0,30}") {
            let mut target = Target::default();
            if target.read("GET", raw.as_bytes(), Policy::default()).is_ok() {
                let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
                prop_assert!(opening(bytes, target.as_str(), &Edits::default()).is_ok(), "{}", target.as_str());
            }
        }

        #[test]
        fn an_admitted_authority_has_a_form(raw in "[a-zA-Z0-9._~-]{1,20}(:[0-9]{1,5})?|\\[[0-9a-f:]{2,20}\\]") {
            let mut host = String::new();
            if crate::authority::canonical(raw.as_bytes(), &mut host).is_ok() {
                prop_assert!(Authority::try_from(host.as_str()).is_ok(), "{host}");
            }
        }
    }
}
