"""make.py DIRECTORY MIB: half of it words, a quarter packed integers, a quarter noise. The same bytes on every run."""

import itertools
import os
import random
import struct
import sys

MIB = 1 << 20
PIECE = 256 << 10
directory, size = sys.argv[1], int(sys.argv[2])
numbers = random.Random(7)

letters = b"etaoinshrdlucmfwypvbgkjq"
words = [bytes(numbers.choices(letters, k=numbers.randint(2, 10))) + b" " for _ in range(20_000)]
# The n-th word is 1/n as frequent as the first one, as in a language.
frequencies = list(itertools.accumulate(1 / n for n in range(1, len(words) + 1)))
text = b"".join(numbers.choices(words, cum_weights=frequencies, k=3_000_000))[: 16 * MIB]
integers = b"".join(struct.pack("<IHH", 7 * n, numbers.getrandbits(8), n & 3) for n in range(MIB))
pool = text + integers + numbers.randbytes(8 * MIB)

# Every part has the same pieces in another order, so that no compressor's window sees one twice.
os.makedirs(directory)
pieces = list(range(0, len(pool), PIECE))
for part in range(size * MIB // len(pool)):
    numbers.shuffle(pieces)
    with open(f"{directory}/part-{part:03}", "wb") as file:
        for piece in pieces:
            file.write(pool[piece : piece + PIECE])
