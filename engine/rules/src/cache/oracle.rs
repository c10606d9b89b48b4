//! The law against another implementation of it, `http-cache-semantics`: wherever both are asked whether a stored
//! response may be given without a word to the origin, they agree, or the difference is one of those listed here.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy as Oracle};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::lookup::{Decision, Found, Leave, decide};
use super::sample::{AT_ONCE, RECEIVED, WALL, get, received};
use super::storable::judge;
use super::vary::Selecting;
use super::{Seconds, dates};
use crate::snapshot::CachePolicy;

/// A response, the request that it answers, and a later one.
#[derive(Clone, Debug)]
struct Case {
    status: u16,
    control: Vec<&'static str>,
    expires: Option<i64>,
    modified: Option<i64>,
    age: Option<Seconds>,
    pragma: bool,
    vary: bool,
    authorization: bool,
    asks: Vec<&'static str>,
    asks_pragma: bool,
    same_field: bool,
    seconds: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let control = proptest::sample::subsequence(
        vec![
            "max-age=0",
            "max-age=10",
            "s-maxage=0",
            "s-maxage=10",
            "no-store",
            "no-cache",
            "private",
            "public",
            "must-revalidate",
            "proxy-revalidate",
            "immutable",
            "foo=bar",
        ],
        0..4,
    );
    let asks = proptest::sample::subsequence(
        vec!["no-cache", "no-store", "max-age=5", "min-fresh=5", "max-stale", "max-stale=5"],
        0..3,
    );
    let status = proptest::sample::select(vec![200, 200, 200, 203, 204, 301, 302, 303, 404, 410, 500, 503, 599]);
    let response = (
        status,
        control,
        proptest::option::weighted(0.3, -10i64..20),
        proptest::option::weighted(0.3, 0i64..200),
        proptest::option::weighted(0.3, 0u32..12),
        proptest::bool::weighted(0.05),
        proptest::bool::weighted(0.3),
    );
    let request =
        (proptest::bool::weighted(0.1), asks, proptest::bool::weighted(0.05), proptest::bool::weighted(0.8), 0u64..25);
    (response, request).prop_map(
        |(
            (status, control, expires, modified, age, pragma, vary),
            (authorization, asks, asks_pragma, same_field, seconds),
        )| Case {
            status,
            control,
            expires,
            modified,
            age,
            pragma,
            vary,
            authorization,
            asks,
            asks_pragma,
            same_field,
            seconds,
        },
    )
}

impl Case {
    fn response(&self) -> String {
        let mut fields = format!("Date: {}\n", dates::format(WALL));
        if !self.control.is_empty() {
            fields += &format!("Cache-Control: {}\n", self.control.join(", "));
        }
        let date = |seconds: i64| dates::format(WALL + seconds);
        self.expires.iter().for_each(|after| fields += &format!("Expires: {}\n", date(*after)));
        self.modified.iter().for_each(|before| fields += &format!("Last-Modified: {}\n", date(-before)));
        self.age.iter().for_each(|age| fields += &format!("Age: {age}\n"));
        fields += if self.pragma { "Pragma: no-cache\n" } else { "" };
        fields += if self.vary { "Vary: Foo\n" } else { "" };
        fields
    }

    fn first(&self) -> String {
        format!("Foo: 1\n{}", if self.authorization { "Authorization: x\n" } else { "" })
    }

    fn later(&self) -> String {
        let mut fields = format!("Foo: {}\n", if self.same_field { 1 } else { 2 });
        if !self.asks.is_empty() {
            fields += &format!("Cache-Control: {}\n", self.asks.join(", "));
        }
        fields + if self.asks_pragma { "Pragma: no-cache\n" } else { "" }
    }

    /// What we do.
    fn ours(&self) -> bool {
        let policy = CachePolicy::default();
        let (first, later) = (get(&self.first()), get(&self.later()));
        let response = received(self.status, &self.response());
        let Ok(storable) = judge(&policy, &first.asked(&policy), response.view(), AT_ONCE, 0) else { return false };
        let secondary = |selecting: &Selecting, sent: &super::sample::Sent| {
            let mut key = Vec::new();
            selecting.write(sent.view(), &mut key);
            key
        };
        let selected = secondary(&storable.selecting, &first) == secondary(&storable.selecting, &later);
        let found = if selected { Found::Stored(&storable.facts) } else { Found::OtherVariants };
        let decision = decide(&later.asked(&policy), found, RECEIVED.after(self.seconds * 1000));
        matches!(decision, Decision::Hit(hit) if matches!(hit.leave, Leave::Fresh | Leave::MaxStale))
    }

    /// What the oracle does.
    fn theirs(&self) -> bool {
        let request = |fields: &str| {
            let request = http::Request::get("http://a/").header("host", "a");
            let lines = fields.lines().filter_map(|line| line.split_once(": "));
            lines.fold(request, |request, (name, value)| request.header(name, value)).body(())
        };
        let response = http::Response::builder().status(self.status);
        let fields = self.response();
        let lines = fields.lines().filter_map(|line| line.split_once(": "));
        let response = lines.fold(response, |response, (name, value)| response.header(name, value)).body(());
        let at = UNIX_EPOCH + Duration::from_secs(WALL.unsigned_abs());
        let (Ok(first), Ok(later), Ok(response)) = (request(&self.first()), request(&self.later()), response) else {
            panic!("{self:?}")
        };
        let oracle = Oracle::new_options(&first, &response, at, CacheOptions::default());
        let before = oracle.before_request(&later, at + Duration::from_secs(self.seconds));
        // What may not be stored is not there to be given.
        oracle.is_storable() && matches!(before, BeforeRequest::Fresh(_))
    }

    fn says(&self, directive: &str) -> bool {
        self.control.iter().any(|one| one.split('=').next() == Some(directive))
    }

    fn asks(&self, directive: &str) -> bool {
        self.asks.iter().any(|one| one.split('=').next() == Some(directive))
    }

    /// Whether we have stored the response.
    fn is_stored(&self) -> bool {
        let policy = CachePolicy::default();
        let (first, response) = (get(&self.first()), received(self.status, &self.response()));
        judge(&policy, &first.asked(&policy), response.view(), AT_ONCE, 0).is_ok()
    }

    /// Why both may differ if it is us who give the response, or if it is not.
    fn reasons(&self, we_give: bool) -> Vec<&'static str> {
        let twice = |all: &[&str], directive: &str| all.iter().filter(|one| one.starts_with(directive)).count() > 1;
        let understood = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];
        let takes_stale = self.asks("max-stale");
        let reasons = if we_give {
            vec![
                (
                    twice(&self.control, "max-age") || twice(&self.control, "s-maxage"),
                    "§4.2.1: of several values we take the first; it takes the response for one to revalidate",
                ),
                (twice(&self.asks, "max-stale"), "of several values we take the first; it does so otherwise"),
                (self.pragma && self.control.is_empty(), "§5.4: Pragma means nothing in a response; to it, it does"),
                (
                    self.asks_pragma && !self.asks.is_empty(),
                    "§5.4: beside Cache-Control, Pragma means nothing; to it, it does",
                ),
                (self.says("proxy-revalidate"), "§5.2.2.8 is about what is stale; it takes it for a lifetime of zero"),
                (
                    !understood.contains(&self.status),
                    "§3: a status need not be understood to be stored; to it, it needs",
                ),
                (
                    takes_stale && self.asks("max-age"),
                    "§5.2.1.1: beside max-stale, max-age does not bind; to it, it does",
                ),
                (takes_stale, "§5.2.1.2: stale by no more than max-stale includes by as much; to it, it does not"),
            ]
        } else {
            vec![
                (self.asks("no-store"), "§5.2.1.5: it answers a request that is not to be stored; we pass it on"),
                (self.says("immutable"), "RFC 8246: immutable is no lifetime; it takes it for one of a day"),
                (
                    takes_stale && (self.says("s-maxage") || self.says("proxy-revalidate")),
                    "§4.2.4: these forbid what is stale; to it, only must-revalidate does",
                ),
                (
                    takes_stale && self.says("no-cache"),
                    "§5.2.2.4: no-cache forbids it; to it, it means a lifetime of zero",
                ),
                (takes_stale && !self.is_stored(), "§3: what was never fresh is not stored; it gives it as stale"),
            ]
        };
        reasons.into_iter().filter_map(|(applies, why)| applies.then_some(why)).collect()
    }
}

/// Both agree, but for the differences that are known.
#[test]
fn both_agree_but_for_known_differences() {
    let (agreed, given) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 6_000, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&cases(), |case| {
        let (ours, theirs) = (case.ours(), case.theirs());
        if ours == theirs {
            agreed.set(agreed.get() + 1);
            given.set(given.get() + u32::from(ours));
            return Ok(());
        }
        prop_assert!(!case.reasons(ours).is_empty(), "do we give it? {}", ours);
        Ok(())
    });
    assert!(ran.is_ok(), "{ran:?}");
    assert!(agreed.get() > 4_500 && given.get() > 100, "agreed {} given {}", agreed.get(), given.get());
}
