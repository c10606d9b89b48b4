//! Strict head parsing: httparse, and the rules of RFC 9112 that it leaves to its caller.
//!
//! httparse finds the parts of a head quickly but forgives what RFC 9112 lets a recipient forgive, a bare line
//! feed above all. Here every line must end in CRLF, nothing may precede the first line, and each bound is an
//! error of its own, so that the reply can say which one was passed.

use std::mem::MaybeUninit;

use crate::head::{FieldLine, FieldTable, Name, RequestHead, ResponseHead, Span, Version};

/// No field section may have more lines, whatever the limits say.
pub const FIELDS_MAX: usize = 256;

/// No head may have more bytes, whatever the limits say, so that a [`Span`] can always hold its offsets.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, the empty line included.
    pub head_bytes: usize,
    /// Lines of the field section.
    pub fields: usize,
    /// Bytes of the first line without its CRLF.
    pub line_bytes: usize,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The first line is not one of HTTP/1.x: bad method, bad spacing, a line break before it.
    #[error("malformed first line")]
    FirstLine,
    /// The version is well formed and not one that we speak.
    #[error("unsupported protocol version")]
    Version,
    /// A field name that is not a token, white space around it, or a continued line.
    #[error("invalid field name or line folding")]
    FieldName,
    /// A field value with a control character.
    #[error("invalid character in a field value")]
    FieldValue,
    /// A line that ends in anything but CRLF.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// A status code outside 100 to 599.
    #[error("invalid status code")]
    Status,
    /// The first line is longer than its bound.
    #[error("first line over {limit} bytes")]
    LineTooLong {
        /// The bound.
        limit: usize,
    },
    /// The head is longer than its bound.
    #[error("head over {limit} bytes")]
    HeadTooLong {
        /// The bound.
        limit: usize,
    },
    /// The field section has more lines than its bound.
    #[error("more than {limit} fields")]
    TooManyFields {
        /// The bound.
        limit: usize,
    },
}

/// How far a head that arrives in pieces was looked at, so that each byte is parsed only a few times however
/// small the pieces are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    seen: usize,
}

impl Progress {
    /// Whether it is worth parsing: on the first bytes, and once the empty line has come.
    fn due(&mut self, bytes: &[u8]) -> bool {
        let first = self.seen == 0;
        let from = self.seen.saturating_sub(3);
        self.seen = bytes.len();
        first || has_empty_line(&bytes[from..])
    }
}

/// Whether a line feed is followed by a line end. Bare line feeds count, so that they are refused at once.
fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| bytes[at + 1..].starts_with(b"\n") || bytes[at + 1..].starts_with(b"\r\n"))
}

type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; FIELDS_MAX];

/// Parses a request head at the front of `bytes`. `Ok(false)`: more bytes are needed.
///
/// # Errors
/// What RFC 9112 §2 to §5 forbid, and the bounds.
pub fn request(
    bytes: &[u8],
    progress: &mut Progress,
    limits: HeadLimits,
    head: &mut RequestHead,
) -> Result<bool, HeadError> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::FirstLine);
    }
    if !progress.due(bytes) {
        return incomplete(bytes, limits);
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut slots[..limits.fields.min(FIELDS_MAX)]) {
        Ok(httparse::Status::Complete(length)) => head.length = length,
        Ok(httparse::Status::Partial) => return incomplete(bytes, limits),
        Err(error) => return Err(request_error(error, bytes, limits)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::FirstLine);
    };
    head.method = Span::new(0..method.len());
    head.target = span_in(bytes, target.as_bytes(), method.len() + 1);
    head.version = version_of(version);
    let line_end = head.target.range().end + " HTTP/1.1".len();
    let fields_start = end_of_line(bytes, line_end)?;
    if line_end > limits.line_bytes {
        return Err(HeadError::LineTooLong { limit: limits.line_bytes });
    }
    fields(bytes, fields_start, parsed.headers, &mut head.fields, head.length)?;
    if head.length > limits.head_bytes {
        return Err(HeadError::HeadTooLong { limit: limits.head_bytes });
    }
    Ok(true)
}

/// Parses a response head at the front of `bytes`. `Ok(false)`: more bytes are needed.
///
/// # Errors
/// As [`request`]; a status line without the space before an empty reason is accepted, as all clients do.
pub fn response(
    bytes: &[u8],
    progress: &mut Progress,
    limits: HeadLimits,
    head: &mut ResponseHead,
) -> Result<bool, HeadError> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::FirstLine);
    }
    if !progress.due(bytes) {
        return incomplete(bytes, limits);
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let limited = &mut slots[..limits.fields.min(FIELDS_MAX)];
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, limited) {
        Ok(httparse::Status::Complete(length)) => head.length = length,
        Ok(httparse::Status::Partial) => return incomplete(bytes, limits),
        Err(error) => return Err(error_of(error, limits)),
    }
    let (Some(version), Some(status), Some(reason)) = (parsed.version, parsed.code, parsed.reason) else {
        return Err(HeadError::FirstLine);
    };
    if !(100..=599).contains(&status) {
        return Err(HeadError::Status);
    }
    head.version = version_of(version);
    head.status = status;
    // httparse gives an empty reason for one with obs-text, so the span is taken from the line itself.
    let code_end = "HTTP/1.1 200".len();
    let line_end = memchr::memchr(b'\n', bytes).map_or(0, |at| at.saturating_sub(1));
    if line_end < code_end || (line_end > code_end && bytes[code_end] != b' ') {
        return Err(HeadError::LineEnd);
    }
    let fields_start = end_of_line(bytes, line_end)?;
    head.reason = if reason.is_empty() { Span::default() } else { Span::new(code_end + 1..line_end) };
    if line_end > limits.line_bytes {
        return Err(HeadError::LineTooLong { limit: limits.line_bytes });
    }
    fields(bytes, fields_start, parsed.headers, &mut head.fields, head.length)?;
    if head.length > limits.head_bytes {
        return Err(HeadError::HeadTooLong { limit: limits.head_bytes });
    }
    Ok(true)
}

/// Parses a trailer section, its empty line included.
///
/// # Errors
/// As for the field section of a head.
pub fn trailers(bytes: &[u8], limit: usize, table: &mut FieldTable) -> Result<(), HeadError> {
    let limits = HeadLimits { head_bytes: bytes.len(), fields: limit, line_bytes: bytes.len() };
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(bytes, &mut slots[..limit.min(FIELDS_MAX)]) {
        Ok(httparse::Status::Complete((length, headers))) => fields(bytes, 0, headers, table, length),
        Ok(httparse::Status::Partial) => Err(HeadError::LineEnd),
        Err(error) => Err(error_of(error, limits)),
    }
}

/// Whether a head that is not complete may still become one within its bounds.
fn incomplete(bytes: &[u8], limits: HeadLimits) -> Result<bool, HeadError> {
    if bytes.len() > limits.line_bytes && memchr::memchr(b'\n', &bytes[..=limits.line_bytes]).is_none() {
        return Err(HeadError::LineTooLong { limit: limits.line_bytes });
    }
    if bytes.len() >= limits.head_bytes.min(HEAD_BYTES_MAX) {
        return Err(HeadError::HeadTooLong { limit: limits.head_bytes });
    }
    Ok(false)
}

/// Fills the table from what httparse found, checking that each line ends in CRLF and that the lines and the
/// empty line cover `start..length` without a gap.
fn fields(
    bytes: &[u8],
    start: usize,
    parsed: &[httparse::Header<'_>],
    table: &mut FieldTable,
    length: usize,
) -> Result<(), HeadError> {
    table.clear();
    let mut line_start = start;
    for header in parsed {
        let name = header.name.as_bytes();
        let name_span = span_in(bytes, name, line_start);
        let value_span = span_in(bytes, header.value, name_span.range().end + 1);
        let line_end = end_of_line(bytes, skip_blank(bytes, value_span.range().end))?;
        if name_span.range().start != line_start {
            return Err(HeadError::LineEnd);
        }
        let line = Span::new(line_start..line_end);
        table.push(FieldLine { name: Name::of(name), name_span, value_span, line });
        line_start = line_end;
    }
    if end_of_line(bytes, line_start)? == length { Ok(()) } else { Err(HeadError::LineEnd) }
}

/// Where `part`, a slice of `bytes`, stands in them; at `fallback` if it is empty and stands elsewhere.
fn span_in(bytes: &[u8], part: &[u8], fallback: usize) -> Span {
    let offset = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    let start = if offset <= bytes.len() { offset } else { fallback };
    Span::new(start..start + part.len())
}

fn skip_blank(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// The offset behind the CRLF at `at`.
fn end_of_line(bytes: &[u8], at: usize) -> Result<usize, HeadError> {
    if bytes.get(at..at + 2) == Some(b"\r\n") { Ok(at + 2) } else { Err(HeadError::LineEnd) }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

fn request_error(error: httparse::Error, bytes: &[u8], limits: HeadLimits) -> HeadError {
    if error != httparse::Error::Version {
        return error_of(error, limits);
    }
    let line = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
    let mut parts = line.split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            // HTTP/0.9 has no version to speak of.
            if matches!(major, b'1'..=b'9') && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        _ => HeadError::FirstLine,
    }
}

fn error_of(error: httparse::Error, limits: HeadLimits) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::NewLine => HeadError::LineEnd,
        httparse::Error::Status => HeadError::Status,
        httparse::Error::Token => HeadError::FirstLine,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields { limit: limits.fields },
        httparse::Error::Version => HeadError::Version,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use proptest::prelude::*;

    use super::*;
    use crate::head::{Request, Response};

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 1024, fields: 8, line_bytes: 200 };

    fn parse(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        let mut head = RequestHead::default();
        request(bytes, &mut Progress::default(), LIMITS, &mut head).map(|complete| complete.then_some(head))
    }

    fn parse_response(bytes: &[u8]) -> Result<Option<ResponseHead>, HeadError> {
        let mut head = ResponseHead::default();
        response(bytes, &mut Progress::default(), LIMITS, &mut head).map(|complete| complete.then_some(head))
    }

    #[test]
    fn a_request_is_a_table_over_its_bytes() {
        let bytes = b"PUT /a?b HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nVia:\t 1.0 a \t\r\n\r\nrest";
        let head = parse(bytes).unwrap().unwrap();
        let view = Request { bytes, head: &head };
        assert_eq!((view.method(), view.target()), ("PUT", &b"/a?b"[..]));
        assert_eq!(view.field(Name::Via), Some(&b"1.0 a"[..]));
        assert_eq!(head.fields.values_of(bytes, "x-empty").next(), Some(&b""[..]));
        assert_eq!(head.length, bytes.len() - 4);
        assert_eq!(head.fields.lines()[1].line.of(bytes), b"X-Empty:\r\n");
    }

    #[test]
    fn a_request_that_is_not_strictly_valid_is_refused() {
        use HeadError::*;
        let cases: &[(&[u8], HeadError)] = &[
            (b"\r\nGET / HTTP/1.1\r\n\r\n", FirstLine),
            (b"\nGET / HTTP/1.1\r\n\r\n", FirstLine),
            (b" GET / HTTP/1.1\r\n\r\n", FirstLine),
            (b"GET  / HTTP/1.1\r\n\r\n", FirstLine),
            (b"GET /  HTTP/1.1\r\n\r\n", FirstLine),
            (b"GET\t/ HTTP/1.1\r\n\r\n", FirstLine),
            (b"G@T / HTTP/1.1\r\n\r\n", FirstLine),
            (b"GET / HTTP/1.11\r\n\r\n", LineEnd),
            (b"GET / HTTP/1.2\r\n\r\n", Version),
            (b"PRI * HTTP/2.0\r\n\r\n", Version),
            (b"GET / HTTP/0.9\r\n\r\n", FirstLine),
            (b"GET / http/1.1\r\n\r\n", FirstLine),
            (b"GET /\r\n\r\n", FirstLine),
            (b"GET / HTTP/1.1\n\r\n", LineEnd),
            (b"GET / HTTP/1.1 \r\n\r\n", LineEnd),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n", LineEnd),
            (b"GET / HTTP/1.1\r\nA: b\r\n\n", LineEnd),
            (b"GET / HTTP/1.1\r\nA: b\r\rC: d\r\n\r\n", FieldValue),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", FieldValue),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\nA\t: b\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\nA\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", FieldName),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", FieldValue),
            (b"GET / HTTP/1.1\r\nA: \x0bb\r\n\r\n", FieldValue),
        ];
        for (bytes, error) in cases {
            let text = String::from_utf8_lossy(bytes);
            let refused = parse(bytes).expect_err(&text);
            // httparse names some of these differently; what matters is that none passes, and which status.
            assert_eq!(refused == Version, *error == Version, "{text:?} gave {refused:?}");
        }
    }

    #[test]
    fn each_bound_is_an_error_of_its_own() {
        let line = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200));
        assert_eq!(parse(line.as_bytes()), Err(HeadError::LineTooLong { limit: 200 }));
        assert_eq!(parse(&line.as_bytes()[..203]), Err(HeadError::LineTooLong { limit: 200 }));
        assert_eq!(parse(&line.as_bytes()[..200]), Ok(None));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(9));
        assert_eq!(parse(many.as_bytes()), Err(HeadError::TooManyFields { limit: 8 }));
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1024));
        assert_eq!(parse(long.as_bytes()), Err(HeadError::HeadTooLong { limit: 1024 }));
        assert_eq!(parse(&long.as_bytes()[..1024]), Err(HeadError::HeadTooLong { limit: 1024 }));
    }

    #[test]
    fn a_response_may_leave_out_its_reason_and_nothing_else() {
        for (bytes, reason) in [
            (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"[..], &b"OK"[..]),
            (b"HTTP/1.1 200 \r\n\r\n", b""),
            (b"HTTP/1.1 200\r\n\r\n", b""),
            (b"HTTP/1.0 404 Not here\r\n\r\n", b"Not here"),
        ] {
            let head = parse_response(bytes).unwrap().unwrap();
            let _view = Response { bytes, head: &head };
            assert_eq!(head.reason.of(bytes), reason);
        }
        for bytes in [
            &b"HTTP/1.1 200 OK\n\r\n"[..],
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 600 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 O\0K\r\n\r\n",
        ] {
            assert!(parse_response(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn trailers_are_held_to_the_rules_of_fields() {
        let mut table = FieldTable::default();
        assert_eq!(trailers(b"A: b\r\nC: d\r\n\r\n", 8, &mut table), Ok(()));
        assert_eq!(table.lines().len(), 2);
        assert!(trailers(b"A: b\n\r\n", 8, &mut table).is_err());
        assert!(trailers(b"A: b\r\n c\r\n\r\n", 8, &mut table).is_err());
        assert!(trailers(b"A: b\r\nC: d\r\n\r\n", 1, &mut table).is_err());
    }

    proptest! {
        /// Any split of the input parses the same.
        #[test]
        fn a_head_in_pieces_is_the_same_head(cuts in proptest::collection::vec(0usize..90, 0..6), broken in any::<bool>()) {
            let end: &[u8] = if broken { b"A: b\n\r\n" } else { b"A: b\r\n\r\n" };
            let bytes = [&b"POST /path?query HTTP/1.1\r\nHost: example.com\r\nVia: 1.0 a\r\n"[..], end].concat();
            let whole = parse(&bytes);
            let mut progress = Progress::default();
            let mut head = RequestHead::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len() - 1)).filter(|cut| *cut > 0).collect();
            cuts.sort_unstable();
            let mut result = Ok(false);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                result = request(&bytes[..cut], &mut progress, LIMITS, &mut head);
                if result != Ok(false) {
                    break;
                }
            }
            prop_assert_eq!(result.map(|complete| complete.then_some(head)), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse_response(&bytes);
            let _ = trailers(&bytes, 8, &mut FieldTable::default());
        }
    }
}
