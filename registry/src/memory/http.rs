//! As much of HTTP/1.1 as a test registry needs, so that its manners are in our hands to the byte.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest request head, and the longest body.
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: u64 = 4 << 30;

/// A request without its body.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query, on a host that means nothing.
    pub(crate) url: Url,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Head {
    /// Reads the next head of a connection; `None` at its end.
    pub(crate) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        let mut size = 0;
        loop {
            let mut line = String::new();
            let n = (&mut *stream).take(MAX_HEAD as u64).read_line(&mut line).await?;
            size += n;
            match line.trim_end() {
                _ if n == 0 && lines.is_empty() => return Ok(None),
                _ if n == 0 || size > MAX_HEAD => return Err(invalid("the head is cut or too long")),
                "" if lines.is_empty() => {}
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines[0].split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
            return Err(invalid("not a request of HTTP/1.1"));
        };
        let url = Url::parse(&format!("http://registry{target}")).map_err(|_| invalid("the target is no path"))?;
        let header = |line: &String| {
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines[1..].iter().map(header).collect::<io::Result<_>>()?;
        Ok(Some(Self { method: method.into(), url, headers }))
    }

    /// A header's value, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Reads the body, at most `limit` bytes of it.
    pub(crate) async fn body(
        &self,
        stream: &mut (impl AsyncBufRead + Unpin),
        limit: Option<u64>,
        pace: Pace,
    ) -> io::Result<Bytes> {
        if let Some(coding) = self.header("transfer-encoding") {
            // Real registries want a length for most requests, but for what is uploaded before its length is known.
            return match (self.method.as_str(), coding) {
                ("PATCH", "chunked") => chunks(stream, limit.unwrap_or(MAX_BODY), pace).await,
                _ => Err(invalid("a body without a length")),
            };
        }
        let length = self.header("content-length").unwrap_or("0");
        let length: u64 = length.parse().map_err(|_| invalid("the length is no number"))?;
        if length > MAX_BODY {
            return Err(invalid("the body is too long"));
        }
        let wanted = limit.map_or(length, |limit| limit.min(length));
        let mut body = Vec::new();
        pace.read(stream, wanted, &mut body).await?;
        if (body.len() as u64) < wanted {
            return Err(invalid("the body is cut"));
        }
        Ok(body.into())
    }
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// What of the body is sent: nothing to HEAD, and no more than `limit` bytes.
    pub(crate) fn sent(&self, head_only: bool, limit: Option<usize>) -> Bytes {
        let n = if head_only { 0 } else { limit.unwrap_or(usize::MAX).min(self.body.len()) };
        self.body.slice(..n)
    }

    /// Writes the answer, and `sent` of its body, whatever the announced length.
    pub(crate) async fn write(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        sent: &[u8],
        pace: Pace,
    ) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.status != 204 {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        stream.write_all((head + "\r\n").as_bytes()).await?;
        pace.write(stream, sent).await?;
        stream.flush().await
    }
}

/// How many bytes of a body move in a second at most; `None` where the network alone decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace(pub(crate) Option<u64>);

impl Pace {
    /// How many bytes move at once, and how long nothing moves after them.
    fn step(self) -> (u64, Option<Duration>) {
        match self.0 {
            None => (u64::MAX, None),
            Some(rate) if rate >= 50 => (rate / 50, Some(Duration::from_millis(20))),
            Some(rate) => (1, Some(Duration::from_secs(1) / rate.max(1) as u32)),
        }
    }

    /// Reads `n` bytes, or as many as there are.
    async fn read(self, stream: &mut (impl AsyncBufRead + Unpin), n: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let (step, pause) = self.step();
        let mut left = n;
        while left > 0 {
            let wanted = left.min(step);
            if ((&mut *stream).take(wanted).read_to_end(body).await? as u64) < wanted {
                return Ok(());
            }
            left -= wanted;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn write(self, stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        let (step, pause) = self.step();
        for piece in bytes.chunks(usize::try_from(step).unwrap_or(usize::MAX)) {
            stream.write_all(piece).await?;
            stream.flush().await?;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }
}

/// Reads a body in chunks (RFC 9112, 7.1), at least until it has `limit` bytes.
async fn chunks(stream: &mut (impl AsyncBufRead + Unpin), limit: u64, pace: Pace) -> io::Result<Bytes> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        (&mut *stream).take(MAX_HEAD as u64).read_line(&mut line).await?;
        let length =
            u64::from_str_radix(line.trim_end(), 16).map_err(|_| invalid("the length of a chunk is no number"))?;
        let before = body.len() as u64;
        pace.read(stream, length, &mut body).await?;
        let mut end = [0; 2];
        stream.read_exact(&mut end).await?;
        if body.len() as u64 - before < length || &end != b"\r\n" {
            return Err(invalid("a chunk is cut"));
        }
        if length == 0 || body.len() as u64 >= limit {
            return Ok(body.into());
        }
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
