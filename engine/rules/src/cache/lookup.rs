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
    /// Looks at a request. `has_content`: it is not known to be without.
    pub fn read(policy: &CachePolicy, request: Request<'_>, target: &Target, has_content: bool) -> Self {
        let table = &request.head.fields;
        let mut asked = Asked {
            method: Method::Get,
            control: RequestControl::default(),
            bypass: None,
            may_store: true,
            has_authorization: false,
            has_cookie: false,
            is_conditional: false,
            has_range: false,
        };
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
mod tests {
    use super::super::sample::{RECEIVED, decided, facts, get, sent};
    use super::*;

    fn fresh(age: Seconds, ttl: i64) -> Decision {
        Decision::Hit(Hit { age, ttl, leave: Leave::Fresh })
    }

    fn stale(age: Seconds, ttl: i64, leave: Leave) -> Decision {
        Decision::Hit(Hit { age, ttl, leave })
    }

    /// RFC 9111 §4.
    #[test]
    fn what_is_fresh_is_given_and_what_is_stale_is_confirmed() {
        assert_eq!(decided("Cache-Control: max-age=10", "", 0), fresh(0, 10));
        assert_eq!(decided("Cache-Control: max-age=10", "", 9), fresh(9, 1));
        assert_eq!(decided("Cache-Control: max-age=10", "", 10), Decision::Validate(Forward::Stale));
        assert_eq!(decided("Cache-Control: max-age=10\nAge: 5", "", 4), fresh(9, 1));
        assert_eq!(decided("Cache-Control: max-age=10\nAge: 5", "", 5), Decision::Validate(Forward::Stale));
        // §5.2.2.4
        let always = "Cache-Control: no-cache, max-age=10\nETag: \"a\"";
        assert_eq!(decided(always, "", 0), Decision::Validate(Forward::AlwaysValidate));
    }

    /// RFC 9111 §5.2.1, §5.4.
    #[test]
    fn clients_may_ask_for_more_or_less() {
        let response = "Cache-Control: max-age=10";
        for (request, at, expected) in [
            ("Cache-Control: no-cache", 0, Decision::Validate(Forward::RequestNoCache)),
            ("Pragma: no-cache", 0, Decision::Validate(Forward::RequestNoCache)),
            ("Cache-Control: no-store", 0, Decision::Pass(Forward::NoStore)),
            ("Cache-Control: max-age=5", 5, fresh(5, 5)),
            ("Cache-Control: max-age=5", 6, Decision::Validate(Forward::RequestMaxAge)),
            ("Cache-Control: max-age=0", 0, fresh(0, 10)),
            ("Cache-Control: max-age=x", 1, Decision::Validate(Forward::RequestMaxAge)),
            ("Cache-Control: max-age=5, max-stale", 6, fresh(6, 4)),
            ("Cache-Control: min-fresh=5", 5, fresh(5, 5)),
            ("Cache-Control: min-fresh=5", 6, Decision::Validate(Forward::RequestMinFresh)),
            ("Cache-Control: max-stale=5", 15, stale(15, -5, Leave::MaxStale)),
            ("Cache-Control: max-stale=5", 16, Decision::Validate(Forward::Stale)),
            ("Cache-Control: max-stale", 100_000, stale(100_000, -99_990, Leave::MaxStale)),
            ("Cache-Control: max-stale, min-fresh=1", 15, Decision::Validate(Forward::Stale)),
            ("Cache-Control: only-if-cached", 5, fresh(5, 5)),
            ("Cache-Control: only-if-cached", 10, Decision::GatewayTimeout),
            ("Cache-Control: only-if-cached, max-stale", 10, stale(10, 0, Leave::MaxStale)),
            ("Cache-Control: only-if-cached, no-cache", 0, Decision::GatewayTimeout),
        ] {
            assert_eq!(decided(response, request, at), expected, "{request} after {at}");
        }
    }

    /// A route may not let clients ask: `no-store` still keeps their requests out of the store.
    #[test]
    fn a_route_may_ignore_what_clients_ask_for() {
        let policy = CachePolicy { ignore_client: true, ..CachePolicy::default() };
        let facts = facts("Cache-Control: max-age=10");
        let of = |fields: &str| decide(&get(fields).asked(&policy), Found::Stored(&facts), RECEIVED);
        assert_eq!(of("Cache-Control: no-cache, min-fresh=100"), fresh(0, 10));
        assert_eq!(of("Pragma: no-cache"), fresh(0, 10));
        assert_eq!(of("Cache-Control: no-store"), Decision::Pass(Forward::NoStore));
    }

    /// RFC 9111 §4.2.4, RFC 5861 §3.
    #[test]
    fn what_is_stale_is_given_only_by_leave() {
        let revalidated = |at: u32| stale(10 + at, -i64::from(at), Leave::WhileRevalidate);
        for (response, request, at, expected) in [
            ("max-age=10, stale-while-revalidate=5", "", 15, revalidated(5)),
            ("max-age=10, stale-while-revalidate=5", "", 16, Decision::Validate(Forward::Stale)),
            ("max-age=10, stale-while-revalidate=5", "no-cache", 15, Decision::Validate(Forward::RequestNoCache)),
            ("max-age=10, stale-while-revalidate=5", "max-age=14", 15, Decision::Validate(Forward::RequestMaxAge)),
            ("s-maxage=10, stale-while-revalidate=5", "", 15, revalidated(5)),
            ("max-age=10, must-revalidate, stale-while-revalidate=5", "", 15, Decision::Validate(Forward::Stale)),
            ("max-age=10, must-revalidate", "max-stale", 15, Decision::Validate(Forward::Stale)),
            ("max-age=10, proxy-revalidate", "max-stale", 15, Decision::Validate(Forward::Stale)),
            ("s-maxage=10", "max-stale", 15, Decision::Validate(Forward::Stale)),
            ("s-maxage=10, stale-while-revalidate=1", "max-stale", 15, Decision::Validate(Forward::Stale)),
        ] {
            let request = if request.is_empty() { String::new() } else { format!("Cache-Control: {request}") };
            assert_eq!(decided(&format!("Cache-Control: {response}"), &request, at), expected, "{response} {request}");
        }
    }

    /// RFC 5861 §4, RFC 9111 §4.3.3.
    #[test]
    fn what_is_stale_is_given_when_the_origin_fails_only_by_leave() {
        let given = |at: u32| After::Serve(Hit { age: 10 + at, ttl: -i64::from(at), leave: Leave::IfError });
        let plain = "max-age=10, stale-if-error=5";
        for (response, request, origin, at, expected) in [
            (plain, "", Origin::Failed, 15, given(5)),
            (plain, "", Origin::Status(500), 15, given(5)),
            (plain, "", Origin::Status(502), 15, given(5)),
            (plain, "", Origin::Status(503), 15, given(5)),
            (plain, "", Origin::Status(504), 15, given(5)),
            (plain, "", Origin::Status(501), 15, After::Deliver),
            (plain, "", Origin::Status(404), 15, After::Deliver),
            (plain, "", Origin::Status(200), 15, After::Deliver),
            (plain, "", Origin::Status(304), 15, After::Freshen),
            (plain, "", Origin::Failed, 16, After::Deliver),
            (plain, "stale-if-error=1", Origin::Failed, 12, After::Deliver),
            ("max-age=10", "stale-if-error=5", Origin::Failed, 12, given(2)),
            ("max-age=10", "", Origin::Failed, 11, After::Deliver),
            ("s-maxage=10", "stale-if-error=5", Origin::Failed, 12, After::Deliver),
            ("s-maxage=10, stale-if-error=5", "", Origin::Failed, 12, given(2)),
            ("max-age=10, must-revalidate, stale-if-error=5", "", Origin::Failed, 12, After::Deliver),
            ("max-age=10, proxy-revalidate, stale-if-error=5", "", Origin::Failed, 12, After::Deliver),
            ("no-cache, max-age=10, stale-if-error=5", "", Origin::Failed, 12, After::Deliver),
            // It was the client who wanted it confirmed, and it is not stale.
            (plain, "no-cache", Origin::Failed, 5, After::Deliver),
        ] {
            let facts = facts(&format!("Cache-Control: {response}\nETag: \"a\""));
            let asked = get(&format!("Cache-Control: {request}")).asked(&CachePolicy::default());
            let after = after(&asked, &facts, origin, RECEIVED.after(at * 1000));
            assert_eq!(after, expected, "{response} {request} {origin:?} after {at}");
        }
    }

    #[test]
    fn what_is_not_stored_is_fetched_for_all_or_for_one() {
        let policy = CachePolicy::default();
        let of =
            |method: &str, fields: &str| decide(&sent(method, "/", fields).asked(&policy), Found::Nothing, RECEIVED);
        assert_eq!(of("GET", ""), Decision::Fill(Forward::UriMiss));
        assert_eq!(of("GET", "If-None-Match: \"a\""), Decision::Fill(Forward::UriMiss));
        // Whoever wants a byte must not make the origin send all.
        assert_eq!(of("GET", "Range: bytes=0-0"), Decision::Pass(Forward::UriMiss));
        assert_eq!(of("HEAD", ""), Decision::Pass(Forward::UriMiss));
        assert_eq!(of("GET", "Cache-Control: only-if-cached"), Decision::GatewayTimeout);
        assert_eq!(of("POST", ""), Decision::Pass(Forward::Method));
        assert_eq!(of("POST", "Cache-Control: only-if-cached"), Decision::Pass(Forward::Method));
        assert_eq!(of("get", ""), Decision::Pass(Forward::Method));
        assert_eq!(of("GET", "If-Match: \"a\""), Decision::Pass(Forward::Precondition));
        assert_eq!(of("GET", "If-Unmodified-Since: x"), Decision::Pass(Forward::Precondition));
        let others = decide(&get("").asked(&policy), Found::OtherVariants, RECEIVED);
        assert_eq!(others, Decision::Fill(Forward::VaryMiss));
    }

    /// A GET with content is answered by some origins by that content, which is not part of the key.
    #[test]
    fn content_that_is_not_part_of_the_key_is_not_looked_up() {
        let policy = CachePolicy { query: true, ..CachePolicy::default() };
        let bypass = |method: &str| {
            let request = sent(method, "/", "");
            let asked = Asked::read(&policy, request.view(), &request.target, true);
            (asked.bypass, asked.may_store)
        };
        assert_eq!(bypass("GET"), (Some(Forward::Content), false));
        assert_eq!(bypass("HEAD"), (Some(Forward::Content), false));
        assert_eq!(bypass("QUERY"), (None, true));
        assert_eq!(bypass("POST"), (Some(Forward::Method), false));
    }

    #[test]
    fn rules_of_the_route_let_requests_by() {
        let rules = vec![Bypass::Header("x-a".into()), Bypass::Cookie("b".into()), Bypass::Query("c".into())];
        let policy = CachePolicy { bypass: rules, ..CachePolicy::default() };
        let bypass = |target: &str, fields: &str| sent("GET", target, fields).asked(&policy).bypass;
        for (target, fields, expected) in [
            ("/", "", false),
            ("/", "X-A: ", true),
            ("/", "Cookie: a=1; b=2", true),
            ("/", "Cookie: bb=1; a=b=1", false),
            ("/?a=1&c", "", true),
            ("/?a=c&cc=1", "", false),
        ] {
            assert_eq!(bypass(target, fields), expected.then_some(Forward::Rule), "{target} {fields}");
        }
    }

    /// RFC 9111 §4.3.5: what is stale for a HEAD is left to the origin, and what it says is compared.
    #[test]
    fn a_head_is_answered_from_what_is_stored_for_get() {
        let facts = facts("Cache-Control: max-age=10");
        let asked = sent("HEAD", "/", "").asked(&CachePolicy::default());
        assert_eq!(decide(&asked, Found::Stored(&facts), RECEIVED), fresh(0, 10));
        assert_eq!(decide(&asked, Found::Stored(&facts), RECEIVED.after(10_000)), Decision::Pass(Forward::Stale));
    }

    /// A soft purge makes stale at once, and leaves what leave there is.
    #[test]
    fn what_is_purged_softly_is_stale_from_then_on() {
        let mut facts = facts("Cache-Control: max-age=10, stale-while-revalidate=5");
        facts.expire(RECEIVED.after(2000));
        let asked = get("").asked(&CachePolicy::default());
        let at = |seconds: u64| decide(&asked, Found::Stored(&facts), RECEIVED.after(seconds * 1000));
        assert_eq!(at(1), fresh(1, 1));
        assert_eq!(at(7), stale(7, -5, Leave::WhileRevalidate));
        assert_eq!(at(8), Decision::Validate(Forward::Stale));
    }
}
