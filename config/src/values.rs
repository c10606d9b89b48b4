//! What single values may be: numbers within bounds, quantities with units, addresses, names, tokens.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use sluice_rules::snapshot::Endpoint;

use crate::error::{Code, Diagnostic};
use crate::read::{Context, FromToml, Node, Shape, Value};
use crate::units::{self, UnitError};

impl FromToml for bool {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match (&node.value, node.substituted) {
            (Value::Boolean(value), _) => Some(*value),
            (Value::Text(text), true) if text == "true" || text == "false" => Some(text == "true"),
            _ => {
                context.wrong_type(node, "true or false");
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Boolean
    }
}

impl FromToml for String {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        context.text(node, "a string").map(str::to_owned)
    }

    fn shape() -> Shape {
        Shape::Text("any text".into())
    }
}

/// An integer within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> FromToml for Int<MIN, MAX> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let value = match (&node.value, node.substituted) {
            (Value::Integer(value), _) => *value,
            // A number cannot stand for a variable in TOML, so that a string from one may be a number.
            (Value::Text(text), true) if text.parse::<i64>().is_ok() => text.parse().ok(),
            _ => {
                context.wrong_type(node, "an integer");
                return None;
            }
        };
        let value = value.filter(|value| (MIN..=MAX).contains(value));
        if value.is_none() {
            out_of_range(node, &MIN.to_string(), &MAX.to_string(), context);
        }
        value.map(Int)
    }

    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }
}

fn out_of_range(node: &Node, min: &str, max: &str, context: &mut Context<'_>) {
    let message = format!("{} is out of range", context.written(node.place));
    let label = format!("has to be between {min} and {max}");
    context.push(Diagnostic::error(Code::OutOfRange, node.place, message).label(label));
}

/// A string with a unit.
fn quantity(
    node: &Node,
    what: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<u64, UnitError>,
    context: &mut Context<'_>,
) -> Option<u64> {
    let bare = match &node.value {
        Value::Text(text) => match parse(text) {
            Ok(value) => return Some(value),
            Err(UnitError::NoUnit) => true,
            Err(error) => {
                let note = context.invalid(node, what, &error.to_string());
                note.help = Some(format!("write it like `{example}`"));
                return None;
            }
        },
        Value::Integer(_) | Value::Float => true,
        Value::Boolean(_) | Value::Datetime | Value::List(_) | Value::Table(_) | Value::Broken => false,
    };
    if bare {
        let message = format!("{} has no unit", context.written(node.place));
        let note = Diagnostic::error(Code::MissingUnit, node.place, message).label(format!("expected {what}"));
        context.push(note.help(format!("write the unit, like `{example}`")));
    } else {
        context.wrong_type(node, what);
    }
    None
}

/// A duration within bounds, which are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> FromToml for Time<MIN, MAX> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let parse = |text: &str| units::duration(text).map(|duration| duration.as_millis() as u64);
        let value = quantity(node, "a duration", "\"10s\"", parse, context)?;
        if !(MIN..=MAX).contains(&value) {
            out_of_range(node, &units::show_duration(MIN), &units::show_duration(MAX), context);
            return None;
        }
        Some(Time(Duration::from_millis(value)))
    }

    fn shape() -> Shape {
        Shape::Text(format!("a duration from {} to {}", units::show_duration(MIN), units::show_duration(MAX)))
    }
}

/// Bytes within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> FromToml for Size<MIN, MAX> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let value = quantity(node, "a size", "\"64KiB\"", units::size, context)?;
        if !(MIN..=MAX).contains(&value) {
            out_of_range(node, &units::show_size(MIN), &units::show_size(MAX), context);
            return None;
        }
        Some(Size(value))
    }

    fn shape() -> Shape {
        Shape::Text(format!("a size from {} to {}", units::show_size(MIN), units::show_size(MAX)))
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(pub u64);

impl FromToml for ByteRate {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        quantity(node, "a rate of bytes", "\"500B/s\"", units::byte_rate, context).map(ByteRate)
    }

    fn shape() -> Shape {
        Shape::Text("a rate such as 500B/s or 1MiB/s".into())
    }
}

/// How often something may happen, a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSecond<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> FromToml for PerSecond<MIN, MAX> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let value = quantity(node, "a rate", "\"100/s\"", units::per_second, context)?;
        if !(MIN..=MAX).contains(&value) {
            out_of_range(node, &format!("{MIN}/s"), &format!("{MAX}/s"), context);
            return None;
        }
        Some(PerSecond(value))
    }

    fn shape() -> Shape {
        Shape::Text(format!("a rate from {MIN}/s to {MAX}/s"))
    }
}

/// A part of a hundred within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> FromToml for Percent<MIN, MAX> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let value = quantity(node, "a percentage", "\"20%\"", units::percent, context)?;
        if !(MIN..=MAX).contains(&value) {
            out_of_range(node, &format!("{MIN}%"), &format!("{MAX}%"), context);
            return None;
        }
        Some(Percent(value))
    }

    fn shape() -> Shape {
        Shape::Text(format!("a percentage from {MIN}% to {MAX}%"))
    }
}

/// Notes that a string is none of those that are known.
pub(crate) fn no_choice(node: &Node, written: &str, known: &[&str], later: &[&str], context: &mut Context<'_>) {
    if later.contains(&written) && !node.substituted {
        let message = format!("{} is not part of this version", context.written(node.place));
        context.push(Diagnostic::error(Code::NotBuiltYet, node.place, message).label("not built yet"));
        return;
    }
    let list = known.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
    let message = format!("{} is none of {list}", context.written(node.place));
    let note = Diagnostic::error(Code::InvalidValue, node.place, message).label(format!("expected one of {list}"));
    context.push(if node.substituted { note } else { note.did_you_mean(written, known.iter().copied()) });
}

/// Event loops: a number, or `"auto"` for one for each core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores(pub Option<usize>);

impl FromToml for Cores {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "auto" => Some(Cores(None)),
            Value::Text(_) if !node.substituted => {
                context.invalid(node, "\"auto\" or a number of cores", "expected \"auto\" or a number");
                None
            }
            _ => Int::<1, 1024>::read(node, context).map(|Int(cores)| Cores(Some(cores as usize))),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::OneOf(&["auto"]), Int::<1, 1024>::shape()])
    }
}

/// Defines a type around one that a string is parsed into by a function, with what it is and why it is not.
macro_rules! text {
    ($(#[doc = $doc:literal])+ $Name:ident($Type:ty), $what:literal, $parse:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Name(pub $Type);

        impl FromToml for $Name {
            fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
                let text = context.text(node, $what)?;
                let parse: fn(&str) -> Result<$Type, String> = $parse;
                context.check(node, $what, parse(text)).map($Name)
            }

            fn shape() -> Shape {
                Shape::Text($what.into())
            }
        }
    };
}
pub(crate) use text;

text! {
    /// Text that is not empty.
    Text(String), "a word",
    |text| if text.is_empty() { Err("it is empty".into()) } else { Ok(text.to_owned()) }
}

/// The path of a file, relative to the one that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromToml for FilePath {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let text = context.text(node, "a path")?;
        let valid =
            if text.is_empty() || text.contains('\0') { Err("it is empty or has a zero".into()) } else { Ok(()) };
        context.check(node, "a path", valid)?;
        if text.contains("-----BEGIN ") {
            // It may be a private key, so nothing of it is quoted.
            let note = Diagnostic::error(Code::InvalidValue, node.place, "the content of a file is not its path");
            context.push(note.label("expected a path").help("write the path itself, without `${file:...}`"));
            return None;
        }
        Some(FilePath(context.directory(node.place).join(text)))
    }

    fn shape() -> Shape {
        Shape::Text("a path".into())
    }
}

text! {
    /// The name or address that a server proves to have, in lower case.
    ServerName(String), "the name of a server",
    |text| {
        let lower = text.to_ascii_lowercase();
        let address = || lower.parse::<IpAddr>().is_ok();
        if is_host_name(&lower) || address() { Ok(lower) } else { Err("expected a host name or an IP address".into()) }
    }
}

text! {
    /// Where to listen.
    Address(SocketAddr), "an address and port",
    |text| text.parse().map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".into())
}

text! {
    /// Where an upstream is reached.
    Target(Endpoint), "a host and port", endpoint
}

text! {
    /// A network, or one address.
    Prefix(IpNet), "a network",
    |text| match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        // With a zero in front it would be octal to some.
        (Ok(network), _) if text.split('/').next().is_some_and(|address| address.parse::<IpAddr>().is_ok()) => {
            Ok(network)
        }
        (_, Ok(address)) => Ok(address.into()),
        _ => Err("expected an address or a network such as 10.0.0.0/8".into()),
    }
}

text! {
    /// A name that the user gives to something.
    Name(String), "a name",
    |text| match text {
        "" => Err("a name is not empty".into()),
        _ if text.len() > 128 => Err("a name has at most 128 bytes".into()),
        _ if text.chars().any(char::is_control) => Err("a name has no control characters".into()),
        _ => Ok(text.to_owned()),
    }
}

text! {
    /// A method, which is case-sensitive.
    Method(String), "a method",
    |text| match text {
        _ if !is_token(text) => Err("a method is a word such as GET".into()),
        "get" | "head" | "post" | "put" | "delete" | "connect" | "options" | "trace" | "patch" => {
            Err(format!("methods are case-sensitive: write {}", text.to_ascii_uppercase()))
        }
        "CONNECT" => Err("the gateway opens no tunnels by CONNECT".into()),
        _ => Ok(text.to_owned()),
    }
}

text! {
    /// A field name, in lower case.
    FieldName(String), "a field name", field_name
}

text! {
    /// A field value.
    FieldValue(String), "a field value", field_value
}

text! {
    /// A protocol that a client may upgrade to, in lower case.
    Protocol(String), "a protocol to upgrade to",
    |text| match text.to_ascii_lowercase().as_str() {
        "h2c" => Err("h2c would let requests through that no rule has seen".into()),
        other if is_token(other) => Ok(other.to_owned()),
        _ => Err("expected a word such as websocket".into()),
    }
}

/// RFC 9110 §5.6.2
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

pub(crate) fn field_name(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a field name is a word such as x-request-id".into())
    }
}

/// RFC 9110 §5.5: what could end the field line, or be read as its end, never gets in.
pub(crate) fn field_value(text: &str) -> Result<String, String> {
    if text.chars().any(|character| character.is_control() && character != '\t') {
        return Err("a field value has no control characters".into());
    }
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return Err("a field value has no space around it".into());
    }
    Ok(text.to_owned())
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("write host and port only, without {scheme}://"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("the port is missing".into());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("no port is 0".into()) } else { Ok(Endpoint::Address(address)) };
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("a port is between 1 and 65535")?;
    if !is_host_name(host) {
        return Err("expected an IP address or a host name".into());
    }
    Ok(Endpoint::Name { host: host.to_ascii_lowercase(), port })
}

/// RFC 1123 §2.1, and underscores, which names inside clusters have. All digits and stops would be an address.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let fine = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fine && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        let name = |host: &str, port| Ok(Endpoint::Name { host: host.into(), port });
        let address = |text: &str| text.parse().map(Endpoint::Address).map_err(|_| String::new());
        for (text, expected) in [
            ("10.0.0.1:80", address("10.0.0.1:80")),
            ("[::1]:80", address("[::1]:80")),
            ("Name.Example:8080", name("name.example", 8080)),
            ("localhost:1", name("localhost", 1)),
            ("my_service.ns:1", name("my_service.ns", 1)),
        ] {
            assert_eq!(endpoint(text), expected, "{text}");
        }
        for text in
            ["", ":80", "a", "a:", "a:0", "a:65536", "10.0.0.1", "::1", "10.0.0.256:80", "10.0.0.1:0", "a b:1", "-a:1"]
        {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert_eq!(endpoint("http://a:1"), Err("write host and port only, without http://".into()));
    }
}
