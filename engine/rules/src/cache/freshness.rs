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
