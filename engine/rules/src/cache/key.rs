//! The key of a request: what tells it from others (RFC 9111 §2).
//!
//! A key is the effective request: scheme, host, path, and what the route has chosen beside them, each part with its
//! length in front, so that no two requests have one key by accident or design. It is hashed with a secret of the
//! node; whoever finds two keys of one hash gains nothing, since the keys themselves are compared.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};
use sluice_wire::Name;
use sluice_wire::head::Request;
use sluice_wire::target::Target;

use super::lookup::Method;
use crate::snapshot::{KeyParts, QueryPart};

/// What keys are hashed with: random, and the same for all cores of a node.
#[derive(Clone, Copy, Debug)]
pub struct Secret(pub u64, pub u64);

/// The hash of a key.
pub type KeyHash = u128;

impl Secret {
    /// The hash of a key.
    pub fn hash(self, key: &[u8]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(key);
        hasher.finish128().as_u128()
    }
}

/// What a key is made of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The name of the route: fields that choose it need not be part of the key otherwise.
    pub route: &'a str,
    /// `http` or `https`: how the client came.
    pub scheme: &'a str,
    /// The canonical authority.
    pub authority: &'a str,
    /// The normalised target.
    pub target: &'a Target,
    /// The request.
    pub request: Request<'a>,
    /// What the request is looked up as.
    pub method: Method,
    /// Whether the client's own claims about scheme and host are believed, and so passed on.
    pub trusted: bool,
    /// Who the client has proved to be, where that is known otherwise than by `Authorization`.
    pub identity: Option<&'a [u8]>,
    /// The hash of the content, for methods that are keyed by it.
    pub content: Option<[u8; 16]>,
}

/// Parts of a key. Each has a number of its own.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Part {
    Scheme = 1,
    Authority,
    Path,
    Query,
    Parameter,
    Header,
    Cookie,
    Method,
    Identity,
    Content,
    Claim,
    Route,
    End,
}

/// Claims of a trusted proxy that origins make links and decisions of. They are passed on, so they tell requests
/// apart.
const CLAIMS: [Name; 6] = [
    Name::Forwarded,
    Name::XForwardedHost,
    Name::XForwardedPort,
    Name::XForwardedPrefix,
    Name::XForwardedProto,
    Name::XForwardedServer,
];

/// Appends the primary key of a request to `out`.
pub fn primary(parts: &KeyParts, subject: &Subject<'_>, out: &mut Vec<u8>) {
    let Subject { request, target, .. } = *subject;
    put(out, Part::Scheme, subject.scheme.as_bytes());
    put(out, Part::Authority, subject.authority.as_bytes());
    put(out, Part::Path, target.path().as_bytes());
    match &parts.query {
        QueryPart::Whole => {
            if let Some(query) = target.query() {
                put(out, Part::Query, query.as_bytes());
            }
        }
        QueryPart::Only(names) => {
            for (number, name) in (0..).zip(names) {
                parameters(target, name).for_each(|pair| put_numbered(out, Part::Parameter, number, pair.as_bytes()));
            }
        }
    }
    put(out, Part::Route, subject.route.as_bytes());
    for (number, name) in (0..).zip(&parts.headers) {
        let values = request.head.fields.values_of(request.bytes, name);
        values.for_each(|value| put_numbered(out, Part::Header, number, value));
    }
    for (number, name) in (0..).zip(&parts.cookies) {
        cookies(request, name).for_each(|value| put_numbered(out, Part::Cookie, number, value));
    }
    let method = match subject.method {
        Method::Get => None,
        Method::Head => parts.method.then_some("HEAD"),
        Method::Post => Some("POST"),
        Method::Query => Some("QUERY"),
    };
    if let Some(method) = method {
        put(out, Part::Method, method.as_bytes());
    }
    if parts.identity {
        subject.identity.into_iter().for_each(|identity| put(out, Part::Identity, identity));
        let credentials = request.head.fields.values(request.bytes, Name::Authorization);
        credentials.for_each(|value| put_numbered(out, Part::Identity, 0, value));
        let cookies = request.head.fields.values(request.bytes, Name::Cookie);
        cookies.for_each(|value| put_numbered(out, Part::Identity, 1, value));
    }
    if let Some(content) = subject.content {
        put(out, Part::Content, &content);
    }
    if subject.trusted {
        for (number, name) in (0..).zip(CLAIMS) {
            claims(request, name).for_each(|value| put_numbered(out, Part::Claim, number, value));
        }
    }
    put(out, Part::End, &[]);
}

/// What a trusted proxy claims. Of `Forwarded` what it says of the client's address does not count.
fn claims<'a>(request: Request<'a>, name: Name) -> impl Iterator<Item = &'a [u8]> {
    let values = request.head.fields.values(request.bytes, name);
    let parameters = values.flat_map(|value| value.split(|byte| matches!(byte, b';' | b',')));
    parameters.map(|parameter| parameter.trim_ascii()).filter(move |parameter| {
        let key = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        name != Name::Forwarded || !(key.eq_ignore_ascii_case(b"for") || key.eq_ignore_ascii_case(b"by"))
    })
}

/// Appends the key of a target alone, for purging by URL and for invalidating (RFC 9111 §4.4): whatever the other parts
/// of a key are.
pub fn url(scheme: &str, authority: &str, path_and_query: &str, out: &mut Vec<u8>) {
    put(out, Part::Scheme, scheme.as_bytes());
    put(out, Part::Authority, authority.as_bytes());
    put(out, Part::Path, path_and_query.as_bytes());
}

/// The parameters of this name, as `name=value` or `name`, in the order of the query.
pub fn parameters<'t>(target: &'t Target, name: &str) -> impl Iterator<Item = &'t str> {
    let pairs = target.query().unwrap_or_default().split('&');
    pairs.filter(move |pair| pair.split('=').next() == Some(name))
}

/// The values of the cookies of this name.
pub fn cookies<'a>(request: Request<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = request.head.fields.values(request.bytes, Name::Cookie).flat_map(|value| value.split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

fn put(out: &mut Vec<u8>, part: Part, value: &[u8]) {
    out.push(part as u8);
    put_value(out, value);
}

fn put_numbered(out: &mut Vec<u8>, part: Part, number: u32, value: &[u8]) {
    out.push(part as u8);
    out.extend_from_slice(&number.to_be_bytes());
    put_value(out, value);
}

/// Appends a value with its length in front. Heads are at most 64 KiB, so 32 bits do.
pub(super) fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(value);
}
