//! How much is allowed, and what of it is left: the arithmetic of one account.
//!
//! [`Meter::take`] is the generic cell rate algorithm (ITU-T I.371) for rates, two weighted windows for sliding ones,
//! and a count for periods of the calendar. Each is a function from word to word.

use super::calendar::Period;
use super::word::{Moment, Nanos, QUOTA_MAX, SLIDING_MAX, State, Word};

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// A rate with a burst.
    Bucket(Bucket),
    /// So many in any window of this length.
    Sliding(Sliding),
    /// So many in each period of the calendar.
    Calendar(Calendar),
}

/// What came of asking for some of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is there; the account becomes `word`.
    Taken {
        /// The account from now on.
        word: Word,
        /// How long to wait before making use of it; none unless the meter was asked with patience.
        wait: Nanos,
    },
    /// It is not there. The account stays as it was.
    Refused {
        /// After which time it would be, if nobody took anything meanwhile. `None`: never, it is more than is ever
        /// there.
        wait: Option<Nanos>,
    },
}

/// What is left of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How much could be taken now.
    pub remaining: u64,
    /// After which time all of it could, if nobody took anything meanwhile.
    pub reset: Nanos,
}

impl Meter {
    /// Takes `cost` out of the account, if it is there at `moment` or will be within `patience`, which only a bucket
    /// has.
    pub fn take(&self, word: Word, moment: Moment, cost: u64, patience: Nanos) -> Take {
        match self {
            Meter::Bucket(bucket) => bucket.take(word, moment.now, cost, patience),
            Meter::Sliding(sliding) => sliding.take(word, moment, cost),
            Meter::Calendar(calendar) => calendar.take(word, moment, cost),
        }
    }

    /// Takes `cost` whether it is there or not: the account is overdrawn, by as much at most as is ever there.
    pub fn charge(&self, word: Word, moment: Moment, cost: u64) -> Word {
        match self {
            Meter::Bucket(bucket) => bucket.charge(word, moment.now, cost),
            Meter::Sliding(sliding) => sliding.charge(word, moment, cost),
            Meter::Calendar(calendar) => calendar.charge(word, moment, cost),
        }
    }

    /// What is left.
    pub fn standing(&self, word: Word, moment: Moment) -> Standing {
        match self {
            Meter::Bucket(bucket) => bucket.standing(word, moment.now),
            Meter::Sliding(sliding) => sliding.standing(word, moment),
            Meter::Calendar(calendar) => calendar.standing(word, moment),
        }
    }

    /// How much is allowed in how many seconds, as `RateLimit-Policy` has it: at least one second.
    pub fn policy(&self) -> (u64, u64) {
        match self {
            Meter::Bucket(bucket) => {
                let seconds = bucket.tolerance().div_ceil(NANOS_PER_SECOND).max(1);
                let of_rate = NANOS_PER_SECOND / bucket.interval;
                (if bucket.tolerance() < NANOS_PER_SECOND { of_rate.max(bucket.burst) } else { bucket.burst }, seconds)
            }
            Meter::Sliding(sliding) => (sliding.limit, sliding.window),
            Meter::Calendar(calendar) => (calendar.quota, calendar.period.seconds_max()),
        }
    }
}

/// A rate with a burst: an account that fills at the rate, up to the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    interval: Nanos,
    burst: u64,
}

impl Bucket {
    /// The highest rate, in events a second. Times are whole nanoseconds, so that a rate is up to a thousandth lower
    /// than it was written at this end, and never higher.
    pub const RATE_MAX: u64 = 1_000_000;

    /// So many events in each `period`, of which `burst` may come at once.
    pub fn new(count: u64, period: Nanos, burst: u64) -> Self {
        Bucket { interval: period.div_ceil(count.max(1)).max(1), burst: burst.max(1) }
    }

    /// The time between two events at the full rate.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// How many may come at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// How far the theoretical arrival time may be ahead.
    pub fn tolerance(&self) -> Nanos {
        self.debt(self.burst)
    }

    /// The time that `cost` is worth.
    pub fn debt(&self, cost: u64) -> Nanos {
        self.interval.saturating_mul(cost)
    }

    /// The theoretical arrival time of an account, at least `now`.
    ///
    /// What lies further ahead than this bucket ever lets it comes from another configuration or another tier, and
    /// counts as overdrawn as far as can be.
    pub fn arrival(&self, word: Word, now: Nanos, patience: Nanos) -> Nanos {
        let furthest = now.saturating_add(self.tolerance()).saturating_add(self.tolerance().max(patience));
        match State::of(word) {
            State::Arrival(at) => at.clamp(now, furthest),
            State::Windows { .. } | State::Period { .. } | State::Held => now,
        }
    }

    /// Lends a stretch of the account's time, from its arrival time on: `debt` of it, or up to `more` if there is as
    /// much. Whoever holds the stretch spends it as [`Bucket`] itself would: what `now` has passed of it is lost.
    ///
    /// Stretches of one account never overlap and none lies further ahead than the burst, so however many hold some,
    /// what they let through together is what one account would have let through. `Err`: the time after which `debt`
    /// would be there.
    ///
    /// # Errors
    /// There is less than `debt`.
    pub fn lend(&self, word: Word, now: Nanos, debt: Nanos, more: Nanos) -> Result<(Nanos, Nanos), Option<Nanos>> {
        let tolerance = self.tolerance();
        if debt > tolerance {
            return Err(None);
        }
        let from = self.arrival(word, now, 0);
        let ahead = from - now;
        let there = tolerance.saturating_sub(ahead);
        if debt > there {
            return Err(Some(debt.saturating_add(ahead) - tolerance));
        }
        // Whole events, since what is left of one is of no use to who holds it.
        let whole = there - there % self.interval;
        Ok((from, from.saturating_add(more.min(whole).max(debt))))
    }

    fn take(&self, word: Word, now: Nanos, cost: u64, patience: Nanos) -> Take {
        let (debt, tolerance) = (self.debt(cost), self.tolerance());
        if debt > tolerance {
            return Take::Refused { wait: None };
        }
        let arrival = self.arrival(word, now, patience).saturating_add(debt);
        let wait = (arrival - now).saturating_sub(tolerance);
        if wait > patience {
            return Take::Refused { wait: Some(wait) };
        }
        Take::Taken { word: State::Arrival(arrival).word(), wait }
    }

    fn charge(&self, word: Word, now: Nanos, cost: u64) -> Word {
        let furthest = now.saturating_add(self.tolerance().saturating_mul(2));
        let arrival = self.arrival(word, now, 0).saturating_add(self.debt(cost)).min(furthest);
        State::Arrival(arrival).word()
    }

    fn standing(&self, word: Word, now: Nanos) -> Standing {
        let ahead = self.arrival(word, now, 0) - now;
        Standing { remaining: self.tolerance().saturating_sub(ahead) / self.interval, reset: ahead }
    }
}

/// So many in a window that slides.
///
/// The window before is taken to have been filled evenly, so its count weighs as much as of it is still within the
/// window that ends now. Who fills it unevenly gets at most what a bucket of the same rate and a burst of `limit`
/// would give: `limit` and, in a time t, `limit` × t / window. An exact log would take eight bytes for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    limit: u64,
    /// In seconds.
    window: u64,
}

impl Sliding {
    /// `limit` in any `window` of seconds. At most [`SLIDING_MAX`] can be counted.
    pub fn new(limit: u64, window: u64) -> Self {
        Sliding { limit: limit.clamp(1, SLIDING_MAX), window: window.max(1) }
    }

    /// Since when the current window is, and the counts of the one before it and of itself.
    fn windows(&self, word: Word, moment: Moment) -> (u64, u64, u64) {
        let start = moment.seconds() - moment.seconds() % self.window;
        match State::of(word) {
            State::Windows { dead_at, previous, current } => match dead_at.saturating_sub(2 * self.window) {
                // Another core may be a moment ahead.
                begun if begun > start && begun <= start + self.window => (begun, previous, current),
                begun if begun == start => (start, previous, current),
                begun if begun < start && begun + self.window >= start => (start, current, 0),
                _ => (start, 0, 0),
            },
            State::Arrival(_) | State::Period { .. } | State::Held => (start, 0, 0),
        }
    }

    fn word(&self, start: u64, previous: u64, current: u64) -> Word {
        State::Windows { dead_at: start + 2 * self.window, previous, current }.word()
    }

    /// How much the window before still weighs, rounded up.
    fn weight(&self, previous: u64, start: u64, now: Nanos) -> u64 {
        let whole = u128::from(self.window) * u128::from(NANOS_PER_SECOND);
        let passed = u128::from(now.saturating_sub(start * NANOS_PER_SECOND)).min(whole);
        (u128::from(previous) * (whole - passed)).div_ceil(whole) as u64
    }

    fn take(&self, word: Word, moment: Moment, cost: u64) -> Take {
        if cost > self.limit {
            return Take::Refused { wait: None };
        }
        let (start, previous, current) = self.windows(word, moment);
        let used = current.saturating_add(self.weight(previous, start, moment.now));
        if used.saturating_add(cost) <= self.limit {
            return Take::Taken { word: self.word(start, previous, current + cost), wait: 0 };
        }
        // In this window if it lets go of enough of the one before, or else in the next.
        let left = self.limit - cost;
        let passed = moment.now.saturating_sub(start * NANOS_PER_SECOND);
        let whole = self.window * NANOS_PER_SECOND;
        let wait = match left.checked_sub(current) {
            Some(left) => self.lets_go(previous, left).saturating_sub(passed),
            None => (whole - passed).saturating_add(self.lets_go(current, left)),
        };
        Take::Refused { wait: Some(wait.max(1)) }
    }

    /// How far into a window the `count` of the one before weighs no more than `left`.
    fn lets_go(&self, count: u64, left: u64) -> Nanos {
        let whole = u128::from(self.window) * u128::from(NANOS_PER_SECOND);
        let over = u128::from(count.saturating_sub(left));
        (whole * over).div_ceil(u128::from(count.max(1))) as Nanos
    }

    fn charge(&self, word: Word, moment: Moment, cost: u64) -> Word {
        let (start, previous, current) = self.windows(word, moment);
        self.word(start, previous, current.saturating_add(cost).min(self.limit.saturating_mul(2)))
    }

    fn standing(&self, word: Word, moment: Moment) -> Standing {
        let (start, previous, current) = self.windows(word, moment);
        let used = current.saturating_add(self.weight(previous, start, moment.now));
        let whole = self.window * NANOS_PER_SECOND;
        let passed = moment.now.saturating_sub(start * NANOS_PER_SECOND);
        let reset = match (previous, current) {
            (0, 0) => 0,
            (_, 0) => whole - passed,
            _ => 2 * whole - passed,
        };
        Standing { remaining: self.limit.saturating_sub(used), reset }
    }
}

/// So many in each period of the calendar, by UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    quota: u64,
    period: Period,
}

impl Calendar {
    /// `quota` in each `period`. At most [`QUOTA_MAX`] can be counted.
    pub fn new(quota: u64, period: Period) -> Self {
        Calendar { quota: quota.clamp(1, QUOTA_MAX), period }
    }

    /// How much.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// In what.
    pub fn period(&self) -> Period {
        self.period
    }

    /// When the period ends, in minutes since 1970, and what was used of it.
    ///
    /// If the wall's clock was set back a little, the period that had begun goes on; what ends later than that comes
    /// from a clock that was wrong.
    fn used(&self, word: Word, moment: Moment) -> (u64, u64) {
        let end = self.period.end(moment.unix) / 60;
        match State::of(word) {
            State::Period { end_minute, used } if end_minute == end => (end, used),
            State::Period { end_minute, used } if end_minute > end && end_minute <= self.period.end(end * 60) / 60 => {
                (end_minute, used)
            }
            State::Period { .. } | State::Arrival(_) | State::Windows { .. } | State::Held => (end, 0),
        }
    }

    fn take(&self, word: Word, moment: Moment, cost: u64) -> Take {
        if cost > self.quota {
            return Take::Refused { wait: None };
        }
        let (end_minute, used) = self.used(word, moment);
        if used.saturating_add(cost) > self.quota {
            return Take::Refused { wait: Some(left(end_minute, moment)) };
        }
        Take::Taken { word: State::Period { end_minute, used: used + cost }.word(), wait: 0 }
    }

    fn charge(&self, word: Word, moment: Moment, cost: u64) -> Word {
        let (end_minute, used) = self.used(word, moment);
        State::Period { end_minute, used: used.saturating_add(cost) }.word()
    }

    fn standing(&self, word: Word, moment: Moment) -> Standing {
        let (end_minute, used) = self.used(word, moment);
        Standing { remaining: self.quota.saturating_sub(used), reset: left(end_minute, moment) }
    }
}

/// The time until a minute since 1970.
fn left(end_minute: u64, moment: Moment) -> Nanos {
    end_minute.saturating_mul(60).saturating_sub(moment.unix).max(1).saturating_mul(NANOS_PER_SECOND)
}
