//! What routes write: the names in templates become parameters, and what comes out has to be valid.

use sluice_rules::route::{PathPattern, REST};
use sluice_rules::snapshot::{Action, Piece, Rewrite, Template};
use sluice_wire::authority;
use sluice_wire::target::{Policy, Target};

use crate::error::{Code, Diagnostic};
use crate::matching::{Part, TemplateText};
use crate::read::{At, Context, Optional};
use crate::schema;

/// A redirect.
pub(super) fn redirect(redirect: &schema::Redirect, path: &PathPattern, context: &mut Context<'_>) -> Action {
    let sample = sample(&redirect.to);
    // Anything else is relative to a path that the user does not know here, or a scheme that browsers run.
    if !["/", "http://", "https://"].iter().any(|start| sample.starts_with(start)) {
        refuse(&redirect.to, "a place to go", "starts with https://, http:// or a slash", context);
    }
    Action::Redirect { to: template(&redirect.to, path, context), status: redirect.status.0 }
}

/// The changes to path, query and host.
pub(super) fn rewrite(table: &schema::Route, path: &PathPattern, context: &mut Context<'_>) -> Rewrite {
    let Some(rewrite) = table.rewrite.given() else { return Rewrite::default() };
    if let Some(new) = rewrite.path.given() {
        let sample = sample(new);
        if !sample.starts_with('/') {
            refuse(new, "a path", "starts with a slash or `{path}`", context);
        } else if sample.contains(['?', '#']) {
            refuse(new, "a path", "the query is rewritten by `query`", context);
        } else if let Some(normal) = not_normal(&sample) {
            refuse(new, "a path in normal form", &normal, context);
        }
    }
    if let Some(new) = rewrite.query.given()
        && let Some(normal) = not_normal(&format!("/?{}", sample(new)))
    {
        refuse(new, "a query in normal form", &normal, context);
    }
    if let Some(new) = rewrite.host.given()
        && authority::canonical(sample(new).as_bytes(), &mut String::new()).is_err()
    {
        refuse(new, "a host", "expected a host and maybe a port", context);
    }
    let mut part = |part: &Optional<TemplateText>| part.given().map(|text| template(text, path, context));
    Rewrite { path: part(&rewrite.path), host: part(&rewrite.host), query: part(&rewrite.query) }
}

/// The template with something plain in its holes.
fn sample(template: &TemplateText) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Hole(name) if name == "path" => "/x".to_owned(),
        Part::Hole(_) => "x".to_owned(),
    };
    template.0.iter().map(part).collect()
}

/// Why a target is not one that the gateway would send for a request: it is invalid, or has another form.
fn not_normal(target: &str) -> Option<String> {
    let mut normal = Target::default();
    match normal.read("GET", target.as_bytes(), Policy::default()) {
        Ok(()) if normal.as_str() == target => None,
        Ok(()) => Some(format!("with `x` for its parameters it is `{}`", normal.as_str())),
        Err(error) => Some(error.to_string()),
    }
}

fn refuse(template: &At<TemplateText>, what: &str, why: &str, context: &mut Context<'_>) {
    let message = format!("{} is not {what}", context.written(template.place));
    let why = if context.is_substituted(template.place) { "after `${...}` was replaced" } else { why };
    context.push(Diagnostic::error(Code::InvalidValue, template.place, message).label(why));
}

/// A template with the names of its holes looked up.
fn template(text: &At<TemplateText>, path: &PathPattern, context: &mut Context<'_>) -> Template {
    let params = path.params();
    let piece = |part: &Part| match part {
        Part::Text(text) => Some(Piece::Text(text.clone())),
        Part::Hole(name) => match (params.iter().position(|param| param == name), name.as_str()) {
            (Some(index), _) => Some(Piece::Param(index)),
            (None, "path") => Some(Piece::Path),
            (None, "query") => Some(Piece::Query),
            (None, "host") => Some(Piece::Host),
            (None, name) => {
                unknown(text, name, &params, context);
                None
            }
        },
    };
    Template(text.0.iter().filter_map(piece).collect())
}

fn unknown(text: &At<TemplateText>, name: &str, params: &[&str], context: &mut Context<'_>) {
    let message = format!("the path has no parameter for a part of {}", context.written(text.place));
    let note = Diagnostic::error(Code::UnknownParameter, text.place, message);
    let known = params.iter().copied().chain(["path", "query", "host"]);
    context.push(if context.is_substituted(text.place) {
        note.label("after `${...}` was replaced")
    } else if name == REST {
        note.label("`{rest}` needs a path that ends in `/*`")
    } else {
        note.label(format!("`{{{name}}}` is unknown")).did_you_mean(name, known)
    });
}
