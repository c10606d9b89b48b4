//! How many requests an upstream is to have under way, found from how long they take.
//!
//! Up to what an upstream can do at a time its latency does not depend on how many requests it has; beyond that they
//! wait for each other within it, and latency grows with their number while throughput stays (Little's law). So the
//! limit grows while it is used up and latency is what it was, and falls while falling helps.
//!
//! Known ways, and why none is taken as it is. Netflix's gradient2 compares with a long average, which follows an
//! overload that lasts and so lets the limit drift upwards. Vegas and Envoy's gradient compare with the least latency
//! seen: with fast and slow requests mixed that is the latency of another kind of request, and Envoy lets hardly
//! anything through while it measures anew. AIMD needs losses, by which time clients have waited for too long. What is
//! compared here are means, whose error is known, and what latency ought to be is learned on the way down: a step that
//! does not shorten it shows that it is the upstream's own by now. Looking down costs less than a hundredth, since the
//! limit lies somewhat above what the upstream can do.

use crate::queue::Nanos;

/// Within which the limit is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least, at least 1.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// By how much longer than unloaded requests may take, in hundredths. More gives more throughput where an upstream
    /// slows down before it is busy.
    pub target_percent: u32,
}

/// What was seen of an upstream in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that it has answered or let run out of time.
    pub answered: u64,
    /// How long that took, in microseconds, all together.
    pub latency: u64,
    /// The squares of that.
    pub latency_squares: u64,
    /// Requests that it refused for being overloaded.
    pub refused: u64,
    /// Whether it had as many as it may have at some time.
    pub was_full: bool,
}

impl Seen {
    fn add(&mut self, more: Seen) {
        self.answered = self.answered.saturating_add(more.answered);
        self.latency = self.latency.saturating_add(more.latency);
        self.latency_squares = self.latency_squares.saturating_add(more.latency_squares);
        self.refused = self.refused.saturating_add(more.refused);
        self.was_full |= more.was_full;
    }
}

/// Answers that make a mean worth something.
const ANSWERS_MIN: u64 = 40;

/// How far off a mean may be, as a share of it. Where fast and slow requests are mixed it takes more answers.
const ERROR_MAX: f64 = 0.06;

/// After that long what there is has to do.
const WINDOW_MAX: Nanos = 2_000_000_000;

/// Answers without which nothing is known even then.
const ANSWERS_FEW: u64 = 5;

/// What a step down leaves of the limit.
const STEP: f64 = 0.7;

/// The share of what a step could shorten latency by at best that it has to, to have helped.
const HELPED: f64 = 0.5;

/// The share from which on a further step may help as much.
const HELPED_IN_FULL: f64 = 0.7;

/// How often the limit is looked below while it is used up.
const LOOK_DOWN_EVERY: Nanos = 6_000_000_000;

/// When it is for the first time: what is seen first may be an upstream that is overloaded already.
const LOOK_DOWN_FIRST: Nanos = 1_500_000_000;

/// How many windows lie between at least.
const LOOK_DOWN_WINDOWS: u64 = 40;

/// The limit of a new upstream, if its bounds allow.
const FIRST: f64 = 20.0;

/// A mean and how far off it may be.
#[derive(Clone, Copy, Debug)]
struct Latency {
    mean: f64,
    error: f64,
}

/// What the limit is being tried for.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// As it is, or growing.
    Steady,
    /// A step down was taken, from this limit and latency. `is_look`: to find out what latency is without load, so that
    /// as many follow as help; otherwise until it is no longer too long.
    Down { limit: f64, latency: Latency, is_look: bool },
}

/// Finds the limit of one upstream.
#[derive(Clone, Debug)]
pub struct Limiter {
    bounds: Bounds,
    limit: f64,
    /// What latency is while nobody waits within the upstream, in microseconds.
    unloaded: Option<f64>,
    course: Course,
    window: Seen,
    /// When the window began.
    since: Nanos,
    /// Until when answers are to requests that began under another limit.
    settled_at: Nanos,
    looked_down: Option<Nanos>,
    began: Nanos,
}

impl Limiter {
    /// A limiter of an upstream of which nothing is known.
    pub fn new(bounds: Bounds, now: Nanos) -> Self {
        let limit = FIRST.clamp(f64::from(bounds.min), f64::from(bounds.max.max(bounds.min)));
        Limiter {
            bounds,
            limit,
            unloaded: None,
            course: Course::Steady,
            window: Seen::default(),
            since: now,
            settled_at: now,
            looked_down: None,
            began: now,
        }
    }

    /// Keeps to other bounds from now on.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.limit = self.bounded(self.limit);
    }

    /// The limit, at least 1.
    pub fn limit(&self) -> u32 {
        self.limit.round() as u32
    }

    /// Takes note of what was seen since the last time, some tenths of a second ago. Returns the limit.
    pub fn observe(&mut self, seen: Seen, now: Nanos) -> u32 {
        if self.since < self.settled_at {
            // Some of these began under another limit.
            self.since = now;
            return self.limit();
        }
        self.window.add(seen);
        let window = self.window;
        let lasted = now.saturating_sub(self.since);
        let is_sure = latency(window).is_none_or(|latency| latency.error <= latency.mean * ERROR_MAX);
        let is_enough = is_sure && window.answered.saturating_add(window.refused) >= ANSWERS_MIN;
        if !is_enough && lasted < WINDOW_MAX {
            return self.limit();
        }
        (self.window, self.since) = (Seen::default(), now);
        if window.answered.saturating_add(window.refused) >= ANSWERS_FEW {
            let before = self.limit;
            self.judge(window, lasted, now);
            self.limit = self.bounded(self.limit);
            if self.limit != before {
                // What began before is answered for another limit.
                let latency = latency(window).map_or(0.0, |latency| latency.mean);
                self.settled_at = now.saturating_add((latency * 1000.0) as Nanos);
            }
        }
        self.limit()
    }

    fn bounded(&self, limit: f64) -> f64 {
        let min = f64::from(self.bounds.min.max(1));
        limit.clamp(min, f64::from(self.bounds.max).max(min))
    }

    fn judge(&mut self, window: Seen, lasted: Nanos, now: Nanos) {
        if window.refused > window.answered / 8 {
            // It says so itself.
            self.course = Course::Steady;
            self.limit *= 0.9;
            return;
        }
        let Some(latency) = latency(window) else { return };
        let unloaded = *self.unloaded.get_or_insert(latency.mean);
        match self.course {
            Course::Steady => {}
            Course::Down { limit, latency: before, is_look } => {
                let possible = before.mean * (1.0 - self.limit / limit);
                let share = (before.mean - latency.mean) / possible;
                self.course = Course::Steady;
                if share < HELPED || possible <= 0.0 {
                    // This is how long it takes by now, and what was taken away was not too much.
                    self.unloaded = Some(latency.mean);
                    self.limit = limit;
                    return;
                }
                // As long as it is news, or all of it helped, there is more to be learned below.
                let is_news = latency.mean < 0.9 * unloaded;
                let unloaded = unloaded.min(latency.mean);
                self.unloaded = Some(unloaded);
                let is_long = latency.mean > self.tolerated(unloaded);
                let goes_on = if is_look { is_news || share >= HELPED_IN_FULL } else { is_long };
                if goes_on && self.limit > f64::from(self.bounds.min.max(1)) {
                    self.step_down(latency, is_look, now);
                } else {
                    // Little's law: so many of the former limit were worked on and did not wait.
                    self.limit = self.tolerated(limit * unloaded / before.mean).min(limit);
                }
                return;
            }
        }
        if latency.mean < unloaded {
            // By steps, since a mean may be low by chance.
            self.unloaded = Some(unloaded + (latency.mean - unloaded) / 4.0);
        }
        let tolerated = self.tolerated(unloaded);
        let is_long = latency.mean - 2.0 * latency.error > tolerated + (tolerated - unloaded);
        let every = LOOK_DOWN_EVERY.max(lasted.saturating_mul(LOOK_DOWN_WINDOWS));
        let is_due = match self.looked_down {
            None => now.saturating_sub(self.began) >= LOOK_DOWN_FIRST,
            Some(looked) => now.saturating_sub(looked) >= every,
        };
        if is_long || (window.was_full && is_due) {
            self.step_down(latency, is_due, now);
        } else if window.was_full && latency.mean <= tolerated {
            // No further than to where latency is bearable, if this limit is what the upstream can do.
            self.limit += self.limit.sqrt().min(self.tolerated(self.limit) - self.limit).max(1.0);
        }
    }

    fn step_down(&mut self, latency: Latency, is_look: bool, now: Nanos) {
        if is_look {
            self.looked_down = Some(now);
        }
        self.course = Course::Down { limit: self.limit, latency, is_look };
        self.limit = self.bounded((self.limit * STEP).ceil().min(self.limit - 1.0));
    }

    fn tolerated(&self, unloaded: f64) -> f64 {
        unloaded * (1.0 + f64::from(self.bounds.target_percent) / 100.0)
    }
}

/// The mean of a window and its error. `None`: nothing was answered.
fn latency(window: Seen) -> Option<Latency> {
    let count = window.answered as f64;
    if window.answered == 0 {
        return None;
    }
    let mean = window.latency as f64 / count;
    let variance = (window.latency_squares as f64 / count - mean * mean).max(0.0);
    Some(Latency { mean, error: (variance / count).sqrt() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { min: 2, max: 100, target_percent: 20 };
    const BEAT: Nanos = 100_000_000;

    /// So many answers, each after so many microseconds.
    fn seen(answered: u64, latency: u64) -> Seen {
        let (latency, latency_squares) = (answered * latency, answered * latency * latency);
        Seen { answered, latency, latency_squares, refused: 0, was_full: true }
    }

    #[test]
    fn a_limit_that_is_not_used_up_stays() {
        let mut limiter = Limiter::new(BOUNDS, 0);
        for beat in 1..200 {
            limiter.observe(Seen { was_full: false, ..seen(50, 10_000) }, beat * BEAT);
        }
        assert_eq!(limiter.limit(), 20);
    }

    #[test]
    fn a_limit_that_is_used_up_grows_while_latency_stays() {
        let mut limiter = Limiter::new(BOUNDS, 0);
        for beat in 1..100 {
            limiter.observe(seen(100, 10_000), beat * BEAT);
        }
        assert!(limiter.limit() >= 70, "{}", limiter.limit());
    }

    /// Nothing was answered, or next to nothing: that says nothing.
    #[test]
    fn silence_changes_nothing() {
        let mut limiter = Limiter::new(BOUNDS, 0);
        for beat in 1..300 {
            limiter.observe(if beat % 10 == 0 { seen(1, 9_000_000) } else { seen(0, 0) }, beat * BEAT);
        }
        assert_eq!(limiter.limit(), 20);
    }

    #[test]
    fn an_upstream_that_refuses_gets_less() {
        let mut limiter = Limiter::new(BOUNDS, 0);
        for beat in 1..100 {
            limiter.observe(Seen { refused: 50, ..seen(50, 10_000) }, beat * BEAT);
        }
        assert_eq!(limiter.limit(), BOUNDS.min);
    }

    proptest! {
        /// Whatever is seen, the limit is within its bounds and never 0.
        #[test]
        fn the_limit_keeps_to_its_bounds(
            min in 0u32..50, max in 0u32..1000,
            beats in proptest::collection::vec((0u64..10_000, 0u64..60_000_000, 0u64..100, any::<bool>(), 0u64..5), 1..300),
        ) {
            let bounds = Bounds { min, max, target_percent: 20 };
            let mut limiter = Limiter::new(bounds, 0);
            let mut now = 0;
            for (answered, latency, refused, was_full, beats) in beats {
                now += beats * BEAT;
                let (latency, latency_squares) = (answered * latency, (answered * latency).saturating_mul(latency));
                let limit = limiter.observe(Seen { answered, latency, latency_squares, refused, was_full }, now);
                prop_assert!(limit >= min.max(1) && limit <= max.max(min).max(1), "{limit}");
            }
        }
    }
}
