//! Request targets (RFC 9112 §3.2), normalised once: what is routed is what is sent.
//!
//! A path that two programs read differently is how access rules are passed by, so there is one canonical path
//! for matching and forwarding, and what cannot be made canonical without guessing is refused.

use std::ops::Range;

/// The form of a request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, of OPTIONS only
    Asterisk,
}

/// How paths are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Several slashes in a row become one.
    pub merge_slashes: bool,
    /// What happens to `;parameters` of a path segment.
    pub path_parameters: PathParameters,
    /// Whether `%2F` may stand in a path; it is refused otherwise.
    pub encoded_slash: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { merge_slashes: true, path_parameters: PathParameters::Strip, encoded_slash: false }
    }
}

/// What happens to `;parameters` of a path segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathParameters {
    /// They are cut off.
    Strip,
    /// They stay, and a segment that is a dot segment without them is refused.
    Keep,
}

/// What is wrong with a request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// None of the forms, or a form that the method does not go with.
    #[error("invalid form of request target")]
    Form,
    /// A byte that may not stand in a target: a control character, a backslash, a fragment, not ASCII.
    #[error("invalid character in the request target")]
    Character,
    /// A `%` without two hexadecimal digits.
    #[error("invalid percent-encoding in the path")]
    PercentEncoding,
    /// An encoded slash, backslash or control character, or bytes that are not UTF-8.
    #[error("forbidden percent-encoded character in the path")]
    Encoded,
    /// `..` above the root.
    #[error("the path leads above its root")]
    AboveRoot,
    /// The scheme of an absolute target is neither http nor https.
    #[error("invalid scheme in the request target")]
    Scheme,
}

/// A normalised request target. Reused from request to request, so that it allocates nothing once warm.
#[derive(Clone, Debug, Default)]
pub struct Target {
    text: String,
    path_end: usize,
    form: Form,
    authority: Option<Range<usize>>,
}

impl Target {
    /// The path: starts with a slash, or is `*`.
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_end + 1..)
    }

    /// Path and query as they are sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The form that it had.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Where in the raw target the authority of the absolute form stands.
    pub fn authority(&self) -> Option<Range<usize>> {
        self.authority.clone()
    }

    /// Reads and normalises `raw`.
    ///
    /// # Errors
    /// What is no target for this method, and what cannot be made canonical without guessing.
    pub fn read(&mut self, method: &str, raw: &[u8], policy: Policy) -> Result<(), TargetError> {
        self.text.clear();
        self.authority = None;
        let path_and_query = match raw {
            [b'/', ..] => {
                self.form = Form::Origin;
                raw
            }
            b"*" if method == "OPTIONS" => {
                self.form = Form::Asterisk;
                return self.asterisk();
            }
            _ => {
                let rest = self.absolute(raw)?;
                self.form = Form::Absolute;
                // RFC 9112 §3.2.4: OPTIONS with neither path nor query is about the server as a whole.
                if rest.is_empty() && method == "OPTIONS" {
                    return self.asterisk();
                }
                rest
            }
        };
        let path_end = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
        let (path, query) = path_and_query.split_at(path_end);
        normalise_path(path, policy, &mut self.text)?;
        self.path_end = self.text.len();
        if let Some(query) = query.get(1..) {
            self.text.push('?');
            normalise_query(query, &mut self.text)?;
        }
        Ok(())
    }

    fn asterisk(&mut self) -> Result<(), TargetError> {
        self.text.push('*');
        self.path_end = 1;
        Ok(())
    }

    /// Takes scheme and authority off; what is left is empty or starts with a slash or question mark.
    fn absolute<'b>(&mut self, raw: &'b [u8]) -> Result<&'b [u8], TargetError> {
        let colon = memchr::memmem::find(raw, b"://").ok_or(TargetError::Form)?;
        let scheme = &raw[..colon];
        if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
            return Err(TargetError::Scheme);
        }
        let start = colon + 3;
        let end = memchr::memchr3(b'/', b'?', b'#', &raw[start..]).map_or(raw.len(), |at| start + at);
        self.authority = Some(start..end);
        Ok(&raw[end..])
    }
}

/// What a byte of a target is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// May stand in a path and a query as it is.
    Plain,
    Slash,
    Question,
    Semicolon,
    Percent,
    /// Not allowed by RFC 3986, but sent by browsers, which then mean its percent-encoding.
    Encode,
    /// As [`Class::Encode`] in a query; in a path some programs take it for a slash.
    Backslash,
    Invalid,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Invalid; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Class::Plain,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':'
            | b'@' => Class::Plain,
            b'/' => Class::Slash,
            b'?' => Class::Question,
            b';' => Class::Semicolon,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'#' => Class::Invalid,
            _ => Class::Encode,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

fn normalise_path(path: &[u8], policy: Policy, out: &mut String) -> Result<(), TargetError> {
    if path.is_empty() {
        out.push('/');
        return Ok(());
    }
    if is_canonical(path) {
        push_ascii(out, path);
        return Ok(());
    }
    // `out` ends in a slash before each segment.
    out.push('/');
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let start = out.len();
        let dots = normalise_segment(segment, policy, out)?;
        match dots {
            Dots::One => out.truncate(start),
            Dots::Two => {
                out.truncate(start - 1);
                let parent = out.rfind('/').ok_or(TargetError::AboveRoot)?;
                out.truncate(parent + 1);
            }
            Dots::None if out.len() == start && policy.merge_slashes => {}
            Dots::None if !is_last => out.push('/'),
            Dots::None => {}
        }
    }
    Ok(())
}

/// Whether a path that starts with a slash is already canonical. Most are, and are then copied in one go.
fn is_canonical(path: &[u8]) -> bool {
    let mut before = b'x';
    path.iter().all(|byte| {
        let fine = match class(*byte) {
            Class::Plain => before != b'/' || *byte != b'.',
            Class::Slash => before != b'/',
            _ => false,
        };
        before = *byte;
        fine
    })
}

/// What kind of dot segment a segment is (RFC 3986 §5.2.4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    None,
    One,
    Two,
}

fn dots(segment: &str) -> Dots {
    match segment {
        "." => Dots::One,
        ".." => Dots::Two,
        _ => Dots::None,
    }
}

fn normalise_segment(segment: &[u8], policy: Policy, out: &mut String) -> Result<Dots, TargetError> {
    let start = out.len();
    let mut at = 0;
    while at < segment.len() {
        let byte = segment[at];
        match class(byte) {
            Class::Plain => out.push(char::from(byte)),
            Class::Percent => {
                at = normalise_encoded(segment, at, policy, out)?;
                continue;
            }
            Class::Semicolon => match policy.path_parameters {
                PathParameters::Strip => {
                    // What is cut off must still be valid, or an invalid target would pass.
                    normalise_query(&segment[at..], &mut String::new())?;
                    return Ok(dots(&out[start..]));
                }
                // `/..;/` is `/../` to a program that cuts parameters off.
                PathParameters::Keep if dots(&out[start..]) != Dots::None => return Err(TargetError::Encoded),
                PathParameters::Keep => out.push(';'),
            },
            Class::Encode => push_encoded(byte, out),
            Class::Slash | Class::Question | Class::Backslash | Class::Invalid => return Err(TargetError::Character),
        }
        at += 1;
    }
    Ok(dots(&out[start..]))
}

/// Normalises the percent-encoded character at `at`, of one byte or several, and returns the offset behind it.
fn normalise_encoded(segment: &[u8], at: usize, policy: Policy, out: &mut String) -> Result<usize, TargetError> {
    let first = decoded(segment, at).ok_or(TargetError::PercentEncoding)?;
    match first {
        // RFC 3986 §6.2.2.2: an unreserved character means the same encoded and plain.
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(first)),
        0..=0x1f | 0x7f | b'\\' => return Err(TargetError::Encoded),
        b'/' if !policy.encoded_slash => return Err(TargetError::Encoded),
        0x80.. => {
            // Overlong and broken UTF-8 may decode to something else behind us.
            let length = match first {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return Err(TargetError::Encoded),
            };
            let mut character = [0; 4];
            for (i, byte) in character[..length].iter_mut().enumerate() {
                *byte = decoded(segment, at + 3 * i).ok_or(TargetError::Encoded)?;
            }
            str::from_utf8(&character[..length]).map_err(|_| TargetError::Encoded)?;
            for byte in &character[..length] {
                push_encoded(*byte, out);
            }
            return Ok(at + 3 * length);
        }
        _ => push_encoded(first, out),
    }
    Ok(at + 3)
}

/// Makes a query valid without changing what it means: a stray `%` and the characters that browsers leave as
/// they are become percent-encoded, hexadecimal digits upper case.
fn normalise_query(query: &[u8], out: &mut String) -> Result<(), TargetError> {
    let mut at = 0;
    while at < query.len() {
        let run = query[at..].iter().take_while(|byte| {
            matches!(class(**byte), Class::Plain | Class::Slash | Class::Question | Class::Semicolon)
        });
        let run = run.count();
        push_ascii(out, &query[at..at + run]);
        at += run;
        let Some(&byte) = query.get(at) else { break };
        match (class(byte), decoded(query, at)) {
            (Class::Percent, Some(character)) => {
                push_encoded(character, out);
                at += 3;
            }
            (Class::Percent | Class::Encode | Class::Backslash, _) => {
                push_encoded(byte, out);
                at += 1;
            }
            _ => return Err(TargetError::Character),
        }
    }
    Ok(())
}

/// The byte that `%XX` at `at` stands for.
fn decoded(bytes: &[u8], at: usize) -> Option<u8> {
    match bytes.get(at..at + 3)? {
        [b'%', high, low] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            Some((digit(high)? << 4 | digit(low)?) as u8)
        }
        _ => None,
    }
}

fn push_encoded(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn push_ascii(out: &mut String, bytes: &[u8]) {
    out.push_str(str::from_utf8(bytes).expect("the caller has checked that each byte is ASCII"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> Result<String, TargetError> {
        read_with(raw, Policy::default())
    }

    fn read_with(raw: &str, policy: Policy) -> Result<String, TargetError> {
        let mut target = Target::default();
        target.read("GET", raw.as_bytes(), policy).map(|()| target.as_str().to_owned())
    }

    #[test]
    fn a_path_has_one_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/a/b.c/d-e_f~?x=1&y=2", "/a/b.c/d-e_f~?x=1&y=2"),
            ("/%41%7e%2d", "/A~-"),
            ("/%c3%a4%e2%82%ac", "/%C3%A4%E2%82%AC"),
            ("/a%20b%3f", "/a%20b%3F"),
            ("//a///b//", "/a/b/"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a//../b", "/b"),
            ("/a/.../b", "/a/.../b"),
            ("/a/.b", "/a/.b"),
            ("/a;v=1/b;w", "/a/b"),
            ("/public/..;/admin", "/admin"),
            ("/;x/a", "/a"),
            ("/a|b^c{d}\"<>`[]", "/a%7Cb%5Ec%7Bd%7D%22%3C%3E%60%5B%5D"),
            ("/?a[]=1|2&b=100%&c=%zz&d=%2f%c3", "/?a%5B%5D=1%7C2&b=100%25&c=%25zz&d=%2F%C3"),
            ("/?", "/?"),
            ("/?a?b/c;d\\", "/?a?b/c;d%5C"),
            ("http://h", "/"),
            ("HTTP://h:1?x", "/?x"),
            ("https://h/a/../b", "/b"),
        ] {
            assert_eq!(read(raw).as_deref(), Ok(canonical), "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_made_canonical_is_refused() {
        use TargetError::*;
        for (raw, error) in [
            ("", Form),
            ("a", Form),
            ("*", Form),
            ("h:80", Form),
            ("ftp://h/", Scheme),
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("/%2e%2e/a", AboveRoot),
            ("/..;/a", AboveRoot),
            ("/a%2fb", Encoded),
            ("/a%5cb", Encoded),
            ("/a%00", Encoded),
            ("/a%0d%0a", Encoded),
            ("/%c0%ae%c0%ae/", Encoded),
            ("/%e0%80%af", Encoded),
            ("/%ff", Encoded),
            ("/%c3", Encoded),
            ("/%c3x%a4", Encoded),
            ("/%ed%a0%80", Encoded),
            ("/a%", PercentEncoding),
            ("/a%4", PercentEncoding),
            ("/a%4g", PercentEncoding),
            ("/a%%41", PercentEncoding),
            ("/a\\b", Character),
            ("/a#b", Character),
            ("/a?b#c", Character),
            ("/\u{e4}", Character),
            ("/?\u{e4}", Character),
            ("/?a b", Character),
            ("/a\x7f", Character),
        ] {
            assert_eq!(read(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn the_policy_decides_about_parameters_slashes_and_encoded_slashes() {
        let policy = Policy { merge_slashes: false, path_parameters: PathParameters::Keep, encoded_slash: true };
        for (raw, canonical) in [
            ("/a;v=1/b", Ok("/a;v=1/b")),
            ("//a//b", Ok("//a//b")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a/..;/b", Err(TargetError::Encoded)),
            ("/a/%2e;/b", Err(TargetError::Encoded)),
        ] {
            assert_eq!(read_with(raw, policy).as_deref(), canonical.as_ref().map(|text| *text), "{raw}");
        }
    }

    #[test]
    fn the_absolute_form_names_its_authority_and_options_may_mean_the_server() {
        let mut target = Target::default();
        let raw = b"http://User@Host:8080/p?q";
        target.read("GET", raw, Policy::default()).unwrap();
        assert_eq!(&raw[target.authority().unwrap()], b"User@Host:8080");
        assert_eq!((target.path(), target.query(), target.form()), ("/p", Some("q"), Form::Absolute));
        for raw in [&b"*"[..], b"http://h"] {
            target.read("OPTIONS", raw, Policy::default()).unwrap();
            assert_eq!((target.path(), target.query()), ("*", None));
        }
    }

    proptest! {
        /// Normalising twice changes nothing, and what comes out is strictly valid.
        #[test]
        fn normalising_is_idempotent(raw in "/[a-zA-Z0-9/.;%?&=|\\[\\]{}~-]{0,40}") {
            if let Ok(once) = read(&raw) {
                prop_assert_eq!(read(&once), Ok(once.clone()), "{}", raw);
                prop_assert!(!once.split('?').next().unwrap().split('/').any(|s| s == "." || s == ".."));
                prop_assert!(once.bytes().all(|byte| !matches!(class(byte), Class::Invalid | Class::Encode)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Target::default().read("GET", &raw, Policy::default());
        }
    }
}
