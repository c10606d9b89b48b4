//! Templates filled with what was matched: the target and host that are sent, and where a redirect goes.

use sluice_wire::authority::Authority;
use sluice_wire::target::{Target, TargetError};

use crate::failure::Failure;
use crate::route::Params;
use crate::snapshot::{Piece, Rewrite, TargetPolicy, Template};

/// What holes in a template are filled with.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The values of path parameters.
    pub params: &'a Params,
    /// The normalised target.
    pub target: &'a Target,
    /// The canonical authority.
    pub authority: &'a Authority,
}

/// What is sent in place of what was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Path and query.
    pub target: Option<String>,
    /// Host and port.
    pub host: Option<String>,
}

impl Values<'_> {
    /// The target and host that are sent, where the route wants others than were received. What parameters make of
    /// them is held to the same rules as what was received.
    ///
    /// # Errors
    /// What came out is no valid target or host.
    pub fn rewrite(&self, rewrite: &Rewrite, policy: TargetPolicy) -> Result<Rewritten, Failure> {
        let host = match &rewrite.host {
            Some(host) => {
                let mut canonical = Authority::default();
                canonical.read(self.fill(host).as_bytes()).map_err(|_| Failure::RequestHost)?;
                Some(canonical.as_str().to_owned())
            }
            None => None,
        };
        if rewrite.path.is_none() && rewrite.query.is_none() {
            return Ok(Rewritten { target: None, host });
        }
        let mut target = match &rewrite.path {
            Some(path) => self.fill(path),
            None => self.target.path().to_owned(),
        };
        let query = match &rewrite.query {
            Some(query) => Some(self.fill(query)).filter(|query| !query.is_empty()),
            None => self.target.query().map(str::to_owned),
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        let mut canonical = Target::default();
        canonical.read("GET", target.as_bytes(), policy).map_err(Failure::RequestTarget)?;
        Ok(Rewritten { target: Some(canonical.as_str().to_owned()), host })
    }

    /// Where a redirect goes.
    ///
    /// # Errors
    /// What a client sends must not choose the host that it is sent to.
    pub fn location(&self, to: &Template) -> Result<String, Failure> {
        let location = self.fill(to);
        if location.starts_with("//") { Err(Failure::RequestTarget(TargetError::Form)) } else { Ok(location) }
    }

    /// A template with its holes filled.
    fn fill(&self, template: &Template) -> String {
        let mut text = String::new();
        for piece in &template.0 {
            text.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Param(param) => self.params.get(*param, self.target.path()),
                Piece::Path => self.target.path(),
                Piece::Query => self.target.query().unwrap_or_default(),
                Piece::Host => self.authority.host(),
            });
        }
        text
    }
}
