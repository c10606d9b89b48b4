//! Asking endpoints whether they can serve, on the control thread. Those that cannot are left out of what is published,
//! so a core that chooses among endpoints never sees them.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sluice_rules::health::{Change, Health};
use sluice_rules::snapshot::{HealthCheck, HealthQuestion, Snapshot, UpstreamProtocol};
use sluice_wire::grpc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use super::{Control, lock};
use crate::observe::prometheus::escaped;
use crate::publish::{Address, Publication};

/// Bytes of an answer to a gRPC health check.
const ANSWER_BYTES_MAX: usize = 4096;

/// An endpoint of an upstream. Names outlive configurations, and so does what is known of health.
type Key = (String, SocketAddr);

/// What the checks have found out.
#[derive(Default)]
pub(super) struct Checks {
    known: Mutex<HashMap<Key, Known>>,
    /// Other endpoints are there, or other checks.
    pub(super) renewed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    health: Health,
    passed: u64,
    failed: u64,
}

impl Checks {
    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        lock(&self.known)
    }

    /// Marks the addresses that must not be sent to.
    pub(super) fn mark(&self, snapshot: &Snapshot, addresses: &mut [Vec<Address>]) {
        let known = self.known();
        for (upstream, addresses) in snapshot.upstreams.iter().zip(addresses) {
            for address in addresses.iter_mut().filter(|_| upstream.health.is_some()) {
                let known = known.get(&(upstream.name.clone(), address.socket));
                address.is_up = known.is_none_or(|known| known.health.is_up());
            }
        }
    }

    /// What is known, in Prometheus' text form.
    pub(super) fn metrics(&self) -> String {
        let mut known: Vec<(Key, Known)> = self.known().iter().map(|(key, known)| (key.clone(), *known)).collect();
        if known.is_empty() {
            return String::new();
        }
        known.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let mut out = String::new();
        let (name, help) = ("sluice_endpoint_up", "Whether an endpoint passes its health checks.");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for ((upstream, endpoint), known) in &known {
            let (upstream, is_up) = (escaped(upstream), u8::from(known.health.is_up()));
            let _ = writeln!(out, "{name}{{upstream=\"{upstream}\",endpoint=\"{endpoint}\"}} {is_up}");
        }
        let (name, help) = ("sluice_health_checks_total", "Health checks by what came of them.");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for ((upstream, endpoint), known) in &known {
            let upstream = escaped(upstream);
            for (result, count) in [("passed", known.passed), ("failed", known.failed)] {
                let labels = format!("upstream=\"{upstream}\",endpoint=\"{endpoint}\",result=\"{result}\"");
                let _ = writeln!(out, "{name}{{{labels}}} {count}");
            }
        }
        out
    }
}

/// Everything that a question depends on.
#[derive(Clone)]
struct Asked {
    check: HealthCheck,
    address: SocketAddr,
    /// What stands for the endpoint in `Host` and `:authority`.
    authority: String,
    is_http2: bool,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Asked {
    /// Whether the same is asked in the same manner.
    fn is_like(&self, other: &Asked) -> bool {
        let server = |asked: &Asked| asked.tls.as_ref().map(|(config, name)| (Arc::as_ptr(config), name.clone()));
        self.check == other.check
            && self.authority == other.authority
            && self.is_http2 == other.is_http2
            && server(self) == server(other)
    }
}

/// Asks all endpoints that have to be asked, for ever.
pub(super) async fn watch(control: Arc<Control>) {
    let mut running: HashMap<Key, (Asked, AbortHandle)> = HashMap::new();
    loop {
        let mut wanted = wanted(&control.shared.published.current());
        running.retain(|key, (asked, task)| {
            let is_wanted = wanted.get(key).is_some_and(|wanted| wanted.is_like(asked));
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        control.checks.known().retain(|key, _| wanted.contains_key(key));
        wanted.retain(|key, _| !running.contains_key(key));
        for (key, asked) in wanted {
            let task = tokio::spawn(ask_on(Arc::clone(&control), key.clone(), asked.clone()));
            running.insert(key, (asked, task.abort_handle()));
        }
        control.checks.renewed.notified().await;
    }
}

/// What has to be asked of which endpoint.
fn wanted(publication: &Publication) -> HashMap<Key, Asked> {
    let mut wanted = HashMap::new();
    let upstreams = publication.snapshot.upstreams.iter().zip(&publication.addresses).zip(&publication.clients);
    for ((upstream, addresses), client) in upstreams {
        let Some(check) = &upstream.health else { continue };
        let is_grpc = matches!(check.question, HealthQuestion::Grpc { .. });
        let is_http2 = is_grpc || upstream.protocol == UpstreamProtocol::Http2;
        for address in addresses {
            let tls = client.as_ref().map(|client| {
                let protocol: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
                (client.config_for(protocol), client.server_name(address.host.as_deref(), address.socket))
            });
            let authority = match &address.host {
                Some(host) => format!("{host}:{}", address.socket.port()),
                None => address.socket.to_string(),
            };
            let asked = Asked { check: check.clone(), address: address.socket, authority, is_http2, tls };
            wanted.insert((upstream.name.clone(), address.socket), asked);
        }
    }
    wanted
}

/// Asks one endpoint again and again, and publishes what it changes.
async fn ask_on(control: Arc<Control>, key: Key, asked: Asked) {
    let mut turns = interval(asked.check.interval);
    // A machine that slept must not ask for all the time that it has missed.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let answer = timeout(asked.check.timeout, ask(&asked)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer in {:?}", asked.check.timeout)));
        let change = {
            let mut all = control.checks.known();
            let known = all.entry(key.clone()).or_default();
            *(if answer.is_ok() { &mut known.passed } else { &mut known.failed }) += 1;
            known.health.observe(answer.is_ok(), &asked.check)
        };
        let (upstream, endpoint) = &key;
        match (change, answer) {
            (Some(Change::Down), Err(why)) => {
                tracing::warn!(upstream, %endpoint, why, "an endpoint fails its health checks and gets no requests");
            }
            (Some(_), _) => {
                tracing::info!(upstream, %endpoint, "an endpoint passes its health checks and serves again")
            }
            (None, _) => continue,
        }
        control.publish_addresses();
    }
}

/// Asks once.
///
/// # Errors
/// What is wrong, for people.
async fn ask(asked: &Asked) -> Result<(), String> {
    let stream = TcpStream::connect(asked.address).await.map_err(|error| format!("connecting: {error}"))?;
    match &asked.tls {
        None => ask_by(asked, stream).await,
        Some((config, name)) => {
            let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
            ask_by(asked, stream.map_err(|error| format!("TLS: {error}"))?).await
        }
    }
}

async fn ask_by(asked: &Asked, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), String> {
    let (method, path, host, content) = match &asked.check.question {
        HealthQuestion::Connect => return Ok(()),
        HealthQuestion::Http { path, host } => {
            (Method::GET, path.as_str(), host.as_ref().unwrap_or(&asked.authority), Bytes::new())
        }
        HealthQuestion::Grpc { service } => {
            (Method::POST, grpc::HEALTH_CHECK, &asked.authority, Bytes::from(grpc::health_request(service)))
        }
    };
    let is_grpc = method == Method::POST;
    let mut request = Request::builder().method(method).header(USER_AGENT, "sluice-health");
    request = if is_grpc { request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers") } else { request };
    request = if asked.is_http2 {
        let scheme = if asked.tls.is_some() { "https" } else { "http" };
        request.version(Version::HTTP_2).uri(format!("{scheme}://{host}{path}"))
    } else {
        request.header(HOST, host).uri(path)
    };
    let request = request.body(Full::new(content)).map_err(|error| error.to_string())?;
    let failed = |error: hyper::Error| format!("HTTP: {error}");
    let io = TokioIo::new(stream);
    // The connection is driven beside the request, and ends with it.
    let (response, _driver) = if asked.is_http2 {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.map_err(failed)?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        (sender.send_request(request).await.map_err(failed)?, driver)
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        (sender.send_request(request).await.map_err(failed)?, driver)
    };
    let status = response.status();
    if !is_grpc {
        let is_good = status.is_success() || status.is_redirection();
        return if is_good { Ok(()) } else { Err(format!("the status is {status}")) };
    }
    if status != StatusCode::OK {
        return Err(format!("the status is {status}"));
    }
    // Without content the status of the call is in the head.
    let mut code = response.headers().get("grpc-status").cloned();
    let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let collected = collected.map_err(|error| format!("gRPC: {error}"))?;
    code = code.or_else(|| collected.trailers()?.get("grpc-status").cloned());
    match code {
        Some(code) if code.as_bytes() == b"0" => {}
        Some(code) => return Err(format!("the grpc-status is {}", String::from_utf8_lossy(code.as_bytes()))),
        None => return Err("there is no grpc-status".to_owned()),
    }
    if grpc::is_serving(&collected.to_bytes()) { Ok(()) } else { Err("the service is not SERVING".to_owned()) }
}

/// A task that ends when this is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
