//! What an unsafe method makes stale (RFC 9111 §4.4).

use sluice_wire::Name;
use sluice_wire::authority;
use sluice_wire::head::Response;
use sluice_wire::target::Target;

use crate::snapshot::TargetPolicy;

/// Whether a method leaves things as they are (RFC 9110 §9.2.1). One that is not known may do anything.
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH")
}

/// What was asked for by an unsafe method.
#[derive(Clone, Copy, Debug)]
pub struct Unsafe<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The canonical authority.
    pub authority: &'a str,
    /// The normalised target.
    pub target: &'a Target,
    /// How targets are normalised.
    pub policy: TargetPolicy,
}

/// The targets, path and query, that are stale once an unsafe method has been answered so: its own and those that
/// `Location` and `Content-Location` name, as long as they are of the same origin. None after an error.
pub fn targets(asked: Unsafe<'_>, response: Response<'_>) -> Vec<String> {
    if !matches!(response.head.status, 200..=399) {
        return Vec::new();
    }
    let mut targets = vec![asked.target.as_str().to_owned()];
    for name in [Name::Location, Name::ContentLocation] {
        let named = response.field(name).and_then(|reference| resolve(asked, reference));
        targets.extend(named.filter(|named| *named != asked.target.as_str()));
    }
    targets.dedup();
    targets
}

/// The target that a reference names, if it is of the same origin (RFC 3986 §5.2; RFC 9110 §4.3.1).
fn resolve(asked: Unsafe<'_>, reference: &[u8]) -> Option<String> {
    let reference = str::from_utf8(reference).ok()?;
    let reference = reference.split('#').next()?;
    let path = if let Some(rest) = reference.strip_prefix("//") {
        of_same_authority(asked, rest)?
    } else if let Some((scheme, rest)) = reference.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        if !scheme.eq_ignore_ascii_case(asked.scheme) {
            return None;
        }
        of_same_authority(asked, rest)?
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.starts_with('?') {
        format!("{}{reference}", asked.target.path())
    } else if reference.is_empty() || reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        // The target itself, or another scheme without an authority.
        return None;
    } else {
        let folder = asked.target.path().rfind('/').map_or("/", |at| &asked.target.path()[..=at]);
        format!("{folder}{reference}")
    };
    let mut target = Target::default();
    target.read("GET", path.as_bytes(), asked.policy).ok()?;
    Some(target.as_str().to_owned())
}

fn is_scheme(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Path and query of a reference behind its `//`, if its authority is the one of the request.
fn of_same_authority(asked: Unsafe<'_>, rest: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let mut canonical = String::new();
    authority::canonical(&rest.as_bytes()[..end], &mut canonical).ok()?;
    let without_port = |authority: &str| {
        let default = if asked.scheme == "https" { ":443" } else { ":80" };
        authority.strip_suffix(default).unwrap_or(authority).to_owned()
    };
    let same = without_port(&canonical) == without_port(asked.authority);
    same.then(|| if rest[end..].starts_with('/') { rest[end..].to_owned() } else { format!("/{}", &rest[end..]) })
}

#[cfg(test)]
mod tests {
    use super::super::sample::received;
    use super::*;

    fn targets_of(target: &str, status: u16, fields: &str) -> Vec<String> {
        let mut normal = Target::default();
        let policy = TargetPolicy::default();
        assert_eq!(normal.read("POST", target.as_bytes(), policy), Ok(()));
        let asked = Unsafe { scheme: "http", authority: "a.example:80", target: &normal, policy };
        targets(asked, received(status, fields).view())
    }

    /// RFC 9110 §9.2.1; RFC 9111 §4.4: a method that is not known may do anything.
    #[test]
    fn methods_that_are_not_known_to_be_safe_are_not() {
        assert!(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND"].into_iter().all(is_safe));
        assert!(!["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get", "FOO"].into_iter().any(is_safe));
    }

    /// RFC 9111 §4.4.
    #[test]
    fn a_change_makes_its_target_stale_and_what_it_names() {
        fn all(others: &[&'static str]) -> Vec<&'static str> {
            [&["/a/b?c"], others].concat()
        }
        for (fields, expected) in [
            ("", all(&[])),
            ("Location: /x", all(&["/x"])),
            ("Location: /x\nContent-Location: /y?z", all(&["/x", "/y?z"])),
            ("Location: /x\nContent-Location: /x", all(&["/x"])),
            ("Content-Location: x", all(&["/a/x"])),
            ("Content-Location: ../x", all(&["/x"])),
            ("Content-Location: ?x", all(&["/a/b?x"])),
            ("Location: /x#y", all(&["/x"])),
            ("Location: /x/../%79", all(&["/y"])),
            ("Location: http://a.example/x", all(&["/x"])),
            ("Location: HTTP://A.Example:80/x", all(&["/x"])),
            ("Location: //a.example/x", all(&["/x"])),
            ("Location: http://a.example?x", all(&["/?x"])),
            ("Location: http://a.example", all(&["/"])),
            // Of another origin.
            ("Location: https://a.example/x", all(&[])),
            ("Location: http://b.example/x", all(&[])),
            ("Location: http://a.example:81/x", all(&[])),
            ("Location: //b.example/x", all(&[])),
            ("Location: http://a.example@b.example/x", all(&[])),
            ("Location: mailto:x", all(&[])),
            ("Location: /..", all(&[])),
            ("Location: ", all(&[])),
            ("Location: /a/b?c", all(&[])),
        ] {
            assert_eq!(targets_of("/a/b?c", 201, fields), expected, "{fields}");
        }
        assert_eq!(targets_of("/a", 302, "Location: /b"), ["/a", "/b"]);
    }

    /// RFC 9111 §4.4: an error has changed nothing.
    #[test]
    fn an_error_makes_nothing_stale() {
        for status in [100, 400, 404, 500, 503] {
            assert_eq!(targets_of("/a", status, "Location: /b"), [""; 0], "{status}");
        }
    }
}
