//! Conditional requests: those of clients that are answered from the store, and ours to the origin (RFC 9111 §4.3,
//! RFC 9110 §13).

use sluice_wire::Name;
use sluice_wire::head::{NameSet, Request, Response};

use super::stored::Facts;
use super::{UnixSeconds, dates};

/// What the preconditions of a request mean for a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// It is sent.
    Met,
    /// The client has it already: 304.
    NotModified,
}

/// Evaluates `If-None-Match`, or else `If-Modified-Since`, against a stored response (RFC 9110 §13.2.2). `head` is its
/// stored head, `now` the wall's time.
pub fn precondition(request: Request<'_>, facts: &Facts, head: &[u8], now: UnixSeconds) -> Precondition {
    let table = &request.head.fields;
    let not_modified = if table.has(Name::IfNoneMatch) {
        let mut lists = table.values(request.bytes, Name::IfNoneMatch);
        let own = facts.etag_of(head);
        lists.any(|list| names(list, own))
    } else {
        // RFC 9110 §13.1.3: a date that is none is ignored, and so are several.
        let mut dates = table.values(request.bytes, Name::IfModifiedSince);
        let since = dates.next().filter(|_| dates.next().is_none()).and_then(|value| dates::parse(value, now));
        // RFC 9111 §4.3.2: without Last-Modified, Date stands for it.
        since.is_some_and(|since| facts.last_modified.unwrap_or(facts.date) <= since)
    };
    // RFC 9110 §13.2.1: preconditions are about what would be sent with success.
    if not_modified && matches!(facts.status, 200..=299) { Precondition::NotModified } else { Precondition::Met }
}

/// Whether a list of entity tags names `own`, by weak comparison (RFC 9110 §13.1.2).
fn names(list: &[u8], own: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    own.is_some_and(|own| tags(list).any(|tag| opaque(tag) == opaque(own)))
}

/// The members of a list of entity tags. What is between quotes may have commas.
pub fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            match rest {
                [] => return None,
                [b',', more @ ..] => rest = more,
                _ => break,
            }
        }
        let quote = match rest {
            [b'"', ..] => Some(0),
            [b'W' | b'w', b'/', b'"', ..] => Some(2),
            _ => None,
        };
        let end = match quote {
            Some(at) => memchr::memchr(b'"', &rest[at + 1..]).map_or(rest.len(), |length| at + 1 + length + 1),
            // Without quotes it is no entity tag, though some send it so.
            None => memchr::memchr(b',', rest).unwrap_or(rest.len()),
        };
        let (tag, more) = rest.split_at(end);
        rest = more;
        Some(tag.trim_ascii())
    })
}

/// What weak comparison looks at: the tag without its `W/` (RFC 9110 §8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    match tag {
        [b'W' | b'w', b'/', rest @ ..] => rest,
        _ => tag,
    }
}

/// Whether a tag is one of strong validation (RFC 9110 §8.8.1).
pub fn is_strong(tag: &[u8]) -> bool {
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// What of a stored response a 304 does not have (RFC 9110 §15.4.5): fields that say of a content what the client knows
/// already.
const NOT_IN_304: NameSet = NameSet::of(&[
    Name::ContentEncoding,
    Name::ContentLanguage,
    Name::ContentLength,
    Name::ContentRange,
    Name::ContentType,
]);

/// Appends the lines of a stored head that a 304 has, without its status line and its empty line.
pub fn not_modified(stored: Response<'_>, out: &mut Vec<u8>) {
    let has_etag = stored.head.fields.has(Name::ETag);
    for line in stored.head.fields.lines() {
        // Last-Modified is of use where there is no ETag.
        let is_left_out = NOT_IN_304.contains_known(line.name) || (has_etag && line.name == Name::LastModified);
        if !is_left_out {
            out.extend_from_slice(line.line.of(stored.bytes));
        }
    }
}

/// Entity tags that a validation lists at most.
const TAGS_MAX: usize = 16;

/// Appends the lines that ask the origin whether what is stored still holds (RFC 9111 §4.3.1). `stored` are the
/// responses for the key, each with its head, the one that would be given first: the tags of all of them are listed, the
/// date is the first one's. Nothing is appended if there is no validator.
pub fn validation<'s>(stored: impl IntoIterator<Item = (&'s Facts, &'s [u8])>, out: &mut Vec<u8>) {
    let mut stored = stored.into_iter().peekable();
    let modified = stored.peek().and_then(|(facts, _)| facts.last_modified);
    let mut tags: Vec<&[u8]> = Vec::new();
    for tag in stored.filter_map(|(facts, head)| facts.etag_of(head)) {
        if tags.len() < TAGS_MAX && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if !tags.is_empty() {
        put(out, b"If-None-Match", &tags.join(&b", "[..]));
    }
    if let Some(modified) = modified {
        put(out, b"If-Modified-Since", dates::format(modified).as_bytes());
    }
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Which of the stored responses a 304 confirms (RFC 9111 §4.3.4): those with its strong `ETag`, or else the most recent
/// with its weak one or its `Last-Modified`, or, if it has no validator, the only one. `stored` as for [`validation`].
pub fn confirmed<'s>(
    response: Response<'_>,
    stored: impl IntoIterator<Item = (&'s Facts, &'s [u8])>,
    now: UnixSeconds,
) -> Vec<usize> {
    let stored: Vec<_> = stored.into_iter().collect();
    let newest = |matches: &dyn Fn(&Facts, &[u8]) -> bool| -> Vec<usize> {
        let all = stored.iter().enumerate().filter(|(_, (facts, head))| matches(facts, head));
        all.max_by_key(|(_, (facts, _))| (facts.date, facts.received)).map(|(index, _)| index).into_iter().collect()
    };
    if let Some(tag) = response.field(Name::ETag) {
        if is_strong(tag) {
            let same = |(facts, head): &(&Facts, &[u8])| facts.etag_of(head) == Some(tag);
            return stored.iter().enumerate().filter(|(_, one)| same(one)).map(|(index, _)| index).collect();
        }
        return newest(&|facts, head| facts.etag_of(head).is_some_and(|own| opaque(own) == opaque(tag)));
    }
    if let Some(modified) = response.field(Name::LastModified).and_then(|value| dates::parse(value, now)) {
        return newest(&|facts, _| facts.last_modified == Some(modified));
    }
    if let [_] = stored[..] { vec![0] } else { Vec::new() }
}

/// What the response to a HEAD means for what is stored for GET (RFC 9111 §4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterHead {
    /// It is about the same content, so it freshens what is stored.
    Freshen,
    /// It is about another content, so what is stored is stale.
    Expire,
    /// It says nothing of what is stored.
    Nothing,
}

/// Compares the response to a HEAD with what is stored: validators and length.
pub fn after_head(response: Response<'_>, facts: &Facts, head: &[u8], length: u64, now: UnixSeconds) -> AfterHead {
    if response.head.status != facts.status {
        return if response.head.status < 500 { AfterHead::Expire } else { AfterHead::Nothing };
    }
    let same_tag = response.field(Name::ETag).is_none_or(|tag| facts.etag_of(head) == Some(tag));
    let modified = response.field(Name::LastModified).and_then(|value| dates::parse(value, now));
    let same_date = modified.is_none_or(|modified| facts.last_modified == Some(modified));
    let own_length = response.field(Name::ContentLength).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    let same_length = own_length.is_none_or(|own: u64| own == length);
    if same_tag && same_date && same_length { AfterHead::Freshen } else { AfterHead::Expire }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{DATE, WALL, get, ok, received, stored};
    use super::super::storable::Storable;
    use super::*;

    fn kept(fields: &str) -> Storable {
        stored(&ok(&format!("Cache-Control: max-age=9\n{fields}"))).unwrap_or_else(|why| panic!("{why:?}"))
    }

    fn is_not_modified(response: &str, request: &str) -> bool {
        let kept = kept(response);
        precondition(get(request).view(), &kept.facts, &kept.head, WALL) == Precondition::NotModified
    }

    /// RFC 9110 §13.1.2: weak comparison, lists, and what some send that is not quite an entity tag.
    #[test]
    fn if_none_match_compares_weakly() {
        for (etag, asked, expected) in [
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "\"b\"", false),
            ("\"a\"", "W/\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("W/\"a\"", "W/\"a\"", true),
            ("w/\"a\"", "W/\"a\"", true),
            ("\"a\"", "\"A\"", false),
            ("\"a\"", "*", true),
            ("\"a\"", "\"x\", \"a\"", true),
            ("\"a\"", "\"a\",\"x\"", true),
            ("\"a\"", ", \"x\" ,, \"a\" ,", true),
            ("\"a\"", "\"x\"\nIf-None-Match: \"a\"", true),
            ("\"a, b\"", "\"x\", \"a, b\"", true),
            ("\"a, b\"", "\"a\", \"b\"", false),
            ("\"a\u{e9}\"", "\"a\u{e9}\"", true),
            // Not entity tags, but sent.
            ("a", "a", true),
            ("a", "x, a", true),
            ("\"a\"", "a", false),
            ("\"a\"", "\"a", false),
        ] {
            assert_eq!(
                is_not_modified(&format!("ETag: {etag}"), &format!("If-None-Match: {asked}")),
                expected,
                "{etag} {asked}"
            );
        }
        assert!(!is_not_modified("", "If-None-Match: \"a\"") && is_not_modified("", "If-None-Match: *"));
    }

    /// RFC 9110 §13.1.3, §13.2.2; RFC 9111 §4.3.2.
    #[test]
    fn if_modified_since_counts_without_if_none_match() {
        let modified = "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT";
        for (response, request, expected) in [
            (modified, "If-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT", true),
            (modified, "If-Modified-Since: Sun, 06 Nov 1994 07:49:38 GMT", true),
            (modified, "If-Modified-Since: Sun, 06 Nov 1994 07:49:36 GMT", false),
            (modified, "If-Modified-Since: Sunday, 06-Nov-94 07:49:37 GMT", true),
            (modified, "If-Modified-Since: Sun Nov  6 07:49:37 1994", true),
            (modified, "If-Modified-Since: tomorrow", false),
            (
                modified,
                "If-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT\nIf-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT",
                false,
            ),
            // Date stands for Last-Modified.
            ("", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", false),
            // The tag is the more exact one.
            (modified, "If-None-Match: \"x\"\nIf-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT", false),
            (modified, "", false),
        ] {
            assert_eq!(is_not_modified(response, request), expected, "{response} {request}");
        }
    }

    /// RFC 9110 §13.2.1: a stored error is sent as it is.
    #[test]
    fn preconditions_are_about_success() {
        let gone = received(404, &format!("Date: {DATE}\nCache-Control: max-age=9\nETag: \"a\""));
        let gone = stored(&gone).unwrap_or_else(|why| panic!("{why:?}"));
        let found = precondition(get("If-None-Match: \"a\"").view(), &gone.facts, &gone.head, WALL);
        assert_eq!(found, Precondition::Met);
    }

    /// RFC 9110 §15.4.5.
    #[test]
    fn a_304_leaves_out_what_the_client_knows() {
        let lines = |fields: &str| {
            let kept = kept(fields);
            let parsed = super::super::stored::parse(&kept.head).unwrap_or_default();
            let mut out = Vec::new();
            not_modified(Response { bytes: &kept.head, head: &parsed }, &mut out);
            String::from_utf8_lossy(&out).replace("\r\n", "\n")
        };
        let fields = "ETag: \"a\"\nLast-Modified: x\nContent-Type: a/b\nContent-Encoding: gzip\nContent-Language: en\n\
                      Content-Location: /x\nVary: A\nExpires: x\nX-A: 1";
        let expected = format!(
            "Date: {DATE}\nCache-Control: max-age=9\nETag: \"a\"\nContent-Location: /x\nVary: A\nExpires: x\nX-A: 1\n"
        );
        assert_eq!(lines(fields), expected);
        assert!(lines("Last-Modified: x").contains("Last-Modified: x"));
    }

    /// RFC 9111 §4.3.1.
    #[test]
    fn the_origin_is_asked_with_all_validators() {
        let asked = |all: &[&str]| {
            let all: Vec<Storable> = all.iter().map(|fields| kept(fields)).collect();
            let mut out = Vec::new();
            validation(all.iter().map(|one| (&one.facts, &*one.head)), &mut out);
            String::from_utf8_lossy(&out).replace("\r\n", "\n")
        };
        let modified = "Last-Modified: Sun Nov  6 07:49:37 1994";
        let since = "If-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT\n";
        assert_eq!(asked(&[""]), "");
        assert_eq!(asked(&[modified]), since);
        assert_eq!(asked(&["ETag: \"a\""]), "If-None-Match: \"a\"\n");
        let several = ["ETag: W/\"a\"\nLast-Modified: Sun Nov  6 07:49:37 1994", "ETag: b", "", "ETag: W/\"a\""];
        assert_eq!(asked(&several), format!("If-None-Match: W/\"a\", b\n{since}"));
        assert_eq!(asked(&["ETag: \"a\"", modified]), "If-None-Match: \"a\"\n");
        let many: Vec<String> = (0..20).map(|number| format!("ETag: \"{number}\"")).collect();
        assert_eq!(asked(&many.iter().map(String::as_str).collect::<Vec<_>>()).matches('"').count(), 2 * TAGS_MAX);
    }

    /// RFC 9111 §4.3.4.
    #[test]
    fn a_304_confirms_what_has_its_validator() {
        let modified = "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT";
        let chosen = |response: &str, all: &[&str]| {
            let all: Vec<Storable> = all.iter().map(|fields| kept(fields)).collect();
            confirmed(received(304, response).view(), all.iter().map(|one| (&one.facts, &*one.head)), WALL)
        };
        let all = ["ETag: \"a\"", "ETag: \"b\"", "ETag: \"a\"", "ETag: W/\"c\"", modified, ""];
        for (response, expected) in [
            ("ETag: \"a\"", &[0, 2][..]),
            ("ETag: \"b\"", &[1]),
            ("ETag: \"x\"", &[]),
            ("ETag: \"c\"", &[]),
            ("ETag: W/\"c\"", &[3]),
            ("ETag: W/\"b\"", &[1]),
            (modified, &[4]),
            ("Last-Modified: Sun, 06 Nov 1994 06:49:37 GMT", &[]),
            ("", &[]),
        ] {
            assert_eq!(chosen(response, &all), expected, "{response}");
        }
        assert_eq!(chosen("", &["ETag: \"a\""]), [0]);
        assert_eq!(chosen("ETag: \"x\"", &["ETag: \"a\""]), [0; 0]);
    }

    /// RFC 9111 §4.3.5.
    #[test]
    fn a_head_freshens_what_it_agrees_with() {
        let kept = kept("ETag: \"a\"\nLast-Modified: Sun, 06 Nov 1994 07:49:37 GMT");
        for (status, fields, expected) in [
            (200, "", AfterHead::Freshen),
            (200, "ETag: \"a\"\nContent-Length: 5", AfterHead::Freshen),
            (200, "ETag: \"b\"", AfterHead::Expire),
            (200, "ETag: W/\"a\"", AfterHead::Expire),
            (200, "Content-Length: 6", AfterHead::Expire),
            (200, "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT", AfterHead::Freshen),
            (200, "Last-Modified: Sun, 06 Nov 1994 07:49:38 GMT", AfterHead::Expire),
            (410, "", AfterHead::Expire),
            (503, "", AfterHead::Nothing),
        ] {
            let found = after_head(received(status, fields).view(), &kept.facts, &kept.head, 5, WALL);
            assert_eq!(found, expected, "{status} {fields}");
        }
    }
}
