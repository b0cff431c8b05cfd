//! What the clouds have in common: they are asked over HTTP and answer in JSON.

use std::time::Duration;

use serde::de::DeserializeOwned;
use yadokari_registry::{Client, Error, Request, Secret};

use crate::sandbox::Gate;

/// How long a metadata server may take. It is on this machine or its link; elsewhere nothing answers.
const NEAR: Duration = Duration::from_secs(2);

/// How long any other server may take, all tries together.
const FAR: Duration = Duration::from_secs(30);

/// The most that is read of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// The values of environment variables.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Makes a request and reads the answer.
async fn text(client: &Client, request: &Request) -> Result<Secret, Error> {
    let failed = |reason: String| Error::Configuration { what: request.shown(), reason };
    let mut reply = client.fetch(request).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reply.piece().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_ANSWER {
            return Err(failed(format!("its answer has more than {MAX_ANSWER} bytes")));
        }
    }
    String::from_utf8(bytes).map(Secret::new).map_err(|_| failed("its answer is not text".into()))
}

/// Asks a server for JSON. It gets no second address: a redirect would take the secrets with it.
pub(super) async fn far<T: DeserializeOwned>(client: &Client, request: Request) -> Result<T, String> {
    let request = request.direct();
    let answer = tokio::time::timeout(FAR, text(client, &request)).await;
    let late = |_| format!("{} did not answer within {} s", request.shown(), FAR.as_secs());
    parse(&answer.map_err(late)?.map_err(|error| error.to_string())?, &request)
}

/// Asks a metadata server for text; `None` where there is none.
pub(super) async fn near(client: &Client, request: Request) -> Result<Option<Secret>, String> {
    let request = request.direct().once();
    match tokio::time::timeout(NEAR, text(client, &request)).await {
        Err(_) | Ok(Err(Error::Unreachable { .. })) => Ok(None),
        Ok(answer) => answer.map(Some).map_err(|error| error.to_string()),
    }
}

/// The same for JSON.
pub(super) async fn near_json<T: DeserializeOwned>(client: &Client, request: Request) -> Result<Option<T>, String> {
    let answer = near(client, request.clone()).await?;
    answer.map(|answer| parse(&answer, &request)).transpose()
}

/// Reads JSON. The parser's error might quote a secret.
fn parse<T: DeserializeOwned>(answer: &Secret, request: &Request) -> Result<T, String> {
    let bad = |_| format!("what {} answers is not the JSON that it should be", request.shown());
    serde_json::from_str(answer.expose()).map_err(bad)
}

/// A GET.
pub(super) fn get(url: &str, headers: &[(&str, &str)]) -> Result<Request, String> {
    let request = Request::get(url).map_err(|error| error.to_string())?;
    headers
        .iter()
        .try_fold(request, |request, (name, value)| request.header(name, value).map_err(|error| error.to_string()))
}

/// A POST of a form.
pub(super) fn form(url: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Result<Request, String> {
    Ok(get(url, headers)?.header("content-type", FORM).map_err(|error| error.to_string())?.post(encode(fields)))
}

/// A form's fields, as RFC 3986 escapes them.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
    };
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Reads a file with a token, which is renewed now and then, when no command runs in place: then it may be away.
pub(super) async fn token_file(gate: &Gate, path: &str) -> Result<Secret, String> {
    let (gate, path) = (gate.clone(), path.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let _ours = gate.enter();
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
    });
    let text = read.await.unwrap_or_else(|error| Err(format!("reading it failed: {error}")))?;
    Ok(Secret::new(text.trim()))
}

/// Whether `host` is a name below `suffix`, and not one that only looks like it.
pub(super) fn is_below(host: &str, suffix: &str) -> bool {
    let name = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.'));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// A server that plays a cloud, and notes what it is asked.
#[cfg(test)]
pub(super) mod fake {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    pub(in crate::login) struct Fake {
        pub(in crate::login) url: String,
        asked: Arc<Mutex<Vec<String>>>,
        task: JoinHandle<()>,
    }

    impl Fake {
        /// Answers a request whose first line begins as a route does with what stands there; others with 404.
        pub(in crate::login) async fn serve(routes: &'static [(&'static str, &'static str)]) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&asked);
            let task = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let mut stream = BufReader::new(stream);
                    let mut request = String::new();
                    while !request.ends_with("\r\n\r\n") {
                        stream.read_line(&mut request).await.unwrap();
                    }
                    let length = request.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                    stream.read_exact(&mut body).await.unwrap();
                    request.push_str(std::str::from_utf8(&body).unwrap());
                    let answer = routes.iter().find(|(start, _)| request.starts_with(start)).map(|(_, body)| body);
                    let status = if answer.is_some() { 200 } else { 404 };
                    let body = answer.unwrap_or(&"no such route");
                    noted.lock().unwrap().push(request.replace("\r\n", "\n"));
                    let head =
                        format!("HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all((head + body).as_bytes()).await.unwrap();
                }
            });
            Self { url, asked, task }
        }

        /// The requests so far.
        pub(in crate::login) fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_a_clouds_are_none() {
        for (host, expected) in [
            ("x.azurecr.io", true),
            ("a.b.azurecr.io", true),
            ("azurecr.io", false),
            (".azurecr.io", false),
            ("x.azurecr.io.evil", false),
            ("xazurecr.io", false),
            ("x.azurecr.io:5000", false),
        ] {
            assert_eq!(is_below(host, "azurecr.io"), expected, "{host}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(encode(&[("a b", "é&=~"), ("c", "https://x/")]), "a%20b=%C3%A9%26%3D~&c=https%3A%2F%2Fx%2F");
    }
}
