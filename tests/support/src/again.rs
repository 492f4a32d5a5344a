//! Waiting for what nothing tells of.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until there is what is looked for. Where there is not (the inner error says what there was instead), that
/// may last as long as `patience`; a look that fails ends the wait.
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> anyhow::Result<Result<T, String>>) -> anyhow::Result<T> {
    let end = Instant::now() + patience;
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(instead) if Instant::now() > end => bail!("after {patience:?}: {instead}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn looks_until_it_is_there_or_time_is_over_or_a_look_fails() {
        let mut looks = 0;
        let third = || {
            looks += 1;
            Ok(if looks == 3 { Ok(looks) } else { Err(format!("{looks}")) })
        };
        assert_eq!(until(Duration::from_secs(60), third).unwrap(), 3);
        let never = until::<()>(Duration::ZERO, || Ok(Err("nothing".to_owned()))).unwrap_err();
        assert!(never.to_string().ends_with(": nothing"), "{never}");
        assert_eq!(until::<()>(Duration::MAX / 4, || bail!("broken")).unwrap_err().to_string(), "broken");
    }
}
