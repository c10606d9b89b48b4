use proptest::prelude::*;

use super::*;

const MS: Nanos = 1_000_000;
const POLICY: Policy = Policy { depth: 4, wait_max: 500 * MS };

fn asked(urgency: Urgency, tenant: u64) -> Asked {
    Asked { urgency, tenant, due: None }
}

fn normal(tenant: u64) -> Asked {
    asked(Urgency::NORMAL, tenant)
}

/// Adds waiters in this order, a millisecond apart.
fn filled<'n>(policy: Policy, waiters: &[(&'n str, Asked)]) -> Queue<&'n str> {
    let mut queue = Queue::new(policy);
    for (index, (name, asked)) in waiters.iter().enumerate() {
        let queued = queue.push(*name, *asked, false, index as Nanos * MS);
        assert!(queued.is_ok_and(|queued| queued.pushed_out.is_none()), "{name}");
    }
    queue
}

fn emptied<T>(queue: &mut Queue<T>, now: Nanos) -> Vec<T> {
    std::iter::from_fn(|| queue.pop(now)).map(|(name, _)| name).collect()
}

/// A queue that stands, with these waiters, at 126 ms. Others were served once a millisecond, and then nobody.
fn standing<'n>(waiters: &[(&'n str, Asked)]) -> Queue<&'n str> {
    let mut queue = Queue::new(Policy { depth: 4, wait_max: 80 * MS });
    for _ in 0..16 {
        assert!(queue.push("served", normal(9), false, 0).is_ok());
        assert_eq!(queue.pop(MS), Some(("served", MS)));
    }
    assert!(queue.push("old", normal(9), false, MS).is_ok());
    assert_eq!(queue.expire(25 * MS), None);
    assert!(!queue.stands(Urgency::NORMAL));
    for (name, asked) in waiters.iter().take(3) {
        assert!(queue.push(*name, *asked, false, 50 * MS).is_ok());
    }
    assert_eq!(queue.expire(81 * MS), Some("old"));
    assert_eq!(queue.expire(125 * MS), None);
    assert!(queue.stands(Urgency::NORMAL));
    for (name, asked) in waiters.iter().skip(3) {
        assert!(queue.push(*name, *asked, false, 125 * MS).is_ok());
    }
    queue
}

#[test]
fn the_oldest_goes_first() {
    let mut queue = filled(POLICY, &[("a", normal(0)), ("b", normal(0)), ("c", normal(0))]);
    assert_eq!(queue.pop(4 * MS), Some(("a", 4 * MS)));
    assert_eq!(queue.pop(4 * MS), Some(("b", 3 * MS)));
    assert_eq!(emptied(&mut queue, 5 * MS), ["c"]);
    assert!(queue.is_empty());
}

#[test]
fn the_more_urgent_go_first() {
    let (low, high) = (asked(Urgency::LOW, 0), asked(Urgency::HIGH, 0));
    let mut queue = filled(POLICY, &[("low", low), ("normal", normal(0)), ("high", high), ("high too", high)]);
    assert_eq!(emptied(&mut queue, 4 * MS), ["high", "high too", "normal", "low"]);
}

#[test]
fn tenants_take_turns() {
    let policy = Policy { depth: 9, ..POLICY };
    let waiters = [("a1", 1), ("a2", 1), ("a3", 1), ("a4", 1), ("b1", 2), ("c1", 3), ("b2", 2)];
    let mut queue = filled(policy, &waiters.map(|(name, tenant)| (name, normal(tenant))));
    assert_eq!(emptied(&mut queue, 8 * MS), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

#[test]
fn a_full_queue_refuses_who_matters_no_more_than_others() {
    let mut queue = filled(POLICY, &["a", "b", "c", "d"].map(|name| (name, normal(0))));
    for asked in [normal(0), asked(Urgency::LOW, 0), asked(Urgency::LOW, 1)] {
        assert_eq!(queue.push("e", asked, false, 4 * MS), Err(Refused::Full), "{asked:?}");
    }
}

/// The newest has lost least.
#[test]
fn a_full_queue_pushes_out_who_matters_least() {
    let low = asked(Urgency::LOW, 0);
    let mut queue = filled(POLICY, &[("a", low), ("b", low), ("c", normal(0)), ("d", normal(0))]);
    let mut pushed_out = |name, asked| queue.push(name, asked, false, 5 * MS).map(|queued| queued.pushed_out);
    assert_eq!(pushed_out("e", normal(0)), Ok(Some("b")));
    assert_eq!(pushed_out("f", asked(Urgency::HIGH, 0)), Ok(Some("a")));
    assert_eq!(pushed_out("g", normal(0)), Err(Refused::Full));
    assert_eq!(pushed_out("h", asked(Urgency::HIGH, 0)), Ok(Some("e")));
    assert_eq!(emptied(&mut queue, 6 * MS), ["f", "h", "c", "d"]);
}

#[test]
fn a_tenant_with_a_long_line_makes_room_for_others() {
    let mut queue = filled(POLICY, &["a", "b", "c", "d"].map(|name| (name, normal(1))));
    let mut pushed_out = |name, tenant| queue.push(name, normal(tenant), false, 5 * MS).map(|queued| queued.pushed_out);
    assert_eq!(pushed_out("x", 2), Ok(Some("d")));
    assert_eq!(pushed_out("y", 2), Ok(Some("c")));
    assert_eq!(pushed_out("z", 2), Err(Refused::Full), "both lines are as long");
    assert_eq!(pushed_out("e", 1), Err(Refused::Full));
    assert_eq!(emptied(&mut queue, 6 * MS), ["a", "x", "b", "y"]);
}

#[test]
fn a_queue_that_is_told_to_be_full_is() {
    let mut queue = filled(POLICY, &[("a", asked(Urgency::LOW, 0))]);
    assert_eq!(queue.push("b", asked(Urgency::LEAST, 0), true, MS), Err(Refused::Full));
    assert_eq!(queue.push("c", normal(0), true, MS).map(|queued| queued.pushed_out), Ok(Some("a")));
    assert_eq!(queue.make_room(Urgency::NORMAL), None);
    assert_eq!(queue.make_room(Urgency::HIGH), Some("c"));
}

#[test]
fn nobody_waits_for_longer_than_allowed() {
    let mut queue = filled(POLICY, &[("a", normal(0)), ("b", asked(Urgency::LOW, 0))]);
    assert_eq!(queue.next_expiry(), Some(500 * MS));
    assert_eq!(queue.expire(100 * MS), None);
    assert_eq!(queue.expire(501 * MS), Some("b"));
    assert_eq!(queue.expire(501 * MS), Some("a"));
    assert_eq!(queue.expire(501 * MS), None);
    assert_eq!(queue.next_expiry(), None);
}

#[test]
fn the_newest_goes_first_while_the_queue_stands() {
    let mut queue = standing(&["a", "b", "c"].map(|name| (name, normal(0))));
    assert_eq!(emptied(&mut queue, 126 * MS), ["c", "b", "a"]);
    assert!(queue.push("d", normal(0), false, 127 * MS).is_ok());
    assert!(!queue.stands(Urgency::NORMAL), "it has emptied");
}

#[test]
fn a_full_queue_that_stands_pushes_out_its_oldest() {
    let mut queue = standing(&["a", "b", "c", "d"].map(|name| (name, normal(0))));
    assert_eq!(queue.push("e", normal(0), false, 126 * MS).map(|queued| queued.pushed_out), Ok(Some("a")));
    assert_eq!(queue.pop(127 * MS), Some(("e", MS)));
}

/// The share of a tenant is no smaller, and the most urgent stay so, when the newest go first.
#[test]
fn turns_and_urgency_hold_while_the_queue_stands() {
    let mut queue = standing(&[("a1", normal(1)), ("a2", normal(1)), ("b1", normal(2)), ("b2", normal(2))]);
    let queued = queue.push("c", asked(Urgency::HIGH, 1), false, 126 * MS);
    assert_eq!(queued.map(|queued| queued.pushed_out), Ok(Some("a1")));
    assert_eq!(emptied(&mut queue, 127 * MS), ["c", "a2", "b2", "b1"]);
}

/// A queue that was served once in 60 ms, at 960 ms, when eight have just come.
fn slow() -> Queue<&'static str> {
    let mut queue = Queue::new(Policy { depth: 100, wait_max: 500 * MS });
    for turn in 0..16 {
        assert!(queue.push("served", normal(0), false, turn * 60 * MS).is_ok());
        assert!(queue.pop((turn + 1) * 60 * MS).is_some());
    }
    for _ in 0..8 {
        assert!(queue.push("first", normal(0), false, 960 * MS).is_ok());
    }
    queue
}

#[test]
fn who_cannot_be_served_in_time_is_refused_at_once() {
    let (mut queue, now) = (slow(), 960 * MS);
    // Eight go before: 480 ms.
    let within = |left: u64| Asked { due: Some(now + left * MS), ..normal(0) };
    let mut outcome = |asked| queue.push("late", asked, false, now).map(|queued| queued.ticket);
    assert_eq!(outcome(within(479)), Err(Refused::Hopeless));
    let ticket = outcome(within(481)).expect("in time");
    // Nine go before: 540 ms are more than anybody may wait.
    assert_eq!(outcome(normal(0)), Err(Refused::Hopeless));
    assert!(outcome(asked(Urgency::HIGH, 0)).is_ok(), "nobody goes before");
    assert!(outcome(normal(7)).is_ok(), "its turn is the next but one");
    assert_eq!(queue.leave(ticket), Some("late"));
    assert_eq!(queue.drains_within(now), 10 * 60 * MS);
}

/// Whoever fills a queue before anything is known of it is not refused for what might be.
#[test]
fn nobody_is_hopeless_before_the_pace_is_known() {
    let mut queue = filled(Policy { depth: 100, wait_max: 500 * MS }, &[("first", normal(0)); 100]);
    assert_eq!(queue.push("more", normal(0), false, 101 * MS), Err(Refused::Full));
}

#[test]
fn an_upstream_that_has_become_slow_is_noticed_before_its_next_turn() {
    let queue = slow();
    assert_eq!(queue.drains_within(960 * MS), 8 * 60 * MS);
    assert!(queue.drains_within(9600 * MS) > 8 * 500 * MS);
}

#[test]
fn what_is_asked_for_beside_others_is_a_turn_for_each_tenant() {
    let mut queue = filled(POLICY, &[("a", normal(1)), ("b", normal(1)), ("c", normal(2))]);
    assert_eq!(queue.claim(), Some((Urgency::NORMAL, 2)));
    emptied(&mut queue, 4 * MS);
    assert_eq!(queue.claim(), None);
    let queue = filled(POLICY, &[("a", normal(0)), ("b", normal(0)), ("low", asked(Urgency::LOW, 0))]);
    assert_eq!(queue.claim(), Some((Urgency::NORMAL, 2)), "or for each waiter if all have one tenant");
}

/// One that left is not taken for the one that has its place now.
#[test]
fn a_ticket_is_good_once() {
    let mut queue = Queue::new(POLICY);
    let first = queue.push("a", normal(0), false, 0).expect("there is room").ticket;
    assert_eq!(queue.leave(first), Some("a"));
    let second = queue.push("b", normal(0), false, 0).expect("there is room").ticket;
    assert_eq!(queue.leave(first), None);
    assert_eq!(queue.leave(second), Some("b"));
}

#[derive(Clone, Debug)]
enum Action {
    Push { urgency: u8, tenant: u64 },
    Pop,
    Leave(usize),
    Expire,
    MakeRoom(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u8..8, 0u64..4).prop_map(|(urgency, tenant)| Action::Push { urgency, tenant }),
        2 => Just(Action::Pop),
        1 => any::<usize>().prop_map(Action::Leave),
        1 => Just(Action::Expire),
        1 => (0u8..8).prop_map(Action::MakeRoom),
    ]
}

proptest! {
    /// Whatever happens in whatever order: nobody is lost or served twice, the bound holds, and whoever is served or has
    /// to leave is of the right urgency.
    #[test]
    fn nobody_is_lost(actions in proptest::collection::vec((action(), 0u64..40), 1..400), depth in 1usize..12) {
        let mut queue = Queue::new(Policy { depth, wait_max: 300 * MS });
        let mut waiting: Vec<(u64, Urgency, Ticket)> = Vec::new();
        let (mut now, mut name) = (0, 0u64);
        for (action, later) in actions {
            now += later * MS;
            let most = waiting.iter().map(|(_, urgency, _)| *urgency).min();
            let least = waiting.iter().map(|(_, urgency, _)| *urgency).max();
            let left = match action {
                Action::Push { urgency, tenant } => {
                    let urgency = Urgency::new(urgency).expect("below eight");
                    name += 1;
                    match queue.push(name, asked(urgency, tenant), false, now) {
                        Ok(queued) => {
                            prop_assert_eq!(queued.pushed_out.is_some(), waiting.len() == depth);
                            if queued.pushed_out.is_some() {
                                prop_assert!(least >= Some(urgency));
                            }
                            let out = queued.pushed_out;
                            if let Some(out) = out {
                                let at = waiting.iter().position(|(name, ..)| *name == out).expect("it waited");
                                prop_assert_eq!(Some(waiting[at].1), least);
                                waiting.remove(at);
                            }
                            waiting.push((name, urgency, queued.ticket));
                        }
                        Err(Refused::Full) => prop_assert!(waiting.len() == depth && least <= Some(urgency)),
                        Err(Refused::Hopeless) => prop_assert!(!waiting.is_empty()),
                    }
                    None
                }
                Action::Pop => {
                    let popped = queue.pop(now).map(|(name, _)| name);
                    let is = |name: u64| waiting.iter().find(|(known, ..)| *known == name).map(|(_, urgency, _)| *urgency);
                    prop_assert_eq!(popped.and_then(is), most);
                    popped
                }
                Action::Leave(_) if waiting.is_empty() => None,
                Action::Leave(which) => {
                    let (name, _, ticket) = waiting[which % waiting.len()];
                    prop_assert_eq!(queue.leave(ticket), Some(name));
                    prop_assert_eq!(queue.leave(ticket), None);
                    Some(name)
                }
                Action::Expire => queue.expire(now),
                Action::MakeRoom(urgency) => {
                    let urgency = Urgency::new(urgency).expect("below eight");
                    let out = queue.make_room(urgency);
                    prop_assert_eq!(out.is_some(), least > Some(urgency));
                    out
                }
            };
            if let Some(left) = left {
                let at = waiting.iter().position(|(name, ..)| *name == left).expect("it waited");
                waiting.remove(at);
            }
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert!(queue.len() <= depth);
            prop_assert_eq!(queue.claim().map(|(urgency, _)| urgency), waiting.iter().map(|(_, urgency, _)| *urgency).min());
        }
        let mut left = emptied(&mut queue, now);
        left.sort_unstable();
        waiting.sort_unstable_by_key(|(name, ..)| *name);
        prop_assert_eq!(left, waiting.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    }
}
