//! The authority of a request: one canonical host and port for routing, forwarding and, later, keys.

/// What is wrong with a `Host` field or the authority of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid host")]
pub struct InvalidAuthority;

/// Longest authority: a DNS name (253), or an IPv6 literal, and a port.
pub const AUTHORITY_BYTES_MAX: usize = 260;

/// Checks `uri-host [":" port]` (RFC 9110 §7.2) and writes it in lower case to `out`, which is cleared first.
/// Returns how many bytes of `out` are the host.
///
/// Stricter than RFC 3986 where only attackers and accidents go: no user information, no percent-encoding, no
/// empty host, a port of one to five digits if there is a colon.
///
/// # Errors
/// [`InvalidAuthority`]; `out` is then unspecified.
pub fn canonical(authority: &[u8], out: &mut String) -> Result<usize, InvalidAuthority> {
    out.clear();
    if authority.is_empty() || authority.len() > AUTHORITY_BYTES_MAX {
        return Err(InvalidAuthority);
    }
    let host_end = if authority[0] == b'[' {
        let end = memchr::memchr(b']', authority).ok_or(InvalidAuthority)? + 1;
        let inner = str::from_utf8(&authority[1..end - 1]).map_err(|_| InvalidAuthority)?;
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidAuthority)?;
        end
    } else {
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if end == 0 || !authority[..end].iter().all(valid) {
            return Err(InvalidAuthority);
        }
        end
    };
    match &authority[host_end..] {
        [] => {}
        [b':', port @ ..] if (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit) => {
            let number = port.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
            if number > u32::from(u16::MAX) {
                return Err(InvalidAuthority);
            }
        }
        _ => return Err(InvalidAuthority),
    }
    out.push_str(str::from_utf8(authority).map_err(|_| InvalidAuthority)?);
    out.make_ascii_lowercase();
    Ok(host_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_has_one_form() {
        let mut out = String::new();
        for (given, host, whole) in [
            ("Example.COM", "example.com", "example.com"),
            ("example.com:8080", "example.com", "example.com:8080"),
            ("127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"),
            ("[::1]", "[::1]", "[::1]"),
            ("[2001:DB8::1]:443", "[2001:db8::1]", "[2001:db8::1]:443"),
            ("a_b.example", "a_b.example", "a_b.example"),
        ] {
            let end = canonical(given.as_bytes(), &mut out);
            assert_eq!(end.map(|end| &out[..end]), Ok(host), "{given}");
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        let mut out = String::new();
        for given in [
            "",
            ":80",
            "a:",
            "a:x",
            "a:+1",
            "a:65536",
            "a:123456",
            "a b",
            "a/b",
            "user@a",
            "a@b:1",
            "a,b",
            "a\\b",
            "a%41",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[::1]x",
            "[v1.x]",
            "[::1%25eth0]",
            "a:80:80",
            "\u{e4}",
            "a\0",
        ] {
            assert_eq!(canonical(given.as_bytes(), &mut out), Err(InvalidAuthority), "{given}");
        }
        assert_eq!(canonical(&[b'a'; AUTHORITY_BYTES_MAX + 1], &mut out), Err(InvalidAuthority));
    }
}
