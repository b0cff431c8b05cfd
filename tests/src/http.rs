//! HTTP/1.0 by hand: enough to look at a registry or a container's server without the client under test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::error::{At, Error, Result};

/// A request without a body.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    method: &'a str,
    address: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, String)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl<'a> Request<'a> {
    /// A GET of `path` from `address`, a host and a port.
    pub fn get(address: &'a str, path: &'a str) -> Self {
        Self { method: "GET", address, path, headers: Vec::new() }
    }

    /// A HEAD.
    pub fn head(address: &'a str, path: &'a str) -> Self {
        Self { method: "HEAD", ..Self::get(address, path) }
    }

    /// A DELETE.
    pub fn delete(address: &'a str, path: &'a str) -> Self {
        Self { method: "DELETE", ..Self::get(address, path) }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a user and a password.
    pub fn password(self, user: &str, password: &str) -> Self {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.header("Authorization", format!("Basic {credentials}"))
    }

    /// Sends it.
    pub fn send(&self) -> Result<Response> {
        self.exchange().map_err(|detail| self.error(detail))
    }

    /// Sends it until something answers, for as long as `limit`.
    pub fn send_until_answered(&self, limit: Duration) -> Result<Response> {
        let start = Instant::now();
        loop {
            match self.send() {
                Err(_) if start.elapsed() < limit => thread::sleep(Duration::from_millis(20)),
                answer => return answer,
            }
        }
    }

    fn exchange(&self) -> Result<Response, String> {
        let mut stream = TcpStream::connect(self.address).map_err(|e| e.to_string())?;
        let mut head = format!("{} {} HTTP/1.0\r\nHost: {}\r\n", self.method, self.path, self.address);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = Vec::new();
        let limit = Some(Duration::from_secs(30));
        let sent = stream.set_read_timeout(limit).and_then(|()| stream.write_all(format!("{head}\r\n").as_bytes()));
        sent.and_then(|()| stream.read_to_end(&mut bytes)).map_err(|e| e.to_string())?;
        parse(&bytes).ok_or_else(|| format!("not HTTP: {:?}", String::from_utf8_lossy(&bytes)))
    }

    fn error(&self, detail: String) -> Error {
        Error::Http { method: self.method.into(), address: self.address.into(), path: self.path.into(), detail }
    }
}

impl Response {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An address on loopback that nobody listens on at the moment.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").at("bind", "127.0.0.1")?;
    listener.local_addr().map(|address| address.to_string()).at("bind", "127.0.0.1")
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    Some(Response { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_half_of_one_is_not() {
        let response = parse(b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((response.status, response.header("content-length"), &*response.text()), (404, Some("2"), "no"));
        assert_eq!(parse(b"HTTP/1.0 404 Not Fo"), None);
    }
}
