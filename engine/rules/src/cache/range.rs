//! Parts of a stored response (RFC 9110 §14).

use std::ops::Range;

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::Request;

use super::conditional::is_strong;
use super::stored::Facts;
use super::{UnixSeconds, dates};

/// Ranges that a request may ask for. With more, all is sent: nobody needs them, and parts cost more than the whole.
pub const RANGES_MAX: usize = 16;

/// What a request wants of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// This part: 206 with `Content-Range`.
    One(Range<u64>),
    /// These parts, none of which touches another: 206 with `multipart/byteranges`.
    Several(Vec<Range<u64>>),
    /// What is not there: 416.
    Unsatisfiable,
}

/// What a GET wants of a stored content of `length` bytes. `head` is its stored head, `now` the wall's time.
pub fn select(request: Request<'_>, facts: &Facts, head: &[u8], length: u64, now: UnixSeconds) -> Selection {
    let mut values = request.head.fields.values(request.bytes, Name::Range);
    let (Some(value), None) = (values.next(), values.next()) else { return Selection::Whole };
    if facts.status != 200 || !if_range(request, facts, head, now) {
        return Selection::Whole;
    }
    ranges(value, length)
}

/// Whether `If-Range`, if it is there, names what is stored (RFC 9110 §13.1.5), by strong comparison.
fn if_range(request: Request<'_>, facts: &Facts, head: &[u8], now: UnixSeconds) -> bool {
    let Some(wanted) = request.field(Name::IfRange) else { return true };
    if wanted.contains(&b'"') {
        return is_strong(wanted) && facts.etag_of(head) == Some(wanted);
    }
    // RFC 9110 §8.8.2.2: a date is strong only if what it is about was older than a second when it was sent.
    let exact = dates::parse(wanted, now).is_some_and(|date| facts.last_modified == Some(date));
    exact && facts.last_modified.is_some_and(|modified| modified < facts.date)
}

/// Reads a `Range` (RFC 9110 §14.1.2, §14.2). Another unit, bad syntax and too many ranges mean the whole; ranges
/// that overlap or touch become one, in the place of the first.
pub fn ranges(value: &[u8], length: u64) -> Selection {
    let Some(list) =
        value.split_at_checked(6).and_then(|(unit, list)| unit.eq_ignore_ascii_case(b"bytes=").then_some(list))
    else {
        return Selection::Whole;
    };
    let mut asked = 0;
    let mut found: Vec<Range<u64>> = Vec::new();
    for spec in fields::list(list) {
        asked += 1;
        if asked > RANGES_MAX {
            return Selection::Whole;
        }
        match one(spec, length) {
            Err(Invalid) => return Selection::Whole,
            Ok(None) => {}
            Ok(Some(range)) => add(&mut found, range),
        }
    }
    match (asked, found.len()) {
        (0, _) => Selection::Whole,
        (_, 0) => Selection::Unsatisfiable,
        (_, 1) => Selection::One(found.swap_remove(0)),
        _ => Selection::Several(found),
    }
}

/// What is no range.
struct Invalid;

/// `first-last`, `first-` or `-length`. `None`: it is behind the end.
fn one(spec: &[u8], length: u64) -> Result<Option<Range<u64>>, Invalid> {
    let dash = spec.iter().position(|byte| *byte == b'-').ok_or(Invalid)?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    let range = match (first, last) {
        ([], []) => return Err(Invalid),
        ([], suffix) => length.saturating_sub(position(suffix)?)..length,
        (first, []) => position(first)?..length,
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            if last < first {
                return Err(Invalid);
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Ok((range.start < range.end).then_some(range))
}

/// A position, saturated: what is further than any content is behind the end of all.
fn position(digits: &[u8]) -> Result<u64, Invalid> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Invalid);
    }
    Ok(digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Adds a range to those before it; those that it touches become one with it (RFC 9110 §14.2: a server may coalesce).
fn add(found: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    let mut place = None;
    let mut at = 0;
    while at < found.len() {
        if found[at].start <= range.end && range.start <= found[at].end {
            let other = found.remove(at);
            range = range.start.min(other.start)..range.end.max(other.end);
            place.get_or_insert(at);
            // What has grown may touch one that it did not touch before.
            at = 0;
        } else {
            at += 1;
        }
    }
    let place = place.unwrap_or(found.len()).min(found.len());
    found.insert(place, range);
}

/// Appends `Content-Range` of a part (RFC 9110 §14.4).
pub fn content_range(range: &Range<u64>, length: u64, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"Content-Range: bytes ");
    out.extend_from_slice(number.format(range.start).as_bytes());
    out.push(b'-');
    out.extend_from_slice(number.format(range.end.saturating_sub(1)).as_bytes());
    out.push(b'/');
    out.extend_from_slice(number.format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `Content-Range` of a 416.
pub fn content_range_unsatisfied(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Range: bytes */");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An answer with several parts (RFC 9110 §14.6).
#[derive(Clone, Debug)]
pub struct Multipart {
    /// What stands before each part, with the part.
    pub parts: Vec<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last.
    pub end: Vec<u8>,
    /// The value of `Content-Type`.
    pub content_type: Vec<u8>,
    /// Bytes of all of it.
    pub length: u64,
}

impl Multipart {
    /// Of these ranges of a content. `random` makes the boundary, which must not occur in the content: nobody can know
    /// its 128 bits beforehand.
    pub fn new(ranges: Vec<Range<u64>>, length: u64, content_type: Option<&[u8]>, random: u128) -> Self {
        let boundary = format!("{random:032x}");
        let mut total = 0u64;
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut before = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(content_type) = content_type {
                for part in [&b"Content-Type: "[..], content_type, b"\r\n"] {
                    before.extend_from_slice(part);
                }
            }
            content_range(&range, length, &mut before);
            before.extend_from_slice(b"\r\n");
            total = total.saturating_add(before.len() as u64).saturating_add(range.end - range.start);
            parts.push((before, range));
        }
        let end = format!("\r\n--{boundary}--\r\n").into_bytes();
        let length = total.saturating_add(end.len() as u64);
        Multipart {
            parts,
            end,
            content_type: format!("multipart/byteranges; boundary={boundary}").into_bytes(),
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample::{WALL, get, ok, stored};
    use super::*;

    fn of(value: &str) -> Selection {
        ranges(value.as_bytes(), 10)
    }

    /// RFC 9110 §14.1.2, §14.2.
    #[test]
    fn one_range() {
        use Selection::{One, Unsatisfiable, Whole};
        for (value, expected) in [
            ("bytes=0-0", One(0..1)),
            ("bytes=0-9", One(0..10)),
            ("bytes=0-", One(0..10)),
            ("bytes=5-", One(5..10)),
            ("bytes=5-100", One(5..10)),
            ("bytes=9-9", One(9..10)),
            ("bytes=-3", One(7..10)),
            ("bytes=-10", One(0..10)),
            ("bytes=-99999999999999999999999", One(0..10)),
            ("BYTES=1-2", One(1..3)),
            ("bytes= 1-2 ", One(1..3)),
            ("bytes=,1-2,", One(1..3)),
            ("bytes=1-2, 99-", One(1..3)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-20", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=10-, -0", Unsatisfiable),
            // What is not understood is ignored.
            ("", Whole),
            ("bytes", Whole),
            ("bytes=", Whole),
            ("bytes=,", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1", Whole),
            ("bytes=2-1", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=--1", Whole),
            ("bytes=1 - 2", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=1-2, x", Whole),
            ("bytes =1-2", Whole),
            ("lines=1-2", Whole),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
        assert_eq!(ranges(b"bytes=0-", 0), Unsatisfiable);
        assert_eq!(ranges(b"bytes=-5", 0), Unsatisfiable);
    }

    /// RFC 9110 §14.2: parts that overlap or touch become one; many small ones are an attack.
    #[test]
    fn several_ranges() {
        use Selection::{One, Several, Whole};
        for (value, expected) in [
            ("bytes=0-1,5-6", Several(vec![0..2, 5..7])),
            ("bytes=5-6,0-1", Several(vec![5..7, 0..2])),
            ("bytes=0-1,2-3", One(0..4)),
            ("bytes=0-5,3-7", One(0..8)),
            ("bytes=0-1,5-6,1-5", One(0..7)),
            ("bytes=8-8,0-1,5-6,1-5", Several(vec![8..9, 0..7])),
            ("bytes=0-,0-,0-,0-", One(0..10)),
            ("bytes=-1,0-0", Several(vec![9..10, 0..1])),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!((of(&many(RANGES_MAX)), of(&many(RANGES_MAX + 1))), (One(0..1), Whole));
    }

    /// RFC 9110 §13.1.5, §14.2.
    #[test]
    fn if_range_compares_strongly() {
        let modified = "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT";
        let just_now = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
        let part = Selection::One(0..1);
        for (response, request, expected) in [
            ("", "", part.clone()),
            ("ETag: \"a\"", "If-Range: \"a\"", part.clone()),
            ("ETag: \"a\"", "If-Range: \"b\"", Selection::Whole),
            ("ETag: W/\"a\"", "If-Range: W/\"a\"", Selection::Whole),
            ("ETag: \"a\"", "If-Range: W/\"a\"", Selection::Whole),
            ("", "If-Range: \"a\"", Selection::Whole),
            (modified, "If-Range: Sun, 06 Nov 1994 07:49:37 GMT", part.clone()),
            (modified, "If-Range: Sun, 06 Nov 1994 07:49:38 GMT", Selection::Whole),
            (just_now, "If-Range: Sun, 06 Nov 1994 08:49:37 GMT", Selection::Whole),
            (modified, "If-Range: x", Selection::Whole),
            ("", "Range: bytes=1-1", Selection::Whole),
        ] {
            let kept =
                stored(&ok(&format!("Cache-Control: max-age=9\n{response}"))).unwrap_or_else(|why| panic!("{why:?}"));
            let request = get(&format!("Range: bytes=0-0\n{request}"));
            assert_eq!(select(request.view(), &kept.facts, &kept.head, 10, WALL), expected, "{response}");
        }
    }

    /// RFC 9110 §14.4, §14.6.
    #[test]
    fn parts_say_where_they_belong() {
        let mut line = Vec::new();
        content_range(&(0..5), 10, &mut line);
        content_range_unsatisfied(10, &mut line);
        assert_eq!(line, b"Content-Range: bytes 0-4/10\r\nContent-Range: bytes */10\r\n");
        let multipart = Multipart::new(vec![0..2, 5..6], 10, Some(b"a/b"), 255);
        let boundary = "000000000000000000000000000000ff";
        let content = b"0123456789";
        let mut whole = Vec::new();
        for (before, range) in &multipart.parts {
            whole.extend_from_slice(before);
            whole.extend_from_slice(&content[range.start as usize..range.end as usize]);
        }
        whole.extend_from_slice(&multipart.end);
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes 5-5/10\r\n\r\n5\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&whole), expected);
        assert_eq!(multipart.length, whole.len() as u64);
        assert_eq!(multipart.content_type, format!("multipart/byteranges; boundary={boundary}").into_bytes());
    }

    proptest! {
        /// Whatever is asked for, parts lie within the content, and none touches another.
        #[test]
        fn parts_lie_apart_within_the_content(value in "bytes=[0-9, -]{0,60}", length in 0u64..30) {
            let parts = match ranges(value.as_bytes(), length) {
                Selection::Whole | Selection::Unsatisfiable => Vec::new(),
                Selection::One(range) => vec![range],
                Selection::Several(parts) => {
                    prop_assert!(parts.len() > 1);
                    parts
                }
            };
            let mut sorted = parts.clone();
            sorted.sort_by_key(|part| part.start);
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            prop_assert!(sorted.windows(2).all(|two| two[0].end < two[1].start));
        }
    }
}
