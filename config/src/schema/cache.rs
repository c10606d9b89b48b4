//! The tables of the response cache: the node's store, and what a route keeps.

use sluice_rules::cache::lookup::Method;
use sluice_rules::snapshot::{Bypass, SetCookie};

use super::{DAY, MIB, TIB};
use crate::read::{At, Context, FromToml, List, Node, Optional, Shape, choice, table};
use crate::values::{FieldName, Percent, Prefix, Size, Time, field_name, is_token, text};

/// How long something is fresh, or useful when it is not: up to a year.
pub type Freshness = Time<0, { 366 * DAY }>;

table! {
    /// The store that all routes with a cache share.
    pub struct Cache {
        /// Bytes that all stored responses may take together, counted once however many cores give them.
        memory: At<Size<MIB, TIB>> = "256MiB",
        /// Bytes of the content of one response. A larger one is passed on and not stored.
        max_object: At<Size<1, TIB>> = "8MiB",
        /// Networks whose clients may purge a URL by the method PURGE. Without it, nobody; the admin endpoints may
        /// always.
        purge_from: At<List<Prefix>> = super::nothing(),
    }
    later ["disk", "redis"];
}

table! {
    /// What is kept of the responses of a route. An empty table keeps what the origin's fields allow.
    pub struct RouteCache {
        /// How long a response is fresh that does not say so itself.
        ttl: Optional<Time<1000, { 366 * DAY }>>,
        /// Whether `ttl` holds whatever the origin says. Cookies and credentials of clients are then not sent to the
        /// origin unless they are part of the key, since it has no say in who may see the response.
        ignore_origin: At<bool> = false,
        /// Whether clients cannot ask for fresher responses than the cache would give, by `Cache-Control` or `Pragma`.
        ignore_client: At<bool> = false,
        /// How long a 404, 405, 410, 414 or 501 is fresh that does not say so itself. Without it, a guess from
        /// `Last-Modified` at most, and with `ignore-origin` not at all.
        negative_ttl: Optional<Freshness>,
        /// How long a stale response is given while a fresh one is fetched, if the response does not say so itself.
        stale_while_revalidate: Optional<Freshness>,
        /// How long a stale response is given when the origin fails, if the response does not say so itself.
        stale_if_error: Optional<Freshness>,
        /// By how much of its lifetime a response may expire early, at random, so that what came together is not
        /// fetched anew together.
        jitter: At<Percent<0, 50>> = "5%",
        /// What tells requests apart, beside scheme and host, which always do: `"path"`, `"query"` for all of the query
        /// or `"query:NAME"` for some parameters, `"header:NAME"`, `"cookie:NAME"`, `"method"` to tell HEAD from GET,
        /// `"identity"` for responses that are for one client alone: whoever has the same credentials and cookies.
        /// Parameters that are left out are not sent to the origin either, nor are other cookies where some are named.
        key: At<List<KeyPart>> = ["path", "query"],
        /// What happens to a response that sets a cookie: it is passed on and not stored (`"pass"`), it is stored without
        /// the cookie (`"strip"`), or as it is (`"store"`).
        set_cookie: At<SetCookieName> = "pass",
        /// Methods that are answered from the cache. GET and HEAD always are; POST and QUERY by their content.
        methods: At<List<CacheMethod>> = ["GET", "HEAD"],
        /// Bytes of content that a POST or a QUERY may have to be answered from the cache.
        max_request: At<Size<0, { 16 * MIB }>> = "64KiB",
        /// The field in which the origin tags its responses, to be purged by. Without it, `Cache-Tag` and
        /// `Surrogate-Key`.
        tags: Optional<FieldName>,
        /// Requests that go to the origin without a look at the cache: those with `"header:NAME"`, `"cookie:NAME"` or
        /// `"query:NAME"`.
        bypass: At<List<BypassRule>> = super::nothing(),
        /// Bytes of the content of one response, where the route says otherwise than `[cache]`.
        max_object: Optional<Size<1, TIB>>,
    }
    later ["vary", "redis", "min-uses"];
}

choice! {
    /// What happens to a response that sets a cookie.
    SetCookieName: SetCookie {
        "pass" = SetCookie::Pass, "strip" = SetCookie::Strip, "store" = SetCookie::Store,
    }
}

choice! {
    /// A method that is answered from the cache.
    CacheMethod: Method {
        "GET" = Method::Get, "HEAD" = Method::Head, "POST" = Method::Post, "QUERY" = Method::Query,
    }
}

/// A part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// `scheme` or `host`, which always are.
    Always,
    /// `path`
    Path,
    /// `query`
    Query,
    /// `query:NAME`
    Parameter(String),
    /// `header:NAME`, in lower case.
    Header(String),
    /// `cookie:NAME`
    Cookie(String),
    /// `method`
    Method,
    /// `identity`
    Identity,
}

text! {
    /// A part of the key.
    KeyPart(Part), "a part of a key",
    |text| match text.split_once(':') {
        None => match text {
            "scheme" | "host" => Ok(Part::Always),
            "path" => Ok(Part::Path),
            "query" => Ok(Part::Query),
            "method" => Ok(Part::Method),
            "identity" => Ok(Part::Identity),
            _ => Err("expected path, query, query:NAME, header:NAME, cookie:NAME, host, method or identity".into()),
        },
        Some(("query", name)) => parameter(name).map(Part::Parameter),
        Some(("header", name)) => field_name(name).map(Part::Header),
        Some(("cookie", name)) => cookie(name).map(Part::Cookie),
        Some(_) => Err("expected query:NAME, header:NAME or cookie:NAME".into()),
    }
}

text! {
    /// What lets a request by the cache.
    BypassRule(Bypass), "a rule for a bypass",
    |text| match text.split_once(':') {
        Some(("query", name)) => parameter(name).map(Bypass::Query),
        Some(("header", name)) => field_name(name).map(Bypass::Header),
        Some(("cookie", name)) => cookie(name).map(Bypass::Cookie),
        _ => Err("expected header:NAME, cookie:NAME or query:NAME".into()),
    }
}

fn parameter(name: &str) -> Result<String, String> {
    if !name.is_empty() && crate::matching::is_canonical_parameter(name, "") {
        Ok(name.to_owned())
    } else {
        Err("expected the name of a parameter as it stands in a URL".into())
    }
}

fn cookie(name: &str) -> Result<String, String> {
    if is_token(name) { Ok(name.to_owned()) } else { Err("the name of a cookie is a word such as session".into()) }
}
