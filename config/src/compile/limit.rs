//! Limits: what they allow, to whom, and on which routes.

use std::collections::HashSet;

use ipnet::IpNet;
use sluice_rules::limit::{
    Applied, Bucket, Calendar, Derivation, Limit, LimitId, Meter, Overrides, Part, Period, Prefixes, QUOTA_MAX,
    SLIDING_MAX, Sliding, Tiers, Told, seed,
};
use sluice_rules::route::PathPattern;
use sluice_rules::snapshot::{Accounts, Bandwidth};

use super::operate::check_writable;
use super::routes::dangling;
use crate::error::{Code, Diagnostic, Place};
use crate::read::{At, Context};
use crate::schema::{self, Allowance, Amount, Schema};
use crate::units::Per;
use crate::values::ByteRate;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The longest time that a bucket may take to fill.
const FILL_MAX: u64 = 366 * 24 * 3600 * NANOS_PER_SECOND;

/// All limits. `None`: some limit could not be compiled.
pub(super) fn limits(schema: &Schema, context: &mut Context<'_>) -> Option<Vec<Limit>> {
    let limits: Vec<_> = (0..)
        .zip(&schema.limit.items)
        .map(|(index, (name, table))| limit(index, name, table.as_ref(), context))
        .collect();
    let used: HashSet<&str> = schema
        .route
        .iter()
        .filter_map(|route| route.limits.given())
        .flat_map(|limits| limits.names().iter().map(|name| name.0.as_str()))
        .collect();
    let is_sure = schema.route.complete && !schema.route.doubtful.contains(&true);
    for (name, _) in schema.limit.items.iter().filter(|(name, _)| is_sure && !used.contains(name.as_str())) {
        let message = format!("no route names the limit `{}`", name.value);
        context.push(Diagnostic::warning(Code::Unused, name.place, message).label("unused"));
    }
    limits.into_iter().collect()
}

/// Where accounts are kept.
pub(super) fn accounts(schema: &Schema, context: &mut Context<'_>) -> Accounts {
    let table = &schema.limits;
    if let Some(state) = table.state.given() {
        check_writable(state, context);
    }
    Accounts {
        keys: table.keys.0.unsigned_abs() as usize,
        delayed: table.delayed.0.unsigned_abs() as usize,
        state: table.state.given().map(|path| path.0.clone()),
    }
}

/// A limit's number. One whose rate changes is another: what was counted at the old one means nothing at the new one. What
/// was used of a period is the same whatever the quota.
fn seed_of(name: &str, meter: &Meter) -> u64 {
    seed(&match meter {
        Meter::Bucket(bucket) => format!("{name}, {} ns, {} at once", bucket.interval(), bucket.burst()),
        Meter::Sliding(_) => format!("{name}, {} s", meter.policy().1),
        Meter::Calendar(_) => format!("{name}, of the calendar, {} s", meter.policy().1),
    })
}

fn limit(index: u32, name: &At<String>, table: Option<&At<schema::Limit>>, context: &mut Context<'_>) -> Option<Limit> {
    let table = table?;
    // It stands in fields and labels as it is.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        let message = format!("`{}` is no name for a limit", name.value);
        let note = Diagnostic::error(Code::InvalidValue, name.place, message);
        context.push(note.label("clients are told it: letters, digits and -_. only, at most 64"));
    }
    let key: Vec<Part> = table.key.0.iter().map(|part| part.0.clone()).collect();
    let kind = kind(table, context)?;
    let burst = table.burst.given().map(|burst| burst.0.unsigned_abs());
    let meter = meter(kind.amount, burst, &kind, context)?;
    if let Some(delay) = table.delay.given().filter(|_| !matches!(meter, Meter::Bucket(_))) {
        let note = Diagnostic::error(Code::Conflict, delay.place, "a quota has no rate to slow down to");
        context.push(note.label("`delay` goes with `rate`"));
    }
    let cost = table.cost.0.unsigned_abs();
    check_cost(cost, table.cost.place, &name.value, &meter, context);
    let prefixes = Prefixes { ipv4: table.prefix.ipv4.0 as u8, ipv6: table.prefix.ipv6.0 as u8 };
    Some(Limit {
        name: name.value.clone(),
        tiers: tiers(table, &kind, context),
        overrides: overrides(table, &key, &kind, context),
        key: Derivation { seed: seed_of(&name.value, &meter), index, parts: key, prefixes },
        meter,
        patience: schema::patience(&table.delay).as_nanos() as u64,
        mode: table.mode.0,
        penalizes: table.penalize.value,
        cost,
        cost_field: table.cost_field.given().map(|field| field.0.clone()),
        told: table.headers.given().map_or(Told::Refusals, |headers| headers.0),
    })
}

/// How a limit counts, which all of its amounts share.
struct Kind<'t> {
    amount: &'t At<Amount>,
    is_rate: bool,
    is_calendar: bool,
}

fn kind<'t>(table: &'t At<schema::Limit>, context: &mut Context<'_>) -> Option<Kind<'t>> {
    match (table.rate.is_absent(), table.quota.is_absent()) {
        (true, true) => {
            let note = Diagnostic::error(Code::MissingKey, table.place, "the limit allows nothing in particular");
            context.push(note.label("needs `rate` or `quota`").help("write rate = \"100/s\""));
        }
        (false, false) => {
            let place = table.quota.given().and_then(|quota| quota.place).or(table.place);
            let note = Diagnostic::error(Code::Conflict, place, "a limit has a `rate` or a `quota`");
            let first = table.rate.given().and_then(|rate| rate.place);
            context
                .push(note.label("only one of them").related(first, "first here").help("name two limits on the route"));
        }
        (true, false) | (false, true) => {}
    }
    let is_rate = !table.rate.is_absent();
    for (place, key) in [
        (table.window.given().filter(|_| is_rate).map(|window| window.place), "window"),
        (table.burst.given().filter(|_| !is_rate).map(|burst| burst.place), "burst"),
    ] {
        if let Some(place) = place {
            let (goes, other) = if is_rate { ("quota", "rate") } else { ("rate", "quota") };
            let note = Diagnostic::error(Code::Conflict, place, format!("a `{other}` has no `{key}`"));
            context.push(note.label(format!("`{key}` goes with `{goes}`")));
        }
    }
    let amount = table.rate.given().or(table.quota.given())?;
    Some(Kind { amount, is_rate, is_calendar: table.window.given().is_none_or(|window| window.0) })
}

/// What an amount comes to, for a limit of this kind.
fn meter(amount: &At<Amount>, burst: Option<u64>, kind: &Kind<'_>, context: &mut Context<'_>) -> Option<Meter> {
    let Amount { count, per } = amount.value;
    let mut out_of_range = |message: String, label: String| {
        context.push(Diagnostic::error(Code::OutOfRange, amount.place, message).label(label));
        None
    };
    if kind.is_rate {
        if per == Per::Month {
            return out_of_range("months are no rate, since they differ".into(), "use `quota`, or days".into());
        }
        let bucket = Bucket::new(count, per.seconds_max() * NANOS_PER_SECOND, burst.unwrap_or(count));
        if count.div_ceil(per.seconds_max()) > Bucket::RATE_MAX {
            return out_of_range("the rate is too high".into(), format!("at most {}/s", Bucket::RATE_MAX));
        }
        if bucket.interval().checked_mul(bucket.burst()).is_none_or(|fill| fill > FILL_MAX) {
            return out_of_range("the burst would take more than a year to come back".into(), "less of it".into());
        }
        return Some(Meter::Bucket(bucket));
    }
    let period = match per {
        Per::Second if kind.is_calendar => {
            return out_of_range("a second is no period of the calendar".into(), "use `rate`".into());
        }
        Per::Month if !kind.is_calendar => {
            return out_of_range("a month is no length for a sliding window".into(), "use days".into());
        }
        // A sliding window of a second never looks at it.
        Per::Second | Per::Minute => Period::Minute,
        Per::Hour => Period::Hour,
        Per::Day => Period::Day,
        Per::Month => Period::Month,
    };
    let most = if kind.is_calendar { QUOTA_MAX } else { SLIDING_MAX };
    if count > most {
        return out_of_range("the quota is too large to count".into(), format!("at most {most}"));
    }
    Some(match kind.is_calendar {
        true => Meter::Calendar(Calendar::new(count, period)),
        false => Meter::Sliding(Sliding::new(count, per.seconds_max())),
    })
}

fn allowance(allowance: &At<Allowance>, kind: &Kind<'_>, context: &mut Context<'_>) -> Option<Option<Meter>> {
    let Some((amount, burst)) = allowance.0 else { return Some(None) };
    meter(&At { value: amount, place: allowance.place }, burst, kind, context).map(Some)
}

fn tiers(table: &schema::Limit, kind: &Kind<'_>, context: &mut Context<'_>) -> Option<Tiers> {
    let tiers = table.tiers.given()?;
    if matches!(tiers.by.0, Part::ClientIp | Part::Param(_)) {
        let note = Diagnostic::error(Code::InvalidValue, tiers.by.place, "tiers cannot go by this part");
        context.push(note.label("expected header:NAME, cookie:NAME, host or route").help("`overrides` take addresses"));
    }
    let read =
        tiers.named.iter().map(|(name, value)| Some((name.as_bytes().to_vec(), allowance(value, kind, context)?)));
    Some(Tiers { by: tiers.by.0.clone(), named: read.collect::<Option<_>>()? })
}

fn overrides(table: &schema::Limit, key: &[Part], kind: &Kind<'_>, context: &mut Context<'_>) -> Overrides {
    let mut overrides = Overrides::default();
    let Some(given) = table.overrides.given() else { return overrides };
    let [part] = key else {
        let note = Diagnostic::error(Code::Conflict, given.place, "a key of several parts has no single value");
        context.push(note.label("`overrides` go with a key of one part").related(table.key.place, "the key"));
        return overrides;
    };
    for (name, value) in &given.0 {
        let Some(meter) = allowance(value, kind, context) else { continue };
        if *part != Part::ClientIp {
            overrides.values.insert(name.as_bytes().to_vec(), meter);
            continue;
        }
        let network = name.parse::<IpNet>().ok().or_else(|| Some(name.parse::<std::net::IpAddr>().ok()?.into()));
        match network {
            Some(network) => overrides.networks.push((network, meter)),
            None => {
                let message = format!("`{}` is neither an address nor a network", name.value);
                let note = Diagnostic::error(Code::InvalidValue, name.place, message);
                context.push(note.label("the limit counts by client address"));
            }
        }
    }
    overrides.networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
    overrides
}

fn check_cost(cost: u64, place: Option<Place>, limit: &str, meter: &Meter, context: &mut Context<'_>) {
    let most = match meter {
        Meter::Bucket(bucket) => bucket.burst(),
        Meter::Sliding(_) | Meter::Calendar(_) => meter.policy().0,
    };
    if cost > most {
        let message = format!("a request would count more than the limit `{limit}` ever allows");
        let note = Diagnostic::error(Code::NeverMatches, place, message);
        context.push(note.label(format!("at most {most} can be had at once")));
    }
}

/// The limits of a route.
pub(super) fn applied(
    schema: &Schema,
    limits: Option<&[Limit]>,
    table: &schema::Route,
    path: &PathPattern,
    context: &mut Context<'_>,
) -> Vec<Applied> {
    let Some(given) = table.limits.given() else { return Vec::new() };
    let mut applied: Vec<Applied> = Vec::new();
    for name in given.names() {
        let Some(index) = schema.limit.items.iter().position(|(known, _)| known.value == name.0) else {
            dangling("limit", name, schema.limit.items.iter().map(|(known, _)| known.as_str()), context);
            continue;
        };
        if applied.iter().any(|known| known.limit == LimitId(index as u32)) {
            let message = format!("the limit {} is named twice", context.written(name.place));
            context.push(Diagnostic::error(Code::Duplicate, name.place, message).label("again here"));
            continue;
        }
        let Some(limit) = limits.and_then(|limits| limits.get(index)) else { continue };
        let known = path.params();
        let mut params = Vec::new();
        for part in &limit.key.parts {
            let Part::Param(param) = part else { continue };
            match known.iter().position(|known| known == param) {
                Some(position) => params.push(position),
                None => {
                    let message = format!("the limit `{}` counts by {{{param}}}", limit.name);
                    let note = Diagnostic::error(Code::UnknownParameter, name.place, message);
                    let note = note.label("the path of the route has no such parameter");
                    context.push(note.related(table.path.place, "the path"));
                }
            }
        }
        let cost = given.cost().map_or(limit.cost, |cost| cost.0.unsigned_abs());
        if let Some(written) = given.cost() {
            check_cost(cost, written.place, &limit.name, &limit.meter, context);
        }
        applied.push(Applied { limit: LimitId(index as u32), params, cost });
    }
    if applied.len() > APPLIED_MAX {
        let message = format!("a route has at most {APPLIED_MAX} limits");
        context.push(Diagnostic::error(Code::OutOfRange, given.place, message).label("too many"));
    }
    applied
}

/// Limits of a route: what all of them come to is kept on the stack of a request.
const APPLIED_MAX: usize = 8;

/// How fast the responses of a route are sent.
pub(super) fn bandwidth(table: &schema::Route, context: &mut Context<'_>) -> Bandwidth {
    let Some(given) = table.bandwidth.given() else { return Bandwidth::default() };
    let mut rate = |rate: Option<&At<ByteRate>>| {
        let rate = rate?;
        if !(schema::BANDWIDTH_MIN..=schema::BANDWIDTH_MAX).contains(&rate.0) {
            let message = format!("{} is out of range", context.written(rate.place));
            context.push(
                Diagnostic::error(Code::OutOfRange, rate.place, message)
                    .label("has to be between 1KiB/s and 10000MiB/s"),
            );
        }
        Some(rate.0)
    };
    Bandwidth { per_stream: rate(given.per_stream.given()), per_client: rate(given.per_client.given()) }
}
