//! Session tickets (RFC 8446 §4.6.1, RFC 5077): sealed to the gateway itself, so that nothing has to be remembered.
//!
//! The secrets are shared by all cores and, where they come from a file, by several hosts. Each kind of listener
//! derives keys of its own from them: a session that was begun with one set of client authorities is worth nothing
//! where others are trusted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use rustls::server::ProducesTickets;

/// How long a secret of our own seals new tickets.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Secrets of our own that are kept: the one in use and the one before it.
const KEPT: usize = 2;

/// Bytes of a secret's name, which stands in front of a ticket.
const NAME_LEN: usize = 16;

/// What keys are derived from.
struct Secret {
    name: [u8; NAME_LEN],
    key: hmac::Key,
}

impl Secret {
    fn new(bytes: &[u8; 32]) -> Secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(&hmac::sign(&key, b"sluice ticket name").as_ref()[..NAME_LEN]);
        Secret { name, key }
    }

    /// The key of one purpose.
    fn derive(&self, purpose: &[u8]) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"sluice ticket key");
        context.update(purpose);
        UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok().map(LessSafeKey::new)
    }
}

/// Secrets, the first for new tickets.
pub(crate) struct Secrets(ArcSwap<Vec<Arc<Secret>>>);

impl Secrets {
    /// Those of a file.
    pub(crate) fn of(keys: &[[u8; 32]]) -> Arc<Secrets> {
        let secrets = Secrets(ArcSwap::default());
        secrets.replace(keys);
        Arc::new(secrets)
    }

    /// One that is drawn now. Without randomness there is none, and without a secret there are no tickets.
    pub(crate) fn drawn() -> Arc<Secrets> {
        let secrets = Secrets(ArcSwap::default());
        secrets.renew();
        Arc::new(secrets)
    }

    /// Takes those of a file in place of the present ones. Returns whether they are others.
    pub(crate) fn replace(&self, keys: &[[u8; 32]]) -> bool {
        let secrets: Vec<_> = keys.iter().map(|key| Arc::new(Secret::new(key))).collect();
        let names = |secrets: &[Arc<Secret>]| secrets.iter().map(|secret| secret.name).collect::<Vec<_>>();
        let differs = names(&secrets) != names(&self.0.load());
        if differs {
            self.0.store(Arc::new(secrets));
        }
        differs
    }

    /// Draws a new one for new tickets, and forgets the oldest.
    pub(crate) fn renew(&self) {
        let mut bytes = [0; 32];
        if rand::fill(&mut bytes).is_ok() {
            let mut secrets = vec![Arc::new(Secret::new(&bytes))];
            secrets.extend(self.0.load().iter().take(KEPT - 1).cloned());
            self.0.store(Arc::new(secrets));
        }
    }
}

/// Seals and opens the tickets of one kind of listener.
pub(crate) struct Ticketer {
    pub(crate) secrets: Arc<Secrets>,
    /// What tells it from other kinds.
    pub(crate) purpose: Vec<u8>,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Ticketer(..)")
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        RENEW_EVERY.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let secrets = self.secrets.0.load();
        let secret = secrets.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = [&secret.name[..], &nonce, plain].concat();
        let (_, content) = ticket.split_at_mut(NAME_LEN + NONCE_LEN);
        let key = secret.derive(&self.purpose)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(secret.name), content).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_at_checked(NAME_LEN)?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>()?;
        let secrets = self.secrets.0.load();
        let secret = secrets.iter().find(|secret| secret.name == *name)?;
        let key = secret.derive(&self.purpose)?;
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(secret.name), &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(secrets: &Arc<Secrets>, purpose: &str) -> Ticketer {
        Ticketer { secrets: Arc::clone(secrets), purpose: purpose.into() }
    }

    #[test]
    fn a_ticket_is_opened_until_its_secret_is_forgotten() {
        let secrets = Secrets::drawn();
        let ours = ticketer(&secrets, "a");
        let ticket = ours.encrypt(b"session").unwrap_or_default();
        assert_eq!(ours.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        secrets.renew();
        assert_eq!(ours.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        secrets.renew();
        assert_eq!(ours.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_is_worth_nothing_elsewhere_or_changed() {
        let secrets = Secrets::drawn();
        let ticket = ticketer(&secrets, "a").encrypt(b"session").unwrap_or_default();
        assert_eq!(ticketer(&secrets, "b").decrypt(&ticket), None);
        assert_eq!(ticketer(&Secrets::drawn(), "a").decrypt(&ticket), None);
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(ticketer(&secrets, "a").decrypt(&changed), None, "{index}");
            assert_eq!(ticketer(&secrets, "a").decrypt(&ticket[..index]), None, "{index}");
        }
    }

    #[test]
    fn hosts_that_share_a_file_open_each_others_tickets() {
        let (old, new) = ([1; 32], [2; 32]);
        let ticket = ticketer(&Secrets::of(&[old]), "a").encrypt(b"session").unwrap_or_default();
        assert!(ticketer(&Secrets::of(&[new, old]), "a").decrypt(&ticket).is_some());
        assert!(ticketer(&Secrets::of(&[new]), "a").decrypt(&ticket).is_none());
    }
}
