//! Whether a queue stands, or only takes up a burst.

use super::Nanos;

/// How long somebody has to have waited too long without a break before a queue stands (RFC 8289 §4.3).
const INTERVAL: Nanos = 100_000_000;

/// A wait that is nothing to speak of: a twentieth of the interval (RFC 8289 §4.4).
const TARGET: Nanos = INTERVAL / 20;

/// How many turns of service make a wait worth speaking of where service is slow.
const TARGET_TURNS: u64 = 2;

/// How many turns an interval has at least where service is slow.
const INTERVAL_TURNS: u64 = 8;

/// CoDel's judgement (RFC 8289): a queue is good as long as it empties now and then. It stands once its oldest has
/// waited for longer than the target during a whole interval.
///
/// CoDel drops from the front of a queue whose senders slow down for it. Requests do not: a queue that stands is served
/// from its back instead, and those at the front are told soon that they will not be served, as Facebook does ("Fail at
/// Scale", Maurer 2015: adaptive LIFO, controlled delay).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Since when the oldest has waited for too long, without a break.
    above_since: Option<Nanos>,
    stands: bool,
}

impl Standing {
    /// Takes a look: how long the oldest has waited, if there is anybody, and how long a turn of service takes.
    pub(super) fn look(&mut self, oldest: Option<Nanos>, turn: Nanos, now: Nanos) {
        if oldest.is_none_or(|waited| waited < target(turn)) {
            *self = Standing::default();
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        self.stands |= now.saturating_sub(since) >= interval(turn);
    }

    /// Whether it stands, so that the newest is served first.
    pub(super) fn stands(self) -> bool {
        self.stands
    }

    /// How long somebody may wait: `wait_max`, or an interval while it stands, since whoever has been overtaken for so
    /// long hardly gets a turn any more.
    pub(super) fn patience(self, wait_max: Nanos, turn: Nanos) -> Nanos {
        if self.stands { interval(turn).min(wait_max) } else { wait_max }
    }
}

fn interval(turn: Nanos) -> Nanos {
    INTERVAL.max(turn.saturating_mul(INTERVAL_TURNS))
}

fn target(turn: Nanos) -> Nanos {
    TARGET.max(turn.saturating_mul(TARGET_TURNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_burst_is_no_standing_queue() {
        let mut standing = Standing::default();
        for now in 0..99 {
            standing.look(Some(20 * MS), MS, now * MS);
            assert!(!standing.stands(), "after {now} ms");
        }
        standing.look(Some(TARGET - 1), MS, 99 * MS);
        standing.look(Some(20 * MS), MS, 100 * MS);
        assert!(!standing.stands(), "it has emptied meanwhile");
    }

    #[test]
    fn a_queue_stands_after_an_interval_and_until_nobody_waits_long() {
        let mut standing = Standing::default();
        standing.look(Some(20 * MS), MS, 0);
        standing.look(Some(20 * MS), MS, INTERVAL);
        assert!(standing.stands());
        assert_eq!(standing.patience(500 * MS, MS), INTERVAL);
        assert_eq!(standing.patience(4 * MS, MS), 4 * MS, "never longer than asked for");
        standing.look(None, MS, INTERVAL + 1);
        assert!(!standing.stands());
        assert_eq!(standing.patience(500 * MS, MS), 500 * MS);
    }

    /// With a turn a second, waiting for one is no sign of overload.
    #[test]
    fn slow_service_makes_for_longer_waits() {
        let mut standing = Standing::default();
        standing.look(Some(1500 * MS), 1000 * MS, 0);
        standing.look(Some(1500 * MS), 1000 * MS, 60_000 * MS);
        assert!(!standing.stands());
        standing.look(Some(2500 * MS), 1000 * MS, 60_000 * MS);
        standing.look(Some(2500 * MS), 1000 * MS, 68_000 * MS);
        assert!(standing.stands());
        assert_eq!(standing.patience(60_000 * MS, 1000 * MS), 8000 * MS);
    }
}
