//! Writing heads: the received lines with edits laid over them.
//!
//! Lines that stay are copied as they were received, neighbours in one piece; only what changes is formatted.
//! Both were parsed strictly, so what leaves is strictly valid as well.

use crate::fields::{self, ConnectionOptions, Trailers};
use crate::head::{FieldTable, Name, NameSet, Request, Response};
use crate::writer::Writer;

use super::parse::FIELDS_MAX;

/// Changes to a field section. Reused from message to message, so that it allocates nothing once warm.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    names: NameSet,
    lines: [u64; FIELDS_MAX / 64],
    added: Vec<u8>,
}

impl Edits {
    /// Forgets all edits, keeps the memory.
    pub fn clear(&mut self) {
        self.names = NameSet::default();
        self.lines = [0; FIELDS_MAX / 64];
        self.added.clear();
    }

    /// Removes every line with one of these names.
    pub fn remove(&mut self, names: NameSet) {
        self.names = self.names.union(names);
    }

    /// Removes the line of this position.
    pub fn remove_line(&mut self, line: usize) {
        self.lines[line / 64] |= 1 << (line % 64);
    }

    /// Removes the fields that `Connection` names. What frames and addresses the message is not its to name: it is
    /// checked and made by us.
    pub fn remove_named(&mut self, options: ConnectionOptions, bytes: &[u8], table: &FieldTable) {
        if !options.names_fields {
            return;
        }
        for (position, line) in table.lines().iter().enumerate() {
            if line.name != Name::ContentLength && fields::is_named(bytes, table, line.name_span.of(bytes)) {
                self.remove_line(position);
            }
        }
    }

    /// Adds a line behind the received ones. `value` in parts, one after the other.
    ///
    /// Both name and value must be valid; they come from the configuration or were parsed.
    pub fn add(&mut self, name: &str, value: &[&[u8]]) {
        debug_assert!(fields::is_token(name.as_bytes()));
        self.added.extend_from_slice(name.as_bytes());
        self.added.extend_from_slice(b": ");
        for part in value {
            debug_assert!(fields::is_value(part));
            self.added.extend_from_slice(part);
        }
        self.added.extend_from_slice(b"\r\n");
    }

    /// Adds lines that were made before, or parts of them that come out as whole lines with their CRLF.
    pub fn add_lines(&mut self, lines: &[u8]) {
        self.added.extend_from_slice(lines);
    }

    /// Where lines are added by those who make them piece by piece.
    pub fn added_mut(&mut self) -> &mut Vec<u8> {
        &mut self.added
    }

    /// Every added line.
    pub fn added(&self) -> &[u8] {
        &self.added
    }

    /// Whether the line of this position stays.
    pub fn keeps(&self, position: usize, table: &FieldTable) -> bool {
        !self.names.contains(table.lines()[position].name) && self.lines[position / 64] & (1 << (position % 64)) == 0
    }

    /// Writes the field section without its empty line.
    fn write(&self, out: &mut Writer<'_>, bytes: &[u8], table: &FieldTable) {
        let lines = table.lines();
        let mut position = 0;
        while position < lines.len() {
            let first = position;
            while position < lines.len() && self.keeps(position, table) {
                position += 1;
            }
            if position > first {
                out.put(&bytes[lines[first].line.range().start..lines[position - 1].line.range().end]);
            }
            position += 1;
        }
        out.put(&self.added);
    }
}

/// Writes a request head: always HTTP/1.1 and with `Host` as its first field (RFC 9110 §7.2).
///
/// The caller has put `Host` among the removed names, and whatever frames the content among the edits.
pub fn request(out: &mut Writer<'_>, request: Request<'_>, target: &str, host: &str, edits: &Edits) {
    out.put(request.method().as_bytes());
    out.put(b" ");
    out.put(target.as_bytes());
    out.put(b" HTTP/1.1\r\nHost: ");
    out.put(host.as_bytes());
    out.put(b"\r\n");
    edits.write(out, request.bytes, &request.head.fields);
    out.put(b"\r\n");
}

/// Writes a response head: always HTTP/1.1 (RFC 9110 §2.5: the version is the sender's own), with the reason
/// phrase that was received.
pub fn response(out: &mut Writer<'_>, response: Response<'_>, edits: &Edits) {
    status_line(out, response.head.status, response.head.reason.of(response.bytes));
    edits.write(out, response.bytes, &response.head.fields);
    out.put(b"\r\n");
}

/// Writes a status line. RFC 9112 §4: the space behind the code stays even if the reason is empty.
pub fn status_line(out: &mut Writer<'_>, status: u16, reason: &[u8]) {
    debug_assert!((100..=999).contains(&status));
    let digits = [b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    out.put(b"HTTP/1.1 ");
    out.put(&digits);
    out.put(b" ");
    out.put(reason);
    out.put(b"\r\n");
}

/// Appends the lines of a trailer section that may pass.
pub fn trailers(out: &mut Vec<u8>, bytes: &[u8], table: &FieldTable, allowed: Trailers<'_>) {
    for line in table.lines() {
        if allowed.allow(line.name_span.of(bytes)) {
            out.extend_from_slice(line.line.of(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use proptest::prelude::*;

    use super::*;
    use crate::h1::parse::{self, HeadLimits, Progress};
    use crate::head::{Name, RequestHead, ResponseHead};

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, fields: 100, line_bytes: 1024 };

    fn parsed(bytes: &[u8]) -> RequestHead {
        let mut head = RequestHead::default();
        assert_eq!(parse::request(bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true));
        head
    }

    fn written(bytes: &[u8], edits: &Edits) -> Vec<u8> {
        let head = parsed(bytes);
        let mut space = vec![0; 4096];
        let mut writer = Writer::new(&mut space);
        request(&mut writer, Request { bytes, head: &head }, "/new", "example.com", edits);
        let length = writer.finish().unwrap();
        space.truncate(length);
        space
    }

    #[test]
    fn edits_are_laid_over_the_received_lines() {
        let bytes = b"GET /old HTTP/1.0\r\nA: 1\r\nHost: old\r\nB:2 \r\nConnection: c\r\nC: 3\r\nD: 4\r\n\r\n";
        let mut edits = Edits::default();
        edits.remove(NameSet::of(&[Name::Host, Name::Connection]));
        edits.remove_line(4);
        edits.add("Via", &[b"1.1 ", b"sluice"]);
        let expected = b"GET /new HTTP/1.1\r\nHost: example.com\r\nA: 1\r\nB:2 \r\nD: 4\r\nVia: 1.1 sluice\r\n\r\n";
        assert_eq!(written(bytes, &edits), expected);
        edits.clear();
        edits.remove(NameSet::of(&[Name::Host]));
        assert!(written(bytes, &edits).ends_with(b"C: 3\r\nD: 4\r\n\r\n"));
    }

    #[test]
    fn a_response_keeps_its_reason() {
        let bytes = b"HTTP/1.0 299 Fine enough\r\nA: 1\r\n\r\n";
        let mut head = ResponseHead::default();
        assert_eq!(parse::response(bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true));
        let mut space = [0; 100];
        let mut writer = Writer::new(&mut space);
        response(&mut writer, Response { bytes, head: &head }, &Edits::default());
        let length = writer.finish().unwrap();
        assert_eq!(&space[..length], b"HTTP/1.1 299 Fine enough\r\nA: 1\r\n\r\n");
    }

    #[test]
    fn only_allowed_trailers_pass() {
        let bytes = b"Content-Length: 5\r\nGrpc-Status: 0\r\nX: y\r\n\r\n";
        let mut table = FieldTable::default();
        parse::trailers(bytes, 8, &mut table).unwrap();
        let mut out = Vec::new();
        trailers(&mut out, bytes, &table, Trailers::Named(&["grpc-status".to_owned()]));
        assert_eq!(out, b"Grpc-Status: 0\r\n");
        out.clear();
        trailers(&mut out, bytes, &table, Trailers::Metadata);
        assert_eq!(out, b"Grpc-Status: 0\r\nX: y\r\n");
    }

    proptest! {
        /// Parse, encode, parse is the identity on what is not edited.
        #[test]
        fn a_head_survives_being_written(
            fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,30}"), 0..20),
        ) {
            let mut bytes = b"GET /new HTTP/1.1\r\nHost: example.com\r\n".to_vec();
            for (name, value) in &fields {
                bytes.extend_from_slice(format!("x{name}: {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            let mut edits = Edits::default();
            edits.remove(NameSet::of(&[Name::Host]));
            let again = written(&bytes, &edits);
            prop_assert_eq!(&again, &bytes);
            prop_assert_eq!(parsed(&again), parsed(&bytes));
        }
    }
}
