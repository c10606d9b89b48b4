//! Requests, responses and what is stored of them, for tests.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::head::{Request, RequestHead, Response, ResponseHead};
use sluice_wire::target::{Policy, Target};

use super::lookup::{Asked, Decision, Found, decide};
use super::storable::{NotStored, Storable, judge};
use super::stored::Facts;
use super::{Moment, Times, UnixSeconds};
use crate::snapshot::CachePolicy;

/// The wall's time in tests: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) const WALL: UnixSeconds = 784_111_777;

/// `WALL` as a date.
pub(crate) const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// When responses are received in tests.
pub(crate) const RECEIVED: Moment = Moment(1_000_000);

/// Times of a response that comes at once.
pub(crate) const AT_ONCE: Times = Times { asked: RECEIVED, received: RECEIVED, wall: WALL };

const LIMITS: HeadLimits = HeadLimits { head_bytes: 64 << 10, fields: 256, line_bytes: 64 << 10 };

/// A response as it was received.
pub(crate) struct Received {
    bytes: Vec<u8>,
    head: ResponseHead,
}

/// A response with this status and these fields, separated by line feeds.
pub(crate) fn received(status: u16, fields: &str) -> Received {
    let mut bytes = format!("HTTP/1.1 {status} X\r\n").into_bytes();
    put_lines(fields.as_bytes(), &mut bytes);
    let mut head = ResponseHead::default();
    assert_eq!(parse::response(&bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true), "{fields}");
    Received { bytes, head }
}

impl Received {
    pub(crate) fn view(&self) -> Response<'_> {
        Response { bytes: &self.bytes, head: &self.head }
    }
}

/// A 200 with `Date` and these fields.
pub(crate) fn ok(fields: &str) -> Received {
    received(200, &format!("Date: {DATE}\n{fields}"))
}

/// A request as it was sent.
pub(crate) struct Sent {
    bytes: Vec<u8>,
    head: RequestHead,
    pub(crate) target: Target,
}

/// A request: method, target and fields, separated by line feeds.
pub(crate) fn sent(method: &str, target: &str, fields: &str) -> Sent {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    put_lines(fields.as_bytes(), &mut bytes);
    let mut head = RequestHead::default();
    assert_eq!(parse::request(&bytes, &mut Progress::default(), LIMITS, &mut head), Ok(true), "{fields}");
    let mut normal = Target::default();
    normal.read(method, target.as_bytes(), Policy::default()).unwrap();
    Sent { bytes, head, target: normal }
}

/// A GET with these fields.
pub(crate) fn get(fields: &str) -> Sent {
    sent("GET", "/", fields)
}

impl Sent {
    pub(crate) fn view(&self) -> Request<'_> {
        Request { bytes: &self.bytes, head: &self.head }
    }

    pub(crate) fn asked(&self, policy: &CachePolicy) -> Asked {
        Asked::read(policy, self.view(), &self.target, false)
    }
}

fn put_lines(fields: &[u8], bytes: &mut Vec<u8>) {
    for line in fields.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
}

/// What is stored of a response to a plain GET, by a policy.
pub(crate) fn stored_by(policy: &CachePolicy, response: &Received) -> Result<Storable, NotStored> {
    judge(policy, &get("").asked(policy), response.view(), AT_ONCE, 0)
}

/// What is stored of a response to a plain GET.
pub(crate) fn stored(response: &Received) -> Result<Storable, NotStored> {
    stored_by(&CachePolicy::default(), response)
}

/// What becomes of a GET with these fields, this many seconds after a 200 with those was stored.
pub(crate) fn decided(response: &str, request: &str, seconds: u64) -> Decision {
    let facts = facts(response);
    decide(&get(request).asked(&CachePolicy::default()), Found::Stored(&facts), RECEIVED.after(seconds * 1000))
}

/// What is known of a stored 200 with these fields.
pub(crate) fn facts(fields: &str) -> Facts {
    stored(&ok(fields)).map(|storable| storable.facts).unwrap()
}
