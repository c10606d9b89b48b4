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

#[cfg(test)]
mod tests {
    use super::super::sample::{DATE, WALL, ok, received};
    use super::*;

    fn lines(policy: &CachePolicy, response: &super::super::sample::Received) -> String {
        let control = ResponseControl::of(response.view());
        let head = head(policy, response.view(), &control, WALL);
        String::from_utf8_lossy(&head).replace("\r\n", "\n")
    }

    /// RFC 9111 §3.1, RFC 9110 §6.6.1, §7.6.1.
    #[test]
    fn what_concerns_one_connection_is_not_stored() {
        let response = ok(
            "Connection: close, X-Hop\nX-Hop: 1\nKeep-Alive: 5\nProxy-Connection: x\nProxy-Authenticate: Basic\n\
             Proxy-Authentication-Info: x\nTE: x\nTrailer: x\nUpgrade: x\nTransfer-Encoding: chunked\nAge: 5\nX-Kept: 1\n\
             Sluice-Cache-Control: max-age=5\nCDN-Cache-Control: max-age=6\nVia: 1.1 x",
        );
        let expected = format!("HTTP/1.1 200 X\nDate: {DATE}\nX-Kept: 1\nCDN-Cache-Control: max-age=6\nVia: 1.1 x\n\n");
        assert_eq!(lines(&CachePolicy::default(), &response), expected);
        for without in ["", "Date: today"] {
            let dated = format!("HTTP/1.1 200 X\nDate: {DATE}\n\n");
            assert_eq!(lines(&CachePolicy::default(), &received(200, without)), dated);
        }
    }

    /// RFC 9111 §5.2.2.4, §5.2.2.7.
    #[test]
    fn fields_that_are_withheld_are_not_stored() {
        let response = ok("Cache-Control: no-cache=\"a, B\", private=c\nA: 1\nb: 2\nC: 3\nd: 4");
        let stored = lines(&CachePolicy::default(), &response);
        assert!(
            !stored.contains("A: 1") && !stored.contains("b: 2") && !stored.contains("C: 3") && stored.contains("d: 4")
        );
    }

    #[test]
    fn a_cookie_is_stored_only_where_the_route_says_so() {
        let response = ok("Set-Cookie: a=b");
        for (set_cookie, expected) in [(SetCookie::Pass, false), (SetCookie::Strip, false), (SetCookie::Store, true)] {
            let policy = CachePolicy { set_cookie, ..CachePolicy::default() };
            assert_eq!(lines(&policy, &response).contains("Set-Cookie"), expected);
        }
    }

    /// RFC 9111 §3.2: a 304 replaces what is stored under its names, but for what says how the content is coded.
    #[test]
    fn a_304_updates_what_is_stored() {
        let stored =
            ok("Cache-Control: max-age=1\nX-A: 1\nX-A: 2\nX-B: 1\nContent-Encoding: gzip\nContent-Type: text/plain");
        let update = received(
            304,
            "Date: Sun, 06 Nov 1994 09:49:37 GMT\ncache-control: max-age=2\nx-a: 3\nX-C: 1\nX-C: 2\nContent-Encoding: br\n\
             Content-Length: 5\nContent-Range: bytes 0-1/2\nContent-Type: text/html\nConnection: X-D\nX-D: 1\nAge: 7\nSet-Cookie: a",
        );
        let policy = CachePolicy::default();
        let merged = freshen(&policy, stored.view(), update.view(), WALL).unwrap_or_default();
        let expected = "HTTP/1.1 200 X\nX-B: 1\nContent-Encoding: gzip\nDate: Sun, 06 Nov 1994 09:49:37 GMT\n\
                        cache-control: max-age=2\nx-a: 3\nX-C: 1\nX-C: 2\nContent-Type: text/html\n\n";
        assert_eq!(String::from_utf8_lossy(&merged).replace("\r\n", "\n"), expected);
    }

    #[test]
    fn a_stored_head_is_read_again() {
        let storable =
            super::super::sample::stored(&ok("Cache-Control: max-age=9\nETag: W/\"x, y\"\nContent-Type: a/b"));
        let head = storable.as_ref().map(|storable| storable.head.clone()).unwrap_or_default();
        let parsed = parse(&head);
        let view = parsed.as_ref().map(|parsed| Response { bytes: &head, head: parsed });
        assert_eq!(view.and_then(content_type), Some(&b"a/b"[..]));
        assert_eq!(storable.ok().and_then(|s| s.facts.etag_of(&head)), Some(&b"W/\"x, y\""[..]));
        assert_eq!(parse(b"no head"), None);
    }
}
