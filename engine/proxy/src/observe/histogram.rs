//! Log-linear histograms with one writer, in the buckets that Prometheus gets to see.

use super::metrics::Counter;

/// Upper bounds of durations of requests, in nanoseconds.
pub(crate) const DURATION_BOUNDS: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Upper bounds of the time that the gateway itself adds, in nanoseconds.
pub(crate) const OVERHEAD_BOUNDS: [u64; 16] = [
    10_000,
    20_000,
    35_000,
    50_000,
    75_000,
    100_000,
    200_000,
    350_000,
    500_000,
    750_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
];

/// Upper bounds of sizes of content, in bytes.
pub(crate) const SIZE_BOUNDS: [u64; 11] =
    [0, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];

/// How long requests take.
pub(crate) type Durations = Histogram<18>;
/// How long the gateway itself takes.
pub(crate) type Overheads = Histogram<16>;
/// How large content is.
pub(crate) type Sizes = Histogram<11>;

/// Counts of values up to each of `N` bounds, and of those beyond. One core writes; others read.
pub(crate) struct Histogram<const N: usize> {
    counts: [Counter; N],
    beyond: Counter,
    sum: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram {
            counts: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a value. `bounds` are always the same ones for a histogram.
    pub(crate) fn record(&self, bounds: &[u64; N], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts.get(bucket).unwrap_or(&self.beyond).add(1);
        self.sum.add(value);
    }
}

/// What several cores' histograms come to.
pub(crate) struct Total<const N: usize> {
    /// Values in each bucket, not yet those below it.
    pub(crate) counts: [u64; N],
    pub(crate) beyond: u64,
    pub(crate) sum: u64,
}

impl<const N: usize> Default for Total<N> {
    fn default() -> Self {
        Total { counts: [0; N], beyond: 0, sum: 0 }
    }
}

impl<const N: usize> Total<N> {
    /// Adds what one core has counted.
    pub(crate) fn add(&mut self, core: &Histogram<N>) {
        for (total, count) in self.counts.iter_mut().zip(&core.counts) {
            *total += count.get();
        }
        self.beyond += core.beyond.get();
        self.sum += core.sum.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bound belongs to its bucket, as `le` says.
    #[test]
    fn a_value_is_counted_in_the_first_bucket_that_holds_it() {
        let core = Sizes::default();
        for value in [0, 1, 256, 257, u64::from(u32::MAX)] {
            core.record(&SIZE_BOUNDS, value);
        }
        let mut total = Total::default();
        total.add(&core);
        total.add(&core);
        assert_eq!(total.counts, [2, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((total.beyond, total.sum), (2, 2 * (1 + 256 + 257 + u64::from(u32::MAX))));
    }

    #[test]
    fn bounds_rise() {
        assert!(DURATION_BOUNDS.is_sorted() && OVERHEAD_BOUNDS.is_sorted() && SIZE_BOUNDS.is_sorted());
    }
}
