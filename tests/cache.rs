//! What fuzzers and ordinary tests ask of the fields that a cache reads.

use std::time::{Duration, UNIX_EPOCH};

use sluice_rules::cache::control::ResponseControl;
use sluice_rules::cache::range::{self, Selection};
use sluice_rules::cache::vary::{PREFERENCES_MAX, Selecting};
use sluice_rules::cache::{SECONDS_MAX, dates};
use sluice_wire::h1::parse::{self, Progress};
use sluice_wire::head::{Request, RequestHead, Response, ResponseHead};

use crate::LIMITS;

/// Looks at a response that has this field, if it may stand in one.
fn with_response<T>(name: &str, value: &[u8], look: impl FnOnce(Response<'_>) -> T) -> Option<T> {
    let bytes = [b"HTTP/1.1 200 OK\r\n", name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
    let mut head = ResponseHead::default();
    let whole = parse::response(&bytes, &mut Progress::default(), LIMITS, &mut head) == Ok(true);
    // A line end in the value would begin another field.
    (whole && head.length == bytes.len() && head.fields.lines().len() == 1)
        .then(|| look(Response { bytes: &bytes, head: &head }))
}

/// Looks at a request that has this field, if it may stand in one.
fn with_request<T>(name: &str, value: &[u8], look: impl FnOnce(Request<'_>) -> T) -> Option<T> {
    let bytes = [b"GET / HTTP/1.1\r\n", name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let whole = parse::request(&bytes, &mut Progress::default(), LIMITS, &mut head) == Ok(true);
    // A line end in the value would begin another field.
    (whole && head.length == bytes.len() && head.fields.lines().len() == 1)
        .then(|| look(Request { bytes: &bytes, head: &head }))
}

/// Nothing that stands before `no-store` hides it, no number is out of bounds, and a field for this kind of cache
/// counts only if it is a dictionary.
pub fn cache_control(bytes: &[u8]) {
    let control = with_response("Cache-Control", bytes, ResponseControl::of);
    for seconds in control.into_iter().flat_map(|control| [control.max_age, control.s_maxage]) {
        assert!(seconds.is_none_or(|seconds| seconds <= SECONDS_MAX));
    }
    let further = [bytes, b", no-store"].concat();
    let further = with_response("Cache-Control", &further, ResponseControl::of);
    assert!(further.is_none_or(|control| control.no_store), "hidden");
    if let Some(targeted) = with_response("CDN-Cache-Control", bytes, ResponseControl::of) {
        let trimmed = bytes.trim_ascii();
        let is_text = trimmed.is_ascii() && !trimmed.is_empty();
        assert!(is_text || !targeted.source.is_targeted(), "no dictionary is empty or has other characters");
    }
}

/// A star among the names selects nothing, and the order and spacing of codings mean nothing.
pub fn vary(bytes: &[u8]) {
    let is_star = |member: &[u8]| member.trim_ascii() == b"*";
    let selecting = with_response("Vary", bytes, Selecting::of);
    if bytes.split(|byte| *byte == b',').any(is_star) {
        assert_eq!(selecting.unwrap_or_default(), None);
    }
    let Some(Some(selecting)) = with_response("Vary", b"Accept-Encoding, Foo", Selecting::of) else { return };
    let key = |value: &[u8]| {
        with_request("Accept-Encoding", value, |request| {
            let mut key = Vec::new();
            selecting.write(request, &mut key);
            key
        })
    };
    let mut members: Vec<&[u8]> = bytes.split(|byte| *byte == b',').collect();
    // What is no list of codings with weights is taken as it is.
    let is_plain = |member: &[u8]| {
        let member = member.trim_ascii();
        !member.is_empty() && member.iter().all(|byte| byte.is_ascii_alphanumeric())
    };
    if members.len() <= PREFERENCES_MAX && members.iter().all(|member| is_plain(member)) {
        members.reverse();
        assert_eq!(key(bytes), key(&members.join(&b" ,  "[..])));
    }
}

/// What is a date to `httpdate` is the same date to us; the case of its letters means nothing, and what we write reads
/// back.
pub fn date(bytes: &[u8]) {
    const NOW: i64 = 1_795_573_000;
    let ours = dates::parse(bytes, NOW);
    assert_eq!(dates::parse(&bytes.to_ascii_lowercase(), NOW), ours);
    assert_eq!(dates::parse(&bytes.to_ascii_uppercase(), NOW), ours);
    let theirs = str::from_utf8(bytes).ok().and_then(|text| httpdate::parse_http_date(text).ok());
    let theirs = theirs.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
    // Theirs knows no leap second; of years of two digits it makes ones from 1970 on.
    let is_short = bytes.contains(&b'-');
    if let (Some(ours), Some(theirs), false) = (ours, theirs, is_short) {
        assert_eq!(u64::try_from(ours), Ok(theirs));
    }
    if let Some(date) = ours.filter(|date| *date >= 0) {
        let written = dates::format(date);
        assert_eq!(dates::parse(written.as_bytes(), NOW), Some(date));
        let since = Duration::from_secs(date.unsigned_abs());
        assert_eq!(httpdate::parse_http_date(&written).ok(), Some(UNIX_EPOCH + since));
    }
}

/// The parts that are sent are, together, what was asked for, each byte once.
pub fn range(bytes: &[u8]) {
    const LENGTH: u64 = 40;
    let parts = match range::ranges(bytes, LENGTH) {
        Selection::Whole => return,
        Selection::Unsatisfiable => Vec::new(),
        Selection::One(part) => vec![part],
        Selection::Several(parts) => {
            assert!(parts.len() > 1 && parts.len() <= range::RANGES_MAX);
            parts
        }
    };
    let mut sent = [0u8; LENGTH as usize];
    for part in &parts {
        assert!(part.start < part.end && part.end <= LENGTH);
        (part.start..part.end).for_each(|at| sent[at as usize] += 1);
    }
    let text = str::from_utf8(bytes).expect("what is understood is ASCII");
    let mut asked = [0u8; LENGTH as usize];
    for spec in text["bytes=".len()..].split(',').map(str::trim_ascii).filter(|spec| !spec.is_empty()) {
        let (first, last) = spec.split_once('-').expect("what is understood has a hyphen");
        // More digits than these are more than there is.
        let number = |digits: &str| digits.parse::<u64>().unwrap_or(u64::MAX);
        let (start, end) = match (first, last) {
            ("", suffix) => (LENGTH.saturating_sub(number(suffix)), LENGTH),
            (first, "") => (number(first), LENGTH),
            (first, last) => (number(first), number(last).saturating_add(1).min(LENGTH)),
        };
        (start..end).for_each(|at| asked[at as usize] = 1);
    }
    assert_eq!(sent, asked);
}
