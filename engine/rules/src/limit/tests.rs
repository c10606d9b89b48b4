//! What limits promise, whatever comes.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use proptest::prelude::*;
use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::head::{Request, RequestHead};

use super::*;
use crate::route::Params;

const PREFIXES: Prefixes = Prefixes { ipv4: 32, ipv6: 64 };

const SECOND: Nanos = 1_000_000_000;

fn at(now: Nanos) -> Moment {
    Moment { now, unix: 1_700_000_000 + now / SECOND }
}

/// A rate and a burst of every size.
fn buckets() -> impl Strategy<Value = Bucket> {
    (1u64..5000, prop_oneof![Just(SECOND), Just(60 * SECOND)], 1u64..300)
        .prop_map(|(count, period, burst)| Bucket::new(count, period, burst))
}

/// Requests: how long after the one before, and what each counts.
fn arrivals() -> impl Strategy<Value = Vec<(Nanos, u64)>> {
    proptest::collection::vec((prop_oneof![0..1000u64, 0..SECOND / 10, 0..5 * SECOND], 1u64..5), 1..200)
}

fn admitted(meter: &Meter, arrivals: &[(Nanos, u64)]) -> Vec<(Nanos, u64)> {
    let (mut word, mut now) = (FRESH, 7 * SECOND);
    let mut admitted = Vec::new();
    for (gap, cost) in arrivals {
        now += gap;
        if let Take::Taken { word: next, .. } = meter.take(word, at(now), *cost, 0) {
            word = next;
            admitted.push((now, *cost));
        }
    }
    admitted
}

/// The largest number of units over what `allowed` gives for a stretch of time, over all stretches.
fn excess(admitted: &[(Nanos, u64)], allowed: impl Fn(Nanos) -> u64) -> i128 {
    let mut worst = i128::MIN;
    for (index, (from, _)) in admitted.iter().enumerate() {
        let mut sum = 0;
        for (to, cost) in &admitted[index..] {
            sum += cost;
            worst = worst.max(i128::from(sum) - i128::from(allowed(to - from)));
        }
    }
    worst
}

proptest! {
    /// In any stretch of time: the rate times the time, and the burst.
    #[test]
    fn a_bucket_never_gives_more_than_rate_times_time_and_burst(bucket in buckets(), arrivals in arrivals()) {
        let given = admitted(&Meter::Bucket(bucket), &arrivals);
        prop_assert!(excess(&given, |time| time / bucket.interval() + bucket.burst()) <= 0);
    }

    /// The limit, and as much of it again as of the window has passed.
    #[test]
    fn a_sliding_window_never_gives_more_than_a_bucket_would(
        limit in 1u64..200, window in 1u64..20, arrivals in arrivals(),
    ) {
        let given = admitted(&Meter::Sliding(Sliding::new(limit, window)), &arrivals);
        let allowed = |time: Nanos| limit + (u128::from(limit) * u128::from(time)).div_ceil(u128::from(window * SECOND)) as u64;
        prop_assert!(excess(&given, allowed) <= 0);
    }

    #[test]
    fn a_quota_is_never_passed_within_its_period(quota in 1u64..100, arrivals in arrivals()) {
        let given = admitted(&Meter::Calendar(Calendar::new(quota, Period::Minute)), &arrivals);
        let mut used = HashMap::new();
        for (now, cost) in given {
            *used.entry(Period::Minute.end(at(now).unix)).or_insert(0) += cost;
        }
        prop_assert!(used.values().all(|used| *used <= quota), "{used:?}");
    }

    /// Against the crate `governor`, request by request.
    #[test]
    fn a_bucket_decides_as_governor_does(
        interval in 1_000u64..SECOND, burst in 1u32..50, arrivals in arrivals(),
    ) {
        let clock = FakeRelativeClock::default();
        let burst = NonZeroU32::new(burst).expect("at least one");
        let quota = Quota::with_period(Duration::from_nanos(interval)).expect("no zero").allow_burst(burst);
        let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
        let bucket = Meter::Bucket(Bucket::new(1, interval, u64::from(burst.get())));
        let (mut word, mut now) = (FRESH, SECOND);
        for (gap, cost) in arrivals {
            now += gap;
            clock.advance(Duration::from_nanos(gap));
            let cost = NonZeroU32::new(cost as u32).expect("at least one");
            let expected = oracle.check_n(cost).is_ok_and(|fits| fits.is_ok());
            let taken = bucket.take(word, at(now), u64::from(cost.get()), 0);
            prop_assert_eq!(matches!(taken, Take::Taken { .. }), expected, "{:?} at {}", taken, now);
            if let Take::Taken { word: next, .. } = taken { word = next; }
        }
    }

    /// Who comes back when told to is let in, if nobody else came meanwhile.
    #[test]
    fn a_refusal_says_when_it_would_fit(
        bucket in buckets(), limit in 1u64..50, window in 1u64..20, arrivals in arrivals(),
    ) {
        for meter in [
            Meter::Bucket(bucket),
            Meter::Sliding(Sliding::new(limit, window)),
            Meter::Calendar(Calendar::new(limit, Period::Minute)),
        ] {
            let (mut word, mut now) = (FRESH, 9 * SECOND);
            for (gap, cost) in &arrivals {
                now += gap;
                match meter.take(word, at(now), *cost, 0) {
                    Take::Taken { word: next, .. } => word = next,
                    Take::Refused { wait: Some(wait) } => {
                        let then = meter.take(word, at(now + wait), *cost, 0);
                        prop_assert!(matches!(then, Take::Taken { .. }), "{:?} {:?} {}", meter, then, wait);
                        let standing = meter.standing(word, at(now));
                        prop_assert!(standing.remaining < *cost && standing.reset > 0, "{:?}", standing);
                    }
                    Take::Refused { wait: None } => prop_assert!(*cost > meter.standing(FRESH, at(now)).remaining),
                }
            }
        }
    }

    /// However many hold stretches of an account's time and spend them whenever they like, together they let through
    /// what one account would have.
    #[test]
    fn what_is_lent_is_never_more_than_what_is_there(
        bucket in buckets(),
        steps in proptest::collection::vec((0..SECOND / 20, 0usize..4, 1u64..4, 0u64..40), 1..400),
    ) {
        let mut word = FRESH;
        let mut now = SECOND;
        let mut held = [(0, 0); 4];
        let mut given = Vec::new();
        for (gap, who, cost, more) in steps {
            now += gap;
            let debt = bucket.debt(cost);
            let (next, end): &mut (Nanos, Nanos) = &mut held[who];
            let from = now.max(*next);
            if from + debt <= *end {
                *next = from + debt;
                given.push((now, cost));
            } else if let Ok((from, to)) = bucket.lend(word, now, debt, bucket.debt(more)) {
                word = to;
                (*next, *end) = (from + debt, to);
                given.push((now, cost));
            }
        }
        prop_assert!(excess(&given, |time| time / bucket.interval() + bucket.burst()) <= 0);
    }

    /// Whatever stands in a word, from another configuration or a clock that was set, nobody is shut out for longer
    /// than twice the time that the whole allowance takes.
    #[test]
    fn no_word_shuts_anybody_out(word: u64, bucket in buckets(), limit in 1u64..50, window in 1u64..20) {
        for meter in [Meter::Bucket(bucket), Meter::Sliding(Sliding::new(limit, window)), Meter::Calendar(Calendar::new(limit, Period::Hour))] {
            let moment = at(100 * SECOND);
            let longest = match meter {
                Meter::Bucket(bucket) => 2 * bucket.tolerance(),
                Meter::Sliding(_) => 2 * window * SECOND,
                Meter::Calendar(_) => 2 * 3600 * SECOND,
            };
            if let Take::Refused { wait } = meter.take(word, moment, 1, 0) {
                prop_assert!(wait.is_some_and(|wait| wait <= longest), "{:?} {:?}", meter, wait);
            }
            let charged = meter.charge(word, moment, 1 << 40);
            if let Take::Refused { wait } = meter.take(charged, moment, 1, 0) {
                prop_assert!(wait.is_some_and(|wait| wait <= longest), "{:?} {:?}", meter, wait);
            }
        }
    }
}

/// With patience a request gets the place that will be its own, and waits for it.
#[test]
fn patience_reserves_a_place() {
    let meter = Meter::Bucket(Bucket::new(10, SECOND, 2));
    let mut word = FRESH;
    let mut waits = Vec::new();
    while let Take::Taken { word: next, wait } = meter.take(word, at(SECOND), 1, SECOND / 4) {
        word = next;
        waits.push(wait / 1_000_000);
    }
    assert_eq!(waits, [0, 0, 100, 200]);
    let refused = Take::Refused { wait: Some(300 * 1_000_000) };
    assert_eq!(meter.take(word, at(SECOND), 1, SECOND / 4), refused);
}

#[test]
fn rates_are_never_higher_than_they_were_written() {
    for (count, period, interval) in [
        (1, SECOND, SECOND),
        (3, SECOND, 333_333_334),
        (Bucket::RATE_MAX, SECOND, 1000),
        (5000, 3600 * SECOND, 720_000_000),
        (999_999, SECOND, 1001),
    ] {
        assert_eq!(Bucket::new(count, period, 1).interval(), interval, "{count}");
    }
}

#[test]
fn a_policy_is_told_in_whole_seconds() {
    for (meter, policy) in [
        (Meter::Bucket(Bucket::new(100, SECOND, 200)), (200, 2)),
        (Meter::Bucket(Bucket::new(100, SECOND, 100)), (100, 1)),
        (Meter::Bucket(Bucket::new(100, SECOND, 5)), (100, 1)),
        (Meter::Bucket(Bucket::new(5000, 3600 * SECOND, 5000)), (5000, 3600)),
        (Meter::Sliding(Sliding::new(7, 60)), (7, 60)),
        (Meter::Calendar(Calendar::new(1000, Period::Day)), (1000, 86_400)),
    ] {
        assert_eq!(meter.policy(), policy, "{meter:?}");
    }
}

/// A wall's clock that is set back does not begin the period anew; one that was far ahead is not believed.
#[test]
fn a_clock_that_is_set_does_not_refill_a_quota() {
    let meter = Meter::Calendar(Calendar::new(1, Period::Day));
    let day = |days: u64| Moment { now: 0, unix: days * 86_400 + 60 };
    let Take::Taken { word, .. } = meter.take(FRESH, day(100), 1, 0) else { panic!("it is fresh") };
    for (days, is_taken) in [(100, false), (99, false), (101, true), (50, true)] {
        let taken = matches!(meter.take(word, day(days), 1, 0), Take::Taken { .. });
        assert_eq!(taken, is_taken, "on day {days}");
    }
}

fn head(fields: &str) -> (Vec<u8>, RequestHead) {
    let bytes = format!("GET /a/b HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes: 4096, fields: 50, line_bytes: 1024 };
    assert_eq!(parse::request(&bytes, &mut Progress::default(), limits, &mut head), Ok(true));
    (bytes, head)
}

fn key_of(parts: &[Part], client: &str, fields: &str) -> Key {
    let (bytes, head) = head(fields);
    let request = Request { bytes: &bytes, head: &head };
    let client = client.parse().expect("an address");
    let params = Params::default();
    let facts = Facts { client, request, host: "a.test", path: "/a/b", params: &params, route: "r" };
    let from = Derivation { seed: 3, index: 0, parts: parts.to_vec(), prefixes: PREFIXES };
    derive(Secret([1, 2]), &from, &[], &facts)
}

/// What is an account's own, and what shares one.
#[test]
fn keys_are_those_of_what_they_count_by() {
    let header = |name: &str| Part::Header(name.into());
    let (ip, two) = (vec![Part::ClientIp], vec![header("a"), header("b")]);
    for (what, parts, one, other, same) in [
        ("the same address", &ip, ("192.0.2.1", ""), ("192.0.2.1", "A: 1\r\n"), true),
        ("another address", &ip, ("192.0.2.1", ""), ("192.0.2.2", ""), false),
        ("one network of IPv6", &ip, ("2001:db8::1", ""), ("2001:db8::ffff:1", ""), true),
        ("another network of IPv6", &ip, ("2001:db8::1", ""), ("2001:db8:0:1::1", ""), false),
        ("values", &two, ("::1", "A: 1\r\nB: 2\r\n"), ("::1", "B: 2\r\nA: 1\r\n"), true),
        ("values that run together", &two, ("::1", "A: ab\r\nB: c\r\n"), ("::1", "A: a\r\nB: bc\r\n"), false),
        ("values that change places", &two, ("::1", "A: 1\r\nB: 2\r\n"), ("::1", "A: 2\r\nB: 1\r\n"), false),
        ("a missing and an empty value", &two, ("::1", "A: 1\r\nB:\r\n"), ("::1", "A: 1\r\n"), false),
        ("two values and one", &two, ("::1", "A: 1\r\nA: 2\r\n"), ("::1", "A: 1\r\nB: 2\r\n"), false),
    ] {
        let (one, other) = (key_of(parts, one.0, one.1), key_of(parts, other.0, other.1));
        assert_eq!(one == other, same, "{what}");
    }
    let cookie = vec![Part::Cookie("id".into())];
    for (fields, same) in [("Cookie: a=b; id=7\r\n", true), ("Cookie: id=8\r\n", false), ("Cookie: xid=7\r\n", false)] {
        assert_eq!(key_of(&cookie, "::1", "Cookie: id=7\r\n") == key_of(&cookie, "::1", fields), same, "{fields}");
    }
}

/// Where there is no room, a client shares an account with its network, and not with everybody.
#[test]
fn what_is_shared_is_a_network_s() {
    let shared = |client: &str| key_of(&[Part::ClientIp], client, "").shared;
    assert_eq!(shared("192.0.2.1"), shared("192.0.99.1"));
    assert_ne!(shared("192.0.2.1"), shared("192.1.2.1"));
    assert_eq!(shared("2001:db8::1"), shared("2001:db8:ffff::1"));
    assert_ne!(shared("2001:db8::1"), shared("2001:db9::1"));
}

fn limit(meter: Meter, told: Told) -> Limit {
    Limit {
        name: "a".into(),
        key: Derivation { seed: seed("a"), index: 0, parts: vec![Part::Header("x-tenant".into())], prefixes: PREFIXES },
        meter,
        tiers: None,
        overrides: Overrides::default(),
        patience: 0,
        mode: Mode::Enforce,
        penalizes: false,
        cost: 1,
        cost_field: None,
        told,
    }
}

/// The override of a key goes before its tier, that before what is allowed to all.
#[test]
fn allowances_go_from_the_single_key_to_all() {
    let of = |count| Meter::Bucket(Bucket::new(count, SECOND, 1));
    let mut limit = limit(of(1), Told::Refusals);
    let named = [(b"gold".to_vec(), Some(of(2))), (b"free".to_vec(), None)].into_iter().collect();
    limit.tiers = Some(Tiers { by: Part::Header("x-tier".into()), named });
    limit.overrides.values.insert(b"acme".to_vec(), Some(of(3)));
    let network: IpNet = "10.0.0.0/8".parse().expect("a network");
    limit.overrides.networks.push((network, Some(of(4))));
    let applied = Applied { limit: LimitId(0), params: Vec::new(), cost: 1 };
    for (client, fields, expected) in [
        ("192.0.2.1", "", Some(of(1))),
        ("192.0.2.1", "X-Tier: gold\r\n", Some(of(2))),
        ("192.0.2.1", "X-Tier: lead\r\n", Some(of(1))),
        ("192.0.2.1", "X-Tier: free\r\n", None),
        ("192.0.2.1", "X-Tier: gold\r\nX-Tenant: acme\r\n", Some(of(3))),
        ("10.1.2.3", "X-Tenant: acme\r\n", Some(of(4))),
    ] {
        let (bytes, head) = head(fields);
        let (request, params) = (Request { bytes: &bytes, head: &head }, Params::default());
        let client = client.parse().expect("an address");
        let facts = Facts { client, request, host: "", path: "/", params: &params, route: "" };
        assert_eq!(limit.allowance(&applied, &facts).copied(), expected, "{client} {fields}");
    }
}

/// Structured fields (RFC 9651): a list of strings with parameters.
#[test]
fn clients_are_told_as_the_limit_says() {
    let meter = Meter::Bucket(Bucket::new(10, SECOND, 20));
    let standing = Standing { remaining: 3, reset: 1_700_000_000 };
    let all = [Told::Draft, Told::Refusals, Told::XRateLimit, Told::Nothing].map(|told| limit(meter, told));
    let stands: Vec<Stand<'_>> = all.iter().map(|limit| Stand { limit, meter: &meter, standing }).collect();
    let older = "X-RateLimit-Limit: 20\r\nX-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 2\r\n";
    let one = "RateLimit-Policy: \"a\";q=20;w=2\r\nRateLimit: \"a\";r=3;t=2\r\n";
    let two = "RateLimit-Policy: \"a\";q=20;w=2, \"a\";q=20;w=2\r\nRateLimit: \"a\";r=3;t=2, \"a\";r=3;t=2\r\n";
    assert_eq!(lines(&stands, false), one.to_owned() + older);
    assert_eq!(lines(&stands, true), two.to_owned() + older);
    assert_eq!(lines(&stands[3..], true), "");
}

/// gRPC is told by its own status, and of its limits as everybody is.
#[test]
fn a_refusal_is_told_to_grpc_in_its_own_way() {
    use crate::reply::Reply;
    let written = |reply: Reply| {
        let mut space = [0; 1024];
        let (length, _) = reply.write("now", &mut space, false, "").expect("it fits");
        String::from_utf8_lossy(&space[..length]).into_owned()
    };
    let reply = Reply::rate_limited(Some(1_500_000_000), "RateLimit: \"a\";r=0;t=2\r\n");
    let text = written(reply.clone());
    for line in ["HTTP/1.1 429 Too Many Requests", "Retry-After: 2", "RateLimit: \"a\";r=0;t=2"] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    let text = written(reply.for_grpc());
    for line in ["HTTP/1.1 200 OK", "Grpc-Status: 8", "Retry-After: 2", "RateLimit: \"a\";r=0;t=2"] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    // What can never be had has no time at which to come back.
    assert!(!written(Reply::rate_limited(None, "")).contains("Retry-After"));
}
