//! A scriptable HTTP/1.1 origin on loopback: one thread per connection, cheap to start, gone when dropped.
//!
//! Two levels. [`Origin::http`] answers well-formed requests by a handler; [`Origin::raw`] hands each connection to a
//! script that does as it likes. Both keep what they received, and every departure from RFC 9112 as a violation.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::message::{Body, Framing, Inbox, Invalid, RequestHead};

/// How long a gate or a wait holds at most: a test that fails must end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bytes of each connection are kept for inspection.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Something that one thread waits for and another lets happen; stays open once opened.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all who wait, now or later, go on.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits until the gate is open, ten seconds at most. Returns whether it is.
    pub fn wait(&self) -> bool {
        let guard = lock(&self.0.0);
        let waited = self.0.1.wait_timeout_while(guard, PATIENCE, |open| !*open);
        *waited.unwrap_or_else(|e| e.into_inner()).0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A handler that panicked leaves plain records behind, which are still worth reading.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A request as an origin received it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and fields.
    pub head: RequestHead,
    /// The content with its framing.
    pub body: Body,
    /// Which connection it came on, from 0, in the order of accepting.
    pub connection: usize,
    /// Its place on the connection, from 0.
    pub place: usize,
}

impl Request {
    /// A field of the request by name.
    pub fn field(&self, name: &str) -> Option<String> {
        self.head.fields.value(name)
    }
}

/// How the peer ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// An orderly end (FIN).
    Finished,
    /// A reset (RST).
    Reset,
}

type Stream = Box<dyn FnOnce(&mut Chunks<'_>) -> io::Result<()> + Send>;
type Tunnel = Box<dyn FnOnce(&mut Conn) + Send>;

/// The body of a [`Reply`].
#[derive(Default)]
pub enum Content {
    /// No body, and no field about one.
    #[default]
    Empty,
    /// With Content-Length.
    Bytes(Vec<u8>),
    /// Chunked, each part a chunk; then trailers.
    Chunked(Vec<Vec<u8>>, Vec<(String, String)>),
    /// Ended by closing the connection.
    UntilClose(Vec<u8>),
    /// Chunked, written by a closure as it goes, for Server-Sent Events and the like.
    Stream(Stream),
    /// After the head the connection belongs to the closure: upgrades.
    Tunnel(Tunnel),
}

/// What comes after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// The next request.
    #[default]
    KeepAlive,
    /// An orderly close.
    Close,
    /// A reset.
    Reset,
}

/// An answer of a scripted origin.
#[derive(Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Fields, without those that the content needs.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub content: Content,
    /// Bytes sent before the head: interim responses.
    pub before: Vec<u8>,
    /// If set, these bytes are sent instead of all of the above.
    pub raw: Option<Vec<u8>>,
    /// Waited for before anything is sent.
    pub gate: Option<Gate>,
    /// What comes after.
    pub then: Then,
}

impl Reply {
    /// A status and a body with Content-Length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content: Content::Bytes(body.into()), ..Self::default() }
    }

    /// 200 and a body with Content-Length.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// A status without any body.
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 200 and a chunked body.
    pub fn chunked<T: Into<Vec<u8>>>(chunks: impl IntoIterator<Item = T>) -> Self {
        let chunks = chunks.into_iter().map(Into::into).collect();
        Self { status: 200, content: Content::Chunked(chunks, Vec::new()), ..Self::default() }
    }

    /// 200 and a body that ends with the connection.
    pub fn until_close(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content: Content::UntilClose(body.into()), then: Then::Close, ..Self::default() }
    }

    /// 200 and a chunked body that `write` sends step by step.
    pub fn stream(write: impl FnOnce(&mut Chunks<'_>) -> io::Result<()> + Send + 'static) -> Self {
        Self { status: 200, content: Content::Stream(Box::new(write)), ..Self::default() }
    }

    /// These bytes, whatever they are.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::default() }
    }

    /// 101, then the connection belongs to `tunnel`.
    pub fn upgrade(protocol: &str, tunnel: impl FnOnce(&mut Conn) + Send + 'static) -> Self {
        Self { status: 101, content: Content::Tunnel(Box::new(tunnel)), then: Then::Close, ..Self::default() }
            .with("Connection", "Upgrade")
            .with("Upgrade", protocol)
    }

    /// Adds a field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a trailer to a chunked body.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        if let Content::Chunked(_, trailers) = &mut self.content {
            trailers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sends `bytes`, interim responses, before the head.
    pub fn after(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.before = bytes.into();
        self
    }

    /// Sends nothing until `gate` is open.
    pub fn gated(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Says what comes after the reply.
    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// Writes the chunks of a [`Reply::stream`].
pub struct Chunks<'a> {
    stream: &'a TcpStream,
}

impl Chunks<'_> {
    /// Sends one chunk at once. An empty one is left out, since it would end the body.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut wire = format!("{:x}\r\n", data.len()).into_bytes();
        wire.extend_from_slice(data);
        wire.extend_from_slice(b"\r\n");
        self.stream.write_all(&wire)
    }
}

/// What an origin has seen so far.
#[derive(Debug, Default)]
struct Log {
    heads: Vec<RequestHead>,
    requests: Vec<Request>,
    violations: Vec<String>,
    received: Vec<Vec<u8>>,
    ended: Vec<(usize, Ended)>,
    open: Vec<(usize, Arc<TcpStream>)>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    stopping: AtomicBool,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let out = change(&mut lock(&self.log));
        self.changed.notify_all();
        out
    }
}

/// One accepted connection of an origin.
pub struct Conn {
    stream: Arc<TcpStream>,
    inbox: Inbox,
    number: usize,
    place: usize,
    ended: Option<Ended>,
    reset: bool,
    shared: Arc<Shared>,
}

impl Conn {
    /// The number of this connection, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for bytes. Returns how the connection ended, if it did.
    fn fill(&mut self) -> Option<Ended> {
        if self.ended.is_some() {
            return self.ended;
        }
        let mut buffer = [0; 16 * 1024];
        let ended = match (&*self.stream).read(&mut buffer) {
            Ok(0) => Ended::Finished,
            Ok(n) => {
                self.inbox.push(&buffer[..n]);
                self.shared.change(|log| {
                    let kept = &mut log.received[self.number];
                    let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
                    kept.extend_from_slice(&buffer[..n.min(room)]);
                });
                return None;
            }
            Err(_) => Ended::Reset,
        };
        self.ended = Some(ended);
        self.shared.change(|log| log.ended.push((self.number, ended)));
        self.ended
    }

    fn violation(&self, why: &str) {
        let why = format!("connection {}, request {}: {why}", self.number, self.place);
        self.shared.change(|log| log.violations.push(why));
    }

    /// Waits for a request head; none if the connection ended, or if what came is not valid.
    pub fn head(&mut self) -> Option<RequestHead> {
        loop {
            match self.inbox.request_head() {
                Ok(Some(head)) => {
                    for fault in head.gateway_faults() {
                        self.violation(&fault);
                    }
                    self.shared.change(|log| log.heads.push(head.clone()));
                    return Some(head);
                }
                Ok(None) => {}
                Err(Invalid(why)) => {
                    self.violation(&why);
                    return None;
                }
            }
            if self.fill().is_some() {
                return None;
            }
        }
    }

    /// Waits for the rest of `body`. Returns whether it is whole.
    pub fn body(&mut self, body: &mut Body) -> bool {
        loop {
            match self.inbox.body(body) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(Invalid(why)) => {
                    self.violation(&why);
                    return false;
                }
            }
            if self.fill().is_some() {
                return false;
            }
        }
    }

    /// Waits for a whole request and records it.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        self.rest_of(head)
    }

    /// Waits for the body of the request with this head, and records the request.
    pub fn rest_of(&mut self, head: RequestHead) -> Option<Request> {
        let mut body = Body::new(head.framing());
        if !self.body(&mut body) {
            return None;
        }
        let request = Request { head, body, connection: self.number, place: self.place };
        self.place += 1;
        self.shared.change(|log| log.requests.push(request.clone()));
        Some(request)
    }

    /// Waits for exactly `count` bytes, or what there is at the end of the connection.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.inbox.unread().len() < count && self.fill().is_none() {}
        let mut all = self.inbox.take();
        let rest = all.split_off(count.min(all.len()));
        self.inbox.push(&rest);
        all
    }

    /// Waits for some bytes; empty at the end of the connection.
    pub fn some(&mut self) -> Vec<u8> {
        if self.inbox.unread().is_empty() {
            self.fill();
        }
        self.inbox.take()
    }

    /// Waits until the peer ends the connection; what it sends before that is recorded and dropped.
    pub fn closed(&mut self) -> Ended {
        loop {
            self.inbox.take();
            if let Some(ended) = self.fill() {
                return ended;
            }
        }
    }

    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }

    /// Sends bytes one by one, each in a segment of its own.
    pub fn write_singly(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        bytes.iter().try_for_each(|byte| (&*self.stream).write_all(&[*byte]))
    }

    /// Ends the direction towards the peer, and goes on reading.
    pub fn finish(&mut self) {
        // Fails only if the peer has reset the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Makes the end of this connection a reset.
    pub fn reset(mut self) {
        self.reset = true;
    }

    fn has_end(&self, request: &Request, then: Then) -> bool {
        then != Then::KeepAlive || request.head.minor == 0 || request.head.fields.lists("connection", "close")
    }

    /// Sends `reply` to `request`. Returns whether the connection goes on.
    pub fn reply(&mut self, request: &Request, reply: Reply) -> bool {
        if reply.gate.as_ref().is_some_and(|gate| !gate.wait()) {
            return false;
        }
        let (then, method) = (reply.then, request.head.method.clone());
        let done = self.send_reply(&method, request.head.minor, reply);
        if then == Then::Reset {
            self.reset = true;
        }
        done.is_ok() && !self.has_end(request, then)
    }

    fn send_reply(&mut self, method: &str, minor: u8, reply: Reply) -> io::Result<()> {
        if let Some(raw) = reply.raw {
            return self.write(&raw);
        }
        let mut wire = reply.before;
        wire.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status)).as_bytes());
        for (name, value) in &reply.fields {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let bodiless = method == "HEAD" || reply.status < 200 || reply.status == 204 || reply.status == 304;
        // An HTTP/1.0 peer knows no chunks; the handler says `Then::Close` or the peer's Connection does.
        let content = match reply.content {
            Content::Chunked(chunks, _) if minor == 0 => Content::UntilClose(chunks.concat()),
            other => other,
        };
        match content {
            Content::Empty if bodiless => wire.extend_from_slice(b"\r\n"),
            Content::Empty => wire.extend_from_slice(b"Content-Length: 0\r\n\r\n"),
            Content::Bytes(bytes) => {
                if reply.status >= 200 && reply.status != 204 {
                    wire.extend_from_slice(format!("Content-Length: {}\r\n", bytes.len()).as_bytes());
                }
                wire.extend_from_slice(b"\r\n");
                if !bodiless {
                    wire.extend_from_slice(&bytes);
                }
            }
            Content::Chunked(chunks, trailers) => {
                wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                if !bodiless {
                    encode_chunks(&mut wire, &chunks, &trailers);
                }
            }
            Content::UntilClose(bytes) => {
                wire.extend_from_slice(b"\r\n");
                if !bodiless {
                    wire.extend_from_slice(&bytes);
                }
            }
            Content::Stream(write) => {
                wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                self.write(&wire)?;
                if bodiless {
                    return Ok(());
                }
                write(&mut Chunks { stream: &self.stream })?;
                return self.write(b"0\r\n\r\n");
            }
            Content::Tunnel(tunnel) => {
                wire.extend_from_slice(b"\r\n");
                self.write(&wire)?;
                tunnel(self);
                return Ok(());
            }
        }
        self.write(&wire)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.reset {
            // Cannot fail on an open socket; if it did, the test would see a FIN and say so.
            let _ = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
        }
        self.shared.change(|log| log.open.retain(|(number, _)| *number != self.number));
    }
}

/// Appends `chunks`, the last chunk and `trailers` to `wire`.
pub fn encode_chunks(wire: &mut Vec<u8>, chunks: &[Vec<u8>], trailers: &[(String, String)]) {
    for chunk in chunks.iter().filter(|c| !c.is_empty()) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

/// A running origin. Dropping it closes all its connections and waits for its threads.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// An origin that answers each valid request by `handler`. It sends 100 (Continue) where that is expected.
    pub fn http(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::bind(SocketAddr::from(([127, 0, 0, 1], 0)), handler).expect("a free port on loopback")
    }

    /// Like [`Origin::http`], on `address`.
    pub fn bind(address: SocketAddr, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        Self::listen(address, move |mut conn: Conn| {
            while let Some(head) = conn.head() {
                let waits = head.fields.lists("expect", "100-continue") && head.framing() != Framing::Empty;
                if waits && conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                    return;
                }
                let Some(request) = conn.rest_of(head) else { return };
                if !conn.reply(&request, handler(&request)) {
                    return;
                }
            }
        })
    }

    /// An origin whose every connection is run by `script`, on a thread of its own.
    pub fn raw(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), script).expect("a free port on loopback")
    }

    fn listen(address: SocketAddr, script: impl Fn(Conn) + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = std::thread::Builder::new().name("origin".to_owned()).spawn({
            let shared = shared.clone();
            move || accept_all(&listener, &shared, &Arc::new(script))
        })?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests received whole so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.log).requests.clone()
    }

    /// The request heads received so far, those of cut requests included.
    pub fn heads(&self) -> Vec<RequestHead> {
        lock(&self.shared.log).heads.clone()
    }

    /// Where the other side broke RFC 9112 or the duties of a gateway.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.log).violations.clone()
    }

    /// All bytes received on each connection so far.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.log).received.clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        lock(&self.shared.log).received.len()
    }

    /// How many connections are open on this side.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.log).open.len()
    }

    /// The connections that the other side ended so far, and how.
    pub fn ended(&self) -> Vec<(usize, Ended)> {
        lock(&self.shared.log).ended.clone()
    }

    /// Waits until `holds` says so of this origin, ten seconds at most. Returns whether it does.
    pub fn wait_until(&self, holds: impl Fn(&Self) -> bool) -> bool {
        self.wait_for(PATIENCE, holds)
    }

    /// Like [`Origin::wait_until`], with a bound of one's own.
    pub fn wait_for(&self, patience: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let log = lock(&self.shared.log);
            // `holds` may have become true before the lock was taken: look again soon whatever happens.
            let _ = self.shared.changed.wait_timeout(log, left.min(Duration::from_millis(20)));
        }
        true
    }

    /// Forgets all requests, heads and violations received so far.
    pub fn forget(&self) {
        self.shared.change(|log| {
            log.requests.clear();
            log.heads.clear();
            log.violations.clear();
        });
    }

    /// Ends all connections that are open, as an origin does that restarts.
    pub fn drop_connections(&self) {
        for (_, stream) in &lock(&self.shared.log).open {
            // Fails only if the peer was first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept_all<S: Fn(Conn) + Send + Sync + 'static>(listener: &TcpListener, shared: &Arc<Shared>, script: &Arc<S>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        // Small writes must leave as they are written: scripts depend on it.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        // Looked at again after registering: of this and `Origin::drop` one sees the other.
        let number = shared.change(|log| {
            let number = log.received.len();
            log.received.push(Vec::new());
            log.open.push((number, stream.clone()));
            number
        });
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let conn = Conn {
            stream,
            inbox: Inbox::default(),
            number,
            place: 0,
            ended: None,
            reset: false,
            shared: shared.clone(),
        };
        let (script, witness) = (script.clone(), shared.clone());
        let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(move || {
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(conn)));
            if run.is_err() {
                witness.change(|log| log.violations.push(format!("connection {number}: the script panicked")));
            }
        });
        threads.retain(|t| !t.is_finished());
        threads.extend(thread);
    }
    for thread in threads {
        // A panic was recorded above.
        let _ = thread.join();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.drop_connections();
        // Wakes the acceptor; if this fails there is nothing left to wake.
        let _ = TcpStream::connect(self.address);
        self.drop_connections();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
