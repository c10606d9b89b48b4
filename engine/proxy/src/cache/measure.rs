//! A store and a core's index with many objects, for the benches.

use std::sync::Arc;

use sluice_rules::cache::Moment;
use sluice_rules::cache::stored::Facts;

use super::account::Segment;
use super::fill::Fill;
use super::index::Index;
use super::object::{Object, Parts};
use super::post::Post;
use super::store::{Begun, Store};

const NOW: Moment = Moment(1_000);

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nDate: Wed, 25 Nov 2026 03:02:42 GMT\r\n\r\n";

/// Objects that a core serves.
pub struct Warm {
    store: Store,
    index: Index,
    objects: u64,
}

impl Warm {
    /// Stores so many objects with bodies of this length.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn new(objects: u64, body_bytes: usize) -> Self {
        let limit = objects.saturating_mul(body_bytes as u64 + 2_000).max(64 << 20);
        let store = Store::new(limit, 1 << 20, Post::new(1, Arc::new([])));
        let index = Index::new(0);
        for number in 0..objects {
            let (object, fill) = object(&store, number, &vec![0; body_bytes]);
            assert!(store.put(&fill, Arc::clone(&object), NOW, |_| false), "there is room");
            index.insert(object);
        }
        Warm { store, index, objects }
    }

    /// Bytes of the texts and the body of each object, which are not overhead.
    pub fn texts_bytes(&self, body_bytes: usize) -> usize {
        let number = self.objects / 2;
        2 * url(number).len() + HEAD.len() + body_bytes
    }

    /// The keys of so many objects all over the store, made beforehand.
    pub fn keys(&self, count: u64) -> Vec<String> {
        (0..count).map(|number| url(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.objects)).collect()
    }

    /// Looks an object up as a hit does, from its key on. Returns the length of its body.
    pub fn look_up(&self, key: &str) -> Option<u64> {
        let mut found = None;
        self.index.find(&self.store, self.store.secret.hash(key.as_bytes()), NOW, |indexed| {
            let object = indexed.object();
            if object.key() == key.as_bytes() && object.facts_now().is_fresh(NOW) {
                object.used();
                found = Some(object.body_bytes());
            }
        });
        found
    }
}

fn url(number: u64) -> String {
    format!("http://www.example.com/articles/{number:08}")
}

fn object(store: &Store, number: u64, body: &[u8]) -> (Arc<Object>, Arc<Fill>) {
    let url = url(number);
    let Begun::Lead(fill) = store.begin(store.secret.hash(url.as_bytes()), None, |_| true) else {
        unreachable!("nobody else asks")
    };
    let parts = Parts {
        hash: fill.hash,
        key: url.as_bytes(),
        url: &url,
        tags: &[],
        selecting: None,
        secondary: b"",
        head: HEAD,
        facts: Facts {
            received: NOW,
            initial_age_millis: 0,
            fresh_until: NOW.after(60_000),
            date: 0,
            last_modified: None,
            etag: None,
            lifetime: 60,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            status: 200,
            always_validate: false,
            never_stale: false,
            stale_by_leave_only: false,
        },
        generation: fill.generation,
        fetched_millis: 1,
    };
    let charged = |bytes| store.account.charge(bytes).expect("there is room");
    let segments = vec![Segment::new(body, charged(Segment::charged_bytes(body.len())))];
    let charge = charged(Object::charged_bytes(&parts, &segments));
    (Object::new(&parts, segments, charge).expect("it is small"), fill)
}
