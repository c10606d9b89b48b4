//! A seeded simulation of clients, queue, limit and an upstream, in pretend time: what overload does to throughput,
//! latency and fairness.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use sluice_rules::concurrency::{self, Bounds, Limiter};
use sluice_rules::queue::{Asked, Nanos, Policy, Queue, Urgency};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MS;

/// Clients of one kind.
#[derive(Clone, Copy)]
struct Clients {
    urgency: Urgency,
    tenant: u64,
    /// Requests a second, at random times.
    rate: f64,
    from: Nanos,
    until: Nanos,
}

impl Clients {
    fn new(rate: f64) -> Self {
        Clients { urgency: Urgency::NORMAL, tenant: 0, rate, from: 0, until: Nanos::MAX }
    }
}

/// What an upstream is like from some time on.
#[derive(Clone, Copy)]
struct Upstream {
    from: Nanos,
    /// Requests that it works on at a time; others wait in it.
    workers: usize,
    /// How long one takes, on average.
    service: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Answer { request: usize },
    Expiry,
    Beat,
}

#[derive(Clone, Copy)]
struct Request {
    clients: usize,
    arrived: Nanos,
    admitted: Nanos,
}

/// What became of the requests of one kind of client.
#[derive(Clone, Default)]
struct Outcome {
    asked: u64,
    refused: u64,
    /// From arrival to answer, and when the answer came.
    answered: Vec<(Nanos, Nanos)>,
}

impl Outcome {
    fn p99(&self, from: Nanos) -> Nanos {
        let mut all: Vec<Nanos> = self.answered.iter().filter(|(at, _)| *at >= from).map(|(_, took)| *took).collect();
        all.sort_unstable();
        all.get(all.len() * 99 / 100).copied().unwrap_or(0)
    }

    /// Answers a second in a stretch of time.
    fn rate(&self, from: Nanos, until: Nanos) -> f64 {
        let count = self.answered.iter().filter(|(at, _)| (from..until).contains(at)).count();
        count as f64 / ((until - from) as f64 / SECOND as f64)
    }
}

enum Limit {
    Fixed(u32),
    Adaptive(Bounds),
}

struct Simulation {
    seed: u64,
    clients: Vec<Clients>,
    upstream: Vec<Upstream>,
    /// How service times are spread: `None`: evenly from a half to three halves. Otherwise one in ten takes this many
    /// times as long as the others.
    slow: Option<f64>,
    policy: Policy,
    limit: Limit,
}

/// What was seen.
struct Seen {
    outcomes: Vec<Outcome>,
    /// The limit at each beat.
    limits: Vec<(Nanos, u32)>,
}

impl Seen {
    fn rate(&self, from: Nanos, until: Nanos) -> f64 {
        self.outcomes.iter().map(|outcome| outcome.rate(from, until)).sum()
    }

    /// The least and the most that the limit was.
    fn limits(&self, from: Nanos, until: Nanos) -> (u32, u32) {
        let within = self.sorted(from, until);
        (within.first().copied().unwrap_or(0), within.last().copied().unwrap_or(0))
    }

    /// What the limit was below for nine tenths of the time.
    fn mostly_below(&self, from: Nanos, until: Nanos) -> u32 {
        let within = self.sorted(from, until);
        within.get(within.len() * 9 / 10).copied().unwrap_or(0)
    }

    fn sorted(&self, from: Nanos, until: Nanos) -> Vec<u32> {
        let within = self.limits.iter().filter(|(at, _)| (from..until).contains(at));
        let mut within: Vec<u32> = within.map(|(_, limit)| *limit).collect();
        within.sort_unstable();
        within
    }
}

impl Simulation {
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn service(&mut self, now: Nanos) -> Nanos {
        let mean = self.upstream.iter().rev().find(|upstream| upstream.from <= now).map_or(0, |up| up.service) as f64;
        let random = self.random();
        match self.slow {
            None => (mean * (0.5 + random)) as Nanos,
            Some(times) => {
                let fast = mean / (0.9 + times / 10.0);
                (if random < 0.1 { fast * times } else { fast }) as Nanos
            }
        }
    }

    fn workers(&self, now: Nanos) -> usize {
        self.upstream.iter().rev().find(|upstream| upstream.from <= now).map_or(0, |upstream| upstream.workers)
    }

    fn run(mut self, until: Nanos) -> Seen {
        let mut events = BinaryHeap::new();
        let mut requests: Vec<Request> = Vec::new();
        let mut outcomes = vec![Outcome::default(); self.clients.len()];
        let mut limits = Vec::new();
        let mut queue = Queue::new(self.policy);
        let mut limiter = match self.limit {
            Limit::Adaptive(bounds) => Some(Limiter::new(bounds, 0)),
            Limit::Fixed(_) => None,
        };
        let mut limit = match self.limit {
            Limit::Fixed(limit) => limit,
            Limit::Adaptive(_) => limiter.as_ref().map_or(1, Limiter::limit),
        };
        let (mut in_use, mut busy, mut within) = (0u32, 0usize, VecDeque::new());
        let mut seen = concurrency::Seen::default();
        for (index, clients) in self.clients.iter().enumerate() {
            events.push(Reverse((clients.from, Event::Arrival(index))));
        }
        events.push(Reverse((0, Event::Beat)));
        while let Some(Reverse((now, event))) = events.pop() {
            if now > until {
                break;
            }
            match event {
                Event::Arrival(index) => {
                    let clients = self.clients[index];
                    let gap = -(1.0 - self.random()).ln() / clients.rate * SECOND as f64;
                    if now + (gap as Nanos) < clients.until {
                        events.push(Reverse((now + gap as Nanos, Event::Arrival(index))));
                    }
                    outcomes[index].asked += 1;
                    requests.push(Request { clients: index, arrived: now, admitted: 0 });
                    let name = requests.len() - 1;
                    let asked = Asked { urgency: clients.urgency, tenant: clients.tenant, due: None };
                    match queue.push(name, asked, false, now) {
                        Ok(queued) => {
                            let pushed_out = queued.pushed_out.map(|out: usize| requests[out].clients);
                            pushed_out.into_iter().for_each(|clients| outcomes[clients].refused += 1);
                        }
                        Err(_) => outcomes[index].refused += 1,
                    }
                    if let Some(expiry) = queue.next_expiry() {
                        events.push(Reverse((expiry.max(now), Event::Expiry)));
                    }
                }
                Event::Answer { request } => {
                    busy -= 1;
                    in_use -= 1;
                    let Request { clients, arrived, admitted } = requests[request];
                    outcomes[clients].answered.push((now, now - arrived));
                    let took = (now - admitted) / 1000;
                    seen.answered += 1;
                    seen.latency += took;
                    seen.latency_squares += took * took;
                }
                Event::Expiry => {
                    while let Some(request) = queue.expire(now) {
                        outcomes[requests[request].clients].refused += 1;
                    }
                }
                Event::Beat => {
                    events.push(Reverse((now + 100 * MS, Event::Beat)));
                    if let Some(limiter) = &mut limiter {
                        seen.was_full |= in_use >= limit;
                        limit = limiter.observe(std::mem::take(&mut seen), now);
                    }
                    limits.push((now, limit));
                }
            }
            while in_use < limit {
                let Some((request, _)) = queue.pop(now) else { break };
                in_use += 1;
                seen.was_full |= in_use == limit;
                requests[request].admitted = now;
                within.push_back(request);
            }
            while busy < self.workers(now) {
                let Some(request) = within.pop_front() else { break };
                busy += 1;
                let took = self.service(now);
                events.push(Reverse((now + took, Event::Answer { request })));
            }
        }
        Seen { outcomes, limits }
    }
}

const POLICY: Policy = Policy { depth: 100, wait_max: 500 * MS };
const BOUNDS: Bounds = Bounds { min: 1, max: 500, target_percent: 20 };

/// An upstream that does 1,600 requests a second, 16 at a time.
fn upstream() -> Vec<Upstream> {
    vec![Upstream { from: 0, workers: 16, service: 10 * MS }]
}

fn simulation(seed: u64, clients: Vec<Clients>, limit: Limit) -> Simulation {
    Simulation { seed, clients, upstream: upstream(), slow: None, policy: POLICY, limit }
}

const SEEDS: [u64; 3] = [0x51_1ce, 7, 0xdead_beef];

#[test]
fn three_times_the_load_costs_no_throughput_and_little_latency() {
    for seed in SEEDS {
        let unloaded = simulation(seed, vec![Clients::new(400.0)], Limit::Fixed(16)).run(10 * SECOND);
        let seen = simulation(seed, vec![Clients::new(4800.0)], Limit::Fixed(16)).run(10 * SECOND);
        let goodput = seen.rate(SECOND, 10 * SECOND);
        let (quiet, p99) = (unloaded.outcomes[0].p99(SECOND), seen.outcomes[0].p99(SECOND));
        println!("seed {seed}: goodput {goodput:.0}/s of 1600, p99 {} ms, quiet {} ms", p99 / MS, quiet / MS);
        assert!(goodput >= 0.95 * 1600.0, "seed {seed}: {goodput}");
        assert!(p99 <= 2 * quiet + POLICY.wait_max, "seed {seed}: {} ms", p99 / MS);
    }
}

#[test]
fn what_matters_most_does_not_notice_the_overload() {
    for seed in SEEDS {
        let high = Clients { urgency: Urgency::HIGH, ..Clients::new(400.0) };
        let alone = simulation(seed, vec![high], Limit::Fixed(16)).run(10 * SECOND);
        let low = Clients { urgency: Urgency::LOW, ..Clients::new(4800.0) };
        let seen = simulation(seed, vec![high, low], Limit::Fixed(16)).run(10 * SECOND);
        let (quiet, p99) = (alone.outcomes[0].p99(SECOND), seen.outcomes[0].p99(SECOND));
        println!("seed {seed}: p99 of high {} µs beside a flood, {} µs alone", p99 / 1000, quiet / 1000);
        assert_eq!(seen.outcomes[0].refused, 0, "seed {seed}");
        // It waits for one of sixteen to end, which takes less than a millisecond on average.
        assert!(p99 <= quiet + 5 * MS, "seed {seed}: {} ms", p99 / MS);
        assert!(seen.rate(SECOND, 10 * SECOND) >= 0.95 * 1600.0, "seed {seed}");
    }
}

/// Jain's index: 1 if all have the same, 1/n if one has all.
fn fairness(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (rates.len() as f64 * squares)
}

#[test]
fn a_greedy_tenant_gets_no_more_than_its_share() {
    for seed in SEEDS {
        let greedy = Clients { tenant: 1, ..Clients::new(8000.0) };
        let modest = (2..=4).map(|tenant| Clients { tenant, ..Clients::new(600.0) });
        let all = std::iter::once(greedy).chain(modest).collect();
        let seen = simulation(seed, all, Limit::Fixed(16)).run(10 * SECOND);
        let rates: Vec<f64> = seen.outcomes.iter().map(|outcome| outcome.rate(SECOND, 10 * SECOND)).collect();
        let index = fairness(&rates);
        println!("seed {seed}: {rates:.0?}, fairness {index:.3}");
        assert!(index >= 0.98, "seed {seed}: {rates:?}");
    }
}

/// Tenants that ask for less than their share get all that they ask for.
#[test]
fn a_modest_tenant_does_not_notice_a_greedy_one() {
    for seed in SEEDS {
        let greedy = Clients { tenant: 1, ..Clients::new(8000.0) };
        let modest = Clients { tenant: 2, ..Clients::new(200.0) };
        let seen = simulation(seed, vec![greedy, modest], Limit::Fixed(16)).run(10 * SECOND);
        let Outcome { asked, refused, .. } = seen.outcomes[1];
        println!("seed {seed}: {refused} of {asked} refused, p99 {} ms", seen.outcomes[1].p99(SECOND) / MS);
        assert!(refused * 100 <= asked, "seed {seed}: {refused} of {asked}");
        assert!(seen.outcomes[1].p99(SECOND) <= 40 * MS, "seed {seed}");
    }
}

/// The limit is found from far below and from far above, and what it lets in is neither too little nor too much.
#[test]
fn the_limit_finds_what_an_upstream_can_do() {
    for (workers, service, load) in
        [(16, 10 * MS, 4800.0), (4, 10 * MS, 1200.0), (200, 20 * MS, 15_000.0), (1, 5 * MS, 600.0)]
    {
        for seed in SEEDS {
            let capacity = workers as f64 * SECOND as f64 / service as f64;
            let mut adaptive = simulation(seed, vec![Clients::new(load)], Limit::Adaptive(BOUNDS));
            adaptive.upstream = vec![Upstream { from: 0, workers, service }];
            let seen = adaptive.run(20 * SECOND);
            let goodput = seen.rate(10 * SECOND, 20 * SECOND);
            let (least, most) = seen.limits(10 * SECOND, 20 * SECOND);
            println!("{workers} workers, seed {seed}: limit {least} to {most}, goodput {:.3}", goodput / capacity);
            assert!(goodput >= 0.95 * capacity, "{workers} workers, seed {seed}: {goodput} of {capacity}");
            let mostly = seen.mostly_below(10 * SECOND, 20 * SECOND) as usize;
            assert!(mostly <= 2 * workers + 4, "{workers} workers, seed {seed}: {mostly}");
        }
    }
}

#[test]
fn the_limit_follows_an_upstream_whose_capacity_flaps() {
    for seed in SEEDS {
        let mut flapping = simulation(seed, vec![Clients::new(4800.0)], Limit::Adaptive(BOUNDS));
        flapping.upstream = (0..6)
            .map(|turn| Upstream {
                from: turn * 10 * SECOND,
                workers: if turn % 2 == 0 { 16 } else { 4 },
                service: 10 * MS,
            })
            .collect();
        let seen = flapping.run(60 * SECOND);
        for turn in 1..6 {
            let capacity = if turn % 2 == 0 { 1600.0 } else { 400.0 };
            let goodput = seen.rate((turn * 10 + 5) * SECOND, (turn * 10 + 10) * SECOND);
            let (least, most) = seen.limits((turn * 10 + 5) * SECOND, (turn * 10 + 10) * SECOND);
            println!("seed {seed}, turn {turn}: limit {least} to {most}, goodput {:.3}", goodput / capacity);
            assert!(goodput >= 0.95 * capacity, "seed {seed}, turn {turn}: {goodput} of {capacity}");
        }
    }
}

/// An upstream whose answers take longer by themselves is not throttled for it.
#[test]
fn latency_that_is_not_for_load_is_learned() {
    for seed in SEEDS {
        let mut slower = simulation(seed, vec![Clients::new(4800.0)], Limit::Adaptive(BOUNDS));
        slower.upstream.push(Upstream { from: 20 * SECOND, workers: 16, service: 30 * MS });
        let seen = slower.run(50 * SECOND);
        let capacity = 16.0 / 0.03;
        let goodput = seen.rate(25 * SECOND, 50 * SECOND);
        let (least, most) = seen.limits(25 * SECOND, 50 * SECOND);
        println!("seed {seed}: limit {least} to {most}, goodput {:.3}", goodput / capacity);
        assert!(goodput >= 0.95 * capacity, "seed {seed}: {goodput} of {capacity}");
    }
}

#[test]
fn fast_and_slow_requests_may_be_mixed() {
    for seed in SEEDS {
        let mut mixed = simulation(seed, vec![Clients::new(4800.0)], Limit::Adaptive(BOUNDS));
        // Nine of ten take 1 ms, one takes 91 ms: 10 ms on average.
        mixed.slow = Some(91.0);
        let seen = mixed.run(40 * SECOND);
        let goodput = seen.rate(10 * SECOND, 40 * SECOND);
        let (least, most) = seen.limits(10 * SECOND, 40 * SECOND);
        println!("seed {seed}: limit {least} to {most}, goodput {:.3}", goodput / 1600.0);
        assert!(goodput >= 0.95 * 1600.0, "seed {seed}: {goodput}");
        assert!(most <= 64, "seed {seed}: {most}");
    }
}

#[test]
fn an_idle_upstream_keeps_its_limit_and_a_step_of_load_finds_it() {
    for seed in SEEDS {
        let busy = Clients { until: 15 * SECOND, ..Clients::new(4800.0) };
        let trickle = Clients { from: 15 * SECOND, until: 60 * SECOND, ..Clients::new(3.0) };
        let again = Clients { from: 60 * SECOND, ..Clients::new(4800.0) };
        let seen = simulation(seed, vec![busy, trickle, again], Limit::Adaptive(BOUNDS)).run(70 * SECOND);
        let (least, most) = seen.limits(16 * SECOND, 60 * SECOND);
        println!("seed {seed}: idle limit {least} to {most}");
        assert!(least >= 10 && most <= 40, "seed {seed}: {least} to {most}");
        assert!(seen.rate(61 * SECOND, 70 * SECOND) >= 0.95 * 1600.0, "seed {seed}");
        assert!(seen.outcomes[2].p99(61 * SECOND) <= 2 * 15 * MS + POLICY.wait_max, "seed {seed}");
    }
}

/// A load below capacity is never refused for want of a limit.
#[test]
fn a_limit_does_not_stand_in_the_way_of_a_load_that_is_no_overload() {
    for seed in SEEDS {
        let seen = simulation(seed, vec![Clients::new(1200.0)], Limit::Adaptive(BOUNDS)).run(30 * SECOND);
        let Outcome { asked, refused, .. } = seen.outcomes[0];
        println!("seed {seed}: {refused} of {asked} refused, p99 {} ms", seen.outcomes[0].p99(0) / MS);
        assert!(refused * 1000 <= asked, "seed {seed}: {refused} of {asked}");
    }
}
