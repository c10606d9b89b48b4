//! A response of the cache on its way to the client: stored, or still on its way from the origin.

use std::ops::Range;
use std::rc::Rc;

use sluice_rules::cache::range::{self, Multipart};
use sluice_rules::cache::{conditional, stored};
use sluice_rules::failure::{self, Failure};
use sluice_rules::reply::connection_field;
use sluice_wire::Version;
use sluice_wire::head::{Name, Response};

use crate::body::Frame;
use crate::cache::{self, Answer, Cached, End, Filling, Indexed, Next, Source};
use crate::core::{Core, Scratch};
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::limits::{Pacer, settle};
use crate::observe::record::Phase;
use crate::rt::{Buffer, Lease, SMALL};
use crate::upstream::Watched;
use crate::wheel::Tick;

use super::out::Out;
use super::response::{SentResponse, begin_own, pacer};

/// Bodies up to this length are copied behind the head, which is cheaper than handing the kernel two pieces.
const COPIED_BYTES_MAX: u64 = 8 * 1024;

/// Pieces that are written at once.
const LEASES_MAX: usize = 16;

/// Sends it.
pub(super) async fn send(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    cached: Cached,
) -> SentResponse {
    // RFC 9110 §10.1.1: a client that still waits for a 100 may or may not send its content now.
    exchange.keep_alive &= !exchange.expects_continue;
    exchange.phase = Phase::Response;
    let hidden = cost(core, exchange, &cached);
    let plan = Plan::new(exchange, &cached);
    if plan.ends_with_connection {
        exchange.keep_alive = false;
    }
    let head = write_head(core, exchange, &mut scratch.head, &cached, &plan, &hidden);
    let Some(mut buffer) = head else {
        exchange.answered(plan.status, Some(Failure::OutOfMemory));
        exchange.break_off();
        return SentResponse::broken();
    };
    let Cached { source, answer, .. } = cached;
    let pace = Paced::new(core, exchange);
    if let (Source::Stored(stored), Answer::Whole, None) = (&source, &answer, &pace)
        && !plan.is_bodiless
        && plan.length.is_some_and(|length| length <= COPIED_BYTES_MAX)
        && exchange.stream.is_none()
        && buffer.append(stored.object().body_at(0))
        && stored.object().body_at(0).len() as u64 == stored.object().body_bytes()
    {
        exchange.bytes.response_content = stored.object().body_bytes();
        let (result, _) = exchange.client.write_all(core, exchange, buffer).await;
        return sent(exchange, &plan, result.err().map(|_| exchange.lost()));
    }
    Box::pin(send_parts(core, exchange, source, answer, plan, buffer, pace)).await
}

/// Charges what a stored response says that its request has cost. Returns the fields that said so, which are not for the
/// client.
fn cost(core: &Core, exchange: &mut Exchange<'_>, cached: &Cached) -> Vec<String> {
    if exchange.owed.is_empty() {
        return Vec::new();
    }
    let bytes = cached.object().head();
    stored::parse(bytes).map_or_else(Vec::new, |head| settle(core, exchange, Response { bytes, head: &head }))
}

/// How a body leaves.
struct Way {
    out: Out,
    pace: Option<Paced>,
}

/// What keeps a response to its bandwidth, while its client is there.
struct Paced {
    pacer: Box<Pacer>,
    deadline: Rc<Deadline>,
    watched: Watched,
}

impl Paced {
    fn new(core: &Rc<Core>, exchange: &Exchange<'_>) -> Option<Self> {
        let pacer = pacer(core, exchange)?;
        let deadline = Rc::new(core.deadlines.waits());
        let watched = Watched::enter(core, exchange, &deadline);
        Some(Paced { pacer, deadline, watched })
    }

    /// Waits until more may be sent after so many bytes. Why it does not go on.
    async fn rest(pace: &mut Option<Paced>, core: &Core, exchange: &mut Exchange<'_>, sent: usize) -> Option<Failure> {
        let Paced { pacer, deadline, watched } = pace.as_mut()?;
        deadline.set(exchange.bounded(Tick::MAX / 2), Expiry::Wake);
        let since = core.clock.now();
        let rested = Box::pin(pacer.rest(core, deadline, sent, || watched.progress())).await;
        exchange.times.waited += core.clock.now() - since;
        let gone = if watched.client_is_gone() { Failure::ClientGone } else { Failure::ResponseTimeout };
        (!rested).then_some(gone)
    }
}

/// How a response of the cache is framed.
struct Plan {
    status: u16,
    /// Bytes of the content, if they are known.
    length: Option<u64>,
    frame: Frame,
    /// Whether only the head is sent.
    is_bodiless: bool,
    /// Whether the end of the content is the end of the connection.
    ends_with_connection: bool,
}

impl Plan {
    fn new(exchange: &Exchange<'_>, cached: &Cached) -> Self {
        let whole = match &cached.source {
            Source::Stored(stored) => Some(stored.object().body_bytes()),
            Source::Fill(filling) => filling.length,
        };
        let stored_status = cached.object().facts.status;
        let (status, length) = match &cached.answer {
            Answer::Whole => (stored_status, whole),
            Answer::NotModified => (304, None),
            Answer::Part(range) => (206, Some(range.end - range.start)),
            Answer::Parts(parts) => (206, Some(parts.length)),
            Answer::Unsatisfiable => (416, Some(0)),
        };
        let has_no_content = matches!(status, 204 | 304);
        let is_unknown = length.is_none() && !has_no_content;
        let is_chunked = is_unknown && exchange.version == Version::Http11;
        Plan {
            status,
            length: length.filter(|_| !has_no_content),
            frame: if is_chunked { Frame::Chunked } else { Frame::Raw },
            is_bodiless: exchange.is_head || has_no_content || status == 416,
            ends_with_connection: is_unknown && !is_chunked && exchange.stream.is_none() && !exchange.is_head,
        }
    }
}

/// Writes the head to a buffer, in the form of HTTP/1.1. What was stored is copied; what is of the moment comes behind
/// it. `None`: there is no room.
fn write_head(
    core: &Core,
    exchange: &Exchange<'_>,
    lines: &mut Vec<u8>,
    cached: &Cached,
    plan: &Plan,
    hidden: &[String],
) -> Option<Buffer> {
    let mut number = itoa::Buffer::new();
    let head = cached.object().head();
    let mut put = |out: &mut Vec<u8>, name: &[u8], value: u64| {
        out.extend_from_slice(name);
        out.extend_from_slice(number.format(value).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    lines.clear();
    let kept: &[u8] = match &cached.answer {
        Answer::Whole if hidden.is_empty() => head.strip_suffix(b"\r\n").unwrap_or(head),
        answer => {
            changed_head(core, lines, head, answer, cached.object().body_bytes(), plan.status, hidden)?;
            &[]
        }
    };
    if let Some(length) = plan.length {
        put(lines, b"Content-Length: ", length);
    } else if plan.frame == Frame::Chunked && !exchange.is_head {
        lines.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if plan.status != 416 {
        put(lines, b"Age: ", u64::from(cached.age));
    }
    lines.extend_from_slice(b"Via: 1.1 sluice\r\n");
    if let Some(note) = &exchange.cache {
        note.write(lines);
    }
    lines.extend_from_slice(exchange.told.as_bytes());
    let connection = connection_field(exchange.keep_alive, exchange.version);
    if !connection.is_empty() {
        for part in ["Connection: ", connection, "\r\n"] {
            lines.extend_from_slice(part.as_bytes());
        }
    }
    lines.extend_from_slice(b"\r\n");
    let is_long = kept.len() + lines.len() > SMALL;
    let mut buffer = if is_long { core.buffers.take_large() } else { core.buffers.take() }?;
    (buffer.append(kept) && buffer.append(lines)).then_some(buffer)
}

/// Appends the head of an answer that is not simply what is stored, without its empty line.
fn changed_head(
    core: &Core,
    out: &mut Vec<u8>,
    head: &[u8],
    answer: &Answer,
    length: u64,
    status: u16,
    hidden: &[String],
) -> Option<()> {
    let parsed = stored::parse(head)?;
    let view = Response { bytes: head, head: &parsed };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(failure::reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let without = match answer {
        Answer::NotModified => {
            conditional::not_modified(view, out);
            return Some(());
        }
        Answer::Unsatisfiable => {
            core.date(|date| {
                for part in ["Date: ", date, "\r\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            });
            range::content_range_unsatisfied(length, out);
            return Some(());
        }
        Answer::Part(range) => {
            range::content_range(range, length, out);
            None
        }
        Answer::Parts(parts) => {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(&parts.content_type);
            out.extend_from_slice(b"\r\n");
            Some(Name::ContentType)
        }
        Answer::Whole => None,
    };
    for line in parsed.fields.lines().iter().filter(|line| Some(line.name) != without) {
        let name = line.name_span.of(head);
        if !hidden.iter().any(|hidden| name.eq_ignore_ascii_case(hidden.as_bytes())) {
            out.extend_from_slice(line.line.of(head));
        }
    }
    Some(())
}

/// Sends what does not leave in one write.
async fn send_parts(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    source: Source,
    answer: Answer,
    plan: Plan,
    mut buffer: Buffer,
    pace: Option<Paced>,
) -> SentResponse {
    let is_all = plan.is_bodiless || plan.length == Some(0);
    let head = match &exchange.stream {
        // By a stream the head goes on its own.
        Some(_) => begin_own(exchange, &mut buffer, is_all).map(|out| (out, None)),
        None => Some((Out::Http1 { frame: plan.frame, head_is_due: false }, Some(buffer))),
    };
    let Some((out, head)) = head else {
        return sent(exchange, &plan, Some(exchange.lost()));
    };
    if is_all {
        let result = match head {
            Some(head) => exchange.client.write_all(core, exchange, head).await.0,
            None => Ok(()),
        };
        return sent(exchange, &plan, result.err().map(|_| exchange.lost()));
    }
    let mut way = Way { out, pace };
    let failure = match (source, answer) {
        (Source::Fill(filling), _) => send_filling(core, exchange, &mut way, head, *filling).await,
        (Source::Stored(stored), Answer::Parts(parts)) => {
            send_multipart(core, exchange, &mut way, head, &stored, &parts).await
        }
        (Source::Stored(stored), Answer::Part(range)) => {
            send_range(core, exchange, &mut way, head, &stored, range, true).await
        }
        (Source::Stored(stored), Answer::Whole | Answer::NotModified | Answer::Unsatisfiable) => {
            let whole = 0..stored.object().body_bytes();
            send_range(core, exchange, &mut way, head, &stored, whole, true).await
        }
    };
    sent(exchange, &plan, failure)
}

/// Sends a part of a stored body from where it is. `last`: nothing follows.
async fn send_range(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    way: &mut Way,
    mut head: Option<Buffer>,
    stored: &Rc<Indexed>,
    range: Range<u64>,
    last: bool,
) -> Option<Failure> {
    let mut offset = range.start;
    let (leases_max, bytes_max) = if way.pace.is_some() { (1, SMALL) } else { (LEASES_MAX, usize::MAX) };
    while offset < range.end {
        let mut leases = Vec::new();
        let before = offset;
        while offset < range.end && leases.len() < leases_max {
            let lease = Lease::of(stored, |stored: &Indexed| {
                let rest = stored.object().body_at(offset);
                let wanted = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
                &rest[..rest.len().min(wanted).min(bytes_max)]
            });
            if lease.is_empty() {
                // It would go on for ever; what is stored is as long as it says.
                debug_assert!(false, "a stored body is whole");
                return Some(Failure::Internal);
            }
            offset += lease.len() as u64;
            exchange.bytes.response_content += lease.len() as u64;
            leases.push(lease);
        }
        if way.out.lent(core, exchange, head.take(), leases, last && offset == range.end).await.is_err() {
            return Some(exchange.lost());
        }
        if offset < range.end
            && let Some(failure) = Paced::rest(&mut way.pace, core, exchange, (offset - before) as usize).await
        {
            return Some(failure);
        }
    }
    None
}

/// Sends several parts of a stored body, each with what stands before it.
async fn send_multipart(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    way: &mut Way,
    mut head: Option<Buffer>,
    stored: &Rc<Indexed>,
    parts: &Multipart,
) -> Option<Failure> {
    for (before, range) in &parts.parts {
        if let Some(failure) = send_text(core, exchange, way, head.take(), before, false).await {
            return Some(failure);
        }
        if let Some(failure) = send_range(core, exchange, way, None, stored, range.clone(), false).await {
            return Some(failure);
        }
    }
    send_text(core, exchange, way, None, &parts.end, true).await
}

async fn send_text(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    way: &mut Way,
    head: Option<Buffer>,
    text: &[u8],
    last: bool,
) -> Option<Failure> {
    if let Some(head) = head
        && exchange.client.write_all(core, exchange, head).await.0.is_err()
    {
        return Some(exchange.lost());
    }
    let Some(mut buffer) = core.buffers.take() else { return Some(Failure::OutOfMemory) };
    if !buffer.append(text) {
        return Some(Failure::Internal);
    }
    exchange.bytes.response_content += text.len() as u64;
    let (result, _) = way.out.content(core, exchange, &[], buffer, last).await;
    result.is_err().then(|| exchange.lost())
}

/// Sends a body as it arrives.
async fn send_filling(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    way: &mut Way,
    mut head: Option<Buffer>,
    mut filling: Filling,
) -> Option<Failure> {
    let leases_max = if way.pace.is_some() { 1 } else { LEASES_MAX };
    let Filling { length, follower, waiting, .. } = &mut filling;
    let mut left = *length;
    loop {
        let mut leases = Vec::new();
        let mut end = None;
        while leases.len() < leases_max && end.is_none() {
            match cache::next(core, follower) {
                Some(Next::Part(segment)) => {
                    let lease = Lease::of_shared(&segment, |segment: &cache::Segment| segment.bytes());
                    left = left.map(|left| left.saturating_sub(lease.len() as u64));
                    exchange.bytes.response_content += lease.len() as u64;
                    leases.push(lease);
                }
                Some(other) => end = Some(other),
                None => break,
            }
        }
        let sent_bytes: usize = leases.iter().map(|lease| lease.len()).sum();
        let is_whole = left == Some(0) || matches!(end, Some(Next::End(End::Whole)));
        if (head.is_some() || !leases.is_empty() || is_whole)
            && way.out.lent(core, exchange, head.take(), leases, is_whole).await.is_err()
        {
            return Some(exchange.lost());
        }
        match end {
            _ if is_whole => return None,
            Some(Next::End(End::Failed(failure))) => return Some(failure),
            Some(_) => return Some(Failure::WriteTimeout),
            None => {}
        }
        if let Some(failure) = Paced::rest(&mut way.pace, core, exchange, sent_bytes).await {
            return Some(failure);
        }
        let since = core.clock.now();
        let waited = waiting.ready(core, follower).await;
        exchange.times.waited += core.clock.now() - since;
        if let Err(failure) = waited {
            return Some(failure);
        }
    }
}

/// Takes note of how it ended.
fn sent(exchange: &mut Exchange<'_>, plan: &Plan, failure: Option<Failure>) -> SentResponse {
    exchange.answered(plan.status, failure);
    let Some(failure) = failure else {
        return SentResponse { intact: true, linger: !exchange.keep_alive, upload: None };
    };
    let client_is_there = !matches!(failure, Failure::ClientGone | Failure::WriteTimeout);
    if exchange.stream.is_none() && client_is_there && !plan.ends_with_connection {
        // What is missing shows by itself.
        return SentResponse { intact: false, linger: true, upload: None };
    }
    exchange.break_off();
    SentResponse::broken()
}
