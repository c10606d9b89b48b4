//! The authority of a request: one canonical host and port for routing, forwarding and, later, keys.

/// What is wrong with a `Host` field or the authority of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid host")]
pub struct InvalidAuthority;

/// Longest authority: a DNS name (253), or an IPv6 literal, and a port.
pub const AUTHORITY_BYTES_MAX: usize = 260;

/// The authority of a request. Reused from request to request: on one connection it is nearly always the same,
/// and then is not looked at again.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    raw: Vec<u8>,
    text: String,
    host_end: usize,
}

impl Authority {
    /// Reads an authority as received, see [`canonical`].
    ///
    /// # Errors
    /// [`InvalidAuthority`]; the authority is then unspecified.
    pub fn read(&mut self, raw: &[u8]) -> Result<(), InvalidAuthority> {
        if self.raw == raw && !raw.is_empty() {
            return Ok(());
        }
        self.raw.clear();
        self.host_end = canonical(raw, &mut self.text)?;
        self.raw.extend_from_slice(raw);
        Ok(())
    }

    /// Host and port.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host without the port.
    pub fn host(&self) -> &str {
        &self.text[..self.host_end]
    }
}

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
    fn an_invalid_authority_is_not_remembered() {
        let mut authority = Authority::default();
        assert_eq!(authority.read(b"Example.com:80"), Ok(()));
        assert_eq!((authority.as_str(), authority.host()), ("example.com:80", "example.com"));
        assert_eq!(authority.read(b"a b"), Err(InvalidAuthority));
        assert_eq!(authority.read(b"a b"), Err(InvalidAuthority));
        assert_eq!(authority.read(b"Example.com:80"), Ok(()));
        assert_eq!(authority.as_str(), "example.com:80");
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
