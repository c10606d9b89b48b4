//! Secrets in plain sight: values that look like credentials and stand in the file itself.

use crate::error::{Code, Diagnostic};
use crate::tree::{Node, Table, Value};

/// Keys whose values are credentials, in lower case and with hyphens; a longer one may end in one of them.
const KEYS: [&str; 10] = [
    "authorization",
    "cookie",
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "api-key",
    "apikey",
    "private-key",
];

/// How credentials begin.
const STARTS: [&str; 10] =
    ["Bearer ", "Basic ", "-----BEGIN ", "ghp_", "github_pat_", "glpat-", "xoxb-", "sk_live_", "AKIA", "eyJhbGciOi"];

/// Warns of each value below `node` that looks like credentials. `key` is the nearest key above it.
pub(crate) fn find(node: &Node, key: &str, found: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Text(text) if !node.substituted && is_secret(key, text) => {
            let message = format!("the value of `{key}` looks like a secret");
            let note =
                Diagnostic::warning(Code::PlainSecret, node.place, message).label("whoever reads the file knows it");
            found.push(note.help("write \"${NAME}\" for an environment variable, or \"${file:/run/secrets/name}\""));
        }
        Value::List(items) => items.iter().for_each(|item| find(item, key, found)),
        Value::Table(table) => find_in(table, found),
        Value::Text(_) | Value::Integer(_) | Value::Float | Value::Boolean(_) | Value::Datetime | Value::Broken => {}
    }
}

fn find_in(table: &Table, found: &mut Vec<Diagnostic>) {
    table.entries.iter().for_each(|entry| find(&entry.node, &entry.key, found));
}

/// Whether a value looks like credentials.
pub(crate) fn is_secret(key: &str, value: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('_', "-");
    // A cookie has a name and a value; the word of a policy such as `set-cookie = "strip"` has not.
    let looks_right = |known: &str| known != "cookie" || value.contains('=');
    let ends_in =
        |known: &str| key.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('-'));
    let by_key = KEYS.iter().any(|known| ends_in(known) && looks_right(known));
    // Only what has a length that is worth guessing; `token = "x"` in a test is none.
    by_key && value.len() >= 6
        || STARTS.iter().any(|start| value.len() > start.len() && value.starts_with(start))
        || has_user_info(value)
}

/// Whether it is a URL with a name and a password in front of the host.
fn has_user_info(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn credentials_are_known_by_their_key_or_their_look() {
        for (key, value, expected) in [
            ("authorization", "Bearer abc.def", true),
            ("x-api-key", "0123456789", true),
            ("set-cookie", "session=1", true),
            ("set-cookie", "refuse", false),
            ("client_secret", "hunter2", true),
            ("to", "https://user:pass@example.com/", true),
            ("body", "-----BEGIN PRIVATE KEY-----", true),
            ("x-note", "AKIAIOSFODNN7EXAMPLE", true),
            ("token", "x", false),
            ("to", "https://example.com/a@b:c", false),
            ("address", "127.0.0.1:80", false),
            ("x-monkey", "0123456789", false),
            ("body", "fine\n", false),
            ("authorization", "", false),
        ] {
            assert_eq!(is_secret(key, value), expected, "{key} = {value}");
        }
    }
}
