//! Looking up names where the files that say what they mean can be somebody else's for a while.
//!
//! The C library reads `/etc/hosts` and `/etc/resolv.conf` anew for each name. Whoever can write to them meanwhile decides
//! where connections go, and with them, in plain HTTP, logins.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;

/// Knows when the machine's own files are there.
pub trait Surroundings: Send + Sync {
    /// Calls `look` once, with the machine's own files there until it returns, and returns true. Where they are somebody
    /// else's, it waits for no more than a moment, and returns false without having called it.
    fn try_within(&self, look: &mut dyn FnMut()) -> bool;
}

/// How names are looked up: by default whenever that is needed.
#[derive(Clone, Default)]
pub struct Names(Option<Arc<Known>>);

struct Known {
    surroundings: Box<dyn Surroundings>,
    addresses: Mutex<HashMap<String, Vec<SocketAddr>>>,
}

impl Names {
    /// Looks up names only while the machine's own files are there. In between a name means what it meant last, and one
    /// that was never looked up is waited for.
    pub fn within(surroundings: impl Surroundings + 'static) -> Self {
        Self(Some(Arc::new(Known { surroundings: Box::new(surroundings), addresses: Mutex::default() })))
    }

    /// The addresses of a name.
    pub(crate) async fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match &self.0 {
            Some(known) => known.ask(name.to_owned()).await,
            None => Ok(tokio::net::lookup_host((name, 0)).await?.collect()),
        }
    }

    /// Sees to it that the name in a URL was looked up once: in the middle of a connection there is no time to wait. What
    /// cannot be looked up is left to the connection to complain of.
    pub(crate) async fn know(&self, url: &Url) {
        let (Some(known), Some(name)) = (&self.0, url.domain()) else { return };
        if known.remembered(name).is_none() {
            _ = known.ask(name.to_owned()).await;
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.0.is_some())
    }
}

impl Known {
    fn remembered(&self, name: &str) -> Option<Vec<SocketAddr>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn ask(self: &Arc<Self>, name: String) -> io::Result<Vec<SocketAddr>> {
        let known = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || known.look_up(&name)).await;
        asked.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        loop {
            let mut found = None;
            // The port is the connection's business.
            let mut look = || found = Some((name, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
            self.surroundings.try_within(&mut look);
            match (found, self.remembered(name)) {
                (Some(Ok(addresses)), _) => {
                    let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(name.to_owned(), addresses.clone());
                    return Ok(addresses);
                }
                (Some(Err(error)), _) => return Err(error),
                (None, Some(addresses)) => return Ok(addresses),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Away for so many tries.
    #[derive(Default)]
    struct Away {
        tries: AtomicU32,
        looks: AtomicU32,
    }

    impl Surroundings for Arc<Away> {
        fn try_within(&self, look: &mut dyn FnMut()) -> bool {
            let left = self.tries.load(Ordering::SeqCst);
            if left > 0 {
                self.tries.store(left - 1, Ordering::SeqCst);
                return false;
            }
            self.looks.fetch_add(1, Ordering::SeqCst);
            look();
            true
        }
    }

    #[test]
    fn names_are_looked_up_while_the_machines_files_are_there_and_remembered_meanwhile() {
        let away = Arc::new(Away::default());
        let Names(Some(known)) = Names::within(Arc::clone(&away)) else { panic!() };
        let looks = || away.looks.load(Ordering::SeqCst);
        // One that nobody knows is waited for.
        away.tries.store(3, Ordering::SeqCst);
        let first = known.look_up("localhost").unwrap();
        assert!(first.iter().all(|address| address.ip().is_loopback()) && !first.is_empty());
        assert_eq!((looks(), away.tries.load(Ordering::SeqCst)), (1, 0));
        // One that is known is looked up again when that can be done, and not waited for when it cannot.
        known.look_up("localhost").unwrap();
        assert_eq!(looks(), 2);
        away.tries.store(2, Ordering::SeqCst);
        assert_eq!(known.look_up("localhost").unwrap(), first);
        assert_eq!((looks(), away.tries.load(Ordering::SeqCst)), (2, 1));
        // What means nothing is no memory.
        away.tries.store(0, Ordering::SeqCst);
        known.look_up("no.such.name.invalid").unwrap_err();
        assert_eq!(known.remembered("no.such.name.invalid"), None);
    }
}
