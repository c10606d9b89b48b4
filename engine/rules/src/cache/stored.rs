//! What is stored of a response: its head as it will be sent again, and what look-ups need to know of it.

use sluice_wire::Name;
use sluice_wire::fields::{self, ConnectionOptions, HOP_BY_HOP};
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, FIELDS_MAX, HEAD_BYTES_MAX, HeadLimits, Progress};
use sluice_wire::head::{NameSet, Response, ResponseHead, Span};
use sluice_wire::writer::Writer;

use super::control::{self, ResponseControl};
use super::{Moment, SECONDS_MAX, Seconds, UnixSeconds, dates, seconds};
use crate::snapshot::{CachePolicy, SetCookie};

/// What look-ups need to know of a stored response. Spans are over its stored head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it was received, or last confirmed.
    pub received: Moment,
    /// How old it was then, in milliseconds.
    pub initial_age_millis: u64,
    /// Until when it is fresh.
    pub fresh_until: Moment,
    /// When it was made: its `Date`.
    pub date: UnixSeconds,
    /// Its `Last-Modified`, if it has a valid one.
    pub last_modified: Option<UnixSeconds>,
    /// Its `ETag`, with quotes and a `W/` if it has one.
    pub etag: Option<Span>,
    /// Its freshness lifetime, as the origin means it.
    pub lifetime: Seconds,
    /// How long it is given while a fresh one is fetched.
    pub stale_while_revalidate: Seconds,
    /// How long it is given when the origin fails.
    pub stale_if_error: Seconds,
    /// The status code.
    pub status: u16,
    /// Whether it is given only once the origin has confirmed it: `no-cache`.
    pub always_validate: bool,
    /// Whether it is not given when stale, come what may: `must-revalidate`, `proxy-revalidate`, `no-cache`.
    pub never_stale: bool,
    /// Whether it is not given when stale unless it says for how long: `s-maxage` (RFC 9111 §5.2.2.10).
    pub stale_by_leave_only: bool,
}

impl Facts {
    /// How old it is, as `Age` tells it (RFC 9111 §4.2.3).
    pub fn age(&self, now: Moment) -> Seconds {
        seconds(self.initial_age_millis.saturating_add(now.since(self.received)))
    }

    /// Seconds for which it is still fresh; less than zero if it is stale.
    pub fn ttl(&self, now: Moment) -> i64 {
        if now <= self.fresh_until {
            i64::from(seconds(self.fresh_until.since(now)))
        } else {
            // What is stale by a part of a second is so by one.
            -i64::from(seconds(now.since(self.fresh_until).saturating_add(999)))
        }
    }

    /// Whether it is fresh.
    pub fn is_fresh(&self, now: Moment) -> bool {
        now < self.fresh_until
    }

    /// Seconds, begun ones included, for which it has been stale.
    pub fn staleness(&self, now: Moment) -> Seconds {
        seconds(now.since(self.fresh_until).saturating_add(999))
    }

    /// Whether it can be confirmed by the origin in place of being sent again.
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Its `ETag` in its stored head.
    pub fn etag_of<'h>(&self, head: &'h [u8]) -> Option<&'h [u8]> {
        self.etag.and_then(|etag| head.get(etag.range()))
    }

    /// Makes it stale from now on: a soft purge. What an unsafe method invalidates is not given again at all, since
    /// RFC 9111 §4.4 does not let it be given stale.
    pub fn expire(&mut self, now: Moment) {
        self.fresh_until = self.fresh_until.min(now);
    }

    /// Until when there is any use in keeping it, if it cannot be confirmed by the origin.
    pub fn useful_until(&self) -> Moment {
        let extra = if self.never_stale { 0 } else { self.stale_while_revalidate.max(self.stale_if_error) };
        self.fresh_until.after(u64::from(extra.min(SECONDS_MAX)) * 1000)
    }
}

/// Fields that are not stored: what concerns one connection (RFC 9111 §3.1), what is made anew each time, and what is
/// for this gateway alone.
const NOT_STORED: NameSet = HOP_BY_HOP.union(NameSet::of(&[
    Name::Age,
    Name::ContentLength,
    Name::ProxyAuthenticate,
    Name::SluiceCacheControl,
    Name::Trailer,
]));

/// Fields that a 304 does not change in what is stored (RFC 9111 §3.2): those that say of the stored content how it is
/// coded and which part of it is there.
const NOT_UPDATED: NameSet = NOT_STORED.union(NameSet::of(&[Name::ContentEncoding, Name::ContentRange]));

/// The head of a response as it is stored: a whole one, with its empty line, without what concerns one connection,
/// without `Age` and `Content-Length`, and with a `Date` (RFC 9110 §6.6.1). A hit copies it up to the empty line and
/// adds what is of the moment.
pub fn head(policy: &CachePolicy, response: Response<'_>, control: &ResponseControl, wall: UnixSeconds) -> Vec<u8> {
    let table = &response.head.fields;
    let mut edits = Edits::default();
    edits.remove(NOT_STORED);
    if policy.set_cookie != SetCookie::Store {
        edits.remove(NameSet::of(&[Name::SetCookie]));
    }
    edits.remove_named(ConnectionOptions::of(response.bytes, table), response.bytes, table);
    let withheld = if policy.ignore_origin { Vec::new() } else { control::withheld_fields(response, control) };
    for (position, line) in table.lines().iter().enumerate() {
        let name = line.name_span.of(response.bytes);
        if is_proxy_authentication(name) || withheld.iter().any(|withheld| name.eq_ignore_ascii_case(withheld)) {
            edits.remove_line(position);
        }
    }
    if response.field(Name::Date).and_then(|value| dates::parse(value, wall)).is_none() {
        edits.remove(NameSet::of(&[Name::Date]));
        edits.add("Date", &[dates::format(wall).as_bytes()]);
    }
    written(response, &edits)
}

/// RFC 9111 §3.1: what a response tells a proxy about authentication is not for others.
fn is_proxy_authentication(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"proxy-authentication-info")
}

fn written(response: Response<'_>, edits: &Edits) -> Vec<u8> {
    let mut space = vec![0; response.head.length + edits.added().len() + 64];
    let mut writer = Writer::new(&mut space);
    encode::response(&mut writer, response, edits);
    let length = writer.finish().expect("it is at most as long as the lines that it is made of");
    space.truncate(length);
    space
}

/// Reads a stored head again. `None`: it is none, which cannot be.
pub fn parse(head: &[u8]) -> Option<ResponseHead> {
    let limits = HeadLimits { head_bytes: HEAD_BYTES_MAX, fields: FIELDS_MAX, line_bytes: HEAD_BYTES_MAX };
    let mut parsed = ResponseHead::default();
    matches!(parse::response(head, &mut Progress::default(), limits, &mut parsed), Ok(true)).then_some(parsed)
}

/// The stored head with the fields of a response that confirms it, a 304 or one to a HEAD (RFC 9111 §3.2): each field
/// of the new one in place of those with its name. It is judged again as if it had just come. `None`: it would be too
/// long.
pub fn freshen(policy: &CachePolicy, stored: Response<'_>, update: Response<'_>, wall: UnixSeconds) -> Option<Vec<u8>> {
    let control = ResponseControl::of(update);
    let update_head = head(policy, update, &control, wall);
    let parsed = parse(&update_head)?;
    let update = Response { bytes: &update_head, head: &parsed };
    let (old, new) = (&stored.head.fields, &update.head.fields);
    let is_new = |name: &[u8]| {
        let mut lines = new.lines().iter();
        !NOT_UPDATED.contains_known(Name::of(name))
            && lines.any(|line| line.name_span.of(update.bytes).eq_ignore_ascii_case(name))
    };
    let mut edits = Edits::default();
    for (position, line) in old.lines().iter().enumerate() {
        if is_new(line.name_span.of(stored.bytes)) {
            edits.remove_line(position);
        }
    }
    for line in new.lines().iter().filter(|line| !NOT_UPDATED.contains_known(line.name)) {
        edits.add_lines(line.line.of(update.bytes));
    }
    let merged = written(stored, &edits);
    let lines = old.lines().len() + new.lines().len();
    (merged.len() <= HEAD_BYTES_MAX && lines <= FIELDS_MAX).then_some(merged)
}

/// The content's type in a stored head, for the parts of an answer to several ranges.
pub fn content_type<'h>(stored: Response<'h>) -> Option<&'h [u8]> {
    stored.field(Name::ContentType).filter(|value| fields::is_value(value))
}
