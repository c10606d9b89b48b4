//! How many different things were seen, in fixed memory.
//!
//! HyperLogLog (Flajolet, Fusy, Gandouet and Meunier 2007) with the estimator of Ertl (2017), which needs no table of
//! corrections and is good for few things and for many.

/// Bits of a hash that choose a register.
const PRECISION: u32 = 12;

const REGISTERS: usize = 1 << PRECISION;

/// The highest value of a register is one more than this.
const RANKS: usize = 64 - PRECISION as usize;

/// A sketch of a set: 4 KiB, and a standard error of 1.6 %.
#[derive(Clone, Debug)]
pub struct Cardinality {
    registers: Box<[u8]>,
}

impl Default for Cardinality {
    fn default() -> Self {
        Cardinality { registers: vec![0; REGISTERS].into_boxed_slice() }
    }
}

impl Cardinality {
    /// Takes in something by its hash, all of whose bits have to be good.
    pub fn insert(&mut self, hash: u64) {
        let register = &mut self.registers[(hash >> (64 - PRECISION)) as usize];
        // The bit behind the rest ends the count of zeros.
        let rank = ((hash << PRECISION) | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
        *register = rank.max(*register);
    }

    /// Takes in everything that another one has seen.
    pub fn merge(&mut self, other: &Cardinality) {
        for (register, other) in self.registers.iter_mut().zip(&other.registers) {
            *register = (*other).max(*register);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.registers.fill(0);
    }

    /// How many different things were seen, about.
    pub fn estimate(&self) -> f64 {
        let mut counts = [0u32; RANKS + 2];
        self.registers.iter().for_each(|register| counts[usize::from(*register)] += 1);
        let registers = REGISTERS as f64;
        let mut sum = registers * tau(1.0 - f64::from(counts[RANKS + 1]) / registers);
        for rank in (1..=RANKS).rev() {
            sum = 0.5 * (sum + f64::from(counts[rank]));
        }
        sum += registers * sigma(f64::from(counts[0]) / registers);
        registers * registers / (2.0 * std::f64::consts::LN_2 * sum)
    }
}

/// What registers that are empty stand for.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        let before = z;
        x *= x;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// What registers that are full stand for.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        let before = z;
        x = x.sqrt();
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::heavy::hash;
    use super::*;

    fn of(range: std::ops::Range<u64>, seed: u64) -> Cardinality {
        let mut cardinality = Cardinality::default();
        range.for_each(|number| cardinality.insert(hash(seed, &number)));
        cardinality
    }

    #[test]
    fn nothing_is_estimated_as_nothing() {
        assert_eq!(Cardinality::default().estimate(), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Five standard errors and one: for every number of things, and however often each was seen.
        #[test]
        fn the_estimate_is_within_the_error_of_the_paper(count in 0u64..30_000, seed: u64) {
            let mut seen = of(0..count, seed);
            (0..count / 2).for_each(|number| seen.insert(hash(seed, &number)));
            let (estimate, count) = (seen.estimate(), count as f64);
            prop_assert!((estimate - count).abs() <= 5.0 * 0.0163 * count + 1.0, "{estimate} of {count}");
        }

        #[test]
        fn a_merge_is_what_seeing_both_would_have_been(a in 0u64..3000, b in 0u64..3000, shared in 0u64..1000) {
            let mut merged = of(0..a + shared, 7);
            merged.merge(&of(a..a + shared + b, 7));
            prop_assert_eq!(merged.registers, of(0..a + shared + b, 7).registers);
        }
    }
}
