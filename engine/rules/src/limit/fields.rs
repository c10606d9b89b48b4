//! What a client is told of its limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10),
//! `Retry-After` (RFC 9110 §10.2.3), and the `X-RateLimit-*` fields that came before them.

use std::fmt::Write;

use super::meter::Standing;
use super::word::Nanos;
use super::{Limit, Meter, Told};

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// Whole seconds, rounded up: who comes back then is not early.
pub fn seconds(nanos: Nanos) -> u64 {
    nanos.div_ceil(NANOS_PER_SECOND)
}

/// One limit as it stands for a client.
#[derive(Clone, Copy, Debug)]
pub struct Stand<'a> {
    /// Which one.
    pub limit: &'a Limit,
    /// What applies to the client.
    pub meter: &'a Meter,
    /// What is left of it.
    pub standing: Standing,
}

/// Field lines about all limits of a request. `refused`: the request is, which everybody is told of who did not ask
/// not to be; otherwise those are told who asked.
pub fn lines(stands: &[Stand<'_>], refused: bool) -> String {
    let mut out = String::new();
    let draft = |stand: &&Stand<'_>| match stand.limit.told {
        Told::Draft => true,
        Told::Refusals => refused,
        Told::XRateLimit | Told::Nothing => false,
    };
    let told: Vec<_> = stands.iter().filter(draft).collect();
    // A string takes everything.
    let _ = list(&mut out, "RateLimit-Policy", &told, |out, stand| {
        let (quota, window) = stand.meter.policy();
        write!(out, "\"{}\";q={quota};w={window}", stand.limit.name)
    });
    let _ = list(&mut out, "RateLimit", &told, |out, stand| {
        let Standing { remaining, reset } = stand.standing;
        write!(out, "\"{}\";r={remaining};t={}", stand.limit.name, seconds(reset))
    });
    // There is room for one: the limit that is nearest to its end.
    let asked = stands.iter().filter(|stand| stand.limit.told == Told::XRateLimit);
    if let Some(stand) = asked.min_by_key(|stand| (stand.standing.remaining, u64::MAX - stand.standing.reset)) {
        let (quota, _) = stand.meter.policy();
        let Standing { remaining, reset } = stand.standing;
        let reset = seconds(reset);
        let _ = write!(
            out,
            "X-RateLimit-Limit: {quota}\r\nX-RateLimit-Remaining: {remaining}\r\nX-RateLimit-Reset: {reset}\r\n"
        );
    }
    out
}

fn list<'s, 'a>(
    out: &mut String,
    name: &str,
    stands: &[&'s Stand<'a>],
    member: impl Fn(&mut String, &'s Stand<'a>) -> std::fmt::Result,
) -> std::fmt::Result {
    for (index, stand) in stands.iter().enumerate() {
        out.push_str(if index == 0 { name } else { "," });
        out.push_str(if index == 0 { ": " } else { " " });
        member(out, stand)?;
    }
    out.push_str(if stands.is_empty() { "" } else { "\r\n" });
    Ok(())
}
