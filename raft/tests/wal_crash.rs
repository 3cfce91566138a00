//! The log on a real disk.
use raft::consensus::*;
use raft::wal::*;

use std::sync::Arc;

#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let options = Options { segment_bytes: 8192, ..Options::default() };
    let entry = |i: u64, n: usize| Entry {
        id: LogId::new(Term(1), Index(i)),
        payload: Payload::Command(vec![7; n].into()),
    };
    let (mut wal, restored) = Wal::open(Arc::new(RealDisk), &path, options.clone()).unwrap();
    assert_eq!(restored.last, LogId::default());
    for i in 0..100u64 {
        let p = Persist {
            batch: BatchNo(i),
            append: vec![entry(2 * i + 1, 10), entry(2 * i + 2, 700)],
            commit_index: Index(i),
            ..Persist::default()
        };
        let d = wal.append(&[p]).unwrap();
        assert_eq!(d.last.index, Index(2 * i + 2));
    }
    drop(wal);
    for _ in 0..3 {
        let (mut wal, restored) = Wal::open(Arc::new(RealDisk), &path, options.clone()).unwrap();
        assert_eq!(restored.last.index, Index(200));
        assert_eq!(restored.tail.len(), 200);
        assert_eq!(wal.read(Index(5), Index(150), usize::MAX).unwrap().len(), 146);
        println!("{} {}", wal.segments(), wal.disk_bytes());
        let meta = SnapshotMeta {
            last: LogId::new(Term(1), Index(150)),
            membership: Membership::default(),
            membership_index: Index(0),
        };
        drop(wal.read(Index(1), Index(1), 1));
        let _ = meta;
    }
    let (mut wal, _) = Wal::open(Arc::new(RealDisk), &path, options.clone()).unwrap();
    let meta = SnapshotMeta {
        last: LogId::new(Term(1), Index(150)),
        membership: Membership::default(),
        membership_index: Index(0),
    };
    wal.compact(&meta).unwrap();
    println!("{} {}", wal.segments(), wal.disk_bytes());
    drop(wal);
    let (_wal, restored) = Wal::open(Arc::new(RealDisk), &path, options).unwrap();
    assert_eq!(restored.tail.len(), 50);
    assert_eq!(restored.snapshot, Some(meta));
}
