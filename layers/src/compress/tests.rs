use std::io::ErrorKind;

use super::queue::Blocks;
use super::*;
use crate::Digest;

fn compress(compression: Compression, level: Option<i32>, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, level, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder(bytes).map_err(io::Error::other)?.read_to_end(&mut out)?;
    Ok(out)
}

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];
const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

/// Bytes that nothing compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| words()).take(length).collect()
}

/// Bytes that everything compresses.
fn text(length: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|n| format!("{} {:x} ", n % 1000, n.wrapping_mul(0x9e37_79b9) >> 12).into_bytes())
        .take(length)
        .collect()
}

/// Several blocks of either format, of all kinds, the last of them not full.
fn mixed() -> Vec<u8> {
    [text(1_700_000), noise(1_300_000), vec![0; 1_100_000], text(900_001)].concat()
}

fn in_pool<T: Send>(threads: usize, act: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(act)
}

#[test]
fn what_was_compressed_is_read_whatever_it_is() {
    let content: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for compression in ALL {
        for level in [None, Some(-100), Some(0), Some(1), Some(100)] {
            let level = level.filter(|&level| level != 100 || compression != Compression::Zstd);
            assert_eq!(decompress(&compress(compression, level, &content)).unwrap(), content, "{compression:?}");
        }
    }
    assert_eq!(decompress(b"").unwrap(), b"");
    assert_eq!(decompress(b"\x1f").unwrap(), b"\x1f");
    assert_eq!(decompress(b"plain").unwrap(), b"plain");
}

#[test]
fn contents_of_every_size_and_kind_are_what_they_were() {
    for (compression, block) in [(Compression::Gzip, gzip::Deflater::SIZE), (Compression::Zstd, frames::Framer::SIZE)] {
        for size in [0, 1, 2, 20, 5000, block - 1, block, block + 1, 3 * block] {
            for content in [text(size), noise(size), vec![0; size]] {
                let compressed = compress(compression, None, &content);
                assert!(decompress(&compressed).unwrap() == content, "{compression:?} {size}");
            }
        }
        let zeros = vec![0; 40 << 20];
        let compressed = compress(compression, None, &zeros);
        assert!(decompress(&compressed).unwrap() == zeros && compressed.len() < zeros.len() / 100);
        let content = mixed();
        assert!(decompress(&compress(compression, None, &content)).unwrap() == content, "{compression:?}");
    }
}

#[test]
fn the_bytes_are_the_same_for_any_number_of_threads_and_any_writes() {
    let content = mixed();
    for compression in BOTH {
        let expected = compress(compression, None, &content);
        for threads in [1, 2, 8] {
            for size in [1, 7, 4096, 1 << 20] {
                let found = in_pool(threads, || {
                    let mut encoder = Encoder::new(compression, None, Vec::new()).unwrap();
                    for (number, piece) in content.chunks(size).enumerate() {
                        encoder.write_all(piece).unwrap();
                        if number % 1000 == 3 {
                            encoder.flush().unwrap();
                        }
                    }
                    encoder.finish().unwrap()
                });
                assert!(found == expected, "{compression:?} with {threads} threads, in pieces of {size}");
            }
        }
    }
}

#[test]
fn layers_that_are_compressed_at_once_in_one_thread_do_not_wait_for_each_other() {
    let content = mixed();
    for compression in BOTH {
        let expected = compress(compression, Some(1), &content);
        in_pool(1, || {
            rayon::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|_| assert!(compress(compression, Some(1), &content) == expected));
                }
            });
        });
    }
}

/// What is released changes when this does: caches have the layers of either form, and no layer is shared between them.
#[test]
fn the_bytes_are_pinned() {
    let content = mixed();
    let digest = |compression| Digest::of(compress(compression, None, &content)).hex();
    assert_eq!(digest(Compression::Gzip), "33f9ee6609d4978fa5451c9bafc8dccba47990fba1daa5c0c943032a5cda0f5b");
    assert_eq!(digest(Compression::Zstd), "eeb96ab3121e0b6f69c69bd8fcda70e1dff3764c9fc1e84563d96f374276d553");
}

#[test]
fn gzip_is_one_member() {
    for content in [Vec::new(), text(10), mixed()] {
        let compressed = compress(Compression::Gzip, None, &content);
        let (mut reader, mut out) = (flate2::bufread::GzDecoder::new(&compressed[..]), Vec::new());
        reader.read_to_end(&mut out).unwrap();
        assert!(out == content);
        assert_eq!(reader.into_inner(), b"", "what follows the first member");
    }
    assert_eq!(compress(Compression::Gzip, None, b"").len(), 20);
}

#[test]
fn zstd_is_a_frame_for_each_block_that_says_its_size() {
    let content = mixed();
    let compressed = compress(Compression::Zstd, None, &content);
    let (mut rest, mut sizes) = (&compressed[..], Vec::new());
    while !rest.is_empty() {
        sizes.push(zstd::zstd_safe::get_frame_content_size(rest).unwrap().unwrap() as usize);
        rest = &rest[zstd::zstd_safe::find_frame_compressed_size(rest).unwrap()..];
    }
    let block = frames::Framer::SIZE;
    assert_eq!(sizes, [block, block, content.len() - 2 * block]);
    let nothing = compress(Compression::Zstd, None, b"");
    assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&nothing), Ok(nothing.len()));
}

#[test]
fn what_does_not_compress_is_stored() {
    let content = noise(3_000_000);
    // Five bytes for each 65,535 that are stored, and header and trailer.
    let blocks = content.len().div_ceil(gzip::Deflater::SIZE);
    let stored = compress(Compression::Gzip, None, &content);
    assert_eq!(stored.len(), content.len() + (blocks - 1) * 9 * 5 + 6 * 5 + 20);
    assert_eq!(compress(Compression::Gzip, Some(0), &text(3_000_000)).len(), stored.len());
    assert!(compress(Compression::Zstd, None, &content).len() < content.len() + 200);
}

#[test]
fn text_between_noise_is_deflated_and_noise_that_repeats_is_too() {
    let mut content = noise(gzip::Deflater::SIZE);
    content[300_000..400_000].copy_from_slice(&text(100_000));
    let found = compress(Compression::Gzip, None, &content).len();
    assert!(found < content.len() - 30_000, "{found}");
    let content = noise(1000).repeat(1000);
    let found = compress(Compression::Gzip, None, &content).len();
    assert!(found < content.len() / 50, "{found}");
}

#[test]
fn all_members_and_frames_belong_to_the_layer() {
    for compression in BOTH {
        let both = [compress(compression, None, b"one "), compress(compression, None, b"two")].concat();
        assert_eq!(decompress(&both).unwrap(), b"one two");
    }
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &compress(Compression::Zstd, None, b"x")];
    assert_eq!(decompress(&skippable.concat()).unwrap(), b"x");
}

#[test]
fn truncation_is_an_error() {
    for compression in BOTH {
        let whole = compress(compression, None, b"some content that is long enough");
        assert!(decompress(&whole[..whole.len() - 1]).is_err(), "{compression:?}");
    }
}

#[test]
fn a_gzip_header_tells_nothing_of_time_and_place() {
    assert_eq!(compress(Compression::Gzip, None, b"x")[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

/// Takes so many bytes, and then fails once.
struct Full(Option<usize>);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(left) if left < bytes.len() => {
                self.0 = None;
                Err(ErrorKind::StorageFull.into())
            }
            Some(left) => {
                self.0 = Some(left - bytes.len());
                Ok(bytes.len())
            }
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_of_the_writer_is_told_and_ends_everything() {
    let content = noise(30 << 20);
    for compression in BOTH {
        // While blocks are handed in.
        let mut encoder = Encoder::new(compression, None, Full(Some(1 << 20))).unwrap();
        let error = in_pool(2, || encoder.write_all(&content).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{compression:?}");
        assert!(encoder.write(b"more").is_err() && encoder.flush().is_err());
        assert!(matches!(encoder.finish(), Err(Error::Stream { .. })));
        // At the end.
        let mut encoder = Encoder::new(compression, None, Full(Some(20))).unwrap();
        encoder.write_all(&content[..5000]).unwrap();
        let Err(Error::Stream { source, .. }) = encoder.finish() else { panic!("{compression:?}: no error") };
        assert_eq!(source.kind(), ErrorKind::StorageFull);
    }
    assert!(Encoder::new(Compression::Gzip, None, Full(Some(3))).is_err());
}

#[test]
fn an_encoder_may_be_given_up_while_blocks_are_compressed() {
    for compression in BOTH {
        let mut encoder = Encoder::new(compression, None, Vec::new()).unwrap();
        encoder.write_all(&mixed()).unwrap();
        drop(encoder);
    }
}
