//! The origin side of the torture.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::message::{Body, Framing, Inbox, RequestHead};
use crate::random::Random;

use super::plan::{Act, Plan, Wire, write_in_segments};
use super::{CONNECTION, Findings, RESPONSE, local, lock};

#[derive(Debug, Default)]
pub(super) struct OriginLog {
    pub(super) arrivals: Vec<u8>,
    pub(super) complete: Vec<u8>,
    pub(super) silent_closes: u64,
    pub(super) findings: Findings,
}

/// The origin side of the torture, on a thread of its own.
pub struct TortureOrigin {
    pub(super) address: SocketAddr,
    pub(super) seed: u64,
    pub(super) requests: u64,
    pub(super) faults: bool,
    pub(super) log: Arc<Mutex<OriginLog>>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) thread: Option<JoinHandle<()>>,
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

#[derive(Clone)]
pub(super) struct OriginSide {
    seed: u64,
    requests: u64,
    faults: bool,
    log: Arc<Mutex<OriginLog>>,
}

pub(super) enum Next {
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
pub(super) async fn fill(reading: &mut OwnedReadHalf, inbox: &mut Inbox) -> bool {
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
pub(super) fn reset(reading: &OwnedReadHalf, writing: OwnedWriteHalf) {
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(reading.as_ref()).set_linger(Some(Duration::ZERO));
    // Dropped, it would send a FIN before the reset: the orderly end of a body that ends with its connection.
    writing.forget();
}

pub(super) fn difference(want: &[u8], got: &[u8]) -> String {
    match want.iter().zip(got).position(|(a, b)| a != b) {
        Some(at) => format!("body differs from byte {at} on ({} bytes, {} due)", got.len(), want.len()),
        None => format!("body of {} bytes, {} due", got.len(), want.len()),
    }
}
