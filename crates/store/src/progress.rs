//! Marks of requests under way that survive the death of the process.
//!
//! Each open hold has a slot in a memory-mapped file. A mark is a few stores to memory, without a system call:
//! the kernel keeps the page when the process is killed, so a restart knows what was relayed up to the last
//! event. A slot holds two copies that are written in turn; a torn one fails its checksum and the other counts.
//! Against power loss the file is synced every few seconds ([`Slots::sync`]), which is as much as the progress of
//! a stream is worth.

use crate::database::StoreError;
use domain::{Meter, Seq, Usage};
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// 64-bit words of one copy: version, hold, flags, the usage, the service tier, checksum; padded.
const COPY_WORDS: usize = 32;
/// Two copies.
const SLOT_WORDS: usize = 2 * COPY_WORDS;
const COPY_BYTES: usize = COPY_WORDS * size_of::<u64>();
const SLOT_BYTES: usize = 2 * COPY_BYTES;

const VERSION: usize = 0;
const HOLD: usize = 1;
const FLAGS: usize = 2;
const USAGE: usize = 3;
const TIER: usize = USAGE + Meter::COUNT;
const CHECKSUM: usize = TIER + 2;
/// Bytes of a service tier's name that a mark keeps.
const TIER_BYTES: usize = 16;

const FLAG_ESTIMATED: u64 = 1;

/// What was known of a request at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// What has been consumed.
    pub usage: Usage,
    /// It is the gateway's own count.
    pub estimated: bool,
    /// The service tier that the provider named.
    pub service_tier: Option<Arc<str>>,
}

/// A fixed number of slots, in a file or in memory.
pub struct Slots {
    words: Words,
    free: Mutex<Vec<u32>>,
    count: usize,
}

enum Words {
    File(MmapRaw),
    Memory(Box<[AtomicU64]>),
}

impl Slots {
    /// Opens new slots and reads what earlier processes left. Their files are set aside and read again by every
    /// start until [`Slots::forget_left`]: a process can also die while it is recovering.
    pub fn open(path: &Path, count: usize) -> Result<(Self, Vec<(Seq, Mark)>), StoreError> {
        let failed = |action| move |source| StoreError::File { action, path: path.to_owned(), source };
        let mut aside = (0..).map(|number| path.with_extension(number.to_string()));
        let mut left = Vec::new();
        let free = loop {
            let candidate = aside.next().expect("numbers do not end");
            match File::open(&candidate) {
                Ok(file) => left.extend(marks_in(file).map_err(failed("read"))?),
                Err(error) if error.kind() == ErrorKind::NotFound => break candidate,
                Err(error) => return Err(failed("read")(error)),
            }
        };
        match std::fs::rename(path, &free) {
            Ok(()) => left.extend(File::open(&free).and_then(marks_in).map_err(failed("read"))?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("set aside")(error)),
        }
        // A new file is a hole: memory is taken only by slots that are used.
        let options = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(path);
        let file = options.map_err(failed("create"))?;
        let bytes = count * SLOT_BYTES;
        file.set_len(bytes as u64).map_err(failed("resize"))?;
        let map = MmapOptions::new().len(bytes).map_raw(&file).map_err(failed("map"))?;
        Ok((Self::with(Words::File(map), count), left))
    }

    /// Everything that earlier processes left is resolved, durably: their files are not needed any more.
    pub fn forget_left(path: &Path) -> Result<(), StoreError> {
        // From the highest number down, so that what a crash leaves is still found without a gap.
        let numbered = |number: u32| path.with_extension(number.to_string());
        let files: Vec<_> = (0..).map(numbered).take_while(|file| file.exists()).collect();
        for file in files.into_iter().rev() {
            std::fs::remove_file(&file).map_err(|source| StoreError::File { action: "remove", path: file, source })?;
        }
        Ok(())
    }

    /// Slots that die with the process.
    pub fn in_memory(count: usize) -> Self {
        let words = (0..count * SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self::with(Words::Memory(words), count)
    }

    fn with(words: Words, count: usize) -> Self {
        // Lowest first, so that a quiet gateway touches few pages.
        let free = Mutex::new((0..count as u32).rev().collect());
        Self { words, free, count }
    }

    /// Takes a free slot, if there is one.
    pub fn take(&self) -> Option<u32> {
        self.free.lock().pop()
    }

    /// Clears a slot and gives it back.
    pub fn give_back(&self, slot: u32) {
        self.clear(slot);
        self.free.lock().push(slot);
    }

    /// Notes what is known of the request that holds `slot`. `version` counts the marks of that request.
    pub fn mark(&self, slot: u32, hold: Seq, version: u64, mark: &Mark) {
        let mut words = [0_u64; COPY_WORDS];
        words[VERSION] = version + 1;
        words[HOLD] = hold.0 as u64;
        words[FLAGS] = u64::from(mark.estimated) * FLAG_ESTIMATED;
        words[USAGE..TIER].copy_from_slice(mark.usage.as_array());
        if let Some(tier) = &mark.service_tier {
            let mut bytes = [0_u8; TIER_BYTES];
            let kept = tier.len().min(TIER_BYTES);
            bytes[..kept].copy_from_slice(&tier.as_bytes()[..kept]);
            for (word, chunk) in words[TIER..].iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
            }
        }
        words[CHECKSUM] = checksum(&words);
        let copy = self.copy(slot, (version % 2) as usize);
        // The checksum goes first as invalid and last as valid: whatever the process dies between is torn.
        copy[CHECKSUM].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (target, word) in copy[..CHECKSUM].iter().zip(words) {
            target.store(word, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        copy[CHECKSUM].store(words[CHECKSUM], Ordering::Relaxed);
    }

    /// The mark of one hold, if its request has made one.
    pub fn find(&self, hold: Seq) -> Option<Mark> {
        self.marks().into_iter().find(|(of, _)| *of == hold).map(|(_, mark)| mark)
    }

    /// Writes the marks to the disk, against a power loss. Blocks.
    pub fn sync(&self) -> std::io::Result<()> {
        match &self.words {
            Words::File(map) => map.flush(),
            Words::Memory(_) => Ok(()),
        }
    }

    /// What the slots hold, newest valid copy of each.
    pub fn marks(&self) -> Vec<(Seq, Mark)> {
        let newest = |slot| newest_of([self.read(slot, 0), self.read(slot, 1)]);
        (0..self.count as u32).filter_map(newest).collect()
    }

    fn clear(&self, slot: u32) {
        for copy in 0..2 {
            let words = self.copy(slot, copy);
            words[CHECKSUM].store(0, Ordering::Relaxed);
            words[HOLD].store(0, Ordering::Relaxed);
        }
    }

    fn read(&self, slot: u32, copy: usize) -> Option<Copy> {
        let words = self.copy(slot, copy);
        // Most slots are empty: one look is enough.
        if words[HOLD].load(Ordering::Relaxed) == 0 {
            return None;
        }
        read_copy(&std::array::from_fn(|i| words[i].load(Ordering::Acquire)))
    }

    fn copy(&self, slot: u32, copy: usize) -> &[AtomicU64] {
        let start = slot as usize * SLOT_WORDS + copy * COPY_WORDS;
        &self.all()[start..start + COPY_WORDS]
    }

    fn all(&self) -> &[AtomicU64] {
        match &self.words {
            Words::Memory(words) => words,
            Words::File(map) => {
                // SAFETY: a mapping is aligned to a page and has this length; the directory's lock keeps other
                // processes from the file, and all access from this one is by these atomics.
                #[expect(unsafe_code, reason = "see the safety note")]
                unsafe {
                    std::slice::from_raw_parts(map.as_mut_ptr().cast::<AtomicU64>(), self.count * SLOT_WORDS)
                }
            }
        }
    }
}

/// One valid copy: its version, whose it is, and what it says.
type Copy = (u64, Seq, Mark);

fn newest_of(copies: [Option<Copy>; 2]) -> Option<(Seq, Mark)> {
    copies.into_iter().flatten().max_by_key(|(version, ..)| *version).map(|(_, hold, mark)| (hold, mark))
}

/// The marks in a file that a process left, read slot by slot: most of it is a hole.
fn marks_in(file: File) -> std::io::Result<Vec<(Seq, Mark)>> {
    let copy = |bytes: &[u8]| {
        let mut words = [0_u64; COPY_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight bytes"));
        }
        read_copy(&words)
    };
    let (mut reader, mut slot, mut marks) = (BufReader::new(file), [0; SLOT_BYTES], Vec::new());
    loop {
        match reader.read_exact(&mut slot) {
            Ok(()) => marks.extend(newest_of([copy(&slot[..COPY_BYTES]), copy(&slot[COPY_BYTES..])])),
            // A file that was cut off has lost its last slot, not its others.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(marks),
            Err(error) => return Err(error),
        }
    }
}

fn read_copy(words: &[u64; COPY_WORDS]) -> Option<Copy> {
    if words[HOLD] == 0 || words[CHECKSUM] != checksum(words) {
        return None;
    }
    let counts = words[USAGE..TIER].try_into().expect("as many words as meters");
    let tier: Vec<u8> = words[TIER..CHECKSUM].iter().flat_map(|word| word.to_le_bytes()).collect();
    let tier = String::from_utf8_lossy(&tier).trim_end_matches('\0').to_owned();
    let mark = Mark {
        usage: Usage::from_array(counts)?,
        estimated: words[FLAGS] & FLAG_ESTIMATED != 0,
        service_tier: (!tier.is_empty()).then(|| tier.into()),
    };
    Some((words[VERSION], Seq(i64::try_from(words[HOLD]).ok()?), mark))
}

/// Never zero, and different for a copy that lacks any one word.
fn checksum(words: &[u64; COPY_WORDS]) -> u64 {
    let sum = words[..CHECKSUM]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    sum | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(output: u64) -> Mark {
        Mark { usage: Usage::tokens(10, output), estimated: true, service_tier: Some("priority".into()) }
    }

    #[test]
    fn k_04_the_last_mark_survives_reopening_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress");
        let (slots, left) = Slots::open(&path, 8).unwrap();
        assert_eq!(left, []);
        let slot = slots.take().unwrap();
        for version in 0..5 {
            slots.mark(slot, Seq(42), version, &mark(version));
        }
        let finished = slots.take().unwrap();
        slots.mark(finished, Seq(43), 0, &mark(1));
        slots.give_back(finished);
        drop(slots);
        let (slots, left) = Slots::open(&path, 8).unwrap();
        assert_eq!(left, [(Seq(42), mark(4))]);
        slots.mark(slots.take().unwrap(), Seq(50), 0, &mark(1));
        let (_, left) = Slots::open(&path, 8).unwrap();
        assert_eq!(left, [(Seq(42), mark(4)), (Seq(50), mark(1))], "dying while recovering loses nothing");
        Slots::forget_left(&path).unwrap();
        let (_, left) = Slots::open(&path, 8).unwrap();
        assert_eq!(left, []);
    }

    #[test]
    fn p_17_a_torn_copy_is_dropped_and_the_other_counts() {
        let slots = Slots::in_memory(1);
        slots.mark(0, Seq(42), 0, &mark(1));
        slots.mark(0, Seq(42), 1, &mark(2));
        slots.copy(0, 1)[USAGE].store(999, Ordering::Relaxed);
        assert_eq!(slots.marks(), [(Seq(42), mark(1))]);
    }

    #[test]
    fn p_17_garbage_is_never_read_as_a_mark() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress");
        let bytes: Vec<u8> = (0..8 * SLOT_WORDS * 8).map(|i| (i * 7 + i / 13) as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        let (_, left) = Slots::open(&path, 8).unwrap();
        assert_eq!(left, []);
    }
}
