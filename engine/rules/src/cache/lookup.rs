//! What becomes of a request: answered from the store, confirmed by the origin first, or forwarded, and why.

use sluice_wire::Name;
use sluice_wire::head::{NameSet, Request};
use sluice_wire::target::Target;

use super::control::RequestControl;
use super::key;
use super::stored::Facts;
use super::{Moment, SECONDS_MAX, Seconds};
use crate::snapshot::{Bypass, CachePolicy};

/// The methods that are answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD, answered from what is stored for GET.
    Head,
    /// POST, where the route says so, by its content.
    Post,
    /// QUERY, likewise.
    Query,
}

impl Method {
    /// Whether the content of the request is part of the key.
    pub fn is_keyed_by_content(self) -> bool {
        match self {
            Method::Post | Method::Query => true,
            Method::Get | Method::Head => false,
        }
    }
}

/// Why a request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The method is not one that is answered from the cache.
    Method,
    /// The route says that requests like this one are not looked up.
    Rule,
    /// It has content that is not part of the key, or too much of it.
    Content,
    /// `If-Match` or `If-Unmodified-Since`, which only the origin can answer.
    Precondition,
    /// The client wants nothing of it to be stored.
    NoStore,
    /// It has credentials, and the route ignores what its origin says of who may see the response.
    Authorization,
    /// Nothing is stored for the target.
    UriMiss,
    /// Nothing is stored for these fields of the request.
    VaryMiss,
    /// What is stored is not fresh.
    Stale,
    /// What is stored has to be confirmed each time: `no-cache`.
    AlwaysValidate,
    /// The client wants what the origin has confirmed: `no-cache`.
    RequestNoCache,
    /// What is stored is older than the client wants: `max-age`.
    RequestMaxAge,
    /// What is stored is not fresh for as long as the client wants: `min-fresh`.
    RequestMinFresh,
}

/// What is known of a request that may be answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its method. GET for one that is not looked up.
    pub method: Method,
    /// Its cache directives.
    pub control: RequestControl,
    /// Why it is not looked up at all.
    pub bypass: Option<Forward>,
    /// Whether its response may be stored.
    pub may_store: bool,
    /// Whether it has credentials that are not part of the key.
    pub has_authorization: bool,
    /// Whether it has cookies that are not part of the key.
    pub has_cookie: bool,
    /// Whether it has `If-None-Match` or `If-Modified-Since`.
    pub is_conditional: bool,
    /// Whether it wants a part only.
    pub has_range: bool,
}

/// Fields without which nothing is special about a request.
const SPECIAL: NameSet = NameSet::of(&[
    Name::Authorization,
    Name::CacheControl,
    Name::Cookie,
    Name::IfMatch,
    Name::IfModifiedSince,
    Name::IfNoneMatch,
    Name::IfUnmodifiedSince,
    Name::Pragma,
    Name::Range,
]);

impl Asked {
    /// A GET without anything special.
    pub fn plain() -> Self {
        Asked {
            method: Method::Get,
            control: RequestControl::default(),
            bypass: None,
            may_store: true,
            has_authorization: false,
            has_cookie: false,
            is_conditional: false,
            has_range: false,
        }
    }

    /// Looks at a request. `has_content`: it is not known to be without.
    pub fn read(policy: &CachePolicy, request: Request<'_>, target: &Target, has_content: bool) -> Self {
        let table = &request.head.fields;
        let mut asked = Asked::plain();
        let method = match request.method() {
            "GET" => Some(Method::Get),
            "HEAD" => Some(Method::Head),
            "POST" if policy.post => Some(Method::Post),
            "QUERY" if policy.query => Some(Method::Query),
            _ => None,
        };
        asked.method = method.unwrap_or(Method::Get);
        if table.present().intersects(SPECIAL) {
            asked.read_fields(policy, request);
        }
        asked.bypass = if method.is_none() {
            Some(Forward::Method)
        } else if has_content && !asked.method.is_keyed_by_content() {
            // Content of a GET is not part of the key, and some origins answer by it.
            Some(Forward::Content)
        } else if !policy.bypass.is_empty() && policy.bypass.iter().any(|rule| applies(rule, request, target)) {
            Some(Forward::Rule)
        } else {
            asked.bypass
        };
        // What a HEAD brings is no response that could be stored for GET.
        asked.may_store = asked.bypass.is_none() && asked.method != Method::Head;
        asked
    }

    /// The same of a client that has proved who it is by a certificate of which the origin is told: as good as
    /// credentials in a field, so what it gets is for others only if the response says so (RFC 9111 §3.5).
    pub fn identified(mut self, policy: &CachePolicy) -> Self {
        self.has_authorization |= !policy.key.identity;
        if policy.ignore_origin && !policy.key.identity && self.bypass.is_none() {
            (self.bypass, self.may_store) = (Some(Forward::Authorization), false);
        }
        self
    }

    fn read_fields(&mut self, policy: &CachePolicy, request: Request<'_>) {
        let table = &request.head.fields;
        let control = RequestControl::of(request);
        if !policy.ignore_client {
            self.control = control;
        }
        let keyed = |name: &str| policy.key.headers.iter().any(|header| header == name);
        self.has_authorization = table.has(Name::Authorization) && !policy.key.identity && !keyed("authorization");
        // Where some cookies are part of the key, or the origin has no say, the others do not go to the origin.
        let only_keyed = policy.key.identity || !policy.key.cookies.is_empty() || policy.ignore_origin;
        self.has_cookie = table.has(Name::Cookie) && !only_keyed && !keyed("cookie");
        self.is_conditional = table.has(Name::IfNoneMatch) || table.has(Name::IfModifiedSince);
        // RFC 9110 §14.2: Range means something for GET alone.
        self.has_range = table.has(Name::Range) && self.method == Method::Get;
        self.bypass = if table.has(Name::IfMatch) || table.has(Name::IfUnmodifiedSince) {
            Some(Forward::Precondition)
        } else if control.no_store {
            // RFC 9111 §5.2.1.5 is about storing, so it is obeyed whether or not the client has a say in the rest.
            Some(Forward::NoStore)
        } else if self.has_authorization && policy.ignore_origin {
            Some(Forward::Authorization)
        } else {
            None
        };
    }
}

fn applies(rule: &Bypass, request: Request<'_>, target: &Target) -> bool {
    match rule {
        Bypass::Header(name) => request.head.fields.values_of(request.bytes, name).next().is_some(),
        Bypass::Cookie(name) => key::cookies(request, name).next().is_some(),
        Bypass::Query(name) => key::parameters(target, name).next().is_some(),
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is answered from the store.
    Hit(Hit),
    /// The origin is asked whether what is stored still holds (RFC 9111 §4.3).
    Validate(Forward),
    /// The origin is asked, for all who want the same, and the response is stored if it may be.
    Fill(Forward),
    /// It is forwarded as it is, for this client alone, and nothing is stored.
    Pass(Forward),
    /// Nothing is stored that would do, and the client wants nothing else: 504 (RFC 9111 §5.2.1.7).
    GatewayTimeout,
}

/// How a request is answered from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What `Age` says.
    pub age: Seconds,
    /// For how long it is still fresh; less than zero if it is stale.
    pub ttl: i64,
    /// What allows it to be given.
    pub leave: Leave,
}

/// What allows a stored response to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is fresh.
    Fresh,
    /// The client takes a stale one: `max-stale`.
    MaxStale,
    /// It is stale, and a fresh one is fetched in the background: `stale-while-revalidate`.
    WhileRevalidate,
    /// It is stale, and the origin fails: `stale-if-error`.
    IfError,
}

/// What is stored for a request.
#[derive(Clone, Copy, Debug)]
pub enum Found<'f> {
    /// Nothing for its target.
    Nothing,
    /// Something for its target, and nothing for its fields.
    OtherVariants,
    /// This.
    Stored(&'f Facts),
}

/// Decides (RFC 9111 §4). Of several that match, the store gives the most recent.
pub fn decide(asked: &Asked, found: Found<'_>, now: Moment) -> Decision {
    let decision = match (asked.bypass, found) {
        (Some(why), _) => Decision::Pass(why),
        (None, Found::Nothing) => missed(asked, Forward::UriMiss),
        (None, Found::OtherVariants) => missed(asked, Forward::VaryMiss),
        (None, Found::Stored(facts)) => match hit(asked, facts, now) {
            Ok(hit) => Decision::Hit(hit),
            // RFC 9111 §4.3.5: a HEAD is answered by the origin, and what that says may freshen what is stored.
            Err(why) if asked.method == Method::Head => Decision::Pass(why),
            Err(why) => Decision::Validate(why),
        },
    };
    match decision {
        // A method that the cache has nothing to do with is not its to refuse.
        Decision::Pass(Forward::Method) | Decision::Hit(_) => decision,
        _ if asked.control.only_if_cached => Decision::GatewayTimeout,
        decision => decision,
    }
}

/// A part is not fetched as a whole: whoever asks for one byte of a large object must not make the origin send all of
/// it.
fn missed(asked: &Asked, why: Forward) -> Decision {
    if asked.may_store && !asked.has_range { Decision::Fill(why) } else { Decision::Pass(why) }
}

/// Whether what is stored is given, or why not.
fn hit(asked: &Asked, facts: &Facts, now: Moment) -> Result<Hit, Forward> {
    let control = &asked.control;
    let (age, ttl) = (facts.age(now), facts.ttl(now));
    if facts.always_validate {
        return Err(Forward::AlwaysValidate);
    }
    if control.no_cache {
        return Err(Forward::RequestNoCache);
    }
    // RFC 9111 §5.2.1.1: unless it also takes stale ones.
    if control.max_age.is_some_and(|max_age| age > max_age) && control.max_stale.is_none() {
        return Err(Forward::RequestMaxAge);
    }
    if facts.is_fresh(now) {
        let lasts = control.min_fresh.is_none_or(|min_fresh| ttl >= i64::from(min_fresh));
        return if lasts { Ok(Hit { age, ttl, leave: Leave::Fresh }) } else { Err(Forward::RequestMinFresh) };
    }
    if facts.never_stale || control.min_fresh.is_some() {
        return Err(Forward::Stale);
    }
    let staleness = facts.staleness(now);
    // At the very moment at which it becomes stale it has been so for no time; no leave of zero covers that.
    let covers = |leave: Seconds| leave > 0 && (staleness <= leave || leave >= SECONDS_MAX);
    if covers(facts.stale_while_revalidate) {
        return Ok(Hit { age, ttl, leave: Leave::WhileRevalidate });
    }
    if control.max_stale.is_some_and(covers) && !facts.stale_by_leave_only {
        return Ok(Hit { age, ttl, leave: Leave::MaxStale });
    }
    Err(Forward::Stale)
}

/// What came of asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A response of this status.
    Status(u16),
    /// No response, or too late.
    Failed,
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// What is stored still holds: it is freshened and given.
    Freshen,
    /// What is stored is given, since the origin fails.
    Serve(Hit),
    /// The response goes to the client and is judged like any other; a failure is the client's answer.
    Deliver,
}

/// What the origin's answer to a validation means (RFC 9111 §4.3.3).
pub fn after(asked: &Asked, facts: &Facts, origin: Origin, now: Moment) -> After {
    match origin {
        Origin::Status(304) => After::Freshen,
        // RFC 5861 §4: these are errors.
        Origin::Status(500 | 502 | 503 | 504) | Origin::Failed => {
            let window = asked.control.stale_if_error.unwrap_or(facts.stale_if_error);
            let allowed = !facts.never_stale && !facts.always_validate;
            // The client may take less than the response gives, and more only of what it does not forbid.
            let allowed = allowed && (!facts.stale_by_leave_only || facts.stale_if_error > 0);
            if facts.is_fresh(now) && allowed {
                // It was the client who wanted it confirmed.
                return After::Deliver;
            }
            if allowed && window > 0 && facts.staleness(now) <= window {
                After::Serve(Hit { age: facts.age(now), ttl: facts.ttl(now), leave: Leave::IfError })
            } else {
                After::Deliver
            }
        }
        Origin::Status(_) => After::Deliver,
    }
}

#[cfg(test)]
mod tests;
