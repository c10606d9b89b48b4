//! The admin endpoints: is it alive, is it ready, what does it do, who does harm; and some that change something.
//!
//! `openapi.json` describes them; a test holds the table of paths to it.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use serde_json::json;
use sluice_rules::snapshot::Admin;
use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncRead, AsyncWrite};

use super::reload::{Applied, ReloadError};
use super::{Control, cache, status};
use crate::StartError;

/// Admin requests under way at a time.
const CONNECTIONS_MAX: usize = 64;

/// A core that has not beaten for this long is stuck.
const BEAT_MAX: Duration = Duration::from_secs(2);

/// Bytes of what an admin request may bring.
const BODY_BYTES_MAX: usize = 4096;

/// How long a ban may be that ends by itself: a year.
const BAN_SECONDS_MAX: u64 = 365 * 24 * 3600;

/// What the endpoints are, in OpenAPI's form.
const OPENAPI: &str = include_str!("openapi.json");

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Livez,
    Readyz,
    Metrics,
    Status,
    Config,
    OpenApi,
    Reload,
    Drain,
    Protection,
    Bans,
    Ban,
    Lift,
    Cache,
    CacheKeys,
    CacheGet,
    CachePurge,
}

/// All there is, by path and by the method that it takes. HEAD goes with GET.
const ENDPOINTS: [(&str, Method, Endpoint); 16] = [
    ("/livez", Method::GET, Endpoint::Livez),
    ("/readyz", Method::GET, Endpoint::Readyz),
    ("/metrics", Method::GET, Endpoint::Metrics),
    ("/api/status", Method::GET, Endpoint::Status),
    ("/api/config", Method::GET, Endpoint::Config),
    ("/api/openapi.json", Method::GET, Endpoint::OpenApi),
    ("/api/reload", Method::POST, Endpoint::Reload),
    ("/api/drain", Method::POST, Endpoint::Drain),
    ("/api/protection", Method::GET, Endpoint::Protection),
    ("/api/protection/bans", Method::GET, Endpoint::Bans),
    ("/api/protection/bans", Method::POST, Endpoint::Ban),
    ("/api/protection/bans", Method::DELETE, Endpoint::Lift),
    ("/api/cache", Method::GET, Endpoint::Cache),
    ("/api/cache/keys", Method::GET, Endpoint::CacheKeys),
    ("/api/cache/get", Method::GET, Endpoint::CacheGet),
    ("/api/cache/purge", Method::POST, Endpoint::CachePurge),
];

/// Where admin requests come in.
pub(crate) struct Listener {
    socket: Socket,
    address: String,
    /// Whether only this machine can reach it by TCP, and so no name but those of loopback leads to it.
    is_loopback: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens for admin requests.
    pub(crate) fn bind(admin: &Admin) -> Result<Self, StartError> {
        let failed = |address: String| {
            move |error| StartError::Bind { address: address.clone(), what: "admin".to_owned(), error }
        };
        match admin {
            Admin::Address(address) => {
                let bind = || {
                    let socket = TcpListener::bind(address)?;
                    socket.set_nonblocking(true)?;
                    let bound = socket.local_addr()?;
                    let is_loopback = bound.ip().is_loopback();
                    Ok(Listener { socket: Socket::Tcp(socket), address: format!("http://{bound}"), is_loopback })
                };
                bind().map_err(failed(address.to_string()))
            }
            Admin::Socket(path) => {
                let bind = || {
                    remove_stale(path);
                    let socket = listen_alone(path)?;
                    let address = format!("unix:{}", path.display());
                    Ok(Listener { socket: Socket::Unix(socket, path.clone()), address, is_loopback: false })
                };
                bind().map_err(failed(path.display().to_string()))
            }
        }
    }

    /// As people read it: `http://` and an address, or `unix:` and a path.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Removes what it leaves in the file system.
    pub(super) fn remove(&self) {
        if let Socket::Unix(_, path) = &self.socket {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens at a path, for this user alone: who may write to the socket controls the gateway.
fn listen_alone(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: until then a connection is refused, whoever asks.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(CONNECTIONS_MAX as i32)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Removes the socket of a gateway that was killed. One that answers stays, and so does what is no socket.
fn remove_stale(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        // Should it fail, listening will fail and say why.
        let _ = std::fs::remove_file(path);
    }
}

/// A listener on the control thread.
pub(super) enum Listening {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Its form on the control thread.
    pub(super) fn start(&self) -> io::Result<Listening> {
        Ok(match &self.socket {
            Socket::Tcp(socket) => Listening::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?),
            Socket::Unix(socket, _) => Listening::Unix(tokio::net::UnixListener::from_std(socket.try_clone()?)?),
        })
    }
}

/// Serves admin requests for ever.
pub(super) async fn serve(listening: Listening, control: Arc<Control>) {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let control = Arc::clone(&control);
        let accepted = match &listening {
            Listening::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    connection(stream, control).await;
                    drop(permit);
                });
            }),
            Listening::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    connection(stream, control).await;
                    drop(permit);
                });
            }),
        };
        if accepted.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, control: Arc<Control>) {
    let service = service_fn(|request| answer(Arc::clone(&control), request));
    // An admin client that breaks its connection concerns nobody else.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(control: Arc<Control>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let path = request.uri().path();
    let here = || ENDPOINTS.iter().filter(|(known, ..)| *known == path);
    let Some((_, _, endpoint)) = here().find(|(_, allowed, _)| allowed == method) else {
        return Ok(not_served(path, &here().map(|(_, method, _)| method.as_str()).collect::<Vec<_>>()));
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_loopback = super::lock(&control.admin).as_ref().is_some_and(|admin| admin.is_loopback);
    if path.starts_with("/api/")
        && let Err(why) = from_this_site(request.headers(), method != Method::GET, is_loopback)
    {
        return Ok(response(StatusCode::FORBIDDEN, TEXT, format!("{why}\n")));
    }
    Ok(match endpoint {
        Endpoint::Livez if status::slowest_beat(&control) < BEAT_MAX => response(StatusCode::OK, TEXT, "ok\n"),
        Endpoint::Livez => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "a core is stuck\n"),
        Endpoint::Readyz if control.is_draining() => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
        Endpoint::Readyz => response(StatusCode::OK, TEXT, "ok\n"),
        Endpoint::Metrics => response(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            status::figures(&control) + &status::reload_metrics(&control) + &control.protection_metrics(),
        ),
        Endpoint::Status => response(StatusCode::OK, JSON, status::status(&control).to_string()),
        Endpoint::Config => {
            let effective = super::lock(&control.effective).clone();
            // A large one takes a while.
            let text = tokio::task::spawn_blocking(move || effective.map(|effective| effective())).await;
            match text {
                Ok(Some(text)) => response(StatusCode::OK, JSON, text),
                _ => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the configuration cannot be shown\n"),
            }
        }
        Endpoint::OpenApi => response(StatusCode::OK, JSON, OPENAPI),
        Endpoint::Reload => {
            // A task of its own: a client that leaves must not stop it half way.
            let there = Arc::clone(&control);
            match tokio::spawn(async move { there.reload().await }).await {
                Ok(outcome) => reloaded(outcome),
                Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the reload failed\n"),
            }
        }
        Endpoint::Cache => response(StatusCode::OK, JSON, cache::stats(&control).to_string()),
        Endpoint::CacheKeys => cached(cache::keys(&control, &query)),
        Endpoint::CacheGet => cached(cache::get(&control, &query)),
        Endpoint::CachePurge => cached(cache::purge(&control, &query)),
        Endpoint::Drain => {
            // Readiness goes before the answer, so that who asks can rely on it.
            control.shared.draining.store(true, Ordering::Relaxed);
            control.drain_asked.notify_one();
            response(StatusCode::ACCEPTED, JSON, json!({ "state": "draining" }).to_string())
        }
        Endpoint::Protection => response(StatusCode::OK, JSON, control.protection().to_string()),
        Endpoint::Bans => response(StatusCode::OK, JSON, control.bans().to_string()),
        Endpoint::Ban => match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => ban(&control, &body.to_bytes()),
            Err(_) => response(StatusCode::PAYLOAD_TOO_LARGE, TEXT, "the content is too large or was cut\n"),
        },
        Endpoint::Lift => lift(&control, request.uri().query().unwrap_or_default()),
    })
}

/// What is asked for is not there, or not by this method.
fn not_served(path: &str, allowed: &[&str]) -> Response<Full<Bytes>> {
    if allowed.is_empty() {
        let mut paths: Vec<&str> = ENDPOINTS.iter().map(|(path, ..)| *path).collect();
        paths.dedup();
        return response(StatusCode::NOT_FOUND, TEXT, format!("try one of {}\n", paths.join(", ")));
    }
    let allowed = allowed.join(", ");
    let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("{path} takes {allowed}\n"));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        refused.headers_mut().insert(ALLOW, allowed);
    }
    refused
}

/// Bans the network that a JSON object names: `{"network": "203.0.113.0/24", "seconds": 600, "reason": "..."}`.
fn ban(control: &Control, body: &[u8]) -> Response<Full<Bytes>> {
    let refused = |why: &str| response(StatusCode::UNPROCESSABLE_ENTITY, TEXT, format!("{why}\n"));
    let Ok(asked) = serde_json::from_slice::<serde_json::Value>(body) else {
        return refused("the content is no JSON");
    };
    let Some(network) = asked["network"].as_str().and_then(network) else {
        return refused("`network` has to be an address or a network such as 203.0.113.0/24");
    };
    let time = match &asked["seconds"] {
        serde_json::Value::Null => None,
        seconds => match seconds.as_u64().filter(|seconds| (1..=BAN_SECONDS_MAX).contains(seconds)) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                return refused("`seconds` has to be a whole number from 1 to 31536000; without it, it is for good");
            }
        },
    };
    match control.ban(network, time, asked["reason"].as_str().unwrap_or_default()) {
        Ok(()) => response(StatusCode::OK, JSON, json!({ "banned": network.to_string() }).to_string()),
        Err(error) => refused(&error.to_string()),
    }
}

/// Lifts the ban of the network that a query names: `network=203.0.113.0/24`.
fn lift(control: &Control, query: &str) -> Response<Full<Bytes>> {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("network="));
    let asked =
        asked.map(|asked| asked.replace("%2F", "/").replace("%2f", "/").replace("%3A", ":").replace("%3a", ":"));
    let Some(network) = asked.as_deref().and_then(network) else {
        let why = "the query has to name a network, as network=203.0.113.0/24\n";
        return response(StatusCode::UNPROCESSABLE_ENTITY, TEXT, why);
    };
    if control.lift(network) {
        response(StatusCode::OK, JSON, json!({ "lifted": network.to_string() }).to_string())
    } else {
        response(StatusCode::NOT_FOUND, TEXT, format!("{network} is not banned\n"))
    }
}

/// A network, or one address.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(IpNet::trunc(&network))
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn cached(outcome: Result<serde_json::Value, cache::Refused>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(answer) => response(StatusCode::OK, JSON, answer.to_string()),
        Err(cache::Refused::Busy) => {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", cache::Refused::Busy))
        }
        Err(refused) => response(StatusCode::BAD_REQUEST, TEXT, format!("{refused}\n")),
    }
}

fn reloaded(outcome: Result<Applied, ReloadError>) -> Response<Full<Bytes>> {
    let (status, body) = match outcome {
        Ok(applied) => {
            let Applied { configuration, report, next_start, read, publish } = applied;
            let body = json!({
                "outcome": "applied",
                "configuration": configuration,
                "report": report,
                "next-start": next_start,
                "read-seconds": read.as_secs_f64(),
                "publish-seconds": publish.as_secs_f64(),
            });
            (StatusCode::OK, body)
        }
        Err(error) => {
            let (status, outcome) = match error {
                ReloadError::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "rejected"),
                ReloadError::NoSource | ReloadError::Draining => (StatusCode::CONFLICT, "failed"),
                ReloadError::Listen(_) | ReloadError::Reading | ReloadError::Stuck => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "failed")
                }
            };
            (status, json!({ "outcome": outcome, "report": error.to_string() }))
        }
    };
    response(status, JSON, body.to_string())
}

/// Refuses what a web page of somebody else may have had a browser send.
///
/// A browser says where a POST comes from, so one that comes from any page is refused: there is no page of ours. A
/// page whose name was made to lead to this machine (DNS rebinding) still sends its own name as `Host`.
fn from_this_site(fields: &HeaderMap, changes: bool, is_loopback: bool) -> Result<(), &'static str> {
    if changes {
        let site = fields.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if fields.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none") {
            return Err("requests from web pages are refused");
        }
    }
    let host = fields.get(HOST).and_then(|host| host.to_str().ok());
    if is_loopback && host.is_some_and(|host| !names_loopback(host)) {
        return Err("the admin address goes by its IP address or as localhost");
    }
    Ok(())
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_describes_what_is_served_and_nothing_else() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
        let served = ENDPOINTS.iter().map(|(path, method, _)| ((*path).to_owned(), method.to_string()));
        assert_eq!(described, served.collect());
    }

    #[test]
    fn a_socket_is_for_its_owner_alone_and_takes_the_place_of_a_dead_one() {
        let path = std::env::temp_dir().join(format!("sluice-admin-{}.sock", std::process::id()));
        for _ in 0..2 {
            // The first one is left behind, as by a gateway that was killed.
            let listener = Listener::bind(&Admin::Socket(path.clone())).expect("a socket");
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            UnixStream::connect(&path).expect("it listens");
            assert!(Listener::bind(&Admin::Socket(path.clone())).is_err(), "one that answers stays");
            drop(listener);
        }
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn web_pages_do_not_control_the_gateway() {
        let fields = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            fields.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
        };
        let ours = [
            fields(&[]),
            fields(&[("host", "localhost:9901")]),
            fields(&[("host", "127.0.0.1")]),
            fields(&[("host", "[::1]:9901"), ("sec-fetch-site", "none")]),
        ];
        for fields in ours {
            assert_eq!(from_this_site(&fields, true, true), Ok(()), "{fields:?}");
        }
        let others = [
            fields(&[("host", "127.0.0.1"), ("origin", "http://evil.example")]),
            fields(&[("host", "127.0.0.1"), ("origin", "null")]),
            fields(&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")]),
            fields(&[("host", "127.0.0.1"), ("sec-fetch-site", "same-site")]),
            fields(&[("host", "evil.example:9901")]),
            fields(&[("host", "127.0.0.1.evil.example")]),
        ];
        for fields in others {
            assert!(from_this_site(&fields, true, true).is_err(), "{fields:?}");
        }
        assert!(from_this_site(&fields(&[("host", "gateway.internal")]), true, false).is_ok());
        assert!(from_this_site(&fields(&[("host", "evil.example")]), false, true).is_err(), "reading by rebinding");
    }
}
