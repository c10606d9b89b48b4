//! How fast the content of a response is sent.
//!
//! What has come is passed on, then the response rests for as long as that is worth. A stream counts for itself; the
//! streams of a client take turns by the account of the client, which is the node's.

use std::net::IpAddr;
use std::time::Duration;

use sluice_rules::limit::{Bucket, FRESH, Key, Meter, Nanos, Prefixes, Take, Word, of_client, seed};
use sluice_rules::snapshot::Bandwidth;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::rt::SMALL;

use super::delay::sleep_unless;
use super::moment;

/// What bandwidth is counted in. Bytes would be too short for nanoseconds.
const UNIT_BYTES: u64 = 1024;

/// How much may come at once: a tenth of a second's worth, and at least what a buffer takes.
const BURST_MIN: u64 = SMALL as u64 / UNIT_BYTES;

/// How long a response rests at a time, so that it is seen to be alive.
const REST_MAX: Duration = Duration::from_millis(500);

/// Keeps one response to its bandwidth.
pub(crate) struct Pacer {
    stream: Option<(Bucket, Word)>,
    client: Option<(Bucket, Key)>,
    /// Bytes that are not yet counted.
    rest: u64,
}

fn bucket(bytes_per_second: u64) -> Bucket {
    let units = (bytes_per_second / UNIT_BYTES / 10).max(BURST_MIN);
    Bucket::new(bytes_per_second, UNIT_BYTES * 1_000_000_000, units)
}

impl Pacer {
    /// For a response on a route of this name to this client. `None`: it is not slowed down.
    pub(crate) fn new(core: &Core, bandwidth: Bandwidth, route: &str, client: IpAddr) -> Option<Self> {
        let stream = bandwidth.per_stream.map(|rate| (bucket(rate), FRESH));
        let key = || {
            let accounts = core.shared.accounts.get()?;
            // No limit is called so, and no route counts with another.
            let seed = seed(route) ^ seed("bandwidth of a client");
            Some(of_client(accounts.secret, seed, Prefixes { ipv4: 32, ipv6: 64 }, client))
        };
        let client = bandwidth.per_client.and_then(|rate| Some((bucket(rate), key()?)));
        (stream.is_some() || client.is_some()).then_some(Pacer { stream, client, rest: 0 })
    }

    /// Rests for as long as `bytes` that were passed on are worth, calling `alive` now and then. Returns whether
    /// `deadline` was not over meanwhile.
    pub(crate) async fn rest(&mut self, core: &Core, deadline: &Deadline, bytes: usize, alive: impl Fn()) -> bool {
        let mut wait = Duration::from_nanos(self.worth(core, bytes as u64));
        while !wait.is_zero() {
            let part = wait.min(REST_MAX);
            if !sleep_unless(deadline, part).await {
                return false;
            }
            alive();
            wait -= part;
        }
        true
    }

    fn worth(&mut self, core: &Core, bytes: u64) -> Nanos {
        let bytes = bytes + self.rest;
        self.rest = bytes % UNIT_BYTES;
        let mut wait = 0;
        let now = moment(core, core.clock.now());
        // In parts that a burst has room for.
        let mut left = bytes / UNIT_BYTES;
        while left > 0 {
            let part = left.min(BURST_MIN);
            left -= part;
            if let Some((bucket, word)) = &mut self.stream
                && let Take::Taken { word: next, wait: longer } =
                    Meter::Bucket(*bucket).take(*word, now, part, Nanos::MAX / 4)
            {
                *word = next;
                wait = wait.max(longer);
            }
            if let Some((bucket, key)) = &self.client
                && let Some(accounts) = core.shared.accounts.get()
            {
                let take = |word| match Meter::Bucket(*bucket).take(word, now, part, Nanos::MAX / 4) {
                    Take::Taken { word, wait } => (Some(word), wait),
                    Take::Refused { .. } => (None, 0),
                };
                wait = wait.max(accounts.table.update(*key, None, now, take).map_or(0, |(wait, _)| wait));
            }
        }
        wait
    }
}
