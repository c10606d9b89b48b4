//! What a route matches, as it stands in a file.

use std::fmt::{self, Display, Formatter};

use super::{HostPattern, Matcher, PathPattern, Segment, ValuePattern};

impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(HostPattern::to_string).collect();
        if !hosts.is_empty() {
            write!(f, "host {}, ", hosts.join(" or "))?;
        }
        write!(f, "path {}", self.path)?;
        if !self.methods.is_empty() {
            write!(f, ", methods {}", self.methods.join(" or "))?;
        }
        for (name, value) in &self.headers {
            write!(f, ", field {name}{value}")?;
        }
        for (name, value) in &self.query {
            write!(f, ", query {name}{value}")?;
        }
        Ok(())
    }
}

impl Display for HostPattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl Display for PathPattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Exact(path) => f.write_str(path),
            PathPattern::Prefix(prefix) => write!(f, "{prefix}/*"),
            PathPattern::Template { segments, rest } => {
                for segment in segments {
                    match segment {
                        Segment::Text(text) => write!(f, "/{text}")?,
                        Segment::Param(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                if *rest { f.write_str("/*") } else { Ok(()) }
            }
            // As `PathPattern::regex` was given it.
            PathPattern::Regex(regex) => {
                let text = regex.as_str();
                f.write_str(text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text))
            }
        }
    }
}

impl Display for ValuePattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ValuePattern::Exact(text) => write!(f, "={text}"),
            ValuePattern::Regex(regex) => write!(f, "~{regex}"),
            ValuePattern::Present => Ok(()),
        }
    }
}
