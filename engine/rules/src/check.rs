//! What the `[[test]]` tables of a configuration ask for and expect.

use std::net::IpAddr;

/// A request, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The name from the file.
    pub name: String,
    /// Where it stands, as `file:line`.
    pub place: String,
    /// What is asked.
    pub request: TestRequest,
    /// What is expected.
    pub expect: Expect,
}

/// A request as a test or an operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: Url,
    /// Fields beside `Host`, with names in lower case.
    pub fields: Vec<(String, String)>,
    /// Where the client is. `None`: it does not matter.
    pub client_ip: Option<IpAddr>,
}

/// An `http` URL, apart as far as a request needs it. Whether its parts are valid is for the request to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and maybe port.
    pub authority: String,
    /// Path and query as they were written, from the first slash or question mark on; `/` if there is nothing.
    pub target: String,
}

impl Url {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err("expected a URL such as http://example.com/path");
        };
        if text.contains(|character: char| character.is_control() || character == ' ') {
            return Err("a URL has no spaces and no control characters");
        }
        if rest.contains('#') {
            return Err("a fragment is never sent");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("the host is missing");
        }
        let target = match target.as_bytes().first() {
            Some(b'/') => target.to_owned(),
            _ => format!("/{target}"),
        };
        Ok(Url { authority: authority.to_owned(), target })
    }
}

/// What is expected of a request: of several, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The status of a response that the gateway makes by itself.
    pub status: Option<u16>,
    /// The name of the route that takes it.
    pub route: Option<String>,
    /// The name of the upstream that it is sent to.
    pub upstream: Option<String>,
    /// The `Location` of a redirect.
    pub location: Option<String>,
    /// The target that is sent to the upstream.
    pub sent_target: Option<String>,
    /// The `Host` that is sent to the upstream.
    pub sent_host: Option<String>,
    /// Fields that are sent to the upstream, with names in lower case. `None`: a field that is not sent.
    pub sent_fields: Vec<(String, Option<String>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        for (text, authority, target) in [
            ("http://a", "a", "/"),
            ("http://a/", "a", "/"),
            ("http://a:80/b//../c?d=/e", "a:80", "/b//../c?d=/e"),
            ("http://[::1]?x", "[::1]", "/?x"),
        ] {
            let expected = Url { authority: authority.into(), target: target.into() };
            assert_eq!(Url::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "/a", "a", "https://a", "http://", "http:///a", "http://a/b c", "http://a/#b", "http://a\r\n"]
        {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
