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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use proptest::prelude::*;

    use super::super::sample::{Sent, sent};
    use super::*;

    fn subject(request: &Sent) -> Subject<'_> {
        Subject {
            route: "r",
            scheme: "http",
            authority: "a",
            target: &request.target,
            request: request.view(),
            method: Method::Get,
            trusted: false,
            identity: None,
            content: None,
        }
    }

    fn key_of(parts: &KeyParts, subject: &Subject<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        primary(parts, subject, &mut key);
        key
    }

    fn key(parts: &KeyParts, target: &str, fields: &str) -> Vec<u8> {
        key_of(parts, &subject(&sent("GET", target, fields)))
    }

    /// Whether two requests have one key.
    fn same(parts: &KeyParts, one: (&str, &str), other: (&str, &str)) -> bool {
        key(parts, one.0, one.1) == key(parts, other.0, other.1)
    }

    #[test]
    fn the_effective_request_is_the_key() {
        let request = sent("GET", "/a", "");
        let plain = subject(&request);
        let parts = KeyParts::default();
        let others = [
            Subject { scheme: "https", ..plain },
            Subject { authority: "b", ..plain },
            Subject { authority: "a:80", ..plain },
            Subject { route: "s", ..plain },
            Subject { method: Method::Post, ..plain },
            Subject { method: Method::Query, ..plain },
            Subject { content: Some([0; 16]), ..plain },
            Subject { content: Some([1; 16]), ..plain },
        ];
        let mut keys: Vec<Vec<u8>> = others.iter().map(|other| key_of(&parts, other)).collect();
        keys.push(key_of(&parts, &plain));
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
        assert_eq!(key_of(&parts, &Subject { method: Method::Head, ..plain }), key_of(&parts, &plain));
        let apart = KeyParts { method: true, ..parts };
        assert_ne!(key_of(&apart, &Subject { method: Method::Head, ..plain }), key_of(&apart, &plain));
    }

    /// A target has one form, and by default all of it counts.
    #[test]
    fn targets_are_told_apart_by_their_normal_form() {
        let parts = KeyParts::default();
        assert!(same(&parts, ("/a/../b", ""), ("/b", "")) && same(&parts, ("/%41", ""), ("/A", "")));
        for (one, other) in
            [("/a", "/b"), ("/a", "/a?"), ("/a?x=1", "/a?x=2"), ("/a?x=1&y=2", "/a?y=2&x=1"), ("/a?b", "/a?b=")]
        {
            assert!(!same(&parts, (one, ""), (other, "")), "{one} {other}");
        }
        assert!(same(&parts, ("/a", "X-A: 1\nCookie: a=1"), ("/a", "X-A: 2")));
    }

    #[test]
    fn chosen_parts_tell_requests_apart_and_others_do_not() {
        let query = KeyParts { query: QueryPart::Only(vec!["x".into(), "y".into()]), ..KeyParts::default() };
        for (one, other, expected) in [
            ("/a?x=1", "/a?x=1&z=1", true),
            ("/a?x=1&y=2", "/a?y=2&x=1", true),
            ("/a?x=1&x=2", "/a?x=2&x=1", false),
            ("/a?x=1&x=1", "/a?x=1", false),
            ("/a?x", "/a?x=", false),
            ("/a?x=1", "/a?y=1", false),
            ("/a?x=1", "/a?X=1", false),
            ("/a", "/a?z", true),
            ("/a?x=y=1", "/a?x=&y=1", false),
        ] {
            assert_eq!(same(&query, (one, ""), (other, "")), expected, "{one} {other}");
        }
        let none = KeyParts { query: QueryPart::Only(Vec::new()), ..KeyParts::default() };
        assert!(same(&none, ("/a?x=1", ""), ("/a", "")));
        let fields = KeyParts { headers: vec!["x-a".into(), "x-b".into()], ..KeyParts::default() };
        for (one, other, expected) in [
            ("X-A: 1", "x-a:   1", true),
            ("X-A: 1", "X-A: 1\nX-C: 1", true),
            ("X-A: 1", "X-B: 1", false),
            ("X-A: 1\nX-B: 2", "X-B: 2\nX-A: 1", true),
            ("X-A: 1\nX-A: 2", "X-A: 1, 2", false),
            ("X-A:", "", false),
        ] {
            assert_eq!(same(&fields, ("/", one), ("/", other)), expected, "{one} {other}");
        }
        let cookies = KeyParts { cookies: vec!["a".into()], ..KeyParts::default() };
        assert!(same(&cookies, ("/", "Cookie: b=1; a=2"), ("/", "Cookie: a=2;c=3")));
        assert!(!same(&cookies, ("/", "Cookie: a=1"), ("/", "Cookie: a=2")));
        assert!(!same(&cookies, ("/", "Cookie: a=1"), ("/", "Cookie: b=1")));
    }

    /// Nothing of one identity is given to another.
    #[test]
    fn identities_are_told_apart_where_the_route_says_so() {
        let parts = KeyParts { identity: true, ..KeyParts::default() };
        for (one, other) in [
            ("Authorization: a", "Authorization: b"),
            ("Authorization: a", ""),
            ("Cookie: s=1", "Cookie: s=2"),
            ("Authorization: a", "Cookie: a"),
        ] {
            assert!(!same(&parts, ("/", one), ("/", other)), "{one} {other}");
        }
        let request = sent("GET", "/", "");
        let proved = Subject { identity: Some(b"me"), ..subject(&request) };
        assert_ne!(key_of(&parts, &proved), key_of(&parts, &subject(&request)));
        assert_eq!(key_of(&KeyParts::default(), &proved), key_of(&KeyParts::default(), &subject(&request)));
    }

    /// What a trusted proxy claims is passed on, so it has to tell requests apart; where clients are does not.
    #[test]
    fn claims_that_are_believed_are_part_of_the_key() {
        let of = |trusted: bool, fields: &str| {
            let request = sent("GET", "/", fields);
            key_of(&KeyParts::default(), &Subject { trusted, ..subject(&request) })
        };
        for fields in [
            "X-Forwarded-Host: evil",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Prefix: /x",
            "Forwarded: for=a;host=evil",
        ] {
            assert_ne!(of(true, fields), of(true, ""), "{fields}");
            assert_eq!(of(false, fields), of(false, ""), "{fields}");
        }
        for fields in ["X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4;by=_x", "X-Real-IP: 1.2.3.4"] {
            assert_eq!(of(true, fields), of(true, ""), "{fields}");
        }
    }

    #[test]
    fn a_hash_depends_on_its_secret() {
        let secret = Secret(1, 2);
        assert_eq!(secret.hash(b"a"), Secret(1, 2).hash(b"a"));
        assert_ne!(secret.hash(b"a"), Secret(1, 3).hash(b"a"));
        assert_ne!(secret.hash(b"a"), secret.hash(b"b"));
    }

    proptest! {
        /// Different parts never give one key: each has its length in front.
        #[test]
        fn the_encoding_is_injective(
            one in proptest::collection::vec("[a-c]{0,2}", 4), other in proptest::collection::vec("[a-c]{0,2}", 4),
        ) {
            let parts = KeyParts {
                query: QueryPart::Only(vec!["x".into()]),
                headers: vec!["x-a".into()],
                cookies: vec!["c".into()],
                ..KeyParts::default()
            };
            let of = |values: &[String]| {
                let [path, query, field, cookie] = values else { return Vec::new() };
                key(&parts, &format!("/{path}?x={query}"), &format!("X-A: {field}\nCookie: c={cookie}"))
            };
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
