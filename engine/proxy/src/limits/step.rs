//! The step of a request: all of its limits are looked at before any is charged.

use std::time::Duration;

use sluice_rules::failure::Failure;
use sluice_rules::limit::{
    Applied, Facts, Key, Limit, LimitId, Meter, Mode, Moment, Nanos, Stand, Take, Told, Word, lines,
};
use sluice_rules::reply::Reply;
use sluice_rules::snapshot::Snapshot;
use sluice_wire::head::Response;

use crate::core::Core;
use crate::deadline::TICK;
use crate::exchange::Exchange;

use super::lease::Spent;
use super::table::Place;
use super::{Accounts, Owed, delay, moment};

/// What a single request may cost at most, whatever its response says.
const COST_MAX: u64 = 1_000_000_000;

/// A limit that a request is held against, and what has come of it.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    limit: LimitId,
    meter: Meter,
    key: Key,
    cost: u64,
    patience: Nanos,
    outcome: Outcome,
    paid: Paid,
}

/// What a limit says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It goes on, after this long.
    Fits(Nanos),
    /// It does not, until after this long, if ever.
    Refused(Option<Nanos>),
}

/// What was taken, and from where.
#[derive(Clone, Copy)]
enum Paid {
    Nothing,
    Own(Spent),
    Account { place: Place, before: Word, after: Word },
}

/// Holds a request against the limits of its route. `Some`: it is refused.
///
/// # Errors
/// It was held back, and could not be served any more.
pub(crate) async fn limit(
    core: &std::rc::Rc<Core>,
    exchange: &mut Exchange<'_>,
    applied: &[Applied],
    facts: &Facts<'_>,
) -> Result<Option<Reply>, Failure> {
    let Some(accounts) = core.shared.accounts.get() else { return Ok(None) };
    let mut asked = core.limits.asked.take();
    let decided = decide(core, exchange, accounts, applied, facts, &mut asked);
    core.limits.asked.replace(asked);
    match decided {
        Decided::GoOn => Ok(None),
        // Boxed, so that a request that does not wait does not carry what waiting needs.
        Decided::Wait(time) => Box::pin(delay::hold(core, exchange, time)).await.map(|()| None),
        Decided::Refused(reply) => Ok(Some(reply)),
    }
}

enum Decided {
    GoOn,
    Wait(Duration),
    Refused(Reply),
}

fn decide(
    core: &Core,
    exchange: &mut Exchange<'_>,
    accounts: &Accounts,
    applied: &[Applied],
    facts: &Facts<'_>,
    asked: &mut Vec<Asked>,
) -> Decided {
    let local = std::rc::Rc::clone(&exchange.local);
    let snapshot = local.snapshot();
    let now = moment(core, exchange.times.head);
    asked.clear();
    for applied in applied {
        let limit = snapshot.limit(applied.limit);
        let Some(meter) = limit.allowance(applied, facts) else { continue };
        asked.push(Asked {
            limit: applied.limit,
            meter: *meter,
            key: limit.key(accounts.secret, applied, facts),
            cost: applied.cost,
            patience: patience(core, exchange, limit),
            outcome: Outcome::Fits(0),
            paid: Paid::Nothing,
        });
    }
    // One limit is looked at and charged in one step.
    if asked.len() > 1 {
        asked.iter_mut().for_each(|asked| asked.outcome = look(core, accounts, now, asked));
    }
    let refuses = |asked: &Asked| {
        matches!(asked.outcome, Outcome::Refused(_)) && snapshot.limit(asked.limit).mode == Mode::Enforce
    };
    let mut is_refused = asked.iter().any(refuses);
    if !is_refused {
        for index in 0..asked.len() {
            if matches!(asked[index].outcome, Outcome::Fits(_)) {
                take(core, accounts, now, &mut asked[index]);
            }
            // Another core was faster than the look.
            if refuses(&asked[index]) {
                is_refused = true;
                asked[..index].iter_mut().for_each(|asked| pay_back(core, accounts, asked));
                break;
            }
        }
    }
    account_for(core, exchange, snapshot, asked, is_refused);
    let told = tell(core, accounts, snapshot, now, asked, is_refused);
    if is_refused {
        for asked in asked.iter().filter(|asked| refuses(asked) && snapshot.limit(asked.limit).penalizes) {
            let charge = |word| (Some(asked.meter.charge(word, now, asked.cost)), ());
            accounts.table.update(asked.key, None, now, charge);
        }
        let waits = asked.iter().filter(|asked| refuses(asked)).map(|asked| match asked.outcome {
            Outcome::Refused(wait) => wait,
            Outcome::Fits(_) => Some(0),
        });
        let wait = waits.clone().all(|wait| wait.is_some()).then(|| waits.flatten().max().unwrap_or(0));
        return Decided::Refused(Reply::rate_limited(wait, &told));
    }
    exchange.told = told;
    let costs_more = |asked: &&Asked| snapshot.limit(asked.limit).cost_field.is_some();
    let owe = |asked: &Asked| Owed { limit: asked.limit, key: asked.key, meter: asked.meter, paid: asked.cost };
    exchange.owed.extend(asked.iter().filter(costs_more).map(owe));
    let enforced = asked.iter().filter(|asked| snapshot.limit(asked.limit).mode == Mode::Enforce);
    let wait = enforced.map(|asked| match asked.outcome {
        Outcome::Fits(wait) => wait,
        Outcome::Refused(_) => 0,
    });
    match wait.max().unwrap_or(0) {
        0 => Decided::GoOn,
        wait => Decided::Wait(Duration::from_nanos(wait)),
    }
}

/// How long a request may be held back: no longer than its route lets it take, and not at all if too many are.
fn patience(core: &Core, exchange: &Exchange<'_>, limit: &Limit) -> Nanos {
    if limit.patience == 0 || core.limits.delayed.get() >= exchange.local.snapshot().accounts.delayed {
        return 0;
    }
    let left = exchange.due.map(|due| TICK.saturating_mul(due.saturating_sub(core.deadlines.now())));
    left.map_or(limit.patience, |left| limit.patience.min(left.as_nanos() as Nanos))
}

fn look(core: &Core, accounts: &Accounts, moment: Moment, asked: &Asked) -> Outcome {
    if let Meter::Bucket(bucket) = &asked.meter
        && asked.patience == 0
        && let Some(known) = core.limits.leases.look(asked.key, bucket, moment.now, asked.cost)
    {
        return known.map_or_else(|wait| Outcome::Refused(Some(wait)), |()| Outcome::Fits(0));
    }
    match asked.meter.take(accounts.table.read(asked.key), moment, asked.cost, asked.patience) {
        Take::Taken { wait, .. } => Outcome::Fits(wait),
        Take::Refused { wait } => Outcome::Refused(wait),
    }
}

fn take(core: &Core, accounts: &Accounts, moment: Moment, asked: &mut Asked) {
    if let Meter::Bucket(bucket) = &asked.meter
        && asked.patience == 0
    {
        match core.limits.leases.take(&accounts.table, asked.key, bucket, moment, asked.cost) {
            Ok(spent) => asked.paid = Paid::Own(spent),
            Err(wait) => asked.outcome = Outcome::Refused(wait),
        }
        return;
    }
    let (meter, cost, patience) = (asked.meter, asked.cost, asked.patience);
    let change = |before| match meter.take(before, moment, cost, patience) {
        Take::Taken { word, wait } => (Some(word), Ok((before, word, wait))),
        Take::Refused { wait } => (None, Err(wait)),
    };
    match accounts.table.update(asked.key, None, moment, change) {
        Some((Ok((before, after, wait)), place)) => {
            asked.outcome = Outcome::Fits(wait);
            asked.paid = Paid::Account { place, before, after };
        }
        Some((Err(wait), _)) => asked.outcome = Outcome::Refused(wait),
        None => asked.outcome = Outcome::Refused(Some(0)),
    }
}

fn pay_back(core: &Core, accounts: &Accounts, asked: &mut Asked) {
    match std::mem::replace(&mut asked.paid, Paid::Nothing) {
        Paid::Nothing => {}
        Paid::Own(spent) => core.limits.leases.pay_back(spent),
        // If somebody has built upon it, it stays paid: too much is never given back.
        Paid::Account { place, before, after } => {
            accounts.table.undo(place, before, after);
        }
    }
}

/// Counts what each limit has decided, and notes for the log which one did not let the request through.
fn account_for(core: &Core, exchange: &mut Exchange<'_>, snapshot: &Snapshot, asked: &[Asked], is_refused: bool) {
    for asked in asked {
        let is_enforced = snapshot.limit(asked.limit).mode == Mode::Enforce;
        let series = exchange.local.series().limit(asked.limit, core.index);
        match asked.outcome {
            Outcome::Refused(_) if is_enforced => series.refused.add(1),
            Outcome::Refused(_) => series.observed.add(1),
            Outcome::Fits(_) if is_refused => continue,
            Outcome::Fits(0) => series.allowed.add(1),
            Outcome::Fits(_) => series.delayed.add(1),
        }
        let is_notable = asked.outcome != Outcome::Fits(0);
        if is_notable && (is_enforced || exchange.limit.is_none()) {
            exchange.limit = Some(asked.limit);
        }
    }
}

/// What the client is told, in field lines.
fn tell(
    core: &Core,
    accounts: &Accounts,
    snapshot: &Snapshot,
    moment: Moment,
    asked: &[Asked],
    is_refused: bool,
) -> String {
    let is_told = |asked: &Asked| match snapshot.limit(asked.limit).told {
        Told::Draft | Told::XRateLimit => true,
        Told::Refusals => is_refused,
        Told::Nothing => false,
    };
    // Nobody who only observes says so.
    let visible = |asked: &&Asked| is_told(asked) && snapshot.limit(asked.limit).mode == Mode::Enforce;
    let stands: Vec<Stand<'_>> = asked
        .iter()
        .filter(visible)
        .map(|asked| {
            let mut standing = asked.meter.standing(accounts.table.read(asked.key), moment);
            if let Meter::Bucket(bucket) = &asked.meter {
                standing.remaining += core.limits.leases.left(asked.key, bucket, moment.now);
            }
            Stand { limit: snapshot.limit(asked.limit), meter: &asked.meter, standing }
        })
        .collect();
    if stands.is_empty() { String::new() } else { lines(&stands, is_refused) }
}

/// Charges what a response says that its request has cost beyond what was paid. Returns the fields that said so, which
/// are not for the client.
pub(crate) fn settle(core: &Core, exchange: &mut Exchange<'_>, response: Response<'_>) -> Vec<String> {
    let Some(accounts) = core.shared.accounts.get() else { return Vec::new() };
    let local = std::rc::Rc::clone(&exchange.local);
    let now = moment(core, core.clock.now());
    let mut fields = Vec::new();
    for owed in std::mem::take(&mut exchange.owed) {
        let Some(name) = &local.snapshot().limit(owed.limit).cost_field else { continue };
        let value = response.head.fields.values_of(response.bytes, name).next();
        let cost = value.and_then(|value| str::from_utf8(value).ok()?.parse::<u64>().ok());
        let more = cost.unwrap_or(0).min(COST_MAX).saturating_sub(owed.paid);
        if more > 0 {
            let charge = |word| (Some(owed.meter.charge(word, now, more)), ());
            accounts.table.update(owed.key, None, now, charge);
        }
        if !fields.contains(name) {
            fields.push(name.clone());
        }
    }
    fields
}
