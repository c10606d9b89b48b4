//! Where a message ends (RFC 9112 §6), and chunked content taken apart and put together (§7.1).
//!
//! Chunk framing is never copied from one side to the other: it is decoded to content and made anew, so nothing
//! that one side wrote between the chunks can mean something to the other.

use std::ops::Range;

use crate::fields;
use crate::head::{FieldTable, Name, NameSet, RequestHead, ResponseHead, Version};

use super::parse::{self, HeadError};

/// How the end of a message's content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no content.
    Empty,
    /// So many bytes, more than none.
    Length(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// Why the end of a message cannot be known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// RFC 9112 §6.3: both Content-Length and Transfer-Encoding is how smuggling starts.
    #[error("both Content-Length and Transfer-Encoding")]
    Both,
    /// Not one field with one plain number that fits in 63 bits.
    #[error("invalid Content-Length")]
    Length,
    /// Not a list of codings that ends in `chunked`, or more than one field.
    #[error("invalid Transfer-Encoding")]
    Coding,
    /// A well-formed coding beside `chunked`, which we do not undo.
    #[error("unsupported transfer coding")]
    Unsupported,
    /// RFC 9112 §6.1: a sender of HTTP/1.0 knows no transfer codings.
    #[error("Transfer-Encoding in HTTP/1.0")]
    Version,
}

const FRAMING: NameSet = NameSet::of(&[Name::ContentLength, Name::TransferEncoding]);

/// How the content of a request is framed (RFC 9112 §6.3).
///
/// # Errors
/// Whatever is ambiguous: the connection cannot be used further.
pub fn request_framing(bytes: &[u8], head: &RequestHead) -> Result<Framing, FramingError> {
    declared(bytes, head.version, &head.fields).map(|declared| declared.unwrap_or(Framing::Empty))
}

/// How the content of a response is framed, which depends on what was asked (RFC 9112 §6.3).
///
/// # Errors
/// Whatever is ambiguous: the response cannot be used.
pub fn response_framing(bytes: &[u8], head: &ResponseHead, request_is_head: bool) -> Result<Framing, FramingError> {
    let declared = declared(bytes, head.version, &head.fields)?;
    if request_is_head || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Empty);
    }
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// What the fields say, whether or not they apply.
fn declared(bytes: &[u8], version: Version, table: &FieldTable) -> Result<Option<Framing>, FramingError> {
    if !table.present().intersects(FRAMING) {
        return Ok(None);
    }
    if !table.has(Name::TransferEncoding) {
        return content_length(bytes, table).map(Some);
    }
    if version == Version::Http10 {
        return Err(FramingError::Version);
    }
    if table.has(Name::ContentLength) {
        return Err(FramingError::Both);
    }
    let mut values = table.values(bytes, Name::TransferEncoding);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(FramingError::Coding);
    };
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Some(Framing::Chunked));
    }
    let mut known = true;
    let mut last_is_chunked = false;
    for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if last_is_chunked || !fields::is_token(coding) {
            return Err(FramingError::Coding);
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        known &= last_is_chunked
            || ["gzip", "x-gzip", "deflate", "compress", "x-compress"]
                .iter()
                .any(|name| coding.eq_ignore_ascii_case(name.as_bytes()));
    }
    Err(if last_is_chunked && known { FramingError::Unsupported } else { FramingError::Coding })
}

/// RFC 9110 §8.6: digits only. Several equal values would be allowed; they are refused, since nobody sends them
/// in good faith.
fn content_length(bytes: &[u8], table: &FieldTable) -> Result<Framing, FramingError> {
    let mut values = table.values(bytes, Name::ContentLength);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(FramingError::Length);
    };
    match number(value) {
        Some(0) => Ok(Framing::Empty),
        Some(length) => Ok(Framing::Length(length)),
        None => Err(FramingError::Length),
    }
}

/// A number of one to nineteen digits that fits in 63 bits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (number <= i64::MAX as u64).then_some(number)
}

/// What is wrong with chunked content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not one to sixteen hexadecimal digits.
    #[error("invalid chunk size")]
    Size,
    /// A control character in an extension, or text that is not one.
    #[error("invalid chunk extension")]
    Extension,
    /// A line or chunk that does not end in CRLF.
    #[error("a chunk does not end in CRLF")]
    LineEnd,
    /// Extensions and trailers of the message together pass their bound.
    #[error("chunk extensions and trailers over {limit} bytes")]
    Overhead {
        /// The bound.
        limit: usize,
    },
    /// A trailer section that is not a valid field section.
    #[error("invalid trailer: {0}")]
    Trailer(HeadError),
}

/// Bytes of chunk extensions and trailers that a message may have in all.
pub const OVERHEAD_BYTES_MAX: usize = 4096;

/// What [`ChunkedDecoder::decode`] made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where the content now stands.
    pub content: Range<usize>,
    /// How many bytes were used up. All of them, unless the message ended.
    pub consumed: usize,
    /// Whether the message ended.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Among the digits of a size; so many were read.
    Size(u8),
    /// White space behind the size, which only an extension may follow.
    Blank,
    Extension,
    /// Behind the CR of a size line.
    SizeEnd,
    Data,
    /// Behind the data of a chunk.
    DataCr,
    DataLf,
    /// In the trailer section, at the start of a line or within one.
    TrailerStart,
    TrailerLine,
    /// Behind the CR of a trailer line.
    TrailerEnd,
    /// Behind the CR of the empty line.
    LastEnd,
    Ended,
}

/// Takes chunked content apart, a buffer at a time.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The size so far, then what is left of the chunk.
    left: u64,
    overhead: usize,
    trailers: Vec<u8>,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder { state: State::Size(0), left: 0, overhead: 0, trailers: Vec::new() }
    }
}

impl ChunkedDecoder {
    /// Decodes `bytes`, moving the content of all chunks in them together.
    ///
    /// # Errors
    /// Anything that is not strictly RFC 9112 §7.1; nothing behind it can be trusted.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, ChunkError> {
        let mut content = 0..0;
        let mut at = 0;
        while at < bytes.len() && self.state != State::Ended {
            if self.state == State::Data {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                if content.is_empty() {
                    content = at..at + length;
                } else {
                    bytes.copy_within(at..at + length, content.end);
                    content.end += length;
                }
                at += length;
                self.left -= length as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(Decoded { content, consumed: at, ended: self.state == State::Ended })
    }

    /// Bytes that the current chunk still announces.
    pub fn announced(&self) -> u64 {
        match self.state {
            State::SizeEnd | State::Data => self.left,
            _ => 0,
        }
    }

    /// Whether the last chunk and the trailer section were read.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The trailer section with its empty line, valid as a field section; empty if there was none.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == 16 || self.left >> 59 != 0 {
                    return Err(ChunkError::Size);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(0), _) => return Err(ChunkError::Size),
            (State::Size(_) | State::Blank, b';') => self.extension()?,
            (State::Size(_) | State::Blank, b' ' | b'\t') => {
                self.spend()?;
                State::Blank
            }
            (State::Size(_) | State::Extension, b'\r') => State::SizeEnd,
            (State::Size(_), _) => return Err(ChunkError::Size),
            (State::Blank, _) => return Err(ChunkError::Extension),
            (State::Extension, b'\t' | b' '..=b'~') => self.extension()?,
            (State::Extension, _) => return Err(ChunkError::Extension),
            (State::SizeEnd, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::TrailerLine, b'\r') => {
                self.trailer(byte)?;
                State::TrailerEnd
            }
            (State::TrailerStart | State::TrailerLine, b'\n') => return Err(ChunkError::LineEnd),
            (State::TrailerStart | State::TrailerLine, _) => {
                self.trailer(byte)?;
                State::TrailerLine
            }
            (State::TrailerEnd, b'\n') => {
                self.trailer(byte)?;
                State::TrailerStart
            }
            (State::LastEnd, b'\n') => self.finish()?,
            (State::SizeEnd | State::DataCr | State::DataLf | State::TrailerEnd | State::LastEnd, _) => {
                return Err(ChunkError::LineEnd);
            }
            (State::Data | State::Ended, _) => unreachable!("decode handles these itself"),
        })
    }

    fn extension(&mut self) -> Result<State, ChunkError> {
        self.spend()?;
        Ok(State::Extension)
    }

    fn trailer(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.spend()?;
        self.trailers.push(byte);
        Ok(())
    }

    fn spend(&mut self) -> Result<(), ChunkError> {
        self.overhead += 1;
        if self.overhead > OVERHEAD_BYTES_MAX {
            return Err(ChunkError::Overhead { limit: OVERHEAD_BYTES_MAX });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<State, ChunkError> {
        if !self.trailers.is_empty() {
            self.trailers.extend_from_slice(b"\r\n");
            let mut table = FieldTable::default();
            parse::trailers(&self.trailers, parse::FIELDS_MAX, &mut table).map_err(ChunkError::Trailer)?;
        }
        Ok(State::Ended)
    }
}

/// Most bytes that [`chunk_head`] writes.
pub const CHUNK_HEAD_BYTES: usize = 18;

/// What follows the content of each chunk.
pub const CHUNK_TAIL: &[u8] = b"\r\n";

/// The end of chunked content without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the size line of a chunk so that it ends where `space` ends, and returns its length. The content is
/// then put in front of nothing: it already stands behind `space`.
pub fn chunk_head(size: usize, space: &mut [u8; CHUNK_HEAD_BYTES]) -> usize {
    space[CHUNK_HEAD_BYTES - 2..].copy_from_slice(b"\r\n");
    let mut at = CHUNK_HEAD_BYTES - 2;
    let mut left = size;
    loop {
        at -= 1;
        space[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            return CHUNK_HEAD_BYTES - at;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use proptest::prelude::*;

    use super::*;
    use crate::h1::parse::{HeadLimits, Progress};

    fn framing(fields: &str) -> Result<Framing, FramingError> {
        framing_of(&format!("POST / HTTP/1.1\r\n{fields}\r\n"))
    }

    fn framing_of(text: &str) -> Result<Framing, FramingError> {
        let limits = HeadLimits { head_bytes: 4096, fields: 20, line_bytes: 4096 };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(text.as_bytes(), &mut Progress::default(), limits, &mut head), Ok(true));
        request_framing(text.as_bytes(), &head)
    }

    fn response(text: &str, request_is_head: bool) -> Result<Framing, FramingError> {
        let limits = HeadLimits { head_bytes: 4096, fields: 20, line_bytes: 4096 };
        let mut head = ResponseHead::default();
        assert_eq!(parse::response(text.as_bytes(), &mut Progress::default(), limits, &mut head), Ok(true));
        response_framing(text.as_bytes(), &head, request_is_head)
    }

    /// RFC 9112 §6.3, and stricter where it leaves a choice.
    #[test]
    fn a_request_whose_end_is_ambiguous_is_refused() {
        use FramingError::*;
        let cases: &[(&str, Result<Framing, FramingError>)] = &[
            ("", Ok(Framing::Empty)),
            ("Content-Length: 0\r\n", Ok(Framing::Empty)),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 0005\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 9223372036854775807\r\n", Ok(Framing::Length(i64::MAX as u64))),
            ("Content-Length: 9223372036854775808\r\n", Err(Length)),
            ("Content-Length: 18446744073709551621\r\n", Err(Length)),
            ("Content-Length: 00000000000000000005\r\n", Err(Length)),
            ("Content-Length: +5\r\n", Err(Length)),
            ("Content-Length: -5\r\n", Err(Length)),
            ("Content-Length: 0x5\r\n", Err(Length)),
            ("Content-Length: 5_0\r\n", Err(Length)),
            ("Content-Length: 5 0\r\n", Err(Length)),
            ("Content-Length: 5, 5\r\n", Err(Length)),
            ("Content-Length:\r\n", Err(Length)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Length)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Length)),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: CHUNKED\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(Both)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(Coding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Unsupported)),
            ("Transfer-Encoding: foo, chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: gzip\r\n", Err(Coding)),
            ("Transfer-Encoding: identity\r\n", Err(Coding)),
            ("Transfer-Encoding: xchunked\r\n", Err(Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Err(Coding)),
            ("Transfer-Encoding:\r\n", Err(Coding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: chunked,\r\n", Err(Coding)),
        ];
        for (fields, expected) in cases {
            assert_eq!(framing(fields), *expected, "{fields}");
        }
        assert_eq!(framing_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Version));
    }

    #[test]
    fn the_content_of_a_response_depends_on_the_request_and_the_status() {
        assert_eq!(response("HTTP/1.1 200 OK\r\n\r\n", false), Ok(Framing::UntilClose));
        assert_eq!(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false), Ok(Framing::Length(5)));
        assert_eq!(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Ok(Framing::Empty));
        assert_eq!(response("HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n", false), Ok(Framing::Empty));
        assert_eq!(response("HTTP/1.1 204 OK\r\n\r\n", false), Ok(Framing::Empty));
        assert_eq!(
            response("HTTP/1.1 304 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", false),
            Err(FramingError::Length)
        );
    }

    fn decode_all(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, Vec<u8>, bool), ChunkError> {
        let mut decoder = ChunkedDecoder::default();
        let (mut content, mut consumed) = (Vec::new(), 0);
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            let decoded = decoder.decode(&mut part)?;
            content.extend_from_slice(&part[decoded.content]);
            consumed += decoded.consumed;
            if decoded.ended {
                break;
            }
        }
        Ok((content, consumed, decoder.trailers().to_vec(), decoder.has_ended()))
    }

    #[test]
    fn chunks_in_any_pieces_give_the_same_content() {
        let bytes = b"5\r\nhello\r\n1;ext=\"a b\"\r\n \r\n0006 ;x\r\nworld!\r\n0\r\nA: b\r\nC: d\r\n\r\nGET /";
        for piece in 1..bytes.len() {
            let (content, consumed, trailers, ended) = decode_all(bytes, piece).unwrap();
            assert_eq!(content, b"hello world!");
            assert_eq!(&bytes[consumed..], b"GET /");
            assert_eq!(trailers, b"A: b\r\nC: d\r\n\r\n");
            assert!(ended);
        }
    }

    #[test]
    fn chunks_that_are_not_strictly_valid_are_refused() {
        let long = format!("1;{}\r\n", "x".repeat(OVERHEAD_BYTES_MAX));
        for bytes in [
            "\r\n",
            "x\r\n",
            "0x5\r\n",
            "+5\r\n",
            " 5\r\n",
            "5\n",
            "5\r\r\n",
            "5 \r\n",
            "5 x\r\n",
            "-1\r\n",
            ";\r\n",
            "10000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "00000000000000005\r\n",
            "5;a\rb\r\n",
            "5;a\nb\r\n",
            "5;a\0\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\r\r",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n b: c\r\n\r\n",
            "0\r\nA: b\r\n\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
            &long,
        ] {
            for piece in [1, bytes.len()] {
                assert!(decode_all(bytes.as_bytes(), piece).is_err(), "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_chunk_head_ends_where_its_content_starts() {
        for size in [1usize, 15, 16, 4095, usize::MAX] {
            let mut space = [0; CHUNK_HEAD_BYTES];
            let length = chunk_head(size, &mut space);
            assert_eq!(&space[CHUNK_HEAD_BYTES - length..], format!("{size:x}\r\n").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_is_chunked_decodes_to_itself(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            piece in 1usize..60,
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                let mut space = [0; CHUNK_HEAD_BYTES];
                let length = chunk_head(chunk.len(), &mut space);
                bytes.extend_from_slice(&space[CHUNK_HEAD_BYTES - length..]);
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(CHUNK_TAIL);
            }
            bytes.extend_from_slice(LAST_CHUNK);
            let (content, consumed, _, ended) = decode_all(&bytes, piece).unwrap();
            prop_assert_eq!(content, chunks.concat());
            prop_assert_eq!(consumed, bytes.len());
            prop_assert!(ended);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = decode_all(&bytes, piece);
        }
    }
}
