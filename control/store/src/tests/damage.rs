//! Truncated and altered files: recovery or a clear refusal, never silent loss.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;
use crate::log::{SEGMENT_HEADER, head::Head};

/// Flips one random bit of a file and says where.
fn flip(path: &Path, random: &mut StdRng) -> (usize, u8) {
    let mut bytes = std::fs::read(path).unwrap();
    let (at, bit) = (random.random_range(0..bytes.len()), random.random_range(0..8u8));
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
    (at, bit)
}

/// The end of a log that a power cut left: a head of another boot that knows only what was synced then.
fn after_power_cut(dir: &Path, synced: u64) {
    let path = dir.join("log/head");
    let mut head = Head::read(&path).unwrap();
    (head.boot, head.clean, head.synced) = ([7; 16], false, synced);
    crate::log::head::HeadFile::open(&path).unwrap().write(&head).unwrap();
}

async fn filled(writes: usize) -> (tempfile::TempDir, Content, u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, writes).await;
    let found = (content(&store), store.revision());
    drop(store);
    (dir, found.0, found.1)
}

#[tokio::test]
async fn a_log_cut_anywhere_is_refused_while_its_head_knows_better() {
    let (dir, ..) = filled(12).await;
    let segment = newest_segment(dir.path());
    let whole = std::fs::read(&segment).unwrap();
    for length in (0..whole.len()).rev() {
        std::fs::write(&segment, &whole[..length]).unwrap();
        let text = refused(open(dir.path(), small()));
        assert!(text.contains(segment.to_str().unwrap()) && text.contains("acknowledged"), "{length}: {text}");
    }
    std::fs::remove_file(&segment).unwrap();
    refused(open(dir.path(), small()));
    std::fs::write(&segment, &whole).unwrap();
    assert_eq!(open(dir.path(), small()).unwrap().revision(), 12);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_at_every_offset() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 8).await;
    let (before, revision) = (content(&store), store.revision());
    let synced = std::fs::metadata(newest_segment(dir.path())).unwrap().len();
    fill(&store, 2).await;
    drop(store);
    let segment = newest_segment(dir.path());
    let whole = std::fs::read(&segment).unwrap();
    after_power_cut(dir.path(), synced);
    for length in synced as usize..whole.len() {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        std::fs::write(copy.path().join("log").join(segment.file_name().unwrap()), &whole[..length]).unwrap();
        let store = open(copy.path(), small()).unwrap();
        let found = content(&store);
        let kept = before.iter().all(|(key, (revision, ..))| found[key].0 >= *revision);
        assert!(kept && store.revision() > revision, "{length}");
    }
}

#[tokio::test]
async fn blocks_that_were_never_written_are_a_torn_end_but_wrong_bytes_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 8).await;
    let before = content(&store);
    let synced = std::fs::metadata(newest_segment(dir.path())).unwrap().len() as usize;
    store.write(put(&key("large"), Precondition::Any, &"y".repeat(3000))).await.unwrap();
    drop(store);
    let segment = newest_segment(dir.path());
    let whole = std::fs::read(&segment).unwrap();
    after_power_cut(dir.path(), synced as u64);
    // The second half of the last record never reached the disk, but the file's size did.
    let mut zeros = whole.clone();
    zeros[synced + 1500..].fill(0);
    let mut wrong = whole.clone();
    wrong[synced + 1500] ^= 4;
    std::fs::write(&segment, &wrong).unwrap();
    let text = refused(open(dir.path(), small()));
    assert!(text.contains(&format!("offset {synced}")) && text.contains("may have been acknowledged"), "{text}");
    // What the text advises works.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    std::fs::File::options().write(true).open(newest_segment(copy.path())).unwrap().set_len(synced as u64).unwrap();
    std::fs::remove_file(copy.path().join("log/head")).unwrap();
    assert_eq!(content(&open(copy.path(), small()).unwrap()), before);
    std::fs::write(&segment, &zeros).unwrap();
    assert_eq!(content(&open(dir.path(), small()).unwrap()), before);
}

#[tokio::test]
async fn damage_before_the_end_is_refused_even_without_a_head() {
    let (dir, ..) = filled(12).await;
    let segment = newest_segment(dir.path());
    std::fs::remove_file(dir.path().join("log/head")).unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[SEGMENT_HEADER + 100] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let text = refused(open(dir.path(), small()));
    assert!(text.contains("later records show"), "{text}");
}

/// Flips `flips` bits, one at a time, in files that `choose` selects; every start gives all of the state or refuses.
async fn flips(seed: u64, flips: usize, choose: impl Fn(&Path) -> bool) -> usize {
    let (dir, before, revision) = filled(420).await;
    let mut random = StdRng::seed_from_u64(seed);
    println!("seed {seed}");
    let mut refusals = 0;
    for _ in 0..flips {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let chosen: Vec<_> = files_of(copy.path())
            .into_iter()
            .filter(|path| choose(path.strip_prefix(copy.path()).unwrap()) && path.metadata().unwrap().len() > 0)
            .collect();
        let path = chosen.choose(&mut random).unwrap();
        let place = flip(path, &mut random);
        match open(copy.path(), small()) {
            Ok(store) => {
                assert_eq!(content(&store), before, "{} {place:?}", path.display());
                // A damaged head costs certainty, and so some revisions.
                assert!(store.revision() >= revision, "{} {place:?}", path.display());
            }
            Err(error @ OpenError::Damaged { .. }) => {
                refusals += 1;
                assert!(error.to_string().contains("Restore"), "{error}");
            }
            Err(error) => panic!("{} {place:?}: {error}", path.display()),
        }
    }
    refusals
}

#[tokio::test]
async fn flipped_bits_in_the_log_are_found() {
    flips(1, 60, |path| path.starts_with("log")).await;
}

#[tokio::test]
async fn flipped_bits_in_the_newest_segment_are_found() {
    let (dir, ..) = filled(420).await;
    let newest = newest_segment(dir.path()).file_name().unwrap().to_owned();
    let refusals = flips(2, 60, |path| path.starts_with("log") && path.file_name() == Some(&*newest)).await;
    assert_eq!(refusals, 60, "what was acknowledged and is damaged is refused");
}

#[tokio::test]
async fn flipped_bits_in_checkpoints_are_survived() {
    assert_eq!(flips(3, 30, |path| path.starts_with("checkpoints")).await, 0);
}

#[tokio::test]
async fn flipped_bits_in_the_index_are_survived() {
    assert_eq!(flips(4, 60, |path| path.starts_with("index")).await, 0);
}
