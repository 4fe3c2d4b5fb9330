use super::*;
use proptest::prelude::*;
use tempfile::TempDir;

const ROOM: u64 = 64 * 1024 * 1024;

fn entry(n: usize) -> Entry {
    Entry { shard: (n % 65_536) as u16, payload: format!("event {n}").into_bytes() }
}

fn entries(range: std::ops::Range<usize>) -> Vec<Entry> {
    range.map(entry).collect()
}

fn append(spool: &mut Spool, range: std::ops::Range<usize>) {
    let entries = entries(range);
    spool.append(&entries.iter().collect::<Vec<_>>()).unwrap();
}

fn all(spool: &mut Spool) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let read = spool.read(7).unwrap();
        if read.is_empty() {
            return all;
        }
        all.extend(read);
    }
}

fn files(dir: &TempDir) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    let mut spools: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "spool")).collect();
    spools.sort();
    spools
}

#[test]
fn what_was_appended_is_read_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    append(&mut spool, 0..10);
    assert_eq!(all(&mut spool), entries(0..10));
    append(&mut spool, 10..30);
    assert_eq!(all(&mut spool), entries(10..30));
    drop(spool);
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    assert_eq!(spool.len(), 30);
    append(&mut spool, 30..40);
    assert_eq!(all(&mut spool), entries(0..40));
}

#[test]
fn released_files_go_and_the_rest_is_read_again_after_a_rewind() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    append(&mut spool, 0..20);
    assert_eq!(spool.read(12).unwrap(), entries(0..12));
    spool.release(5).unwrap();
    spool.rewind().unwrap();
    assert_eq!((spool.next(), all(&mut spool)), (5, entries(5..20)));
    spool.release(20).unwrap();
    assert_eq!((spool.len(), spool.bytes(), files(&dir).len()), (0, 0, 0));
    append(&mut spool, 20..23);
    assert_eq!(all(&mut spool), entries(20..23));
}

#[test]
fn what_was_sent_before_it_was_spooled_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    append(&mut spool, 0..4);
    spool.skip_to_end();
    append(&mut spool, 4..6);
    assert_eq!(all(&mut spool), entries(4..6));
    spool.rewind().unwrap();
    assert_eq!(all(&mut spool), entries(0..6));
}

#[test]
fn a_full_spool_keeps_nothing_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 100).unwrap();
    append(&mut spool, 0..3);
    let batch = entries(3..9);
    let refused = spool.append(&batch.iter().collect::<Vec<_>>()).unwrap_err();
    assert!(matches!(refused, SpoolError::Full(_)), "{refused}");
    append(&mut spool, 3..4);
    drop(spool);
    assert_eq!(all(&mut Spool::open(dir.path(), 100).unwrap()), entries(0..4));
}

#[test]
fn large_spools_have_several_files_and_large_entries_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    let large: Vec<Entry> = (0..9).map(|n| Entry { shard: n, payload: vec![n as u8 + 1; 2 * 1024 * 1024] }).collect();
    for entry in &large {
        spool.append(&[entry]).unwrap();
    }
    assert_eq!(files(&dir).len(), 3);
    assert_eq!(all(&mut spool), large);
    spool.release(4).unwrap();
    assert_eq!(files(&dir).len(), 2);
    spool.rewind().unwrap();
    assert_eq!(all(&mut spool), large[4..]);
    spool.release(8).unwrap();
    drop(spool);
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    assert_eq!(all(&mut spool), large[8..]);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), ROOM).unwrap();
    assert!(Spool::open(dir.path(), ROOM).unwrap_err().to_string().contains("another process"));
    drop(spool);
    assert!(Spool::open(dir.path(), ROOM).is_ok());
}

#[test]
fn damage_before_the_last_file_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    append(&mut spool, 0..5);
    drop(spool);
    let mut spool = Spool::open(dir.path(), ROOM).unwrap();
    append(&mut spool, 5..10);
    drop(spool);
    let first = files(&dir).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    assert!(Spool::open(dir.path(), ROOM).unwrap_err().to_string().contains("damaged"));
}

proptest! {
    /// Whatever a crash leaves behind the last synced batch: everything before it is there, nothing else is.
    #[test]
    fn a_torn_end_is_cut_off(kept in 1..20usize, cut in 0..200usize, zeros in 0..40usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), ROOM).unwrap();
        append(&mut spool, 0..kept);
        let good = spool.bytes() as usize;
        append(&mut spool, kept..kept + 5);
        drop(spool);
        let path = files(&dir).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate((good + cut).min(bytes.len()));
        bytes.extend(vec![0; zeros]);
        std::fs::write(&path, bytes).unwrap();

        let mut spool = Spool::open(dir.path(), ROOM).unwrap();
        let read = all(&mut spool);
        prop_assert!(read.len() >= kept && read.len() <= kept + 5);
        prop_assert_eq!(&read[..], &entries(0..read.len())[..]);
        append(&mut spool, read.len()..read.len() + 3);
        drop(spool);
        prop_assert_eq!(all(&mut Spool::open(dir.path(), ROOM).unwrap()), entries(0..read.len() + 3));
    }
}
