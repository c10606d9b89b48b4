//! Cache directives: `Cache-Control` of requests and responses (RFC 9111 §5.2), and the fields that are for one
//! kind of cache only (RFC 9213).

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::{FieldTable, Request, Response};

use super::{SECONDS_MAX, Seconds};

/// What a request asks of caches (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`: nothing that the origin has not confirmed.
    pub no_cache: bool,
    /// `no-store`: nothing of it is stored.
    pub no_store: bool,
    /// `only-if-cached`: nothing that is not stored.
    pub only_if_cached: bool,
    /// `max-age`: nothing older.
    pub max_age: Option<Seconds>,
    /// `min-fresh`: nothing that is fresh for less.
    pub min_fresh: Option<Seconds>,
    /// `max-stale`: also what is stale for at most so long; [`SECONDS_MAX`] if it does not matter how long.
    pub max_stale: Option<Seconds>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Seconds>,
}

impl RequestControl {
    /// Reads the fields of a request. `Pragma` counts only where there is no `Cache-Control` (RFC 9111 §5.4).
    pub fn of(request: Request<'_>) -> Self {
        let table = &request.head.fields;
        let mut control = RequestControl::default();
        if !table.has(Name::CacheControl) {
            let mut pragmas = table.values(request.bytes, Name::Pragma).flat_map(fields::list);
            control.no_cache = pragmas.any(|pragma| pragma.eq_ignore_ascii_case(b"no-cache"));
            return control;
        }
        for directive in table.values(request.bytes, Name::CacheControl).flat_map(Directives::of) {
            control.take(directive);
        }
        control
    }

    fn take(&mut self, Directive { name, argument }: Directive<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // An argument that is no number is the strictest that can have been meant.
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            keep_first(&mut self.max_age, argument.seconds().unwrap_or(0));
        } else if is("min-fresh") {
            keep_first(&mut self.min_fresh, argument.seconds().unwrap_or(SECONDS_MAX));
        } else if is("max-stale") {
            let any = if argument == Argument::None { SECONDS_MAX } else { 0 };
            keep_first(&mut self.max_stale, argument.seconds().unwrap_or(any));
        } else if is("stale-if-error") {
            keep_first(&mut self.stale_if_error, argument.seconds().unwrap_or(0));
        }
    }
}

/// RFC 9111 §4.2.1: of several values of a directive the first counts.
fn keep_first(slot: &mut Option<Seconds>, value: Seconds) {
    slot.get_or_insert(value);
}

/// The field that a response's directives come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// There are none.
    #[default]
    None,
    /// `Cache-Control`
    CacheControl,
    /// `CDN-Cache-Control` (RFC 9213 §3.1)
    Cdn,
    /// `Sluice-Cache-Control`, for this gateway alone.
    Sluice,
}

impl Source {
    /// Whether it is a field for one kind of cache, beside which `Cache-Control` and `Expires` do not count
    /// (RFC 9213 §2.2).
    pub fn is_targeted(self) -> bool {
        match self {
            Source::Cdn | Source::Sluice => true,
            Source::None | Source::CacheControl => false,
        }
    }
}

/// What a response tells caches (RFC 9111 §5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// The field that it says so in.
    pub source: Source,
    /// `no-store`
    pub no_store: bool,
    /// `no-cache` about all of it.
    pub no_cache: bool,
    /// `no-cache` about some fields.
    pub no_cache_fields: bool,
    /// `private` about all of it.
    pub private: bool,
    /// `private` about some fields.
    pub private_fields: bool,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `immutable` (RFC 8246)
    pub immutable: bool,
    /// `max-age`; zero if it is invalid, which RFC 9111 §4.2.1 wants to be taken for stale.
    pub max_age: Option<Seconds>,
    /// `s-maxage`, likewise.
    pub s_maxage: Option<Seconds>,
    /// `stale-while-revalidate` (RFC 5861 §3)
    pub stale_while_revalidate: Option<Seconds>,
    /// `stale-if-error` (RFC 5861 §4)
    pub stale_if_error: Option<Seconds>,
}

/// Fields for one kind of cache, the more exact one first (RFC 9213 §2.2).
const TARGETED: [(Name, Source); 2] =
    [(Name::SluiceCacheControl, Source::Sluice), (Name::CdnCacheControl, Source::Cdn)];

impl ResponseControl {
    /// Reads the fields of a response: the first field for this kind of cache that is there and valid, or else
    /// `Cache-Control`.
    pub fn of(response: Response<'_>) -> Self {
        let table = &response.head.fields;
        for (name, source) in TARGETED {
            if let Some(control) = table.has(name).then(|| targeted(response.bytes, table, name)).flatten() {
                return ResponseControl { source, ..control };
            }
        }
        let mut control = ResponseControl::default();
        if table.has(Name::CacheControl) {
            control.source = Source::CacheControl;
            table.values(response.bytes, Name::CacheControl).flat_map(Directives::of).for_each(|one| control.take(one));
        }
        control
    }

    fn take(&mut self, Directive { name, argument }: Directive<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let stale = || argument.seconds().unwrap_or(0);
        if is("max-age") {
            keep_first(&mut self.max_age, stale());
        } else if is("s-maxage") {
            keep_first(&mut self.s_maxage, stale());
        } else if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            if argument.names().next().is_some() { self.no_cache_fields = true } else { self.no_cache = true }
        } else if is("private") {
            if argument.names().next().is_some() { self.private_fields = true } else { self.private = true }
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("immutable") {
            self.immutable = true;
        } else if is("stale-while-revalidate") {
            keep_first(&mut self.stale_while_revalidate, stale());
        } else if is("stale-if-error") {
            keep_first(&mut self.stale_if_error, stale());
        }
    }

    /// Whether one of the directives that let a shared cache store what a request with `Authorization` got
    /// (RFC 9111 §3.5).
    pub fn allows_authorization(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

/// The names of fields that a response does not want to be given from a store: those of `no-cache="..."` and
/// `private="..."` (RFC 9111 §5.2.2.4, §5.2.2.7).
pub fn withheld_fields<'a>(response: Response<'a>, control: &ResponseControl) -> Vec<&'a [u8]> {
    // A list of names stands between quotes, so without a backslash in it, it is what was sent. In a targeted field
    // it is the string of a structured field, which looks the same.
    let name = match control.source {
        Source::None => return Vec::new(),
        Source::CacheControl => Name::CacheControl,
        Source::Cdn => Name::CdnCacheControl,
        Source::Sluice => Name::SluiceCacheControl,
    };
    if !control.no_cache_fields && !control.private_fields {
        return Vec::new();
    }
    let (bytes, lines) = (response.bytes, response.head.fields.lines());
    let values = lines.iter().filter(|line| line.name == name).map(|line| line.value_span.of(bytes));
    let qualified =
        |one: &Directive<'_>| one.name.eq_ignore_ascii_case(b"no-cache") || one.name.eq_ignore_ascii_case(b"private");
    values.flat_map(Directives::of).filter(qualified).flat_map(|directive| directive.argument.names()).collect()
}

/// Reads a field for one kind of cache, which is a dictionary (RFC 9213 §2.1). `None`: it is empty or invalid and
/// so counts as absent.
fn targeted(bytes: &[u8], table: &FieldTable, name: Name) -> Option<ResponseControl> {
    let joined = table.values(bytes, name).collect::<Vec<_>>().join(&b", "[..]);
    let dictionary = sfv::Parser::new(&joined).parse::<sfv::Dictionary>().ok().filter(|members| !members.is_empty())?;
    let mut control = ResponseControl::default();
    for (key, member) in &dictionary {
        let argument = match member {
            sfv::ListEntry::Item(item) => match &item.bare_item {
                sfv::BareItem::Boolean(false) => continue,
                sfv::BareItem::Boolean(true) => Argument::None,
                sfv::BareItem::Integer(number) => match Seconds::try_from(i64::from(*number)) {
                    Ok(seconds) => Argument::Number(seconds.min(SECONDS_MAX)),
                    Err(_) if i64::from(*number) > 0 => Argument::Number(SECONDS_MAX),
                    Err(_) => Argument::Invalid,
                },
                sfv::BareItem::String(text) => Argument::Quoted(text.as_str().as_bytes()),
                // RFC 9213 §2.1: a value of another type is not made one of the right type.
                _ => Argument::Invalid,
            },
            sfv::ListEntry::InnerList(_) => Argument::Invalid,
        };
        let argument = match argument {
            Argument::Quoted(_) if !matches!(key.as_str(), "no-cache" | "private") => Argument::Invalid,
            argument => argument,
        };
        control.take(Directive { name: key.as_str().as_bytes(), argument });
    }
    Some(control)
}

/// A cache directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// Its name, in whatever case.
    pub name: &'a [u8],
    /// What stands behind its sign of equality.
    pub argument: Argument<'a>,
}

/// What stands behind the sign of equality of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// Nothing, and no sign.
    None,
    /// A token.
    Token(&'a [u8]),
    /// What a quoted string has between its quotes, backslashes and all.
    Quoted(&'a [u8]),
    /// A number that was one already.
    Number(Seconds),
    /// What is none of these.
    Invalid,
}

impl<'a> Argument<'a> {
    /// As a number of seconds. RFC 9111 §5.2: either form is to be accepted; §1.2.2: what is too large counts as 2^31.
    pub fn seconds(self) -> Option<Seconds> {
        match self {
            Argument::Token(digits) | Argument::Quoted(digits) => delta_seconds(digits),
            Argument::Number(seconds) => Some(seconds),
            Argument::None | Argument::Invalid => None,
        }
    }

    /// As a list of field names. Empty: it is none, so that the directive is about the whole response.
    pub fn names(self) -> impl Iterator<Item = &'a [u8]> {
        let list = match self {
            Argument::Token(text) | Argument::Quoted(text) => text,
            Argument::None | Argument::Number(_) | Argument::Invalid => &[],
        };
        // With a name that is none, the whole response is what is safe to mean.
        let is_list = fields::list(list).all(fields::is_token);
        fields::list(if is_list { list } else { &[] })
    }
}

/// Reads a number of seconds (RFC 9111 §1.2.2). `None`: it is none.
pub fn delta_seconds(digits: &[u8]) -> Option<Seconds> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: Seconds, digit: &u8| sum.saturating_mul(10).saturating_add(Seconds::from(digit - b'0'));
    Some(digits.iter().fold(0, add).min(SECONDS_MAX))
}

/// The directives of a field line.
#[derive(Clone, Debug)]
pub struct Directives<'a> {
    rest: &'a [u8],
}

impl<'a> Directives<'a> {
    /// Those of a value.
    pub fn of(value: &'a [u8]) -> Self {
        Directives { rest: value }
    }
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = member_end(self.rest);
            let member = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(directive(member));
            }
        }
    }
}

/// Where the first member of a list ends: at a comma outside of quotes. A quote that is never closed is none, so that
/// it cannot hide what follows it.
fn member_end(list: &[u8]) -> usize {
    let mut at = 0;
    while at < list.len() {
        match list[at] {
            b',' => return at,
            b'"' => at = string_end(&list[at + 1..]).map_or(at + 1, |length| at + 1 + length + 1),
            _ => at += 1,
        }
    }
    list.len()
}

/// Bytes of a quoted string up to its closing quote, behind the opening one.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// Takes a member apart. White space around the sign of equality is not allowed, so such an argument is invalid.
fn directive(member: &[u8]) -> Directive<'_> {
    let Some(equals) = member.iter().position(|byte| matches!(byte, b'=' | b'"')).filter(|at| member[*at] == b'=')
    else {
        return Directive { name: member, argument: Argument::None };
    };
    let (name, argument) = (&member[..equals], &member[equals + 1..]);
    let argument = match argument {
        _ if name.trim_ascii_end() != name => Argument::Invalid,
        [b'"', inner @ ..] => match string_end(inner) {
            Some(end) if end + 1 == inner.len() => Argument::Quoted(&inner[..end]),
            _ => Argument::Invalid,
        },
        token if fields::is_token(token) => Argument::Token(token),
        _ => Argument::Invalid,
    };
    Directive { name: name.trim_ascii_end(), argument }
}

#[cfg(test)]
mod tests;
