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
