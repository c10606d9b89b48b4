//! `Cache-Status` (RFC 9211): what the cache did, for whoever asks why.

use super::lookup::{Forward, Hit, Leave};

/// What the cache did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// How it was answered.
    pub outcome: Outcome,
    /// Whether the response was stored.
    pub stored: bool,
    /// Whether it shared a request to the origin with others.
    pub collapsed: bool,
    /// For how long the response is fresh; less than zero if it is stale. `None`: it is of no use to say.
    pub ttl: Option<i64>,
    /// What else there is to say, a token.
    pub detail: Option<&'a str>,
    /// The key, where the route wants it to be told.
    pub key: Option<&'a str>,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the store.
    Hit(Hit),
    /// By the origin, whose status is told if it is not that of the answer.
    Forwarded {
        /// Why.
        why: Forward,
        /// What the origin answered, where that is not what the client gets.
        status: Option<u16>,
    },
    /// Neither: 504, since nothing is stored and the client wants nothing else.
    OnlyIfCached,
}

impl Forward {
    /// The parameter `fwd` (RFC 9211 §2.2).
    pub fn token(self) -> &'static str {
        match self {
            Forward::Method => "method",
            Forward::Rule | Forward::Content | Forward::Precondition | Forward::Authorization => "bypass",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Stale | Forward::AlwaysValidate => "stale",
            Forward::NoStore | Forward::RequestNoCache | Forward::RequestMaxAge | Forward::RequestMinFresh => "request",
        }
    }

    /// What there is to say beyond the token.
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Forward::Rule => Some("rule"),
            Forward::Content => Some("content"),
            Forward::Precondition => Some("precondition"),
            Forward::Authorization => Some("authorization"),
            Forward::AlwaysValidate => Some("no-cache"),
            Forward::NoStore => Some("no-store"),
            Forward::RequestNoCache => Some("no-cache"),
            Forward::RequestMaxAge => Some("max-age"),
            Forward::RequestMinFresh => Some("min-fresh"),
            Forward::Method | Forward::UriMiss | Forward::VaryMiss | Forward::Stale => None,
        }
    }
}

impl Leave {
    /// What there is to say of a hit.
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Leave::Fresh => None,
            Leave::MaxStale => Some("max-stale"),
            Leave::WhileRevalidate => Some("stale-while-revalidate"),
            Leave::IfError => Some("stale-if-error"),
        }
    }
}

impl CacheStatus<'_> {
    /// Appends the field line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"Cache-Status: sluice");
        let mut detail = self.detail;
        let mut ttl = self.ttl;
        match self.outcome {
            Outcome::Hit(hit) => {
                out.extend_from_slice(b"; hit");
                ttl = ttl.or(Some(hit.ttl));
                detail = detail.or(hit.leave.detail());
            }
            Outcome::Forwarded { why, status } => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(why.token().as_bytes());
                if let Some(status) = status {
                    out.extend_from_slice(b"; fwd-status=");
                    out.extend_from_slice(number.format(status).as_bytes());
                }
                detail = detail.or(why.detail());
            }
            Outcome::OnlyIfCached => detail = detail.or(Some("only-if-cached")),
        }
        if let Some(ttl) = ttl {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(number.format(ttl).as_bytes());
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(key) = self.key {
            out.extend_from_slice(b"; key=");
            put_string(out, key);
        }
        if let Some(detail) = detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a string of a structured field (RFC 9651 §3.3.3). What may not stand in one is left out.
fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes().filter(|byte| (b' '..=b'~').contains(byte)) {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: &CacheStatus<'_>) -> String {
        let mut out = Vec::new();
        status.write(&mut out);
        String::from_utf8_lossy(&out).trim_end().trim_start_matches("Cache-Status: ").to_owned()
    }

    fn plain(outcome: Outcome) -> CacheStatus<'static> {
        CacheStatus { outcome, stored: false, collapsed: false, ttl: None, detail: None, key: None }
    }

    /// RFC 9211 §2.
    #[test]
    fn each_outcome_has_its_line() {
        let hit = |ttl, leave| plain(Outcome::Hit(Hit { age: 0, ttl, leave }));
        let forwarded = |why, status| plain(Outcome::Forwarded { why, status });
        for (status, expected) in [
            (hit(9, Leave::Fresh), "sluice; hit; ttl=9"),
            (hit(-9, Leave::WhileRevalidate), "sluice; hit; ttl=-9; detail=stale-while-revalidate"),
            (hit(-9, Leave::IfError), "sluice; hit; ttl=-9; detail=stale-if-error"),
            (hit(-9, Leave::MaxStale), "sluice; hit; ttl=-9; detail=max-stale"),
            (forwarded(Forward::Method, None), "sluice; fwd=method"),
            (forwarded(Forward::Rule, None), "sluice; fwd=bypass; detail=rule"),
            (forwarded(Forward::VaryMiss, None), "sluice; fwd=vary-miss"),
            (forwarded(Forward::Stale, Some(304)), "sluice; fwd=stale; fwd-status=304"),
            (forwarded(Forward::RequestNoCache, None), "sluice; fwd=request; detail=no-cache"),
            (
                CacheStatus { stored: true, collapsed: true, ttl: Some(5), ..forwarded(Forward::UriMiss, None) },
                "sluice; fwd=uri-miss; ttl=5; stored; collapsed",
            ),
            (
                CacheStatus { detail: Some("private"), ..forwarded(Forward::UriMiss, None) },
                "sluice; fwd=uri-miss; detail=private",
            ),
            (plain(Outcome::OnlyIfCached), "sluice; detail=only-if-cached"),
            (
                CacheStatus { key: Some("a\"b\\c\u{e4}\r\n"), ..hit(1, Leave::Fresh) },
                "sluice; hit; ttl=1; key=\"a\\\"b\\\\c\"",
            ),
        ] {
            assert_eq!(line(&status), expected);
            let parsed = sfv::Parser::new(expected).parse::<sfv::List>();
            assert!(parsed.is_ok_and(|list| list.len() == 1), "{expected}");
        }
    }
}
