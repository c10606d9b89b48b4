//! Names of endpoints, resolved by their time to live. A core never resolves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use sluice_rules::snapshot::{Endpoint, Snapshot};
use tokio::sync::oneshot;

use crate::core::Shared;

/// Bounds on how long an answer is used before it is asked for again.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);

/// How soon a name that gave no answer is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// What is known of a name. The last good answer is kept, however old, until there is a better one.
struct Known {
    addresses: Vec<IpAddr>,
    ask_again: Instant,
}

/// Keeps the addresses of all endpoints that are given by name up to date, for ever. `asked` hears when each was
/// asked for once.
pub(super) async fn resolve(shared: Arc<Shared>, asked: oneshot::Sender<()>) {
    let mut asked = Some(asked);
    let publication = shared.published.current();
    let snapshot = &publication.snapshot;
    let names = names(snapshot);
    if names.is_empty() {
        return;
    }
    let resolver = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => resolver,
        Err(error) => {
            tracing::error!(%error, "names cannot be resolved; upstreams given by name have no address");
            return;
        }
    };
    let mut known: HashMap<&str, Known> = HashMap::new();
    loop {
        for name in &names {
            if known.get(name).is_some_and(|known| known.ask_again > Instant::now()) {
                continue;
            }
            let before = known.remove(name).map(|known| known.addresses).unwrap_or_default();
            known.insert(name, ask(&resolver, name, before).await);
        }
        let addresses = addresses(snapshot, &known);
        if addresses != shared.published.current().addresses {
            shared.published.set_addresses(addresses);
        }
        if let Some(asked) = asked.take() {
            // Nobody may be waiting any more.
            let _ = asked.send(());
        }
        let next = known.values().map(|known| known.ask_again).min().unwrap_or_else(Instant::now);
        tokio::time::sleep_until(next.into()).await;
    }
}

async fn ask(resolver: &TokioResolver, name: &str, before: Vec<IpAddr>) -> Known {
    match resolver.lookup_ip(name).await {
        Ok(answer) => {
            let mut addresses: Vec<IpAddr> = answer.iter().collect();
            // The order of an answer is meant to vary; ours says nothing, so that it changes only with the set.
            addresses.sort_unstable();
            let ttl = answer.valid_until().saturating_duration_since(Instant::now()).clamp(TTL_MIN, TTL_MAX);
            Known { addresses, ask_again: Instant::now() + ttl }
        }
        Err(error) => {
            tracing::warn!(name, %error, kept = before.len(), "a name does not resolve; its last addresses stay in use");
            Known { addresses: before, ask_again: Instant::now() + RETRY }
        }
    }
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let endpoints = snapshot.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    let mut names: Vec<&str> = endpoints
        .filter_map(|endpoint| match endpoint {
            Endpoint::Name { host, .. } => Some(host.as_str()),
            Endpoint::Address(_) => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn addresses(snapshot: &Snapshot, known: &HashMap<&str, Known>) -> Vec<Vec<SocketAddr>> {
    let of_endpoint = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => vec![*address],
        Endpoint::Name { host, port } => {
            let addresses = known.get(host.as_str()).map(|known| known.addresses.as_slice()).unwrap_or_default();
            addresses.iter().map(|address| SocketAddr::new(*address, *port)).collect()
        }
    };
    snapshot.upstreams.iter().map(|upstream| upstream.endpoints.iter().flat_map(of_endpoint).collect()).collect()
}
