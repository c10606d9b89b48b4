//! Names of endpoints, resolved by their time to live. A core never resolves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use sluice_rules::snapshot::{Endpoint, Snapshot};
use tokio::sync::{Notify, oneshot};

use super::Control;
use crate::publish::Address;

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

/// The names of endpoints and what is known of them.
#[derive(Default)]
pub(super) struct Names {
    known: Mutex<HashMap<String, Known>>,
    resolver: OnceLock<Option<TokioResolver>>,
    renewed: Notify,
}

impl Names {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the names of which nothing is known yet.
    pub(super) async fn learn(&self, snapshot: &Snapshot) {
        for name in names(snapshot) {
            if !self.known().contains_key(name) {
                self.ask(name).await;
            }
        }
    }

    /// Another configuration serves: forgets the names that it does not have, and looks at the others.
    pub(super) fn renew(&self, snapshot: &Snapshot) {
        let names = names(snapshot);
        self.known().retain(|name, _| names.binary_search(&name.as_str()).is_ok());
        self.renewed.notify_one();
    }

    /// For each upstream the addresses of its endpoints, as far as they are known.
    pub(super) fn addresses(&self, snapshot: &Snapshot) -> Vec<Vec<Address>> {
        addresses(snapshot, &self.known())
    }

    /// Asks for one name.
    async fn ask(&self, name: &str) {
        let build = || match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::error!(%error, "names cannot be resolved; upstreams given by name have no address");
                None
            }
        };
        let before = self.known().get(name).map(|known| known.addresses.clone()).unwrap_or_default();
        let known = match self.resolver.get_or_init(build) {
            Some(resolver) => ask(resolver, name, before).await,
            None => Known { addresses: before, ask_again: Instant::now() + TTL_MAX },
        };
        self.known().insert(name.to_owned(), known);
    }

    /// Asks for the names whose time has come. Returns when the next one's does.
    async fn refresh(&self, snapshot: &Snapshot) -> Option<Instant> {
        let names = names(snapshot);
        for name in &names {
            let fresh = self.known().get(*name).is_some_and(|known| known.ask_again > Instant::now());
            if !fresh {
                self.ask(name).await;
            }
        }
        names.iter().filter_map(|name| self.known().get(*name).map(|known| known.ask_again)).min()
    }
}

/// Keeps the addresses of all endpoints that are given by name up to date, for ever. `asked` hears when each was
/// asked for once.
pub(super) async fn resolve(control: Arc<Control>, asked: oneshot::Sender<()>) {
    let (names, published) = (&control.names, &control.shared.published);
    let mut asked = Some(asked);
    loop {
        let next = names.refresh(&published.current().snapshot).await;
        if control.publish_addresses() {
            control.checks.renewed.notify_one();
        }
        if let Some(asked) = asked.take() {
            // Nobody may be waiting any more.
            let _ = asked.send(());
        }
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = names.renewed.notified() => {}
        }
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

fn addresses(snapshot: &Snapshot, known: &HashMap<String, Known>) -> Vec<Vec<Address>> {
    let of_endpoint = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => vec![Address { socket: *address, host: None, is_up: true }],
        Endpoint::Name { host, port } => {
            let addresses = known.get(host.as_str()).map(|known| known.addresses.as_slice()).unwrap_or_default();
            let found_by = Some(Arc::from(host.as_str()));
            let address = |address: &IpAddr| SocketAddr::new(*address, *port);
            addresses.iter().map(|ip| Address { socket: address(ip), host: found_by.clone(), is_up: true }).collect()
        }
    };
    snapshot.upstreams.iter().map(|upstream| upstream.endpoints.iter().flat_map(of_endpoint).collect()).collect()
}
