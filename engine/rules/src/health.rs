//! Whether an endpoint is fit to serve, as far as what it answers to questions tells.

use crate::snapshot::HealthCheck;

/// What is known of an endpoint. It is taken to be fit until it has failed often enough: a gateway that starts must not
/// refuse everything before its first questions are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    is_up: bool,
    /// Answers in a row that speak against it.
    against: u32,
}

/// What an answer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It may serve again.
    Up,
    /// It must not serve until it is better.
    Down,
}

impl Default for Health {
    fn default() -> Self {
        Health { is_up: true, against: 0 }
    }
}

impl Health {
    /// Whether requests may be sent to it.
    pub fn is_up(self) -> bool {
        self.is_up
    }

    /// Takes note of an answer. One that agrees with what is known starts the count anew, so that an endpoint which
    /// fails now and then does not flap.
    pub fn observe(&mut self, passed: bool, check: &HealthCheck) -> Option<Change> {
        if passed == self.is_up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let (needed, change) = if self.is_up { (check.fall, Change::Down) } else { (check.rise, Change::Up) };
        if self.against < needed {
            return None;
        }
        *self = Health { is_up: !self.is_up, against: 0 };
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::HealthQuestion;

    fn check(rise: u32, fall: u32) -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { question: HealthQuestion::Connect, interval: second, timeout: second, rise, fall }
    }

    #[test]
    fn an_endpoint_falls_and_rises_after_as_many_answers_in_a_row() {
        let check = check(2, 3);
        let mut health = Health::default();
        let answers = [false, false, true, false, false, false, false, true, false, true, true, true];
        let changes: Vec<Option<Change>> = answers.iter().map(|passed| health.observe(*passed, &check)).collect();
        let expected = [(5, Change::Down), (10, Change::Up)];
        for (index, change) in changes.iter().enumerate() {
            let wanted = expected.iter().find(|(at, _)| *at == index).map(|(_, change)| *change);
            assert_eq!(*change, wanted, "answer {index}");
        }
        assert!(health.is_up());
    }

    #[test]
    fn one_answer_is_enough_if_the_configuration_says_so() {
        let check = check(1, 1);
        let mut health = Health::default();
        assert_eq!(health.observe(false, &check), Some(Change::Down));
        assert!(!health.is_up());
        assert_eq!(health.observe(true, &check), Some(Change::Up));
    }
}
