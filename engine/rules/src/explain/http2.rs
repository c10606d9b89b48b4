//! Requests and responses as HTTP/2 has them, in the form that people read: pseudo-header fields, then fields.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use sluice_wire::h1::parse::HeadLimits;
use sluice_wire::h2::outbound::Opening;
use sluice_wire::h2::{Malformed, inbound};
use sluice_wire::head::RequestHead;

use crate::check::TestRequest;

use super::words;

/// The head that a client would send.
pub(super) fn text(request: &TestRequest) -> Vec<u8> {
    let TestRequest { method, url, fields, .. } = request;
    let (scheme, authority, target) = (url.scheme.as_str(), &url.authority, &url.target);
    let mut text = format!(":method: {method}\r\n:scheme: {scheme}\r\n:authority: {authority}\r\n:path: {target}\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{}: {value}\r\n", name.to_ascii_lowercase()));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Transcribes a request to `out` as live traffic does. What HPACK carries and a library for HTTP/2 refuses is malformed.
///
/// # Errors
/// As [`inbound::request`].
pub(super) fn read(
    request: &TestRequest,
    out: &mut Vec<u8>,
    head: &mut RequestHead,
    limits: HeadLimits,
) -> Result<(), Malformed> {
    let mut parts = http::Request::new(()).into_parts().0;
    let uri = Uri::builder().scheme(request.url.scheme.as_str()).authority(request.url.authority.as_str());
    parts.uri = uri.path_and_query(request.url.target.as_str()).build().map_err(|_| Malformed::Path)?;
    parts.method = Method::from_bytes(request.method.as_bytes()).map_err(|_| Malformed::Path)?;
    parts.headers = HeaderMap::new();
    let mut ends = true;
    for (name, value) in &request.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed::FieldValue)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Malformed::FieldValue)?;
        ends &= name != http::header::CONTENT_LENGTH || value == "0";
        parts.headers.append(name, value);
    }
    inbound::request(&parts, None, ends, None, out, head, limits)
}

/// The head that goes to an upstream.
pub(super) fn opening(opening: &Opening) -> Vec<u8> {
    let Opening { request, protocol } = opening;
    let uri = request.uri();
    let mut text = format!(":method: {}\r\n", request.method()).into_bytes();
    let mut put = |name: &str, value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    protocol.iter().for_each(|protocol| put(":protocol", protocol.as_bytes()));
    uri.scheme_str().iter().for_each(|scheme| put(":scheme", scheme.as_bytes()));
    uri.authority().iter().for_each(|authority| put(":authority", authority.as_str().as_bytes()));
    uri.path_and_query().iter().for_each(|path| put(":path", path.as_str().as_bytes()));
    request.headers().iter().for_each(|(name, value)| put(name.as_str(), value.as_bytes()));
    text.extend_from_slice(b"\r\n");
    text
}

/// The head of a response that the gateway makes by itself, from that of HTTP/1.1.
pub(super) fn response(status: u16, head: &[u8]) -> Vec<u8> {
    let mut text = format!(":status: {status}\r\n");
    for (name, value) in head.split(|byte| *byte == b'\n').skip(1).filter_map(words::field) {
        text.push_str(&format!("{}: {value}\r\n", name.to_ascii_lowercase()));
    }
    text.push_str("\r\n");
    text.into_bytes()
}
