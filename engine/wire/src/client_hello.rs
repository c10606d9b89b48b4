//! The first message of a TLS handshake, as far as it says which server is meant (RFC 8446 §4.1.2, RFC 6066 §3).
//!
//! Only looked at: the TLS library reads the same bytes, and refuses what is wrong with them.

/// The record type of a handshake (RFC 8446 §5.1).
pub const HANDSHAKE: u8 = 22;

/// The message type of a client's first message.
const CLIENT_HELLO: u8 = 1;

/// How TLS 1.2 is written.
const TLS12: u16 = 0x0303;

/// The extension that names the server.
const SERVER_NAME: u16 = 0;

/// The kind of server name that is a host name, the only one there is.
const HOST_NAME: u8 = 0;

/// The cipher suites with ChaCha20 (RFC 7905 §2, RFC 8446 appendix B.4).
const CHACHA20: [u16; 3] = [0x1303, 0xcca8, 0xcca9];

/// Bytes of a first message. Real ones are below 2 KiB.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// What is of interest in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Whether the client speaks no version of TLS from 1.2 on. Later ones say 1.2 here (RFC 8446 §4.1.2).
    pub is_old: bool,
    /// The host that the client asks for, in lower case and without a dot at its end.
    pub server_name: Option<String>,
    /// Whether the client prefers ChaCha20 to all else, as those do whose processors have no AES.
    pub prefers_chacha20: bool,
}

/// Looks into what a client has sent first.
///
/// # Errors
/// [`HelloError`]
pub fn read(bytes: &[u8]) -> Result<Hello, HelloError> {
    let message = message(bytes)?;
    let mut hello = Reader(&message);
    let is_old = hello.number16()? < TLS12;
    // Random, session, cipher suites, compression.
    hello.take(32)?;
    hello.vector8()?;
    let prefers_chacha20 = prefers_chacha20(hello.vector16()?)?;
    hello.vector8()?;
    let server_name = if hello.0.is_empty() { None } else { server_name(hello.vector16()?)? };
    Ok(Hello { is_old, server_name, prefers_chacha20 })
}

/// Whether the first of the suites that mean something is one with ChaCha20.
fn prefers_chacha20(mut suites: Reader<'_>) -> Result<bool, HelloError> {
    while !suites.0.is_empty() {
        let suite = suites.number16()?;
        // RFC 8701 §2: values that only test whether servers skip them.
        let is_grease = suite & 0x0f0f == 0x0a0a && suite >> 8 == suite & 0xff;
        if !is_grease {
            return Ok(CHACHA20.contains(&suite));
        }
    }
    Ok(false)
}

/// The name in the extensions, if there is one.
fn server_name(mut extensions: Reader<'_>) -> Result<Option<String>, HelloError> {
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let mut content = extensions.vector16()?;
        if kind == SERVER_NAME {
            let mut names = content.vector16()?;
            let kind = names.take(1)?[0];
            let name = names.vector16()?.0;
            let is_name = kind == HOST_NAME && !name.is_empty() && name.is_ascii();
            let name = str::from_utf8(name).map_err(|_| HelloError::Invalid)?;
            return Ok(is_name.then(|| name.trim_end_matches('.').to_ascii_lowercase()));
        }
    }
    Ok(None)
}

/// Why no name can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The message has not come completely.
    #[error("incomplete")]
    Incomplete,
    /// It is no such message.
    #[error("not a valid client hello")]
    Invalid,
}

/// The content of the message, taken out of the records that it is spread over.
fn message(mut bytes: &[u8]) -> Result<Vec<u8>, HelloError> {
    let mut message = Vec::new();
    loop {
        if let Some((head, content)) = message.split_at_checked(4) {
            let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            if head[0] != CLIENT_HELLO || length > HELLO_BYTES_MAX {
                return Err(HelloError::Invalid);
            }
            if let Some(content) = content.get(..length) {
                return Ok(content.to_vec());
            }
        }
        let (head, rest) = bytes.split_at_checked(5).ok_or(HelloError::Incomplete)?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || head[1] != 3 || length == 0 {
            return Err(HelloError::Invalid);
        }
        let (payload, rest) = rest.split_at_checked(length).ok_or(HelloError::Incomplete)?;
        message.extend_from_slice(payload);
        bytes = rest;
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, HelloError> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector whose length is one byte.
    fn vector8(&mut self) -> Result<Reader<'a>, HelloError> {
        let length = self.take(1)?[0];
        self.take(length.into()).map(Reader)
    }

    /// A vector whose length is two bytes.
    fn vector16(&mut self) -> Result<Reader<'a>, HelloError> {
        let length = self.number16()?;
        self.take(length.into()).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use super::*;

    /// A message with a name, in records of `size` bytes.
    fn hello(name: Option<&str>, size: usize) -> Vec<u8> {
        let vector = |content: &[u8]| [&(content.len() as u16).to_be_bytes()[..], content].concat();
        let mut extensions = [&[0, 43][..], &vector(&[2, 3, 4])].concat();
        if let Some(name) = name {
            let list = vector(&[&[HOST_NAME][..], &vector(name.as_bytes())].concat());
            extensions.extend([&[0, 0][..], &vector(&list)].concat());
        }
        let content = [&[3, 3][..], &[7; 32], &[0], &vector(&[0x13, 1]), &[1, 0], &vector(&extensions)].concat();
        let message = [&[CLIENT_HELLO, 0][..], &vector(&content)].concat();
        message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(part)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_in_however_many_records_it_comes() {
        for size in [1, 7, 40, 10_000] {
            let name = |name| read(&hello(name, size)).map(|hello| hello.server_name);
            assert_eq!(name(Some("A.example.")), Ok(Some("a.example".to_owned())));
            assert_eq!(name(None), Ok(None));
        }
    }

    #[test]
    fn old_clients_are_known_by_their_version() {
        let mut bytes = hello(None, 10_000);
        assert_eq!(read(&bytes).map(|hello| hello.is_old), Ok(false));
        // Behind the heads of record and message.
        bytes[5 + 4 + 1] = 2;
        assert_eq!(read(&bytes).map(|hello| hello.is_old), Ok(true));
    }

    #[test]
    fn the_first_suite_tells_what_the_client_prefers() {
        let whole = hello(None, 10_000);
        let at = whole.windows(4).position(|bytes| bytes == [0, 2, 0x13, 1]).unwrap();
        let with = |suites: &[u8]| {
            let mut bytes = whole.clone();
            bytes.splice(at..at + 4, [&(suites.len() as u16).to_be_bytes()[..], suites].concat());
            // The lengths of record and message grow with it.
            let grown = suites.len() as u8 - 2;
            (bytes[4], bytes[8]) = (bytes[4] + grown, bytes[8] + grown);
            read(&bytes).map(|hello| hello.prefers_chacha20)
        };
        for (suites, expected) in [
            (&[0x13, 1, 0x13, 3][..], false),
            (&[0x13, 3, 0x13, 1], true),
            (&[0xca, 0xca, 0xcc, 0xa9], true),
            (&[0x0a, 0x0a, 0x13, 2], false),
            (&[0x0a, 0x1a, 0x13, 3], false),
            (&[0x2a, 0x2a], false),
        ] {
            assert_eq!(with(suites), Ok(expected), "{suites:x?}");
        }
        assert_eq!(with(&[0x13, 3, 0x13]), Ok(true));
        assert_eq!(with(&[0x3a, 0x3a, 0x13]), Err(HelloError::Invalid));
    }

    #[test]
    fn a_part_is_incomplete_wherever_it_ends() {
        let whole = hello(Some("a.example"), 50);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(HelloError::Incomplete), "{length}");
        }
    }

    #[test]
    fn whatever_is_changed_ends_well() {
        let whole = hello(Some("a.example"), 50);
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[index] ^= 1 << bit;
                let _ = read(&changed);
            }
        }
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(HelloError::Invalid));
    }
}
