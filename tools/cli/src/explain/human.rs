//! An explanation for people.

use std::fmt::Write;
use std::time::Duration;

use sluice_config::units::show_duration;
use sluice_rules::explain::{Decision, Explanation, FieldNote, Outcome};

/// Columns before the text.
const INDENT: usize = 12;

/// The whole text.
pub(super) fn text(explanation: &Explanation) -> String {
    let mut page = Page(String::new());
    let request = printable(&explanation.request);
    page.rows("request", request.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    let listener = &explanation.listener;
    let name = match listener.name.as_str() {
        name if name == listener.address => String::new(),
        name => format!("{name} on "),
    };
    page.row("listener", format!("{name}{}: {}", listener.address, listener.why));
    if let Some(target) = &explanation.target {
        page.row("host", target.authority.clone());
        page.row(
            "target",
            match target.changes.as_slice() {
                [] => target.normal.clone(),
                changes => {
                    format!("{} -> {}: {}", printable(target.received.as_bytes()), target.normal, changes.join(", "))
                }
            },
        );
    }
    page.row(
        "route",
        match &explanation.route {
            Some(route) => format!("{}: {}", route.name, route.matches),
            None => "none".to_owned(),
        },
    );
    for (name, value) in explanation.route.iter().flat_map(|route| &route.params) {
        page.row("", format!("{{{name}}} is `{value}`"));
    }
    let misses = &explanation.misses;
    let rest = (misses.others > 0).then(|| format!("and {} more", misses.others));
    let near = misses.nearest.iter().map(|miss| format!("{}: {}", miss.route, miss.why));
    page.rows("not taken", near.chain(rest));
    page.rows(
        "steps",
        explanation.steps.iter().map(|step| {
            let decision = match step.decision {
                Decision::GoOn => "",
                Decision::Answered => "answered: ",
                Decision::Refused => "refused: ",
            };
            format!("{:INDENT$}{decision}{}", step.name, printable(step.why.as_bytes()))
        }),
    );
    if let Some(upstream) = &explanation.upstream {
        page.row("upstream", format!("{}: {}", upstream.name, upstream.candidates.join(", ")));
        page.row("", format!("endpoint: {}; tried again: {}", upstream.balance, upstream.retries));
    }
    page.rows(
        "timeouts",
        explanation
            .timeouts
            .iter()
            .map(|bound| format!("{:INDENT$}{} of {}: {}", duration(bound.time), bound.key, bound.of, bound.what)),
    );
    outcome(&mut page, &explanation.outcome);
    page.0
}

fn outcome(page: &mut Page, outcome: &Outcome) {
    match outcome {
        Outcome::Sent { head, kept, removed, added, .. } => {
            page.rows("kept", kept.iter().map(|field| field.name.clone()));
            page.rows("removed", removed.iter().map(note));
            page.rows("added", added.iter().map(note));
            page.rows("sent", printable(head).lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        Outcome::Answered { head, body, .. } => {
            page.rows("answered", printable(head).lines().map(str::to_owned));
            page.rows("", printable(body).lines().map(str::to_owned));
        }
        Outcome::Unanswered => page.row("answered", "nothing".to_owned()),
    }
}

fn note(field: &FieldNote) -> String {
    let FieldNote { name, value, why } = field;
    format!("{name}: {}  ({why})", printable(value.as_bytes()))
}

fn duration(time: Duration) -> String {
    show_duration(time.as_millis() as u64)
}

/// Text without what a terminal would take for a command.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            control if control.is_control() => {
                let _ = write!(out, "{}", control.escape_default());
            }
            other => out.push(other),
        }
    }
    out
}

/// Rows of a label and a text.
struct Page(String);

impl Page {
    fn row(&mut self, label: &str, text: String) {
        let line = format!("{label:INDENT$}{text}");
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    /// Rows of which the first one has the label; none at all if there are no texts.
    fn rows(&mut self, label: &str, texts: impl IntoIterator<Item = String>) {
        for (index, text) in texts.into_iter().enumerate() {
            self.row(if index == 0 { label } else { "" }, text);
        }
    }
}
