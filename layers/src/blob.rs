//! Writing a layer's blob: one pass from tar bytes to a compressed file with both digests.
