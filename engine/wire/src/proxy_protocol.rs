//! The PROXY protocol: what a load balancer puts before a connection to tell who its client is.
//!
//! Versions 1 and 2 of the specification by HAProxy (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>),
//! strictly: whoever sends it is configured to, so what is odd is a mistake or an attack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a line of version 1 with its end.
const LINE_MAX: usize = 107;

/// What a line of version 1 begins with.
const LINE: &[u8] = b"PROXY ";

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses.
const HEAD: usize = 16;

/// Bytes of addresses and extensions that are taken.
const CONTENT_MAX: usize = 4096;

/// Bytes of a prefix at most.
pub const PREFIX_MAX: usize = HEAD + CONTENT_MAX;

/// Bytes of the addresses of two local sockets.
const UNIX_ADDRESSES: usize = 216;

/// What a prefix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The connection is a client's, from and to these addresses.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
    /// The sender talks for itself, or cannot tell.
    Sender,
}

/// Why a prefix is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It begins like no version.
    #[error("no PROXY prefix")]
    Signature,
    /// A line that is not formed as version 1 says.
    #[error("invalid line")]
    Line,
    /// A command, family or length that version 2 does not have.
    #[error("invalid head")]
    Head,
    /// It is longer than anyone needs.
    #[error("longer than {PREFIX_MAX} bytes")]
    TooLong,
    /// Addresses or extensions do not fill their room.
    #[error("invalid content")]
    Content,
}

/// Reads a prefix. Returns what it says and its length; `None`: more has to come.
///
/// # Errors
/// [`PrefixError`], as soon as it is certain.
pub fn read(bytes: &[u8]) -> Result<Option<(Origin, usize)>, PrefixError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

/// Whether `bytes` begin as `expected`, as far as both go.
fn begins(bytes: &[u8], expected: &[u8]) -> Result<(), PrefixError> {
    let alike = bytes.iter().zip(expected).all(|(a, b)| a == b);
    if alike { Ok(()) } else { Err(PrefixError::Signature) }
}

/// Version 1 (section 2.1).
fn line(bytes: &[u8]) -> Result<Option<(Origin, usize)>, PrefixError> {
    begins(bytes, LINE)?;
    let start = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = start.iter().position(|byte| *byte == b'\r' || *byte == b'\n') else {
        return if start.len() == LINE_MAX { Err(PrefixError::Line) } else { Ok(None) };
    };
    match (start[end], start.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if start.len() < LINE_MAX => return Ok(None),
        _ => return Err(PrefixError::Line),
    }
    let rest = start.get(LINE.len()..end).and_then(|rest| str::from_utf8(rest).ok()).ok_or(PrefixError::Line)?;
    let length = end + 2;
    // What follows UNKNOWN is ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Ok(Some((Origin::Sender, length)));
    }
    let parts: Vec<&str> = rest.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = parts.as_slice() else {
        return Err(PrefixError::Line);
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| PrefixError::Line),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| PrefixError::Line),
        _ => Err(PrefixError::Line),
    };
    let source = SocketAddr::new(address(source)?, port(source_port)?);
    let destination = SocketAddr::new(address(destination)?, port(destination_port)?);
    Ok(Some((Origin::Proxied { source, destination }, length)))
}

/// A port without a sign or leading zeros.
fn port(text: &str) -> Result<u16, PrefixError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(PrefixError::Line)
}

/// Version 2 (section 2.2).
fn binary(bytes: &[u8]) -> Result<Option<(Origin, usize)>, PrefixError> {
    begins(bytes, SIGNATURE)?;
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
    let (command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(PrefixError::Head),
    };
    if length > CONTENT_MAX {
        return Err(PrefixError::TooLong);
    }
    // 0: unspecified; then IPv4, IPv6 and local sockets, each over a stream. Datagrams do not carry HTTP.
    let addresses = match family {
        0x00 => 0,
        0x11 => 2 * (4 + 2),
        0x21 => 2 * (16 + 2),
        0x31 => UNIX_ADDRESSES,
        // For a local command the receiver accepts any family.
        _ if is_local => 0,
        _ => return Err(PrefixError::Head),
    };
    let Some(content) = rest.get(..length) else { return Ok(None) };
    if is_local {
        return Ok(Some((Origin::Sender, HEAD + length)));
    }
    let (addresses, extensions) = content.split_at_checked(addresses).ok_or(PrefixError::Content)?;
    // What follows addresses that are not specified may be anything.
    if family != 0x00 {
        check_extensions(extensions)?;
    }
    let origin = match family {
        0x11 => proxied::<4>(addresses),
        0x21 => proxied::<16>(addresses),
        _ => Some(Origin::Sender),
    };
    Ok(Some((origin.ok_or(PrefixError::Content)?, HEAD + length)))
}

/// Two addresses of `N` bytes each, then two ports.
fn proxied<const N: usize>(bytes: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port));
    Some(Origin::Proxied { source: address(source, source_port), destination: address(destination, destination_port) })
}

/// Whether extensions fill their room: type, length, value, one after the other (section 2.2.4). None is used.
fn check_extensions(mut bytes: &[u8]) -> Result<(), PrefixError> {
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(3).ok_or(PrefixError::Content)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        bytes = rest.get(length..).ok_or(PrefixError::Content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(source: &str, destination: &str) -> Option<Origin> {
        Some(Origin::Proxied { source: source.parse().ok()?, destination: destination.parse().ok()? })
    }

    /// A prefix of version 2.
    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family][..], &(content.len() as u16).to_be_bytes(), content].concat()
    }

    const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 0xbb];

    fn valid() -> Vec<(Vec<u8>, Option<Origin>)> {
        let ours = proxied("192.0.2.1:12345", "198.51.100.2:443");
        let ipv6 = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
        let sender = Some(Origin::Sender);
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), ours),
            (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(), proxied("[2001:db8::1]:0", "[::1]:65535")),
            (b"PROXY UNKNOWN\r\n".to_vec(), sender),
            (b"PROXY UNKNOWN ff:ff 1 2 3 \r\n".to_vec(), sender),
            (binary(0x21, 0x11, IPV4), ours),
            (binary(0x21, 0x11, &[IPV4, &[1, 0, 2, b'h', b'2', 4, 0, 0]].concat()), ours),
            (binary(0x21, 0x21, &ipv6), proxied("[::1]:1", "[::2]:2")),
            (binary(0x21, 0x31, &[b'/'; UNIX_ADDRESSES]), sender),
            (binary(0x21, 0x00, b"anything"), sender),
            (binary(0x20, 0x11, b"anything"), sender),
        ]
    }

    #[test]
    fn each_form_is_read_and_what_follows_is_left() {
        for (prefix, origin) in valid() {
            let followed = [&prefix[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&followed), Ok(origin.map(|origin| (origin, prefix.len()))), "{prefix:?}");
        }
    }

    #[test]
    fn a_part_is_incomplete_wherever_it_ends() {
        for (prefix, _) in valid() {
            for length in 0..prefix.len() {
                assert_eq!(read(&prefix[..length]), Ok(None), "{length} of {prefix:?}");
            }
        }
    }

    #[test]
    fn what_is_odd_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes();
        for (prefix, error) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), PrefixError::Signature),
            (b"PROXX".to_vec(), PrefixError::Signature),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), PrefixError::Signature),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4  192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 192.0.2.01 198.51.100.2 12345 443\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 012 443\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 +12 443\r\n".to_vec(), PrefixError::Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n".to_vec(), PrefixError::Line),
            (b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n".to_vec(), PrefixError::Line),
            (b"PROXY \r\n".to_vec(), PrefixError::Line),
            (long, PrefixError::Line),
            (binary(0x11, 0x11, IPV4), PrefixError::Head),
            (binary(0x22, 0x11, IPV4), PrefixError::Head),
            (binary(0x21, 0x12, IPV4), PrefixError::Head),
            (binary(0x21, 0x41, IPV4), PrefixError::Head),
            (binary(0x21, 0x11, &IPV4[1..]), PrefixError::Content),
            (binary(0x21, 0x11, &[IPV4, &[1, 0]].concat()), PrefixError::Content),
            (binary(0x21, 0x11, &[IPV4, &[1, 0, 2, 0]].concat()), PrefixError::Content),
            (binary(0x20, 0x00, &vec![0; CONTENT_MAX + 1]), PrefixError::TooLong),
        ] {
            assert_eq!(read(&prefix), Err(error), "{}", prefix.escape_ascii());
        }
    }
}
