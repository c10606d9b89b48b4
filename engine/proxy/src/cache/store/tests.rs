//! The store: what it holds, for how long, and that it holds to its bound.

use std::thread;

use sluice_rules::cache::stored::Facts;
use sluice_rules::cache::tags::Pattern;

use super::super::account::Segment;
use super::super::index::Index;
use super::super::object::Parts;
use super::super::post::Word;
use super::*;

const NOW: Moment = Moment(1_000_000);

fn store(limit_bytes: u64, object_bytes_max: u64) -> Store {
    Store::new(limit_bytes, object_bytes_max, Post::new(2, Arc::new([])))
}

fn facts() -> Facts {
    Facts {
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
    }
}

fn hash(store: &Store, number: u64) -> u128 {
    store.secret.hash(&number.to_be_bytes())
}

fn object(store: &Store, fill: &Fill, number: u64, secondary: &[u8], body: &[u8]) -> Option<Arc<Object>> {
    let key = number.to_be_bytes();
    let url = format!("http://h{}.example/{number}", number % 2);
    let tags = [store.purges.tag(&format!("t{}", number % 10))];
    let parts = Parts {
        hash: fill.hash,
        key: &key,
        url: &url,
        tags: &tags,
        selecting: None,
        secondary,
        head: b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 03:02:42 GMT\r\n\r\n",
        facts: facts(),
        generation: fill.generation,
        fetched_millis: 5,
    };
    let segments: Option<Vec<_>> = body
        .chunks(64 << 10)
        .map(|part| {
            let charge = charged(store, fill.hash, Segment::charged_bytes(part.len()))?;
            Some(Segment::new(part, charge))
        })
        .collect();
    let segments = segments?;
    let charge = charged(store, fill.hash, Object::charged_bytes(&parts, &segments))?;
    Object::new(&parts, segments, charge)
}

fn charged(store: &Store, hash: u128, bytes: u64) -> Option<Charge> {
    store.charge(hash, bytes).or_else(|| store.account.charge(bytes))
}

/// Asks for an object and stores it. Whether it is in.
fn put(store: &Store, number: u64, body: &[u8]) -> bool {
    let hash = hash(store, number);
    let Begun::Lead(fill) = store.begin(hash, None, |_| true) else { panic!("nobody else asks") };
    match object(store, &fill, number, b"", body) {
        Some(object) => store.put(&fill, object, NOW, |_| true),
        None => {
            store.abandon(&fill, None, NOW);
            false
        }
    }
}

fn holds(store: &Store, number: u64) -> bool {
    !store.find(hash(store, number), NOW).objects.is_empty()
}

/// An object has little beside its texts and its body.
#[test]
fn an_object_is_small() {
    assert!(size_of::<Object>() <= 224, "{}", size_of::<Object>());
}

#[test]
fn what_was_put_in_is_found_with_its_body() {
    let store = store(16 << 20, 1 << 20);
    let body: Vec<u8> = (0..200_000u32).map(|byte| byte as u8).collect();
    assert!(put(&store, 1, &body) && put(&store, 2, b"small"));
    for (number, body) in [(1, &body[..]), (2, b"small")] {
        let found = store.find(hash(&store, number), NOW);
        let [object] = &found.objects[..] else { panic!("one object") };
        let mut read = Vec::new();
        while (read.len() as u64) < object.body_bytes() {
            read.extend_from_slice(object.body_at(read.len() as u64));
        }
        assert_eq!(read, body);
        assert_eq!(object.key(), number.to_be_bytes());
        assert!(object.body_at(object.body_bytes()).is_empty());
    }
}

/// Ten times the memory is pushed through; at no time is more in use than there may be, and what is asked for all the
/// time stays.
#[test]
fn memory_holds_to_its_bound_while_ten_times_of_it_is_pushed_through() {
    let limit = 8 << 20;
    let store = store(limit, 256 << 10);
    let body = vec![7; 200_000];
    let (mut pushed, mut number, mut refused) = (0, 0u64, 0);
    while pushed < 10 * limit {
        number += 1;
        let bytes = [500, 3_000, 20_000, 200_000][(number % 4) as usize];
        refused += u32::from(!put(&store, number, &body[..bytes]));
        pushed += bytes as u64;
        if let Some(favourite) = store.find(hash(&store, 2), NOW).objects.first() {
            favourite.used();
        }
        assert!(store.account.in_use_bytes() <= limit, "after {number} objects");
    }
    assert!(holds(&store, 2) && !holds(&store, 1));
    assert_eq!(refused, 0);
    assert!(store.account.in_use_bytes() > limit / 2, "the room is used");
    let objects = store.figures.objects.load(Ordering::Relaxed);
    assert!(store.figures.evictions.load(Ordering::Relaxed) + objects == number);
}

/// What is still being sent although it was evicted counts, so that slow clients cannot make the cache outgrow its
/// bound.
#[test]
fn what_is_evicted_and_still_in_use_counts() {
    let store = store(4 << 20, 512 << 10);
    let body = vec![7; 400_000];
    let mut held = Vec::new();
    for number in 0..40 {
        put(&store, number, &body);
        held.extend(store.find(hash(&store, number), NOW).objects);
        assert!(store.account.in_use_bytes() <= 4 << 20);
    }
    assert!(held.len() < 11, "there was no room for more");
    held.clear();
    assert!(put(&store, 100, &body));
}

#[test]
fn what_is_larger_than_there_is_room_for_is_refused() {
    let store = store(1 << 20, 64 << 20);
    assert!(!put(&store, 1, &vec![0; 2 << 20]));
    assert!(put(&store, 2, &vec![0; 100_000]));
}

#[test]
fn one_asks_and_the_others_follow_until_it_is_stored() {
    let store = store(16 << 20, 1 << 20);
    let hash = hash(&store, 1);
    let seen = store.find(hash, NOW).insertions;
    let Begun::Lead(fill) = store.begin(hash, Some(seen), |_| true) else { panic!("the first leads") };
    assert!(matches!(store.begin(hash, Some(seen), |_| true), Begun::Follow(other) if Arc::ptr_eq(&other, &fill)));
    let Begun::Lead(other) = store.begin(hash, Some(seen), |_| false) else { panic!("it is not for everybody") };
    store.abandon(&other, None, NOW);
    let object = object(&store, &fill, 1, b"", b"x").expect("there is room");
    assert!(store.put(&fill, object, NOW, |_| true));
    assert!(matches!(store.begin(hash, Some(seen), |_| true), Begun::Again), "it has come meanwhile");
}

#[test]
fn that_a_response_is_not_stored_is_remembered_for_a_while() {
    let store = store(16 << 20, 1 << 20);
    let hash = hash(&store, 1);
    let Begun::Lead(fill) = store.begin(hash, None, |_| true) else { panic!("the first leads") };
    store.abandon(&fill, Some(NOW.after(1_000)), NOW);
    assert!(store.find(hash, NOW).passes);
    assert!(!store.find(hash, NOW.after(1_000)).passes);
}

/// A purge is for what was asked for before it, stored or not, and for nothing else.
#[tokio::test]
async fn a_purge_reaches_what_is_stored_and_what_is_on_its_way() {
    let store = store(16 << 20, 1 << 20);
    for number in 0..100 {
        put(&store, number, b"body");
    }
    let Begun::Lead(fill) = store.begin(hash(&store, 200), None, |_| true) else { panic!("the first leads") };
    let pattern = Pattern::tag("t0").expect("a tag");
    store.purges.purge(&pattern, Manner::Hard).expect("there is room for it");
    let index = Index::new(1);
    for object in store.find(hash(&store, 10), NOW).objects {
        index.insert(object);
    }
    let mut found = 0;
    index.find(&store, hash(&store, 10), NOW, |_| found += 1);
    assert_eq!(found, 0, "before any sweep");
    store.sweep(NOW, async || {}).await;
    let left = (0..100).filter(|number| holds(&store, *number)).count();
    assert_eq!((left, store.figures.objects.load(Ordering::Relaxed)), (90, 90));
    let late = object(&store, &fill, 200, b"", b"x").expect("there is room");
    assert!(!store.put(&fill, late, NOW, |_| true), "it may have been made before the purge");
    store.sweep(NOW, async || {}).await;
    assert!(store.purges.is_empty(), "it is forgotten once nothing can be meant by it");
    assert!(put(&store, 10, b"body"), "what comes later is stored");
}

#[tokio::test]
async fn a_soft_purge_makes_stale() {
    let store = store(16 << 20, 1 << 20);
    put(&store, 1, b"body");
    store.purges.purge(&Pattern::All, Manner::Soft).expect("there is room for it");
    store.sweep(NOW.after(5_000), async || {}).await;
    let found = store.find(hash(&store, 1), NOW);
    let facts = found.objects[0].facts_now();
    assert!(facts.is_fresh(NOW) && !facts.is_fresh(NOW.after(5_000)));
}

/// A core hears of what is gone and lets go of it, so that its memory is free.
#[test]
fn cores_hear_of_what_is_gone() {
    let store = store(16 << 20, 1 << 20);
    put(&store, 1, &[0; 100_000]);
    let index = Index::new(1);
    let mut held = store.find(hash(&store, 1), NOW).objects;
    held.iter().for_each(|object| drop(index.insert(Arc::clone(object))));
    held.clear();
    let before = store.account.in_use_bytes();
    store.remove(hash(&store, 1), |_| true);
    assert_eq!(store.account.in_use_bytes(), before, "the core still has it");
    assert!(store.post.take(0).is_none(), "the other core does not have it");
    let Some(Word { gone, .. }) = store.post.take(1) else { panic!("there is word") };
    gone.into_iter().for_each(|hash| index.forget(hash));
    assert_eq!(store.account.in_use_bytes(), 0);
    // One that goes before the core has said that it has it is not kept.
    put(&store, 2, &[0; 100_000]);
    let late = store.find(hash(&store, 2), NOW).objects;
    store.remove(hash(&store, 2), |_| true);
    late.into_iter().for_each(|object| drop(index.insert(object)));
    assert_eq!(store.account.in_use_bytes(), 0);
}

/// Insertions, look-ups, purges and sweeps from several threads: nothing is lost, and every byte comes back.
#[test]
fn threads_leave_nothing_behind() {
    let store = Arc::new(store(4 << 20, 256 << 10));
    let threads = (0..3u64).map(|thread| {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            for round in 0..2_000u64 {
                let number = (round * 7 + thread * 13) % 300;
                match store.begin(hash(&store, number), None, |_| true) {
                    Begun::Lead(fill) => match object(&store, &fill, number, b"", &[1; 9_000]) {
                        Some(object) => drop(store.put(&fill, object, NOW, |_| true)),
                        None => store.abandon(&fill, None, NOW),
                    },
                    Begun::Follow(_) | Begun::Again | Begun::Alone => {}
                }
                store.find(hash(&store, number + 1), NOW);
                if round % 100 == 0 {
                    let pattern = Pattern::tag(&format!("t{}", round % 10)).expect("a tag");
                    let _ = store.purges.purge(&pattern, Manner::Hard);
                }
                assert!(store.account.in_use_bytes() <= 4 << 20);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no panic");
    }
    for number in 0..301 {
        store.remove(hash(&store, number), |_| true);
    }
    assert_eq!(store.account.in_use_bytes(), 0);
    assert_eq!(store.figures.objects.load(Ordering::Relaxed), 0);
    assert_eq!(store.figures.stored_bytes.load(Ordering::Relaxed), 0);
}
