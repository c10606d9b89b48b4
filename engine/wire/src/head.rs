//! A message head as a table of offsets over the bytes it was received in.
//!
//! Nothing is copied out of the receive buffer: a [`Span`] says where something stands, and a view
//! ([`Request`], [`Response`]) puts the table and the bytes together again. The tables are reused from message
//! to message, so reading a head allocates nothing once a connection is warm.

use std::ops::Range;

/// Where something stands in the bytes of a head. Offsets are relative to the first byte of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// A span over `range`. A head is at most 64 KiB, so offsets fit comfortably.
    pub fn new(range: Range<usize>) -> Self {
        Span { start: range.start as u32, end: range.end as u32 }
    }

    /// The bytes that the span covers.
    pub fn of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.range()]
    }

    /// The offsets as a range.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

macro_rules! names {
    ($($Variant:ident = $text:literal),+ $(,)?) => {
        /// A field name that the gateway acts on; every other name is [`Name::Other`] and is only passed on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Name {
            $(
                #[doc = concat!("`", $text, "`")]
                $Variant,
            )+
            /// Any name that has no meaning to the gateway itself.
            Other,
        }

        const KNOWN: &[(&str, Name)] = &[$(($text, Name::$Variant)),+];

        impl Name {
            /// The name in lower case; empty for [`Name::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Name::$Variant => $text,)+
                    Name::Other => "",
                }
            }
        }
    };
}

names! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    Age = "age",
    Authorization = "authorization",
    CacheControl = "cache-control",
    CacheTag = "cache-tag",
    CdnCacheControl = "cdn-cache-control",
    ClientCert = "client-cert",
    ClientCertChain = "client-cert-chain",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLanguage = "content-language",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    ContentRange = "content-range",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    ETag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    MaxForwards = "max-forwards",
    Pragma = "pragma",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Range = "range",
    SecWebSocketAccept = "sec-websocket-accept",
    SecWebSocketKey = "sec-websocket-key",
    SecWebSocketVersion = "sec-websocket-version",
    SetCookie = "set-cookie",
    SluiceCacheControl = "sluice-cache-control",
    SurrogateKey = "surrogate-key",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Vary = "vary",
    Via = "via",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedPrefix = "x-forwarded-prefix",
    XForwardedProto = "x-forwarded-proto",
    XForwardedServer = "x-forwarded-server",
    XRealIp = "x-real-ip",
}

/// Slots of the table of known names.
const SLOTS: usize = 256;

/// Where a name stands in the table: length and three letters tell the known names apart, whatever their case.
const fn slot(name: &[u8]) -> usize {
    let length = name.len();
    let first = (name[0] | 0x20) as usize;
    let (middle, second_last) = ((name[length / 2] | 0x20) as usize, (name[length.saturating_sub(2)] | 0x20) as usize);
    (length * 48 + first + middle * 93 + second_last * 110) % SLOTS
}

/// Known names by [`slot`]. Two in one slot would be an error when compiling.
const TABLE: [(&str, Name); SLOTS] = {
    let mut table = [("", Name::Other); SLOTS];
    let mut i = 0;
    while i < KNOWN.len() {
        let slot = slot(KNOWN[i].0.as_bytes());
        assert!(table[slot].0.is_empty(), "two known names in one slot: choose other factors");
        table[slot] = KNOWN[i];
        i += 1;
    }
    table
};

impl Name {
    /// Looks a field name up, whatever its case. `name` must be a token.
    pub fn of(name: &[u8]) -> Name {
        if name.is_empty() {
            return Name::Other;
        }
        let (text, known) = TABLE[slot(name)];
        if name.len() != text.len() {
            return Name::Other;
        }
        // Known names are letters, digits and hyphens; setting the bit that makes letters lower case turns no
        // other byte of a token into one of these.
        let difference = name.iter().zip(text.as_bytes()).fold(0, |sum, (byte, known)| sum | ((byte | 0x20) ^ known));
        if difference == 0 { known } else { Name::Other }
    }
}

/// A set of known names, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameSet(u64);

impl NameSet {
    /// The set of `names`.
    pub const fn of(names: &[Name]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < names.len() {
            bits |= 1 << names[i] as u8;
            i += 1;
        }
        NameSet(bits)
    }

    /// Adds a name. [`Name::Other`] has a bit as well, which says that some unknown name is there.
    pub fn insert(&mut self, name: Name) {
        self.0 |= 1 << name as u8;
    }

    /// Whether `name` is in the set.
    pub const fn contains(self, name: Name) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    /// Whether `name` is in the set and is not merely some unknown name.
    pub const fn contains_known(self, name: Name) -> bool {
        !matches!(name, Name::Other) && self.contains(name)
    }

    /// Whether any name is in both sets.
    pub const fn intersects(self, other: NameSet) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of either set.
    pub const fn union(self, other: NameSet) -> NameSet {
        NameSet(self.0 | other.0)
    }
}

/// One field line: its name, and where name and value stand. The value has no optional white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// What the name means to us.
    pub name: Name,
    /// The name as received.
    pub name_span: Span,
    /// The value without surrounding white space.
    pub value_span: Span,
    /// Where the line starts; it ends, with its CRLF, where the next one starts.
    pub line: Span,
}

/// The field section of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldTable {
    lines: Vec<FieldLine>,
    present: NameSet,
}

impl FieldTable {
    /// Forgets all lines, keeps the memory.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.present = NameSet::default();
    }

    /// Adds a line behind the others.
    pub fn push(&mut self, line: FieldLine) {
        self.present.insert(line.name);
        self.lines.push(line);
    }

    /// The lines in the order received.
    pub fn lines(&self) -> &[FieldLine] {
        &self.lines
    }

    /// The known names that occur.
    pub fn present(&self) -> NameSet {
        self.present
    }

    /// Whether a line of this name is there.
    pub fn has(&self, name: Name) -> bool {
        self.present.contains(name)
    }

    /// The values of all lines with this known name, in order.
    pub fn values<'t, 'b: 't>(&'t self, bytes: &'b [u8], name: Name) -> impl Iterator<Item = &'b [u8]> + 't {
        let lines = if self.has(name) { self.lines.as_slice() } else { &[] };
        lines.iter().filter(move |line| line.name == name).map(move |line| line.value_span.of(bytes))
    }

    /// The value of the first line with this known name.
    pub fn first<'b>(&self, bytes: &'b [u8], name: Name) -> Option<&'b [u8]> {
        self.values(bytes, name).next()
    }

    /// The values of all lines with this name, whatever its case.
    pub fn values_of<'t, 'b: 't>(&'t self, bytes: &'b [u8], name: &'t str) -> impl Iterator<Item = &'b [u8]> + 't {
        self.lines
            .iter()
            .filter(move |line| line.name_span.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |line| line.value_span.of(bytes))
    }
}

/// The head of a request: request line and field section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The method as received; methods are case-sensitive.
    pub method: Span,
    /// The request target as received.
    pub target: Span,
    /// The version of the request line.
    pub version: Version,
    /// The field section.
    pub fields: FieldTable,
    /// Bytes of the head, the empty line included.
    pub length: usize,
}

/// The head of a response: status line and field section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// Three digits, 100 to 999.
    pub status: u16,
    /// The reason phrase as received, maybe empty.
    pub reason: Span,
    /// The version of the status line.
    pub version: Version,
    /// The field section.
    pub fields: FieldTable,
    /// Bytes of the head, the empty line included.
    pub length: usize,
}

/// A request head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The bytes from the first byte of the head.
    pub bytes: &'a [u8],
    /// The table over them.
    pub head: &'a RequestHead,
}

impl<'a> Request<'a> {
    /// The method, which is always a token and so ASCII.
    pub fn method(&self) -> &'a str {
        match self.head.method.of(self.bytes) {
            b"GET" => "GET",
            b"HEAD" => "HEAD",
            b"POST" => "POST",
            other => str::from_utf8(other).unwrap_or_default(),
        }
    }

    /// The request target as received.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.of(self.bytes)
    }

    /// The value of the first line with this known name.
    pub fn field(&self, name: Name) -> Option<&'a [u8]> {
        self.head.fields.first(self.bytes, name)
    }
}

/// A response head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The bytes from the first byte of the head.
    pub bytes: &'a [u8],
    /// The table over them.
    pub head: &'a ResponseHead,
}

impl<'a> Response<'a> {
    /// The value of the first line with this known name.
    pub fn field(&self, name: Name) -> Option<&'a [u8]> {
        self.head.fields.first(self.bytes, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for (text, name) in KNOWN {
            assert_eq!(Name::of(text.as_bytes()), *name);
            assert_eq!(Name::of(text.to_ascii_uppercase().as_bytes()), *name);
            assert_eq!(name.as_str(), *text);
        }
    }

    #[test]
    fn near_misses_are_other() {
        for text in ["", "hos", "hostt", "content_length", "transfer-encodin", "x-forwarded-for-x-forwarded-for"] {
            assert_eq!(Name::of(text.as_bytes()), Name::Other, "{text}");
        }
    }

    #[test]
    fn a_set_knows_its_names() {
        let set = NameSet::of(&[Name::Host, Name::Via]);
        assert!(set.contains(Name::Host) && set.contains(Name::Via) && !set.contains(Name::Te));
        assert!(set.intersects(NameSet::of(&[Name::Via])) && !set.intersects(NameSet::of(&[Name::Te])));
    }
}
