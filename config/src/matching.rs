//! What routes match and what they write: hosts, paths, values and templates, as they stand in a file.

use std::net::Ipv6Addr;

use sluice_rules::route::{HostPattern, Params, PathPattern, Segment, ValuePattern};

use crate::error::{Code, Diagnostic};
use crate::read::{At, Context, FromToml, Node, Shape, Value, check_keys};
use crate::values::{field_name, field_value, is_host_name, text};

text! {
    /// A host to match: a name, an address, or `*.` and a domain.
    Host(HostPattern), "a host", host
}

fn host(text: &str) -> Result<HostPattern, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if let Some(domain) = lower.strip_prefix("*.") {
        return if is_host_name(domain) {
            Ok(HostPattern::Below(domain.to_owned()))
        } else {
            Err("expected a domain behind `*.`".into())
        };
    }
    if lower.contains('*') {
        return Err("a star stands only in front, for whole labels: *.example.com".into());
    }
    let ipv6 = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address =
        ipv6.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()) || lower.parse::<std::net::Ipv4Addr>().is_ok();
    if is_address || is_host_name(lower) {
        return Ok(HostPattern::Exact(lower.to_owned()));
    }
    match lower.rsplit_once(':') {
        Some((name, port)) if is_host_name(name) && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err("a host is matched without its port".into())
        }
        _ => Err("expected a host name or *.example.com".into()),
    }
}

/// A path to match.
#[derive(Clone, Debug)]
pub struct Path(pub PathPattern);

impl FromToml for Path {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::Table(_) => return regex_of(node, context).and_then(|inner| path_regex(inner, context)),
            _ => context.text(node, "a path or { regex = \"...\" }")?,
        };
        context.check(node, "a path", path(text)).map(Path)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Text("/exact, /prefix/*, /users/{id} or /users/{id}/*".into()), regex_shape()])
    }
}

fn path(text: &str) -> Result<PathPattern, String> {
    if !text.starts_with('/') {
        return Err("a path starts with a slash".into());
    }
    let (segments, rest) = match text.strip_suffix("/*") {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    if segments.contains('*') {
        return Err("a star stands only at the end, for everything below: /prefix/*".into());
    }
    let segments = segments.split('/').skip(1).map(segment).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&str> = segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Param(name) => Some(name.as_str()),
            Segment::Text(_) => None,
        })
        .collect();
    if names.is_empty() {
        let plain = text.strip_suffix("/*").unwrap_or(text).to_owned();
        return Ok(if rest { PathPattern::Prefix(plain) } else { PathPattern::Exact(plain) });
    }
    let count = names.len() + usize::from(rest);
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("the parameter `{}` occurs twice", twice[0]));
    }
    if count > Params::MAX {
        return Err(format!("a path has at most {} parameters", Params::MAX));
    }
    Ok(PathPattern::Template { segments, rest })
}

fn segment(text: &str) -> Result<Segment, String> {
    if !text.contains(['{', '}']) {
        return Ok(Segment::Text(text.to_owned()));
    }
    let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let name = name.ok_or("a parameter takes a whole segment: /users/{id}")?;
    check_param(name)?;
    Ok(Segment::Param(name.to_owned()))
}

fn check_param(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err("a parameter is named with letters, digits, `_` and `-`".into());
    }
    if RESERVED.contains(&name) {
        return Err(format!("`{{{name}}}` has a meaning of its own"));
    }
    Ok(())
}

/// Names in templates that are not parameters of the path, or only of `/*`.
const RESERVED: [&str; 4] = ["rest", "path", "query", "host"];

/// The string of a `{ regex = "..." }`.
fn regex_of<'n>(node: &'n Node, context: &mut Context<'_>) -> Option<&'n Node> {
    check_keys(node, &["regex".to_owned()], &[], context)?;
    let Value::Table(table) = &node.value else { return None };
    let inner = table.get("regex");
    if inner.is_none() {
        let note = Diagnostic::error(Code::MissingKey, node.place, "`regex` is missing");
        context.push(note.label("needs the key `regex`"));
    }
    inner
}

fn regex_shape() -> Shape {
    let doc = "A regular expression, matched in linear time.".to_owned();
    let name = "regex".to_owned();
    let shape = Shape::Text("a regular expression".into());
    let key = crate::read::Key { name, doc: doc.clone(), default: None, required: true, shape };
    Shape::Table { doc, keys: vec![key] }
}

fn path_regex(node: &Node, context: &mut Context<'_>) -> Option<Path> {
    let text = context.text(node, "a regular expression")?;
    let pattern = PathPattern::regex(text).map_err(|error| invalid_regex(node, &error, context)).ok()?;
    let params = pattern.params();
    let reserved = params.iter().find(|name| RESERVED.contains(name));
    if let Some(name) = reserved {
        context.invalid(node, "a path", &format!("the group name `{name}` has a meaning of its own"));
        return None;
    }
    if params.len() > Params::MAX {
        context.invalid(node, "a path", &format!("a path has at most {} named groups", Params::MAX));
        return None;
    }
    Some(Path(pattern))
}

fn invalid_regex(node: &Node, error: &regex::Error, context: &mut Context<'_>) {
    let reason = match error {
        regex::Error::CompiledTooBig(limit) => format!("it takes more than {}", crate::units::show_size(*limit as u64)),
        // The last line is the reason, those before it draw the pattern.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    context.invalid(node, "a regular expression", &reason);
}

/// What a field or a query parameter must be.
#[derive(Clone, Debug)]
pub struct ValueMatch(pub ValuePattern);

impl FromToml for ValueMatch {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let pattern = match &node.value {
            Value::Boolean(true) => ValuePattern::Present,
            Value::Text(text) => ValuePattern::Exact(context.check(node, "a value to match", field_value(text))?),
            Value::Table(_) => {
                let inner = regex_of(node, context)?;
                let text = context.text(inner, "a regular expression")?;
                let regex = regex::RegexBuilder::new(text).size_limit(PathPattern::REGEX_BYTES_MAX).build();
                ValuePattern::Regex(regex.map_err(|error| invalid_regex(inner, &error, context)).ok()?)
            }
            _ => {
                context.wrong_type(node, "a string, { regex = \"...\" } or true");
                return None;
            }
        };
        Some(ValueMatch(pattern))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Text("the value".into()), regex_shape(), Shape::Boolean])
    }
}

/// Field names, in lower case, and something for each.
#[derive(Clone, Debug)]
pub struct ByField<T>(pub Vec<(At<String>, At<T>)>);

impl<T: FromToml> FromToml for ByField<T> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            context.wrong_type(node, "a table of field names");
            return None;
        };
        let mut fields: Vec<(At<String>, At<T>)> = Vec::new();
        for entry in &table.entries {
            let name = match field_name(&entry.key) {
                Ok(name) => At { value: name, place: entry.key_place },
                Err(reason) => {
                    let message = format!("`{}` is not a field name", entry.key);
                    context.push(Diagnostic::error(Code::InvalidValue, entry.key_place, message).label(reason));
                    continue;
                }
            };
            if let Some((first, _)) = fields.iter().find(|(other, _)| other.value == name.value) {
                let message = format!("the field `{}` stands here twice", name.value);
                let note = Diagnostic::error(Code::Duplicate, name.place, message).label("again here");
                context.push(note.related(first.place, "first here"));
            }
            if let Some(value) = T::read(&entry.node, context) {
                fields.push((name, At { value, place: entry.node.place }));
            }
        }
        Some(ByField(fields))
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(T::shape()))
    }
}

/// Names of query parameters and what each must be.
#[derive(Clone, Debug)]
pub struct ByParameter(pub Vec<(At<String>, At<ValueMatch>)>);

impl FromToml for ByParameter {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            context.wrong_type(node, "a table of query parameters");
            return None;
        };
        let mut parameters = Vec::new();
        for entry in &table.entries {
            let Some(value) = ValueMatch::read(&entry.node, context) else { continue };
            let exact = match &value.0 {
                ValuePattern::Exact(text) => text,
                ValuePattern::Regex(_) | ValuePattern::Present => "",
            };
            if !is_canonical_parameter(&entry.key, exact) {
                let message = format!("no query can have this parameter `{}`", entry.key);
                let note = Diagnostic::error(Code::NeverMatches, entry.node.place, message).label("can never match");
                context.push(note.help("percent-encode it as it stands in a URL: `a%20b` with upper-case digits"));
                continue;
            }
            let name = At { value: entry.key.clone(), place: entry.key_place };
            parameters.push((name, At { value, place: entry.node.place }));
        }
        Some(ByParameter(parameters))
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(ValueMatch::shape()))
    }
}

/// Whether a normalised query can contain this parameter as it stands.
pub(crate) fn is_canonical_parameter(name: &str, value: &str) -> bool {
    let target = format!("/?{name}={value}");
    let mut normal = sluice_wire::target::Target::default();
    let read = normal.read("GET", target.as_bytes(), sluice_wire::target::Policy::default());
    !name.contains(['=', '&']) && !value.contains('&') && read.is_ok() && normal.as_str() == target
}

/// Text with `{names}`, which the compiler looks up among the parameters of the route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateText(pub Vec<Part>);

/// A piece of a [`TemplateText`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// The name between braces.
    Hole(String),
}

impl FromToml for TemplateText {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = context.text(node, "a string")?;
        context.check(node, "a template", template(text))
    }

    fn shape() -> Shape {
        Shape::Text("text with {parameters} of the path, {rest}, {path}, {query} and {host}".into())
    }
}

fn template(text: &str) -> Result<TemplateText, String> {
    if let Some(bad) = text.chars().find(|character| !character.is_ascii_graphic()) {
        return Err(format!("{bad:?} has to be percent-encoded"));
    }
    let mut parts = Vec::new();
    let mut left = text;
    while let Some(open) = left.find(['{', '}']) {
        let (before, behind) = left.split_at(open);
        let (name, behind) = behind
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .filter(|(name, _)| !name.contains('{'))
            .ok_or("a brace is not closed or not opened")?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(Part::Hole(name.to_owned()));
        left = behind;
    }
    if !left.is_empty() {
        parts.push(Part::Text(left.to_owned()));
    }
    Ok(TemplateText(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_or_wildcards() {
        let exact = |text: &str| Ok(HostPattern::Exact(text.into()));
        for (text, expected) in [
            ("API.example.com", exact("api.example.com")),
            ("example.com.", exact("example.com")),
            ("localhost", exact("localhost")),
            ("127.0.0.1", exact("127.0.0.1")),
            ("[::1]", exact("[::1]")),
            ("*.example.com", Ok(HostPattern::Below("example.com".into()))),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
        for text in ["", "*", "*.", "a.*.com", "a*.com", "exa mple", "a..b", "example.com:80", "::1", "http://a"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_have_three_plain_forms() {
        assert!(matches!(path("/a"), Ok(PathPattern::Exact(text)) if text == "/a"));
        assert!(matches!(path("/"), Ok(PathPattern::Exact(text)) if text == "/"));
        assert!(matches!(path("/a/*"), Ok(PathPattern::Prefix(text)) if text == "/a"));
        assert!(matches!(path("/*"), Ok(PathPattern::Prefix(text)) if text.is_empty()));
        let Ok(PathPattern::Template { segments, rest: true }) = path("/users/{id}/*") else { panic!("no template") };
        assert_eq!(segments, [Segment::Text("users".into()), Segment::Param("id".into())]);
        for text in [
            "",
            "a",
            "*",
            "/a*",
            "/*/a",
            "/{}",
            "/a{b}",
            "/{a}{b}",
            "/{a",
            "/{a}/{a}",
            "/{rest}",
            "/{a b}",
            "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/*",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn templates_are_text_and_holes() {
        let text = |text: &str| Part::Text(text.into());
        let hole = |text: &str| Part::Hole(text.into());
        assert_eq!(
            template("/v2/{id}/x{rest}"),
            Ok(TemplateText(vec![text("/v2/"), hole("id"), text("/x"), hole("rest")]))
        );
        assert_eq!(template(""), Ok(TemplateText(vec![])));
        for text in ["{", "}", "{a", "a}", "{a{b}}", "/ ", "/\r\n", "/ä"] {
            assert!(template(text).is_err(), "{text}");
        }
    }
}
