//! Tags of responses, and what is purged by them and otherwise.

use sluice_wire::Name;
use sluice_wire::authority;
use sluice_wire::head::Response;
use sluice_wire::target::Target;

use crate::snapshot::{CachePolicy, TargetPolicy};

/// Tags that a response may have; further ones do not count.
pub const TAGS_MAX: usize = 64;

/// Bytes of a tag; a longer one does not count.
pub const TAG_BYTES_MAX: usize = 256;

/// The tags of a response, each once, in lower case: those of the field that the route names, or of `Cache-Tag`, which
/// is separated by commas, and `Surrogate-Key`, which is separated by spaces.
pub fn of(policy: &CachePolicy, response: Response<'_>) -> Vec<String> {
    let table = &response.head.fields;
    let values: Vec<&[u8]> = match &policy.tags {
        Some(name) => table.values_of(response.bytes, name).collect(),
        None => {
            let tags = table.values(response.bytes, Name::CacheTag);
            tags.chain(table.values(response.bytes, Name::SurrogateKey)).collect()
        }
    };
    let mut tags: Vec<String> = Vec::new();
    for tag in values.into_iter().flat_map(|value| value.split(|byte| matches!(byte, b',' | b' ' | b'\t'))) {
        let fits = !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && tags.len() < TAGS_MAX;
        let Some(tag) = str::from_utf8(tag).ok().filter(|_| fits) else { continue };
        let tag = tag.to_ascii_lowercase();
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// All responses for a target, whatever the rest of their keys.
    Url {
        /// `http` or `https`.
        scheme: String,
        /// The canonical authority.
        authority: String,
        /// Path and query, normalised.
        target: String,
    },
    /// All responses of a host for targets whose paths begin so.
    Prefix {
        /// `http` or `https`.
        scheme: String,
        /// The canonical authority.
        authority: String,
        /// The beginning of the path, which ends in a slash.
        path: String,
    },
    /// All responses of an authority.
    Host(String),
    /// All responses with a tag.
    Tag(String),
    /// Everything.
    All,
}

/// What is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It does not begin with `http://` or `https://`.
    #[error("expected a URL with http:// or https://")]
    Scheme,
    /// It has no valid host.
    #[error("invalid host")]
    Host,
    /// It has no valid path.
    #[error("invalid path")]
    Path,
    /// A star that does not stand behind the last slash of a path without a query.
    #[error("a star may stand only behind the last slash, such as in http://example.com/a/*")]
    Star,
    /// A tag that no response can have.
    #[error("invalid tag")]
    Tag,
}

impl Pattern {
    /// Reads `http://host/path?query`, or `http://host/path/*` for all below.
    ///
    /// # Errors
    /// It is neither.
    pub fn url(text: &str, policy: TargetPolicy) -> Result<Self, InvalidPattern> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidPattern::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(InvalidPattern::Scheme);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = canonical_host(&rest[..end])?;
        let (path, is_prefix) = match rest[end..].strip_suffix("/*") {
            Some(folder) => (format!("{folder}/"), true),
            None if rest[end..].starts_with('/') => (rest[end..].to_owned(), false),
            None => (format!("/{}", &rest[end..]), false),
        };
        if path.contains('*') || (is_prefix && path.contains('?')) {
            return Err(InvalidPattern::Star);
        }
        let mut target = Target::default();
        target.read("GET", path.as_bytes(), policy).map_err(|_| InvalidPattern::Path)?;
        let target = target.as_str().to_owned();
        Ok(if is_prefix {
            Pattern::Prefix { scheme, authority, path: target }
        } else {
            Pattern::Url { scheme, authority, target }
        })
    }

    /// Reads a host, with its port if it has one.
    ///
    /// # Errors
    /// It is none.
    pub fn host(text: &str) -> Result<Self, InvalidPattern> {
        canonical_host(text).map(Pattern::Host)
    }

    /// Reads a tag.
    ///
    /// # Errors
    /// No response can have it.
    pub fn tag(text: &str) -> Result<Self, InvalidPattern> {
        let text = text.trim();
        let is_tag = !text.is_empty() && text.len() <= TAG_BYTES_MAX && !text.contains([',', ' ', '\t']);
        if is_tag { Ok(Pattern::Tag(text.to_ascii_lowercase())) } else { Err(InvalidPattern::Tag) }
    }

    /// Whether it is about a stored response.
    pub fn covers(&self, stored: &Stored<'_>) -> bool {
        match self {
            Pattern::Url { scheme, authority, target } => {
                scheme == stored.scheme && authority == stored.authority && target == stored.target
            }
            Pattern::Prefix { scheme, authority, path } => {
                let own = stored.target.split('?').next().unwrap_or_default();
                scheme == stored.scheme && authority == stored.authority && own.starts_with(path.as_str())
            }
            Pattern::Host(authority) => authority == stored.authority,
            Pattern::Tag(tag) => stored.tags.iter().any(|own| own == tag),
            Pattern::All => true,
        }
    }
}

/// What purging needs to know of a stored response.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The canonical authority.
    pub authority: &'a str,
    /// Path and query, normalised.
    pub target: &'a str,
    /// Its tags.
    pub tags: &'a [String],
}

fn canonical_host(text: &str) -> Result<String, InvalidPattern> {
    let mut canonical = String::new();
    authority::canonical(text.as_bytes(), &mut canonical).map_err(|_| InvalidPattern::Host)?;
    Ok(canonical)
}

#[cfg(test)]
mod tests {
    use super::super::sample::ok;
    use super::*;

    #[test]
    fn tags_are_separated_by_commas_or_spaces() {
        let default = CachePolicy::default();
        let own = CachePolicy { tags: Some("x-tags".into()), ..default.clone() };
        for (policy, fields, expected) in [
            (&default, "", &[][..]),
            (&default, "Cache-Tag: a, B,,a", &["a", "b"]),
            (&default, "Surrogate-Key: a b  c", &["a", "b", "c"]),
            (&default, "Cache-Tag: a\nSurrogate-Key: b\nCache-Tag: c", &["a", "c", "b"]),
            (&own, "X-Tags: a b\nCache-Tag: c", &["a", "b"]),
            (&default, "Cache-Tag: \u{e4}", &["\u{e4}"]),
        ] {
            assert_eq!(of(policy, ok(fields).view()), expected, "{fields}");
        }
        let many = (0..100).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(of(&default, ok(&format!("Cache-Tag: {many}")).view()).len(), TAGS_MAX);
        let long = "a".repeat(TAG_BYTES_MAX + 1);
        assert_eq!(of(&default, ok(&format!("Cache-Tag: {long}, b")).view()), ["b"]);
    }

    #[test]
    fn a_url_or_all_below_one_is_purged() {
        let policy = TargetPolicy::default();
        let (scheme, authority) = ("http".to_owned(), "a.example".to_owned());
        let url =
            |target: &str| Pattern::Url { scheme: scheme.clone(), authority: authority.clone(), target: target.into() };
        let below =
            |path: &str| Pattern::Prefix { scheme: scheme.clone(), authority: authority.clone(), path: path.into() };
        use InvalidPattern::*;
        for (text, expected) in [
            ("http://a.example/b?c", Ok(url("/b?c"))),
            ("HTTP://A.Example/x/../b", Ok(url("/b"))),
            ("http://a.example", Ok(url("/"))),
            ("http://a.example?x", Ok(url("/?x"))),
            ("http://a.example/b/*", Ok(below("/b/"))),
            ("http://a.example/*", Ok(below("/"))),
            ("a.example/b", Err(Scheme)),
            ("ftp://a.example/b", Err(Scheme)),
            ("http:///b", Err(Host)),
            ("http://a b/", Err(Host)),
            ("http://a.example/..", Err(Path)),
            ("http://a.example/b*", Err(Star)),
            ("http://a.example/*/b", Err(Star)),
            ("http://a.example/b?c/*", Err(Star)),
        ] {
            assert_eq!(Pattern::url(text, policy), expected, "{text}");
        }
        assert_eq!(Pattern::host("A.Example:80"), Ok(Pattern::Host("a.example:80".into())));
        assert_eq!(Pattern::host("a/b"), Err(Host));
        assert_eq!(Pattern::tag(" A "), Ok(Pattern::Tag("a".into())));
        assert_eq!(Pattern::tag("a b"), Err(Tag));
    }

    #[test]
    fn a_pattern_covers_what_it_names() {
        let tags = ["t".to_owned()];
        let stored = Stored { scheme: "http", authority: "a.example", target: "/b/c?d", tags: &tags };
        let policy = TargetPolicy::default();
        for (text, expected) in [
            ("http://a.example/b/c?d", true),
            ("http://a.example/b/c", false),
            ("https://a.example/b/c?d", false),
            ("http://b.example/b/c?d", false),
            ("http://a.example/b/*", true),
            ("http://a.example/*", true),
            ("http://a.example/b/c/*", false),
            ("http://a.example/bb/*", false),
        ] {
            assert_eq!(Pattern::url(text, policy).map(|pattern| pattern.covers(&stored)), Ok(expected), "{text}");
        }
        assert!(Pattern::All.covers(&stored) && Pattern::Host("a.example".into()).covers(&stored));
        assert!(!Pattern::Host("b.example".into()).covers(&stored));
        assert!(Pattern::Tag("t".into()).covers(&stored) && !Pattern::Tag("u".into()).covers(&stored));
    }
}
