//! A client's connection that speaks HTTP/2: requests on streams, each a task of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use sluice_rules::failure::Failure;
use sluice_rules::reply::Reply;
use sluice_rules::snapshot::Listener;
use sluice_wire::h2::inbound;
use sluice_wire::h2::meter::{Budget, Flood};

use crate::core::{Core, Scratch};
use crate::deadline::{Deadline, Expiry, LEAVING_IDLE_MAX, ticks};
use crate::exchange::Exchange;
use crate::http2::{Data, Polled, SEND_BUFFER_BYTES, StreamReader, StreamWriter};
use crate::observe::record::{Phase, Times};
use crate::respond::{Response, respond};
use crate::rt::{self, Buffer, SMALL};
use crate::wheel::Tick;

use super::out::Out;
use super::{Client, cached, request, response};

/// A request's stream, as long as its exchange lasts.
pub(crate) struct ClientStream {
    carrier: RefCell<Carrier>,
    /// Of waits for the client to take more.
    pub(crate) deadline: Rc<Deadline>,
    is_gone: Cell<bool>,
    /// What ends when the client gives up.
    upstream: RefCell<Option<Rc<Deadline>>>,
    /// What a tunnel reads from.
    reader: Cell<Option<StreamReader>>,
}

/// What the response is sent by.
enum Carrier {
    /// The head is still to be sent.
    Head(SendResponse<Data>),
    /// It was sent, and content may follow.
    Content(StreamWriter),
}

impl ClientStream {
    fn new(core: &Core, respond: SendResponse<Data>) -> Self {
        ClientStream {
            carrier: RefCell::new(Carrier::Head(respond)),
            deadline: Rc::new(core.deadlines.waits()),
            is_gone: Cell::new(false),
            upstream: RefCell::default(),
            reader: Cell::default(),
        }
    }

    /// Whether the client has given up on the request.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Says what ends when the client gives up.
    pub(crate) fn ends_with_it(&self, upstream: Option<Rc<Deadline>>) {
        self.upstream.replace(upstream);
    }

    /// What the client sends behind its head, for a tunnel.
    pub(super) fn take_reader(&self) -> Option<StreamReader> {
        self.reader.take()
    }

    /// Sends an interim response.
    pub(crate) fn send_interim(&self, response: http::Response<()>) -> Result<(), h2::Error> {
        match &mut *self.carrier.borrow_mut() {
            Carrier::Head(respond) => respond.send_informational(response),
            Carrier::Content(_) => Ok(()),
        }
    }

    /// Sends the head of the response. `ends`: it is all there is. `None`: the client has gone.
    pub(super) fn send_head(&self, response: http::Response<()>, ends: bool) -> Option<Out> {
        let mut carrier = self.carrier.borrow_mut();
        let Carrier::Head(respond) = &mut *carrier else { return None };
        let stream = respond.send_response(response, ends).ok()?;
        let writer = StreamWriter::new(stream, Rc::clone(&self.deadline));
        *carrier = Carrier::Content(writer.clone());
        Some(if ends { Out::Ended } else { Out::Http2(writer) })
    }

    /// Ends the stream before its time.
    pub(crate) fn reset(&self, reason: Reason) {
        match &mut *self.carrier.borrow_mut() {
            Carrier::Head(respond) => respond.send_reset(reason),
            Carrier::Content(writer) => writer.reset(reason),
        }
    }

    /// Looks whether the client has given up, and ends what works for it. The task is woken when it does.
    fn watch(&self, context: &mut Context<'_>) {
        let has_gone = !self.is_gone()
            && match &mut *self.carrier.borrow_mut() {
                Carrier::Head(respond) => respond.poll_reset(context).is_ready(),
                Carrier::Content(writer) => writer.poll_reset(context),
            };
        if has_gone {
            self.is_gone.set(true);
            self.deadline.end();
            if let Some(upstream) = &*self.upstream.borrow() {
                upstream.end();
            }
        }
    }
}

/// What the streams of a connection tell it.
struct Streams {
    open: Cell<usize>,
    /// When the last one ended.
    idle_since: Cell<Tick>,
}

/// Counts a stream as open until it is dropped.
struct Open {
    core: Rc<Core>,
    streams: Rc<Streams>,
}

impl Open {
    fn new(core: &Rc<Core>, streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Open { core: Rc::clone(core), streams: Rc::clone(streams) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.open.set(self.streams.open.get() - 1);
        self.streams.idle_since.set(self.core.deadlines.now());
    }
}

/// What a connection has to do next.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Turn {
    Request(http::Request<RecvStream>, SendResponse<Data>),
    /// It was woken: its time is up, or its listener closes.
    Woken,
    /// The client sends too many of these.
    Flood(Flood),
    Ended,
}

fn builder(listener: &Listener) -> Builder {
    let limits = &listener.http2;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .initial_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        // RFC 9113 §6.5.2 counts 32 bytes for each field beside its own.
        .max_header_list_size((listener.limits.header_bytes + 32 * listener.limits.header_fields) as u32)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_connect_protocol();
    builder
}

fn budget(listener: &Listener) -> Budget {
    Budget {
        resets_per_second: listener.http2.resets_per_second,
        control_frames_per_second: listener.http2.control_frames_per_second,
        // Compression makes a head shorter, or hardly longer.
        header_block_bytes: listener.limits.header_bytes as u32,
    }
}

/// Serves a connection until it ends. `input` is what has been read of it.
pub(crate) async fn serve(core: Rc<Core>, client: Client, input: Option<Buffer>) {
    let client = Rc::new(client);
    let local = client.local(&core);
    let timeouts = client.listener(&local).timeouts.clone();
    let io = Polled::metered(&core, client.stream.clone(), timeouts.write, input, budget(client.listener(&local)));
    let handshake = builder(client.listener(&local)).handshake::<_, Data>(io.clone());
    drop(local);
    client.deadline.set_after(timeouts.header, Expiry::ShutBoth);
    let mut handshake = pin!(handshake);
    let connection = poll_fn(|context| {
        let polled = handshake.as_mut().poll(context);
        io.turn(context);
        polled
    });
    let Ok(mut connection) = connection.await else { return io.close().await };
    client.deadline.unset();
    let streams = Rc::new(Streams { open: Cell::new(0), idle_since: Cell::new(core.deadlines.now()) });
    let deadline = core.deadlines.waits();
    let mut leaving_since = None;
    loop {
        let now = core.deadlines.now();
        let patience = match leaving_since {
            Some(since) if streams.open.get() == 0 && now >= since + ticks(LEAVING_IDLE_MAX) => break,
            Some(_) => LEAVING_IDLE_MAX,
            None if client.is_leaving() => {
                leaving_since = Some(now);
                connection.graceful_shutdown();
                LEAVING_IDLE_MAX
            }
            None => timeouts.keep_alive,
        };
        let is_idle = streams.open.get() == 0 && now >= streams.idle_since.get() + ticks(patience);
        if is_idle && leaving_since.is_none() {
            leaving_since = Some(now);
            connection.graceful_shutdown();
            continue;
        }
        deadline.renew();
        deadline.set_after(patience, Expiry::WakeWith { door: client.door() });
        match turn(&mut connection, &io, &deadline).await {
            Turn::Request(request, respond) => {
                let open = Open::new(&core, &streams);
                client.served.set(true);
                rt::spawn(serve_stream(Rc::clone(&core), Rc::clone(&client), request, respond, open));
            }
            Turn::Woken => {}
            Turn::Flood(flood) => {
                core.flooded(client.peer, flood);
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                break end(&core, &client, &mut connection, &io).await;
            }
            Turn::Ended => break,
        }
    }
    drop(connection);
    client.deadline.set_after(timeouts.write, Expiry::ShutBoth);
    io.close().await;
}

/// Sends what is left to be said, and takes nothing more.
async fn end(core: &Core, client: &Client, connection: &mut Connection<Polled, Data>, io: &Polled) {
    client.deadline.set(core.deadlines.after(LEAVING_IDLE_MAX), Expiry::ShutBoth);
    poll_fn(|context| {
        let closed = connection.poll_closed(context);
        io.turn(context);
        closed.map(drop)
    })
    .await;
}

/// Moves frames until there is something to do.
async fn turn(connection: &mut Connection<Polled, Data>, io: &Polled, deadline: &Deadline) -> Turn {
    poll_fn(|context| {
        let accepted = connection.poll_accept(context);
        io.turn(context);
        if let Some(flood) = io.flood() {
            return Poll::Ready(Turn::Flood(flood));
        }
        match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => Poll::Ready(Turn::Request(request, respond)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Turn::Ended),
            Poll::Pending if deadline.poll_over(context) => Poll::Ready(Turn::Woken),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Serves the request of one stream.
async fn serve_stream(
    core: Rc<Core>,
    client: Rc<Client>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Data>,
    _open: Open,
) {
    let stream = Rc::new(ClientStream::new(&core, respond));
    let mut exchange = pin!(serve_one(&core, &client, &stream, request));
    poll_fn(|context| {
        stream.watch(context);
        exchange.as_mut().poll(context)
    })
    .await;
}

async fn serve_one(core: &Rc<Core>, client: &Client, stream: &Rc<ClientStream>, request: http::Request<RecvStream>) {
    let now = core.clock.now();
    let times = Times { began: now, head: now, ..Times::default() };
    let mut exchange = Exchange::open(core, client, times);
    exchange.stream = Some(Rc::clone(stream));
    let mut scratch = core.scratch();
    let (head, content) = request.into_parts();
    let is_tunnel = head.extensions.get::<h2::ext::Protocol>().is_some();
    let ends = is_tunnel || content.is_end_stream();
    let mut input = match read_head(core, &exchange, &mut scratch, &head, ends) {
        Ok(input) => input,
        Err(failure @ Failure::RequestMalformed(_)) if failure.status() == 400 => {
            // RFC 9113 §8.1.1
            stream.reset(Reason::PROTOCOL_ERROR);
            exchange.answered(failure.status(), Some(failure));
            return exchange.close(core, None);
        }
        Err(failure) => {
            response::send_own(core, &mut exchange, Reply::failure(failure)).await;
            return exchange.close(core, None);
        }
    };
    let reader = StreamReader::new(content, Rc::new(core.deadlines.waits()));
    let content = if is_tunnel {
        stream.reader.set(Some(reader));
        None
    } else {
        Some(reader)
    };
    let outcome = match request::admit(core, &mut exchange, &mut scratch, &mut input, content) {
        Ok(()) => {
            exchange.phase = Phase::Route;
            respond(core, &mut exchange, &mut scratch, &input).await
        }
        Err(failure) => Err(failure),
    };
    let sent = match outcome {
        Ok(Response::Upstream(upstream)) => response::send(core, &mut exchange, &mut scratch, upstream, &[]).await,
        Ok(Response::Cached(cached)) => cached::send(core, &mut exchange, &mut scratch, cached).await,
        Ok(Response::Own(reply)) => response::send_own(core, &mut exchange, reply).await,
        Err(failure) => response::send_own(core, &mut exchange, Reply::failure(failure)).await,
    };
    let upload = sent.upload.or(exchange.orphan.take());
    if let Some(upload) = &upload {
        exchange.bytes.request_content = upload.content_bytes();
    }
    exchange.close(core, Some((&scratch, &input)));
    if let Some(upload) = upload {
        // RFC 9113 §8.1: what is left of a request that is answered is not needed. The stream is reset once the
        // response has been sent, as all that refers to it is dropped.
        upload.abandon();
    }
}

/// Transcribes the head of a request to the front of a buffer, and its table to the scratch.
fn read_head(
    core: &Core,
    exchange: &Exchange<'_>,
    scratch: &mut Scratch,
    head: &http::request::Parts,
    ends: bool,
) -> Result<Buffer, Failure> {
    let limits = exchange.client.listener(&exchange.local).limits.head();
    let protocol = head.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    // RFC 6455 §4.1: nothing about it is secret.
    let key = protocol.map(|_| {
        let random = [core.random(), core.random()].map(u64::to_ne_bytes);
        BASE64.encode(random.as_flattened())
    });
    let Scratch { request, head: out, .. } = scratch;
    inbound::request(head, protocol, ends, key.as_deref(), out, request, limits).map_err(Failure::RequestMalformed)?;
    let mut buffer =
        if out.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() }.ok_or(Failure::OutOfMemory)?;
    if buffer.append(out) { Ok(buffer) } else { Err(Failure::Internal) }
}
