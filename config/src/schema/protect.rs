//! The tables of protection: access lists, and what is done about clients that do harm.

use std::time::Duration;

use sluice_rules::protection::Measure;

use super::{DAY, ModeName, no_keys, nothing};
use crate::matching::ValueMatch;
use crate::read::{At, Context, FromToml, List, Node, Optional, Shape, table};
use crate::units;
use crate::values::{FilePath, Int, Method, PerSecond, Percent, Prefix};

table! {
    /// Conditions that clients and requests have to meet where a route or a listener names them: all that are here.
    pub struct Access {
        /// Networks whose clients pass, even if `deny` has them too. Without `deny` and `deny-file`, no others do.
        allow: At<List<Prefix>> = nothing(),
        /// Networks whose clients do not pass.
        deny: At<List<Prefix>> = nothing(),
        /// A file with further networks of `allow`: one a line, `#` begins a comment. Read again when it changes.
        allow_file: Optional<FilePath>,
        /// A file with further networks of `deny`, likewise.
        deny_file: Optional<FilePath>,
        /// Methods that pass. Without it, all of them.
        methods: Optional<List<Method>>,
        /// User agents that do not pass: `"exactly this"`, `{ regex = "..." }`, or `""` for none at all.
        deny_user_agents: At<List<ValueMatch>> = nothing(),
    }
}

table! {
    /// What is done about clients that ask for too much or for what is not there. Without it, traffic is not analysed.
    pub struct Protection {
        /// Whether measures are taken, or only told of.
        mode: At<ModeName> = "observe",
        /// What has a client take the next step of the ladder.
        trip: At<Trip> = no_keys(),
        /// Measures, from the first to the last, and how long each holds: `"throttle:30s"` slows a client down,
        /// `"tarpit:60s"` has it wait and refuses it, `"ban:10m"` closes its connections. A client that goes on while a
        /// measure holds, or begins again within the same time after it, takes the next step.
        ladder: At<List<Step>> = ["throttle:30s", "tarpit:60s", "ban:10m"],
        /// What a client that is slowed down may still ask for.
        throttle: At<PerSecond<1, 1_000_000>> = "10/s",
        /// Networks whose clients are never judged, such as those of your own monitoring.
        exempt: At<List<Prefix>> = nothing(),
    }
}

table! {
    /// What a client has to do for a measure. Either is enough.
    pub struct Trip {
        /// Requests in one second.
        requests: At<PerSecond<1, 10_000_000>> = "500/s",
        /// The share of its requests within ten seconds that end with a status of 400 to 498 other
        /// than 429, and that no limit, access list or measure has refused.
        errors: At<Percent<1, 100>> = "50%",
        /// How many requests within ten seconds that share is taken of at least.
        min_requests: At<Int<1, 1_000_000>> = 100,
    }
}

/// A measure, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub measure: Measure,
    /// How long.
    pub time: Duration,
}

impl FromToml for Step {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        const WHAT: &str = "a measure and a time";
        let text = context.text(node, WHAT)?;
        let (word, time) = text.split_once(':').unwrap_or((text, ""));
        let Some(measure) = Measure::ALL.into_iter().find(|measure| measure.word() == word) else {
            let is_shown = !node.substituted;
            let note = context.invalid(node, WHAT, "expected `throttle`, `tarpit` or `ban`, and how long: \"ban:10m\"");
            if is_shown {
                *note = note.clone().did_you_mean(word, Measure::ALL.map(Measure::word));
            }
            return None;
        };
        let in_bounds = |time: &Duration| (Duration::from_secs(1)..=Duration::from_millis(30 * DAY)).contains(time);
        match units::duration(time) {
            Ok(time) if in_bounds(&time) => Some(Step { measure, time }),
            Ok(_) => {
                context.invalid(node, WHAT, "the time has to be between 1s and 30d");
                None
            }
            Err(error) => {
                let note = context.invalid(node, WHAT, &format!("of the time: {error}"));
                note.help = Some(format!("write how long behind it, like `\"{word}:10m\"`"));
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text("throttle:TIME, tarpit:TIME or ban:TIME".into())
    }
}
