//! How long a response is fresh and how old it is (RFC 9111 §4.2).

use std::time::Duration;

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::Response;

use super::control::{ResponseControl, delta_seconds};
use super::{SECONDS_MAX, Seconds, Times, UnixSeconds, dates, seconds};
use crate::snapshot::CachePolicy;

/// How long a response is fresh, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its freshness lifetime. Zero: it is stale when it comes.
    pub seconds: Seconds,
    /// Who says so.
    pub by: By,
}

/// Who says how long a response is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The `ttl` of a route that ignores its origin.
    Pinned,
    /// `s-maxage`
    SMaxage,
    /// `max-age`
    MaxAge,
    /// `Expires`
    Expires,
    /// The `ttl` of the route, since the response does not.
    Ttl,
    /// The `negative-ttl` of the route, since the response does not.
    NegativeTtl,
    /// A guess from `Last-Modified` (RFC 9111 §4.2.2).
    Heuristic,
    /// Nobody.
    Nobody,
}

impl By {
    /// Whether it was the origin that said so in as many words.
    pub fn is_explicit(self) -> bool {
        match self {
            By::SMaxage | By::MaxAge | By::Expires => true,
            By::Pinned | By::Ttl | By::NegativeTtl | By::Heuristic | By::Nobody => false,
        }
    }

    /// As explanations have it.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Pinned => "ttl of the route, whatever the origin says",
            By::SMaxage => "s-maxage",
            By::MaxAge => "max-age",
            By::Expires => "Expires",
            By::Ttl => "ttl of the route",
            By::NegativeTtl => "negative-ttl of the route",
            By::Heuristic => "a tenth of the time since Last-Modified",
            By::Nobody => "nobody",
        }
    }
}

/// What is guessed is at most a day.
const HEURISTIC_MAX: Seconds = 24 * 3600;

/// How long a response is fresh (RFC 9111 §4.2.1). `received` is when it came by the wall's clock.
pub fn lifetime(
    policy: &CachePolicy,
    response: Response<'_>,
    control: &ResponseControl,
    received: UnixSeconds,
) -> Lifetime {
    let status = response.head.status;
    if let Some(ttl) = policy.ttl.filter(|_| policy.ignore_origin && is_pinnable(status)) {
        return Lifetime { seconds: whole(ttl), by: By::Pinned };
    }
    if let (Some(ttl), true) = (policy.negative_ttl, policy.ignore_origin && is_negative(status)) {
        return Lifetime { seconds: whole(ttl), by: By::NegativeTtl };
    }
    if let Some(seconds) = control.s_maxage {
        return Lifetime { seconds, by: By::SMaxage };
    }
    if let Some(seconds) = control.max_age {
        return Lifetime { seconds, by: By::MaxAge };
    }
    // RFC 9213 §2.2: beside a field for this kind of cache, Expires does not count.
    if response.head.fields.has(Name::Expires) && !control.source.is_targeted() {
        return Lifetime { seconds: until_expiry(response, received), by: By::Expires };
    }
    if let (Some(ttl), true) = (policy.negative_ttl, is_negative(status)) {
        return Lifetime { seconds: whole(ttl), by: By::NegativeTtl };
    }
    if let (Some(ttl), true) = (policy.ttl, is_pinnable(status)) {
        return Lifetime { seconds: whole(ttl), by: By::Ttl };
    }
    // RFC 9111 §4.2.2: `public` allows a guess for any status.
    if (is_heuristically_cacheable(status) || control.public)
        && let Some(seconds) = guess(response, received)
    {
        return Lifetime { seconds, by: By::Heuristic };
    }
    Lifetime { seconds: 0, by: By::Nobody }
}

/// `Expires` less `Date` (RFC 9111 §5.3). Several values or an invalid one mean that it has expired.
fn until_expiry(response: Response<'_>, received: UnixSeconds) -> Seconds {
    let mut values = response.head.fields.values(response.bytes, Name::Expires);
    let (first, second) = (values.next(), values.next());
    let expires = first.filter(|_| second.is_none()).and_then(|value| dates::parse(value, received));
    let lasts = expires.map_or(0, |expires| expires.saturating_sub(date(response, received)).max(0));
    Seconds::try_from(lasts).map_or(SECONDS_MAX, |lasts| lasts.min(SECONDS_MAX))
}

/// A tenth of the time since the last change, as RFC 9111 §4.2.2 has it.
fn guess(response: Response<'_>, received: UnixSeconds) -> Option<Seconds> {
    let modified = dates::parse(response.field(Name::LastModified)?, received)?;
    let unchanged = date(response, received).saturating_sub(modified).max(0);
    Some(Seconds::try_from(unchanged / 10).map_or(HEURISTIC_MAX, |seconds| seconds.min(HEURISTIC_MAX)))
}

/// When the response was made: its `Date`, or when it came, if it has no valid one (RFC 9110 §6.6.1).
pub fn date(response: Response<'_>, received: UnixSeconds) -> UnixSeconds {
    response.field(Name::Date).and_then(|value| dates::parse(value, received)).unwrap_or(received)
}

/// How old a response was when it came, in milliseconds (RFC 9111 §4.2.3).
pub fn initial_age_millis(response: Response<'_>, times: Times) -> u64 {
    let apparent = times.wall.saturating_sub(date(response, times.wall)).max(0).unsigned_abs();
    let apparent = apparent.min(u64::from(SECONDS_MAX)) * 1000;
    let corrected = u64::from(age(response)) * 1000 + times.received.since(times.asked);
    apparent.max(corrected)
}

/// What `Age` says. RFC 9111 §5.1: of a list the first member counts, and an invalid one does not.
fn age(response: Response<'_>) -> Seconds {
    let first = response.field(Name::Age).and_then(|value| fields::list(value).next());
    first.and_then(delta_seconds).unwrap_or(0)
}

/// Milliseconds for which a response stays fresh from when it came, a bit less than it could, so that what came
/// together does not expire together. `random` is any number.
pub fn fresh_millis(lifetime: Seconds, initial_age_millis: u64, jitter_percent: u32, random: u32) -> u64 {
    let left = (u64::from(lifetime) * 1000).saturating_sub(initial_age_millis);
    // A lifetime has 41 bits in milliseconds, so nothing overflows.
    let most = left * u64::from(jitter_percent.min(100)) / 100;
    left - (most * u64::from(random & 0xffff)) / (1 << 16)
}

/// Whether a response of this status may be kept for a time that is guessed (RFC 9110 §15.1).
pub fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether it is an error that lasts for a while.
fn is_negative(status: u16) -> bool {
    matches!(status, 404 | 405 | 410 | 414 | 501)
}

/// Whether the `ttl` of a route is about it: a success or a redirection that may be kept by default. A 302 may well be
/// to where one client has to log in.
fn is_pinnable(status: u16) -> bool {
    is_heuristically_cacheable(status) && status < 400
}

/// Seconds of a duration of the configuration, begun ones included.
pub(super) fn whole(duration: Duration) -> Seconds {
    seconds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).saturating_add(999))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{AT_ONCE, DATE, RECEIVED, Received, WALL, ok, received};
    use super::super::stored;
    use super::*;

    fn lifetime_by(policy: &CachePolicy, response: &Received) -> (Seconds, By) {
        let control = ResponseControl::of(response.view());
        let lifetime = lifetime(policy, response.view(), &control, WALL);
        (lifetime.seconds, lifetime.by)
    }

    fn lifetime_of(response: &Received) -> (Seconds, By) {
        lifetime_by(&CachePolicy::default(), response)
    }

    /// RFC 9111 §4.2.1, §5.2.2.10, §5.3; RFC 9213 §2.2.
    #[test]
    fn the_more_exact_statement_counts() {
        for (fields, expected) in [
            ("Cache-Control: max-age=60, s-maxage=10", (10, By::SMaxage)),
            ("Cache-Control: s-maxage=x, max-age=60", (0, By::SMaxage)),
            ("Cache-Control: max-age=60\nExpires: Sun, 06 Nov 1994 09:49:37 GMT", (60, By::MaxAge)),
            ("Cache-Control: max-age=0\nExpires: Sun, 06 Nov 1994 09:49:37 GMT", (0, By::MaxAge)),
            ("Cache-Control: public\nExpires: Sun, 06 Nov 1994 09:49:37 GMT", (3600, By::Expires)),
            ("Expires: Sun, 06 Nov 1994 08:49:37 GMT", (0, By::Expires)),
            ("Expires: Sun, 06 Nov 1994 07:49:37 GMT", (0, By::Expires)),
            ("CDN-Cache-Control: max-age=1\nCache-Control: s-maxage=60", (1, By::MaxAge)),
            ("CDN-Cache-Control: foo\nExpires: Sun, 06 Nov 1994 09:49:37 GMT", (0, By::Nobody)),
            ("", (0, By::Nobody)),
        ] {
            assert_eq!(lifetime_of(&ok(fields)), expected, "{fields}");
        }
    }

    /// RFC 9111 §5.3: what is no date, or more than one, is in the past; a cache does not go on to guess.
    #[test]
    fn an_invalid_expires_has_expired() {
        for expires in [
            "0",
            "-1",
            "tomorrow",
            "Sun, 06 Nov 2094 08:49:37 UTC",
            "Sun, 6 Nov 2094 08:49:37 GMT",
            "Sun, 06 Nov 2094 08:49:37 GMT, Sun, 06 Nov 2094 08:49:37 GMT",
            "Sun, 06 Nov 2094 08:49:37 GMT\nExpires: Sun, 06 Nov 2094 08:49:38 GMT",
        ] {
            let response = ok(&format!("Expires: {expires}\nLast-Modified: Sun, 06 Nov 1984 08:49:37 GMT"));
            assert_eq!(lifetime_of(&response), (0, By::Expires), "{expires}");
        }
        let far = ok("Expires: Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(lifetime_of(&far), (SECONDS_MAX, By::Expires));
    }

    /// RFC 9111 §4.2.1: `Expires` is relative to `Date`, and without one to when the response came.
    #[test]
    fn expires_is_relative_to_date() {
        let fast = received(200, "Date: Sun, 06 Nov 1994 09:49:37 GMT\nExpires: Sun, 06 Nov 1994 09:50:37 GMT");
        assert_eq!(lifetime_of(&fast), (60, By::Expires));
        for date in ["", "Date: today\n"] {
            let without = received(200, &format!("{date}Expires: Sun, 06 Nov 1994 08:50:37 GMT"));
            assert_eq!(lifetime_of(&without), (60, By::Expires));
        }
    }

    /// RFC 9111 §4.2.2, RFC 9110 §15.1.
    #[test]
    fn a_guess_is_a_tenth_of_the_time_since_the_last_change() {
        let hour = "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT";
        let of = |status: u16, fields: &str| lifetime_of(&received(status, &format!("Date: {DATE}\n{hour}{fields}")));
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(of(status, ""), (360, By::Heuristic), "{status}");
        }
        for status in [201, 202, 299, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
            assert_eq!(of(status, ""), (0, By::Nobody), "{status}");
            assert_eq!(of(status, "\nCache-Control: public"), (360, By::Heuristic), "{status}");
        }
        assert_eq!(lifetime_of(&ok("Last-Modified: Sun, 06 Nov 1904 07:49:37 GMT")), (HEURISTIC_MAX, By::Heuristic));
        assert_eq!(lifetime_of(&ok("Last-Modified: Sun, 06 Nov 1994 09:49:37 GMT")), (0, By::Heuristic));
        assert_eq!(lifetime_of(&ok("Last-Modified: yesterday")), (0, By::Nobody));
    }

    /// What the route says holds where the origin says nothing, or whatever it says.
    #[test]
    fn the_route_fills_what_the_origin_leaves_open() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let filling = CachePolicy { ttl: seconds(30), negative_ttl: seconds(5), ..CachePolicy::default() };
        let pinning = CachePolicy { ignore_origin: true, ..filling.clone() };
        for (status, fields, filled, pinned) in [
            (200, "", (30, By::Ttl), (30, By::Pinned)),
            (200, "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT", (30, By::Ttl), (30, By::Pinned)),
            (200, "Cache-Control: max-age=9", (9, By::MaxAge), (30, By::Pinned)),
            (200, "Cache-Control: no-cache", (30, By::Ttl), (30, By::Pinned)),
            (200, "Expires: 0", (0, By::Expires), (30, By::Pinned)),
            (301, "", (30, By::Ttl), (30, By::Pinned)),
            (302, "", (0, By::Nobody), (0, By::Nobody)),
            (404, "", (5, By::NegativeTtl), (5, By::NegativeTtl)),
            (404, "Cache-Control: max-age=9", (9, By::MaxAge), (5, By::NegativeTtl)),
            (500, "", (0, By::Nobody), (0, By::Nobody)),
        ] {
            let response = received(status, &format!("Date: {DATE}\n{fields}"));
            assert_eq!(lifetime_by(&filling, &response), filled, "{status} {fields}");
            assert_eq!(lifetime_by(&pinning, &response), pinned, "{status} {fields}");
        }
        let without = CachePolicy { negative_ttl: None, ..filling };
        assert_eq!(lifetime_by(&without, &received(404, "")), (0, By::Nobody));
        assert_eq!(whole(Duration::from_millis(1500)), 2);
    }

    /// RFC 9111 §5.1.
    #[test]
    fn an_invalid_age_is_ignored_and_of_a_list_the_first_counts() {
        for (value, expected) in [
            ("0", 0),
            ("7200", 7200),
            ("7200, 0", 7200),
            ("0, 7200", 0),
            ("7200\nAge: 0", 7200),
            ("0\nAge: 7200", 0),
            ("2147483648", SECONDS_MAX),
            ("99999999999999999999", SECONDS_MAX),
            ("-7200", 0),
            ("7200.0", 0),
            ("a7200", 0),
            ("7200a", 0),
            ("7200;foo=bar", 0),
            ("\"7200\"", 0),
            ("", 0),
        ] {
            assert_eq!(age(ok(&format!("Age: {value}")).view()), expected, "{value}");
        }
    }

    /// RFC 9111 §4.2.3.
    #[test]
    fn the_age_is_the_larger_of_what_date_and_age_say() {
        let initial = |fields: &str, times: Times| initial_age_millis(received(200, fields).view(), times);
        let slow = Times { received: RECEIVED.after(2500), ..AT_ONCE };
        for (fields, at_once, after_a_wait) in [
            ("", 0, 2500),
            ("Date: Sun, 06 Nov 1994 08:49:37 GMT", 0, 2500),
            ("Date: Sun, 06 Nov 1994 08:49:27 GMT", 10_000, 10_000),
            ("Date: Sun, 06 Nov 1994 08:49:27 GMT\nAge: 60", 60_000, 62_500),
            ("Date: Sun, 06 Nov 1994 08:50:27 GMT", 0, 2500),
            ("Age: 60", 60_000, 62_500),
        ] {
            assert_eq!((initial(fields, AT_ONCE), initial(fields, slow)), (at_once, after_a_wait), "{fields}");
        }
        let facts = super::super::sample::facts("Cache-Control: max-age=100\nAge: 60");
        let stored::Facts { received, .. } = facts;
        assert_eq!((facts.age(received.after(1999)), facts.ttl(received.after(1999))), (61, 38));
        assert_eq!((facts.age(received.after(40_000)), facts.is_fresh(received.after(40_000))), (100, false));
        assert_eq!((facts.ttl(received.after(40_000)), facts.ttl(received.after(40_001))), (0, -1));
    }

    /// It expires early, never late, and by no more than its share.
    #[test]
    fn jitter_takes_from_what_is_left() {
        assert_eq!(fresh_millis(100, 60_000, 10, 0), 40_000);
        assert_eq!(fresh_millis(100, 60_000, 0, u32::MAX), 40_000);
        assert_eq!(fresh_millis(100, 60_000, 10, u32::MAX), 36_001);
        assert_eq!(fresh_millis(100, 100_001, 10, 7), 0);
        assert_eq!(fresh_millis(SECONDS_MAX, 0, 100, u32::MAX), 32_768_000);
    }
}
