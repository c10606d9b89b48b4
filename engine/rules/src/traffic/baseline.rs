//! What is usual, learned from what was: a level and a trend (Holt 1957) for each of a few figures, and how far they
//! usually are off.

/// A figure of the traffic that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Requests a second.
    Rate,
    /// The share of requests that fail by the client's own fault.
    Errors,
    /// The share of requests for a path that was not asked for before in the same second.
    NewPaths,
    /// Requests a second that are refused for want of credentials.
    Logins,
    /// Requests a second that clients are too slow with.
    Slow,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 5] = [Signal::Rate, Signal::Errors, Signal::NewPaths, Signal::Logins, Signal::Slow];

    /// The word for it in events and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Signal::Rate => "rate",
            Signal::Errors => "errors",
            Signal::NewPaths => "new-paths",
            Signal::Logins => "logins",
            Signal::Slow => "slow",
        }
    }

    /// What is never far off by itself: a few requests more or less mean nothing.
    fn tolerance(self) -> f64 {
        match self {
            Signal::Rate => 50.0,
            Signal::Errors | Signal::NewPaths => 0.1,
            Signal::Logins | Signal::Slow => 5.0,
        }
    }

    /// Its value in a second.
    pub fn of(self, totals: &super::Totals) -> f64 {
        let share = |part: f64| if totals.requests == 0 { 0.0 } else { (part / totals.requests as f64).min(1.0) };
        match self {
            Signal::Rate => totals.requests as f64,
            Signal::Errors => share(totals.tally.errors as f64),
            Signal::NewPaths => share(totals.distinct_paths),
            Signal::Logins => totals.tally.logins as f64,
            Signal::Slow => totals.tally.slow as f64,
        }
    }
}

/// How much of the newest value goes into the level: half of it is forgotten in about half a minute.
const LEVEL: f64 = 0.02;

/// How much of the newest change goes into the trend.
const TREND: f64 = 0.002;

/// How much of the newest distance goes into the usual one.
const DISTANCE: f64 = 0.02;

/// How many of the usual distances are far.
const FAR: f64 = 6.0;

/// Seconds that are learned from before anything is called unusual.
const LEARN: u32 = 60;

/// Seconds for which what is called unusual has to stay usual before it can be called unusual again.
const CALM: u32 = 10;

/// Seconds for which nothing is learned from what is far above what is usual, so that an attack does not become the
/// measure. What lasts longer is no attack, or one that people know of.
const PATIENCE: u32 = 1800;

/// What is usual of one figure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Baseline {
    level: f64,
    trend: f64,
    distance: f64,
    learned: u32,
    /// Seconds that it has been far above what is usual.
    far: u32,
    calm: Option<u32>,
}

/// A figure that is not as usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unusual {
    /// Which.
    pub signal: Signal,
    /// What it is.
    pub value: f64,
    /// What it usually is.
    pub usual: f64,
    /// What it is usually not above.
    pub bound: f64,
}

impl Baseline {
    /// What is expected of the next second.
    pub fn usual(&self) -> f64 {
        (self.level + self.trend).max(0.0)
    }

    /// What the next second is not usually above.
    pub fn bound(&self, signal: Signal) -> f64 {
        self.usual() + (self.distance * FAR).max(signal.tolerance()).max(self.usual())
    }

    /// Takes in a second. Tells if it is far above what is usual, once until it has been as usual for a while.
    pub fn take(&mut self, signal: Signal, value: f64) -> Option<Unusual> {
        let (usual, bound) = (self.usual(), self.bound(signal));
        if self.learned == 0 {
            (self.level, self.learned) = (value, 1);
            return None;
        }
        let is_far = value > bound && self.learned >= LEARN;
        let was_calm = self.calm.is_none();
        self.calm = if is_far { Some(CALM) } else { self.calm.and_then(|left| left.checked_sub(1)) };
        self.far = if is_far { self.far.saturating_add(1) } else { 0 };
        if is_far && self.far <= PATIENCE {
            return was_calm.then_some(Unusual { signal, value, usual, bound });
        }
        // In the beginning all seconds weigh the same.
        let weight = |slow: f64| slow.max(1.0 / f64::from(self.learned + 1));
        let level = usual + weight(LEVEL) * (value - usual);
        self.distance += weight(DISTANCE) * ((value - usual).abs() - self.distance);
        self.trend += TREND * (level - self.level - self.trend);
        self.level = level;
        self.learned = self.learned.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of traffic that goes up and down a little, by a fixed sequence.
    fn noisy(second: u64, level: f64) -> f64 {
        let noise = (second.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
        level * (0.8 + 0.4 * noise)
    }

    #[test]
    fn what_goes_up_and_down_as_ever_is_usual() {
        let mut baseline = Baseline::default();
        for second in 0..3600 {
            assert_eq!(baseline.take(Signal::Rate, noisy(second, 1000.0)), None, "second {second}");
        }
        assert!((baseline.usual() - 1000.0).abs() < 50.0, "{}", baseline.usual());
    }

    /// A day's slow rise must not be called an attack.
    #[test]
    fn what_rises_slowly_is_followed() {
        let mut baseline = Baseline::default();
        for second in 0..7200u64 {
            let level = 500.0 + second as f64 * 0.5;
            assert_eq!(baseline.take(Signal::Rate, noisy(second, level)), None, "second {second}");
        }
    }

    #[test]
    fn a_flood_is_told_of_once_and_does_not_become_usual() {
        let mut baseline = Baseline::default();
        (0..600).for_each(|second| _ = baseline.take(Signal::Rate, noisy(second, 1000.0)));
        let first = baseline.take(Signal::Rate, 20_000.0).expect("a flood");
        assert!((first.usual - 1000.0).abs() < 100.0 && first.bound < 3000.0, "{first:?}");
        for second in 0..600 {
            assert_eq!(baseline.take(Signal::Rate, 20_000.0), None, "second {second}");
        }
        assert!(baseline.usual() < 1100.0, "{}", baseline.usual());
        (0..600).for_each(|second| _ = baseline.take(Signal::Rate, noisy(second, 1000.0)));
        assert!(baseline.take(Signal::Rate, 20_000.0).is_some(), "another one is told of again");
    }

    #[test]
    fn a_few_requests_are_never_unusual() {
        let mut baseline = Baseline::default();
        for second in 0..1000u64 {
            let value = if second % 100 == 99 { 40.0 } else { 0.0 };
            assert_eq!(baseline.take(Signal::Rate, value), None);
        }
    }
}
