//! What fuzzers and ordinary tests ask of the parsers, as functions of bytes.
//!
//! Each panics if its rule is broken. The targets in `fuzz` feed them what a coverage-guided fuzzer finds; the
//! test binary feeds them seeded mutations for a second.

mod cache;

use sluice_load::message::{Body, Framing as StrictFraming, Inbox};
use sluice_rules::prefixes;
use sluice_wire::h1::body::{self, CHUNK_HEAD_BYTES, CHUNK_TAIL, ChunkedDecoder, Framing, LAST_CHUNK, chunk_head};
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::h2::{inbound, outbound};
use sluice_wire::head::{Name, NameSet, Request, RequestHead, Response, ResponseHead, Version};
use sluice_wire::target::{Policy, Target};
use sluice_wire::writer::Writer;
use sluice_wire::{client_hello, proxy_protocol};

pub use self::cache::{cache_control, date, range, vary};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, fields: 100, line_bytes: 8 * 1024 };

/// A request head that is accepted is, once written again, a head that an independent strict parser accepts too,
/// and it parses to the same in one piece and in two.
pub fn request_head(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let whole = parse::request(bytes, &mut Progress::default(), LIMITS, &mut head);
    if let Some(cut) = bytes.len().checked_div(2).filter(|cut| *cut > 0) {
        let (mut progress, mut again) = (Progress::default(), RequestHead::default());
        let first = parse::request(&bytes[..cut], &mut progress, LIMITS, &mut again);
        if first == Ok(false) {
            let second = parse::request(bytes, &mut progress, LIMITS, &mut again);
            if whole == Ok(true) {
                assert_eq!((second, &again), (whole, &head), "in two pieces");
            }
        }
    }
    if whole != Ok(true) {
        return;
    }
    let request = Request { bytes, head: &head };
    let mut target = Target::default();
    if target.read(request.method(), request.target(), Policy::default()).is_err() {
        return;
    }
    let Ok(framing) = body::request_framing(bytes, &head) else { return };
    let mut edits = Edits::default();
    edits.remove(NameSet::of(&[Name::Host]));
    let mut space = vec![0; 64 * 1024];
    let mut writer = Writer::new(&mut space);
    encode::request(&mut writer, request, target.as_str(), "example.com", &edits);
    let length = writer.finish().expect("it is as long as what it is made of");
    let mut inbox = Inbox::default();
    inbox.push(&space[..length]);
    let strict = inbox.request_head().expect("strictly valid").expect("complete");
    let agreed = match framing {
        Framing::Empty => matches!(strict.framing(), StrictFraming::Empty | StrictFraming::Length(0)),
        Framing::Length(length) => strict.framing() == StrictFraming::Length(length),
        Framing::Chunked => strict.framing() == StrictFraming::Chunked,
        Framing::UntilClose => unreachable!("no request ends with its connection"),
    };
    assert!(agreed, "{framing:?} and {:?}", strict.framing());
}

/// A response head that is accepted is, once written again, one that an independent strict parser accepts too.
pub fn response_head(bytes: &[u8]) {
    let mut head = ResponseHead::default();
    if parse::response(bytes, &mut Progress::default(), LIMITS, &mut head) != Ok(true) {
        return;
    }
    if body::response_framing(bytes, &head, false).is_err() {
        return;
    }
    let mut edits = Edits::default();
    if matches!(head.status, 100..=199 | 204) {
        // RFC 9110 §8.6, RFC 9112 §6.1: the gateway removes both.
        edits.remove(NameSet::of(&[Name::ContentLength, Name::TransferEncoding]));
    }
    let mut space = vec![0; 64 * 1024];
    let mut writer = Writer::new(&mut space);
    encode::response(&mut writer, Response { bytes, head: &head }, &edits);
    let length = writer.finish().expect("it is as long as what it is made of");
    let mut inbox = Inbox::default();
    inbox.push(&space[..length]);
    let strict = inbox.response_head().expect("strictly valid").expect("complete");
    assert_eq!(strict.status, head.status);
}

/// Whatever fields come by HTTP/2, what is written of them is one head of HTTP/1.1 that an independent strict parser
/// reads with the same fields; taken out again and written once more it is the same.
///
/// The first line of `bytes` is the path, each further one a field.
pub fn translate(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut uri = http::uri::Parts::default();
    let Ok(path) = lines.next().unwrap_or_default().try_into() else { return };
    (uri.scheme, uri.authority) =
        (Some(http::uri::Scheme::HTTPS), Some(http::uri::Authority::from_static("a.example")));
    uri.path_and_query = Some(path);
    let Ok(uri) = http::Uri::from_parts(uri) else { return };
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.method, parts.uri) = (http::Method::POST, uri);
    for line in lines {
        let mut pair = line.splitn(2, |byte| *byte == b':');
        let name = http::HeaderName::from_bytes(pair.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(pair.next().unwrap_or_default())) {
            parts.headers.append(name, value);
        }
    }
    let (mut out, mut head) = (Vec::new(), RequestHead::default());
    let ends = bytes.len().is_multiple_of(2);
    if inbound::request(&parts, None, ends, None, &mut out, &mut head, LIMITS).is_err() {
        return;
    }
    let mut parsed = RequestHead::default();
    let limits = HeadLimits { fields: parse::FIELDS_MAX, ..LIMITS };
    assert_eq!(parse::request(&out, &mut Progress::default(), limits, &mut parsed), Ok(true));
    parsed.version = Version::Http2;
    assert_eq!((&parsed, parsed.length), (&head, out.len()));
    let mut inbox = Inbox::default();
    inbox.push(&out);
    let strict = inbox.request_head().expect("strictly valid").expect("complete");
    assert_eq!(strict.fields.0.len(), head.fields.lines().len());
    let framing = body::request_framing(&out, &head).expect("one framing");
    assert!(!ends || framing == Framing::Empty);

    let request = Request { bytes: &out, head: &head };
    let target = str::from_utf8(request.target()).expect("ASCII");
    let opening =
        outbound::request(request, target, "a.example", "https", &Edits::default()).expect("it came this way");
    let (mut again, mut second) = (Vec::new(), RequestHead::default());
    let (parts, ()) = opening.request.into_parts();
    inbound::request(&parts, None, ends, None, &mut again, &mut second, LIMITS).expect("it came this way");
    assert_eq!((again, second), (out, head));
}

/// Chunked content decodes to the same in any pieces, and what is framed anew an independent decoder reads back.
pub fn chunked(bytes: &[u8]) {
    let decode = |piece: usize| {
        let mut decoder = ChunkedDecoder::default();
        let mut content = Vec::new();
        for part in bytes.chunks(piece.max(1)) {
            let mut part = part.to_vec();
            let decoded = decoder.decode(&mut part).ok()?;
            content.extend_from_slice(&part[decoded.content]);
            if decoded.ended {
                break;
            }
        }
        decoder.has_ended().then_some(content)
    };
    let whole = decode(bytes.len());
    assert_eq!(decode(1), whole, "byte by byte");
    assert_eq!(decode(7), whole, "in pieces of seven");
    let Some(content) = whole else { return };
    let mut framed = Vec::new();
    for chunk in content.chunks(5) {
        let mut space = [0; CHUNK_HEAD_BYTES];
        let length = chunk_head(chunk.len(), &mut space);
        framed.extend_from_slice(&space[CHUNK_HEAD_BYTES - length..]);
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(CHUNK_TAIL);
    }
    framed.extend_from_slice(LAST_CHUNK);
    let mut strict = Body::new(StrictFraming::Chunked);
    assert_eq!(strict.feed(&framed).map_err(|error| error.0), Ok(framed.len()));
    assert!(strict.is_complete());
    assert_eq!(strict.data, content);
}

/// A target that is accepted is canonical: reading it again changes nothing, and an independent check agrees.
pub fn target(bytes: &[u8]) {
    for method in ["GET", "OPTIONS"] {
        let mut target = Target::default();
        if target.read(method, bytes, Policy::default()).is_err() {
            continue;
        }
        let mut again = Target::default();
        assert_eq!(again.read(method, target.as_str().as_bytes(), Policy::default()), Ok(()));
        assert_eq!(again.as_str(), target.as_str());
        assert_eq!(sluice_load::message::normal_target(method, target.as_str()), Ok(()));
    }
}

/// No configuration makes the reader panic, whatever is wrong can be shown, and what holds can be printed and loads
/// again as the same.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    // Neither the fuzzer nor the tests are to read files that a mutation names.
    if text.contains("include") || text.contains("file:") || text.contains("\\u") {
        return;
    }
    let load = |text: &str| sluice_config::load_str_with("fuzz.toml", text, &|_| Some("8081".to_owned()));
    let loaded = match load(text) {
        Ok(loaded) => loaded,
        Err(report) => {
            assert!(report.has_errors());
            assert!(!report.render(false).is_empty() && report.to_json().starts_with("[{"));
            return;
        }
    };
    let bare = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(bare, _)| bare).trim().to_owned()).collect()
    };
    let shown = loaded.effective.to_toml();
    assert!(loaded.effective.to_json().starts_with('['));
    // What is hidden cannot be loaded again, and what was replaced is cut to its first line.
    if shown.contains("${") || shown.contains("***") {
        return;
    }
    let again = load(&shown).unwrap_or_else(|report| panic!("{report}\n{shown}"));
    assert_eq!(bare(&again.effective.to_toml()), bare(&shown));
}

/// The first message of TLS and the PROXY prefix: what is read of a part is what is read of the whole, and an error is
/// final.
pub fn preface(bytes: &[u8]) {
    let prefix = proxy_protocol::read(bytes);
    let hello = client_hello::read(bytes);
    for length in 0..bytes.len().min(600) {
        let part = &bytes[..length];
        match proxy_protocol::read(part) {
            Ok(None) => {}
            decided => assert_eq!(decided, prefix, "{length} bytes"),
        }
        match client_hello::read(part) {
            Err(client_hello::HelloError::Incomplete) => {}
            decided => assert_eq!(decided, hello, "{length} bytes"),
        }
    }
    if let Ok(Some((_, length))) = prefix {
        assert!(length <= bytes.len().min(proxy_protocol::PREFIX_MAX));
    }
}

/// A list of networks that is accepted contains the first address of every line, however it is written.
pub fn prefix_list(bytes: &[u8]) {
    let Ok(list) = prefixes::parse_list(bytes) else { return };
    let mut lines = 0;
    for line in String::from_utf8_lossy(bytes).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(address) = line.split('/').next().filter(|address| !address.is_empty()) else { continue };
        let address = address.parse().expect("an accepted line begins with an address");
        assert!(list.contains(address), "{line}");
        lines += 1;
    }
    assert_eq!(list.len(), lines);
}
