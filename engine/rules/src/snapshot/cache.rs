//! What is kept of responses: the node's store, and the policy of a route.

use std::time::Duration;

use ipnet::IpNet;

/// What all routes with a cache share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bytes that all stored responses of the node may take together.
    pub memory_bytes: u64,
    /// Bytes of the content of one of them.
    pub object_bytes_max: u64,
    /// Clients that may purge by the method PURGE.
    pub purge: Vec<IpNet>,
}

/// What is kept of the responses of a route, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long a response stays fresh if it does not say so itself.
    pub ttl: Option<Duration>,
    /// Whether `ttl` holds whatever the origin says.
    pub ignore_origin: bool,
    /// Whether clients cannot ask for fresher responses than the cache would give.
    pub ignore_client: bool,
    /// How long an error stays fresh that does not say so itself: 404, 405, 410, 414 and 501.
    pub negative_ttl: Option<Duration>,
    /// How long a stale response is given while a fresh one is fetched, if the response does not say so itself.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response is given when the origin fails, if the response does not say so itself.
    pub stale_if_error: Option<Duration>,
    /// Percent of its lifetime by which a response may expire early, so that what came together does not go together.
    pub jitter_percent: u32,
    /// What tells requests apart.
    pub key: KeyParts,
    /// What happens to responses that set a cookie.
    pub set_cookie: SetCookie,
    /// Whether POST is answered from the cache, by its content.
    pub post: bool,
    /// Whether QUERY is answered from the cache, by its content.
    pub query: bool,
    /// Bytes of content that a request may have to be looked up by it.
    pub request_bytes_max: u64,
    /// The field in which the origin tags its responses, in lower case. `None`: `Cache-Tag` and `Surrogate-Key`.
    pub tags: Option<String>,
    /// Requests that go to the origin without a look at the cache.
    pub bypass: Vec<Bypass>,
    /// Bytes of the content of a stored response, where the route says otherwise than the node.
    pub object_bytes_max: Option<u64>,
}

impl Default for CachePolicy {
    fn default() -> Self {
        CachePolicy {
            ttl: None,
            ignore_origin: false,
            ignore_client: false,
            negative_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            jitter_percent: 0,
            key: KeyParts::default(),
            set_cookie: SetCookie::Pass,
            post: false,
            query: false,
            request_bytes_max: 64 << 10,
            tags: None,
            bypass: Vec::new(),
            object_bytes_max: None,
        }
    }
}

/// What tells requests apart, beside scheme, host and path, which always do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyParts {
    /// What of the query.
    pub query: QueryPart,
    /// Fields, by their names in lower case.
    pub headers: Vec<String>,
    /// Cookies, by their names.
    pub cookies: Vec<String>,
    /// Whether GET and HEAD are told apart.
    pub method: bool,
    /// Whether each identity has responses of its own.
    pub identity: bool,
}

/// What of the query tells requests apart. What does not is not sent to the origin either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryPart {
    /// All of it.
    #[default]
    Whole,
    /// These parameters, in this order. None: the query does not matter.
    Only(Vec<String>),
}

/// What happens to responses that set a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCookie {
    /// They are passed on and not stored.
    Pass,
    /// They are stored without the cookie, which only the client gets whose request went to the origin.
    Strip,
    /// They are stored as they are.
    Store,
}

/// Requests that go to the origin without a look at the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// With a field of this name, in lower case.
    Header(String),
    /// With a cookie of this name.
    Cookie(String),
    /// With a query parameter of this name.
    Query(String),
}
