//! What changes in a request's fields on its way to the upstream.

use sluice_wire::Name;
use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::forwarded::{self, Hop};
use sluice_wire::h1::body::Framing;
use sluice_wire::h1::encode::Edits;
use sluice_wire::head::{NameSet, Request};

use crate::snapshot::Underscores;

/// Fields of a request that are made anew or end here.
const REMOVED: NameSet = fields::HOP_BY_HOP.union(NameSet::of(&[Name::Host, Name::Expect]));

/// A request about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// As it was received.
    pub request: Request<'a>,
    /// The authority that the client asked for.
    pub authority: &'a str,
    /// What upstreams are told of the client.
    pub hop: &'a Hop,
    /// How the end of the content is known.
    pub framing: Framing,
    /// What the client's `Connection` says.
    pub connection: ConnectionOptions,
    /// What happens to field names with an underscore.
    pub underscores: Underscores,
    /// Whether the client waits for a 100 before it sends its content.
    pub expects_continue: bool,
    /// The protocol that the connection may be upgraded to.
    pub upgrade: Option<&'a str>,
    /// What `Max-Forwards` is sent on.
    pub max_forwards: Option<u64>,
}

impl Outgoing<'_> {
    /// Lays over the request's fields what changes.
    pub fn edit(&self, edits: &mut Edits) {
        let table = &self.request.head.fields;
        edits.clear();
        edits.remove(REMOVED);
        if self.framing != Framing::Chunked && table.has(Name::Trailer) {
            edits.remove(NameSet::of(&[Name::Trailer]));
        }
        edits.remove_named(self.connection, self.request.bytes, table);
        if self.underscores != Underscores::Refuse {
            self.remove_underscores(edits);
        }
        self.hop.write(edits, self.request, self.authority);
        forwarded::via(edits, self.request.head.version);
        match self.framing {
            Framing::Chunked => edits.add_lines(b"Transfer-Encoding: chunked\r\n"),
            // All of it is there, though nobody has said how long it would be.
            Framing::Length(length) if !table.has(Name::ContentLength) => {
                edits.add("Content-Length", &[itoa::Buffer::new().format(length).as_bytes()]);
            }
            Framing::Length(_) | Framing::Empty | Framing::UntilClose => {}
        }
        if self.expects_continue {
            edits.add_lines(b"Expect: 100-continue\r\n");
        }
        if let Some(protocol) = self.upgrade {
            edits.add_lines(b"Connection: upgrade\r\n");
            edits.add("Upgrade", &[protocol.as_bytes()]);
        }
        if let Some(hops) = self.max_forwards {
            edits.remove(NameSet::of(&[Name::MaxForwards]));
            edits.add("Max-Forwards", &[itoa::Buffer::new().format(hops).as_bytes()]);
        }
    }

    /// Removes the fields whose names have an underscore: all of them, or those that an application might take for
    /// a field that means something to the gateway.
    fn remove_underscores(&self, edits: &mut Edits) {
        for (position, line) in self.request.head.fields.lines().iter().enumerate() {
            let name = line.name_span.of(self.request.bytes);
            if line.name != Name::Other || !name.contains(&b'_') {
                continue;
            }
            let hyphenated: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
            if self.underscores == Underscores::Drop || Name::of(&hyphenated) != Name::Other {
                edits.remove_line(position);
            }
        }
    }
}
