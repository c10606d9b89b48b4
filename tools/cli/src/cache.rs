//! `sluice cache`: look into the cache of a running gateway, and purge.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::admin::{Whom, ended};

/// What is purged.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Purged {
    /// A URL, or all below one: http://host/a/*
    url: Option<String>,
    /// Everything of a host, with its port if it has one
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// What an origin has tagged so
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

/// Prints what the cache holds and what it has done.
pub(crate) fn stats(whom: &Whom) -> ExitCode {
    ended(whom.ask("GET", "/api/cache").and_then(|answer| {
        println!("{:#}", answer.json(200)?);
        Ok(true)
    }))
}

/// Prints what is stored for a URL; the exit code says whether there is anything.
pub(crate) fn get(whom: &Whom, url: &str) -> ExitCode {
    ended(whom.ask("GET", &format!("/api/cache/get?url={}", encoded(url))).and_then(|answer| {
        let found = answer.json(200)?;
        println!("{:#}", found["objects"]);
        Ok(found["objects"].as_array().is_some_and(|objects| !objects.is_empty()))
    }))
}

/// Prints the URLs of what is stored.
pub(crate) fn keys(whom: &Whom, prefix: &str, limit: u32) -> ExitCode {
    let path = format!("/api/cache/keys?limit={limit}&prefix={}", encoded(prefix));
    ended(whom.ask("GET", &path).and_then(|answer| {
        let found = answer.json(200)?;
        for object in found["objects"].as_array().into_iter().flatten() {
            let (status, bytes, age, ttl) = (&object["status"], &object["body-bytes"], &object["age"], &object["ttl"]);
            println!("{status} {bytes:>10} age {age:>6} ttl {ttl:>6} {}", object["url"].as_str().unwrap_or_default());
        }
        if found["more"] == Value::Bool(true) {
            eprintln!("sluice: there are more");
        }
        Ok(true)
    }))
}

/// Purges.
pub(crate) fn purge(whom: &Whom, what: &Purged, soft: bool) -> ExitCode {
    let Purged { url, host, tag, .. } = what;
    let named = [("url", url), ("host", host), ("tag", tag)];
    let named = named.into_iter().find_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
    let path = format!("/api/cache/purge?{}&soft={soft}", named.unwrap_or_else(|| "all=true".to_owned()));
    ended(whom.ask("POST", &path).and_then(|answer| {
        answer.json(200)?;
        println!("{}", if soft { "made stale" } else { "purged" });
        Ok(true)
    }))
}

/// A text as the value of a query's parameter.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_query_is_encoded() {
        assert_eq!(encoded("http://a/b?c=1&d=é%"), "http://a/b%3Fc%3D1%26d%3D%C3%A9%25");
    }
}
