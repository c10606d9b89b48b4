//! The secondary key: the fields of a request that a stored response was selected by (RFC 9111 §4.1).

use std::cmp::Ordering;

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::{NameSet, Request, Response};

use super::key::put_value;

/// Names that a `Vary` may list; with more, nothing is stored.
const NAMES_MAX: usize = 32;

/// Fields in which the gateway tells of the client. What a response says of them is about the one client whose request
/// was sent.
const OF_CLIENT: NameSet =
    NameSet::of(&[Name::ClientCert, Name::ClientCertChain, Name::Forwarded, Name::XForwardedFor, Name::XRealIp]);

/// The fields that select a response: their names in lower case, in order, each once. Empty: any request selects it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selecting {
    names: Box<[Box<str>]>,
}

impl Selecting {
    /// Those that a response names in `Vary`. `None`: no other request selects it, since there is a `*`, what is no
    /// name, or a field that tells of the one client.
    pub fn of(response: Response<'_>) -> Option<Self> {
        let mut names: Vec<Box<str>> = Vec::new();
        for member in response.head.fields.values(response.bytes, Name::Vary).flat_map(fields::list) {
            let selects_nothing = member == b"*" || OF_CLIENT.contains_known(Name::of(member));
            if selects_nothing || !fields::is_token(member) || names.len() == NAMES_MAX {
                return None;
            }
            names.push(String::from_utf8_lossy(member).to_ascii_lowercase().into());
        }
        names.sort_unstable();
        names.dedup();
        Some(Selecting { names: names.into() })
    }

    /// Whether any request selects it.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Appends the secondary key of a request to its primary key: the names, and the values in a form that is the same
    /// for values that mean the same.
    pub fn write(&self, request: Request<'_>, out: &mut Vec<u8>) {
        for name in &self.names {
            put_value(out, name.as_bytes());
            let values = || request.head.fields.values_of(request.bytes, name);
            // Absent is not the same as empty.
            let is_there = values().next().is_some();
            out.push(u8::from(is_there));
            if is_there {
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                write_normalised(Name::of(name.as_bytes()), values, out);
                let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}

/// Appends the values of all lines as one, without differences that the definition of the field says mean nothing.
fn write_normalised<'v, I: Iterator<Item = &'v [u8]>>(name: Name, values: impl Fn() -> I, out: &mut Vec<u8>) {
    let members = || values().flat_map(fields::list);
    let preferences = match name {
        Name::AcceptEncoding => Preferences::of(members(), Order::MeansNothing),
        Name::AcceptLanguage => Preferences::of(members(), Order::AmongEquals),
        _ => None,
    };
    if let Some(preferences) = preferences {
        preferences.write(out);
    } else if members().all(fields::is_token) {
        // White space around commas means nothing in a list. Whether a field is one is only known of those whose
        // members are tokens throughout.
        write_joined(members(), out);
    } else {
        write_joined(values(), out);
    }
}

fn write_joined<'v>(parts: impl Iterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
    for (number, part) in parts.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
}

/// What the order of preferences means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Nothing (RFC 9110 §12.5.3).
    MeansNothing,
    /// Something to some among those of one weight (RFC 9110 §12.5.4).
    AmongEquals,
}

/// Preferences that are put in order; a longer list is taken as it is.
pub const PREFERENCES_MAX: usize = 16;

/// A list of preferences with weights in thousandths, the heaviest first.
struct Preferences<'v> {
    members: [(u16, &'v [u8]); PREFERENCES_MAX],
    length: usize,
}

impl<'v> Preferences<'v> {
    /// Reads a list. `None`: it is none, or a long one.
    fn of(list: impl Iterator<Item = &'v [u8]>, order: Order) -> Option<Self> {
        let mut preferences = Preferences { members: [(0, &[]); PREFERENCES_MAX], length: 0 };
        for member in list {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let value = parts.next().filter(|value| fields::is_token(value))?;
            let weight = match (parts.next(), parts.next()) {
                (None, _) => 1000,
                (Some(weight), None) => weight_thousandths(weight)?,
                (Some(_), Some(_)) => return None,
            };
            preferences.insert(weight, value, order)?;
        }
        Some(preferences)
    }

    /// Adds a member behind those that go before it. `None`: there are too many.
    fn insert(&mut self, weight: u16, value: &'v [u8], order: Order) -> Option<()> {
        if self.length == PREFERENCES_MAX {
            return None;
        }
        let goes_before = |other: &(u16, &[u8])| match other.0.cmp(&weight) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => order == Order::AmongEquals || lower(other.1).le(lower(value)),
        };
        let place = self.members[..self.length].iter().take_while(|other| goes_before(other)).count();
        self.members.copy_within(place..self.length, place + 1);
        self.members[place] = (weight, value);
        self.length += 1;
        Some(())
    }

    /// Appends them in lower case, each with its weight.
    fn write(&self, out: &mut Vec<u8>) {
        for (weight, value) in &self.members[..self.length] {
            out.extend(lower(value));
            out.push(b';');
            out.extend_from_slice(&weight.to_be_bytes());
        }
    }
}

/// The letters of a token in lower case.
fn lower(token: &[u8]) -> impl Iterator<Item = u8> {
    token.iter().map(u8::to_ascii_lowercase)
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2). `None`: it is no weight.
fn weight_thousandths(weight: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = weight else { return None };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    let weight = u16::from(whole - b'0') * 1000 + thousandths;
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{get, ok};
    use super::*;

    fn selecting(vary: &str) -> Option<Vec<String>> {
        let selecting = Selecting::of(ok(vary).view())?;
        Some(selecting.names().map(str::to_owned).collect())
    }

    fn same(vary: &str, one: &str, other: &str) -> bool {
        let selecting = Selecting::of(ok(&format!("Vary: {vary}")).view()).unwrap_or_default();
        let key = |fields: &str| {
            let mut key = Vec::new();
            selecting.write(get(fields).view(), &mut key);
            key
        };
        key(one) == key(other)
    }

    /// RFC 9111 §4.1, RFC 9110 §12.5.5.
    #[test]
    fn a_star_anywhere_selects_nothing() {
        for vary in [
            "*",
            ", *",
            "Foo, *",
            "*, Foo",
            "*, *",
            "Foo\nVary: *",
            ",\nVary: *",
            "a b",
            "\"a\"",
            "X-Forwarded-For",
            "Forwarded",
        ] {
            assert_eq!(selecting(&format!("Vary: {vary}")), None, "{vary}");
        }
        let names = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(selecting(""), names(&[]));
        assert_eq!(selecting("Vary:"), names(&[]));
        assert_eq!(selecting("Vary: Foo,, bar ,\nVary: FOO"), names(&["bar", "foo"]));
        let many = (0..=NAMES_MAX).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(selecting(&format!("Vary: {many}")), None);
    }

    /// RFC 9111 §4.1: what is not there selects what was not there.
    #[test]
    fn every_named_field_has_to_be_the_same() {
        for (one, other, expected) in [
            ("Foo: 1\nBar: 2", "Bar: 2\nfoo: 1", true),
            ("Foo: 1\nBar: 2", "Foo: 1\nBar: 3", false),
            ("Foo: 1", "Foo: 1\nBar: 3", false),
            ("Foo: 1\nBaz: 2", "Foo: 1", true),
            ("", "", true),
            ("Foo:", "", false),
            ("Foo: 1", "Bar: 1", false),
        ] {
            assert_eq!(same("Foo, Bar", one, other), expected, "{one} {other}");
        }
    }

    /// RFC 9111 §4.1: white space and lines that mean nothing, and whatever else the field's definition says.
    #[test]
    fn what_means_the_same_is_the_same() {
        for (one, other, expected) in [
            ("Foo: 1, 2", "Foo: 1,2", true),
            ("Foo: 1\nFoo: 2", "Foo: 1 , 2", true),
            ("Foo: 1, 2", "Foo: 2, 1", false),
            ("Foo: A", "Foo: a", false),
            ("Foo: (x, y)", "Foo: (x,y)", false),
            ("Foo: \"x, y\"", "Foo: \"x,y\"", false),
            ("Accept-Encoding: gzip, br", "Accept-Encoding: BR,gzip;q=1.0", true),
            ("Accept-Encoding: gzip\nAccept-Encoding: br", "Accept-Encoding: br, gzip", true),
            ("Accept-Encoding: gzip, br, a, zstd", "Accept-Encoding: zstd, a, br, gzip", true),
            ("Accept-Encoding: a, b", "Accept-Encoding: ab", false),
            ("Accept-Encoding:", "Accept-Encoding: ,", true),
            ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip", false),
            ("Accept-Encoding: gzip;q=0.5, br", "Accept-Encoding: gzip, br;q=0.5", false),
            ("Accept-Encoding: gzip, br;q=0", "Accept-Encoding: gzip", false),
            ("Accept-Encoding: gzip;x=1, br", "Accept-Encoding: br, gzip;x=1", false),
            ("Accept-Language: en-GB , de;q=0.5", "Accept-Language: DE; q=0.500,en-gb", true),
            // Some take the order for a preference.
            ("Accept-Language: en, de", "Accept-Language: de, en", false),
            ("Accept-Language: en, de;q=0.5", "Accept-Language: en, de;q=0.6", false),
        ] {
            assert_eq!(same("Foo, Accept-Encoding, Accept-Language", one, other), expected, "{one} | {other}");
        }
    }

    /// A long list is taken as it is.
    #[test]
    fn a_long_list_is_not_put_in_order() {
        let list = |count: usize, first: &str| {
            let codings: Vec<String> = (1..count).map(|number| format!("c{number}")).collect();
            format!("Accept-Encoding: {first}{}", codings.join(","))
        };
        let both = |count: usize| (list(count, "x,"), list(count, "").to_owned() + ",x");
        let (one, other) = both(PREFERENCES_MAX);
        assert!(same("Accept-Encoding", &one, &other));
        let (one, other) = both(PREFERENCES_MAX + 1);
        assert!(!same("Accept-Encoding", &one, &other) && same("Accept-Encoding", &one, &one));
    }

    /// RFC 9110 §12.4.2.
    #[test]
    fn weights() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("Q=0.5", Some(500)),
            ("q=0.005", Some(5)),
            ("q=0.", Some(0)),
            ("q=1.000", Some(1000)),
            ("q=1.001", None),
            ("q=0.0005", None),
            ("q=2", None),
            ("q=.5", None),
            ("q=-1", None),
            ("q", None),
            ("x=1", None),
        ] {
            assert_eq!(weight_thousandths(text.as_bytes()), expected, "{text}");
        }
    }
}
