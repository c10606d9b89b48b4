//! The torture: numbered requests with random bodies, framings, segmentations, pipelining, half-closes, aborts and
//! origin faults, and a checker that joins what both ends saw.
//!
//! A plan follows from the seed and the number alone, so each end knows the other's every byte and compares
//! content with content, which no checksum could better.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use crate::message::{Body, Framing, Inbox, RequestHead, ResponseHead};
use crate::origin::encode_chunks;
use crate::random::Random;

/// How long a client waits without a byte before it calls the gateway stuck.
const STUCK: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
/// How many findings are kept in words; the rest is only counted.
const FINDINGS_MAX: usize = 20;
/// Keeps the random sequences of requests, responses, connections and wires apart.
const RESPONSE: u64 = 0x7265_7370;
const CONNECTION: u64 = 0x636F_6E6E;
const WIRE: u64 = 0x7769_7265;

/// What the origin does with a request, the first time it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Reads all, answers, keeps the connection.
    Answer,
    /// Sends 103 before it answers.
    Interim,
    /// Answers at the head, then reads the rest.
    Early,
    /// Answers with `Connection: close`, and closes.
    CloseAnnounced,
    /// Answers, then closes without a word: the next request on the pooled connection meets a closed one.
    CloseSilently,
    /// Ends the connection before a byte of the response.
    FinishBefore,
    /// Resets the connection before a byte of the response.
    ResetBefore,
    /// Ends the connection within the response.
    FinishWithin,
    /// Resets the connection within the response.
    ResetWithin,
}

impl Act {
    fn is_fault(self) -> bool {
        matches!(self, Self::FinishBefore | Self::ResetBefore | Self::FinishWithin | Self::ResetWithin)
    }
}

/// How a body goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    None,
    Length,
    Chunked,
    UntilClose,
}

/// All about one request, from its number.
#[derive(Debug, Clone)]
struct Plan {
    number: u64,
    method: &'static str,
    upload: Wire,
    upload_bytes: usize,
    expects: bool,
    status: u16,
    download: Wire,
    download_bytes: usize,
    act: Act,
}

impl Plan {
    fn of(seed: u64, number: u64, faults: bool) -> Self {
        let mut random = Random::of(seed, number);
        let method = match random.below(100) {
            0..50 => "GET",
            50..53 => "HEAD",
            53..85 => "POST",
            85..95 => "PUT",
            _ => "DELETE",
        };
        let with_body = match method {
            "POST" | "PUT" => true,
            // A body on any method is framed the same way.
            _ => random.one_in(20),
        };
        let (upload, upload_bytes) = match with_body {
            false => (Wire::None, 0),
            true if random.one_in(2) => (Wire::Length, random.body_size()),
            true => (Wire::Chunked, random.body_size()),
        };
        let status = match random.below(100) {
            0..90 => 200,
            90..93 => 204,
            93..95 => 304,
            95..98 => 404,
            _ => 500,
        };
        let download = match random.below(20) {
            0..10 => Wire::Length,
            19 if faults => Wire::UntilClose,
            _ => Wire::Chunked,
        };
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let download_bytes = random.body_size();
        let download = if bodiless { Wire::None } else { download };
        let act = match random.below(1000) {
            _ if !faults => Act::Answer,
            0..20 => Act::Interim,
            20..40 => Act::Early,
            40..60 => Act::CloseAnnounced,
            60..70 => Act::CloseSilently,
            70..75 => Act::FinishBefore,
            75..80 => Act::ResetBefore,
            // The end of the connection is the end of such a body: only a reset can cut it.
            80..86 if download != Wire::UntilClose => Act::FinishWithin,
            80..92 => Act::ResetWithin,
            _ => Act::Answer,
        };
        Self {
            number,
            method,
            upload,
            upload_bytes,
            expects: upload_bytes > 0 && random.one_in(50),
            status,
            download,
            download_bytes: if download == Wire::None { 0 } else { download_bytes },
            act,
        }
    }

    fn upload(&self, seed: u64) -> Vec<u8> {
        Random::of(seed, self.number).bytes(self.upload_bytes)
    }

    fn download(&self, seed: u64) -> Vec<u8> {
        Random::of(seed ^ RESPONSE, self.number).bytes(self.download_bytes)
    }

    fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }

    fn request(&self, seed: u64, last: bool) -> Vec<u8> {
        let mut random = Random::of(seed ^ WIRE, self.number);
        let mut wire = format!("{} /t/{} HTTP/1.1\r\nHost: torture.test\r\n", self.method, self.number);
        if self.expects {
            wire.push_str("Expect: 100-continue\r\n");
        }
        if last {
            wire.push_str("Connection: close\r\n");
        }
        let mut wire = wire.into_bytes();
        encode(&mut wire, self.upload, &self.upload(seed), &mut random);
        wire
    }

    fn response(&self, seed: u64) -> Vec<u8> {
        let mut random = Random::of(seed ^ WIRE ^ RESPONSE, self.number);
        let mut wire = String::new();
        if self.act == Act::Interim {
            wire.push_str("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
        }
        wire.push_str(&format!("HTTP/1.1 {} \r\nX-Number: {}\r\n", self.status, self.number));
        if self.act == Act::CloseAnnounced {
            wire.push_str("Connection: close\r\n");
        }
        let mut wire = wire.into_bytes();
        encode(&mut wire, self.download, &self.download(seed), &mut random);
        wire
    }
}

/// Ends a head with the fields of a framing, and appends the body.
fn encode(wire: &mut Vec<u8>, how: Wire, body: &[u8], random: &mut Random) {
    match how {
        Wire::None => wire.extend_from_slice(b"\r\n"),
        Wire::Length => {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(body);
        }
        Wire::UntilClose => {
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(body);
        }
        Wire::Chunked => {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let size_max = match random.below(4) {
                0 if body.len() <= 1024 => 1,
                0 | 1 => 300,
                2 => 20_000,
                _ => u64::MAX,
            };
            let mut chunks = Vec::new();
            let mut rest = body;
            while !rest.is_empty() {
                let size = 1 + random.below(size_max.min(rest.len() as u64)) as usize;
                let (chunk, after) = rest.split_at(size);
                chunks.push(chunk.to_vec());
                rest = after;
            }
            let trailers = match random.one_in(4) {
                true => vec![("X-Trailer".to_owned(), "dropped or passed on".to_owned())],
                false => Vec::new(),
            };
            encode_chunks(wire, &chunks, &trailers);
        }
    }
}

/// Writes `wire` in random segments, each a write of its own.
async fn write_in_segments(half: &mut OwnedWriteHalf, wire: &[u8], random: &mut Random) -> io::Result<()> {
    let mut rest = wire;
    // Most messages leave whole; the others are what makes parsers err.
    let singly = match random.below(8) {
        0 => random.below(64) as usize,
        1..4 => 0,
        _ => return half.write_all(rest).await,
    };
    while !rest.is_empty() {
        let size = match wire.len() - rest.len() < singly {
            true => 1,
            false => 1 + random.below(rest.len().max(256) as u64) as usize,
        };
        let (segment, after) = rest.split_at(size.min(rest.len()));
        half.write_all(segment).await?;
        rest = after;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Things that must never happen, in words.
#[derive(Debug, Default, Clone)]
struct Findings {
    count: u64,
    words: Vec<String>,
}

impl Findings {
    fn add(&mut self, finding: String) {
        self.count += 1;
        if self.words.len() < FINDINGS_MAX {
            self.words.push(finding);
        }
    }
}

#[derive(Debug, Default)]
struct OriginLog {
    arrivals: Vec<u8>,
    complete: Vec<u8>,
    silent_closes: u64,
    findings: Findings,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The origin side of the torture, on a thread of its own.
pub struct TortureOrigin {
    address: SocketAddr,
    seed: u64,
    requests: u64,
    faults: bool,
    log: Arc<Mutex<OriginLog>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TortureOrigin {
    /// Starts an origin for requests numbered from 0 to `requests`; without `faults` it only ever answers well.
    pub fn start(seed: u64, requests: u64, faults: bool) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let slots = usize::try_from(requests).map_err(io::Error::other)?;
        let log = OriginLog { arrivals: vec![0; slots], complete: vec![0; slots], ..OriginLog::default() };
        let log = Arc::new(Mutex::new(log));
        let (stop, stopped) = oneshot::channel();
        let side = OriginSide { seed, requests, faults, log: log.clone() };
        let thread = std::thread::Builder::new().name("torture origin".to_owned()).spawn(move || {
            local(async move {
                tokio::select! {
                    // The sender is dropped without a word when the origin goes.
                    _ = stopped => {}
                    () = side.accept(listener) => {}
                }
            });
        })?;
        Ok(Self { address, seed, requests, faults, log, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TortureOrigin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has shown itself as broken connections already.
            let _ = thread.join();
        }
    }
}

/// Runs a future and what it spawns on this thread.
fn local<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    LocalSet::new().block_on(&runtime, future)
}

#[derive(Clone)]
struct OriginSide {
    seed: u64,
    requests: u64,
    faults: bool,
    log: Arc<Mutex<OriginLog>>,
}

enum Next {
    KeepAlive,
    Finish,
    Reset,
}

impl OriginSide {
    async fn accept(self, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).expect("a listener in non-blocking mode");
        let mut connection = 0;
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let side = self.clone();
            connection += 1;
            tokio::task::spawn_local(async move { side.serve(stream, connection).await });
        }
    }

    fn finding(&self, what: String) {
        lock(&self.log).findings.add(format!("origin: {what}"));
    }

    async fn serve(self, stream: TcpStream, connection: u64) {
        // Fails only if the peer is gone already.
        let _ = stream.set_nodelay(true);
        let (mut reading, mut writing) = stream.into_split();
        let mut inbox = Inbox::default();
        let mut random = Random::of(self.seed ^ CONNECTION ^ RESPONSE, connection);
        loop {
            let head = loop {
                match inbox.request_head() {
                    Ok(Some(head)) => break head,
                    Ok(None) => {}
                    Err(why) => return self.finding(format!("invalid request: {why}")),
                }
                if !fill(&mut reading, &mut inbox).await {
                    return;
                }
            };
            match self.exchange(&head, &mut reading, &mut writing, &mut inbox, &mut random).await {
                Some(Next::KeepAlive) => {}
                Some(Next::Reset) => return reset(&reading, writing),
                Some(Next::Finish) | None => return,
            }
        }
    }

    async fn exchange(
        &self,
        head: &RequestHead,
        reading: &mut OwnedReadHalf,
        writing: &mut OwnedWriteHalf,
        inbox: &mut Inbox,
        random: &mut Random,
    ) -> Option<Next> {
        let number = head.target.strip_prefix("/t/").and_then(|n| n.parse::<u64>().ok());
        let Some(number) = number.filter(|n| *n < self.requests) else {
            self.finding(format!("unknown target {:?}", head.target));
            return None;
        };
        let plan = Plan::of(self.seed, number, self.faults);
        if head.method != plan.method {
            self.finding(format!("request {number}: method {} instead of {}", head.method, plan.method));
        }
        for fault in head.gateway_faults().into_iter().filter(|_| head.fields.has("via")) {
            self.finding(format!("request {number}: {fault}"));
        }
        let first = {
            let arrivals = &mut lock(&self.log).arrivals[number as usize];
            *arrivals = arrivals.saturating_add(1);
            *arrivals == 1
        };
        let act = if first { plan.act } else { Act::Answer };
        let wire = plan.response(self.seed);
        if act == Act::Early {
            write_in_segments(writing, &wire, random).await.ok()?;
        } else if plan.expects && head.fields.has("expect") {
            writing.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        if !self.read_body(number, &plan, head.framing(), reading, inbox).await {
            return None;
        }
        match act {
            Act::Early => {}
            Act::FinishBefore => return Some(Next::Finish),
            Act::ResetBefore => return Some(Next::Reset),
            Act::FinishWithin | Act::ResetWithin => {
                let cut = random.below(wire.len() as u64) as usize;
                write_in_segments(writing, &wire[..cut], random).await.ok()?;
                return Some(if act == Act::ResetWithin { Next::Reset } else { Next::Finish });
            }
            Act::Answer | Act::Interim | Act::CloseAnnounced | Act::CloseSilently => {
                write_in_segments(writing, &wire, random).await.ok()?;
            }
        }
        let close = plan.download == Wire::UntilClose || act == Act::CloseAnnounced || act == Act::CloseSilently;
        if act == Act::CloseSilently {
            lock(&self.log).silent_closes += 1;
        }
        Some(if close || head.fields.lists("connection", "close") { Next::Finish } else { Next::KeepAlive })
    }

    /// Reads and judges the body of a request. Returns whether it came whole.
    async fn read_body(
        &self,
        number: u64,
        plan: &Plan,
        framing: Framing,
        reading: &mut OwnedReadHalf,
        inbox: &mut Inbox,
    ) -> bool {
        let mut body = Body::new(framing);
        loop {
            match inbox.body(&mut body) {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => {
                    self.finding(format!("request {number}: invalid body: {why}"));
                    return false;
                }
            }
            if !fill(reading, inbox).await {
                return false;
            }
        }
        if body.data != plan.upload(self.seed) {
            self.finding(format!("request {number}: {}", difference(&plan.upload(self.seed), &body.data)));
        }
        let complete = &mut lock(&self.log).complete[number as usize];
        *complete = complete.saturating_add(1);
        true
    }
}

/// Reads some bytes. Returns whether there were any.
async fn fill(reading: &mut OwnedReadHalf, inbox: &mut Inbox) -> bool {
    let mut buffer = Vec::with_capacity(16 * 1024);
    match reading.read_buf(&mut buffer).await {
        Ok(0) | Err(_) => false,
        Ok(_) => {
            inbox.push(&buffer);
            true
        }
    }
}

/// Makes the end of this connection a reset.
fn reset(reading: &OwnedReadHalf, writing: OwnedWriteHalf) {
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(reading.as_ref()).set_linger(Some(Duration::ZERO));
    // Dropped, it would send a FIN before the reset: the orderly end of a body that ends with its connection.
    writing.forget();
}

fn difference(want: &[u8], got: &[u8]) -> String {
    match want.iter().zip(got).position(|(a, b)| a != b) {
        Some(at) => format!("body differs from byte {at} on ({} bytes, {} due)", got.len(), want.len()),
        None => format!("body of {} bytes, {} due", got.len(), want.len()),
    }
}

/// How the client side ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Reads all answers, then closes.
    Close,
    /// Announces the close in the last request.
    Announced,
    /// Shuts its sending side down after the last request, then reads all answers.
    HalfClose,
    /// Stops within the last request, with FIN or RST.
    CutUpload { reset: bool },
    /// Stops within the last answer, with FIN or RST.
    CutDownload { reset: bool },
}

/// What became of a request, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Outcome {
    /// Never sent, since its connection ended before.
    #[default]
    Unsent,
    /// The one complete answer of the origin.
    Answered,
    /// An answer of the gateway's own, with this status code.
    Refused(u16),
    /// The connection ended before or within the answer.
    Broken,
    /// Given up by this client itself.
    Aborted,
}

/// What the torture found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed: it gives the same requests and faults again.
    pub seed: u64,
    /// How many requests were numbered.
    pub requests: u64,
    /// How many client connections were used.
    pub connections: u64,
    /// Requests with exactly one complete, correct answer.
    pub answered: u64,
    /// Answers of the gateway's own, by status code.
    pub refused: BTreeMap<u16, u64>,
    /// Requests whose connection was cleanly broken after an injected fault.
    pub broken: u64,
    /// Requests that a client gave up on purpose.
    pub aborted: u64,
    /// Requests that were never sent, since their connection had ended.
    pub unsent: u64,
    /// Requests that the origin saw more than once, all of which may be.
    pub retried: u64,
    /// Requests without an answer on half-closed connections.
    pub half_closed_lost: u64,
    /// Requests whose answer was cut by the end that the fault of a later, pipelined request brought.
    pub overtaken: u64,
    /// Connections of the origin that it closed without announcing it.
    pub silent_closes: u64,
    /// 502 answers without a fault of their own; each needs a silent close to explain it.
    pub stale: u64,
    /// How often something happened that must not.
    pub finding_count: u64,
    /// The first of them in words.
    pub findings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing was lost, doubled or garbled.
    pub fn is_clean(&self) -> bool {
        self.finding_count == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "torture, seed {}: {} requests on {} connections in {:.1} s",
            self.seed,
            self.requests,
            self.connections,
            self.elapsed.as_secs_f64()
        )?;
        writeln!(
            f,
            "  answered {}, refused {:?}, broken {}, aborted {}, unsent {}",
            self.answered, self.refused, self.broken, self.aborted, self.unsent
        )?;
        writeln!(
            f,
            "  retried {}, stale {} of {} silent closes, lost on half-closed connections {}, overtaken by faults {}",
            self.retried, self.stale, self.silent_closes, self.half_closed_lost, self.overtaken
        )?;
        write!(f, "  findings {}", self.finding_count)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n    {finding}"))
    }
}

struct ClientSide {
    gateway: SocketAddr,
    seed: u64,
    requests: u64,
    faults: bool,
    next: Cell<u64>,
    opened: Cell<u64>,
    outcomes: RefCell<Vec<Outcome>>,
    half_closed_lost: Cell<u64>,
    overtaken: Cell<u64>,
    stale: Cell<u64>,
    findings: RefCell<Findings>,
}

/// Sends all requests of `origin` to `gateway` over `concurrency` connections at a time, and joins both logs.
///
/// Blocks until done. The seed is that of the origin.
pub fn run(gateway: SocketAddr, origin: &TortureOrigin, concurrency: usize) -> io::Result<Report> {
    let started = Instant::now();
    let slots = usize::try_from(origin.requests).map_err(io::Error::other)?;
    let side = Rc::new(ClientSide {
        gateway,
        seed: origin.seed,
        requests: origin.requests,
        faults: origin.faults,
        next: Cell::new(0),
        opened: Cell::new(0),
        outcomes: RefCell::new(vec![Outcome::Unsent; slots]),
        half_closed_lost: Cell::new(0),
        overtaken: Cell::new(0),
        stale: Cell::new(0),
        findings: RefCell::default(),
    });
    local(async {
        let clients: Vec<_> = (0..concurrency)
            .map(|_| {
                let side = side.clone();
                tokio::task::spawn_local(async move { while side.connection().await {} })
            })
            .collect();
        for client in clients {
            if let Err(error) = client.await {
                side.finding(format!("a client died: {error}"));
            }
        }
    });
    let mut report = side.join(&lock(&origin.log));
    report.elapsed = started.elapsed();
    Ok(report)
}

impl ClientSide {
    fn finding(&self, what: String) {
        self.findings.borrow_mut().add(format!("client: {what}"));
    }

    fn set(&self, number: u64, outcome: Outcome) {
        self.outcomes.borrow_mut()[number as usize] = outcome;
    }

    /// Runs one connection. Returns false when all numbers are used up.
    async fn connection(&self) -> bool {
        let connection = self.opened.get();
        let mut random = Random::of(self.seed ^ CONNECTION, connection);
        let first = self.next.get();
        let count = (1 + random.below(40)).min(self.requests - first);
        if count == 0 {
            return false;
        }
        self.next.set(first + count);
        self.opened.set(connection + 1);
        let ending = match random.below(100) {
            _ if !self.faults => Ending::Close,
            0..10 => Ending::HalfClose,
            10..15 => Ending::CutUpload { reset: random.one_in(2) },
            15..20 => Ending::CutDownload { reset: random.one_in(2) },
            20..40 => Ending::Announced,
            _ => Ending::Close,
        };
        let stream = match TcpStream::connect(self.gateway).await {
            Ok(stream) => stream,
            Err(error) => {
                self.finding(format!("connection {connection}: cannot connect: {error}"));
                return true;
            }
        };
        // Fails only if the peer is gone already; then reading says so.
        let _ = stream.set_nodelay(true);
        let depth = if random.one_in(3) { 1 + random.below(8) as usize } else { 1 };
        Client { side: self, connection, numbers: first..first + count, ending, depth }.run(stream, random).await;
        true
    }

    /// Joins what the clients saw with what the origin saw.
    fn join(&self, origin: &OriginLog) -> Report {
        let mut findings = self.findings.borrow().clone();
        let mut report = Report {
            seed: self.seed,
            requests: self.requests,
            connections: self.opened.get(),
            half_closed_lost: self.half_closed_lost.get(),
            overtaken: self.overtaken.get(),
            stale: self.stale.get(),
            silent_closes: origin.silent_closes,
            ..Report::default()
        };
        for (number, outcome) in self.outcomes.borrow().iter().enumerate() {
            let (arrivals, complete) = (origin.arrivals[number], origin.complete[number]);
            let plan = Plan::of(self.seed, number as u64, self.faults);
            match outcome {
                Outcome::Unsent => report.unsent += 1,
                Outcome::Answered => report.answered += 1,
                Outcome::Refused(status) => *report.refused.entry(*status).or_default() += 1,
                Outcome::Broken => report.broken += 1,
                Outcome::Aborted => report.aborted += 1,
            }
            if *outcome == Outcome::Answered && arrivals == 0 {
                findings.add(format!("request {number}: answered, but the origin never saw it"));
            }
            if *outcome == Outcome::Answered && complete == 0 && plan.act != Act::Early {
                findings.add(format!("request {number}: answered, but the origin never had all of it"));
            }
            if *outcome == Outcome::Unsent && arrivals > 0 {
                findings.add(format!("request {number}: the origin saw it, but it was never sent"));
            }
            if arrivals > 1 {
                report.retried += 1;
                // One retry, and only of what may be sent again (RFC 9110 §9.2.2).
                if arrivals > 2 || !plan.is_idempotent() {
                    findings.add(format!("request {number}: {} reached the origin {arrivals} times", plan.method));
                }
            }
        }
        if report.stale > report.silent_closes {
            findings.add(format!("{} unexplained 502, {} silent closes", report.stale, report.silent_closes));
        }
        findings.count += origin.findings.count;
        findings.words.extend(origin.findings.words.iter().cloned());
        report.finding_count = findings.count;
        report.findings = findings.words;
        report
    }
}

/// One client connection.
struct Client<'a> {
    side: &'a ClientSide,
    connection: u64,
    numbers: std::ops::Range<u64>,
    ending: Ending,
    depth: usize,
}

/// How reading the answers of a connection ended.
enum Answers {
    /// All that were due came.
    All,
    /// This number got none, or not all of it: only so many bytes, if any.
    Until(u64, usize),
    /// The plan was to stop here.
    Stopped,
}

impl Client<'_> {
    fn plan(&self, number: u64) -> Plan {
        Plan::of(self.side.seed, number, self.side.faults)
    }

    async fn run(self, stream: TcpStream, mut random: Random) {
        let (mut reading, mut writing) = stream.into_split();
        let window = Semaphore::new(self.depth);
        let sent = Cell::new(self.numbers.start);
        let cut = random.next();
        let answers = {
            let write = self.write(&mut writing, &window, &sent, cut, &mut random);
            let read = self.read(&mut reading, &window, cut);
            tokio::pin!(write, read);
            let mut writes = true;
            loop {
                tokio::select! {
                    stop = &mut write, if writes => {
                        writes = false;
                        if stop {
                            break Answers::Stopped;
                        }
                    }
                    answers = &mut read => break answers,
                }
            }
        };
        self.judge(&answers, sent.get());
        let with_reset = match self.ending {
            Ending::CutUpload { reset } | Ending::CutDownload { reset } => reset,
            Ending::Close | Ending::Announced | Ending::HalfClose => false,
        };
        if with_reset && matches!(answers, Answers::Stopped) {
            reset(&reading, writing);
        }
    }

    /// Writes the requests. Returns whether the connection is to end at once.
    async fn write(
        &self,
        writing: &mut OwnedWriteHalf,
        window: &Semaphore,
        sent: &Cell<u64>,
        cut: u64,
        random: &mut Random,
    ) -> bool {
        let last = self.numbers.end - 1;
        for number in self.numbers.clone() {
            match window.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return false,
            }
            let announced = number == last && self.ending == Ending::Announced;
            let mut wire = self.plan(number).request(self.side.seed, announced);
            if let (true, Ending::CutUpload { .. }) = (number == last, self.ending) {
                wire.truncate((cut % wire.len() as u64) as usize);
            }
            sent.set(number + 1);
            if write_in_segments(writing, &wire, random).await.is_err() {
                return false;
            }
        }
        match self.ending {
            Ending::HalfClose | Ending::CutUpload { reset: false } => {
                // Fails only if the gateway was first, which reading tells.
                let _ = writing.shutdown().await;
                false
            }
            Ending::CutUpload { reset: true } => true,
            Ending::Close | Ending::Announced | Ending::CutDownload { .. } => false,
        }
    }

    /// Reads and judges the answers in order.
    async fn read(&self, reading: &mut OwnedReadHalf, window: &Semaphore, cut: u64) -> Answers {
        let mut inbox = Inbox::default();
        let last = self.numbers.end - 1;
        for number in self.numbers.clone() {
            let plan = self.plan(number);
            let stops = number == last && matches!(self.ending, Ending::CutDownload { .. });
            // A little more than the body, so that heads, framing and the very end are all cut.
            let stop_at = stops.then(|| (cut % (plan.download_bytes as u64 + 400)) as usize);
            match self.answer(&plan, reading, &mut inbox, stop_at).await {
                Ok(true) => {}
                Ok(false) => return Answers::Stopped,
                Err(received) => return Answers::Until(number, received),
            }
            window.add_permits(1);
        }
        if !inbox.unread().is_empty() {
            self.side.finding(format!("connection {}: bytes after the last answer", self.connection));
        }
        Answers::All
    }

    /// Waits for bytes. Returns whether there were any.
    async fn fill(&self, number: u64, reading: &mut OwnedReadHalf, inbox: &mut Inbox) -> bool {
        match tokio::time::timeout(STUCK, fill(reading, inbox)).await {
            Ok(more) => more,
            Err(_) => {
                self.side.finding(format!("request {number}: nothing for {STUCK:?} on connection {}", self.connection));
                false
            }
        }
    }

    /// Reads one answer. True for a whole one, false when it is time to stop.
    ///
    /// # Errors
    /// The connection ended before, after so many bytes of the answer, or can no longer be understood.
    async fn answer(
        &self,
        plan: &Plan,
        reading: &mut OwnedReadHalf,
        inbox: &mut Inbox,
        stop_at: Option<usize>,
    ) -> Result<bool, usize> {
        let number = plan.number;
        let mut head = None;
        let mut body = Body::new(Framing::Empty);
        let mut received = inbox.unread().len();
        loop {
            if head.is_none() {
                match inbox.response_head() {
                    Ok(Some(interim)) if interim.status < 200 => continue,
                    Ok(Some(final_head)) => {
                        body = Body::new(final_head.framing(plan.method));
                        head = Some(final_head);
                    }
                    Ok(None) => {}
                    Err(why) => {
                        self.side.finding(format!("request {number}: invalid response: {why}"));
                        return Err(received);
                    }
                }
            }
            if let Some(head) = &head {
                match inbox.body(&mut body) {
                    Ok(true) => {
                        self.judge_answer(plan, head, &body);
                        return Ok(true);
                    }
                    Ok(false) => {}
                    Err(why) => {
                        self.side.finding(format!("request {number}: invalid response body: {why}"));
                        return Err(received);
                    }
                }
            }
            if stop_at.is_some_and(|stop| received >= stop) {
                return Ok(false);
            }
            let before = inbox.unread().len();
            if !self.fill(number, reading, inbox).await {
                // To a client of HTTP/1.1 the gateway frames all bodies, so this end is never a good one.
                if body.end() && head.as_ref().is_some_and(|h| h.framing(plan.method) == Framing::UntilClose) {
                    self.side.finding(format!("request {number}: a body that ends with the connection"));
                }
                return Err(received);
            }
            received += inbox.unread().len() - before;
        }
    }

    fn judge_answer(&self, plan: &Plan, head: &ResponseHead, body: &Body) {
        let number = plan.number;
        for fault in head.gateway_faults() {
            self.side.finding(format!("request {number}: {fault}"));
        }
        let Some(named) = head.fields.value("x-number") else {
            if head.status < 400 || head.fields.value("content-type").as_deref() != Some("application/problem+json") {
                self.side.finding(format!("request {number}: status {} from nowhere", head.status));
            }
            self.side.set(number, Outcome::Refused(head.status));
            let cut = number + 1 == self.numbers.end && matches!(self.ending, Ending::CutUpload { .. });
            match head.status {
                502 if plan.act.is_fault() => {}
                502 if plan.upload != Wire::None || !plan.is_idempotent() => {
                    self.side.stale.set(self.side.stale.get() + 1);
                }
                _ if cut => {}
                status => self.side.finding(format!("request {number}: refused with {status} for no reason")),
            }
            return;
        };
        self.side.set(number, Outcome::Answered);
        if named != number.to_string() {
            self.side.finding(format!("request {number}: got the answer to {named}"));
        } else if head.status != plan.status {
            self.side.finding(format!("request {number}: status {} instead of {}", head.status, plan.status));
        } else if body.data != plan.download(self.side.seed) {
            let difference = difference(&plan.download(self.side.seed), &body.data);
            self.side.finding(format!("request {number}: complete, but {difference}"));
        }
    }

    /// Says what became of the requests without an answer, and whether there is a good reason.
    fn judge(&self, answers: &Answers, sent: u64) {
        let (open_from, received) = match answers {
            Answers::All => return,
            Answers::Until(number, received) => (*number, *received),
            // Those before the last may have been answered or not: look at what is noted.
            Answers::Stopped => (self.numbers.start, 0),
        };
        let outcomes = |number: u64| self.side.outcomes.borrow()[number as usize];
        let mut excused = false;
        for number in self.numbers.clone() {
            let plan = self.plan(number);
            // After a fault the gateway may close, and after an early answer it may rather close than read on.
            excused |= plan.act.is_fault() || plan.act == Act::Early || matches!(outcomes(number), Outcome::Refused(_));
            if number < open_from || number >= sent || outcomes(number) != Outcome::Unsent {
                continue;
            }
            let outcome = match (answers, self.ending) {
                (Answers::Stopped, _) => Outcome::Aborted,
                (_, Ending::CutUpload { .. }) if number + 1 == self.numbers.end => Outcome::Aborted,
                _ => Outcome::Broken,
            };
            self.side.set(number, outcome);
            if outcome != Outcome::Broken || excused {
                continue;
            }
            // A reset for the fault of a later request takes what this client has not read yet with it.
            if (number + 1..sent).any(|later| self.plan(later).act.is_fault()) {
                self.side.overtaken.set(self.side.overtaken.get() + 1);
                continue;
            }
            // Who sends FIN may have left: a gateway waits for it only for so long. A cut upload is such a FIN too.
            if matches!(self.ending, Ending::HalfClose | Ending::CutUpload { .. }) {
                self.side.half_closed_lost.set(self.side.half_closed_lost.get() + 1);
                continue;
            }
            self.side.finding(format!(
                "request {number} lost: {plan:?}, connection {} ({:?}), answers until {open_from} and {received} bytes of \
                 that, {sent} sent",
                self.connection, self.ending
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a gateway between them both ends agree, whatever the segments, framings and pipelines.
    #[test]
    fn both_ends_agree_without_a_gateway() {
        let seed = Random::fresh_seed();
        let origin = TortureOrigin::start(seed, 3_000, false).expect("an origin");
        let report = run(origin.address(), &origin, 16).expect("a run");
        assert!(report.is_clean() && report.answered == 3_000, "{report}");
    }

    /// A checker that finds nothing proves nothing: two ends that expect other bytes must both complain.
    #[test]
    fn garbled_bodies_are_found() {
        let mut origin = TortureOrigin::start(1, 200, false).expect("an origin");
        origin.seed = 2;
        let report = run(origin.address(), &origin, 4).expect("a run");
        assert!(report.findings.iter().any(|f| f.starts_with("origin:")), "{report}");
        assert!(report.findings.iter().any(|f| f.starts_with("client:")), "{report}");
    }

    /// Faults that nothing shields the client from show as broken connections and doubled requests are counted.
    #[test]
    fn a_request_sent_twice_is_found() {
        let origin = TortureOrigin::start(3, 100, false).expect("an origin");
        let first = run(origin.address(), &origin, 4).expect("a run");
        assert!(first.is_clean(), "{first}");
        let second = run(origin.address(), &origin, 4).expect("a run");
        assert!(second.findings.iter().any(|f| f.contains("POST reached the origin 2 times")), "{second}");
    }
}
