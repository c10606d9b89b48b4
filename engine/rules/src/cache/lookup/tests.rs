//! What becomes of requests: a table for each rule.

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
    let of = |method: &str, fields: &str| decide(&sent(method, "/", fields).asked(&policy), Found::Nothing, RECEIVED);
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
