//! Logins that end: providers asked again, tokens renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::auth::{bearer, push, serve, tokens_asked};
use super::{answer, client, count, logged_in, quick, repository};
use crate::memory::{Auth, Fault, Memory};
use crate::{
    BlobSource, BytesBlob, Client, ClientOptions, Credentials, Error, Lease, Login, Provider, Secret, Source,
    Store as _,
};

/// A cloud whose logins have a number, the password of which the registry takes.
#[derive(Debug)]
struct Cloud {
    asked: AtomicUsize,
    life: Option<Duration>,
    /// The first answers that are of no use.
    stale: usize,
}

#[async_trait::async_trait]
impl Provider for Cloud {
    fn name(&self) -> String {
        "cloud".into()
    }

    fn covers(&self, _: &str) -> bool {
        true
    }

    async fn login(&self, _: &Client, _: &str) -> Result<Option<Lease>, String> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let password = if number < self.stale { format!("old-{number}") } else { "hunter2".into() };
        let login = Login::Password { user: "ci".into(), password: Secret::new(password) };
        Ok(Some(Lease { login, life: self.life }))
    }
}

fn cloudy(stale: usize, life: Option<Duration>) -> (Arc<Cloud>, ClientOptions) {
    let cloud = Arc::new(Cloud { asked: AtomicUsize::new(0), life, stale });
    let mut credentials = Credentials::default();
    credentials.push(Source::new("cloud").asking(None, Arc::clone(&cloud) as Arc<dyn Provider>));
    (cloud, ClientOptions { credentials, ..quick() })
}

#[tokio::test]
async fn a_provider_is_asked_once_for_all_and_again_when_its_answer_is_refused() {
    let basic = Auth::Basic { user: "ci".into(), password: "hunter2".into() };
    for auth in [basic, bearer()] {
        let is_basic = matches!(auth, Auth::Basic { .. });
        let served = serve(&Memory::new(), auth).await;
        for (stale, asked) in [(0, 1), (1, 2)] {
            let (cloud, options) = cloudy(stale, None);
            let store = repository(&client(options), &served, "app");
            let uploads = (0..8).map(|n| {
                let store = store.clone();
                async move { store.write_blob(&BytesBlob::new(format!("{n}{stale}")), None).await.unwrap() }
            });
            if stale > 0 && is_basic {
                // What the registry takes at first it refuses later.
                let challenge = answer(401, &[("WWW-Authenticate", "Basic")], "");
                let started = answer(202, &[("Location", "/v2/app/blobs/uploads/1")], "");
                for effect in [challenge, started] {
                    served.inject(Fault { method: "POST", path: "", times: 1, effect });
                }
                store.check_push().await.unwrap();
            }
            futures_util::future::join_all(uploads).await;
            assert_eq!(cloud.asked.load(Ordering::SeqCst), asked);
        }
        let (cloud, options) = cloudy(99, None);
        let error = push(options, &served).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(cloud.asked.load(Ordering::SeqCst) <= 6, "it is not asked without end");
    }
}

/// A program that waits for something, but for one registry.
#[derive(Debug)]
struct Stuck {
    quick: String,
}

#[async_trait::async_trait]
impl Provider for Stuck {
    fn name(&self) -> String {
        "stuck".into()
    }

    fn covers(&self, _: &str) -> bool {
        true
    }

    async fn login(&self, _: &Client, registry: &str) -> Result<Option<Lease>, String> {
        if registry != self.quick {
            std::future::pending::<()>().await;
        }
        let login = Login::Password { user: "ci".into(), password: Secret::new("hunter2") };
        Ok(Some(Lease { login, life: None }))
    }
}

#[tokio::test]
async fn a_registry_does_not_wait_for_the_login_of_another() {
    let auth = Auth::Basic { user: "ci".into(), password: "hunter2".into() };
    let (here, there) = (serve(&Memory::new(), auth.clone()).await, serve(&Memory::new(), auth).await);
    let mut credentials = Credentials::default();
    credentials.push(Source::new("stuck").asking(None, Arc::new(Stuck { quick: here.host() })));
    let client = client(ClientOptions { credentials, ..quick() });
    let waiting = repository(&client, &there, "app");
    let waiting = tokio::spawn(async move { waiting.check_push().await });
    while count(&there, "POST", "/uploads/") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pushed = {
        let store = repository(&client, &here, "app");
        tokio::time::timeout(Duration::from_secs(20), store.check_push()).await
    };
    pushed.expect("one lock for all registries").unwrap();
    waiting.abort();
}

#[tokio::test]
async fn what_a_provider_gave_is_renewed_before_it_is_over() {
    let served = serve(&Memory::new(), Auth::Basic { user: "ci".into(), password: "hunter2".into() }).await;
    let (cloud, options) = cloudy(0, Some(Duration::from_millis(400)));
    let store = repository(&client(options), &served, "app");
    store.check_push().await.unwrap();
    store.check_push().await.unwrap();
    assert_eq!(cloud.asked.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(370)).await;
    store.check_push().await.unwrap();
    assert_eq!(cloud.asked.load(Ordering::SeqCst), 2, "after nine tenths of its life");
}

#[tokio::test]
async fn a_token_that_is_over_in_the_middle_of_an_upload_is_renewed() {
    let memory = Memory::new();
    let life = Duration::from_millis(300);
    let auth = Auth::Bearer { user: "ci".into(), password: "hunter2".into(), life };
    let served = serve(&memory, auth).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    // The body takes longer than the token lives; the registry looks at the token when it has come.
    let pause = Duration::from_millis(60);
    let slow = Slow { content: BytesBlob::new(vec![7; 20]), pause, opened: AtomicBool::new(false) };
    store.write_blob(&slow, None).await.unwrap();
    assert_eq!(memory.repository("app").blobs(), [slow.content.digest()]);
    let refused = served.seen().iter().filter(|seen| seen.method == "PUT" && seen.status == 401).count();
    assert!(refused >= 1, "the token was good to the end");
    assert!(tokens_asked(&served) >= 2);
}

/// A blob that is read a byte at a time, with pauses, when it is read for the first time.
#[derive(Debug)]
struct Slow {
    content: BytesBlob,
    pause: Duration,
    opened: AtomicBool,
}

struct Trickle {
    inner: Box<dyn std::io::Read + Send>,
    pause: Duration,
}

impl BlobSource for Slow {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn digest(&self) -> crate::Digest {
        self.content.digest()
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        let inner = self.content.open()?;
        let is_first = !self.opened.swap(true, Ordering::SeqCst);
        Ok(if is_first { Box::new(Trickle { inner, pause: self.pause }) } else { inner })
    }
}

impl std::io::Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(self.pause);
        let n = buffer.len().min(1);
        self.inner.read(&mut buffer[..n])
    }
}
