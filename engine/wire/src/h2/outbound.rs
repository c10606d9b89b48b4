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

/// Takes the trailers that may pass out of a trailer section of HTTP/1.1, with or
/// without its empty line.
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
