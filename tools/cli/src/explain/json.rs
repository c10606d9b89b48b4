//! An explanation for programs. Keys are stable; times are in milliseconds, heads are text.

use serde_json::{Value, json};
use sluice_rules::explain::{Decision, Explanation, FieldNote, Outcome};

/// The whole object.
pub(super) fn object(explanation: &Explanation) -> Value {
    let Explanation { listener, misses, .. } = explanation;
    let target = explanation.target.as_ref().map(|target| {
        json!({
            "received": target.received,
            "normal": target.normal,
            "authority": target.authority,
            "changes": target.changes,
        })
    });
    let route = explanation.route.as_ref().map(|route| {
        let params: Vec<Value> =
            route.params.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({ "name": route.name, "matches": route.matches, "params": params })
    });
    let upstream = explanation.upstream.as_ref().map(|upstream| {
        json!({
            "name": upstream.name,
            "candidates": upstream.candidates,
            "balance": upstream.balance,
            "retries": upstream.retries,
        })
    });
    let nearest: Vec<Value> = misses
        .nearest
        .iter()
        .map(|miss| json!({ "route": miss.route, "condition": miss.condition.as_str(), "why": miss.why }))
        .collect();
    let steps: Vec<Value> = explanation
        .steps
        .iter()
        .map(|step| json!({ "name": step.name, "decision": decision(step.decision), "why": step.why }))
        .collect();
    let timeouts: Vec<Value> = explanation
        .timeouts
        .iter()
        .map(|bound| {
            let milliseconds = bound.time.as_millis() as u64;
            json!({ "key": bound.key, "of": bound.of, "milliseconds": milliseconds, "what": bound.what })
        })
        .collect();
    json!({
        "request": text(&explanation.request),
        "client-ip": explanation.client.to_string(),
        "listener": { "name": listener.name, "address": listener.address, "why": listener.why },
        "target": target,
        "route": route,
        "misses": { "nearest": nearest, "others": misses.others },
        "steps": steps,
        "upstream": upstream,
        "timeouts": timeouts,
        "outcome": outcome(&explanation.outcome),
    })
}

fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Sent { target, host, head, kept, removed, added } => json!({
            "kind": "sent",
            "target": target,
            "host": host,
            "head": text(head),
            "kept": fields(kept),
            "removed": fields(removed),
            "added": fields(added),
        }),
        Outcome::Answered { status, head, body, failure } => json!({
            "kind": "answered",
            "status": status,
            "head": text(head),
            "body": text(body),
            "failure": failure,
        }),
        Outcome::Unanswered => json!({ "kind": "unanswered" }),
    }
}

fn fields(fields: &[FieldNote]) -> Vec<Value> {
    fields.iter().map(|FieldNote { name, value, why }| json!({ "name": name, "value": value, "why": why })).collect()
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::GoOn => "go-on",
        Decision::Answered => "answered",
        Decision::Refused => "refused",
    }
}

/// Bytes as text; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
