//! The cache as the admin endpoints show it: what is in it, what it does, and purging.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_rules::cache::Moment;
use sluice_rules::cache::tags::{InvalidPattern, Pattern};
use sluice_rules::snapshot::TargetPolicy;
use tokio::time::sleep;

use super::Control;
use crate::cache::{Manner, Object, Purgeable, WORDS};

/// How often purges are applied to what is stored.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Keys that are listed at a time unless fewer are asked for.
const KEYS_MAX: usize = 1000;

/// Why a request about the cache was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It does not say what is meant.
    #[error("say what is meant by one of {0}")]
    Nothing(&'static str),
    /// What it says is not valid.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A number is none.
    #[error("limit is a number from 1 to 1000")]
    Limit,
    /// Too many purges wait for a sweep.
    #[error("too many purges wait to be applied; try again in a second")]
    Busy,
}

/// Applies purges to what is stored, for ever.
pub(super) async fn sweep(control: Arc<Control>) {
    loop {
        sleep(SWEEP_EVERY).await;
        control.shared.cache.sweep(now(&control), async || tokio::task::yield_now().await).await;
    }
}

fn now(control: &Control) -> Moment {
    Moment(u64::try_from(control.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// What it holds, and what it has done.
pub(super) fn stats(control: &Control) -> Value {
    let store = &control.shared.cache;
    let figures = &store.figures;
    let publication = control.shared.published.current();
    let cores =
        || publication.series.routes.values().flat_map(|cores| cores.all().filter_map(|core| core.cache_if_any()));
    let outcomes = WORDS.iter().enumerate().map(|(index, word)| {
        let count: u64 = cores().map(|cache| cache.outcomes[index].get()).sum();
        ((*word).to_owned(), json!(count))
    });
    let outcomes: serde_json::Map<String, Value> = outcomes.collect();
    let given = |word: &str| outcomes.get(word).and_then(Value::as_u64).unwrap_or_default();
    let (hits, all) = (given("hit") + given("stale"), WORDS.iter().map(|word| given(word)).sum::<u64>());
    json!({
        "objects": figures.objects.load(Relaxed),
        "stored-bytes": figures.stored_bytes.load(Relaxed),
        "memory-bytes": store.account.in_use_bytes(),
        "limit-bytes": store.limit_bytes,
        "insertions": figures.insertions.load(Relaxed),
        "evictions": figures.evictions.load(Relaxed),
        "purged": figures.purged.load(Relaxed),
        "refused": figures.refused.load(Relaxed),
        "requests": outcomes,
        "hit-ratio": if all == 0 { Value::Null } else { json!(hits as f64 / all as f64) },
        "collapsed": cores().map(|cache| cache.collapsed.get()).sum::<u64>(),
        "origin-seconds-saved": cores().map(|cache| cache.saved_millis.get()).sum::<u64>() as f64 / 1e3,
    })
}

/// Stored responses, as many as are asked for, those whose URLs begin with a prefix.
pub(super) fn keys(control: &Control, query: &str) -> Result<Value, Refused> {
    let limit = match parameter(query, "limit") {
        Some(limit) => limit.parse().ok().filter(|limit| (1..=KEYS_MAX).contains(limit)).ok_or(Refused::Limit)?,
        None => KEYS_MAX,
    };
    let prefix = parameter(query, "prefix").unwrap_or_default();
    let (mut listed, mut is_cut) = (Vec::new(), false);
    let now = now(control);
    control.shared.cache.visit(|object| {
        if object.url().starts_with(&prefix) {
            is_cut = listed.len() == limit;
            if !is_cut {
                listed.push(shown(object, now));
            }
        }
        !is_cut
    });
    Ok(json!({ "objects": listed, "more": is_cut }))
}

/// What is stored for a URL.
pub(super) fn get(control: &Control, query: &str) -> Result<Value, Refused> {
    let url = parameter(query, "url").ok_or(Refused::Nothing("url"))?;
    let Pattern::Url { scheme, authority, target } = Pattern::url(&url, TargetPolicy::default())? else {
        return Err(Refused::Pattern(InvalidPattern::Star));
    };
    let url = format!("{scheme}://{authority}{target}");
    let now = now(control);
    let mut found = Vec::new();
    control.shared.cache.visit(|object| {
        if object.url() == url {
            let mut shown = shown(object, now);
            let head = String::from_utf8_lossy(object.head()).into_owned();
            shown["head"] = json!(head.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>());
            found.push(shown);
        }
        found.len() < KEYS_MAX
    });
    Ok(json!({ "objects": found }))
}

fn shown(object: &Object, now: Moment) -> Value {
    let facts = object.facts_now();
    let selecting: Vec<&str> = object.selecting().into_iter().flat_map(|selecting| selecting.names()).collect();
    json!({
        "url": object.url(),
        "status": facts.status,
        "body-bytes": object.body_bytes(),
        "age": facts.age(now),
        "ttl": facts.ttl(now),
        "vary": selecting,
    })
}

/// Purges a URL, all below one, a host, a tag or everything; softly if asked for.
pub(super) fn purge(control: &Control, query: &str) -> Result<Value, Refused> {
    let given = |name| parameter(query, name).filter(|value| !value.is_empty());
    let pattern = if let Some(url) = given("url") {
        Pattern::url(&url, TargetPolicy::default())?
    } else if let Some(prefix) = given("prefix") {
        let prefix = prefix.trim_end_matches('*').trim_end_matches('/');
        Pattern::url(&format!("{prefix}/*"), TargetPolicy::default())?
    } else if let Some(host) = given("host") {
        Pattern::host(&host)?
    } else if let Some(tag) = given("tag") {
        Pattern::tag(&tag)?
    } else if given("all").is_some_and(|all| all == "true") {
        Pattern::All
    } else {
        return Err(Refused::Nothing("url, prefix, host, tag and all=true"));
    };
    let manner = if given("soft").is_some_and(|soft| soft == "true") { Manner::Soft } else { Manner::Hard };
    control.shared.cache.purges.purge(&pattern, manner).map_err(|_| Refused::Busy)?;
    Ok(json!({ "purged": true, "soft": manner == Manner::Soft }))
}

/// A parameter of a query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next()
}

fn decoded(value: &str) -> String {
    let bytes = value.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "url=http%3A%2F%2Fa%2Fb%3Fc%3D1&soft=true&tag=a+b&odd=%zz";
        assert_eq!(parameter(query, "url").as_deref(), Some("http://a/b?c=1"));
        assert_eq!(parameter(query, "tag").as_deref(), Some("a b"));
        assert_eq!(parameter(query, "odd").as_deref(), Some("%zz"));
        assert_eq!(parameter(query, "none"), None);
    }
}
