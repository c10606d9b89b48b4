//! The admin endpoints: is it alive, is it ready, how much has it done.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::core::Shared;
use crate::observe::metrics::{self, CoreMetrics};

/// Admin requests under way at a time.
const CONNECTIONS_MAX: usize = 64;

/// A core that has not beaten for this long is stuck.
const BEAT_MAX: Duration = Duration::from_secs(2);

struct State {
    shared: Arc<Shared>,
    metrics: Vec<Arc<CoreMetrics>>,
    driver: String,
}

/// Serves admin requests for ever.
pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    metrics: Vec<Arc<CoreMetrics>>,
    driver: String,
) {
    let state = Arc::new(State { shared, metrics, driver });
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&state), request));
            // An admin client that breaks its connection concerns nobody else.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, content_type, body) = match request.uri().path() {
        "/livez" | "/readyz" | "/metrics" if !reading => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        "/livez" if alive(&state.metrics).await => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/livez" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "a core is stuck\n".to_owned()),
        "/readyz" if state.shared.draining.load(Ordering::Relaxed) => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".to_owned())
        }
        "/readyz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/metrics" => {
            let generation = state.shared.published.generation();
            let text = metrics::render(&state.metrics, &state.driver, generation);
            (StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "try /livez, /readyz or /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
    }
    Ok(response)
}

/// Whether every core beats.
async fn alive(cores: &[Arc<CoreMetrics>]) -> bool {
    let beats = || cores.iter().map(|core| core.last_tick.get()).collect::<Vec<_>>();
    let before = beats();
    let beaten = async {
        let mut check = tokio::time::interval(Duration::from_millis(20));
        while beats().iter().zip(&before).any(|(now, before)| now == before) {
            check.tick().await;
        }
    };
    tokio::time::timeout(BEAT_MAX, beaten).await.is_ok()
}
