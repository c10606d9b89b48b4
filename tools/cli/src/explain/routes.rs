//! All routes of a configuration with what they match and do, in the order of the file.

use serde_json::{Value, json};
use sluice_rules::explain::hide;
use sluice_rules::route::Matcher;
use sluice_rules::snapshot::{Action, Piece, Route, Snapshot, Template};

use crate::table::columns;

/// A table for people.
pub(crate) fn table(snapshot: &Snapshot) -> String {
    let header = ["route".to_owned(), "matches".to_owned(), "does".to_owned()];
    columns(&std::iter::once(header).chain(rows(snapshot)).collect::<Vec<_>>())
}

/// The same for programs.
pub(super) fn object(snapshot: &Snapshot) -> Value {
    rows(snapshot).map(|[name, matches, does]| json!({ "route": name, "matches": matches, "does": does })).collect()
}

fn rows(snapshot: &Snapshot) -> impl Iterator<Item = [String; 3]> {
    let routes = snapshot.routes.iter().zip(&snapshot.matchers);
    let rows = routes.map(|(route, matcher)| [route.name.clone(), matcher.to_string(), does(snapshot, route, matcher)]);
    rows.map(|mut row| {
        row.iter_mut().for_each(|text| hide::text(text, &snapshot.hidden));
        row
    })
}

fn does(snapshot: &Snapshot, route: &Route, matcher: &Matcher) -> String {
    let shown = |template: &Template| shown(template, matcher);
    match &route.action {
        Action::Forward(upstream) => {
            let rewrite = &route.rewrite;
            let parts = [("path", &rewrite.path), ("query", &rewrite.query), ("host", &rewrite.host)];
            let parts =
                parts.iter().filter_map(|(part, new)| new.as_ref().map(|new| format!(", {part} {}", shown(new))));
            format!("upstream {}{}", snapshot.upstream(*upstream).name, parts.collect::<String>())
        }
        Action::Redirect { to, status } => format!("redirect {status} to {}", shown(to)),
        Action::Respond { status, .. } => format!("respond {status}"),
    }
}

/// A template as it stands in the file.
fn shown(template: &Template, matcher: &Matcher) -> String {
    let params = matcher.path.params();
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Param(index) => format!("{{{}}}", params.get(*index).copied().unwrap_or_default()),
        Piece::Path => "{path}".to_owned(),
        Piece::Query => "{query}".to_owned(),
        Piece::Host => "{host}".to_owned(),
    };
    template.0.iter().map(piece).collect()
}
