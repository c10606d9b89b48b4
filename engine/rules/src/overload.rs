//! What a core that has too much to do does not begin.
//!
//! The least urgent go first, an urgency more with each look at which the core is still over a threshold, and come back
//! one by one. What is most urgent is never refused for this.

use crate::queue::Urgency;

/// From when on a core has too much to do, in hundredths. `None`: it does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Of the memory for message buffers, in use.
    pub memory_percent: Option<u32>,
    /// Of its time, spent working.
    pub busy_percent: Option<u32>,
}

/// What a core has to do, in hundredths of what it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of the memory for message buffers, in use.
    pub memory_percent: u32,
    /// Of its time since the last look, spent working.
    pub busy_percent: u32,
}

/// By how much, in hundredths of it, a core has to be below a threshold to take back an urgency: it would be over it
/// again at once.
const RELIEF_PERCENT: u32 = 10;

/// How many urgencies a core refuses, from the least on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shedding(u8);

impl Shedding {
    /// Urgencies that may be refused: all but the most urgent.
    pub const MAX: u8 = Urgency::COUNT as u8 - 1;

    /// What follows from a look at the load.
    #[must_use]
    pub fn after(self, load: Load, thresholds: Thresholds) -> Shedding {
        let over = |load: u32, threshold: Option<u32>| threshold.is_some_and(|threshold| load >= threshold);
        let near = |load: u32, threshold: Option<u32>| {
            over(load, threshold.map(|threshold| threshold - threshold * RELIEF_PERCENT / 100))
        };
        let both = [(load.memory_percent, thresholds.memory_percent), (load.busy_percent, thresholds.busy_percent)];
        if both.iter().any(|(load, threshold)| over(*load, *threshold)) {
            Shedding((self.0 + 1).min(Shedding::MAX))
        } else if both.iter().any(|(load, threshold)| near(*load, *threshold)) {
            self
        } else {
            Shedding(self.0.saturating_sub(1))
        }
    }

    /// How many urgencies are refused.
    pub fn level(self) -> u8 {
        self.0
    }

    /// Whether a request of this urgency is refused.
    pub fn refuses(self, urgency: Urgency) -> bool {
        urgency.index() >= Urgency::COUNT - usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { memory_percent: Some(80), busy_percent: Some(90) };

    fn after(looks: &[(u32, u32)]) -> Shedding {
        looks.iter().fold(Shedding::default(), |shedding, (memory_percent, busy_percent)| {
            shedding.after(Load { memory_percent: *memory_percent, busy_percent: *busy_percent }, THRESHOLDS)
        })
    }

    #[test]
    fn the_least_urgent_are_refused_first_and_the_most_urgent_never() {
        assert_eq!(after(&[(79, 89)]).level(), 0);
        let first = after(&[(80, 0)]);
        assert!(first.refuses(Urgency::LEAST) && !first.refuses(Urgency::LOW));
        let third = after(&[(0, 90), (0, 95), (85, 0)]);
        assert!(third.refuses(Urgency::LOW) && !third.refuses(Urgency::NORMAL));
        let all = after(&[(100, 100); 20]);
        assert!(all.refuses(Urgency::HIGH) && !all.refuses(Urgency::MOST));
    }

    #[test]
    fn nothing_comes_back_before_there_is_room() {
        assert_eq!(after(&[(80, 0), (80, 0), (73, 0), (75, 0)]).level(), 2);
        assert_eq!(after(&[(80, 0), (80, 0), (71, 0)]).level(), 1);
        assert_eq!(after(&[(80, 0), (0, 0), (0, 0), (0, 0)]).level(), 0);
    }

    #[test]
    fn without_a_threshold_nothing_is_refused() {
        let load = Load { memory_percent: 100, busy_percent: 100 };
        assert_eq!(Shedding::default().after(load, Thresholds::default()), Shedding::default());
    }
}
