//! As much of redis' protocol (RESP2) as the samples need, over any stream.

/// A longer answer is refused.
const MAX_ANSWER: usize = 1 << 20;

/// What bytes go through.
pub trait Stream {
    /// Sends all of them.
    fn send(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// Waits for some; none means that the other side has ended.
    fn receive(&mut self) -> Result<Vec<u8>, String>;
}

#[cfg(unix)]
impl Stream for std::net::TcpStream {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        std::io::Write::write_all(self, bytes).map_err(|error| format!("redis: {error}"))
    }

    fn receive(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; 16 << 10];
        let length = std::io::Read::read(self, &mut bytes).map_err(|error| format!("redis: {error}"))?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// A connection to a redis.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Stream> Connection<S> {
    /// Speaks over a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a command and reads its answer: the elements of an array, or one value, or none.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(format!("${}\r\n", word.len()).bytes());
            message.extend_from_slice(word);
            message.extend_from_slice(b"\r\n");
        }
        self.stream.send(&message)?;
        self.value()
    }

    fn value(&mut self) -> Result<Vec<String>, String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or("redis: an empty answer")?;
        let count = || rest.parse::<i64>().map_err(|_| format!("redis: answered {line:?}"));
        match kind {
            "+" | ":" => Ok(vec![rest.to_owned()]),
            "-" => Err(format!("redis: {rest}")),
            "$" => match usize::try_from(count()?) {
                Ok(length) => {
                    let bytes = self.take(length + 2)?;
                    Ok(vec![String::from_utf8_lossy(&bytes[..length]).into_owned()])
                }
                Err(_) => Ok(Vec::new()),
            },
            "*" => {
                let mut values = Vec::new();
                for _ in 0..count()? {
                    values.extend(self.value()?);
                }
                Ok(values)
            }
            _ => Err(format!("redis: answered {line:?}")),
        }
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<(), String> {
        if self.buffer.len() > MAX_ANSWER {
            return Err("redis: the answer is too long".to_owned());
        }
        let bytes = self.stream.receive()?;
        if bytes.is_empty() {
            return Err("redis: the connection was closed".to_owned());
        }
        self.buffer.extend(bytes);
        Ok(())
    }
}
