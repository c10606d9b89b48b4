//! A strict reading of HTTP/1.1 messages (RFC 9112), written apart from the gateway's own parser so that the two
//! cannot share a mistake. It accepts what a gateway may send and nothing more; it is not a parser for the open net.

use std::fmt;

/// Why bytes are not a message that a gateway may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// A field section: names as they were sent, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl Fields {
    /// All values of `name`, in order, invalid UTF-8 replaced.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| String::from_utf8_lossy(v).into_owned())
            .collect()
    }

    /// All values of `name` joined by ", " (RFC 9110 §5.2), or nothing if the field is absent.
    pub fn value(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Whether the field is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The members of a list field, trimmed, empty ones left out.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.all(name)
            .iter()
            .flat_map(|v| v.split(','))
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
            .collect()
    }

    /// Whether a list field has this member, without regard to case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.list(name).iter().any(|m| m.eq_ignore_ascii_case(member))
    }
}

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body at all.
    Empty,
    /// Content-Length, in bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything up to the end of the connection; responses only.
    UntilClose,
}

/// The request line and fields of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// As sent.
    pub method: String,
    /// As sent.
    pub target: String,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// The header section.
    pub fields: Fields,
    /// The bytes it was read from, the empty line included.
    pub raw: Vec<u8>,
}

/// The status line and fields of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: String,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// The header section.
    pub fields: Fields,
    /// The bytes it was read from, the empty line included.
    pub raw: Vec<u8>,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The end of the first head in `buffer` (past the empty line), if it is complete.
///
/// A CR without LF or an LF without CR is an error at once, so that a sender of such bytes is not waited for.
fn head_end(buffer: &[u8]) -> Result<Option<usize>, Invalid> {
    let mut line = 0;
    let mut at = 0;
    while at < buffer.len() {
        match buffer[at] {
            b'\n' => return invalid("LF without CR in a head"),
            b'\r' => match buffer.get(at + 1) {
                None => return Ok(None),
                Some(b'\n') if at == line => return Ok(Some(at + 2)),
                Some(b'\n') => {
                    at += 2;
                    line = at;
                }
                Some(_) => return invalid("CR without LF in a head"),
            },
            0 => return invalid("NUL in a head"),
            _ => at += 1,
        }
    }
    if buffer.len() > 1 << 20 {
        return invalid("a head of more than 1 MiB");
    }
    Ok(None)
}

fn split_lines(head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        if at == 0 {
            break;
        }
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines
}

fn fields(lines: &[&[u8]]) -> Result<Fields, Invalid> {
    let mut out = Vec::new();
    for line in lines {
        let shown = String::from_utf8_lossy(line);
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return invalid(format!("field without a colon: {shown:?}"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return invalid(format!("field name is not a token: {shown:?}"));
        }
        if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return invalid(format!("control character in a field value: {shown:?}"));
        }
        out.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(Fields(out))
}

fn version(text: &str) -> Result<u8, Invalid> {
    match text {
        "HTTP/1.1" => Ok(1),
        "HTTP/1.0" => Ok(0),
        other => invalid(format!("version {other:?}")),
    }
}

fn length_and_coding(fields: &Fields) -> Result<(Option<u64>, bool), Invalid> {
    let lengths = fields.all("content-length");
    let codings = fields.all("transfer-encoding");
    if !lengths.is_empty() && !codings.is_empty() {
        return invalid("both Content-Length and Transfer-Encoding");
    }
    if lengths.len() > 1 || codings.len() > 1 {
        return invalid("more than one Content-Length or Transfer-Encoding");
    }
    let length = match lengths.first() {
        None => None,
        Some(v) if !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()) => match v.parse() {
            Ok(n) => Some(n),
            Err(_) => return invalid(format!("Content-Length {v:?} overflows")),
        },
        Some(v) => return invalid(format!("Content-Length {v:?}")),
    };
    match codings.first() {
        None => Ok((length, false)),
        Some(v) if v.eq_ignore_ascii_case("chunked") => Ok((length, true)),
        Some(v) => invalid(format!("Transfer-Encoding {v:?}")),
    }
}

impl RequestHead {
    fn parse(raw: &[u8]) -> Result<Self, Invalid> {
        let lines = split_lines(raw);
        let Some((line, rest)) = lines.split_first() else { return invalid("an empty line before the request line") };
        let Ok(line) = std::str::from_utf8(line) else { return invalid("request line is not ASCII") };
        let parts: Vec<&str> = line.split(' ').collect();
        let [method, target, proto] = parts[..] else { return invalid(format!("request line {line:?}")) };
        if method.is_empty() || !method.bytes().all(is_token) {
            return invalid(format!("method {method:?}"));
        }
        if target.is_empty() || !target.bytes().all(|b| (0x21..0x7f).contains(&b)) {
            return invalid(format!("request target {target:?}"));
        }
        let minor = version(proto)?;
        let fields = fields(rest)?;
        let hosts = fields.all("host");
        if hosts.len() > 1 || (minor == 1 && hosts.is_empty()) {
            return invalid(format!("{} Host fields", hosts.len()));
        }
        if hosts.iter().any(|h| !is_authority(h)) {
            return invalid(format!("Host {hosts:?}"));
        }
        let (_, chunked) = length_and_coding(&fields)?;
        if chunked && minor == 0 {
            return invalid("Transfer-Encoding in HTTP/1.0");
        }
        Ok(Self { method: method.to_owned(), target: target.to_owned(), minor, fields, raw: raw.to_vec() })
    }

    /// How the body of this request ends.
    pub fn framing(&self) -> Framing {
        match length_and_coding(&self.fields) {
            Ok((_, true)) => Framing::Chunked,
            Ok((Some(0) | None, _)) => Framing::Empty,
            Ok((Some(length), _)) => Framing::Length(length),
            Err(_) => Framing::Empty,
        }
    }

    /// The path of the target, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// What in this well-formed request a gateway must not have sent, in words.
    ///
    /// Connection-specific fields that were not taken off (RFC 9110 §7.6.1), a target that is not in the one normal
    /// form, a version other than 1.1, or a missing Via.
    pub fn gateway_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.minor != 1 {
            faults.push("version is not 1.1".to_owned());
        }
        if let Err(why) = normal_target(&self.method, &self.target) {
            faults.push(format!("target {:?}: {why}", self.target));
        }
        faults.extend(hop_by_hop_faults(&self.fields));
        if self.fields.all("expect").iter().any(|v| !v.eq_ignore_ascii_case("100-continue")) {
            faults.push("unknown Expect".to_owned());
        }
        if !self.fields.has("via") {
            faults.push("no Via".to_owned());
        }
        faults
    }
}

fn hop_by_hop_faults(fields: &Fields) -> Vec<String> {
    let mut faults = Vec::new();
    let options = fields.list("connection");
    for option in &options {
        let known = ["close", "keep-alive", "upgrade", "te"].iter().any(|k| option.eq_ignore_ascii_case(k));
        if !known {
            faults.push(format!("Connection names {option:?}"));
        }
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        if fields.has(name) {
            faults.push(format!("hop-by-hop field {name}"));
        }
    }
    for name in ["upgrade", "te"] {
        if fields.has(name) != fields.lists("connection", name) {
            faults.push(format!("{name} and Connection: {name} do not go together"));
        }
    }
    faults
}

/// Whether `host` is `uri-host [":" port]` with a host that is not empty.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((inside, after)) = rest.split_once(']') else { return false };
            if inside.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("v6", Some(port)),
                None if after.is_empty() => ("v6", None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_is_fine =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b));
    host_is_fine && port.is_none_or(|p| p.is_empty() || p.parse::<u16>().is_ok())
}

/// Checks that a request target has the one form in which the gateway forwards it.
///
/// Origin-form (or `*` for OPTIONS); percent-encodings valid, and upper case in the path; no encoded slash,
/// backslash or NUL; no empty or dot segments; no path parameters.
pub fn normal_target(method: &str, target: &str) -> Result<(), &'static str> {
    if target == "*" {
        return if method == "OPTIONS" { Ok(()) } else { Err("asterisk-form with another method") };
    }
    let (path, query) = target.split_once('?').map_or((target, ""), |(p, q)| (p, q));
    if !path.starts_with('/') {
        return Err("not origin-form");
    }
    encodings(path, b"-._~!$&'()*+,=:@/", false)?;
    // A query is not normalised, only made valid: signatures are computed over it.
    encodings(query, b"-._~!$&'()*+,;=:@/?", true)?;
    if path.contains("//") {
        return Err("empty segment");
    }
    if path.split('/').any(|s| s == "." || s == "..") {
        return Err("dot segment");
    }
    for bad in ["%2F", "%5C", "%00"] {
        if path.contains(bad) {
            return Err("encoded slash, backslash or NUL");
        }
    }
    Ok(())
}

fn encodings(text: &str, marks: &[u8], lower_case: bool) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte != b'%' {
            if !byte.is_ascii_alphanumeric() && !marks.contains(&byte) {
                return Err("a character that must be percent-encoded");
            }
            at += 1;
            continue;
        }
        let Some(digits) = bytes.get(at + 1..at + 3) else { return Err("cut percent-encoding") };
        if !digits.iter().all(|d| d.is_ascii_hexdigit() && (lower_case || !d.is_ascii_lowercase())) {
            return Err("percent-encoding not of upper-case hexadecimal digits");
        }
        at += 3;
    }
    Ok(())
}

impl ResponseHead {
    fn parse(raw: &[u8]) -> Result<Self, Invalid> {
        let lines = split_lines(raw);
        let Some((line, rest)) = lines.split_first() else { return invalid("an empty line before the status line") };
        let text = String::from_utf8_lossy(line).into_owned();
        // RFC 9112 §4: HTTP-version SP status-code SP [ reason-phrase ]
        let Some((proto, after)) = text.split_once(' ') else { return invalid(format!("status line {text:?}")) };
        let Some((code, reason)) = after.split_once(' ') else { return invalid(format!("status line {text:?}")) };
        let minor = version(proto)?;
        if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) || !(b'1'..=b'5').contains(&code.as_bytes()[0])
        {
            return invalid(format!("status code {code:?}"));
        }
        let Ok(status) = code.parse::<u16>() else { return invalid("status code") };
        if reason.bytes().any(|b| b < 0x20 && b != b'\t') {
            return invalid("control character in the reason phrase");
        }
        let fields = fields(rest)?;
        let (length, chunked) = length_and_coding(&fields)?;
        if (status < 200 || status == 204) && (length.is_some() || chunked) {
            return invalid(format!("{status} with Content-Length or Transfer-Encoding"));
        }
        Ok(Self { status, reason: reason.to_owned(), minor, fields, raw: raw.to_vec() })
    }

    /// How the body of this response to a request with `method` ends.
    pub fn framing(&self, method: &str) -> Framing {
        if method == "HEAD" || self.status < 200 || self.status == 204 || self.status == 304 {
            return Framing::Empty;
        }
        match length_and_coding(&self.fields) {
            Ok((_, true)) => Framing::Chunked,
            Ok((Some(0), _)) => Framing::Empty,
            Ok((Some(length), _)) => Framing::Length(length),
            Ok((None, _)) | Err(_) => Framing::UntilClose,
        }
    }

    /// What in this well-formed response a gateway must not have sent, in words.
    pub fn gateway_faults(&self) -> Vec<String> {
        hop_by_hop_faults(&self.fields)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bytes(u64),
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// A body as far as it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The content, framing taken off.
    pub data: Vec<u8>,
    /// The size of each chunk, for the chunked coding.
    pub chunks: Vec<usize>,
    /// The trailer section, for the chunked coding.
    pub trailers: Fields,
    part: Part,
}

/// Names that mean something for framing, routing or authentication, and so never belong in trailers (RFC 9110 §6.5.1).
const NEVER_TRAILERS: [&str; 12] = [
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "cookie",
    "set-cookie",
    "connection",
    "trailer",
    "te",
    "content-type",
    "content-encoding",
    "forwarded",
];

impl Body {
    /// A body of which nothing has been read.
    pub fn new(framing: Framing) -> Self {
        let part = match framing {
            Framing::Empty | Framing::Length(0) => Part::Done,
            Framing::Length(length) => Part::Bytes(length),
            Framing::Chunked => Part::Size,
            Framing::UntilClose => Part::UntilClose,
        };
        Self { data: Vec::new(), chunks: Vec::new(), trailers: Fields::default(), part }
    }

    /// Whether the body is known to be whole. One that ends with the connection never is before that end.
    pub fn is_complete(&self) -> bool {
        self.part == Part::Done
    }

    fn line(input: &[u8], what: &str) -> Result<Option<usize>, Invalid> {
        match input.iter().position(|b| *b == b'\r' || *b == b'\n') {
            None if input.len() > 8192 => invalid(format!("endless {what}")),
            None => Ok(None),
            Some(at) if input[at] == b'\n' => invalid(format!("LF without CR in a {what}")),
            Some(at) => match input.get(at + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(at)),
                Some(_) => invalid(format!("CR without LF in a {what}")),
            },
        }
    }

    /// Takes what belongs to the body from the front of `input`; returns how many bytes those were.
    pub fn feed(&mut self, input: &[u8]) -> Result<usize, Invalid> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.part {
                Part::Done => return Ok(at),
                _ if rest.is_empty() => return Ok(at),
                Part::Bytes(left) | Part::Chunk(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.data.extend_from_slice(&rest[..n]);
                    at += n;
                    let left = left - n as u64;
                    self.part = match self.part {
                        Part::Bytes(_) if left == 0 => Part::Done,
                        Part::Bytes(_) => Part::Bytes(left),
                        _ if left == 0 => Part::ChunkEnd,
                        _ => Part::Chunk(left),
                    };
                }
                Part::UntilClose => {
                    self.data.extend_from_slice(rest);
                    return Ok(input.len());
                }
                Part::Size => {
                    let Some(end) = Self::line(rest, "chunk size")? else { return Ok(at) };
                    let digits = &rest[..end];
                    // A gateway drops chunk extensions, so none may be here either.
                    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
                        return invalid(format!("chunk size {:?}", String::from_utf8_lossy(digits)));
                    }
                    let size =
                        digits.iter().fold(0u64, |n, d| n << 4 | u64::from((*d as char).to_digit(16).unwrap_or(0)));
                    at += end + 2;
                    self.part = if size == 0 { Part::Trailers } else { Part::Chunk(size) };
                    if size > 0 {
                        self.chunks.push(usize::try_from(size).unwrap_or(usize::MAX));
                    }
                }
                Part::ChunkEnd => {
                    if rest[0] != b'\r' || rest.get(1).is_some_and(|b| *b != b'\n') {
                        return invalid("no CRLF after a chunk");
                    }
                    if rest.len() < 2 {
                        return Ok(at);
                    }
                    at += 2;
                    self.part = Part::Size;
                }
                Part::Trailers => {
                    let Some(end) = Self::line(rest, "trailer")? else { return Ok(at) };
                    if end == 0 {
                        self.part = Part::Done;
                    } else {
                        let mut field = fields(&[&rest[..end]])?;
                        if NEVER_TRAILERS.iter().any(|n| field.has(n)) {
                            return invalid(format!("field {:?} in trailers", field.0[0].0));
                        }
                        self.trailers.0.append(&mut field.0);
                    }
                    at += end + 2;
                }
            }
        }
    }

    /// Says that the connection ended. Returns whether the body is whole.
    pub fn end(&mut self) -> bool {
        if self.part == Part::UntilClose {
            self.part = Part::Done;
        }
        self.is_complete()
    }
}

/// Bytes of one direction of a connection that have arrived and not yet been read as messages.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > 1 << 16 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What has not been read yet.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes all that has not been read yet.
    pub fn take(&mut self) -> Vec<u8> {
        let rest = self.unread().to_vec();
        self.start = self.bytes.len();
        rest
    }

    fn head(&mut self) -> Result<Option<Vec<u8>>, Invalid> {
        let Some(end) = head_end(self.unread())? else { return Ok(None) };
        let raw = self.unread()[..end].to_vec();
        self.start += end;
        Ok(Some(raw))
    }

    /// Reads a request head, if all of it is there.
    pub fn request_head(&mut self) -> Result<Option<RequestHead>, Invalid> {
        self.head()?.map(|raw| RequestHead::parse(&raw)).transpose()
    }

    /// Reads a response head, if all of it is there.
    pub fn response_head(&mut self) -> Result<Option<ResponseHead>, Invalid> {
        self.head()?.map(|raw| ResponseHead::parse(&raw)).transpose()
    }

    /// Reads on with a body. Returns whether it is whole.
    pub fn body(&mut self, body: &mut Body) -> Result<bool, Invalid> {
        let used = body.feed(self.unread())?;
        self.start += used;
        Ok(body.is_complete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<RequestHead>, Invalid> {
        let mut inbox = Inbox::default();
        inbox.push(text.as_bytes());
        inbox.request_head()
    }

    #[test]
    fn requests_that_are_not_strictly_valid_are_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(request(text).is_err(), "{text:?}");
        }
        assert!(request("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok_and(|r| r.is_some()));
    }

    #[test]
    fn any_split_of_a_chunked_body_reads_the_same() {
        let wire = b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
        for split in 0..wire.len() {
            let mut inbox = Inbox::default();
            let mut body = Body::new(Framing::Chunked);
            inbox.push(&wire[..split]);
            assert!(!inbox.body(&mut body).expect("valid"));
            inbox.push(&wire[split..]);
            assert!(inbox.body(&mut body).expect("valid"), "{split}");
            assert_eq!(body.data, b"hello0123456789");
            assert_eq!(body.chunks, [5, 10]);
            assert_eq!(body.trailers.value("x-t").as_deref(), Some("1"));
        }
    }

    #[test]
    fn chunked_bodies_that_are_not_strictly_valid_are_refused() {
        for wire in [
            "5;a\r\n",
            "0x5\r\n",
            "5\n",
            "+5\r\n",
            "\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\nHost: a\r\n",
            "11111111111111111\r\n",
        ] {
            assert!(Body::new(Framing::Chunked).feed(wire.as_bytes()).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn only_one_form_of_a_target_is_normal() {
        for target in ["/", "/a/b?x=1&y=%20", "/%E2%82%AC", "/a%3Bb", "*"] {
            assert_eq!(normal_target("OPTIONS", target), Ok(()), "{target}");
        }
        for target in
            ["*", "a", "//", "/a//b", "/./", "/a/..", "/%2f", "/%2F", "/%5C", "/%0", "/%e2", "/a;b", "/a\\b", "/?|"]
        {
            assert!(normal_target("GET", target).is_err(), "{target}");
        }
    }
}
