//! The upstream's side of HTTP/2: requests of a core share a connection, each on a stream of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::Upstream;
use sluice_wire::h1::body::{self, Framing};
use sluice_wire::h1::parse::HeadLimits;
use sluice_wire::h2::inbound;
use sluice_wire::h2::outbound::{self, Opening};
use sluice_wire::head::{Name, Request};
use sluice_wire::target::TargetError;

use crate::body::Source;
use crate::core::{Core, Scratch};
use crate::deadline::{Deadline, Expiry, ticks};
use crate::exchange::Exchange;
use crate::http2::{Data, Polled, SEND_BUFFER_BYTES, StreamReader, StreamWriter, websocket};
use crate::rt::{self, Buffer, SMALL};
use crate::transport::Transport;
use crate::upload::{Destination, Sink, Upload};
use crate::wheel::Tick;

use super::h1::{self, HeadError, INTERIM_MAX};
use super::pool::Endpoint;
use super::{Received, Watched, dial};

/// A connection that nothing was heard of for this long is asked whether it is alive before it is used.
const SILENCE_MAX: Tick = 10;

/// How long the answer may take.
const PONG_TIME_MAX: Tick = 10;

/// Bytes of content that may come before they are taken, of a stream and of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The connections of HTTP/2 to an endpoint.
#[derive(Default)]
pub(crate) struct Sessions {
    list: RefCell<Vec<Session>>,
    is_connecting: Cell<bool>,
    /// Requests that wait for a connection, or for a place on one.
    waiting: RefCell<Vec<Waker>>,
    /// Counts what they may have waited for.
    changes: Cell<u64>,
    /// How many attempts to connect have failed, and why the last one did.
    failures: Cell<u64>,
    failure: Cell<Option<Failure>>,
}

/// A connection that requests share.
struct Session {
    send: SendRequest<Data>,
    state: Rc<State>,
}

/// What is known of a connection, by itself and by its streams.
struct State {
    is_open: Cell<bool>,
    streams: Cell<usize>,
    /// When something was last heard of it.
    heard: Cell<Tick>,
    /// How long it is kept without requests.
    idle_max: Tick,
    ping: Cell<Ping>,
    /// The task that drives it.
    driver: RefCell<Option<Waker>>,
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ping {
    No,
    Wanted,
    Sent,
}

/// A request's place on a connection.
pub(crate) struct Place {
    state: Rc<State>,
    endpoint: Rc<Endpoint>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get() - 1);
        self.endpoint.sessions.changed();
    }
}

/// A request and its response on their way.
pub(crate) struct Stream {
    pub(crate) deadline: Rc<Deadline>,
    /// What a tunnel is written to.
    pub(crate) writer: Option<StreamWriter>,
    /// Held, not read: it is free again when the exchange has ended.
    _place: Place,
}

impl Sessions {
    fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn failed(&self, failure: Failure) {
        self.failure.set(Some(failure));
        self.failures.set(self.failures.get() + 1);
        self.changed();
    }

    /// The connection with the fewest requests, unless all are full.
    fn free(&self, core: &Core, endpoint: &Rc<Endpoint>, streams_max: usize) -> Option<(SendRequest<Data>, Place)> {
        let mut list = self.list.borrow_mut();
        let before = list.len();
        list.retain_mut(|session| session.state.is_open.get() && session.is_usable());
        core.metrics.upstream_idle.sub((before - list.len()) as u64);
        let session = list.iter().min_by_key(|session| session.state.streams.get())?;
        let streams = session.state.streams.get();
        if streams >= streams_max.min(session.send.current_max_send_streams()) {
            return None;
        }
        session.state.streams.set(streams + 1);
        let place = Place { state: Rc::clone(&session.state), endpoint: Rc::clone(endpoint) };
        Some((session.send.clone(), place))
    }

    /// Closes connections that have been idle for too long, and forgets those that have ended. Whether any is left.
    pub(super) fn sweep(&self, core: &Core) -> bool {
        let now = core.deadlines.now();
        let mut list = self.list.borrow_mut();
        let before = list.len();
        list.retain_mut(|session| {
            let state = &session.state;
            let is_idle = state.streams.get() == 0 && now >= state.heard.get().saturating_add(state.idle_max);
            // One whose peer goes away ends once nothing here holds on to it.
            state.is_open.get() && !is_idle && session.is_usable()
        });
        core.metrics.upstream_idle.sub((before - list.len()) as u64);
        !list.is_empty()
    }
}

impl Session {
    /// Whether the peer still takes new requests.
    fn is_usable(&mut self) -> bool {
        !matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}

impl State {
    /// Asks the peer whether it is there, and waits for the answer.
    async fn answers(&self, core: &Rc<Core>) -> bool {
        let asked = core.deadlines.now();
        if self.ping.get() == Ping::No {
            self.ping.set(Ping::Wanted);
            if let Some(driver) = self.driver.borrow_mut().take() {
                driver.wake();
            }
        }
        let deadline = core.deadlines.waits();
        deadline.set(asked.saturating_add(PONG_TIME_MAX), Expiry::Wake);
        poll_fn(|context| {
            if !self.is_open.get() {
                return Poll::Ready(false);
            }
            if self.ping.get() == Ping::No {
                return Poll::Ready(true);
            }
            if deadline.poll_over(context) {
                return Poll::Ready(false);
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// An attempt to connect, under way until it is dropped.
struct Connecting<'s>(&'s Sessions);

impl<'s> Connecting<'s> {
    fn new(sessions: &'s Sessions) -> Self {
        sessions.is_connecting.set(true);
        Connecting(sessions)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.is_connecting.set(false);
        self.0.changed();
    }
}

/// A place for a request, on a connection that is there or is made for it.
pub(super) struct Placed {
    send: SendRequest<Data>,
    place: Place,
    /// Whether the connection has served a request before.
    pub(super) reused: bool,
}

/// Finds a place for a request, or waits for one as long as connecting may take.
pub(super) async fn place(core: &Rc<Core>, upstream: &Upstream, endpoint: &Rc<Endpoint>) -> Result<Placed, Failure> {
    let sessions = &endpoint.sessions;
    let streams_max = upstream.http2.streams as usize;
    let deadline = core.deadlines.waits();
    deadline.set(core.deadlines.after(upstream.timeouts.connect), Expiry::Wake);
    let failures = sessions.failures.get();
    loop {
        if let Some((send, place)) = sessions.free(core, endpoint, streams_max) {
            let state = Rc::clone(&place.state);
            let is_silent = core.deadlines.now().saturating_sub(state.heard.get()) > SILENCE_MAX;
            if !is_silent || state.streams.get() > 1 || state.answers(core).await {
                core.metrics.upstream_reuses.add(1);
                return Ok(Placed { send, place, reused: true });
            }
            state.is_open.set(false);
            continue;
        }
        // One at a time: whoever comes meanwhile will mostly find room on it.
        if !sessions.is_connecting.get() && sessions.list.borrow().len() < upstream.http2.connections {
            let connecting = Connecting::new(sessions);
            let made = match dial(core, upstream, endpoint, true).await {
                Ok((transport, true)) => begin(core, endpoint, upstream, transport).await,
                // The peer does not speak it.
                Ok((_, false)) => Err(Failure::ResponseProtocol),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = made {
                sessions.failed(failure);
                return Err(failure);
            }
            let placed = sessions.free(core, endpoint, streams_max);
            drop(connecting);
            let (send, place) = placed.ok_or(Failure::ConnectionTerminated)?;
            return Ok(Placed { send, place, reused: false });
        }
        let changes = sessions.changes.get();
        let is_late = poll_fn(|context| {
            if deadline.poll_over(context) {
                return Poll::Ready(true);
            }
            if sessions.changes.get() != changes {
                return Poll::Ready(false);
            }
            sessions.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        if sessions.failures.get() != failures {
            return Err(sessions.failure.get().unwrap_or(Failure::ConnectionRefused));
        }
        if is_late {
            return Err(Failure::ConnectionTimeout);
        }
    }
}

/// Begins to speak HTTP/2 on a connection, which requests can share from then on.
pub(super) async fn begin(
    core: &Rc<Core>,
    endpoint: &Rc<Endpoint>,
    upstream: &Upstream,
    transport: Transport,
) -> Result<(), Failure> {
    let io = Polled::new(core, transport, upstream.timeouts.idle, None);
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size((upstream.header_bytes + 32 * upstream.header_fields) as u32)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_max_send_streams(upstream.http2.streams as usize)
        .handshake::<_, Data>(io.clone());
    let mut handshake = pin!(handshake);
    let (send, connection) = poll_fn(|context| {
        let polled = handshake.as_mut().poll(context);
        io.turn(context);
        polled
    })
    .await
    .map_err(|_| Failure::ConnectionTerminated)?;
    let now = core.deadlines.now();
    let state = Rc::new(State {
        is_open: Cell::new(true),
        streams: Cell::new(0),
        heard: Cell::new(now),
        idle_max: ticks(upstream.keep_alive.idle),
        ping: Cell::new(Ping::No),
        driver: RefCell::default(),
        waiting: RefCell::default(),
    });
    core.metrics.upstream_idle.add(1);
    endpoint.sessions.list.borrow_mut().push(Session { send, state: Rc::clone(&state) });
    rt::spawn(drive(Rc::clone(core), connection, io, state, Rc::clone(endpoint)));
    Ok(())
}

/// Moves frames until the connection has ended.
async fn drive(
    core: Rc<Core>,
    mut connection: Connection<Polled, Data>,
    io: Polled,
    state: Rc<State>,
    endpoint: Rc<Endpoint>,
) {
    let mut pings = connection.ping_pong();
    poll_fn(|context| {
        if let Some(pings) = &mut pings {
            if state.ping.get() == Ping::Wanted && pings.send_ping(h2::Ping::opaque()).is_ok() {
                state.ping.set(Ping::Sent);
            }
            if state.ping.get() == Ping::Sent && pings.poll_pong(context).is_ready() {
                state.ping.set(Ping::No);
                state.heard.set(core.deadlines.now());
                state.wake();
            }
        }
        let polled = Pin::new(&mut connection).poll(context);
        state.driver.replace(Some(context.waker().clone()));
        io.turn(context);
        polled.map(drop)
    })
    .await;
    state.is_open.set(false);
    state.wake();
    endpoint.sessions.changed();
    drop(connection);
    io.close().await;
}

/// Sends the request in `input` and waits for the head of the final response, passing interim ones on.
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange, and none belongs to another")]
pub(super) async fn exchange_heads(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    upstream: &Upstream,
    placed: Placed,
    deadline: &Rc<Deadline>,
    watched: &Watched,
) -> Result<(Received, Stream), HeadError> {
    let Placed { mut send, place, .. } = placed;
    let content = &input.filled()[scratch.request.length..][..exchange.buffered_bytes];
    h1::edit_request(exchange, scratch, input);
    if exchange.is_grpc {
        // Servers of gRPC look for it, to find out whether a proxy takes trailers away.
        scratch.edits.add_lines(b"TE: trailers\r\n");
    }
    let Opening { mut request, protocol } = {
        let target = scratch.rewritten.target.as_deref().unwrap_or(scratch.target.as_str());
        let host = scratch.rewritten.host.as_deref().unwrap_or(scratch.authority.as_str());
        let request = Request { bytes: input.filled(), head: &scratch.request };
        let scheme = if upstream.tls.is_some() { "https" } else { "http" };
        outbound::request(request, target, host, scheme, &scratch.edits)
            .map_err(|_| Failure::RequestTarget(TargetError::Character))?
    };
    let ends = content.is_empty() && exchange.incoming.is_none() && protocol.is_none();
    let not_sent = |failure| HeadError { is_refused: true, ..HeadError::from(failure) };
    poll_fn(|context| send.poll_ready(context)).await.map_err(|_| not_sent(Failure::ConnectionTerminated))?;
    if let Some(protocol) = protocol {
        // Whether it can be asked for stands in the peer's first frame, which its answer comes after.
        if !send.is_extended_connect_protocol_enabled() && !place.state.answers(core).await {
            return Err(not_sent(Failure::ConnectionTerminated));
        }
        if !send.is_extended_connect_protocol_enabled() {
            return Err(Failure::UpgradeFailed.into());
        }
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    }
    let sent = send.send_request(request, ends).map_err(|_| not_sent(Failure::ConnectionTerminated))?;
    let (response, stream) = sent;
    let due = core.deadlines.after(upstream.timeouts.response);
    deadline.set(exchange.bounded(due), Expiry::Wake);
    let writer = StreamWriter::new(stream, Rc::clone(deadline));
    if !content.is_empty() {
        let small = if content.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() };
        let mut buffer = small.ok_or(Failure::OutOfMemory)?;
        let fits = buffer.append(content);
        debug_assert!(fits, "content at hand is at most a buffer long");
        // A write that failed may have met an early answer, so the response is looked for all the same.
        let _ = writer.write(buffer, true).await;
    }
    let mut upload = None;
    let mut tunnel = protocol.map(|_| writer.clone());
    if let Some(incoming) = exchange.incoming.take() {
        let to = Destination {
            sink: Sink::Http2(writer),
            deadline: Rc::clone(deadline),
            response: upstream.timeouts.response,
            due: exchange.due,
        };
        upload = Some(Upload::start(core, incoming, Some(to)));
    }
    exchange.times.sent = Some(core.clock.now());
    exchange.times.first_byte = None;
    let received = receive_head(core, exchange, scratch, upstream, input, response, deadline, watched).await;
    place.state.heard.set(core.deadlines.now());
    match received {
        Ok((buffer, framing, content)) => {
            let received = Received { buffer, framing, content: Source::Http2(content), upload };
            let writer = tunnel.take().filter(|_| scratch.response.status == 101);
            Ok((received, Stream { deadline: Rc::clone(deadline), writer, _place: place }))
        }
        Err(mut error) => {
            if let Some(client_failure) = upload.as_ref().and_then(Upload::failure) {
                error.failure = client_failure;
            } else if watched.client_is_gone() {
                error.failure = Failure::ClientGone;
            }
            Err(HeadError { upload_begun: upload.is_some(), upload, ..error })
        }
    }
}

/// Waits for the head of the final response and takes what of its content has come with it.
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange, and none belongs to another")]
async fn receive_head(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    upstream: &Upstream,
    input: &Buffer,
    mut response: ResponseFuture,
    deadline: &Rc<Deadline>,
    watched: &Watched,
) -> Result<(Buffer, Framing, StreamReader), HeadError> {
    let limits = HeadLimits {
        head_bytes: upstream.header_bytes,
        fields: upstream.header_fields,
        line_bytes: upstream.header_bytes,
    };
    let begun = |failure| HeadError { response_begun: true, ..HeadError::from(failure) };
    let mut interim = 0;
    loop {
        enum Next {
            Interim(http::Response<()>),
            Final(http::Response<h2::RecvStream>),
        }
        let since = core.clock.now();
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(Ok(head))) = response.poll_informational(context) {
                return Poll::Ready(Some(Ok(Next::Interim(head))));
            }
            match Pin::new(&mut response).poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result.map(Next::Final))),
                Poll::Pending if deadline.poll_over(context) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let now = core.clock.now();
        exchange.times.waited += now - since;
        let next = match next {
            Some(Ok(next)) => next,
            Some(Err(error)) => return Err(HeadError::from(&error)),
            None => return Err(begun(Failure::ResponseTimeout)),
        };
        exchange.times.first_byte.get_or_insert(now);
        watched.progress();
        let (parts, stream) = match next {
            Next::Interim(head) => (head.into_parts().0, None),
            Next::Final(head) => {
                let (parts, stream) = head.into_parts();
                (parts, Some(stream))
            }
        };
        let ends = stream.as_ref().is_none_or(h2::RecvStream::is_end_stream);
        let accepts = exchange.upgrade.is_some() && stream.is_some();
        let accept = accepts.then(|| {
            let key = Request { bytes: input.filled(), head: &scratch.request }.field(Name::SecWebSocketKey);
            websocket::accept(key.unwrap_or_default())
        });
        let Scratch { head: out, response: head, .. } = scratch;
        inbound::response(&parts, ends, exchange.is_head, accept.as_deref(), out, head, limits)
            .map_err(|error| begun(Failure::ResponseMalformed(error)))?;
        let mut buffer = if out.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() }
            .ok_or_else(|| begun(Failure::OutOfMemory))?;
        let fits = buffer.append(out);
        debug_assert!(fits, "no head is longer than a large buffer");
        let Some(stream) = stream else {
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(begun(Failure::ResponseInterim));
            }
            h1::pass_on(core, exchange, scratch, &buffer).await.map_err(begun)?;
            continue;
        };
        let framing = body::response_framing(buffer.filled(), &scratch.response, exchange.is_head)
            .map_err(|error| begun(Failure::ResponseFraming(error)))?;
        let mut content = StreamReader::new(stream, Rc::clone(deadline));
        content.read_now(&mut buffer).map_err(|_| begun(Failure::ResponseIncomplete))?;
        return Ok((buffer, framing, content));
    }
}

impl From<&h2::Error> for HeadError {
    fn from(error: &h2::Error) -> Self {
        // RFC 9113 §8.7: what was refused was not acted on, and neither was what is above the last stream of a GOAWAY,
        // which is all that ends with one.
        let is_refused = error.is_remote() && (error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away());
        let failure = if is_refused || error.is_io() {
            Failure::ConnectionTerminated
        } else if error.is_reset() && error.is_remote() {
            Failure::ResponseReset
        } else {
            Failure::ResponseProtocol
        };
        HeadError { is_refused, ..HeadError::from(failure) }
    }
}
