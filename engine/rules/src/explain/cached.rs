//! The cache: what becomes of a request while nothing is stored for it, since what is stored changes from second to
//! second.

use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;
use sluice_wire::target::Target;

use crate::cache::lookup::{Asked, Decision, Forward, Found, decide};
use crate::cache::{Moment, fill};
use crate::snapshot::{CachePolicy, KeyParts, QueryPart, TargetPolicy};

/// What the cache does with a request.
pub(super) struct Looked {
    decision: Decision,
    /// The target, where parameters that are not part of the key were left out.
    narrowed: Option<String>,
}

impl Looked {
    /// Looks at a request as live traffic does.
    pub(super) fn at(policy: &CachePolicy, request: Request<'_>, target: &Target, framing: Framing) -> Self {
        let has_content = !matches!(framing, Framing::Empty | Framing::Length(0));
        let mut asked = Asked::read(policy, request, target, has_content);
        // Content that is not at hand with the head is not part of the key.
        let fits = matches!(framing, Framing::Length(length) if length <= policy.request_bytes_max);
        if asked.method.is_keyed_by_content() && has_content && !fits && asked.bypass.is_none() {
            asked.bypass = Some(Forward::Content);
            asked.may_store = false;
        }
        let narrowed = if asked.may_store { fill::target(policy, target) } else { None };
        Looked { decision: decide(&asked, Found::Nothing, Moment::default()), narrowed }
    }

    /// The target that goes on.
    pub(super) fn target(&self, target: &Target, policy: TargetPolicy) -> Target {
        let mut narrowed = target.clone();
        // It was read from a target by the same rules, so it is one.
        if self.narrowed.as_ref().is_none_or(|text| narrowed.read("GET", text.as_bytes(), policy).is_err()) {
            return target.clone();
        }
        narrowed
    }

    /// Whether what goes to the origin is for others as well.
    pub(super) fn fills(&self) -> bool {
        matches!(self.decision, Decision::Fill(_) | Decision::Validate(_))
    }

    /// Whether the client gets 504, since it wants only what is stored.
    pub(super) fn ends(&self) -> bool {
        self.decision == Decision::GatewayTimeout
    }

    /// What becomes of it, and why.
    pub(super) fn words(&self, policy: &CachePolicy) -> String {
        let by = key(&policy.key);
        let text = match self.decision {
            Decision::Fill(_) | Decision::Validate(_) | Decision::Hit(_) => {
                format!("looked up by {by}; with nothing stored, the origin is asked for all who want the same")
            }
            Decision::Pass(Forward::UriMiss | Forward::VaryMiss) => {
                format!(
                    "looked up by {by}; with nothing stored, it is passed on as it is: it is a HEAD, or wants a part"
                )
            }
            Decision::Pass(why) => format!("not looked up: {}", passed(why)),
            Decision::GatewayTimeout => {
                format!(
                    "looked up by {by}; with nothing stored, it is answered with 504: the client wants nothing else"
                )
            }
        };
        match &self.narrowed {
            Some(target) => format!("{text}; only what is part of the key goes on: `{target}`"),
            None => text,
        }
    }
}

/// What tells requests apart, in words.
fn key(parts: &KeyParts) -> String {
    let mut words = vec!["scheme".to_owned(), "host".to_owned(), "path".to_owned()];
    match &parts.query {
        QueryPart::Whole => words.push("query".to_owned()),
        QueryPart::Only(names) => words.extend(names.iter().map(|name| format!("`{name}` of the query"))),
    }
    words.extend(parts.headers.iter().map(|name| format!("the field {name}")));
    words.extend(parts.cookies.iter().map(|name| format!("the cookie {name}")));
    words.extend(parts.method.then(|| "method".to_owned()));
    words.extend(parts.identity.then(|| "identity".to_owned()));
    words.join(", ")
}

/// Why a request is not looked up.
fn passed(why: Forward) -> &'static str {
    match why {
        Forward::Method => "the method is not one that is answered from the cache",
        Forward::Rule => "`bypass` of the route names something that it has",
        Forward::Content => "it has content that is not part of the key",
        Forward::Precondition => "only the origin can answer If-Match and If-Unmodified-Since",
        Forward::NoStore => "the client wants nothing of it to be stored",
        Forward::Authorization => "it has credentials, and the route ignores what its origin says of them",
        Forward::UriMiss
        | Forward::VaryMiss
        | Forward::Stale
        | Forward::AlwaysValidate
        | Forward::RequestNoCache
        | Forward::RequestMaxAge
        | Forward::RequestMinFresh => "nothing is stored that would do",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample::sent;

    #[test]
    fn each_decision_has_its_words() {
        let mut policy = CachePolicy { query: true, ..CachePolicy::default() };
        policy.key.query = QueryPart::Only(vec!["page".into()]);
        policy.key.headers.push("accept-language".into());
        let by =
            "looked up by scheme, host, path, `page` of the query, the field accept-language; with nothing stored, ";
        let all = "the origin is asked for all who want the same";
        for (method, target, fields, framing, expected) in [
            ("GET", "/a?page=1", "", Framing::Empty, format!("{by}{all}")),
            (
                "GET",
                "/a?page=1&x=2",
                "",
                Framing::Empty,
                format!("{by}{all}; only what is part of the key goes on: `/a?page=1`"),
            ),
            ("HEAD", "/a", "", Framing::Empty, format!("{by}it is passed on as it is: it is a HEAD, or wants a part")),
            (
                "GET",
                "/a",
                "Cache-Control: only-if-cached",
                Framing::Empty,
                format!("{by}it is answered with 504: the client wants nothing else"),
            ),
            ("QUERY", "/a", "", Framing::Length(5), format!("{by}{all}")),
            (
                "QUERY",
                "/a",
                "",
                Framing::Chunked,
                "not looked up: it has content that is not part of the key".to_owned(),
            ),
            (
                "GET",
                "/a",
                "",
                Framing::Length(5),
                "not looked up: it has content that is not part of the key".to_owned(),
            ),
        ] {
            let request = sent(method, target, fields);
            let looked = Looked::at(&policy, request.view(), &request.target, framing);
            assert_eq!(looked.words(&policy), expected, "{method} {target} {fields}");
            assert_eq!(looked.fills(), expected.contains(all), "{method} {target} {fields}");
        }
    }
}
