//! Directives as they come, and as they should.

use super::super::sample::{get, received};
use super::*;

fn response(fields: &str) -> ResponseControl {
    ResponseControl::of(received(200, fields).view())
}

fn request(fields: &str) -> RequestControl {
    RequestControl::of(get(fields).view())
}

/// RFC 9111 §1.2.2, §4.2.1, §5.2.
#[test]
fn a_number_of_seconds_is_a_token_or_a_string_of_digits() {
    for (value, expected) in [
        ("max-age=3600", Some(3600)),
        ("MaX-aGe=3600", Some(3600)),
        ("max-age=\"3600\"", Some(3600)),
        ("max-age=003600", Some(3600)),
        (" , max-age=1 ,,", Some(1)),
        ("max-age=2147483647", Some(SECONDS_MAX - 1)),
        ("max-age=2147483648", Some(SECONDS_MAX)),
        ("max-age=99999999999999999999", Some(SECONDS_MAX)),
        // Of several the first counts.
        ("max-age=1, max-age=3600", Some(1)),
        ("max-age=3600\nCache-Control: max-age=1", Some(3600)),
        // What is invalid is stale.
        ("max-age", Some(0)),
        ("max-age=", Some(0)),
        ("max-age=-1", Some(0)),
        ("max-age=+1", Some(0)),
        ("max-age=3600.5", Some(0)),
        ("max-age='3600'", Some(0)),
        ("max-age=a3600", Some(0)),
        ("max-age=3600a", Some(0)),
        ("max-age =3600", Some(0)),
        ("max-age= 3600", Some(0)),
        ("max-age=\"3600", Some(0)),
        ("max-age=\"3600\"x", Some(0)),
        // It is not there.
        ("x-max-age=3600", None),
        ("max-age-x=3600", None),
        ("x=\"max-age=3600\"", None),
        ("x=\"a, max-age=3600, b\"", None),
        ("x=\"a\\\", max-age=3600\"", None),
        ("\"max-age=3600\"", None),
    ] {
        assert_eq!(response(&format!("Cache-Control: {value}")).max_age, expected, "{value}");
    }
}

/// A quote that is never closed hides nothing.
#[test]
fn an_open_quote_hides_nothing() {
    let control = response("Cache-Control: x=\"a, no-store, private");
    assert!(control.no_store && control.private);
}

/// RFC 9111 §5.2.2, RFC 8246, RFC 5861.
#[test]
fn a_response_has_all_directives_in_any_case_and_line() {
    let control = response(
        "Cache-Control: No-Store, NO-CACHE, private=\"\", public;\ncache-control: must-revalidate, proxy-revalidate\n\
         CACHE-CONTROL: must-understand, immutable, s-maxage=5, stale-while-revalidate=6, stale-if-error=7, foo, bar=\"x\"",
    );
    let expected = ResponseControl {
        source: Source::CacheControl,
        no_store: true,
        no_cache: true,
        private: true,
        must_revalidate: true,
        proxy_revalidate: true,
        must_understand: true,
        immutable: true,
        s_maxage: Some(5),
        stale_while_revalidate: Some(6),
        stale_if_error: Some(7),
        ..ResponseControl::default()
    };
    assert_eq!(control, expected);
    // An argument where none is defined is ignored.
    assert!(response("Cache-Control: no-store=1").no_store && response("Cache-Control: no-store=\"x\"").no_store);
    // RFC 9111 §5.4: Pragma means nothing in a response.
    assert_eq!(response("Pragma: no-cache"), ResponseControl::default());
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: a directive with names is about these fields only.
#[test]
fn directives_may_be_about_some_fields() {
    for (value, names) in [
        ("no-cache=\"a\"", &["a"][..]),
        ("no-cache=a", &["a"]),
        ("no-cache=\"a, B ,c\", max-age=1", &["a", "B", "c"]),
        ("private=\"a\", no-cache=\"b\"", &["a", "b"]),
        ("no-cache", &[]),
        ("no-cache=\"\"", &[]),
        ("no-cache=\"a b\"", &[]),
    ] {
        let response = received(200, &format!("Cache-Control: {value}"));
        let control = ResponseControl::of(response.view());
        let found = withheld_fields(response.view(), &control);
        assert_eq!(found, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), "{value}");
        assert_eq!(control.no_cache, names.is_empty(), "{value}");
    }
    // All of it is more than some of it.
    assert!(response("Cache-Control: no-cache=\"a\", no-cache").no_cache);
}

/// RFC 9213 §2.1, §2.2: the more exact field counts alone, and not at all if it is no dictionary.
#[test]
fn a_field_for_one_kind_of_cache_counts_alone() {
    use Source::{CacheControl, Cdn, Sluice};
    for (fields, source, max_age) in [
        ("CDN-Cache-Control: max-age=1\nCache-Control: max-age=9", Cdn, Some(1)),
        ("CDN-Cache-Control: max-age=1\nSluice-Cache-Control: max-age=2", Sluice, Some(2)),
        ("CDN-Cache-Control: foo, max-age=1", Cdn, Some(1)),
        ("CDN-Cache-Control: max-age=1;x=y, foo=?1, bar=(a b), baz=:YQ==:", Cdn, Some(1)),
        // RFC 9651 §3.2: of several the last counts.
        ("CDN-Cache-Control: max-age=1\nCDN-Cache-Control: max-age=2", Cdn, Some(2)),
        ("CDN-Cache-Control: max-age=99999999999", Cdn, Some(SECONDS_MAX)),
        // A value of another type does not become one of the right type.
        ("CDN-Cache-Control: max-age=\"1\"\nCache-Control: max-age=9", Cdn, Some(0)),
        ("CDN-Cache-Control: max-age=1.5\nCache-Control: max-age=9", Cdn, Some(0)),
        ("CDN-Cache-Control: max-age=-1\nCache-Control: max-age=9", Cdn, Some(0)),
        ("CDN-Cache-Control: foo=\"max-age=9\"", Cdn, None),
        // What is empty or no dictionary counts as absent.
        ("CDN-Cache-Control:\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: max-age=1, &\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: Max-Age=1\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: max-age =1\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: max-age= 1\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: max-age=1,\nCache-Control: max-age=9", CacheControl, Some(9)),
        ("CDN-Cache-Control: max-age=1\nSluice-Cache-Control: ,", Cdn, Some(1)),
    ] {
        let control = response(fields);
        assert_eq!((control.source, control.max_age), (source, max_age), "{fields}");
    }
    let control =
        response("CDN-Cache-Control: no-store, private, no-cache=?0, must-revalidate\nCache-Control: no-cache");
    assert!(control.no_store && control.private && control.must_revalidate && !control.no_cache);
    assert!(response("CDN-Cache-Control: private=\"a\"").private_fields);
}

/// RFC 9111 §5.2.1, §5.4.
#[test]
fn a_request_has_directives_of_its_own() {
    let control = request(
        "Cache-Control: no-cache, No-Store, only-if-cached, max-age=1, min-fresh=2, max-stale=3, stale-if-error=4",
    );
    let expected = RequestControl {
        no_cache: true,
        no_store: true,
        only_if_cached: true,
        max_age: Some(1),
        min_fresh: Some(2),
        max_stale: Some(3),
        stale_if_error: Some(4),
    };
    assert_eq!(control, expected);
    assert_eq!(request("Cache-Control: max-stale").max_stale, Some(SECONDS_MAX));
    assert_eq!(request("Cache-Control: max-stale=x").max_stale, Some(0));
    assert_eq!(request("Cache-Control: max-age=x, min-fresh=x").max_age, Some(0));
    assert_eq!(request("Cache-Control: min-fresh=x").min_fresh, Some(SECONDS_MAX));
    assert!(request("Pragma: foo, No-Cache").no_cache);
    assert!(!request("Pragma: no-cache\nCache-Control: max-age=1").no_cache);
    assert_eq!(request(""), RequestControl::default());
}
