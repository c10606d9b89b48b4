//! Whether a queue stands, or only takes up a burst.

use super::Nanos;

/// How long somebody has to have waited too long without a break before a queue stands (RFC 8289 §4.3).
const INTERVAL: Nanos = 100_000_000;

/// A wait that is nothing to speak of: a twentieth of the interval (RFC 8289 §4.4).
const TARGET: Nanos = INTERVAL / 20;

/// How many turns of service make a wait worth speaking of where service is slow.
const TARGET_TURNS: u64 = 2;

/// What part of the longest wait is worth speaking of where long waits are asked for.
const TARGET_PART: u64 = 4;

/// How many turns an interval has at least where service is slow.
const INTERVAL_TURNS: u64 = 8;

/// CoDel's judgement (RFC 8289): a queue is good as long as it empties now and then. It stands once its oldest has
/// waited for longer than the target during a whole interval.
///
/// CoDel drops from the front of a queue whose senders slow down for it. Requests do not: a queue that stands is served
/// from its back instead, as Facebook does ("Fail at Scale", Maurer 2015: adaptive LIFO), so that those who are served
/// have hardly waited. Those at the front have their whole wait still, for a lull.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Since when the oldest has waited for too long, without a break.
    above_since: Option<Nanos>,
    stands: bool,
}

impl Standing {
    /// Takes a look: how long the oldest has waited, if there is anybody, of `wait_max` at most, and how long a turn of
    /// service takes.
    pub(super) fn look(&mut self, oldest: Option<Nanos>, wait_max: Nanos, turn: Nanos, now: Nanos) {
        let target = TARGET.max(turn.saturating_mul(TARGET_TURNS)).max(wait_max / TARGET_PART);
        if oldest.is_none_or(|waited| waited < target) {
            *self = Standing::default();
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        self.stands |= now.saturating_sub(since) >= INTERVAL.max(turn.saturating_mul(INTERVAL_TURNS));
    }

    /// Whether it stands, so that the newest is served first.
    pub(super) fn stands(self) -> bool {
        self.stands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const WAIT_MAX: Nanos = 80 * MS;

    #[test]
    fn a_burst_is_no_standing_queue() {
        let mut standing = Standing::default();
        for now in 0..100 {
            standing.look(Some(20 * MS), WAIT_MAX, MS, now * MS);
            assert!(!standing.stands(), "after {now} ms");
        }
        standing.look(Some(20 * MS - 1), WAIT_MAX, MS, 99 * MS);
        standing.look(Some(20 * MS), WAIT_MAX, MS, 100 * MS);
        assert!(!standing.stands(), "it has emptied meanwhile");
    }

    #[test]
    fn a_queue_stands_after_an_interval_and_until_nobody_waits_long() {
        let mut standing = Standing::default();
        standing.look(Some(20 * MS), WAIT_MAX, MS, 0);
        standing.look(Some(20 * MS), WAIT_MAX, MS, INTERVAL);
        assert!(standing.stands());
        standing.look(None, WAIT_MAX, MS, INTERVAL + 1);
        assert!(!standing.stands());
    }

    /// With a turn a second, waiting for one is no sign of overload.
    #[test]
    fn slow_service_makes_for_longer_waits() {
        let mut standing = Standing::default();
        standing.look(Some(1500 * MS), WAIT_MAX, 1000 * MS, 0);
        standing.look(Some(1500 * MS), WAIT_MAX, 1000 * MS, 60_000 * MS);
        assert!(!standing.stands());
        standing.look(Some(2500 * MS), WAIT_MAX, 1000 * MS, 60_000 * MS);
        standing.look(Some(2500 * MS), WAIT_MAX, 1000 * MS, 68_000 * MS);
        assert!(standing.stands());
    }

    /// Who allows waits of ten seconds does not mean to have one of twenty milliseconds overtaken.
    #[test]
    fn long_waits_that_are_allowed_are_no_overload() {
        let mut standing = Standing::default();
        for now in 0..100 {
            standing.look(Some(2400 * MS), 10_000 * MS, MS, now * INTERVAL);
        }
        assert!(!standing.stands());
    }
}
