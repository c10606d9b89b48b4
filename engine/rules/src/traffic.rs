//! What the traffic of the last second consists of, in fixed memory however many clients there are.
//!
//! Each core fills a [`Window`]; once a second they are added up ([`Totals`]), held against what is usual
//! ([`baseline`]), and clients are judged by what is certain of them ([`crate::protection::Ladder`]).

pub mod baseline;
pub mod cardinality;
pub mod heavy;
mod totals;

use ipnet::IpNet;

use crate::failure::Failure;
use crate::protection::Subject;

use cardinality::Cardinality;
use heavy::HeavyHitters;

pub use totals::{Client, Top, Totals};

/// Clients that are followed on each core.
const CLIENTS: usize = 512;

/// Networks, paths and user agents that are followed on each core.
const OTHERS: usize = 128;

/// What is followed of requests of one client besides their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that failed by the client's own fault: a status of 400 to 498 other than 429.
    pub errors: u64,
    /// Requests that were refused for want of credentials: 401 and 403.
    pub logins: u64,
    /// Requests that the client was too slow with.
    pub slow: u64,
}

impl Tally {
    /// What one request adds, by how it ended.
    ///
    /// What protection itself refused is no further offence, a client that has gone is no error, and an error of the
    /// upstream's (500 and above) is not the client's: else an outage would have its users banned.
    pub fn of(status: u16, failure: Option<Failure>) -> Tally {
        let is_slow = matches!(failure, Some(Failure::HeaderTimeout | Failure::BodyTimeout | Failure::WriteTimeout));
        let is_counted = matches!(status, 400..=498) && !failure.is_some_and(Failure::is_policy) && status != 429;
        let is_login = is_counted && matches!(status, 401 | 403);
        Tally { errors: is_counted.into(), logins: is_login.into(), slow: is_slow.into() }
    }

    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        self.errors = self.errors.saturating_add(other.errors);
        self.logins = self.logins.saturating_add(other.logins);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// The beginning of a text: what is followed has a fixed size.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text {
    bytes: [u8; Text::BYTES],
    length: u8,
}

impl Text {
    /// Bytes that are kept; texts that are alike that far are taken for the same.
    pub const BYTES: usize = 63;

    /// The beginning of `text`.
    pub fn of(text: &[u8]) -> Self {
        let length = text.len().min(Text::BYTES);
        let mut bytes = [0; Text::BYTES];
        bytes[..length].copy_from_slice(&text[..length]);
        Text { bytes, length: length as u8 }
    }

    /// As it may be shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]).into_owned()
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shown().fmt(f)
    }
}

/// What is followed of one request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who sent it.
    pub client: Subject,
    /// The path, if it had come so far.
    pub path: &'a [u8],
    /// What its `User-Agent` says.
    pub user_agent: &'a [u8],
    /// How it ended.
    pub tally: Tally,
}

/// The traffic of a core since it was last looked at. About 90 KB.
#[derive(Debug)]
pub struct Window {
    clients: HeavyHitters<Subject, Tally>,
    networks: HeavyHitters<IpNet, ()>,
    paths: HeavyHitters<Text, ()>,
    agents: HeavyHitters<Text, ()>,
    distinct_clients: Cardinality,
    distinct_paths: Cardinality,
    requests: u64,
    tally: Tally,
    seed: u64,
}

impl Window {
    /// An empty one. `seed` is drawn at random, once for all windows that are added up: without it, clients could
    /// choose paths that count as one.
    pub fn new(seed: u64) -> Self {
        Window {
            clients: HeavyHitters::new(CLIENTS, seed),
            networks: HeavyHitters::new(OTHERS, seed),
            paths: HeavyHitters::new(OTHERS, seed),
            agents: HeavyHitters::new(OTHERS, seed),
            distinct_clients: Cardinality::default(),
            distinct_paths: Cardinality::default(),
            requests: 0,
            tally: Tally::default(),
            seed,
        }
    }

    /// Takes in a request.
    pub fn record(&mut self, request: &Request<'_>) {
        self.requests += 1;
        self.tally.add(request.tally);
        self.clients.offer(request.client, |tally| tally.add(request.tally));
        self.networks.offer(request.client.neighbourhood(), |()| ());
        self.distinct_clients.insert(heavy::hash(self.seed, &request.client));
        if !request.path.is_empty() {
            let path = Text::of(request.path);
            self.paths.offer(path, |()| ());
            self.distinct_paths.insert(heavy::hash(self.seed, request.path));
        }
        self.agents.offer(Text::of(request.user_agent), |()| ());
    }

    /// Empties it for the next second.
    pub fn clear(&mut self) {
        self.clients.clear();
        self.networks.clear();
        self.paths.clear();
        self.agents.clear();
        self.distinct_clients.clear();
        self.distinct_paths.clear();
        (self.requests, self.tally) = (0, Tally::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_client_s_own_fault_counts_as_an_error() {
        let tally = |errors, logins, slow| Tally { errors, logins, slow };
        let cases = [
            (200, None, tally(0, 0, 0)),
            (404, None, tally(1, 0, 0)),
            (401, None, tally(1, 1, 0)),
            (403, None, tally(1, 1, 0)),
            (404, Some(Failure::NoRoute), tally(1, 0, 0)),
            (408, Some(Failure::HeaderTimeout), tally(1, 0, 1)),
            (499, Some(Failure::ClientGone), tally(0, 0, 0)),
            (499, Some(Failure::WriteTimeout), tally(0, 0, 1)),
            (429, None, tally(0, 0, 0)),
            (429, Some(Failure::Throttled), tally(0, 0, 0)),
            (403, Some(Failure::Banned), tally(0, 0, 0)),
            (403, Some(Failure::AccessDenied), tally(0, 0, 0)),
            (502, Some(Failure::ConnectionRefused), tally(0, 0, 0)),
            (500, None, tally(0, 0, 0)),
        ];
        for (status, failure, expected) in cases {
            assert_eq!(Tally::of(status, failure), expected, "{status} {failure:?}");
        }
    }
}
