//! Blocks on their way through the compressor, in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError, sync_channel};

/// How a format compresses blocks. One value compresses one block at a time, and many one after the other.
pub(super) trait Blocks: Sized + Send + 'static {
    /// The bytes of a block. They belong to the format: another size gives other output.
    const SIZE: usize;

    /// What a compressor is made from.
    type Settings: Send;

    /// What of a block goes into the end of the output.
    type Sum: Send;

    /// What the ends of all blocks come to.
    type Total: Default;

    /// Makes a compressor.
    fn new(settings: &Self::Settings) -> io::Result<Self>;

    /// Replaces what is in `output` by what `input` is compressed.
    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<Self::Sum>;

    /// What comes before all blocks.
    const HEADER: &'static [u8];

    /// Whether a block has to be written where there are no bytes.
    const NEVER_EMPTY: bool;

    /// Takes the next block's sum.
    fn add(total: &mut Self::Total, sum: Self::Sum);

    /// What comes after all blocks.
    fn trailer(total: &Self::Total) -> Vec<u8>;
}

/// No more bytes than these are in blocks that are being compressed. With what they become and the compressors' own
/// memory this is 45 MB, up to the levels of zstd (above 12) whose compressors need tens of MB each. More blocks would
/// serve nobody: hashing and writing them is not done in parallel, and is slower than this many threads are.
const IN_FLIGHT: usize = 16 << 20;

/// Compresses blocks on rayon's threads and writes what becomes of them, in their order, on the caller's.
pub(super) struct Queue<B: Blocks, W> {
    settings: B::Settings,
    /// What is written goes here until the block is full.
    filling: Block<B>,
    /// The blocks that are being compressed, the oldest first.
    flight: VecDeque<Receiver<io::Result<Done<B>>>>,
    /// How many these may be.
    limit: usize,
    /// Blocks that were written, to be used again.
    spare: Vec<Block<B>>,
    total: B::Total,
    out: W,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No block was handed in.
    Empty,
    Begun,
    /// Something of the output was lost.
    Failed,
}

struct Block<B> {
    compressor: B,
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Done<B: Blocks> {
    block: Block<B>,
    sum: B::Sum,
}

impl<B: Blocks> Block<B> {
    fn new(settings: &B::Settings) -> io::Result<Self> {
        Ok(Self { compressor: B::new(settings)?, input: Vec::with_capacity(B::SIZE), output: Vec::new() })
    }

    fn compress(mut self) -> io::Result<Done<B>> {
        let sum = self.compressor.compress(&self.input, &mut self.output)?;
        self.input.clear();
        Ok(Done { block: self, sum })
    }
}

impl<B: Blocks, W: Write> Queue<B, W> {
    pub(super) fn new(settings: B::Settings, mut out: W) -> io::Result<Self> {
        out.write_all(B::HEADER)?;
        Ok(Self {
            filling: Block::new(&settings)?,
            settings,
            flight: VecDeque::new(),
            // While one is written another waits for each thread.
            limit: (2 * rayon::current_num_threads()).clamp(2, IN_FLIGHT / B::SIZE),
            spare: Vec::new(),
            total: B::Total::default(),
            out,
            state: State::Empty,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_failed(|queue| {
            let room = B::SIZE - queue.filling.input.len();
            let bytes = &bytes[..bytes.len().min(room)];
            queue.filling.input.extend_from_slice(bytes);
            if bytes.len() == room {
                queue.hand_in()?;
            }
            Ok(bytes.len())
        })
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.unless_failed(|queue| {
            while let Some(block) = queue.collect()? {
                queue.spare.push(block);
            }
            queue.out.flush()
        })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.unless_failed(|queue| {
            if !queue.filling.input.is_empty() || B::NEVER_EMPTY && queue.state == State::Empty {
                queue.hand_in()?;
            }
            while queue.collect()?.is_some() {}
            queue.out.write_all(&B::trailer(&queue.total))
        })?;
        Ok(self.out)
    }

    /// What comes after a loss must not look as if there were none.
    fn unless_failed<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if self.state == State::Failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        let answer = act(self);
        if answer.is_err() {
            self.state = State::Failed;
        }
        answer
    }

    /// Has the block compressed, and takes another one.
    fn hand_in(&mut self) -> io::Result<()> {
        let oldest = if self.flight.len() == self.limit { self.collect()? } else { self.spare.pop() };
        let next = match oldest {
            Some(block) => block,
            None => Block::new(&self.settings)?,
        };
        let block = std::mem::replace(&mut self.filling, next);
        let (sender, receiver) = sync_channel(1);
        rayon::spawn_fifo(move || {
            // Where nobody waits any more the whole output is given up.
            _ = sender.send(block.compress());
        });
        self.flight.push_back(receiver);
        self.state = State::Begun;
        Ok(())
    }

    /// Writes what became of the oldest block, as soon as it is there.
    fn collect(&mut self) -> io::Result<Option<Block<B>>> {
        let Some(receiver) = self.flight.pop_front() else { return Ok(None) };
        let Done { block, sum } = wait(&receiver).map_err(|_| io::Error::other("a compressor ended early"))??;
        self.out.write_all(&block.output)?;
        B::add(&mut self.total, sum);
        Ok(Some(block))
    }
}

/// Waits as any thread may: one of the pool's does meanwhile what it would keep the pool from.
fn wait<T>(receiver: &Receiver<T>) -> Result<T, RecvError> {
    if rayon::current_thread_index().is_none() {
        return receiver.recv();
    }
    loop {
        match receiver.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
            Err(TryRecvError::Empty) => {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::{frames, gzip};

    /// The blocks that there are, one that is being filled included.
    fn blocks<B: Blocks, W>(queue: &Queue<B, W>) -> usize {
        queue.flight.len() + queue.spare.len() + 1
    }

    fn never_more_blocks_than_the_limit<B: Blocks>(settings: B::Settings, threads: usize, limit: usize) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut queue: Queue<B, _> = Queue::new(settings, io::sink()).unwrap();
            assert_eq!(queue.limit, limit);
            let (bytes, mut most) = (vec![7; B::SIZE], 0);
            for number in 0..3 * limit {
                assert_eq!(queue.write(&bytes).unwrap(), B::SIZE);
                most = most.max(blocks(&queue));
                if number == 2 * limit {
                    queue.flush().unwrap();
                    assert!(queue.flight.is_empty());
                }
            }
            assert_eq!(most, limit + 1);
            queue.finish().unwrap();
        });
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_blocks() {
        for (threads, gzip_limit, zstd_limit) in [(1, 2, 2), (2, 4, 4), (32, 32, 8)] {
            never_more_blocks_than_the_limit::<gzip::Deflater>(gzip::Settings::new(Some(1)), threads, gzip_limit);
            never_more_blocks_than_the_limit::<frames::Framer>(frames::Settings::new(Some(1)), threads, zstd_limit);
        }
    }
}
