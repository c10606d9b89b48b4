//! What is stored, a table by section of RFC 9111.

use super::super::sample::{AT_ONCE, DATE, RECEIVED, get, ok, received, sent, stored, stored_by};
use super::*;

fn refused(status: u16, fields: &str) -> Option<NotStored> {
    stored(&received(status, &format!("Date: {DATE}\n{fields}"))).err()
}

fn refused_to(policy: &CachePolicy, request: &str, fields: &str) -> Option<NotStored> {
    judge(policy, &get(request).asked(policy), ok(fields).view(), AT_ONCE, 0).err()
}

/// RFC 9111 §3: any final status with a lifetime, but for parts and confirmations.
#[test]
fn any_final_status_that_says_how_long_it_is_fresh_is_stored() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        assert_eq!(refused(status, "Cache-Control: max-age=9"), None, "{status}");
        assert_eq!(refused(status, ""), Some(NotStored::NeverFresh), "{status}");
    }
    for (status, why) in
        [(100, NotStored::Interim), (103, NotStored::Interim), (206, NotStored::Partial), (304, NotStored::Partial)]
    {
        assert_eq!(refused(status, "Cache-Control: max-age=9"), Some(why), "{status}");
    }
}

/// RFC 9111 §5.2.2.
#[test]
fn directives_of_the_response_forbid_storing() {
    use NotStored::*;
    for (fields, expected) in [
        ("Cache-Control: no-store, max-age=9", Some(NoStore)),
        ("Cache-Control: private, max-age=9", Some(Private)),
        ("Cache-Control: private=\"a\", max-age=9", None),
        ("Cache-Control: private=\"a b\", max-age=9", Some(Private)),
        ("Cache-Control: no-cache", Some(NeverFresh)),
        ("Cache-Control: no-cache\nETag: \"a\"", None),
        ("Cache-Control: max-age=0\nLast-Modified: Sun, 06 Nov 1994 07:49:37 GMT", None),
        ("Cache-Control: max-age=0, stale-if-error=9", None),
        ("Cache-Control: max-age=0, stale-if-error=9, must-revalidate", Some(NeverFresh)),
        ("Cache-Control: max-age=9\nAge: 10", Some(NeverFresh)),
        ("Cache-Control: no-store, must-understand, max-age=9", None),
        ("CDN-Cache-Control: max-age=9\nCache-Control: no-store", None),
        ("CDN-Cache-Control: no-store\nCache-Control: max-age=9", Some(NoStore)),
        ("CDN-Cache-Control: private\nCache-Control: max-age=9", Some(Private)),
        ("Vary: *\nCache-Control: max-age=9", Some(VaryStar)),
        ("Set-Cookie: a=b\nCache-Control: max-age=9", Some(SetCookie)),
    ] {
        assert_eq!(refused(200, fields), expected, "{fields}");
    }
    // RFC 9111 §5.2.2.3
    assert_eq!(refused(599, "Cache-Control: must-understand, max-age=9"), Some(NotUnderstood));
    assert_eq!(refused(599, "Cache-Control: must-understand, no-store, max-age=9"), Some(NotUnderstood));
}

/// RFC 9111 §3.5.
#[test]
fn what_credentials_got_is_stored_only_if_it_is_for_others_too() {
    let policy = CachePolicy::default();
    for (control, expected) in [
        ("max-age=9", Some(NotStored::Authorization)),
        ("max-age=9, public", None),
        ("max-age=9, must-revalidate", None),
        ("s-maxage=9", None),
        ("max-age=9, proxy-revalidate", Some(NotStored::Authorization)),
    ] {
        let refused = refused_to(&policy, "Authorization: x", &format!("Cache-Control: {control}"));
        assert_eq!(refused, expected, "{control}");
    }
    let mut split = CachePolicy::default();
    split.key.identity = true;
    let proved = |policy: &CachePolicy, control: &str| {
        let asked = get("").asked(policy).identified(policy);
        judge(policy, &asked, ok(&format!("Cache-Control: {control}")).view(), AT_ONCE, 0).err()
    };
    assert_eq!(proved(&policy, "max-age=9"), Some(NotStored::Authorization));
    assert_eq!((proved(&policy, "max-age=9, public"), proved(&split, "max-age=9")), (None, None));
    assert_eq!(refused_to(&split, "Authorization: x", "Cache-Control: max-age=9"), None);
}

/// What a guess or the route makes fresh may be for whoever had the cookies.
#[test]
fn what_cookies_got_is_stored_only_if_the_origin_says_for_how_long() {
    let with_ttl = CachePolicy { ttl: Some(Duration::from_secs(9)), ..CachePolicy::default() };
    let guessed = "Last-Modified: Sun, 06 Nov 1984 08:49:37 GMT";
    for (fields, expected) in [
        ("", Some(NotStored::Cookie)),
        (guessed, Some(NotStored::Cookie)),
        ("Cache-Control: public", None),
        ("Cache-Control: max-age=9", None),
        ("Expires: Sun, 06 Nov 1994 09:49:37 GMT", None),
    ] {
        assert_eq!(refused_to(&with_ttl, "Cookie: a=b", fields), expected, "{fields}");
        assert_eq!(refused_to(&with_ttl, "", fields), None, "{fields}");
    }
    let mut keyed = with_ttl;
    keyed.key.cookies.push("a".into());
    assert_eq!(refused_to(&keyed, "Cookie: a=b", ""), None);
}

/// A route that ignores its origin believes nothing of what it says about time, and all of what it says about whom.
#[test]
fn a_route_may_ignore_its_origin() {
    let policy = CachePolicy { ttl: Some(Duration::from_secs(60)), ignore_origin: true, ..CachePolicy::default() };
    for fields in
        ["", "Cache-Control: no-store", "Cache-Control: private", "Cache-Control: no-cache\nAge: 100", "Expires: 0"]
    {
        let facts = stored_by(&policy, &ok(fields)).map(|storable| storable.facts);
        assert_eq!(facts.map(|facts| (facts.ttl(RECEIVED), facts.always_validate)), Ok((60, false)), "{fields}");
    }
    assert_eq!(refused_to(&policy, "", "Vary: *"), Some(NotStored::VaryStar));
    assert_eq!(refused_to(&policy, "", "Set-Cookie: a=b"), Some(NotStored::SetCookie));
    // It is not even looked up, so nothing is stored.
    assert_eq!(refused_to(&policy, "Authorization: x", ""), Some(NotStored::Request));
    assert_eq!(refused_to(&policy, "Cookie: a=b", ""), None);
}

/// RFC 9111 §3, §5.2.1.5.
#[test]
fn requests_that_nothing_is_stored_of() {
    let policy = CachePolicy::default();
    let response = ok("Cache-Control: max-age=9");
    for request in [
        sent("POST", "/", ""),
        sent("PUT", "/", ""),
        sent("OPTIONS", "/", ""),
        sent("HEAD", "/", ""),
        get("Cache-Control: no-store"),
        get("If-Match: \"a\""),
    ] {
        let judged = judge(&policy, &request.asked(&policy), response.view(), AT_ONCE, 0);
        assert_eq!(judged.err(), Some(NotStored::Request));
    }
    let posting = CachePolicy { post: true, ..policy };
    let judged = judge(&posting, &sent("POST", "/", "").asked(&posting), response.view(), AT_ONCE, 0);
    assert_eq!(judged.err(), None);
}

/// RFC 5861 §3, §4; RFC 9111 §5.2.2.10: the route fills what the response leaves open, unless that forbids it.
#[test]
fn how_long_it_is_of_use_when_stale() {
    let second = Some(Duration::from_secs(1));
    let policy = CachePolicy { stale_while_revalidate: second, stale_if_error: second, ..CachePolicy::default() };
    for (control, expected) in [
        ("max-age=9", (1, 1, false)),
        ("max-age=9, stale-while-revalidate=5", (5, 1, false)),
        ("max-age=9, stale-if-error=0", (1, 0, false)),
        ("s-maxage=9", (0, 0, false)),
        ("s-maxage=9, stale-while-revalidate=5, stale-if-error=6", (5, 6, false)),
        ("max-age=9, must-revalidate, stale-while-revalidate=5", (5, 1, true)),
        ("max-age=9, proxy-revalidate", (1, 1, true)),
    ] {
        let storable = stored_by(&policy, &ok(&format!("Cache-Control: {control}")));
        let facts = storable.map(|storable| storable.facts);
        let found = facts.map(|facts| (facts.stale_while_revalidate, facts.stale_if_error, facts.never_stale));
        assert_eq!(found, Ok(expected), "{control}");
    }
}

/// RFC 9111 §4.3.4: a 304 makes what is stored as fresh as if it had just come.
#[test]
fn a_merged_head_is_judged_anew() {
    let policy = CachePolicy::default();
    let asked = get("").asked(&policy);
    let first = stored(&ok("Cache-Control: max-age=9\nETag: \"a\"")).map(|storable| storable.head).unwrap_or_default();
    let parsed = stored::parse(&first).unwrap_or_default();
    let kept = Response { bytes: &first, head: &parsed };
    let later = Times { asked: RECEIVED.after(60_000), received: RECEIVED.after(60_000), wall: AT_ONCE.wall + 60 };
    let again = |fields: &str| {
        let update = received(304, &format!("Date: Sun, 06 Nov 1994 08:50:37 GMT\n{fields}"));
        let merged = stored::freshen(&policy, kept, update.view(), later.wall).unwrap_or_default();
        let judged = judge_merged(&policy, &asked, &merged, update.view(), later, 0);
        judged.map(|storable| (storable.facts.ttl(later.received), storable.facts.age(later.received)))
    };
    assert_eq!(again(""), Ok((9, 0)));
    assert_eq!(again("Age: 4"), Ok((5, 4)));
    assert_eq!(again("Cache-Control: max-age=20"), Ok((20, 0)));
    assert_eq!(again("Cache-Control: no-store"), Err(NotStored::NoStore));
}
