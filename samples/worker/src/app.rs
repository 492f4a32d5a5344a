//! What worker does, whichever way it was built: work that ends.
//!
//! | arguments | what is done |
//! |---|---|
//! | `pi DIGITS` | writes pi with so many digits after the point |
//! | `reverse` | writes, backwards, the word of `WORDS` whose place is the Pod's completion index |
//! | `succeed INDEX...` | succeeds where the Pod's completion index is one of these, else fails |
//! | `queue NAME` | takes items from the list NAME of a redis (`REDIS`, by default `redis:6379`) until it is empty |

use sample_kit::redis::{Connection, Stream};

/// What the application needs of its host.
pub trait Host {
    /// A connection to a redis.
    type Stream: Stream;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Connects to `host:port`.
    fn connect(&self, address: &str) -> Result<Self::Stream, String>;
    /// Writes a line to standard output.
    fn log(&self, line: &str);
}

/// The whole application; an error is a failure with its reason.
pub fn run<H: Host>(host: &H, arguments: &[String]) -> Result<(), String> {
    let (what, rest) = arguments.split_first().ok_or("say what to do: pi, reverse, succeed or queue")?;
    match what.as_str() {
        "pi" => {
            let digits = rest.first().and_then(|text| text.parse().ok()).ok_or("pi: say how many digits")?;
            host.log(&pi(digits));
            Ok(())
        }
        "reverse" => {
            let words = host.variable("WORDS").unwrap_or_default();
            let word = words.split_whitespace().nth(index(host)?).ok_or("reverse: no word of this index")?;
            host.log(&word.chars().rev().collect::<String>());
            Ok(())
        }
        "succeed" => {
            let own = index(host)?;
            host.log(&format!("index {own}"));
            if rest.iter().any(|index| index.parse() == Ok(own)) {
                Ok(())
            } else {
                Err(format!("index {own} is none of {}", rest.join(" ")))
            }
        }
        "queue" => queue(host, rest.first().ok_or("queue: say its name")?),
        other => Err(format!("{other}: pi, reverse, succeed or queue")),
    }
}

fn index<H: Host>(host: &H) -> Result<usize, String> {
    let told = host.variable("JOB_COMPLETION_INDEX");
    told.and_then(|text| text.parse().ok()).ok_or_else(|| "JOB_COMPLETION_INDEX is not set".to_owned())
}

/// An item under way is on a list of its own, so that it is not lost with its worker.
fn queue<H: Host>(host: &H, name: &str) -> Result<(), String> {
    let address = host.variable("REDIS").unwrap_or_else(|| "redis:6379".to_owned());
    let mut redis = Connection::new(host.connect(&address)?);
    let (waiting, begun, done) = (name.as_bytes(), format!("{name}:begun"), format!("{name}:done"));
    while let Some(item) = redis.call(&[b"LMOVE", waiting, begun.as_bytes(), b"LEFT", b"RIGHT"])?.into_iter().next() {
        host.log(&format!("working on {item}"));
        redis.call(&[b"RPUSH", done.as_bytes(), item.as_bytes()])?;
        redis.call(&[b"LREM", begun.as_bytes(), b"1", item.as_bytes()])?;
    }
    host.log("the queue is empty");
    Ok(())
}

/// By Rabinowitz and Wagon's spigot.
fn pi(digits: usize) -> String {
    let mut state = vec![2u64; (digits + 2) * 10 / 3 + 2];
    let (mut written, mut nines, mut held): (String, usize, Option<u64>) = (String::new(), 0, None);
    // One more than is asked for: the last that comes out may be held back by nines.
    while written.len() < digits + 1 {
        let mut carry = 0;
        for place in (0..state.len()).rev() {
            let value = 10 * state[place] + carry * (place as u64 + 1);
            let divisor = if place == 0 { 10 } else { 2 * place as u64 + 1 };
            state[place] = value % divisor;
            carry = value / divisor;
        }
        match carry {
            9 => nines += 1,
            next => {
                let over = next == 10;
                if let Some(held) = held {
                    written.push_str(&(held + u64::from(over)).to_string());
                }
                written.extend(std::iter::repeat_n(if over { '0' } else { '9' }, nines));
                nines = 0;
                held = Some(if over { 0 } else { next });
            }
        }
    }
    written.truncate(digits + 1);
    format!("{}.{}", &written[..1], &written[1..])
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct Fixed(RefCell<Vec<String>>);

    /// A redis whose list holds two items.
    struct Two(Vec<&'static str>);

    impl Stream for Two {
        fn send(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn receive(&mut self) -> Result<Vec<u8>, String> {
            Ok(self.0.pop().ok_or("closed")?.as_bytes().to_vec())
        }
    }

    impl Host for Fixed {
        type Stream = Two;
        fn variable(&self, name: &str) -> Option<String> {
            [("WORDS", "foo bar"), ("JOB_COMPLETION_INDEX", "1")]
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, v)| (*v).to_owned())
        }
        fn connect(&self, address: &str) -> Result<Two, String> {
            assert_eq!(address, "redis:6379");
            Ok(Two(vec!["$-1\r\n", ":1\r\n", ":2\r\n", "$1\r\nb\r\n", ":1\r\n", ":1\r\n", "$1\r\na\r\n"]))
        }
        fn log(&self, line: &str) {
            self.0.borrow_mut().push(line.to_owned());
        }
    }

    #[test]
    fn works() {
        let host = Fixed::default();
        let done = |line: &str| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let done = run(&host, &arguments);
            (done.is_ok(), host.0.take().join("|"))
        };
        let pi = "3.14159265358979323846264338327950288419716939937510";
        assert_eq!(done("pi 50"), (true, pi.to_owned()));
        assert_eq!(done("pi 4"), (true, "3.1415".to_owned()));
        assert_eq!(done("reverse"), (true, "rab".to_owned()));
        assert_eq!(done("succeed 0 1"), (true, "index 1".to_owned()));
        assert_eq!(done("succeed 0 2"), (false, "index 1".to_owned()));
        assert_eq!(done("queue jobs"), (true, "working on a|working on b|the queue is empty".to_owned()));
        assert!(!done("").0 && !done("other").0);
    }
}
