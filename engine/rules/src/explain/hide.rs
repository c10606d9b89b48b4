//! Explanations without what the configuration got from outside of its file, such as secrets.

use super::{Explanation, Outcome};

/// What stands in the place of what is hidden.
const HIDDEN: &str = "<hidden>";

/// Hides `hidden` wherever it could come from the configuration.
pub(crate) fn explanation(explanation: &mut Explanation, hidden: &[String]) {
    if hidden.is_empty() {
        return;
    }
    let Explanation { listener, route, misses, steps, upstream, outcome, .. } = explanation;
    let mut texts = vec![&mut listener.name, &mut listener.address];
    texts.extend(route.iter_mut().flat_map(|route| [&mut route.name, &mut route.matches]));
    texts.extend(misses.nearest.iter_mut().flat_map(|miss| [&mut miss.route, &mut miss.why]));
    texts.extend(steps.iter_mut().map(|step| &mut step.why));
    if let Some(upstream) = upstream {
        texts.push(&mut upstream.name);
        texts.extend(&mut upstream.candidates);
    }
    match outcome {
        Outcome::Sent { target, host, head, added, .. } => {
            texts.extend([target, host]);
            texts.extend(added.iter_mut().map(|field| &mut field.value));
            bytes(head, hidden);
        }
        Outcome::Answered { head, body, .. } => {
            bytes(head, hidden);
            bytes(body, hidden);
        }
        Outcome::Unanswered => {}
    }
    texts.into_iter().for_each(|one| text(one, hidden));
}

/// Hides `hidden` in a text.
pub fn text(text: &mut String, hidden: &[String]) {
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret.as_str()) {
            *text = text.replace(secret.as_str(), HIDDEN);
        }
    }
}

fn bytes(bytes: &mut Vec<u8>, hidden: &[String]) {
    if hidden.iter().any(|secret| memchr::memmem::find(bytes, secret.as_bytes()).is_some()) {
        let mut shown = String::from_utf8_lossy(bytes).into_owned();
        text(&mut shown, hidden);
        *bytes = shown.into_bytes();
    }
}
