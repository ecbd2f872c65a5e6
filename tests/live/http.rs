//! A client of the nodes' HTTP API with a bound on each wait: one request per connection, or one after the other.

use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use serde_json::Value;

/// The usual bound on the wait for an answer. The node's own is 5 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    method: &'a str,
    path: String,
    kind: &'a str,
    body: Vec<u8>,
    headers: String,
    patience: Duration,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, path: impl Into<String>) -> Self {
        let (body, headers) = (Vec::new(), String::new());
        let kind = "application/octet-stream";
        Self { method, path: path.into(), kind, body, headers, patience: PATIENCE }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.kind = "application/json";
        self
    }

    pub(crate) fn raw(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) const fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it. `None` when there is no whole answer in time.
    pub(crate) fn send(&self, to: SocketAddr) -> Option<Answer> {
        exchange(to, &self.bytes(to, "close"), self.patience)
    }

    /// Its bytes on a connection.
    fn bytes(&self, to: SocketAddr, connection: &str) -> Vec<u8> {
        let Self { method, path, kind, body, headers, .. } = self;
        let length = body.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: {connection}\r\n{headers}Content-Length: \
             {length}\r\n"
        );
        if length > 0 {
            request += &format!("Content-Type: {kind}\r\n");
        }
        [request.as_bytes(), b"\r\n", body].concat()
    }
}

/// Sends bytes on a new connection, and reads until the node closes it. `None` when there is no whole answer in time.
pub(crate) fn exchange(to: SocketAddr, request: &[u8], patience: Duration) -> Option<Answer> {
    let watch = Stopwatch::start();
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    stream.write_all(request).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left = patience.checked_sub(watch.elapsed()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut piece) {
            Ok(0) => return parse(&bytes),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            // A signal, such as that of a child's end.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

impl Ask<'_> {
    /// Sends the request over an open stream, such as one with TLS, and reads the answer to its end.
    pub(crate) fn send_over(
        &self,
        to: SocketAddr,
        mut stream: impl Read + Write,
    ) -> Option<Answer> {
        stream.write_all(&self.bytes(to, "close")).ok()?;
        stream.flush().ok()?;
        let mut answer = Vec::new();
        // With TLS the end of the stream may be an error.
        let _ = stream.read_to_end(&mut answer);
        parse(&answer)
    }
}

/// A connection for one request after the other.
#[derive(Debug)]
pub(crate) struct Kept {
    to: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Kept {
    /// Opens it. Each answer is waited for this long.
    pub(crate) fn open(to: SocketAddr, patience: Duration) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&to, patience).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        Some(Self { to, stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its answer. After `None` the connection is of no use.
    pub(crate) fn ask(&mut self, ask: &Ask<'_>) -> Option<Answer> {
        self.stream.get_mut().write_all(&ask.bytes(self.to, "keep-alive")).ok()?;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let read = self.stream.read_until(b'\n', &mut bytes).ok()?;
            if read == 0 {
                return None;
            }
        }
        let head = String::from_utf8_lossy(&bytes).into_owned();
        let head = Answer { status: 0, head, body: String::new() };
        let length = head.header("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        bytes.append(&mut body);
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let head = text(head);
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let answer = Answer { status, head, body: text(body) };
    // A connection that ended early has no whole answer.
    let length = answer.header("content-length");
    let is_whole = length.is_none_or(|length| length == body.len().to_string());
    is_whole.then_some(answer)
}

impl Answer {
    pub(crate) const fn is_ok(&self) -> bool {
        self.status / 100 == 2
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The code of a problem; empty when it is none.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().into()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// For an observation: the status and the code.
    pub(crate) fn brief(&self) -> String {
        let code = self.code();
        if code.is_empty() { self.status.to_string() } else { format!("{} {code}", self.status) }
    }
}

/// For an observation: an answer, or that there was none.
pub(crate) fn brief(answer: Option<&Answer>) -> String {
    answer.map_or_else(|| "no answer".into(), Answer::brief)
}

/// The sum of all samples of the metrics whose line has this part, over all labels; 0 without an answer.
pub(crate) fn metric(api: SocketAddr, part: &str) -> f64 {
    let Some(answer) = Ask::get("/metrics").send(api) else { return 0.0 };
    let samples = answer.body.lines().filter(|line| !line.starts_with('#') && line.contains(part));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let bytes =
            b"HTTP/1.1 409 Conflict\r\nContent-Length: 17\r\nX: y\r\n\r\n{\"code\":\"other\"}\n";
        let answer = parse(bytes).unwrap();
        assert_eq!((answer.status, answer.is_ok(), answer.code()), (409, false, "other".into()));
        assert_eq!((answer.header("x"), answer.brief()), (Some("y"), "409 other".into()));
        assert!(parse(&bytes[..bytes.len() - 1]).is_none(), "it is cut");
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none() && parse(b"").is_none());
    }
}
