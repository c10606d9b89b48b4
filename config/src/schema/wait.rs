//! The tables of what an upstream and a core can do at a time, and of those who wait.

use sluice_rules::queue::Urgency;
use sluice_rules::snapshot::FairBy;

use super::DAY;
use crate::read::{At, Context, FromToml, Node, Optional, Shape, Value, choice, table};
use crate::values::{Int, Time, field_name};

/// Requests at a time.
type Count = Int<1, 1_000_000>;

/// How many requests servers have at a time: a number, or a table.
#[derive(Clone, Debug)]
pub enum Concurrency {
    /// So many.
    Fixed(u32),
    /// As it says.
    Adaptive(AdaptiveConcurrency),
}

impl FromToml for Concurrency {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Table(_) => AdaptiveConcurrency::read(node, context).map(Concurrency::Adaptive),
            _ => Count::read(node, context).map(|Int(count)| Concurrency::Fixed(count as u32)),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Count::shape(), AdaptiveConcurrency::shape()])
    }
}

table! {
    /// How many requests servers have at a time, found from how long they take.
    pub struct AdaptiveConcurrency {
        /// Whether it is found. Otherwise, leave `concurrency` out or write a number.
        adaptive: At<bool>,
        /// The least.
        min: At<Count> = 1,
        /// The most.
        max: At<Count> = 1000,
        /// By how much longer requests may take than they do unloaded. More gives more throughput where servers slow
        /// down before they are busy.
        target: At<Percent> = "20%",
    }
}

/// A percentage from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u32);

impl FromToml for Percent {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = context.text(node, "a percentage such as \"80%\"")?;
        let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
        let percent = number.filter(|percent| (1..=100).contains(percent));
        context.check(node, "a percentage", percent.ok_or("expected \"1%\" to \"100%\"".to_owned())).map(Percent)
    }

    fn shape() -> Shape {
        Shape::Text("a percentage from 1% to 100%".into())
    }
}

table! {
    /// How requests wait for an upstream that has as many as it may have. The more urgent go first. While the oldest
    /// have waited for more than a quarter of what they may, the newest go first, so that who is served has hardly
    /// waited.
    pub struct Queue {
        /// How many may wait, over all cores. 0: none.
        depth: At<Int<0, 100_000>> = 100,
        /// How long one may wait. What cannot be sent in that time is refused at once.
        max_wait: At<Time<1, DAY>> = "500ms",
        /// Where requests say how much they matter: `"header:NAME"`, with a value as in a route's `priority`, or with
        /// `u=0` to `u=7` if the field is `Priority` (RFC 9218). Without it, all matter alike.
        priority: Optional<PriorityField>,
        /// Who is believed in that.
        priority_from: At<BelievedName> = "anyone",
        /// Who takes turns, so that nobody's many requests keep others from theirs: `"client"` (addresses; of IPv6,
        /// /64 networks), `"route"` or `"header:NAME"`. Without it, nobody.
        fair_by: Optional<FairByChoice>,
    }
}

choice! {
    /// Whose word on priority is believed.
    BelievedName: bool { "anyone" = false, "trusted-proxies" = true }
}

/// The field that says how much a request matters, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityField(pub String);

impl FromToml for PriorityField {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = context.text(node, "a string such as \"header:x-priority\"")?;
        let name = text.strip_prefix("header:").ok_or("expected header: and a field name".to_owned());
        context.check(node, "where a priority is found", name.and_then(field_name)).map(PriorityField)
    }

    fn shape() -> Shape {
        Shape::Text("header: and a field name".into())
    }
}

/// Who takes turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FairByChoice(pub FairBy);

impl FromToml for FairByChoice {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let fair_by = match context.text(node, "a string such as \"client\"")? {
            "client" => Ok(FairBy::Client),
            "route" => Ok(FairBy::Route),
            text => match text.strip_prefix("header:") {
                Some(name) => field_name(name).map(FairBy::Field),
                None => Err("expected \"client\", \"route\" or \"header:NAME\"".to_owned()),
            },
        };
        context.check(node, "one who can take turns", fair_by).map(FairByChoice)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::OneOf(&["client", "route"]), Shape::Text("header: and a field name".into())])
    }
}

/// How much requests matter: a word or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePriority(pub Urgency);

impl FromToml for RoutePriority {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if !node.substituted || Urgency::read(text.as_bytes()).is_some() => {
                let urgency = Urgency::read(text.as_bytes());
                let urgency =
                    urgency.ok_or("expected \"high\", \"normal\", \"low\" or a number from 0 to 7".to_owned());
                context.check(node, "a priority", urgency).map(RoutePriority)
            }
            _ => {
                let Int(number) = Int::<0, 7>::read(node, context)?;
                u8::try_from(number).ok().and_then(Urgency::new).map(RoutePriority)
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::OneOf(&["high", "normal", "low"]), Int::<0, 7>::shape()])
    }
}

table! {
    /// When a core has too much to do. It then refuses requests that would be sent on, with 503: first those of the
    /// least urgency, and of one more each tenth of a second for as long as it goes on. The most urgent, 0, are never
    /// refused for it.
    pub struct NodeOverload {
        /// The share of `runtime.memory` in use from which on a core has too much to do. Without it, that is no reason.
        memory: Optional<Percent>,
        /// The share of its time that a core works, from which on it has too much to do. Without it, that is no reason.
        busy: Optional<Percent>,
    }
}
