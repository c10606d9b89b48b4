//! A client's connection that speaks HTTP/1.1: one request after the other.
//!
//! While nothing is asked the connection is a small task that waits for readiness and holds no buffer. What it
//! needs to serve is allocated when a request comes and kept as long as requests follow each other closely.

use std::rc::Rc;
use std::time::Duration;

use sluice_rules::failure::Failure;
use sluice_rules::reply::{OVERLOADED, Reply};
use sluice_wire::h1::parse::{self, HeadError, Progress};

use crate::core::{Core, Scratch};
use crate::deadline::{Expiry, LEAVING_IDLE_MAX, TICK};
use crate::exchange::Exchange;
use crate::observe::record::{Phase, Times};
use crate::respond::{Response, respond};
use crate::rt::{Buffer, Canceller, LARGE, Pending};
use crate::upload::Upload;

use super::{Client, cached, request, response};

/// How long a connection waits for its next request with a buffer in hand, which is cheaper than waiting for
/// readiness first, before it is idle.
const WARM: Duration = TICK.saturating_mul(2);

/// Bytes that are read after the last response, so that closing does not reset the connection before the client
/// has read it (RFC 9112 §9.6).
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long that may take.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// What a client sends that knows that HTTP/2 is spoken (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether two texts are the same as far as the shorter one goes.
fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// What becomes of a connection.
enum After {
    /// It waits for a next request.
    Idle,
    /// It ends.
    Close,
    /// It turns out to speak HTTP/2; what has come of it.
    Http2(Buffer),
}

/// Serves a connection until it ends.
#[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice, idle or not")]
pub(crate) fn serve(core: Rc<Core>, client: Client) -> impl Future<Output = ()> {
    async move {
        loop {
            // A client that connects and says nothing gets no buffer.
            if client.served.get() || client.stream.pending() == Pending::Nothing {
                let patience = {
                    let local = client.local(&core);
                    let timeouts = &client.listener(&local).timeouts;
                    let patience = if client.served.get() { timeouts.keep_alive } else { timeouts.header };
                    if client.is_leaving() { patience.min(LEAVING_IDLE_MAX) } else { patience }
                };
                client.deadline.set_after(patience, client.idle());
                if client.stream.readable().await.is_err() || client.deadline.expired() {
                    return;
                }
            }
            match Box::pin(serve_while_warm(&core, &client)).await {
                After::Idle => {}
                After::Close => return,
                After::Http2(input) => return Box::pin(super::h2::serve(core, client, Some(input))).await,
            }
        }
    }
}

/// Serves requests as long as they follow each other closely.
async fn serve_while_warm(core: &Rc<Core>, client: &Client) -> After {
    let Some(mut input) = core.buffers.take() else {
        client.stream.send_now(OVERLOADED);
        return After::Close;
    };
    let mut scratch = core.scratch();
    // Made when there is something to cancel: the first read finds bytes, or the connection would not be here.
    let mut canceller = None;
    let after = loop {
        let (head, returned) = read_head(core, client, canceller.as_deref(), &mut scratch, input).await;
        input = returned;
        let times = match head {
            Head::Complete(times) => times,
            Head::Idle => break After::Idle,
            Head::Closed => break After::Close,
            Head::Preface => break After::Http2(input),
            Head::Failed(failure, times) => {
                refuse(core, client, failure, times, input).await;
                break After::Close;
            }
        };
        client.deadline.unset();
        match serve_one(core, client, &mut scratch, times, input).await {
            Some(next) => input = next,
            None => break After::Close,
        }
        // Most connections that have sent one request send no second one soon.
        if !client.served.replace(true) && input.is_empty() {
            break After::Idle;
        }
        canceller.get_or_insert_with(|| {
            let canceller = Rc::new(Canceller::default());
            client.deadline.cancels(Some(Rc::clone(&canceller)));
            canceller
        });
    };
    client.deadline.cancels(None);
    after
}

/// What came of waiting for a request.
enum Head {
    /// Its head is at the front of the buffer, its table in the scratch.
    Complete(Times),
    /// Nothing came for a while.
    Idle,
    /// The client has closed or broken the connection.
    Closed,
    /// What came is the preface of HTTP/2.
    Preface,
    /// What came is no request.
    Failed(Failure, Times),
}

async fn read_head(
    core: &Rc<Core>,
    client: &Client,
    canceller: Option<&Canceller>,
    scratch: &mut Scratch,
    mut input: Buffer,
) -> (Head, Buffer) {
    let local = client.local(core);
    let listener = client.listener(&local);
    let limits = listener.limits.head();
    let mut progress = Progress::default();
    let mut begun = false;
    let mut times = Times::default();
    let mut skipped = false;
    loop {
        // RFC 9112 §2.2: one empty line before a request, left over by careless clients, is ignored.
        if !skipped && input.filled().starts_with(b"\r\n") {
            input.consume(2);
            skipped = true;
        }
        let result = if let Some(canceller) = canceller.filter(|_| input.is_empty()) {
            client.deadline.set_after(WARM, Expiry::Cancel);
            let (result, returned) = client.stream.read_unless(canceller, input).await;
            input = returned;
            match result {
                Some(result) => result,
                None => return (Head::Idle, input),
            }
        } else {
            if !matches!(input.filled(), b"" | b"\r") {
                let now = core.clock.now();
                times.began = if times.head == 0 { now } else { times.began };
                times.waited = now - times.began;
                times.head = now;
                let speaks_http2 = listener.protocols.http2 && listener.tls.is_none() && !client.served.get();
                let is_preface = speaks_http2 && begins_alike(input.filled(), PREFACE);
                if is_preface && input.len() >= PREFACE.len() {
                    return (Head::Preface, input);
                }
                if !is_preface && !listener.protocols.http1 {
                    return (Head::Failed(Failure::RequestHead(HeadError::Version), times), input);
                }
                let parsed = if is_preface {
                    Ok(false)
                } else {
                    parse::request(input.filled(), &mut progress, limits, &mut scratch.request)
                };
                match parsed {
                    Ok(true) => return (Head::Complete(times), input),
                    Ok(false) => {}
                    Err(error) => return (Head::Failed(Failure::RequestHead(error), times), input),
                }
            }
            if !begun {
                // From the first byte to the last, however they drip.
                begun = true;
                client.deadline.set_after(listener.timeouts.header, Expiry::ShutRead);
            }
            if input.spare() == 0 {
                input.compact();
            }
            if input.spare() == 0 {
                let Some(mut larger) = core.buffers.take_large() else {
                    return (Head::Failed(Failure::OutOfMemory, times), input);
                };
                let fits = larger.append(input.filled());
                debug_assert!(fits, "a head is never longer than a large buffer");
                input = larger;
            }
            let (result, returned) = client.stream.read(input).await;
            input = returned;
            result
        };
        match result {
            Ok(0) | Err(_) if begun && client.deadline.expired() => {
                times.waited = core.clock.now().saturating_sub(times.began);
                return (Head::Failed(Failure::HeaderTimeout, times), input);
            }
            Ok(0) | Err(_) => return (Head::Closed, input),
            Ok(_) => {}
        }
    }
}

/// Serves the request whose head is at the front of `input`. Returns what of the next one has come already, or
/// `None` if the connection has ended.
async fn serve_one(
    core: &Rc<Core>,
    client: &Client,
    scratch: &mut Scratch,
    times: Times,
    mut input: Buffer,
) -> Option<Buffer> {
    let mut exchange = Exchange::open(core, client, times);
    let outcome = match request::admit(core, &mut exchange, scratch, &mut input, None) {
        Ok(()) => {
            exchange.phase = Phase::Route;
            respond(core, &mut exchange, scratch, &input).await
        }
        Err(failure) => {
            // What is wrong was found before the request was parted from the next one.
            exchange.keep_alive = false;
            Err(failure)
        }
    };
    let sent = match outcome {
        Ok(Response::Upstream(upstream)) => {
            let behind = scratch.request.length + exchange.buffered_bytes;
            response::send(core, &mut exchange, scratch, upstream, &input.filled()[behind..]).await
        }
        Ok(Response::Cached(cached)) => cached::send(core, &mut exchange, scratch, cached).await,
        Ok(Response::Own(reply)) => response::send_own(core, &mut exchange, reply).await,
        Err(failure) => response::send_own(core, &mut exchange, Reply::failure(failure)).await,
    };
    let mut upload = sent.upload.or(exchange.orphan.take());
    if let Some(upload) = &upload {
        exchange.bytes.request_content = upload.content_bytes();
    }
    exchange.close(core, Some((scratch, &input)));
    if let Some(incoming) = exchange.incoming.take().filter(|_| sent.intact) {
        // Nobody took the content: it must be out of the way before the next request can be read.
        upload = Some(Upload::start(core, incoming, None));
    }
    if !sent.intact || !exchange.keep_alive {
        if sent.linger || (sent.intact && upload.is_some()) {
            client.stream.finish().await;
            if let Some(upload) = upload {
                // One reader at a time: what it leaves is taken below, whatever it ends with.
                let _ = upload.drain(core).await;
            }
            linger(core, client, input).await;
        } else if sent.intact {
            client.stream.close_notify().await;
        }
        return None;
    }
    let Some(upload) = upload else {
        input.consume(scratch.request.length + exchange.buffered_bytes);
        return Some(input);
    };
    let surplus = match upload.drain(core).await {
        Ok(surplus) => surplus,
        Err(_) => {
            linger(core, client, input).await;
            return None;
        }
    };
    input.clear();
    if surplus.len() > input.spare() {
        debug_assert!(surplus.len() <= LARGE, "it came in one buffer");
        input = core.buffers.take_large()?;
    }
    input.append(&surplus).then_some(input)
}

/// Tells the client what is wrong with what it sent, and ends the connection.
async fn refuse(core: &Rc<Core>, client: &Client, failure: Failure, times: Times, input: Buffer) {
    let mut exchange = Exchange::open(core, client, times);
    let sent = response::send_own(core, &mut exchange, Reply::failure(failure)).await;
    exchange.close(core, None);
    if sent.intact {
        linger(core, client, input).await;
    }
}

/// Takes for a while what the client still sends, so that it can read the last response: closing a socket with
/// unread bytes resets the connection.
pub(crate) async fn linger(core: &Core, client: &Client, mut buffer: Buffer) {
    client.stream.finish().await;
    client.deadline.set(core.deadlines.after(LINGER_TIME_MAX), Expiry::ShutBoth);
    let mut taken = 0;
    while taken < LINGER_BYTES_MAX {
        buffer.clear();
        let (result, returned) = client.stream.read(buffer).await;
        buffer = returned;
        match result {
            Ok(0) | Err(_) => return,
            Ok(count) => taken += count,
        }
    }
}
