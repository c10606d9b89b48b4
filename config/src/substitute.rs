//! `${VARIABLE}`, `${VARIABLE:-default}` and `${file:/path}` in strings.
//!
//! What was put in is not looked at again, so a value that happens to contain `${` stays as it is. `$${` is a
//! literal `${`.

/// What stands for a name between `${` and `}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reference<'t> {
    /// An environment variable, and what stands for it where it is not set.
    Variable {
        /// Its name.
        name: &'t str,
        /// The default, if there is one.
        default: Option<&'t str>,
    },
    /// The content of a file, without the line end at its end.
    File(&'t str),
}

/// Why a string cannot be completed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubstituteError {
    /// `${` without `}`.
    #[error("`${{` is not closed")]
    Open,
    /// A name that no variable has.
    #[error("`{0}` is no name of an environment variable")]
    Name(String),
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set")]
    Missing(String),
    /// The file cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// The text with everything replaced, and whether there was anything.
pub(crate) fn substitute(
    text: &str,
    mut value: impl FnMut(Reference<'_>) -> Result<String, SubstituteError>,
) -> Result<(String, bool), SubstituteError> {
    let mut out = String::new();
    let mut substituted = false;
    let mut left = text;
    while let Some(at) = left.find("${") {
        let before = &left[..at];
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            left = &left[at + 2..];
            continue;
        }
        out.push_str(before);
        let (inside, behind) = left[at + 2..].split_once('}').ok_or(SubstituteError::Open)?;
        out.push_str(&value(reference(inside)?)?);
        substituted = true;
        left = behind;
    }
    out.push_str(left);
    Ok((out, substituted))
}

fn reference(inside: &str) -> Result<Reference<'_>, SubstituteError> {
    if let Some(path) = inside.strip_prefix("file:") {
        return Ok(Reference::File(path));
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if valid { Ok(Reference::Variable { name, default }) } else { Err(SubstituteError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(reference: Reference<'_>) -> Result<String, SubstituteError> {
        match reference {
            Reference::Variable { name: "A", .. } => Ok("1".into()),
            Reference::Variable { name: "NESTED", .. } => Ok("${A}".into()),
            Reference::Variable { name, default: None } => Err(SubstituteError::Missing(name.into())),
            Reference::Variable { default: Some(default), .. } => Ok(default.into()),
            Reference::File(path) => Ok(format!("<{path}>")),
        }
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("plain $ {A} }", ("plain $ {A} }", false)),
            ("${A}", ("1", true)),
            ("a${A}b${A}c", ("a1b1c", true)),
            ("${NESTED}", ("${A}", true)),
            ("${B:-x:-y}", ("x:-y", true)),
            ("${A:-x}", ("1", true)),
            ("${B:-}", ("", true)),
            ("${file:/run/secret}", ("</run/secret>", true)),
            ("$${A}", ("${A}", false)),
        ] {
            assert_eq!(substitute(text, value), Ok((expected.0.to_owned(), expected.1)), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert_eq!(substitute("${B}", value), Err(SubstituteError::Missing("B".into())));
        assert_eq!(substitute("a${B", value), Err(SubstituteError::Open));
        assert_eq!(substitute("${}", value), Err(SubstituteError::Name(String::new())));
        assert_eq!(substitute("${a b}", value), Err(SubstituteError::Name("a b".into())));
    }
}
