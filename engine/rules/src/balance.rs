//! Which of several endpoints a request goes to.

use crate::snapshot::Balance;

/// Chooses among `in_flight.len()` endpoints, of which there must be at least one; `in_flight` has the requests
/// under way to each. `turn` counts the choices made before, `random` is any random number. `avoid` is the
/// endpoint that has just failed this request: it is taken only if there is no other.
pub fn choose(
    balance: Balance,
    in_flight: impl Fn(usize) -> u32,
    endpoints: usize,
    turn: usize,
    random: u64,
    avoid: Option<usize>,
) -> usize {
    let chosen = match balance {
        Balance::RoundRobin => turn % endpoints,
        Balance::TwoChoices => two_choices(in_flight, endpoints, random),
    };
    if Some(chosen) == avoid { (chosen + 1) % endpoints } else { chosen }
}

/// The power of two choices (Mitzenmacher 2001): comparing two drawn at random is nearly as good as comparing
/// all, and herds do not form.
fn two_choices(in_flight: impl Fn(usize) -> u32, endpoints: usize, random: u64) -> usize {
    let first = (random as u32) as usize % endpoints;
    let second = (first + 1 + (random >> 32) as usize % (endpoints - 1).max(1)) % endpoints;
    if in_flight(second) < in_flight(first) { second } else { first }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_robin_takes_each_in_turn() {
        let chosen: Vec<usize> = (0..6).map(|turn| choose(Balance::RoundRobin, |_| 0, 3, turn, 7, None)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn two_choices_never_take_the_busiest_of_many() {
        for random in 0..1000u64 {
            let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let chosen = choose(Balance::TwoChoices, |i| [0, 9, 0][i], 3, 0, random, None);
            assert_ne!(chosen, 1);
        }
    }

    proptest! {
        #[test]
        fn a_failed_endpoint_is_avoided_if_there_is_another(
            endpoints in 1usize..6, turn in any::<usize>(), random in any::<u64>(), avoid in 0usize..6,
        ) {
            for balance in [Balance::RoundRobin, Balance::TwoChoices] {
                let chosen = choose(balance, |i| i as u32, endpoints, turn, random, Some(avoid));
                prop_assert!(chosen < endpoints);
                prop_assert!(endpoints == 1 || chosen != avoid);
            }
        }
    }
}
