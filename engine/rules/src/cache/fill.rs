//! What of a client's request goes to the origin when its response is for others as well.
//!
//! What is not part of the key must not shape what is stored, or one client chooses what others get (cache
//! poisoning). A gateway cannot know what an origin looks at; `Vary` is how an origin says so. So what goes is what an
//! origin may select by and says so, and what stays is what frameworks take for the request itself, whatever `Vary`
//! says: other names for its method, target, host and scheme, and conditions that are about one client's copy.

use sluice_wire::Name;
use sluice_wire::h1::encode::Edits;
use sluice_wire::head::{NameSet, Request};
use sluice_wire::target::Target;

use super::key;
use super::lookup::Asked;
use crate::snapshot::{CachePolicy, QueryPart};

/// Conditions about one client's copy, and parts that one client wants (RFC 9111 §4.3.1).
const OF_ONE_CLIENT: NameSet = NameSet::of(&[
    Name::IfMatch,
    Name::IfModifiedSince,
    Name::IfNoneMatch,
    Name::IfRange,
    Name::IfUnmodifiedSince,
    Name::Range,
]);

/// Fields that some frameworks take for the method, the target, the host or the scheme of the request, in lower case.
const OTHER_NAMES: [&str; 18] = [
    "front-end-https",
    "x-forwarded-path",
    "x-forwarded-port-override",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// Lays over a request what does not go to the origin when the response may be stored. Called behind
/// [`crate::outgoing::Outgoing::edit`], whose own `X-Forwarded-*` and `Forwarded` stay: they say what the key says, and
/// where the client is. What a client claims in them has gone already, unless it is a trusted proxy: then its claims
/// are part of the key.
pub fn edit(policy: &CachePolicy, request: Request<'_>, edits: &mut Edits) {
    let keyed = |name: &[u8]| policy.key.headers.iter().any(|header| name.eq_ignore_ascii_case(header.as_bytes()));
    edits.remove(OF_ONE_CLIENT);
    let drops_identity = policy.ignore_origin && !policy.key.identity;
    for (position, line) in request.head.fields.lines().iter().enumerate() {
        let name = line.name_span.of(request.bytes);
        let other_name = || OTHER_NAMES.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
        let drops = match line.name {
            // Where the origin has no say in who may see a response, it must not know who asks.
            Name::Authorization => drops_identity,
            Name::Cookie => drops_identity || (!policy.key.cookies.is_empty() && !policy.key.identity),
            Name::Other => other_name(),
            _ => false,
        };
        if drops && !keyed(name) {
            edits.remove_line(position);
        }
    }
    if !policy.key.identity && !keyed(b"cookie") {
        let kept = kept_cookies(policy, request);
        if !kept.is_empty() {
            edits.add("Cookie", &[&kept]);
        }
    }
}

/// Whether the response to a request that went to the origin as it is may be for its client alone: it had credentials,
/// or something that [`edit`] and [`target`] keep from the origin.
pub fn is_for_one(policy: &CachePolicy, asked: &Asked, request: Request<'_>, target: &Target) -> bool {
    let mut edits = Edits::default();
    edit(policy, request, &mut edits);
    let table = &request.head.fields;
    let is_edited = !edits.added().is_empty() || (0..table.lines().len()).any(|line| !edits.keeps(line, table));
    asked.has_authorization || asked.has_cookie || is_edited || self::target(policy, target).is_some()
}

/// The cookies that are part of the key, as one value.
fn kept_cookies(policy: &CachePolicy, request: Request<'_>) -> Vec<u8> {
    let mut kept = Vec::new();
    for name in &policy.key.cookies {
        for value in key::cookies(request, name) {
            let separator: &[u8] = if kept.is_empty() { b"" } else { b"; " };
            for part in [separator, name.as_bytes(), b"=", value] {
                kept.extend_from_slice(part);
            }
        }
    }
    kept
}

/// The target that goes to the origin, path and query, where it is not the one of the request: without parameters that
/// are not part of the key.
pub fn target(policy: &CachePolicy, target: &Target) -> Option<String> {
    let QueryPart::Only(names) = &policy.key.query else { return None };
    target.query()?;
    let mut kept = target.path().to_owned();
    let pairs = names.iter().flat_map(|name| key::parameters(target, name));
    for (number, pair) in pairs.enumerate() {
        kept.push(if number == 0 { '?' } else { '&' });
        kept.push_str(pair);
    }
    (kept != target.as_str()).then_some(kept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use sluice_wire::h1::encode;
    use sluice_wire::writer::Writer;

    use super::super::sample::{get, sent};
    use super::*;

    /// The fields that go to the origin, in lower case.
    fn kept(policy: &CachePolicy, fields: &str) -> String {
        let request = get(fields);
        let mut edits = Edits::default();
        edits.remove(NameSet::of(&[Name::Host]));
        edit(policy, request.view(), &mut edits);
        let mut space = vec![0; 4096];
        let mut writer = Writer::new(&mut space);
        encode::request(&mut writer, request.view(), "/", "a", &edits);
        let length = writer.finish().unwrap();
        let text = String::from_utf8_lossy(&space[..length]).into_owned();
        text.trim_end().split("\r\n").skip(2).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_a_client_has_shaped_is_for_it_alone() {
        let mut policy = CachePolicy::default();
        policy.key.query = QueryPart::Only(vec!["page".into()]);
        for (target, fields, expected) in [
            ("/a", "User-Agent: x\nAccept: y", false),
            ("/a?page=1", "", false),
            ("/a?page=1&x=2", "", true),
            ("/a", "Authorization: x", true),
            ("/a", "Cookie: a=1", true),
            ("/a", "X-Host: evil", true),
            ("/a", "If-None-Match: \"a\"", true),
        ] {
            let request = sent("HEAD", target, fields);
            let asked = request.asked(&policy);
            let is_for_one = is_for_one(&policy, &asked, request.view(), &request.target);
            assert_eq!(is_for_one, expected, "{target} {fields}");
        }
    }

    /// ATTACKS.md row 24: what is not part of the key, and what no `Vary` will name, does not go.
    #[test]
    fn what_frameworks_take_for_the_request_itself_does_not_go() {
        let policy = CachePolicy::default();
        for name in OTHER_NAMES.iter().chain(&["If-None-Match", "If-Modified-Since", "If-Match", "If-Range", "Range"]) {
            assert_eq!(kept(&policy, &format!("{name}: x\nX-A: 1")), "X-A: 1", "{name}");
        }
        let selecting = "Accept: a\nAccept-Encoding: b\nAccept-Language: c\nOrigin: d\nUser-Agent: e\nCookie: f=1\nAuthorization: g";
        assert_eq!(kept(&policy, selecting), selecting);
        let mut keyed = policy;
        keyed.key.headers.push("x-http-method-override".into());
        assert_eq!(kept(&keyed, "X-HTTP-Method-Override: x"), "X-HTTP-Method-Override: x");
    }

    #[test]
    fn only_cookies_of_the_key_go_where_the_others_could_not_matter() {
        let mut keyed = CachePolicy::default();
        keyed.key.cookies = vec!["b".into(), "a".into()];
        assert_eq!(kept(&keyed, "Cookie: a=1; s=2\nCookie: b=3"), "Cookie: b=3; a=1");
        assert_eq!(kept(&keyed, "Cookie: s=2"), "");
        let pinned = CachePolicy { ignore_origin: true, ..CachePolicy::default() };
        assert_eq!(kept(&pinned, "Cookie: a=1\nAuthorization: b\nX-A: 1"), "X-A: 1");
        let mut own = pinned.clone();
        own.key.identity = true;
        assert_eq!(kept(&own, "Cookie: a=1\nAuthorization: b"), "Cookie: a=1\nAuthorization: b");
        let mut whole = pinned;
        whole.key.headers.push("cookie".into());
        whole.key.cookies.push("a".into());
        assert_eq!(kept(&whole, "Cookie: a=1; b=2"), "Cookie: a=1; b=2");
    }

    #[test]
    fn only_parameters_of_the_key_go() {
        let mut policy = CachePolicy::default();
        let target = |policy: &CachePolicy, text: &str| super::target(policy, &sent("GET", text, "").target);
        assert_eq!(target(&policy, "/a?x=1&evil=2"), None);
        policy.key.query = QueryPart::Only(vec!["y".into(), "x".into()]);
        for (text, expected) in [
            ("/a?x=1&evil=2", Some("/a?x=1")),
            ("/a?x=1&y=2&x=3", Some("/a?y=2&x=1&x=3")),
            ("/a?evil", Some("/a")),
            ("/a?", Some("/a")),
            ("/a", None),
            ("/a?y=2&x=1", None),
        ] {
            assert_eq!(target(&policy, text).as_deref(), expected, "{text}");
        }
    }

    /// One key, one request to the origin: whatever differs in what is sent differs in the key.
    #[test]
    fn what_goes_is_part_of_the_key() {
        let mut policy = CachePolicy { ignore_origin: true, ..CachePolicy::default() };
        policy.key.query = QueryPart::Only(vec!["x".into()]);
        policy.key.cookies.push("c".into());
        let of = |text: &str, fields: &str| {
            let request = sent("GET", text, fields);
            let subject = key::Subject {
                route: "r",
                scheme: "http",
                authority: "a",
                target: &request.target,
                request: request.view(),
                method: super::super::lookup::Method::Get,
                trusted: false,
                identity: None,
                content: None,
            };
            let mut bytes = Vec::new();
            key::primary(&policy.key, &subject, &mut bytes);
            let sent = super::target(&policy, &request.target).unwrap_or_else(|| request.target.as_str().to_owned());
            (bytes, sent, kept(&policy, fields))
        };
        let requests = ["/a?x=1", "/a?x=1&y=2", "/a?y=2", "/a", "/a?x=2", "/a?x=1&x=2"];
        let fields = ["", "Cookie: c=1", "Cookie: c=1; d=2", "Cookie: c=2", "Authorization: x"];
        let all: Vec<_> = requests.iter().flat_map(|text| fields.iter().map(|fields| of(text, fields))).collect();
        for one in &all {
            for other in &all {
                assert_eq!(one.0 == other.0, (&one.1, &one.2) == (&other.1, &other.2), "{one:?} {other:?}");
            }
        }
    }
}
