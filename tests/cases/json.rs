//! Tells JSON (RFC 8259) from what only looks like it.

/// Whether `text` is one JSON value and nothing else (RFC 8259).
pub(crate) fn is_json(text: &str) -> bool {
    let bytes = text.as_bytes();
    value(bytes, 0).map(|at| skip(bytes, at)) == Some(bytes.len())
}

fn skip(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| b" \t\r\n".contains(b)) {
        at += 1;
    }
    at
}

/// Reads a value; returns where it ends.
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    let at = skip(bytes, at);
    match bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' => members(bytes, at, b'}', |at| {
            let colon = skip(bytes, string(bytes, skip(bytes, at))?);
            (bytes.get(colon) == Some(&b':')).then(|| value(bytes, colon + 1))?
        }),
        b'[' => members(bytes, at, b']', |at| value(bytes, at)),
        _ => {
            let end = bytes[at..].iter().position(|b| b",]} \t\r\n".contains(b)).map_or(bytes.len(), |n| at + n);
            let word = std::str::from_utf8(&bytes[at..end]).ok()?;
            (["true", "false", "null"].contains(&word) || word.parse::<f64>().is_ok()).then_some(end)
        }
    }
}

fn members(bytes: &[u8], at: usize, close: u8, member: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    let mut at = skip(bytes, at + 1);
    if bytes.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        at = skip(bytes, member(at)?);
        match bytes.get(at)? {
            b',' => at += 1,
            b if *b == close => return Some(at + 1),
            _ => return None,
        }
    }
}

fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *bytes.get(at + 1)? {
                b'u' => {
                    bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                    at += 6;
                }
                c if b"\"\\/bfnrt".contains(&c) => at += 2,
                _ => return None,
            },
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

#[test]
fn the_json_reader_tells_good_from_bad() {
    for good in [r#"{"a":[1,-2.5e3,"x\u001b\"",null,{}],"b":true}"#, "[]", " 1 "] {
        assert!(is_json(good), "{good}");
    }
    for bad in ["", "{", r#"{"a"}"#, r#"{"a":1} x"#, "{\"a\":\"\x1b\"}", "[1,]", "\"a\\x\""] {
        assert!(!is_json(bad), "{bad}");
    }
}
