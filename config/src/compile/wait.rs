//! What upstreams and cores can do at a time, and how others wait.

use sluice_rules::concurrency::Bounds;
use sluice_rules::overload::Thresholds;
use sluice_rules::snapshot::{Concurrency, FairBy, UrgencyFrom, Waiting};

use crate::error::{Code, Diagnostic};
use crate::read::{Context, FromToml, Node, Value};
use crate::schema;

/// How many requests an upstream has at a time.
pub(super) fn concurrency(table: &schema::Upstream, context: &mut Context<'_>) -> Option<Concurrency> {
    let given = table.concurrency.given();
    if let Some(queue) = table.queue.given().filter(|_| table.concurrency.is_absent()) {
        let note = Diagnostic::warning(Code::Unused, queue.place, "nobody waits where there is no limit");
        context.push(note.label("goes with `concurrency`").help("write concurrency = 16, or leave the queue out"));
    }
    let adaptive = match &given?.value {
        schema::Concurrency::Fixed(limit) => return Some(Concurrency::Fixed(*limit)),
        schema::Concurrency::Adaptive(adaptive) => adaptive,
    };
    if !adaptive.adaptive.value {
        let note =
            Diagnostic::error(Code::Conflict, adaptive.adaptive.place, "a limit that is not adaptive is a number");
        context.push(note.label("write concurrency = 16, or leave it out"));
    }
    let (min, max) = (&adaptive.min, &adaptive.max);
    if min.0 > max.0 {
        let place = min.place.or(max.place);
        let note = Diagnostic::error(Code::OutOfRange, place, "`min` is more than `max`");
        context.push(note.label(format!("has to be at most {}", max.0)).related(max.place, "the most"));
    }
    Some(Concurrency::Adaptive(Bounds { min: min.0 as u32, max: max.0 as u32, target_percent: adaptive.target.0 }))
}

/// How requests wait for an upstream.
pub(super) fn waiting(table: &schema::Upstream, context: &mut Context<'_>) -> Waiting {
    let Some(queue) = table.queue.given() else { return default_waiting(context) };
    let priority = queue.priority.given();
    if let Some(place) = queue.priority_from.place.filter(|_| queue.priority.is_absent()) {
        let note = Diagnostic::warning(Code::Unused, Some(place), "no field says how much a request matters");
        context.push(note.label("goes with `priority`"));
    }
    waiting_of(queue, priority.map(|field| field.0.clone()))
}

fn waiting_of(queue: &schema::Queue, priority: Option<String>) -> Waiting {
    let trusted_only = queue.priority_from.0;
    Waiting {
        depth: queue.depth.0 as usize,
        wait_max: queue.max_wait.0,
        priority: priority.map(|field| UrgencyFrom { field, trusted_only }),
        fair_by: queue.fair_by.given().map_or(FairBy::Nobody, |fair_by| fair_by.0.clone()),
    }
}

/// What holds where nothing is said of it.
fn default_waiting(context: &mut Context<'_>) -> Waiting {
    let nothing = Node::default_of(Value::Table(crate::tree::Table::default()));
    let queue = schema::Queue::read(&nothing, context).expect("every key has a default");
    waiting_of(&queue, None)
}

/// When a core has too much to do.
pub(super) fn overload(table: &schema::NodeOverload) -> Thresholds {
    Thresholds {
        memory_percent: table.memory.given().map(|percent| percent.0),
        busy_percent: table.busy.given().map(|percent| percent.0),
    }
}
