//! The tables of limits: `[limit.NAME]`, `[limits]`, and what a route says of them.

use std::time::Duration;

use sluice_rules::limit::{Mode, Part, Told};

use super::{BodySize, MIB};
use crate::error::{Code, Diagnostic};
use crate::read::{At, Context, FromToml, List, Node, OneOrMany, Optional, Shape, Value, choice, table};
use crate::units::{self, Per};
use crate::values::{ByteRate, FieldName, FilePath, Int, Name, Time, field_name, is_token};

/// How many may come at once.
pub type Burst = Int<1, 1_000_000_000>;
/// What a request counts.
pub type Cost = Int<1, 1_000_000>;

table! {
    /// A limit on how much clients may do. Routes name those that apply to them.
    pub struct Limit {
        /// What is counted by, one or several of: `"client-ip"`, `"host"`, `"route"`, `"header:NAME"`,
        /// `"cookie:NAME"`, and `"param:NAME"` for a parameter of the route's path. Requests without the field, cookie
        /// or parameter are counted together.
        key: At<OneOrMany<KeyPart>>,
        /// Bits of client addresses that count.
        prefix: At<LimitPrefix> = super::no_keys(),
        /// How often, such as `"100/s"` or `"5000/h"`: a bucket that fills at this rate. A limit has a `rate` or a
        /// `quota`.
        rate: Optional<Amount>,
        /// How many may come at once. Without it, as many as the number in `rate`.
        burst: Optional<Burst>,
        /// How much in a period, such as `"1000/day"`, `"50/minute"` or `"1000000/month"`.
        quota: Optional<Amount>,
        /// What a period of `quota` is: of the calendar, by UTC, or the time that ends now. Quotas of the calendar can
        /// be kept over a restart.
        window: Optional<WindowName>,
        /// Other amounts by what a part of the request says: `{ by = "header:x-tier", gold = "100/s" }`. The values are
        /// like those of `overrides`.
        tiers: Optional<Tiers>,
        /// Other amounts for single keys: `{ acme = "100/s", "10.0.0.0/8" = "unlimited" }`. A rate may be a table with
        /// `rate` and `burst`.
        overrides: Optional<Overrides>,
        /// Holds a request back until it fits into the rate, instead of refusing it.
        delay: Optional<Delay>,
        /// Whether a request that does not fit is refused, or only counted and logged.
        mode: At<ModeName> = "enforce",
        /// Whether a request counts that this limit refuses, so that a client that does not slow down stays out.
        penalize: At<bool> = false,
        /// What a request counts, unless its route says otherwise.
        cost: At<Cost> = 1,
        /// A field of the response that says what the request counts in the end, if that is more. It is not passed on.
        cost_field: Optional<FieldName>,
        /// What clients are told: the `RateLimit` fields of the IETF draft, the older `X-RateLimit-*` fields, or nothing,
        /// with every response. Without it, the `RateLimit` fields where a request is refused.
        headers: Optional<HeadersName>,
    }
}

table! {
    /// Bits of client addresses that count.
    pub struct LimitPrefix {
        /// Of IPv4.
        ipv4: At<Int<8, 32>> = 32,
        /// Of IPv6.
        ipv6: At<Int<16, 128>> = 64,
    }
}

table! {
    /// How long a request may be held back.
    pub struct Delay {
        /// At most this long; what would have to wait longer is refused.
        up_to: At<Time<1, 60_000>>,
    }
}

choice! {
    /// What is done about what does not fit.
    ModeName: Mode { "enforce" = Mode::Enforce, "observe" = Mode::Observe }
}

choice! {
    /// Whether a period is one of the calendar.
    WindowName: bool { "calendar" = true, "sliding" = false }
}

choice! {
    /// What clients are told.
    HeadersName: Told { "draft" = Told::Draft, "x-ratelimit" = Told::XRateLimit, "none" = Told::Nothing }
}

table! {
    /// Where limits keep what they count. Changes take effect at the next start.
    pub struct Limits {
        /// Keys that are counted one by one at a time, over all limits. When there are more, those of a network share.
        keys: At<Int<1024, 100_000_000>> = 1_000_000,
        /// Requests that each core holds back at a time; further ones are refused.
        delayed: At<Int<0, 1_000_000>> = 10_000,
        /// A file that keeps what was used of quotas of the calendar over a restart. Without it, they begin anew.
        state: Optional<FilePath>,
    }
}

table! {
    /// Bounds on how fast the content of responses is sent.
    pub struct Bandwidth {
        /// Of each response.
        per_stream: Optional<ByteRate>,
        /// Of all responses to a client (IPv6 by /64) on this route together.
        per_client: Optional<ByteRate>,
    }
}

table! {
    /// Bounds that differ from those of the listener, and limits on what clients may do.
    pub struct RouteLimitsTable {
        /// Bytes of a request body.
        body: Optional<BodySize>,
        /// Names of limits, all of which apply.
        rates: Optional<OneOrMany<Name>>,
        /// What a request counts for them, instead of what they say.
        cost: Optional<Cost>,
    }
}

/// Bounds and limits of a route: a table, or names of limits alone.
#[derive(Clone, Debug)]
pub enum RouteLimits {
    /// All that there is to say.
    Table(RouteLimitsTable),
    /// Names of limits.
    Names(List<Name>),
}

impl RouteLimits {
    /// Bytes of a request body.
    pub fn body(&self) -> Option<BodySize> {
        match self {
            RouteLimits::Table(table) => table.body.given().map(|body| body.value),
            RouteLimits::Names(_) => None,
        }
    }

    /// Names of limits.
    pub fn names(&self) -> &[At<Name>] {
        match self {
            RouteLimits::Table(table) => table.rates.given().map(|names| &names.0.items[..]).unwrap_or_default(),
            RouteLimits::Names(names) => names,
        }
    }

    /// What a request counts.
    pub fn cost(&self) -> Option<&At<Cost>> {
        match self {
            RouteLimits::Table(table) => table.cost.given(),
            RouteLimits::Names(_) => None,
        }
    }
}

impl FromToml for RouteLimits {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match node.value {
            Value::List(_) => List::read(node, context).map(RouteLimits::Names),
            _ => RouteLimitsTable::read(node, context).map(RouteLimits::Table),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![List::<Name>::shape(), RouteLimitsTable::shape()])
    }
}

/// A part of a request that is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart(pub Part);

impl FromToml for KeyPart {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = context.text(node, "a part of a request")?;
        if matches!(text, "identity" | "api-key") || text.starts_with("claim:") {
            let message = format!("{} is not part of this version", context.written(node.place));
            let note = Diagnostic::error(Code::NotBuiltYet, node.place, message).label("not built yet");
            context.push(note.help("until clients have identities, count by \"client-ip\" or \"header:NAME\""));
            return None;
        }
        context.check(node, "a part of a request", part(text)).map(KeyPart)
    }

    fn shape() -> Shape {
        Shape::Text("client-ip, host, route, header:NAME, cookie:NAME or param:NAME".into())
    }
}

fn part(text: &str) -> Result<Part, String> {
    match text.split_once(':') {
        None if text == "client-ip" => Ok(Part::ClientIp),
        None if text == "host" => Ok(Part::Host),
        None if text == "route" => Ok(Part::Route),
        Some(("header", name)) => field_name(name).map(Part::Header),
        Some(("cookie", name)) if is_token(name) => Ok(Part::Cookie(name.to_owned())),
        Some(("param", name)) if !name.is_empty() => Ok(Part::Param(name.to_owned())),
        _ => Err("expected client-ip, host, route, header:NAME, cookie:NAME or param:NAME".into()),
    }
}

/// How many in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// In what time.
    pub per: Per,
}

impl FromToml for Amount {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) => text,
            Value::Integer(_) | Value::Float => {
                let message = format!("{} has no unit", context.written(node.place));
                let note = Diagnostic::error(Code::MissingUnit, node.place, message).label("expected an amount");
                context.push(note.help("write the unit, like `\"100/s\"` or `\"1000/day\"`"));
                return None;
            }
            _ => {
                context.wrong_type(node, "an amount such as \"100/s\"");
                return None;
            }
        };
        match units::amount(text) {
            Ok((0, _)) => {
                let message = format!("{} lets nobody in", context.written(node.place));
                let note = Diagnostic::error(Code::OutOfRange, node.place, message).label("has to be at least 1");
                context.push(note);
                None
            }
            Ok((count, per)) => Some(Amount { count, per }),
            Err(error) => {
                let note = context.invalid(node, "an amount", &error.to_string());
                note.help = Some("write it like `\"100/s\"`, `\"5000/h\"` or `\"1000/day\"`".into());
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text("an amount such as 100/s, 600/m, 5000/h, 1000/day or 1000000/month".into())
    }
}

/// How much is allowed to some. `None`: there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance(pub Option<(Amount, Option<u64>)>);

table! {
    /// A rate with a burst.
    pub struct RateAndBurst {
        /// How often.
        rate: At<Amount>,
        /// How many may come at once. Without it, as many as the number in `rate`.
        burst: Optional<Burst>,
    }
}

impl FromToml for Allowance {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "unlimited" => Some(Allowance(None)),
            Value::Table(_) => {
                let table = RateAndBurst::read(node, context)?;
                let burst = table.burst.given().map(|burst| burst.0.unsigned_abs());
                Some(Allowance(Some((table.rate.value, burst))))
            }
            _ => Amount::read(node, context).map(|amount| Allowance(Some((amount, None)))),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Amount::shape(), Shape::OneOf(&["unlimited"]), RateAndBurst::shape()])
    }
}

/// Amounts by value, in the order of the file.
type Amounts = Vec<(At<String>, At<Allowance>)>;

fn amounts(node: &Node, context: &mut Context<'_>, except: Option<&str>) -> Option<Amounts> {
    let Value::Table(table) = &node.value else {
        context.wrong_type(node, "a table of amounts");
        return None;
    };
    let entries = table.entries.iter().filter(|entry| Some(entry.key.as_str()) != except);
    let read = |entry: &crate::tree::Entry| {
        let value = Allowance::read(&entry.node, context)?;
        Some((At { value: entry.key.clone(), place: entry.key_place }, At { value, place: entry.node.place }))
    };
    Some(entries.filter_map(read).collect())
}

/// Other amounts by what a part of the request says.
#[derive(Clone, Debug)]
pub struct Tiers {
    /// The part.
    pub by: At<KeyPart>,
    /// Its values.
    pub named: Amounts,
}

impl FromToml for Tiers {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let named = amounts(node, context, Some("by"))?;
        let by = <At<KeyPart> as crate::read::Field>::read(node, "by", None, context)?;
        Some(Tiers { by, named })
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(Shape::Any(vec![Shape::Text("by: a part of a request".into()), Allowance::shape()])))
    }
}

/// Other amounts for single keys.
#[derive(Clone, Debug)]
pub struct Overrides(pub Amounts);

impl FromToml for Overrides {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        amounts(node, context, None).map(Overrides)
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(Allowance::shape()))
    }
}

/// The slowest bandwidth that may be set: below it a response would hardly move.
pub const BANDWIDTH_MIN: u64 = 1024;

/// The highest, above which nothing is slowed down.
pub const BANDWIDTH_MAX: u64 = 10_000 * MIB;

/// How long [`Delay`] lasts.
pub(crate) fn patience(delay: &Optional<Delay>) -> Duration {
    delay.given().map_or(Duration::ZERO, |delay| delay.up_to.0)
}
