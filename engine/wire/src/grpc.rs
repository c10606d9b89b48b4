//! What a gateway has to know of gRPC over HTTP/2: which requests are calls, and how long they may take.

use std::time::Duration;

use crate::head::{Name, Request};

/// Whether a request is a call: by its media type, which may say how messages are encoded.
pub fn is_call(request: Request<'_>) -> bool {
    let rest = request.field(Name::ContentType).and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The time that `grpc-timeout` gives: at most eight digits and a unit. `None`: it is not valid.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The method that tells of a server's health (gRPC health checking protocol, version 1).
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// A `HealthCheckRequest` for a service, as a message of a call.
pub fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, of variable length.
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// Whether the message of a call is a `HealthCheckResponse` that says SERVING. Fields that are not known are skipped;
/// what is no message serves nothing.
pub fn is_serving(framed: &[u8]) -> bool {
    const SERVING: u64 = 1;
    let Some((&[compressed, a, b, c, d], mut message)) = framed.split_first_chunk() else { return false };
    if compressed != 0 || u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return false;
    }
    let mut status = 0;
    while !message.is_empty() {
        let Some(key) = varint(&mut message) else { return false };
        let skipped = match key & 7 {
            0 => {
                let Some(value) = varint(&mut message) else { return false };
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => varint(&mut message).unwrap_or(u64::MAX),
            5 => 4,
            _ => return false,
        };
        let Some(rest) = usize::try_from(skipped).ok().and_then(|skipped| message.get(skipped..)) else { return false };
        message = rest;
    }
    status == SERVING
}

/// An integer in groups of seven bits, the lowest first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_asks_for_a_service_by_name() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("a.B"), [b"\0\0\0\0\x05\x0a\x03".as_slice(), b"a.B"].concat());
        let long = "x".repeat(200);
        assert_eq!(health_request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 200, 1]);
    }

    #[test]
    fn only_serving_is_serving() {
        let answer = |message: &[u8]| {
            let length = (message.len() as u32).to_be_bytes();
            is_serving(&[[0].as_slice(), &length, message].concat())
        };
        for (message, expected) in [
            (&[0x08, 1][..], true),
            (&[0x08, 2, 0x08, 1], true),
            (&[0x12, 2, 0, 0, 0x08, 1], true),
            (&[0x08, 0x81, 0], true),
            (&[0x08, 1, 0x15, 0, 0, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0], true),
            (&[], false),
            (&[0x08, 0], false),
            (&[0x08, 2], false),
            (&[0x08, 3], false),
            (&[0x10, 1], false),
            (&[0x08], false),
            (&[0x0b], false),
            (&[0x12, 9, 0], false),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], false),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], false),
        ] {
            assert_eq!(answer(message), expected, "{message:x?}");
        }
        for framed in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x03\x08\x01"] {
            assert!(!is_serving(framed), "{framed:x?}");
        }
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (value, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("2M", Some(Duration::from_secs(120))),
            ("S", None),
            ("", None),
            ("100000000S", None),
            ("1s", None),
            ("-1S", None),
        ] {
            assert_eq!(timeout(value.as_bytes()), expected, "{value}");
        }
    }
}
