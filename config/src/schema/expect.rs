//! The `[[test]]` tables: requests, and what is to become of them.

use std::net::IpAddr;

use sluice_rules::check::Url;

use crate::matching::ByField;
use crate::read::{At, Context, FromToml, Node, Optional, Shape, Value, table};
use crate::values::{FieldValue, Int, Method, Name, text};

table! {
    /// A request, and what is to become of it. `sluice check` runs it, and a reload that breaks it is refused.
    pub struct Test {
        /// What it is about.
        name: At<Name>,
        /// What is asked.
        request: At<TestRequest>,
        /// What is expected: at least one thing.
        expect: At<Expect>,
    }
}

table! {
    /// The request of a test.
    pub struct TestRequest {
        /// The method.
        method: At<Method> = "GET",
        /// The URL, such as `https://example.com/path?query`.
        url: At<TestUrl>,
        /// Fields beside `Host`.
        fields: Optional<ByField<FieldValue>>,
        /// Where the client is.
        client_ip: Optional<Ip>,
        /// Whether the client speaks HTTP/2, if the listener does.
        http2: At<bool> = false,
    }
}

text! {
    /// The URL of a request.
    TestUrl(Url), "a URL",
    |text| Url::parse(text).map_err(str::to_owned)
}

text! {
    /// An address without a port.
    Ip(IpAddr), "an IP address",
    |text| text.parse().map_err(|_| "expected an address such as 192.0.2.1".into())
}

table! {
    /// What is expected of a request: all of it has to hold.
    pub struct Expect {
        /// The status of a response that the gateway makes by itself.
        status: Optional<Int<200, 599>>,
        /// The name of the route that takes it.
        route: Optional<Name>,
        /// The name of the upstream that it is sent to.
        upstream: Optional<Name>,
        /// The `Location` of a redirect.
        location: Optional<String>,
        /// The target that is sent to the upstream, such as `/path?query`.
        sent_target: Optional<String>,
        /// The `Host` that is sent to the upstream.
        sent_host: Optional<String>,
        /// Fields that are sent to the upstream: their value, or `false` for one that is not sent.
        sent_fields: Optional<ByField<SentField>>,
    }
}

/// The value of a field that is sent. `None`: it is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentField(pub Option<String>);

impl FromToml for SentField {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Boolean(false) => Some(SentField(None)),
            Value::Text(_) => FieldValue::read(node, context).map(|value| SentField(Some(value.0))),
            _ => {
                context.wrong_type(node, "a string or false");
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![FieldValue::shape(), Shape::Boolean])
    }
}
