//! A client and an origin of HTTP/2, for what is said on streams. What is said in frames is written by hand where it
//! matters.

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// What a request got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    pub(crate) interim: Vec<http::response::Parts>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// A connection of HTTP/2 to the gateway.
pub(crate) struct Http2 {
    runtime: Runtime,
    local: LocalSet,
    send: SendRequest<Bytes>,
}

impl Http2 {
    /// Connects in plain text, by prior knowledge.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let send = local.block_on(&runtime, async {
            let stream = TcpStream::connect(address).expect("a connection");
            stream.set_nonblocking(true).expect("a socket");
            let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            let (send, connection) = h2::client::Builder::new()
                .initial_window_size(1 << 20)
                .handshake::<_, Bytes>(stream)
                .await
                .expect("a handshake");
            // How it ends shows by its streams.
            tokio::task::spawn_local(async { drop(connection.await) });
            send
        });
        Self { runtime, local, send }
    }

    /// Does something with the connection.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
        let send = self.send.clone();
        self.local.block_on(&self.runtime, async { timeout(PATIENCE, work(send)).await.expect("in time") })
    }

    /// Sends a request and takes the answer.
    pub(crate) fn ask(&self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        self.run(async |send| exchange(send, request, Bytes::copy_from_slice(body)).await)
    }

    /// Gets a path.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(get(path), b"").expect("an answer")
    }
}

/// A request for a path of `a.test`.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.test{path}")).body(()).expect("a request")
}

/// Sends a request and takes the answer.
pub(crate) async fn exchange(send: SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Result<Answer, h2::Error> {
    let mut send = send.ready().await?;
    let (mut response, mut stream) = send.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    let mut interim = Vec::new();
    let response = poll_fn(|context| {
        while let std::task::Poll::Ready(Some(Ok(head))) = response.poll_informational(context) {
            interim.push(head.into_parts().0);
        }
        Pin::new(&mut response).poll(context)
    })
    .await?;
    let (head, content) = response.into_parts();
    let (body, trailers) = take(content).await?;
    Ok(Answer { head, body, trailers, interim })
}

/// Takes content and trailers.
pub(crate) async fn take(mut content: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut body = Vec::new();
    while let Some(part) = content.data().await {
        let part = part?;
        content.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    Ok((body, content.trailers().await?.unwrap_or_default()))
}

type Answering = Pin<Box<dyn Future<Output = ()>>>;
type Handler = dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answering + Send + Sync;

/// An origin that speaks HTTP/2 in plain text.
pub(crate) struct Http2Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Http2Origin {
    /// Answers each request by `handler`.
    pub(crate) fn new<F: Future<Output = ()> + 'static>(
        handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::with(h2::server::Builder::new(), handler)
    }

    /// The same, with limits of its own.
    pub(crate) fn with<F: Future<Output = ()> + 'static>(
        builder: h2::server::Builder,
        handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self {
        let handler: Arc<Handler> = Arc::new(move |request, respond| Box::pin(handler(request, respond)));
        let connections = Arc::<AtomicUsize>::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, address) = mpsc::channel();
        let count = Arc::clone(&connections);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
                ready.send(listener.local_addr().expect("an address")).expect("somebody waits");
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        count.fetch_add(1, Ordering::Relaxed);
                        tokio::task::spawn_local(serve(stream, builder.clone(), Arc::clone(&handler)));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv().expect("an address");
        Self { address, connections, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Http2Origin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, builder: h2::server::Builder, handler: Arc<Handler>) {
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let closing = Rc::new(std::cell::Cell::new(false));
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            closing.set(true);
        }
        tokio::task::spawn_local(handler(request, respond));
        if closing.get() {
            connection.graceful_shutdown();
        }
    }
}

/// Answers with content, and trailers if there are any.
pub(crate) fn answer(mut respond: SendResponse<Bytes>, response: Response<()>, body: Bytes, trailers: HeaderMap) {
    let ends = body.is_empty() && trailers.is_empty();
    // The client may have gone, which is for it to tell.
    let Ok(mut stream) = respond.send_response(response, ends) else { return };
    if !ends {
        let _ = stream.send_data(body, trailers.is_empty());
        if !trailers.is_empty() {
            let _ = stream.send_trailers(trailers);
        }
    }
}

/// Resets a stream in place of an answer.
pub(crate) fn reset(mut respond: SendResponse<Bytes>, reason: Reason) {
    respond.send_reset(reason);
}
