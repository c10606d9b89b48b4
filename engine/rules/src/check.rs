//! What the `[[test]]` tables of a configuration ask for and expect, and whether it is so.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use crate::explain::{Explanation, Outcome, explain, explain_briefly, hide};
use crate::snapshot::Snapshot;

/// A request, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The name from the file.
    pub name: String,
    /// Where it stands, as `file:line`.
    pub place: String,
    /// What is asked.
    pub request: TestRequest,
    /// What is expected.
    pub expect: Expect,
}

/// A request as a test or an operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: Url,
    /// Fields beside `Host`, with names in lower case.
    pub fields: Vec<(String, String)>,
    /// Where the client is. `None`: it does not matter.
    pub client_ip: Option<IpAddr>,
    /// Whether the client speaks HTTP/2, if the listener does.
    pub http2: bool,
}

/// How a client protects its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Not at all.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// An `http` or `https` URL, apart as far as a request needs it. Whether its parts are valid is for the request to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How the connection is protected.
    pub scheme: Scheme,
    /// Host and maybe port.
    pub authority: String,
    /// Path and query as they were written, from the first slash or question mark on; `/` if there is nothing.
    pub target: String,
}

impl Url {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Scheme::Http, rest),
            (None, Some(rest)) => (Scheme::Https, rest),
            (None, None) => return Err("expected a URL such as http://example.com/path"),
        };
        if text.contains(|character: char| character.is_control() || character == ' ') {
            return Err("a URL has no spaces and no control characters");
        }
        if rest.contains('#') {
            return Err("a fragment is never sent");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("the host is missing");
        }
        let target = match target.as_bytes().first() {
            Some(b'/') => target.to_owned(),
            _ => format!("/{target}"),
        };
        Ok(Url { scheme, authority: authority.to_owned(), target })
    }
}

/// What is expected of a request: of several, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The status of a response that the gateway makes by itself.
    pub status: Option<u16>,
    /// The name of the route that takes it.
    pub route: Option<String>,
    /// The name of the upstream that it is sent to.
    pub upstream: Option<String>,
    /// The `Location` of a redirect.
    pub location: Option<String>,
    /// The target that is sent to the upstream.
    pub sent_target: Option<String>,
    /// The `Host` that is sent to the upstream.
    pub sent_host: Option<String>,
    /// Fields that are sent to the upstream, with names in lower case. `None`: a field that is not sent.
    pub sent_fields: Vec<(String, Option<String>)>,
}

/// A test that does not hold.
#[derive(Clone, Debug)]
pub struct TestFailure {
    /// Its name.
    pub name: String,
    /// Where it stands, as `file:line`.
    pub place: String,
    /// What is not as expected.
    pub mismatches: Vec<Mismatch>,
    /// What happens instead.
    pub explanation: Explanation,
}

/// An expectation that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its key in the file.
    pub key: String,
    /// What was expected.
    pub expected: String,
    /// What is so.
    pub actual: String,
}

impl Display for TestFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "test `{}` at {} does not hold:", self.name, self.place)?;
        for Mismatch { key, expected, actual } in &self.mismatches {
            writeln!(f, "  {key}: expected {expected}, got {actual}")?;
        }
        write!(f, "  because: {}", self.explanation.summary())?;
        for miss in self.explanation.misses.nearest.iter().take(2) {
            write!(f, "\n  route `{}`: {}", miss.route, miss.why)?;
        }
        Ok(())
    }
}

/// Failing tests that are told the routes that nearly took their request, which costs a look at every route.
const WITH_MISSES_MAX: usize = 10;

/// Runs the tests of a configuration and gives those that do not hold, in the order of the file.
pub fn run_tests(snapshot: &Snapshot) -> Vec<TestFailure> {
    let mut failures = Vec::new();
    for test in &snapshot.tests {
        let mut explanation = explain_briefly(snapshot, &test.request);
        let mut mismatches = mismatches(&test.expect, &explanation);
        if mismatches.is_empty() {
            continue;
        }
        if failures.len() < WITH_MISSES_MAX {
            explanation = explain(snapshot, &test.request);
        } else {
            hide::explanation(&mut explanation, &snapshot.hidden);
        }
        for mismatch in &mut mismatches {
            hide::text(&mut mismatch.expected, &snapshot.hidden);
            hide::text(&mut mismatch.actual, &snapshot.hidden);
        }
        failures.push(TestFailure { name: test.name.clone(), place: test.place.clone(), mismatches, explanation });
    }
    failures
}

fn mismatches(expect: &Expect, actual: &Explanation) -> Vec<Mismatch> {
    let quoted = |text: &str| format!("`{text}`");
    let sent = match &actual.outcome {
        Outcome::Sent { target, host, .. } => Some((target.clone(), host.clone())),
        Outcome::Answered { .. } | Outcome::Unanswered => None,
    };
    let answered = match &actual.outcome {
        Outcome::Answered { status, .. } => Some(*status),
        Outcome::Sent { .. } | Outcome::Unanswered => None,
    };
    let upstream = actual.upstream.as_ref().map(|upstream| upstream.name.clone());
    // What is there instead of something that is answered here, and of something that is sent.
    let nothing = || "no answer".to_owned();
    let instead_of_answer = upstream.as_ref().map_or_else(nothing, |name| format!("sent to upstream `{name}`"));
    let instead_of_sent = answered.map_or_else(nothing, |status| format!("answered here with {status}"));

    let mut found = Vec::new();
    let mut hold = |key: &str, expected: Option<String>, is: Option<String>, instead: &str| {
        let differs = expected.as_ref().is_some_and(|expected| is.as_ref() != Some(expected));
        found.extend(expected.filter(|_| differs).map(|expected| Mismatch {
            key: key.to_owned(),
            expected: quoted(&expected),
            actual: is.map_or_else(|| instead.to_owned(), |is| quoted(&is)),
        }));
    };
    let route = actual.route.as_ref().map(|route| route.name.clone());
    hold("status", expect.status.map(|s| s.to_string()), answered.map(|s| s.to_string()), &instead_of_answer);
    hold("route", expect.route.clone(), route, "no route");
    hold("upstream", expect.upstream.clone(), upstream, &instead_of_sent);
    let location = if sent.is_none() { actual.field("location") } else { None };
    let no_location = if sent.is_none() { "no Location" } else { &instead_of_answer };
    hold("location", expect.location.clone(), location, no_location);
    let (target, host) = sent.clone().unzip();
    hold("sent-target", expect.sent_target.clone(), target, &instead_of_sent);
    hold("sent-host", expect.sent_host.clone(), host, &instead_of_sent);
    for (name, expected) in &expect.sent_fields {
        let is = if sent.is_some() { actual.field(name) } else { None };
        if sent.is_none() || is != *expected {
            let shown = |value: &Option<String>| value.as_deref().map_or("no such field".to_owned(), quoted);
            let actual = if sent.is_some() { shown(&is) } else { instead_of_sent.clone() };
            found.push(Mismatch { key: format!("sent-fields.{name}"), expected: shown(expected), actual });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        for (text, scheme, authority, target) in [
            ("http://a", Scheme::Http, "a", "/"),
            ("http://a/", Scheme::Http, "a", "/"),
            ("http://a:80/b//../c?d=/e", Scheme::Http, "a:80", "/b//../c?d=/e"),
            ("https://[::1]?x", Scheme::Https, "[::1]", "/?x"),
        ] {
            let expected = Url { scheme, authority: authority.into(), target: target.into() };
            assert_eq!(Url::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "/a",
            "a",
            "ftp://a",
            "http://",
            "https://",
            "http:///a",
            "http://a/b c",
            "http://a/#b",
            "http://a\r\n",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
