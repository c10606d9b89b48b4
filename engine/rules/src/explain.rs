//! What would happen to a request, and why: what `sluice explain` and the tests in a configuration say.
//!
//! A request is put into bytes as a client would send them and walks through the functions that answer live traffic,
//! in the order of `respond.rs` of the I/O shell. Nothing is decided here: what each step decided is put into words.
//! Only what changes from second to second is unknown: which endpoint, and whether it answers.

mod cached;
pub mod hide;
mod http2;
mod listen;
mod near;
mod walk;
mod words;

use std::net::IpAddr;
use std::time::Duration;

use crate::check::TestRequest;
use crate::snapshot::Snapshot;

use walk::Walk;

pub use near::{Condition, Miss, Misses};

/// What stands in the place of the date in a response, so that the same question has the same answer.
pub const DATE: &str = "<now>";

/// What would happen to a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The head that was explained, as a client would send it.
    pub request: Vec<u8>,
    /// Where the request is taken to come from.
    pub client: IpAddr,
    /// The listener that it came to.
    pub listener: ChosenListener,
    /// The target and authority after normalising, once they are known.
    pub target: Option<NormalTarget>,
    /// The route that takes it.
    pub route: Option<TakenRoute>,
    /// Routes that do not. Empty where no route was looked for, or nobody asked.
    pub misses: Misses,
    /// Each step that was taken, in order. The last one is where it ended, if it was refused or answered here.
    pub steps: Vec<Step>,
    /// The upstream that it goes to.
    pub upstream: Option<TakenUpstream>,
    /// Bounds in time that apply.
    pub timeouts: Vec<Bound>,
    /// What would be sent to the upstream or to the client.
    pub outcome: Outcome,
}

/// The listener of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenListener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Why this one.
    pub why: String,
}

/// What normalising made of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalTarget {
    /// As it was received.
    pub received: String,
    /// Path and query as they are routed.
    pub normal: String,
    /// The host that is routed, with its port if there is one.
    pub authority: String,
    /// What normalising did; empty if nothing.
    pub changes: Vec<&'static str>,
}

/// The route of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenRoute {
    /// Its name.
    pub name: String,
    /// What it matches, as in the file.
    pub matches: String,
    /// Names and values of path parameters.
    pub params: Vec<(String, String)>,
}

/// The upstream of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenUpstream {
    /// Its name.
    pub name: String,
    /// Its endpoints, any of which may be chosen.
    pub candidates: Vec<String>,
    /// How one is chosen.
    pub balance: &'static str,
    /// When it is tried again.
    pub retries: String,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request goes on.
    GoOn,
    /// It is answered here, as it should be.
    Answered,
    /// It is refused.
    Refused,
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub name: &'static str,
    /// What it came to.
    pub decision: Decision,
    /// Why.
    pub why: String,
}

/// A bound in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its key in the file.
    pub key: &'static str,
    /// The table that has it.
    pub of: String,
    /// How long.
    pub time: Duration,
    /// What it bounds.
    pub what: &'static str,
}

/// A field and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldNote {
    /// The name as received or sent.
    pub name: String,
    /// The value; bytes that are not UTF-8 are replaced.
    pub value: String,
    /// Why; empty for what was kept.
    pub why: &'static str,
}

/// What would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To the upstream.
    Sent {
        /// The target.
        target: String,
        /// `Host`.
        host: String,
        /// Every byte of the head.
        head: Vec<u8>,
        /// Fields that are passed on as they came.
        kept: Vec<FieldNote>,
        /// Fields that are not.
        removed: Vec<FieldNote>,
        /// Fields that are written by the gateway, beside `Host`.
        added: Vec<FieldNote>,
    },
    /// To the client, by the gateway itself.
    Answered {
        /// The status code.
        status: u16,
        /// Every byte of the head, with [`DATE`] for the date.
        head: Vec<u8>,
        /// The content.
        body: Vec<u8>,
        /// Which failure it tells of, if it is an error: its label in logs and metrics.
        failure: Option<&'static str>,
    },
    /// Nothing: the handshake fails, or the stream is reset. The last step says why.
    Unanswered,
}

/// Explains what would happen to `request`, with the routes that nearly take it. What the configuration got from
/// outside of its file is hidden.
///
/// # Panics
/// If the snapshot has no listener, which the configuration has checked.
pub fn explain(snapshot: &Snapshot, request: &TestRequest) -> Explanation {
    let mut explanation = Walk::new(snapshot, request).go(true);
    hide::explanation(&mut explanation, &snapshot.hidden);
    explanation
}

/// As [`explain`], without the routes that nearly take it, which cost a look at every route, and with what is hidden.
pub(crate) fn explain_briefly(snapshot: &Snapshot, request: &TestRequest) -> Explanation {
    Walk::new(snapshot, request).go(false)
}

impl Explanation {
    /// The value of a field of the head that would be sent or answered, all of its lines as one list.
    pub fn field(&self, name: &str) -> Option<String> {
        let (Outcome::Sent { head, .. } | Outcome::Answered { head, .. }) = &self.outcome else { return None };
        let lines = head.split(|byte| *byte == b'\n').skip(1).filter_map(words::field);
        let values: Vec<String> =
            lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// In one line: the route and what comes of it.
    pub fn summary(&self) -> String {
        let route = self.route.as_ref().map_or("no route".to_owned(), |route| format!("route `{}`", route.name));
        let why = self.steps.last().map_or("", |step| step.why.as_str());
        match &self.outcome {
            Outcome::Sent { target, host, .. } => {
                let upstream = self.upstream.as_ref().map_or("", |upstream| upstream.name.as_str());
                format!("{route}; `{target}` for `{host}` is sent to upstream `{upstream}`")
            }
            Outcome::Answered { status, .. } => format!("{route}; answered here with {status}: {why}"),
            Outcome::Unanswered => format!("no answer: {why}"),
        }
    }
}
