//! Field values: lists, tokens, and the fields that concern one connection only (RFC 9110 §5.6, §7.6).

use crate::head::{FieldTable, Name, NameSet, Version};

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

/// Whether `value` may stand as a field value: no control character but the tab (RFC 9110 §5.5).
pub fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// The members of a comma-separated list without the white space around them. Empty members are left out
/// (RFC 9110 §5.6.1.2). Not for lists whose members may be quoted.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|member| member.trim_ascii()).filter(|member| !member.is_empty())
}

/// Fields that concern the connection they arrive on and are never passed on, whether or not `Connection` names
/// them (RFC 9110 §7.6.1). Proxy-Authorization is for a proxy that asked for it (§11.7.2), which a gateway never
/// does, so the upstream must not see it either.
pub const HOP_BY_HOP: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::ProxyAuthorization,
    Name::Te,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::Http2Settings,
]);

/// What the `Connection` fields of a message say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// Whether other fields are named, which [`is_named`] then finds.
    pub names_fields: bool,
}

impl ConnectionOptions {
    /// Reads the `Connection` fields.
    pub fn of(bytes: &[u8], table: &FieldTable) -> Self {
        let mut options = ConnectionOptions::default();
        if !table.has(Name::Connection) {
            return options;
        }
        for option in table.values(bytes, Name::Connection).flat_map(list) {
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                options.names_fields = true;
            }
        }
        options
    }

    /// Whether the connection stays open behind a message of this version (RFC 9112 §9.3).
    pub fn persists(self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }
}

/// Whether a `Connection` field names this field, so that it must not be passed on.
pub fn is_named(bytes: &[u8], table: &FieldTable, name: &[u8]) -> bool {
    table.values(bytes, Name::Connection).flat_map(list).any(|option| option.eq_ignore_ascii_case(name))
}

/// Fields that may never stand in a trailer section, since they say how to frame, route, authenticate or read
/// the message (RFC 9110 §6.5.1). An allow-list that names one is an error.
pub const NEVER_TRAILERS: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Which trailer fields pass (RFC 9110 §6.5.1).
#[derive(Clone, Copy, Debug)]
pub enum Trailers<'a> {
    /// Those with these names, in lower case.
    Named(&'a [String]),
    /// All but those that mean something to the gateway: how a gRPC call ended, and whatever metadata its server adds.
    Metadata,
}

impl Trailers<'_> {
    /// Whether a field of this name passes.
    pub fn allow(self, name: &[u8]) -> bool {
        match self {
            Trailers::Named(allowed) => allowed.iter().any(|allowed| name.eq_ignore_ascii_case(allowed.as_bytes())),
            Trailers::Metadata => Name::of(name) == Name::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{FieldLine, Span};

    fn table(lines: &[(&'static str, &'static str)]) -> (Vec<u8>, FieldTable) {
        let (mut bytes, mut table) = (Vec::new(), FieldTable::default());
        for (name, value) in lines {
            let start = bytes.len();
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            let name_span = Span::new(start..start + name.len());
            let value_span = Span::new(start + name.len() + 2..bytes.len() - 2);
            let line = Span::new(start..bytes.len());
            table.push(FieldLine { name: Name::of(name.as_bytes()), name_span, value_span, line });
        }
        (bytes, table)
    }

    #[test]
    fn connection_options_come_from_every_line_in_any_case() {
        let (bytes, table) = table(&[("Connection", "Keep-Alive, X-A"), ("connection", ",CLOSE,")]);
        let options = ConnectionOptions::of(&bytes, &table);
        assert!(options.close && options.keep_alive && options.names_fields && !options.upgrade);
        assert!(is_named(&bytes, &table, b"x-a") && !is_named(&bytes, &table, b"x-b"));
    }

    /// RFC 9112 §9.3.
    #[test]
    fn a_connection_persists_by_default_only_in_http_1_1() {
        let persists = |value, version| {
            let (bytes, table) = table(&[("Connection", value)]);
            ConnectionOptions::of(&bytes, &table).persists(version)
        };
        assert!(persists("", Version::Http11) && !persists("close", Version::Http11));
        assert!(!persists("", Version::Http10) && persists("keep-alive", Version::Http10));
        assert!(!persists("keep-alive, close", Version::Http10));
    }

    #[test]
    fn tokens_and_values() {
        assert!(is_token(b"x-A_1!") && !is_token(b"") && !is_token(b"a b") && !is_token(b"a\"") && !is_token(b"a/b"));
        assert!(is_value(b"a\tb \xff") && !is_value(b"a\nb") && !is_value(b"a\0") && !is_value(b"\x7f"));
        assert_eq!(list(b" a ,, b,").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
