//! Whether a response may be stored (RFC 9111 §3), and what is then known of it.

use std::time::Duration;

use sluice_wire::Name;
use sluice_wire::head::{Response, Span};

use super::control::ResponseControl;
use super::freshness::{self, By, Lifetime};
use super::lookup::Asked;
use super::stored::{self, Facts};
use super::vary::Selecting;
use super::{Moment, Seconds, Times, dates};
use crate::snapshot::{CachePolicy, SetCookie};

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The request was not one whose response is stored (§3): its method, its content, `no-store`, a bypass.
    Request,
    /// It is an interim response, or one that changes the protocol.
    Interim,
    /// It is a part of a response (§3.3), or a 304.
    Partial,
    /// Its status is not understood, and it says that it must be (§5.2.2.3).
    NotUnderstood,
    /// `no-store`
    NoStore,
    /// `private`
    Private,
    /// The request had credentials, and the response does not say that it is for others as well (§3.5).
    Authorization,
    /// The request had cookies, and the response does not say how long it is fresh.
    Cookie,
    /// It sets a cookie, and the route does not say that such responses are stored.
    SetCookie,
    /// `Vary: *`
    VaryStar,
    /// It is never fresh and cannot be confirmed.
    NeverFresh,
    /// Its content is larger than `max-object`.
    TooLarge,
    /// Its head is too long to be kept.
    Head,
}

impl NotStored {
    /// A word for metrics, and for the detail of `Cache-Status`.
    pub fn label(self) -> &'static str {
        match self {
            NotStored::Request => "request",
            NotStored::Interim => "interim",
            NotStored::Partial => "partial",
            NotStored::NotUnderstood => "must-understand",
            NotStored::NoStore => "no-store",
            NotStored::Private => "private",
            NotStored::Authorization => "authorization",
            NotStored::Cookie => "cookie",
            NotStored::SetCookie => "set-cookie",
            NotStored::VaryStar => "vary",
            NotStored::NeverFresh => "never-fresh",
            NotStored::TooLarge => "too-large",
            NotStored::Head => "head",
        }
    }

    /// Whether the next request for the same is likely to fare the same, so that nobody need wait for its response to
    /// find out.
    pub fn lasts(self) -> bool {
        match self {
            NotStored::NotUnderstood
            | NotStored::NoStore
            | NotStored::Private
            | NotStored::SetCookie
            | NotStored::VaryStar
            | NotStored::NeverFresh
            | NotStored::TooLarge
            | NotStored::Head => true,
            NotStored::Request
            | NotStored::Interim
            | NotStored::Partial
            | NotStored::Authorization
            | NotStored::Cookie => false,
        }
    }
}

/// A response that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storable {
    /// Its head as it is stored.
    pub head: Vec<u8>,
    /// What look-ups need to know of it.
    pub facts: Facts,
    /// The fields of requests that select it.
    pub selecting: Selecting,
    /// Who says how long it is fresh.
    pub by: By,
}

/// Judges a response that has just come. `asked` is the request that it answers, `random` any number.
///
/// # Errors
/// Why it is not stored.
pub fn judge(
    policy: &CachePolicy,
    asked: &Asked,
    response: Response<'_>,
    times: Times,
    random: u32,
) -> Result<Storable, NotStored> {
    let control = ResponseControl::of(response);
    let lifetime = permit(policy, asked, response, &control, times)?;
    let selecting = Selecting::of(response).ok_or(NotStored::VaryStar)?;
    let head = stored::head(policy, response, &control, times.wall);
    let parsed = stored::parse(&head).ok_or(NotStored::Head)?;
    let kept = Response { bytes: &head, head: &parsed };
    let facts = facts(policy, &control, lifetime, response, kept, times, random);
    let is_useful = facts.has_validator() || facts.useful_until() > times.received;
    if !is_useful {
        return Err(NotStored::NeverFresh);
    }
    Ok(Storable { head, facts, selecting, by: lifetime.by })
}

/// Judges a head that was merged from a stored one and a response that confirms it, see [`stored::freshen`].
///
/// # Errors
/// Why it is not stored any longer.
pub fn judge_merged(
    policy: &CachePolicy,
    asked: &Asked,
    merged: &[u8],
    update: Response<'_>,
    times: Times,
    random: u32,
) -> Result<Storable, NotStored> {
    let parsed = stored::parse(merged).ok_or(NotStored::Head)?;
    // A HEAD, whose own response would not be stored, confirms what a GET has brought.
    let asked = Asked { may_store: true, ..*asked };
    let mut storable = judge(policy, &asked, Response { bytes: merged, head: &parsed }, times, random)?;
    // `Age` is not stored, so how old it is comes from the response that confirms it.
    let age = if policy.ignore_origin { 0 } else { freshness::initial_age_millis(update, times) };
    let left = freshness::fresh_millis(storable.facts.lifetime, age, policy.jitter_percent, random);
    storable.facts.initial_age_millis = age;
    storable.facts.fresh_until = times.received.after(left);
    Ok(storable)
}

/// How long it is fresh, if it may be stored.
fn permit(
    policy: &CachePolicy,
    asked: &Asked,
    response: Response<'_>,
    control: &ResponseControl,
    times: Times,
) -> Result<Lifetime, NotStored> {
    let (status, table) = (response.head.status, &response.head.fields);
    if !asked.may_store {
        return Err(NotStored::Request);
    }
    match status {
        100..=199 => return Err(NotStored::Interim),
        206 | 304 => return Err(NotStored::Partial),
        _ => {}
    }
    let lifetime = freshness::lifetime(policy, response, control, times.wall);
    let is_pinned = matches!(lifetime.by, By::Pinned) || (policy.ignore_origin && lifetime.by == By::NegativeTtl);
    // §5.2.2.3: who understands the status may store it in spite of `no-store`.
    let understood = is_understood(status);
    if control.must_understand && !understood {
        return Err(NotStored::NotUnderstood);
    }
    if !is_pinned {
        if control.no_store && !(control.must_understand && understood) {
            return Err(NotStored::NoStore);
        }
        if control.private {
            return Err(NotStored::Private);
        }
    }
    // What belongs to one identity is given to others only if the origin allows it; a route that ignores its origin
    // cannot.
    if asked.has_authorization && !control.allows_authorization() {
        return Err(NotStored::Authorization);
    }
    if asked.has_cookie && !lifetime.by.is_explicit() && !control.public {
        return Err(NotStored::Cookie);
    }
    if policy.set_cookie == SetCookie::Pass && table.has(Name::SetCookie) {
        return Err(NotStored::SetCookie);
    }
    Ok(lifetime)
}

/// Whether we know all that a status asks of a cache: those of RFC 9110 §15 but 206, which is not stored.
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=205 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

fn facts(
    policy: &CachePolicy,
    control: &ResponseControl,
    lifetime: Lifetime,
    response: Response<'_>,
    kept: Response<'_>,
    times: Times,
    random: u32,
) -> Facts {
    let pinned = policy.ignore_origin;
    // A route that ignores its origin does not believe that it has had the response for long either.
    let initial_age_millis = if pinned { 0 } else { freshness::initial_age_millis(response, times) };
    let left = freshness::fresh_millis(lifetime.seconds, initial_age_millis, policy.jitter_percent, random);
    let never_stale = !pinned && (control.must_revalidate || control.proxy_revalidate || control.no_cache);
    let window = |own: Option<Seconds>, route: Option<Duration>| {
        let route = route.map(freshness::whole);
        let own = own.filter(|_| !pinned);
        // §5.2.2.10: `s-maxage` forbids what is stale unless the response itself says for how long.
        own.or(route.filter(|_| pinned || control.s_maxage.is_none())).unwrap_or(0)
    };
    Facts {
        received: times.received,
        initial_age_millis,
        fresh_until: Moment::after(times.received, left),
        date: freshness::date(kept, times.wall),
        last_modified: kept.field(Name::LastModified).and_then(|value| dates::parse(value, times.wall)),
        etag: etag(kept),
        lifetime: lifetime.seconds,
        stale_while_revalidate: window(control.stale_while_revalidate, policy.stale_while_revalidate),
        stale_if_error: window(control.stale_if_error, policy.stale_if_error),
        status: kept.head.status,
        always_validate: !pinned && control.no_cache,
        never_stale,
        stale_by_leave_only: !pinned && control.s_maxage.is_some(),
    }
}

/// Where the stored head has its `ETag`.
fn etag(kept: Response<'_>) -> Option<Span> {
    let line = kept.head.fields.lines().iter().find(|line| line.name == Name::ETag)?;
    (!line.value_span.range().is_empty()).then_some(line.value_span)
}

#[cfg(test)]
mod tests;
